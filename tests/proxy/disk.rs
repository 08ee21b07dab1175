//! A database that cannot be written for a while, or is gone: replies go out all the same, rows wait and are written
//! when it works again. How a locked one is dealt with is `record`'s.
#![cfg(unix)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use crate::harness::*;

/// The database lies in a folder that can be taken away.
const ELSEWHERE: (&str, &str) = ("DATABASE_URL", "sqlite:./disk/metrics.db");

fn database(proxy: &Proxy) -> PathBuf {
    proxy.folder().path().join("disk/metrics.db")
}

fn answering() -> Upstream {
    Upstream::answering(|link, _| link.send(chat_reply()))
}

/// Asks so many times; every reply is whole, whatever happens to its row.
fn ask(proxy: &Proxy, times: usize) {
    for _ in 0..times {
        assert_eq!(proxy.ask(chat()).text(), CHAT_REPLY);
    }
}

/// Rows are waiting for a database that takes none: the proxy answers, and says in the log once what is wrong.
fn check_waits(proxy: &Proxy) {
    ask(proxy, 3);
    proxy.wait_for_log("does not take rows");
    assert_eq!(proxy.ask(get("/health")).status(), 200);
    assert!([200, 503].contains(&proxy.ask(get("/stats/summary")).status()));
    assert_eq!(proxy.logged_at_least("does not take rows", 1), 1);
}

/// It works again: every row is there, the statistics know them, and nothing is broken.
fn check_catches_up(proxy: &Proxy, database: &Path, rows: usize) {
    until("rows", || {
        // Another program may well meet the moment in which the file is made.
        let ready = fs::metadata(database).is_ok_and(|file| file.len() > 0);
        (ready && proxy.logged("takes rows again") == 1).then_some(())
    });
    assert_eq!(rows_of(database).len(), rows);
    assert_eq!(proxy.json("/stats/summary")["total_requests"], rows);
    ask(proxy, 1);
    assert_eq!(rows_of(database).len(), rows + 1);
    proxy.check_sound_with(database);
}

// ---- deleted, moved, damaged ---------------------------------------------------------------------------------------

/// After one row `happens` to the database's folder; the next row stands in a database of its own.
fn check_begun_anew(happens: impl FnOnce(&Path)) {
    let upstream = answering();
    let proxy = Proxy::with(&upstream, &[ELSEWHERE]);
    ask(&proxy, 1);
    assert_eq!(proxy.json("/stats/summary")["total_requests"], 1);
    happens(database(&proxy).parent().expect("a folder"));
    ask(&proxy, 1);
    proxy.wait_for_log("was deleted or moved");
    assert_eq!(rows_of(&database(&proxy)).len(), 1);
    assert_eq!(proxy.json("/stats/summary")["total_requests"], 1);
    ask(&proxy, 2);
    assert_eq!(rows_of(&database(&proxy)).len(), 3);
    proxy.check_sound_with(&database(&proxy));
}

#[test]
fn a_database_deleted_while_running_is_begun_anew() {
    check_begun_anew(|folder| fs::remove_file(folder.join("metrics.db")).expect("removed"));
    check_begun_anew(|folder| {
        for name in ["metrics.db", "metrics.db-wal", "metrics.db-shm"] {
            fs::remove_file(folder.join(name)).expect("removed");
        }
    });
    check_begun_anew(|folder| fs::remove_dir_all(folder).expect("removed"));
    check_begun_anew(|folder| fs::rename(folder, folder.with_extension("old")).expect("renamed"));
}

#[test]
fn the_one_that_was_begun_anew_holds_everything_when_the_proxy_was_stopped() {
    let upstream = answering();
    let mut proxy = Proxy::with(&upstream, &[ELSEWHERE]);
    ask(&proxy, 1);
    // Whoever has a connection of its own has opened it.
    assert_eq!(proxy.json("/stats/summary")["total_requests"], 1);
    let path = database(&proxy);
    fs::rename(&path, path.with_extension("old")).expect("renamed");
    ask(&proxy, 1);
    // A worker, who outlives the exchange, holds on to what writes rows.
    assert_eq!(proxy.ask(streaming_chat()).text(), CHAT_REPLY);
    proxy.signal("TERM");
    assert_eq!(proxy.wait().code(), Some(0));
    let copy = proxy.folder().path().join("copy.db");
    fs::copy(&path, &copy).expect("copied");
    assert_eq!(rows_of(&copy).len(), 2);
    assert_eq!(rows_of(&path.with_extension("old")).len(), 1);
}

