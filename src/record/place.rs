//! Where a database lies, and whether its path still leads to it.
//!
//! SQLite keeps writing to a file that was deleted, moved or replaced under it, and what it writes there is lost or
//! reaches nobody. So whoever holds a connection for long remembers which file it is, and asks before using it.
//! On Windows a file that SQLite has open can be neither deleted nor replaced, and the answer is always yes.

use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::path::{Path, PathBuf};

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

    fn read(metadata: &Metadata) -> FileId {
        #[cfg(unix)]
        let id = {
            use std::os::unix::fs::MetadataExt;
            FileId(metadata.dev(), metadata.ino())
        };
        #[cfg(not(unix))]
        let id = {
            let _ = metadata;
            FileId(0, 0)
        };
        id
    }
}

/// A database that is open, and the files that SQLite keeps beside it.
#[derive(Debug)]
pub struct Place {
    path: PathBuf,
    file: Option<FileId>,
    beside: [Option<FileId>; 2],
}

/// The write-ahead log, and the memory that connections share.
const BESIDE: [&str; 2] = ["-wal", "-shm"];

impl Place {
    /// Of the database just opened at `path`.
    pub fn of(path: &Path) -> Place {
        let beside = BESIDE.map(|end| FileId::of(&with_end(path, end)));
        Place { path: path.to_owned(), file: FileId::of(path), beside }
    }

    /// The path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the path still leads to the file that was opened. One system call, about a microsecond.
    pub fn is_held(&self) -> bool {
        self.file.is_some() && FileId::of(&self.path) == self.file
    }

    /// Whether another file has taken its place.
    pub fn is_taken(&self) -> bool {
        FileId::of(&self.path).is_some_and(|other| Some(other) != self.file)
    }

    /// Removes the files beside a database that is no longer here. SQLite would take them for those of whatever is
    /// opened here next, and write old pages into it.
    pub fn clear(&self) {
        for (end, was) in BESIDE.iter().zip(self.beside) {
            let path = with_end(&self.path, end);
            if was.is_some() && FileId::of(&path) == was {
                // What cannot be removed can usually not be opened either, and opening will say so.
                let _ = fs::remove_file(&path);
            }
        }
    }
}

/// The path of the file itself, where `path` is a link or a part of it is. SQLite keeps its files beside that.
pub(super) fn resolved(path: &Path) -> PathBuf {
    let of_folder = || {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Some(fs::canonicalize(folder).ok()?.join(path.file_name()?))
    };
    fs::canonicalize(path).ok().or_else(of_folder).unwrap_or_else(|| path.to_owned())
}

/// The name of a file beside the database.
pub(super) fn with_end(path: &Path, end: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(end);
    name.into()
}
