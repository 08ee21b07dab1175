//! What schedules do not tell of a tunnel: what each of its ends comes to, and what it says of itself.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Mutex, MutexGuard};

use mio::{Poll, Token, Waker};

use super::*;
use crate::bell::lock;
use crate::client::{AfterReply, Client, Fate, Returns};
use crate::exchange::credential::FingerprintKey;
use crate::in_flight::CallOff;
use crate::usage::socket::{GenerationEnd, generations};

/// Both sides and the reader, as a test sets them and finds them.
#[derive(Default)]
struct Scene {
    client_room: usize,
    to_client: Vec<u8>,
    is_client_told: bool,
    upstream_room: usize,
    to_upstream: Vec<u8>,
    is_upstream_sent: bool,
    is_upstream_told: bool,
    is_upstream_reset: bool,
    /// What upstream says next: bytes, its end, or that it broke off.
    upstream_says: Vec<io::Result<(&'static [u8], bool)>>,
    running: usize,
    ended: usize,
    free: Option<usize>,
    token: Option<String>,
    is_mid_frame: bool,
    is_reader_broken: bool,
}

#[derive(Clone, Default)]
struct Stage(Arc<Mutex<Scene>>);

impl Stage {
    fn set(&self) -> MutexGuard<'_, Scene> {
        lock(&self.0)
    }

    #[track_caller]
    fn check_sent(&self, to_client: &[u8], to_upstream: &[u8]) {
        let scene = self.set();
        assert_eq!((&scene.to_client[..], &scene.to_upstream[..]), (to_client, to_upstream));
    }
}

fn taken(room: &mut usize, bytes: &[u8], to: &mut Vec<u8>) -> io::Result<usize> {
    let n = bytes.len().min(*room);
    *room -= n;
    to.extend_from_slice(&bytes[..n]);
    if n == 0 && !bytes.is_empty() { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(n) }
}

impl Socket for Stage {
    fn read(&self, _: &mut [u8]) -> io::Result<usize> {
        unreachable!("a loop reads")
    }

    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        let Scene { client_room, to_client, .. } = &mut *self.set();
        taken(client_room, bytes, to_client)
    }

    fn shutdown(&self, _: Shutdown) -> io::Result<()> {
        self.set().is_client_told = true;
        Ok(())
    }

    fn take_error(&self) -> io::Result<Option<io::Error>> {
        Ok(None)
    }

    fn set_resets(&self, _: bool) -> io::Result<()> {
        Ok(())
    }
}

impl UpstreamSide for Stage {
    fn read(&mut self, out: &mut Vec<u8>) -> io::Result<bool> {
        let (bytes, is_last) = self.set().upstream_says.pop().unwrap_or(Err(io::ErrorKind::WouldBlock.into()))?;
        out.extend_from_slice(bytes);
        Ok(is_last)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Scene { upstream_room, to_upstream, .. } = &mut *self.set();
        taken(upstream_room, bytes, to_upstream).or(Ok(0))
    }

    fn flush(&mut self) -> io::Result<bool> {
        Ok(self.set().is_upstream_sent)
    }

    fn is_broken(&self) -> bool {
        false
    }

    fn ready(&mut self, _: bool) {}

    fn end(&mut self) {
        self.set().is_upstream_told = true;
    }

    fn reset(&mut self) {
        self.set().is_upstream_reset = true;
    }

    fn descriptor(&self) -> Option<&Arc<StdTcpStream>> {
        None
    }
}

impl ReadAlong for Stage {
    fn client_sent(&mut self, _: &[u8], _: u64) {
        assert!(!self.set().is_reader_broken, "a bug of the reader, on purpose");
    }

    fn upstream_sent(&mut self, bytes: &[u8], _: u64) -> usize {
        self.set().free.unwrap_or(bytes.len())
    }

    fn take_ended(&mut self) -> Vec<Generation> {
        generations(mem::take(&mut self.set().ended), || GenerationEnd::Completed)
    }

    fn end(&mut self, _: u64) -> Vec<Generation> {
        generations(mem::take(&mut self.set().running), || GenerationEnd::Open)
    }

    fn running(&self) -> usize {
        self.set().running
    }

