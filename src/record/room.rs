//! How much room the file system has, what that means for the write-ahead log, and a reserve for the end.
//!
//! What stands in the log needs as much room again in the database: a log that was let grow until the disk was full can
//! be moved nowhere, and nothing can be written until as much comes free as it holds. So where there is little room it is
//! moved the earlier, and cut.
//!
//! The reserve is a file beside the database that holds room for rows which the database does not take before the end
//! ([`super::unsaved`]). It is there only where there is little room, and while the proxy runs.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use super::database_file::{beside, for_owner_alone};
use crate::limits::{
    LITTLE_ROOM_BYTES, RESERVE_BYTES_MAX, RESERVE_PART, WAL_CHECKPOINT_BYTES, WAL_CHECKPOINT_BYTES_MIN,
};

/// Free bytes where the database lies. `None`: nobody tells.
pub(super) fn free_bytes(database: &Path) -> Option<u64> {
    #[cfg(unix)]
    {
        let database = super::database_file::resolved(database);
        let room = nix::sys::statvfs::statvfs(database.parent()?).ok()?;
        // The types differ from system to system.
        #[allow(clippy::useless_conversion)]
        let (blocks, block_bytes) = (u64::from(room.blocks_available()), u64::from(room.fragment_size()));
        Some(blocks.saturating_mul(block_bytes))
    }
    #[cfg(not(unix))]
    {
        let _ = database;
        None
    }
}

/// Growth of the log after which it is moved into the database: a quarter of the room that there is, for the database
/// grows by as much, and commits go on meanwhile.
pub(super) fn checkpoint_bytes(free_bytes: Option<u64>) -> u64 {
    free_bytes.map_or(WAL_CHECKPOINT_BYTES, |free| (free / 4).clamp(WAL_CHECKPOINT_BYTES_MIN, WAL_CHECKPOINT_BYTES))
}

/// Makes the reserve where there is little room, and gives it back where there is enough.
pub(super) fn keep_reserve(database: &Path, free_bytes: Option<u64>) {
    let path = beside(database, "-reserve");
    let is_there = path.exists();
    match free_bytes {
        Some(free) if free < LITTLE_ROOM_BYTES => {
            if !is_there && let Err(e) = fill(&path, (free / RESERVE_PART).min(RESERVE_BYTES_MAX)) {
                let _ = fs::remove_file(&path);
                log::debug!("there is no room for a reserve: {e}");
            }
        }
        // Twice: not made and removed by turns.
        Some(free) if free < 2 * LITTLE_ROOM_BYTES => {}
        Some(_) | None => release_reserve(database),
    }
}

/// Gives the reserve back.
pub(super) fn release_reserve(database: &Path) {
    // There is hardly ever one.
    let _ = fs::remove_file(beside(database, "-reserve"));
}

fn fill(path: &Path, bytes: u64) -> io::Result<()> {
    let mut file = for_owner_alone().create_new(true).open(path)?;
    io::copy(&mut io::Read::take(io::repeat(0), bytes), &mut file)?;
    file.flush()?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Folder;

    #[test]
    fn the_log_is_moved_the_earlier_the_less_room_there_is() {
        const MB: u64 = 1024 * 1024;
        let check = |free: Option<u64>, expected: u64| assert_eq!(checkpoint_bytes(free), expected, "{free:?}");
        check(None, WAL_CHECKPOINT_BYTES);
        check(Some(u64::MAX), WAL_CHECKPOINT_BYTES);
        check(Some(4 * WAL_CHECKPOINT_BYTES), WAL_CHECKPOINT_BYTES);
        check(Some(8 * MB), 2 * MB);
        check(Some(0), WAL_CHECKPOINT_BYTES_MIN);
    }

    #[test]
    fn a_reserve_is_there_only_where_there_is_little_room() {
        let folder = Folder::new();
        let database = folder.join("metrics.db");
        let reserved = || fs::metadata(folder.join("metrics.db-reserve")).ok().map(|file| file.len());
        for (free, expected) in [
            (None, None),
            (Some(800_000), Some(200_000)),
            (Some(0), Some(200_000)),
            (Some(LITTLE_ROOM_BYTES), Some(200_000)),
            (Some(2 * LITTLE_ROOM_BYTES), None),
            (Some(LITTLE_ROOM_BYTES), None),
            (Some(LITTLE_ROOM_BYTES - 1), Some(RESERVE_BYTES_MAX)),
        ] {
            keep_reserve(&database, free);
            assert_eq!(reserved(), expected, "{free:?}");
            // As the database and all files beside it, it is for its owner alone.
            #[cfg(unix)]
            if let Ok(file) = fs::metadata(folder.join("metrics.db-reserve")) {
                assert_eq!(std::os::unix::fs::PermissionsExt::mode(&file.permissions()) & 0o777, 0o600);
            }
        }
        release_reserve(&database);
        assert_eq!(reserved(), None);
    }

    #[cfg(unix)]
    #[test]
    fn free_space_is_told_before_there_is_a_database() {
        assert!(free_bytes(&Folder::new().join("metrics.db")).is_some_and(|free| free > 0));
        assert_eq!(free_bytes(Path::new("/nowhere/at/all/metrics.db")), None);
    }
}
