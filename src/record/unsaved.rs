//! Rows that the database did not take before the proxy's end: a file beside it, which the next start takes in.
//!
//! ```text
//!  {"format":"lms_metrics_proxy unsaved rows","version":1,"id":"9f0c…","rows":2}
//!  {"row":{"endpoint":"/v1/chat/completions","model":"llama-3.2-1b-instruct","start_ms":1768818645678,…}}
//!  {"row":{…}}
//!  {"content":{"of":1,"prompt":"…","output":"…"}}
//! ```
//!
//! Figures come first, what was said behind them, the newest first (`of` counts rows from 0): where there is too little
//! room for all, figures go last. What is null is left out. A line that was not written whole is none.
//!
//! Invariant: each row is taken in once. How many of a file's rows are in the database stands there (`unsaved:ID` in
//! `meta`), written in the transaction that wrote the rows. The file is removed when it has them all and they are on the
//! disk; the name goes when the file's removal is on the disk, too. Killed in between, the next start goes on from there.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Seek, Write};
use std::path::{Path, PathBuf};

use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::database_file::{beside, for_owner_alone};
use super::meta;
use super::recorder::Recorder;
use super::room;
use super::row::{Content, Row};
use crate::limits::UNSAVED_LINE_BYTES_MAX;
use crate::order::sort_by_key;

const FORMAT: &str = "lms_metrics_proxy unsaved rows";
const VERSION: u32 = 1;
/// Behind the database's name, before a number.
const BEGIN: &str = "-unsaved-";
const END: &str = ".jsonl";

/// What was kept.
#[derive(Debug)]
pub(super) struct SavedRows {
    pub(super) path: PathBuf,
    /// So many of the oldest rows.
    pub(super) rows: usize,
    /// So many of the newest that said something with what they said.
    pub(super) contents: usize,
}

/// A file of rows.
#[derive(Debug)]
pub(super) struct Unsaved {
    path: PathBuf,
    /// The name in `meta` of how many are in the database.
    mark: String,
    rows: Vec<Row>,
}