    fn take_token(&mut self) -> Option<String> {
        self.set().token.take()
    }

    fn client_name(&self) -> Option<&'static str> {
        Some("lms")
    }

    fn is_at_boundary(&self) -> bool {
        !self.set().is_mid_frame
    }
}

/// A tunnel that is open and idle, the two sides of it, and where its connection comes back to.
fn open() -> (Box<Tunnel<Stage>>, Stage, Arc<Returns>) {
    let poll = Poll::new().expect("a poll");
    let waker = Arc::new(Waker::new(poll.registry(), Token(0)).expect("a waker"));
    let returns = Arc::new(Returns::new(waker, Instant::now()));
    let stage = Stage::default();
    *stage.set() = Scene { client_room: 1000, upstream_room: 1000, is_upstream_sent: true, ..Scene::default() };
    let peer = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1);
    let client = Arc::new(Client::new(stage.clone(), peer, 0, returns.clone()));
    client.lend();
    let mut tunnel = Tunnel::of_nobody(Loan::new(client, true), b"101 ", stage.clone(), stage.clone());
    assert_eq!(advance(&mut tunnel, &[]), TunnelStep::Dry);
    (tunnel, stage, returns)
}

/// Goes on, with what the client has sent; no bytes are its end.
fn advance(tunnel: &mut Tunnel<Stage>, client: &[&[u8]]) -> TunnelStep {
    let mut sent = client.iter();
    let mut read = |into: &mut [u8]| {
        let bytes = sent.next().ok_or(io::ErrorKind::WouldBlock)?;
        into[..bytes.len()].copy_from_slice(bytes);
        Ok(bytes.len())
    };
    tunnel.advance(&mut read, &mut [0; 64])
}

/// The one thing that came back.
fn fate(returns: &Returns) -> Fate {
    let mut fates: Vec<Fate> = returns.mailbox.take().into_iter().map(|returned| returned.fate).collect();
    assert_eq!(fates.len(), 1, "{fates:?}");
    fates.remove(0)
}

/// What becomes of both sides of a tunnel that ends so, with bytes that its client did not take.
fn check_end(end: TunnelEnd, is_mid_frame: bool, expected: &Fate, is_upstream_reset: bool) {
    let (mut tunnel, stage, returns) = open();
    stage.set().client_room = 0;
    stage.set().upstream_says = vec![Ok((b"rest", false))];
    assert_eq!(advance(&mut tunnel, &[]), TunnelStep::Dry);
    stage.set().is_mid_frame = is_mid_frame;
    assert_eq!(tunnel.break_off(end), TunnelStep::Over);
    tunnel.finish();
    assert_eq!((&fate(&returns), stage.set().is_upstream_reset), (expected, is_upstream_reset), "{end:?}");
}

#[test]
fn each_side_sees_what_has_become_of_the_other() {
    let write = |bytes: &[u8], then| Fate::Write(bytes.to_vec(), then);
    check_end(TunnelEnd::ClientLeft, false, &write(b"", AfterReply::Cut), true);
    check_end(TunnelEnd::UpstreamReset, false, &write(b"rest", AfterReply::Cut), false);
    check_end(TunnelEnd::UpstreamEnded, false, &write(b"rest", AfterReply::Cut), false);
    // Close, 1001; but no frame goes into another.
    check_end(TunnelEnd::Shutdown, false, &write(b"rest\x88\x02\x03\xe9", AfterReply::Linger), false);
    check_end(TunnelEnd::Shutdown, true, &write(b"rest", AfterReply::Linger), false);
    check_end(TunnelEnd::Both, false, &write(b"rest", AfterReply::Linger), false);
    check_end(TunnelEnd::Failed, false, &write(b"rest", AfterReply::Cut), false);
    check_end(TunnelEnd::Cancelled, false, &write(b"rest", AfterReply::Cut), true);
}