#[test]
fn statistics_do_not_wait_for_the_next_row_to_find_that_the_database_was_deleted() {
    let upstream = answering();
    let proxy = Proxy::with(&upstream, &[ELSEWHERE]);
    ask(&proxy, 1);
    assert_eq!(proxy.json("/stats/summary")["total_requests"], 1);
    fs::remove_dir_all(database(&proxy).parent().expect("a folder")).expect("removed");
    assert_eq!(proxy.json("/stats/summary")["total_requests"], 0);
    ask(&proxy, 1);
    assert_eq!(proxy.json("/stats/summary")["total_requests"], 1);
    proxy.check_sound_with(&database(&proxy));
}

/// Of five rows the backup has the first two.
fn put_backup_of_two_in_place(proxy: &Proxy) {
    ask(proxy, 2);
    let (path, backup) = (proxy.folder().database(), proxy.folder().path().join("backup.db"));
    let connection = rusqlite::Connection::open(&path).expect("a database");
    connection.execute_batch(&format!("VACUUM INTO '{}'", backup.display())).expect("copied");
    drop(connection);
    ask(proxy, 3);
    fs::rename(backup, path).expect("renamed");
}

#[test]
fn a_backup_put_in_its_place_is_gone_on_with() {
    let upstream = answering();
    let proxy = Proxy::before(&upstream);
    put_backup_of_two_in_place(&proxy);
    ask(&proxy, 1);
    proxy.wait_for_log("was replaced by another database");
    assert_eq!(proxy.rows().len(), 3);
    assert_eq!(proxy.json("/stats/summary")["total_requests"], 3);
    proxy.check_sound();
}

#[test]
fn who_opens_a_backup_first_does_not_read_the_log_of_the_database_before_into_it() {
    let upstream = answering();
    let proxy = Proxy::before(&upstream);
    put_backup_of_two_in_place(&proxy);
    // No row has come since, and nobody has asked before.
    let exported = proxy.ask(get("/stats/export?format=jsonl"));
    assert_eq!(exported.text().lines().count(), 2, "{}", exported.text());
    assert_eq!(proxy.rows().len(), 2);
    proxy.check_sound();
}

#[test]
fn rows_wait_while_no_database_can_be_made() {
    let upstream = answering();
    let proxy = Proxy::with(&upstream, &[ELSEWHERE]);
    ask(&proxy, 1);
    let folder = database(&proxy).parent().expect("a folder").to_path_buf();
    fs::remove_dir_all(&folder).expect("removed");
    fs::write(&folder, "in the way").expect("written");
    check_waits(&proxy);
    fs::remove_file(&folder).expect("removed");
    check_catches_up(&proxy, &database(&proxy), 3);
}

#[test]
fn metrics_tell_what_is_in_memory_while_the_database_cannot_be_read() {
    let upstream = answering();
    let proxy = Proxy::with(&upstream, &[ELSEWHERE]);
    ask(&proxy, 1);
    let text = |up: u8| {
        let reply = proxy.ask(get("/metrics"));
        assert_eq!(reply.status(), 200, "{}", reply.text());
        let text = reply.text().to_owned();
        assert!(text.contains(&format!("\nlms_proxy_database_up {up}\n")), "{text}");
        assert!(text.contains("\nlms_proxy_rows_written_total 1\n") && text.contains("\nlms_proxy_refusals_total{"));
        // At zero, counters of all time would seem to have begun anew.
        assert_eq!(text.contains("lms_proxy_requests_total"), up == 1, "{text}");
        assert_eq!(text.contains("lms_proxy_request_duration_seconds"), up == 1, "{text}");
    };
    text(1);
    let folder = database(&proxy).parent().expect("a folder").to_path_buf();
    fs::remove_dir_all(&folder).expect("removed");
    fs::write(&folder, "in the way").expect("written");
    for _ in 0..20 {
        text(0);
        assert_eq!(proxy.ask(get("/stats/summary")).status(), 503);
    }
    // Regression: each question was a line of the log.
    proxy.wait_for_log("cannot be read for statistics");
    assert_eq!(proxy.logged_at_least("cannot be read for statistics", 1), 1);
}

