//! Where a database lies, and whether its path still leads to it.
//!
//! SQLite keeps writing to a file that was deleted, moved or replaced under it, and what it writes there is lost or
//! reaches nobody; the same with the write-ahead log beside it. So whoever holds a connection for long remembers which
//! files they are, and asks before using it. On Windows a file that SQLite has open can be neither deleted nor replaced,
//! and the answer is always yes.

use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::path::{Component, Path, PathBuf, Prefix};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::limits::LINKS_MAX;

/// A file, whatever it is called. The numbers are not used for another file as long as somebody has this one open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileId(u64, u64);

impl FileId {
    /// Of the file that `path` leads to now; `None` where it leads to none.
    pub fn of(path: &Path) -> Option<FileId> {
        Some(FileId::read(&fs::metadata(path).ok()?))
    }

    /// Of an open file.
    pub(super) fn of_file(file: &File) -> Option<FileId> {
        Some(FileId::read(&file.metadata().ok()?))
    }

    #[cfg(unix)]
    fn read(metadata: &Metadata) -> FileId {
        use std::os::unix::fs::MetadataExt;
        FileId(metadata.dev(), metadata.ino())
    }

    #[cfg(not(unix))]
    fn read(_: &Metadata) -> FileId {
        FileId(0, 0)
    }
}

/// A database that is open, and the files that SQLite keeps beside it: the write-ahead log, and the index of it that
/// connections share.
#[derive(Debug)]
pub struct DatabaseFile {
    pub(super) path: PathBuf,
    pub(super) log_path: PathBuf,
    index_path: PathBuf,
    pub(super) file: Option<FileId>,
    log: Option<FileId>,
    index: Option<FileId>,
    /// How many bytes the log had when this process last wrote to it.
    pub(super) log_bytes: Arc<AtomicU64>,
}

/// What became of an open database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileState {
    /// Everything is where it was.
    Held,
    /// Its log or the index of it was removed or replaced. What was written to the log is still at hand.
    LogGone,
    /// Its log is shorter than what was written to it, unless another process has emptied it into the database.
    LogShort,
    /// Another file is in its place.
    Taken,
    /// No file is in its place.
    Gone,
}

impl DatabaseFile {
    /// Of the database just opened at `path`.
    pub(super) fn of(path: &Path, log_bytes: Arc<AtomicU64>) -> DatabaseFile {
        let (log_path, index_path) = (beside(path, "-wal"), beside(path, "-shm"));
        let (file, log, index) = (FileId::of(path), FileId::of(&log_path), FileId::of(&index_path));
        DatabaseFile { path: path.to_owned(), log_path, index_path, file, log, index, log_bytes }
    }

    /// Whether what is committed now can be found again. Two system calls, about a microsecond each; the index, without
    /// which nothing is lost, is left to [`DatabaseFile::file_state`].
    pub fn is_held(&self) -> bool {
        self.file.is_some() && FileId::of(&self.path) == self.file && self.log_state() == FileState::Held
    }

    /// What became of it.
    pub fn file_state(&self) -> FileState {
        match FileId::of(&self.path) {
            None => FileState::Gone,
            Some(file) if Some(file) != self.file => FileState::Taken,
            Some(_) if FileId::of(&self.index_path) != self.index => FileState::LogGone,
            Some(_) => self.log_state(),
        }
    }

    fn log_state(&self) -> FileState {
        match fs::metadata(&self.log_path) {
            // Where it was not to be seen when it was opened, it is not watched.
            _ if self.log.is_none() => FileState::Held,
            Ok(log) if Some(FileId::read(&log)) != self.log => FileState::LogGone,
            Ok(log) if log.len() < self.log_bytes.load(Ordering::Relaxed) => FileState::LogShort,
            Ok(_) => FileState::Held,
            Err(_) => FileState::LogGone,
        }
    }

    /// Removes the files beside a database that is no longer here. SQLite would take them for those of whatever is
    /// opened here next, and write old pages into it.
    pub(super) fn clear(&self) {
        for (path, was) in [(&self.log_path, self.log), (&self.index_path, self.index)] {
            if was.is_some() && FileId::of(path) == was {
                // What cannot be removed can usually not be opened either, and opening will say so.
                let _ = fs::remove_file(path);
            }
        }
    }

    /// Puts aside a log that does not belong to the database any more: SQLite would write its pages into it.
    pub(super) fn put_log_aside(&self) -> io::Result<()> {
        let aside = with_end(self.log_path.clone(), "-left");
        match fs::rename(&self.log_path, &aside) {
            Ok(()) => {
                log::warn!("a log that does not belong to the database was put aside: {}", aside.display());
                Ok(())
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// Whether the log at its path is the one that was opened.
    pub(super) fn has_its_log(&self) -> bool {
        FileId::of(&self.log_path).is_some_and(|log| Some(log) == self.log)
    }
}

/// The path of the file itself, where `path` is a link or a part of it is. SQLite keeps its files beside that. A link may
/// lead to where no file is yet.
pub(super) fn resolved(path: &Path) -> PathBuf {
    let mut path = path.to_owned();
    for _ in 0..LINKS_MAX {
        let Ok(target) = fs::read_link(&path) else { break };
        path = path.parent().unwrap_or(Path::new("")).join(target);
    }
    let of_folder = || {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Some(fs::canonicalize(folder).ok()?.join(path.file_name()?))
    };
    plain(fs::canonicalize(&path).ok().or_else(of_folder).unwrap_or(path))
}

/// A path of Windows without the `\\?\` that resolving puts before it: nobody writes it so, and a log that says it so
/// names a file that not every program opens.
fn plain(path: PathBuf) -> PathBuf {
    let Some(Component::Prefix(prefix)) = path.components().next() else { return path };
    let begin = match prefix.kind() {
        Prefix::VerbatimDisk(disk) => OsString::from(format!("{}:", char::from(disk))),
        Prefix::VerbatimUNC(server, share) => [r"\\".as_ref(), server, r"\".as_ref(), share].into_iter().collect(),
        _ => return path,
    };
    PathBuf::from(begin).join(path.components().skip(1).collect::<PathBuf>())
}

/// The path of a file beside the database: its own, with this end.
pub(crate) fn beside(database: &Path, end: &str) -> PathBuf {
    with_end(resolved(database), end)
}

/// How the database and the files beside it are made: for their owner alone, for they hold prompts.
pub(super) fn for_owner_alone() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

fn with_end(path: PathBuf, end: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(end);
    name.into()
}

#[cfg(all(test, windows))]
mod tests {
    use super::*;

    #[test]
    fn a_resolved_path_is_as_one_writes_it() {
        let check = |resolved: &str, expected: &str| assert_eq!(plain(resolved.into()), Path::new(expected));
        check(r"\\?\C:\Users\a b\metrics.db", r"C:\Users\a b\metrics.db");
        check(r"\\?\UNC\nas\home\metrics.db", r"\\nas\home\metrics.db");
        check(r"D:\metrics.db", r"D:\metrics.db");
        check("metrics.db", "metrics.db");
        let own = std::env::current_dir().expect("a folder").join("metrics.db");
        assert!(!resolved(&own).to_str().expect("text").contains('?'));
    }
}