#[test]
fn the_rows_of_what_was_cut_say_who_ended_it() {
    let check = |end: TunnelEnd, outcome: Outcome| {
        let (mut tunnel, stage, returns) = open();
        stage.set().running = 2;
        assert_eq!(tunnel.break_off(end), TunnelStep::Settle, "rows come first");
        assert_eq!(tunnel.take_rows().iter().map(|row| row.outcome).collect::<Vec<_>>(), [outcome; 2], "{end:?}");
        assert!(returns.mailbox.take().is_empty() && tunnel.settled().is_none() && returns.mailbox.take().len() == 1);
    };
    check(TunnelEnd::ClientLeft, Outcome::ClientClosed);
    check(TunnelEnd::UpstreamReset, Outcome::Truncated);
    check(TunnelEnd::Shutdown, Outcome::Shutdown);
    check(TunnelEnd::Cancelled, Outcome::CancelledHere);
}

#[test]
fn what_upstream_s_end_cuts_has_its_row_before_the_client_sees_the_end() {
    let (mut tunnel, stage, _returns) = open();
    stage.set().running = 1;
    stage.set().upstream_says = vec![Ok((b"last", true))];
    assert_eq!(advance(&mut tunnel, &[]), TunnelStep::Settle);
    assert!(!stage.set().is_client_told);
    assert_eq!(tunnel.take_rows()[0].outcome, Outcome::Truncated);
    let mut tunnel = tunnel.settled().expect("the client may go on");
    assert_eq!(advance(&mut tunnel, &[b"more"]), TunnelStep::Dry);
    assert!(stage.set().is_client_told);
    stage.check_sent(b"101 last", b"more");
    assert_eq!(advance(&mut tunnel, &[b""]), TunnelStep::Over);
    assert!(stage.set().is_upstream_told);
}

#[test]
fn a_generation_ends_for_its_client_when_its_row_is_committed() {
    let (mut tunnel, stage, _returns) = open();
    stage.set().ended = 1;
    stage.set().free = Some(3);
    stage.set().upstream_says = vec![Ok((b"success", false))];
    assert_eq!(advance(&mut tunnel, &[]), TunnelStep::Settle);
    assert_eq!(stage.set().to_client, b"101 suc");
    let rows = tunnel.take_rows();
    assert_eq!((rows[0].outcome, rows[0].client.as_deref()), (Outcome::Completed, Some("lms")));
    let mut tunnel = tunnel.settled().expect("it goes on");
    assert_eq!(advance(&mut tunnel, &[]), TunnelStep::Dry);
    assert_eq!(stage.set().to_client, b"101 success");
}

#[test]
fn the_end_of_one_that_was_called_off_does_not_reach_its_client() {
    let (mut tunnel, stage, returns) = open();
    let beginning = |id| NewEntry {
        endpoint: format!("/llm/{id}"),
        began: Instant::now(),
        start_ms: 0,
        body_bytes: None,
        phase: ExchangePhase::Generating,
    };
    let in_flight = tunnel.onlookers.in_flight.clone();
    for number in generations(2, || GenerationEnd::Completed).iter().map(|generation| generation.number) {
        let listed = in_flight.begin_on_socket(tunnel.loan.client(), beginning(number));
        tunnel.listed.insert(number, listed);
    }
    // The loop has not learned of it when upstream's end of both comes.
    assert_eq!(in_flight.call_off(1), CallOff::Ends(vec![1, 2]));
    stage.set().ended = 2;
    stage.set().free = Some(3);
    stage.set().upstream_says = vec![Ok((b"success", false))];
    assert_eq!(advance(&mut tunnel, &[]), TunnelStep::Settle);
    assert!(tunnel.take_rows().iter().all(|row| row.outcome == Outcome::CancelledHere));
    returns.mailbox.take();
    assert!(tunnel.settled().is_none());
    assert_eq!(fate(&returns), Fate::Write(Vec::new(), AfterReply::Cut));
    assert!(stage.set().is_upstream_reset);
    stage.check_sent(b"101 suc", b"");
}

#[test]
fn nothing_is_held_for_no_row() {
    let (mut tunnel, stage, _returns) = open();
    stage.set().free = Some(0);
    stage.set().upstream_says = vec![Ok((b"bytes", false))];
    assert_eq!(advance(&mut tunnel, &[]), TunnelStep::Dry);
    assert_eq!(stage.set().to_client, b"101 bytes");
}