/// Overwrites every page in the middle of the file, with nothing of it left in the log.
fn damage(database: &Path) {
    let connection = rusqlite::Connection::open(database).expect("a database");
    // A change by another process has the proxy read its pages again.
    connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE); UPDATE meta SET value = value").expect("changed");
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).expect("moved");
    drop(connection);
    let mut bytes = fs::read(database).expect("readable");
    bytes[4096..].fill(0x5a);
    fs::write(database, bytes).expect("written");
}

#[test]
fn rows_wait_while_the_database_is_damaged_and_are_written_when_it_was_moved_away() {
    let upstream = answering();
    let proxy = Proxy::before(&upstream);
    ask(&proxy, 1);
    let path = proxy.folder().database();
    damage(&path);
    check_waits(&proxy);
    proxy.wait_for_log("move it away to begin anew");
    fs::rename(&path, path.with_extension("damaged")).expect("renamed");
    check_catches_up(&proxy, &path, 3);
}

#[test]
fn a_database_that_takes_no_rows_to_the_end_does_not_hold_up_the_end() {
    let upstream = answering();
    let mut proxy = Proxy::before(&upstream);
    damage(&proxy.folder().database());
    check_waits(&proxy);
    proxy.signal("TERM");
    assert_eq!(proxy.wait().code(), Some(0));
    // The next database takes in what this one did not.
    proxy.wait_for_log("3 rows that the database did not take are kept");
    let folder = proxy.folder().clone();
    fs::rename(folder.database(), folder.path().join("damaged.db")).expect("renamed");
    let url = upstream.url();
    let mut proxy = Proxy::start(&folder, &[("LM_STUDIO_URL", &url)]);
    proxy.wait_for_log("3 rows that an earlier run kept");
    assert_eq!(proxy.json("/stats/summary")["total_requests"], 3);
    assert!(proxy.rows().iter().all(|row| row.prompt.is_some() && row.total_tokens == Some(22)));
    proxy.check_sound();
    proxy.signal("TERM");
    assert_eq!(proxy.wait().code(), Some(0));
    assert_eq!(folder.names(), ["damaged.db", "metrics.db"]);
}

/// Regression: a line of the log for each row.
#[test]
fn what_the_database_refuses_for_good_is_said_once_and_counted() {
    let upstream = answering();
    let proxy = Proxy::before(&upstream);
    let other = rusqlite::Connection::open(proxy.folder().database()).expect("a database");
    let refuse = "CREATE TRIGGER refuses BEFORE INSERT ON requests BEGIN SELECT raise(ABORT, 'not that one'); END";
    other.execute_batch(refuse).expect("made");
    ask(&proxy, 5);
    until("all rows given up", || {
        proxy.ask(get("/metrics")).text().contains("\nlms_proxy_rows_dropped_total 5\n").then_some(())
    });
    assert_eq!(proxy.logged_at_least("a row was given up", 1), 1);
    other.execute_batch("DROP TRIGGER refuses").expect("dropped");
    ask(&proxy, 1);
    assert_eq!(proxy.rows().len(), 1);
    // What was said is refused where somebody has its place.
    for id in 2..7 {
        other.execute("INSERT INTO content (id, prompt) VALUES (?1, 'left')", [id]).expect("written");
    }
    ask(&proxy, 5);
    assert_eq!(proxy.wait_for_rows(6).len(), 6);
    assert_eq!(proxy.logged_at_least("is not kept", 1), 1);
}

// ---- the files beside it -------------------------------------------------------------------------------------------

/// After three rows `happens` to the files; three more are asked for, and the proxy is killed. Which of them are there
/// when the database is opened again, and what the log said.
fn rows_after_kill(happens: impl FnOnce(&Proxy, &Path), words: &str) -> Vec<i64> {
    let upstream = answering();
    let proxy = Proxy::with(&upstream, &[ELSEWHERE]);
    ask(&proxy, 3);
    assert_eq!(proxy.json("/stats/summary")["total_requests"], 3);
    // What the keeper writes when it begins is written: one page in a log that is empty fits into what is left of it.
    let clock = "SELECT count(*) FROM meta WHERE name = 'clock_believed_ms'";
    until("the keeper has begun", || (count_of(&database(&proxy), clock) == 1).then_some(()));
    happens(&proxy, &database(&proxy));
    ask(&proxy, 3);
    proxy.wait_for_log(words);
    // Statistics find it by themselves, whoever asks.
    let total = proxy.json("/stats/summary")["total_requests"].as_i64().expect("a number");
    assert_eq!(proxy.json("/stats/recent")["requests"].as_array().map(Vec::len), Some(total as usize));
    let path = database(&proxy);
    let (_, _folder) = proxy.kill();
    let sound = "SELECT integrity_check = 'ok' FROM pragma_integrity_check";
    assert_eq!(count_of(&path, sound), 1);
    let ids: Vec<i64> = rows_of(&path).iter().map(|row| row.id).collect();
    assert_eq!(ids.len() as i64, total, "what was counted is what is there");
    ids
}

