//! Where idle connections to upstream wait for the next exchange. One that may not be used again yet
//! ([`super::manners`]) stays idle, and another one is used, or made.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use super::dial::UpstreamFacts;
use super::upstream::UpstreamConnection;
use crate::bell::lock;

/// Ways to upstream that are not in use, with their idle connections. The one used last is taken first: it is warm.
#[derive(Default)]
pub struct IdleConnections {
    /// In the order of time.
    idle: Mutex<Vec<UpstreamConnection>>,
}

impl IdleConnections {
    /// A way to upstream, with a connection if there is one to be used.
    pub fn take(&self, facts: &Arc<UpstreamFacts>) -> UpstreamConnection {
        let mut idle = self.idle();
        if let Some(connected) = take_connected(&mut idle) {
            return connected;
        }
        let now = Instant::now();
        let is_free = |way: &UpstreamConnection| way.expires() <= now || !way.wire().is_connected();
        let free = idle.iter().rposition(is_free).map(|at| idle.remove(at));
        drop(idle);
        let mut upstream = free.unwrap_or_else(|| UpstreamConnection::new(facts));
        upstream.disconnect();
        upstream
    }

    /// The one used last whose connection can serve another exchange as it is.
    pub fn take_connected(&self) -> Option<UpstreamConnection> {
        take_connected(&mut self.idle())
    }

    /// Keeps it for the next exchange. One that must wait is kept where it replaces none that is in use, and few others
    /// wait: those who began sooner are proven sooner.
    pub fn put(&self, upstream: UpstreamConnection) {
        let mut idle = self.idle();
        if upstream.is_kept(Instant::now(), idle.iter()) {
            let at = idle.partition_point(|other| other.expires() <= upstream.expires());
            idle.insert(at, upstream);
        } else {
            // Closing it takes no lock from others.
            drop(idle);
        }
    }

    /// Closes connections that have grown too old to be of use.
    pub fn clear_out(&self) {
        let mut idle = self.idle();
        let now = Instant::now();
        let old = idle.partition_point(|way| way.expires() <= now);
        let old: Vec<_> = idle.drain(..old).collect();
        drop(idle);
        drop(old);
    }

    fn idle(&self) -> MutexGuard<'_, Vec<UpstreamConnection>> {
        lock(&self.idle)
    }
}

fn take_connected(idle: &mut Vec<UpstreamConnection>) -> Option<UpstreamConnection> {
    let now = Instant::now();
    let serves = |way: &UpstreamConnection| way.expires() > now && way.wire().is_connected() && way.is_proven(now);
    idle.iter().rposition(serves).map(|at| idle.remove(at))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::settings;

    #[test]
    fn one_that_must_wait_is_kept_where_it_replaces_none_that_is_in_use() {
        let one = |name: &str| (name == "MAX_WORKERS").then(|| "1".to_string());
        let (settings, _) = settings::read(one).expect("a valid setting");
        let facts = Arc::new(UpstreamFacts::new(&settings, &[]));
        let kept = |is_stream: bool| {
            let idle = IdleConnections::default();
            for upstream in [(); 3].map(|()| UpstreamConnection::new(&facts)) {
                upstream.wire().carries(is_stream);
                idle.put(upstream);
            }
            idle.idle().len()
        };
        assert_eq!((kept(false), kept(true)), (3, 1));
        assert_eq!(facts.ways.load(Ordering::Relaxed), 0, "each is counted out");
    }
}
