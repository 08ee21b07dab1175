//! Upstream's addresses: looked up once for all who wait, on a thread that is there only meanwhile, for nothing can
//! interrupt a look-up.
//!
//! ```text
//!  nothing known ──▶ looking ─┬─▶ found ──(30 s, or nobody answered there)──▶ looking
//!                             └─▶ failed ──(a second)──▶ looking
//! ```
//!
//! Addresses that have grown old are used once more where a look-up fails or takes long: a name server that is down shall
//! not take LM Studio down with it (RFC 8767), and whether an address is still right, connecting tells. An hour old, they
//! are not: by then a machine may have given its address to another.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, Thread};
use std::time::Instant;

use super::wire::state::{Look, WireState};
use crate::bell::lock;
use crate::limits::*;

/// How names are looked up: host and port.
pub type Resolve = dyn Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync;

/// One host's addresses.
pub struct Addresses {
    host: String,
    port: u16,
    resolve: Box<Resolve>,
    state: Mutex<State>,
}

/// Addresses, and when they were found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The one that answered last comes first.
    pub addresses: Vec<SocketAddr>,
    at: Instant,
    /// Nobody answered at any of them.
    doubted: bool,
}

#[derive(Default)]
struct State {
    known: Known,
    /// Who waits for the look-up that runs.
    waiting: Vec<Thread>,
}

/// What is known, and whether more is being found out.
#[derive(Default)]
struct Known {
    found: Option<Resolved>,
    /// They are for ever: no name stands behind them.
    fixed: bool,
    failed_at: Option<Instant>,
    looking_since: Option<Instant>,
}

/// What somebody who wants to connect shall do.
#[derive(Debug, PartialEq, Eq)]
enum Advice {
    Use(Resolved),
    /// Start a look-up, then wait for its end.
    LookUp,
    /// Wait for its end, or until then.
    Wait(Option<Instant>),
    /// There is no such name, as far as anyone can tell.
    GiveUp,
}

impl Known {
    fn advice(&mut self, now: Instant) -> Advice {
        let age = |since: Instant| now.saturating_duration_since(since);
        let usable = self.found.as_ref().filter(|found| self.fixed || age(found.at) < RESOLVED_STALE_TIME_MAX);
        if let Some(found) = usable {
            let time_max = if found.doubted { RESOLVE_FAILED_TIME_MAX } else { RESOLVED_TIME_MAX };
            if self.fixed || age(found.at) < time_max {
                return Advice::Use(found.clone());
            }
        }
        if let Some(since) = self.looking_since {
            return match usable {
                Some(found) if age(since) >= RESOLVE_TIME_MAX => Advice::Use(found.clone()),
                Some(_) => Advice::Wait(Some(since + RESOLVE_TIME_MAX)),
                None => Advice::Wait(None),
            };
        }
        if self.failed_at.is_some_and(|at| age(at) < RESOLVE_FAILED_TIME_MAX) {
            return usable.map_or(Advice::GiveUp, |found| Advice::Use(found.clone()));
        }
        self.looking_since = Some(now);
        Advice::LookUp
    }

    /// The look-up is over. `None`: it found nothing.
    fn end(&mut self, addresses: Option<Vec<SocketAddr>>, now: Instant) {
        self.looking_since = None;
        match addresses {
            Some(addresses) => {
                self.failed_at = None;
                self.found = Some(Resolved { addresses, at: now, doubted: false });
            }
            None => self.failed_at = Some(now),
        }
    }
}

