//! Where idle connections to upstream wait for the next exchange. One that may not be used again yet
//! ([`super::manners`]) stays idle, and another one is used, or made.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use super::dial::UpstreamFacts;
use super::upstream::UpstreamConnection;
use crate::bell::lock;
use crate::limits::*;
use crate::settings::Settings;

/// Ways to upstream that are not in use, with their idle connections. The one used last is taken first: it is warm.
#[derive(Default)]
pub struct IdleConnections {
    /// In the order of time.
    idle: Mutex<Vec<(Instant, UpstreamConnection)>>,
}

impl IdleConnections {
    /// A way to upstream, with a connection if there is one to be used.
    pub fn take(&self, settings: &Settings, facts: &Arc<UpstreamFacts>) -> UpstreamConnection {
        let mut idle = self.idle();
        if let Some(connected) = take_connected(&mut idle) {
            return connected;
        }
        let now = Instant::now();
        let is_idle =
            |(since, upstream): &(Instant, UpstreamConnection)| is_old(*since, now) || !upstream.wire().is_connected();
        let Some(at) = idle.iter().rposition(is_idle) else {
            drop(idle);
            return UpstreamConnection::new(settings, facts);
        };
        let (_, mut upstream) = idle.remove(at);
        drop(idle);
        upstream.disconnect();
        upstream
    }

    /// The one used last whose connection can serve another exchange as it is.
    pub fn take_connected(&self) -> Option<UpstreamConnection> {
        take_connected(&mut self.idle())
    }

    /// Keeps it for the next exchange. `since`: when it was used last. One that must wait is kept where it replaces none
    /// that is in use, and few others wait: those who began sooner are proven sooner.
    pub fn put(&self, upstream: UpstreamConnection, since: Instant) {
        let now = Instant::now();
        let mut idle = self.idle();
        let waits = |(since, upstream): &&(Instant, UpstreamConnection)| {
            upstream.wire().is_connected() && !upstream.is_proven(now.saturating_duration_since(*since))
        };
        if !upstream.is_kept(now.saturating_duration_since(since), || idle.iter().filter(waits).count()) {
            drop(idle);
            return;
        }
        let at = idle.partition_point(|(other, _)| *other <= since);
        idle.insert(at, (since, upstream));
    }

    /// Closes connections that have grown too old to be of use.
    pub fn clear_out(&self) {
        let mut idle = self.idle();
        let now = Instant::now();
        let old = idle.iter().take_while(|(since, _)| is_old(*since, now)).count();
        let old: Vec<_> = idle.drain(..old).collect();
        drop(idle);
        drop(old);
    }

    fn idle(&self) -> MutexGuard<'_, Vec<(Instant, UpstreamConnection)>> {
        lock(&self.idle)
    }
}

fn take_connected(idle: &mut Vec<(Instant, UpstreamConnection)>) -> Option<UpstreamConnection> {
    let now = Instant::now();
    let young = idle.iter().enumerate().rev().take_while(|(_, (since, _))| !is_old(*since, now));
    let (at, _) = { young }.find(|(_, (since, upstream))| {
        upstream.wire().is_connected() && upstream.is_proven(now.saturating_duration_since(*since))
    })?;
    Some(idle.remove(at).1)
}

fn is_old(since: Instant, now: Instant) -> bool {
    now.saturating_duration_since(since) >= UPSTREAM_IDLE_TIME_MAX
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
        let facts = Arc::new(UpstreamFacts::new(&settings));
        let kept = |is_stream: bool| {
            let idle = IdleConnections::default();
            for mut upstream in [(); 3].map(|()| UpstreamConnection::new(&settings, &facts)) {
                upstream.carries(is_stream);
                idle.put(upstream, Instant::now());
            }
            idle.idle().len()
        };
        assert_eq!((kept(false), kept(true)), (3, 1));
        assert_eq!(facts.ways.load(Ordering::Relaxed), 0, "each is counted out");
    }
}