fn beside(database: &Path, end: &str) -> PathBuf {
    database.with_file_name(format!("metrics.db{end}"))
}

#[test]
fn no_acknowledged_row_is_lost_with_a_log_that_was_removed_or_replaced() {
    let all = [1, 2, 3, 4, 5, 6];
    let words = "was removed while in use";
    for ends in [&["-wal"][..], &["-shm"], &["-wal", "-shm"]] {
        let remove = |_: &Proxy, path: &Path| {
            ends.iter().for_each(|end| fs::remove_file(beside(path, end)).expect("removed"));
        };
        assert_eq!(rows_after_kill(remove, words), all, "{ends:?}");
    }
    let move_away = |_: &Proxy, path: &Path| fs::rename(beside(path, "-wal"), beside(path, "-kept")).expect("renamed");
    assert_eq!(rows_after_kill(move_away, words), all);
    // Its own copy is not the log either.
    let replace = |_: &Proxy, path: &Path| {
        fs::copy(beside(path, "-wal"), beside(path, "-copy")).expect("copied");
        fs::rename(beside(path, "-copy"), beside(path, "-wal")).expect("renamed");
    };
    assert_eq!(rows_after_kill(replace, words), all);
}

#[test]
fn a_row_is_saved_from_a_log_that_is_gone_though_none_follows() {
    let upstream = answering();
    let proxy = Proxy::before(&upstream);
    ask(&proxy, 1);
    let path = proxy.folder().database();
    fs::remove_file(beside(&path, "-wal")).expect("removed");
    // The keeper looks about a second after a row.
    proxy.wait_for_log("was removed while in use");
    let (_, folder) = proxy.kill();
    assert_eq!(rows_of(&folder.database()).len(), 1);
}

#[test]
fn a_log_that_was_cut_costs_the_rows_that_were_only_there_and_no_other() {
    let cut_to = |bytes: u64| {
        move |_: &Proxy, path: &Path| {
            let log = fs::File::options().write(true).open(beside(path, "-wal")).expect("is there");
            log.set_len(bytes).expect("cut");
        }
    };
    assert!(rows_after_kill(cut_to(0), "was cut while in use").len() >= 3);
    assert!(rows_after_kill(cut_to(5000), "was cut while in use").len() >= 3);
    // Emptied into the database by somebody else, it is whole.
    let upstream = answering();
    let proxy = Proxy::before(&upstream);
    for rows in 1..4 {
        ask(&proxy, 1);
        let other = rusqlite::Connection::open(proxy.folder().database()).expect("a database");
        other.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).expect("moved");
        drop(other);
        assert_eq!(proxy.json("/stats/summary")["total_requests"], rows);
    }
    assert_eq!((proxy.rows().len(), proxy.logged("was cut"), proxy.logged("was removed")), (3, 0, 0));
    // What is left of a log that is in the database already would take it back.
    let moved_and_cut = |proxy: &Proxy, path: &Path| {
        let other = rusqlite::Connection::open(path).expect("a database");
        other.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())).expect("moved");
        cut_to(5000)(proxy, path);
        drop(other);
    };
    assert_eq!(rows_after_kill(moved_and_cut, "was cut while in use"), [1, 2, 3, 4, 5, 6]);
}

#[test]
fn no_row_is_lost_when_a_database_is_moved_away_and_back() {
    for foreign in [&b"a text that somebody wants to keep\n"[..], b""] {
        let upstream = answering();
        let proxy = Proxy::with(&upstream, &[ELSEWHERE]);
        let path = database(&proxy);
        ask(&proxy, 3);
        fs::rename(&path, path.with_extension("away")).expect("renamed");
        if foreign.is_empty() {
            fs::create_dir(&path).expect("made");
        } else {
            fs::write(&path, foreign).expect("written");
        }
        check_waits(&proxy);
        if foreign.is_empty() {
            fs::remove_dir(&path).expect("nothing is in it");
        } else {
            assert_eq!(fs::read(&path).expect("is there"), foreign);
        }
        fs::rename(path.with_extension("away"), &path).expect("renamed");
        check_catches_up(&proxy, &path, 6);
        ask(&proxy, 20);
        let (_, _folder) = proxy.kill();
        assert_eq!(rows_of(&path).len(), 27);
    }
}