impl Addresses {
    /// Those of `host`, a name or an address, as `resolve` finds them.
    pub fn new(host: &str, port: u16, resolve: Box<Resolve>) -> Addresses {
        let mut known = Known::default();
        // `localhost` is the loopback by definition (RFC 6761 §6.3); no resolver is asked for it.
        let fixed = if host.eq_ignore_ascii_case("localhost") {
            vec![IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)]
        } else {
            host.parse().into_iter().collect()
        };
        if !fixed.is_empty() {
            let addresses = fixed.into_iter().map(|ip| SocketAddr::new(ip, port)).collect();
            known.found = Some(Resolved { addresses, at: Instant::now(), doubted: false });
            known.fixed = true;
        }
        Addresses { host: host.to_string(), port, resolve, state: Mutex::new(State { known, ..State::default() }) }
    }

    /// Whether [`Addresses::find`] would find them at once.
    pub fn are_at_hand(&self) -> bool {
        matches!(self.state().known.advice(Instant::now()), Advice::Use(_))
    }

    /// The addresses; waits for a look-up where one is needed, until `deadline` (an error of kind `TimedOut`) or until
    /// the exchange is called off. `None`: the name is not known.
    pub fn find(self: &Arc<Addresses>, wire: &WireState, deadline: Instant) -> io::Result<Option<Resolved>> {
        let found = wire.wait(deadline, |now| {
            let mut state = self.state();
            let advice = state.known.advice(now);
            let again = match &advice {
                Advice::Use(found) => return Look::Found(Some(found.clone())),
                Advice::GiveUp => return Look::Found(None),
                Advice::LookUp => None,
                Advice::Wait(again) => *again,
            };
            let own = thread::current();
            if !state.waiting.iter().any(|other| other.id() == own.id()) {
                state.waiting.push(own);
            }
            drop(state);
            if advice == Advice::LookUp {
                self.look_up();
            }
            Look::NotYet(again)
        });
        self.state().waiting.retain(|other| other.id() != thread::current().id());
        found
    }

    /// The address that answered comes first from now on.
    pub fn prefer(&self, address: SocketAddr) {
        if let Some(found) = &mut self.state().known.found
            && let Some(at) = found.addresses.iter().position(|other| *other == address)
        {
            found.addresses[..=at].rotate_right(1);
        }
    }

    /// Nobody answered at any of these: the name may have moved.
    pub fn doubt(&self, tried: &Resolved) {
        if let Some(found) = &mut self.state().known.found
            && found.at == tried.at
        {
            found.doubted = true;
        }
    }

    fn look_up(self: &Arc<Addresses>) {
        let ends = Ends { addresses: self.clone(), found: None };
        let builder = thread::Builder::new().name("names".into()).stack_size(WORKER_STACK_BYTES);
        let spawned = builder.spawn(move || {
            let Addresses { host, port, resolve, .. } = &*ends.addresses;
            match resolve(host, *port) {
                Ok(found) => ends.with(found),
                Err(e) => log::debug!("{host} is not known: {e}"),
            }
        });
        if let Err(e) = spawned {
            log::warn!("cannot look {} up: {e}", self.host);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

/// Ends a look-up, also one that panicked or could not start.
struct Ends {
    addresses: Arc<Addresses>,
    found: Option<Vec<SocketAddr>>,
}

impl Ends {
    fn with(mut self, found: Vec<SocketAddr>) {
        self.found = Some(found).filter(|found| !found.is_empty());
    }
}

impl Drop for Ends {
    fn drop(&mut self) {
        let mut state = self.addresses.state();
        state.known.end(self.found.take(), Instant::now());
        state.waiting.drain(..).for_each(|thread| thread.unpark());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;
    use crate::client::Interrupt;

    const FAR: Duration = Duration::from_secs(60);
    const MOMENT: Duration = Duration::from_nanos(1);

    fn addresses_ending(in_byte: u8) -> Vec<SocketAddr> {
        vec![SocketAddr::from(([127, 0, 0, in_byte], 1234))]
    }

    /// Something that was looked up just now, and when that was.
    fn known() -> (Known, Instant, Advice) {
        let (mut known, now) = (Known::default(), Instant::now());
        assert_eq!(known.advice(now), Advice::LookUp);
        known.end(Some(addresses_ending(1)), now);
        let found = known.found.clone().expect("it was found just now");
        (known, now, Advice::Use(found))
    }

    #[test]
    fn one_looks_up_for_all_who_ask_meanwhile() {
        let (mut known, now) = (Known::default(), Instant::now());
        assert_eq!(known.advice(now), Advice::LookUp);
        for seconds in [0, 1, 5, 3600] {
            assert_eq!(known.advice(now + Duration::from_secs(seconds)), Advice::Wait(None));
        }
        known.end(Some(addresses_ending(1)), now);
        assert!(matches!(known.advice(now), Advice::Use(_)));
    }

    #[test]
    fn a_failure_is_remembered_for_a_second() {
        let (mut known, now) = (Known::default(), Instant::now());
        assert_eq!(known.advice(now), Advice::LookUp);
        known.end(None, now);
        assert_eq!(known.advice(now), Advice::GiveUp);
        assert_eq!(known.advice(now + RESOLVE_FAILED_TIME_MAX - MOMENT), Advice::GiveUp);
        assert_eq!(known.advice(now + RESOLVE_FAILED_TIME_MAX), Advice::LookUp);
        known.end(Some(addresses_ending(1)), now + RESOLVE_FAILED_TIME_MAX);
        assert!(matches!(known.advice(now + RESOLVE_FAILED_TIME_MAX), Advice::Use(_)));
    }

    #[test]
    fn what_was_found_is_used_for_a_while_and_then_looked_up_again() {
        let (mut known, now, usual) = known();
        assert_eq!(known.advice(now + RESOLVED_TIME_MAX - MOMENT), usual);
        assert_eq!(known.advice(now + RESOLVED_TIME_MAX), Advice::LookUp);
    }

    #[test]
    fn old_addresses_serve_while_a_look_up_takes_long_or_fails() {
        let (mut known, now, usual) = known();
        let then = now + RESOLVED_TIME_MAX;
        assert_eq!(known.advice(then), Advice::LookUp);
        assert_eq!(known.advice(then), Advice::Wait(Some(then + RESOLVE_TIME_MAX)));
        assert_eq!(known.advice(then + RESOLVE_TIME_MAX), usual);
        known.end(None, then);
        assert_eq!(known.advice(then), usual);
    }

    #[test]
    fn addresses_an_hour_old_serve_no_more() {
        let (mut known, now, _) = known();
        let then = now + RESOLVED_STALE_TIME_MAX;
        assert_eq!(known.advice(then), Advice::LookUp);
        assert_eq!(known.advice(then + RESOLVE_TIME_MAX), Advice::Wait(None));
        known.end(None, then);
        assert_eq!(known.advice(then), Advice::GiveUp);
    }

    #[test]
    fn where_nobody_answered_the_name_is_looked_up_again_but_not_more_than_once_a_second() {
        let addresses = Addresses::new("name.example", 1234, Box::new(|_, _| unreachable!("nobody asks")));
        let (known, now, _) = known();
        addresses.state().known = known;
        let found = addresses.state().known.found.clone().expect("it was found just now");
        addresses.doubt(&found);
        let advice = |at| addresses.state().known.advice(at);
        assert!(matches!(advice(now + RESOLVE_FAILED_TIME_MAX - MOMENT), Advice::Use(_)));
        assert_eq!(advice(now + RESOLVE_FAILED_TIME_MAX), Advice::LookUp);
        let then = now + RESOLVE_FAILED_TIME_MAX;
        addresses.state().known.end(Some(addresses_ending(2)), then);
        // Who tried those before says nothing about these.
        addresses.doubt(&found);
        assert!(matches!(advice(then + RESOLVE_FAILED_TIME_MAX), Advice::Use(_)));
    }

    #[test]
    fn an_address_or_localhost_is_never_looked_up() {
        for (host, first) in [("localhost", "127.0.0.1:80"), ("127.0.0.9", "127.0.0.9:80"), ("::1", "[::1]:80")] {
            let addresses = Arc::new(Addresses::new(host, 80, Box::new(|_, _| unreachable!("nobody asks"))));
            let found = addresses.find(&WireState::default(), Instant::now()).expect("in time").expect(host);
            assert_eq!(found.addresses[0].to_string(), first);
            addresses.doubt(&found);
            let later = Instant::now() + RESOLVED_STALE_TIME_MAX;
            assert!(matches!(addresses.state().known.advice(later), Advice::Use(_)));
        }
    }

    /// Waits until so many threads wait for the look-up.
    fn until_waiting(addresses: &Addresses, count: usize) {
        while addresses.state().waiting.len() != count {
            thread::yield_now();
        }
    }

    #[test]
    fn eight_who_ask_at_once_get_the_answer_of_one_look_up() {
        let (go, gone) = channel();
        let gone = Mutex::new(gone);
        let count = Arc::new(AtomicUsize::new(0));
        let counted = count.clone();
        let resolve = move |_: &str, _: u16| {
            counted.fetch_add(1, Ordering::SeqCst);
            gone.lock().expect("no panic under it").recv().expect("the test lets it go");
            Ok(addresses_ending(1))
        };
        let addresses = Arc::new(Addresses::new("name.example", 1234, Box::new(resolve)));
        thread::scope(|scope| {
            let find = || addresses.find(&WireState::default(), Instant::now() + FAR);
            let waiting: Vec<_> = (0..8).map(|_| scope.spawn(find)).collect();
            until_waiting(&addresses, 8);
            go.send(()).expect("it waits");
            for one in waiting {
                let found = one.join().expect("no panic").expect("in time").expect("it was found");
                assert_eq!(found.addresses, addresses_ending(1));
            }
        });
        assert_eq!((count.load(Ordering::SeqCst), addresses.state().waiting.len()), (1, 0));
    }

    #[test]
    fn a_look_up_that_does_not_end_keeps_nobody_longer_than_the_time_allowed_nor_whoever_is_called_off() {
        let (go, gone) = channel::<()>();
        let gone = Mutex::new(gone);
        let resolve = move |_: &str, _: u16| {
            let _ = gone.lock().expect("no panic under it").recv();
            Err(io::ErrorKind::NotFound.into())
        };
        let addresses = Arc::new(Addresses::new("name.example", 1234, Box::new(resolve)));
        let late = addresses.find(&WireState::default(), Instant::now()).expect_err("no time");
        assert_eq!(late.kind(), io::ErrorKind::TimedOut);
        until_waiting(&addresses, 0);
        let wire = WireState::default();
        thread::scope(|scope| {
            let waiting = scope.spawn(|| addresses.find(&wire, Instant::now() + FAR));
            until_waiting(&addresses, 1);
            wire.interrupt();
            let error = waiting.join().expect("no panic").expect_err("it was called off");
            assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
        });
        drop(go);
    }

    #[test]
    fn a_look_up_that_panics_has_found_nothing() {
        let addresses = Addresses::new("name.example", 1234, Box::new(|_, _| panic!("on purpose")));
        let found = Arc::new(addresses).find(&WireState::default(), Instant::now() + FAR);
        assert_eq!(found.expect("in time"), None);
    }
}