#[derive(Deserialize, Serialize)]
struct Head {
    format: String,
    version: u32,
    id: String,
    rows: usize,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum SavedLine {
    Row(Box<Row>),
    Content {
        of: usize,
        #[serde(flatten)]
        content: Content,
    },
}

/// Writes `rows` into a new file beside the database, as far as there is room, and sees that they are on the disk.
pub(super) fn write(database: &Path, rows: &[Row]) -> io::Result<SavedRows> {
    let (path, mut file) = create(database)?;
    // What is on its way to the disk may still meet its end.
    let written = write_lines(&mut file, rows).and_then(|kept| file.sync_all().map(|()| kept));
    sync_folder(&path);
    let (rows, contents) = written.inspect_err(|_| drop(fs::remove_file(&path)))?;
    Ok(SavedRows { path, rows, contents })
}

/// How many rows, and how many contents, were written before there was no more room.
fn write_lines(file: &mut File, rows: &[Row]) -> io::Result<(usize, usize)> {
    let head = Head { format: FORMAT.to_owned(), version: VERSION, id: new_id()?, rows: rows.len() };
    write_line(file, &serde_json::to_value(head)?)?;
    for (at, row) in rows.iter().enumerate() {
        if let Err(e) = write_line(file, &json!({ "row": known(row)? })) {
            return if at == 0 { Err(e) } else { Ok((at, 0)) };
        }
    }
    let mut contents = 0;
    for (of, row) in rows.iter().enumerate().rev().filter(|(_, row)| !row.content.is_empty()) {
        let mut content = known(&row.content)?;
        content.insert("of".to_owned(), of.into());
        if write_line(file, &json!({ "content": content })).is_err() {
            break;
        }
        contents += 1;
    }
    Ok((rows.len(), contents))
}

/// Its members without those that are null: two thirds of a row's, where room may be scarce.
fn known(of: &impl Serialize) -> io::Result<Map<String, Value>> {
    let Value::Object(mut members) = serde_json::to_value(of)? else { unreachable!("rows have members") };
    members.retain(|_, value| !value.is_null());
    Ok(members)
}

/// Writes it whole or not at all.
fn write_line(file: &mut File, line: &Value) -> io::Result<()> {
    let whole_bytes = file.stream_position()?;
    file.write_all(format!("{line}\n").as_bytes()).inspect_err(|_| {
        // Should it stay, reading leaves it out.
        let _ = file.set_len(whole_bytes);
    })
}

/// A name that nobody has. The file is for its owner alone: it holds prompts.
fn create(database: &Path) -> io::Result<(PathBuf, File)> {
    let mut number = files(database).last().map_or(1, |(last, _)| last + 1);
    loop {
        let path = beside(database, &format!("{BEGIN}{number}{END}"));
        match for_owner_alone().create_new(true).open(&path) {
            Ok(file) => return Ok((path, file)),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => number += 1,
            Err(e) => return Err(e),
        }
    }
}

fn new_id() -> io::Result<String> {
    let mut bytes = [0; 16];
    SystemRandom::new().fill(&mut bytes).map_err(|_| io::Error::other("the system gives no random numbers"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The files beside a database by their numbers, oldest first.
fn files(database: &Path) -> Vec<(u64, PathBuf)> {
    let begin = beside(database, BEGIN);
    let (Some(folder), Some(begin)) = (begin.parent(), begin.file_name().and_then(|name| name.to_str())) else {
        return Vec::new();
    };
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let numbered = entries.filter_map(|entry| {
        let name = entry.file_name();
        Some((name.to_str()?.strip_prefix(begin)?.strip_suffix(END)?.parse().ok()?, entry.path()))
    });
    let mut files: Vec<_> = numbered.collect();
    sort_by_key(&mut files, |(number, _)| *number);
    files
}

impl Unsaved {
    /// Reads a file, as far as its lines are whole. An error: it is none of ours, or of a version to come.
    pub(super) fn read(path: &Path) -> io::Result<Unsaved> {
        let mut file = BufReader::new(File::open(path)?);
        let head = next_line(&mut file)?.and_then(|line| serde_json::from_slice::<Head>(&line).ok());
        let Some(head) = head.filter(|head| head.format == FORMAT && head.version == VERSION) else {
            return Err(io::Error::other("it does not begin as such a file does"));
        };
        let mut rows: Vec<Row> = Vec::new();
        while let Some(line) = next_line(&mut file)? {
            match serde_json::from_slice(&line)? {
                SavedLine::Row(row) => rows.push(*row),
                SavedLine::Content { of, content } => {
                    if let Some(row) = rows.get_mut(of) {
                        row.content = content;
                    }
                }
            }
        }
        if rows.len() < head.rows {
            log::warn!("{} has {} of {} rows: there was no room for the others", path.display(), rows.len(), head.rows);
        }
        Ok(Unsaved { path: path.to_owned(), mark: format!("unsaved:{}", head.id), rows })
    }

    /// Removes the file; when this returns, it is gone for good.
    pub(super) fn remove(&self) -> io::Result<()> {
        fs::remove_file(&self.path)?;
        sync_folder(&self.path);
        Ok(())
    }
}

/// `None` after the last whole one.
fn next_line(file: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    file.take(UNSAVED_LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
    Ok(line.ends_with(b"\n").then_some(line))
}

/// That a file was made or removed is on the disk, where folders can be told to.
fn sync_folder(path: &Path) {
    #[cfg(unix)]
    if let Some(folder) = path.parent() {
        // A file system that cannot loses nothing but this.
        let _ = File::open(folder).and_then(|folder| folder.sync_all());
    }
    #[cfg(not(unix))]
    let _ = path;
}

/// Keeps what the database has not taken in a file beside it.
pub fn save(path: &Path, recorder: &Recorder) {
    let rows = recorder.writer().take_waiting();
    room::release_reserve(path);
    let said = rows.iter().filter(|row| !row.content.is_empty()).count();
    match write(path, &rows) {
        Ok(kept) => {
            let file = kept.path.display();
            log::warn!("{} rows that the database did not take are kept in {file} until the next start", kept.rows);
            if kept.rows < rows.len() {
                log::error!("{} rows are lost: there is no room for them in {file}", rows.len() - kept.rows);
            }
            if kept.contents < said {
                log::warn!("what was said in {} of them is lost: there is no room for it", said - kept.contents);
            }
        }
        Err(e) => log::error!(
            "{} rows are lost: the database did not take them before the end, nor can a file beside it be written ({e})",
            rows.len()
        ),
    }
}

/// What earlier runs have kept in files, on its way into the database.
pub(super) struct TakeIn {
    files: VecDeque<PathBuf>,
    /// The one that is read, and how many of its rows are in.
    open: Option<(Unsaved, usize)>,
}

impl TakeIn {
    pub(super) fn find(path: &Path) -> TakeIn {
        TakeIn { files: files(path).into_iter().map(|(_, file)| file).collect(), open: None }
    }

    pub(super) fn waits(&self) -> bool {
        self.open.is_some() || !self.files.is_empty()
    }

    /// Takes in as much as the database takes now. `move_log` has what is in the log moved into it.
    pub(super) fn step(&mut self, recorder: &Recorder, move_log: impl Fn() -> rusqlite::Result<u64>) {
        while self.waits() {
            if let Err(e) = self.take_in(recorder, &move_log) {
                log::debug!("rows of an earlier run are taken in later: {e}");
                return;
            }
        }
    }

    /// Some rows, or the next file, or the end of one.
    fn take_in(&mut self, recorder: &Recorder, move_log: impl Fn() -> rusqlite::Result<u64>) -> rusqlite::Result<()> {
        let Some((unsaved, done)) = &mut self.open else {
            let Some(path) = self.files.front() else { return Ok(()) };
            match Unsaved::read(path) {
                Ok(unsaved) => {
                    let done = meta::number(&recorder.writer().store.conn, &unsaved.mark)?;
                    self.open = Some((unsaved, done.and_then(|done| usize::try_from(done).ok()).unwrap_or(0)));
                }
                Err(e) => log::error!("{} is left as it is, for it cannot be read: {e}", path.display()),
            }
            self.files.pop_front();
            return Ok(());
        };
        if *done < unsaved.rows.len() {
            *done = recorder.writer().take_in(&unsaved.mark, &unsaved.rows, *done)?;
            return Ok(());
        }
        // They are on the disk before the file is gone.
        move_log()?;
        let (rows, file) = (unsaved.rows.len(), unsaved.path.display());
        match unsaved.remove() {
            Ok(()) => {
                log::info!("{rows} rows that an earlier run kept in {file} are in the database");
                recorder.clean(|conn| conn.execute("DELETE FROM meta WHERE name = ?1", [&unsaved.mark]))?;
            }
            // The next start finds that they are in.
            Err(e) => log::warn!("{rows} rows are in the database, but {file} cannot be removed: {e}"),
        }
        self.open = None;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;
    use crate::record::store::{DbSync, Store};
    use crate::testing::{Folder, Random, random_row, row};

    fn random_rows(count: usize) -> Vec<Row> {
        let mut random = Random::new(11);
        // Any rate has a text, but not each is read as the very same number.
        let rate = |row: Row| Row {
            tokens_per_second: row.tokens_per_second.map(f64::round),
            prompt_tokens_per_second: row.prompt_tokens_per_second.map(f64::round),
            ..row
        };
        (0..count).map(|_| rate(random_row(&mut random))).collect()
    }

    #[test]
    fn what_is_written_is_read_and_is_for_its_owner_alone() {
        let folder = Folder::new();
        let database = folder.join("metrics.db");
        let rows = random_rows(200);
        let kept = write(&database, &rows).expect("there is room");
        assert_eq!(kept.rows, 200);
        assert_eq!(kept.contents, rows.iter().filter(|row| !row.content.is_empty()).count());
        assert_eq!(
            write(&database, &rows[..1]).expect("there is room").path,
            folder.join("metrics.db-unsaved-2.jsonl")
        );
        let second = folder.join("metrics.db-unsaved-2.jsonl");
        assert_eq!(files(&database), [(1, kept.path.clone()), (2, second)]);
        let read = Unsaved::read(&kept.path).expect("it is ours");
        assert_eq!(read.rows, rows);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(fs::metadata(&kept.path).expect("is there").permissions().mode() & 0o777, 0o600);
        }
        read.remove().expect("removed");
        assert_eq!(files(&database).len(), 1);
    }

    #[test]
    fn of_a_file_that_was_cut_anywhere_every_whole_line_is_read() {
        let folder = Folder::new();
        let rows = vec![row(); 3];
        let kept = write(&folder.join("metrics.db"), &rows).expect("there is room");
        let bytes = fs::read(&kept.path).expect("is there");
        for cut in 0..bytes.len() {
            fs::write(&kept.path, &bytes[..cut]).expect("cut");
            let lines = bytes[..cut].iter().filter(|byte| **byte == b'\n').count();
            let Ok(read) = Unsaved::read(&kept.path) else {
                assert_eq!(lines, 0);
                continue;
            };
            assert_eq!(read.rows.len(), (lines - 1).min(3), "{cut}");
            let with_content = read.rows.iter().filter(|row| !row.content.is_empty()).count();
            assert_eq!(with_content, (lines - 1).saturating_sub(3), "{cut}");
            assert!(read.rows.iter().rev().take(with_content).all(|row| !row.content.is_empty()), "the newest");
        }
    }

    #[test]
    fn a_file_that_is_none_of_ours_or_of_a_version_to_come_is_not_read() {
        let folder = Folder::new();
        let path = folder.join("metrics.db-unsaved-1.jsonl");
        let head = |format: &str, version: u32| {
            format!("{{\"format\":\"{format}\",\"version\":{version},\"id\":\"1\",\"rows\":0}}\n")
        };
        let check = |text: &str, read: bool| {
            fs::write(&path, text).expect("written");
            assert_eq!(Unsaved::read(&path).is_ok(), read, "{text}");
        };
        check(&head(FORMAT, VERSION), true);
        check(&head(FORMAT, VERSION + 1), false);
        check(&head("something else", VERSION), false);
        check(&(head(FORMAT, VERSION) + "{\"row\":{}}\n"), false);
        check("", false);
    }

    fn count(path: &Path, what: &str) -> i64 {
        let connection = Connection::open(path).expect("opens");
        connection.query_row(&format!("SELECT count(*) FROM {what}"), [], |row| row.get(0)).expect("a query")
    }

    fn recorder(path: &Path) -> Recorder {
        Recorder::new(Store::open(path, DbSync::Normal).expect("opens"))
    }

    /// Rows that make several transactions.
    fn rows(count: usize) -> Vec<Row> {
        let said = Content { prompt: Some("x".repeat(300_000).into()), ..Content::default() };
        vec![Row { content: said, ..row() }; count]
    }

    #[test]
    fn killed_at_any_point_of_taking_rows_in_none_is_doubled_or_lost() {
        // So many steps are made before the kill; the last of them does not get to remove the file.
        for steps in 0..7 {
            for file_stays in [false, true] {
                let folder = Folder::new();
                let path = folder.join("metrics.db");
                let kept = write(&path, &rows(10)).expect("there is room");
                let bytes = std::fs::read(&kept.path).expect("is there");
                let first = recorder(&path);
                let mut taken = TakeIn::find(&path);
                for _ in 0..steps {
                    taken.take_in(&first, || Ok(0)).expect("takes in");
                }
                let is_in = steps == 6;
                assert_eq!(taken.waits(), !is_in, "four transactions between reading and the end");
                if file_stays && is_in {
                    // Its name in the database goes only after the file.
                    std::fs::write(&kept.path, &bytes).expect("written");
                    let mark = Unsaved::read(&kept.path).expect("is ours").mark;
                    first.clean(|conn| crate::record::meta::set(conn, &mark, 10)).expect("written");
                }
                drop(first);
                let second = recorder(&path);
                let mut taken = TakeIn::find(&path);
                taken.step(&second, || Ok(0));
                assert!(!taken.waits());
                assert_eq!((count(&path, "requests"), count(&path, "content")), (10, 10), "{steps} {file_stays}");
                assert_eq!(count(&path, "meta WHERE name LIKE 'unsaved:%'"), 0);
                assert_eq!(files(&path), []);
            }
        }
    }

    #[test]
    fn rows_that_cannot_be_taken_in_now_are_tried_again_and_a_file_that_cannot_be_read_stays() {
        let folder = Folder::new();
        let path = folder.join("metrics.db");
        let foreign = write(&path, &rows(1)).expect("there is room").path;
        std::fs::write(&foreign, "something else\n").expect("written");
        write(&path, &rows(3)).expect("there is room");
        let recorder = recorder(&path);
        let other = Connection::open(&path).expect("opens");
        other.execute_batch("BEGIN IMMEDIATE").expect("locks");
        let mut taken = TakeIn::find(&path);
        taken.step(&recorder, || Ok(0));
        assert!(taken.waits());
        other.execute_batch("ROLLBACK").expect("unlocks");
        taken.step(&recorder, || Ok(0));
        assert!(!taken.waits());
        assert_eq!((count(&path, "requests"), files(&path)), (3, vec![(1, foreign)]));
    }

    #[test]
    fn a_row_that_is_refused_does_not_keep_the_others_out() {
        let folder = Folder::new();
        let path = folder.join("metrics.db");
        let recorder = recorder(&path);
        let refuse = "CREATE TRIGGER refuse BEFORE INSERT ON requests WHEN new.model = 'refused'
             BEGIN SELECT RAISE(ABORT, 'no'); END;
             CREATE TRIGGER unsaid BEFORE INSERT ON content WHEN new.output = 'unsaid'
             BEGIN SELECT RAISE(ABORT, 'no'); END";
        Connection::open(&path).expect("opens").execute_batch(refuse).expect("made");
        let unsaid = Row { content: Content { output: Some("unsaid".to_owned()), ..Content::default() }, ..row() };
        let refused = Row { model: Some("refused".to_owned()), ..row() };
        write(&path, &[row(), unsaid, refused, row()]).expect("there is room");
        TakeIn::find(&path).step(&recorder, || Ok(0));
        assert_eq!((count(&path, "requests"), count(&path, "content")), (3, 2));
        assert_eq!(files(&path), []);
    }
}