// ---- full, failing -------------------------------------------------------------------------------------------------

/// A small file system, as long as it lives.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None` where mounting is not allowed.
    fn new(at: PathBuf, megabytes: u32) -> Option<SmallDisk> {
        fs::create_dir_all(&at).expect("the folder is writable");
        let size = format!("size={megabytes}m");
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&at).output();
        mount.is_ok_and(|done| done.status.success()).then_some(SmallDisk(at))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: the proxy may still have it open.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn rows_wait_while_the_disk_is_full() {
    let folder = Arc::new(Folder::new());
    let Some(_disk) = SmallDisk::new(folder.path().join("disk"), 1) else {
        return eprintln!("skipped: no small file system can be mounted here");
    };
    let upstream = answering();
    let url = upstream.url();
    let proxy = Proxy::start(&folder, &[("LM_STUDIO_URL", &url), ELSEWHERE]);
    ask(&proxy, 1);
    let filler = folder.path().join("disk/filler");
    fs::write(&filler, vec![0; 2_000_000]).expect_err("the disk is full");
    // What is allocated already may take some rows.
    let mut asked = 1;
    until("a full disk", || {
        ask(&proxy, 1);
        asked += 1;
        (proxy.logged("does not take rows") > 0).then_some(())
    });
    check_waits(&proxy);
    fs::remove_file(&filler).expect("removed");
    check_catches_up(&proxy, &database(&proxy), asked + 3);
}

/// Rows until the disk is full, and more; a megabyte comes free while the proxy runs, or after it was stopped. Every row is
/// there with its prompt, in one file.
fn check_full_of_rows(freed_before_the_stop: bool) {
    let folder = Arc::new(Folder::new());
    let Some(_disk) = SmallDisk::new(folder.path().join("disk"), 5) else {
        return eprintln!("skipped: no small file system can be mounted here");
    };
    let upstream = answering();
    let url = upstream.url();
    let settings = [("LM_STUDIO_URL", url.as_str()), ELSEWHERE];
    let ballast = folder.path().join("disk/ballast");
    fs::create_dir_all(folder.path().join("disk"))
        .and_then(|()| fs::write(&ballast, vec![0; 1_500_000]))
        .expect("room");
    let mut proxy = Proxy::start(&folder, &settings);
    let mut asked = 0;
    let mut ask_once = |proxy: &Proxy| {
        // What one says that another has said takes no room.
        let prompt = format!("{{\"model\":\"m\",\"messages\":[\"{asked} {}\"]}}", "x".repeat(30_000));
        assert_eq!(proxy.ask(post("/v1/chat/completions", &prompt)).text(), CHAT_REPLY);
        asked += 1;
        asked
    };
    until("a full disk", || {
        ask_once(&proxy);
        (proxy.logged("does not take rows") > 0).then_some(())
    });
    let asked = (0..10).map(|_| ask_once(&proxy)).last().expect("ten");
    let stop = |proxy: &mut Proxy| {
        proxy.signal("TERM");
        assert_eq!(proxy.wait().code(), Some(0));
        assert_eq!(proxy.logged("rows are lost"), 0);
    };
    if freed_before_the_stop {
        fs::remove_file(&ballast).expect("removed");
        proxy.wait_for_log("takes rows again");
    } else {
        // There is no room for what was said; figures have a reserve.
        stop(&mut proxy);
        proxy.wait_for_log("rows that the database did not take are kept");
        fs::remove_file(&ballast).expect("removed");
        proxy = Proxy::start(&folder, &settings);
        proxy.wait_for_log("rows that an earlier run kept");
    }
    assert_eq!(proxy.json("/stats/summary")["total_input_tokens"], 17 * asked);
    stop(&mut proxy);
    let names =
        fs::read_dir(folder.path().join("disk")).expect("a folder").map(|entry| entry.expect("one").file_name());
    assert_eq!(names.collect::<Vec<_>>(), ["metrics.db"]);
    let with_prompt = rows_of(&database(&proxy)).iter().filter(|row| row.prompt.is_some()).count();
    assert!(with_prompt == asked || !freed_before_the_stop && with_prompt >= asked - 11, "{with_prompt} of {asked}");
}