#[test]
fn a_bug_of_the_reader_ends_the_reading_alone() {
    let (mut tunnel, stage, _returns) = open();
    stage.set().is_reader_broken = true;
    stage.set().running = 1;
    assert_eq!(advance(&mut tunnel, &[b"one", b"two"]), TunnelStep::Dry);
    stage.set().upstream_says = vec![Ok((b"three", false))];
    assert_eq!(advance(&mut tunnel, &[]), TunnelStep::Dry);
    stage.check_sent(b"101 three", b"onetwo");
}

#[test]
fn the_token_of_the_first_message_is_the_key_of_all_rows() {
    let (mut tunnel, stage, _returns) = open();
    stage.set().token = Some("sk-lm-1:2".to_owned());
    stage.set().running = 1;
    assert_eq!(advance(&mut tunnel, &[b"hello"]), TunnelStep::Dry);
    tunnel.break_off(TunnelEnd::ClientLeft);
    let key = FingerprintKey::new([0; 32]).fingerprint(b"sk-lm-1:2");
    assert_eq!(tunnel.take_rows()[0].key, Some(key));
}

#[test]
fn it_idles_when_nothing_would_be_lost() {
    let check = |what: &str, is_idle: bool, set: fn(&mut Scene), client: &[&[u8]]| {
        let (mut tunnel, stage, _returns) = open();
        set(&mut stage.set());
        assert_ne!(advance(&mut tunnel, client), TunnelStep::Over);
        assert_eq!(tunnel.is_idle(), is_idle, "{what}");
    };
    check("nothing", true, |_| (), &[]);
    check("what was relayed", true, |scene| scene.upstream_says = vec![Ok((b"all", false))], &[b"all"]);
    check("a generation", false, |scene| scene.running = 1, &[]);
    check("in a frame", false, |scene| scene.is_mid_frame = true, &[]);
    let full = |scene: &mut Scene| {
        scene.client_room = 0;
        scene.upstream_says = vec![Ok((b"all", false))];
    };
    check("the client is full", false, full, &[]);
    check("upstream is full", false, |scene| scene.upstream_room = 2, &[b"all"]);
    check("sealed, but not sent", false, |scene| scene.is_upstream_sent = false, &[b"all"]);
    check("a row to commit", false, |scene| scene.ended = 1, &[b"all"]);
}

#[test]
fn a_client_that_ends_its_side_leaves_what_it_asked_for_running() {
    let (mut tunnel, stage, _returns) = open();
    stage.set().running = 1;
    assert_eq!(advance(&mut tunnel, &[b"ask"]), TunnelStep::Dry);
    assert!(!tunnel.is_left_running());
    assert_eq!(advance(&mut tunnel, &[b""]), TunnelStep::Dry);
    assert!(tunnel.is_left_running() && stage.set().is_upstream_told);
    stage.set().running = 0;
    assert!(!tunnel.is_left_running());
}

#[test]
fn a_half_that_has_ended_bounds_how_long_the_other_may_be_silent() {
    let (mut tunnel, stage, _returns) = open();
    stage.set().running = 1;
    assert_eq!(advance(&mut tunnel, &[b"ask"]), TunnelStep::Dry);
    assert_eq!(tunnel.half_closed_time_max(), None);
    assert_eq!(advance(&mut tunnel, &[b""]), TunnelStep::Dry);
    assert_eq!(tunnel.half_closed_time_max(), Some(COUNTS_TIME_MAX));
    stage.set().running = 0;
    assert_eq!(tunnel.half_closed_time_max(), Some(HALF_CLOSED_TIME_MAX));
    assert_eq!((tunnel.expire(), tunnel.end), (TunnelStep::Over, Some(TunnelEnd::ClientLeft)));
}

#[test]
fn an_upstream_that_has_ended_is_closed_with_a_client_that_says_no_more() {
    let (mut tunnel, stage, _returns) = open();
    stage.set().upstream_says.push(Ok((b"", true)));
    assert_eq!(advance(&mut tunnel, &[]), TunnelStep::Dry);
    assert_eq!(tunnel.half_closed_time_max(), Some(HALF_CLOSED_TIME_MAX));
    assert_eq!((tunnel.expire(), tunnel.end), (TunnelStep::Over, Some(TunnelEnd::Both)));
}
