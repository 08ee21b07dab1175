//! How many files and connections the process may have open. Shells let it have 1024 unless it asks for more, and it
//! may ask for as many as the system's administrator allows.

/// Asks for as many as `max_workers` exchanges, the most WebSockets and the most connections of clients need, or as
/// there are.
#[cfg(unix)]
pub fn ask_for_enough(max_workers: usize) {
    use crate::limits::{CONNECTIONS_MAX, DESCRIPTORS_OF_OURS, SOCKETS_MAX};
    use nix::sys::resource::{Resource, getrlimit, setrlimit};

    // An exchange in flight has a connection to upstream, and one more while that is made. A WebSocket has one, and no
    // worker.
    let wanted = (CONNECTIONS_MAX + 2 * max_workers + SOCKETS_MAX + DESCRIPTORS_OF_OURS) as u64;
    let Ok((now, most)) = getrlimit(Resource::RLIMIT_NOFILE) else { return };
    // macOS says that there is no bound, and takes no more than OPEN_MAX (setrlimit(2)).
    for enough in [wanted.min(most), 10_240.min(most)] {
        if now >= enough || setrlimit(Resource::RLIMIT_NOFILE, enough, most).is_ok() {
            return;
        }
    }
    log::debug!("{now} open files and connections must do: the system allows no more");
}

/// Elsewhere there is no such bound.
#[cfg(not(unix))]
pub fn ask_for_enough(_: usize) {}