#[test]
fn a_disk_full_of_rows_takes_them_again_when_there_is_room() {
    check_full_of_rows(true);
}

#[test]
fn rows_that_a_full_disk_does_not_take_before_the_end_are_taken_in_by_the_next_start() {
    check_full_of_rows(false);
}

#[test]
fn rows_wait_while_files_cannot_grow() {
    // Writing beyond the limit of a process is an I/O error (EFBIG). Nobody has to be root for it.
    let upstream = answering();
    let url = upstream.url();
    let folder = Arc::new(Folder::new());
    let proxy = Proxy::start_after("trap '' XFSZ", &folder, &[("LM_STUDIO_URL", &url)]);
    let limit = |bytes: &str| {
        let id = proxy.id().to_string();
        let done = Command::new("prlimit").args(["--pid", &id, &format!("--fsize={bytes}:")]).status();
        done.is_ok_and(|status| status.success())
    };
    ask(&proxy, 1);
    if !limit("4096") {
        return eprintln!("skipped: there is no prlimit");
    }
    check_waits(&proxy);
    assert!(limit("unlimited"));
    check_catches_up(&proxy, &folder.database(), 4);
}

/// Of the proxy's writes and syncs the ones in `window` fail with `error`; whether the log tells depends on whether they go
/// on failing once the keeper has made room (`is_told`).
fn check_injected(error: &str, window: &str, is_told: bool) {
    let can = Command::new("strace").args(["-qq", "-o", "/dev/null", "true"]).output();
    if !can.is_ok_and(|done| done.status.success()) {
        return eprintln!("skipped: there is no strace, or it may not trace");
    }
    let upstream = answering();
    let url = upstream.url();
    let folder = Arc::new(Folder::new());
    let calls = "pwrite64,fdatasync,ftruncate,fallocate";
    // -D: the proxy stays our own child.
    let strace =
        format!("strace -D -f -qq -o /dev/null -e trace={calls} -e inject={calls}:error={error}:when={window}");
    let proxy = Proxy::start_by(&strace, &folder, &[("LM_STUDIO_URL", &url)]);
    let mut asked = 0;
    until("the end of the failures", || {
        // Of a request for a stream a worker commits the row. What a lane cannot write, a worker would.
        assert_eq!(proxy.ask(streaming_chat()).text(), CHAT_REPLY);
        asked += 1;
        // Each commit makes one of these calls at least.
        (proxy.logged("takes rows again") > 0 || !is_told && asked > 240).then_some(())
    });
    if is_told {
        proxy.wait_for_log("does not take rows");
    }
    // Calls are counted for each thread, so another one may meet failures of its own.
    assert_eq!(proxy.wait_for_rows(asked).len(), asked, "{error} {window}");
    assert_eq!(proxy.json("/stats/summary")["total_requests"], asked);
    proxy.check_sound();
}

#[test]
fn rows_wait_while_writing_fails() {
    // Calls before the window make the database; the window begins at different points of a commit.
    for window in ["200..230", "203..240", "207..211"] {
        check_injected("ENOSPC", window, false);
        check_injected("EIO", window, true);
    }
}

// ---- at rest -------------------------------------------------------------------------------------------------------

/// Regression: until the log had grown by 16 MB, whoever removed it before a kill took every row since the start away.
#[test]
fn rows_are_in_the_database_itself_soon_after_the_last_one() {
    let upstream = answering();
    let proxy = Proxy::before(&upstream);
    let path = proxy.folder().database();
    let mut rows = 0;
    for _ in 0..2 {
        ask(&proxy, 3);
        rows += 3;
        let copy = proxy.folder().path().join("copy.db");
        until("rows in the file alone", || {
            fs::copy(&path, &copy).expect("copied");
            let copied = rusqlite::Connection::open(&copy).expect("opens");
            let count = copied.query_row("SELECT count(*) FROM requests", [], |row| row.get(0));
            (count == Ok(rows)).then_some(())
        });
    }
    fs::remove_file(beside(&path, "-wal")).expect("removed");
    let (_, _folder) = proxy.kill();
    assert_eq!(rows_of(&path).len(), 6);
}
