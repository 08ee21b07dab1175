//! How long a connection may stay as it is, and what becomes of it then.

use std::time::Duration;

use super::Front;
use super::connection::{Connection, Departure, Next, State, Surroundings};
use super::intake::AwaitedPart;
use crate::client::Socket;
use crate::http::refusal::Refusal;
use crate::limits::*;

impl<S: Socket, F> Connection<S, F> {
    /// Until when it may stay in its state; a lent one for ever, unless its client left.
    fn deadline(&self) -> Option<u64> {
        let after = |since_ms: u64, limit: Duration| Some(since_ms + limit.as_millis() as u64);
        match &self.state {
            State::Parked { since_ms } => match self.intake.waiting() {
                AwaitedPart::Idle => after(*since_ms, IDLE_TIME_MAX),
                AwaitedPart::Head => after(*since_ms, HEAD_TIME_MAX),
                AwaitedPart::Body => after(*since_ms, BODY_GAP_MAX),
            },
            State::Lent(Departure { left_ms, .. }) | State::Flowing(_, Departure { left_ms, .. }) => {
                left_ms.and_then(|left_ms| after(left_ms, COUNTS_TIME_MAX))
            }
            State::Tunnelled(tunnel, Departure { left_ms, .. }) => {
                tunnel.half_closed_time_max().and_then(|limit| after((*left_ms)?, limit))
            }
            State::Writing { since_ms, .. } | State::Draining { since_ms } => after(*since_ms, WRITE_STALL_MAX),
            State::Lingering { since_ms, .. } => after(*since_ms, LINGER_TIME_MAX),
        }
    }

    /// When it is to be looked at. A stream that flows need not be, so its events do not ask for the time.
    fn look_at(&self, now_ms: impl FnOnce() -> u64) -> Option<u64> {
        // Given back without a word, it idles: this look finds out.
        if let State::Lent(Departure { left_ms: None, .. }) = self.state {
            return Some(now_ms() + IDLE_TIME_MAX.as_millis() as u64);
        }
        self.deadline()
    }

    /// Looks whether its deadline is over.
    pub(super) fn look(&mut self, around: &mut impl Surroundings<S, F>, scratch: &mut [u8]) -> Next {
        match self.take_up(around, scratch) {
            Next::Keep if self.deadline().is_some_and(|at_ms| at_ms <= around.now_ms()) => self.expire(around),
            next @ (Next::Keep | Next::Again | Next::Move(_) | Next::Drop) => next,
        }
    }

    fn expire(&mut self, around: &mut impl Surroundings<S, F>) -> Next {
        match &mut self.state {
            State::Parked { .. } => {
                let refusal = match self.intake.waiting() {
                    AwaitedPart::Idle => return Next::Drop,
                    AwaitedPart::Head => Refusal::HeadTimeout,
                    AwaitedPart::Body => Refusal::BodyTimeout,
                };
                self.refuse(refusal, around).map_or(Next::Drop, |()| Next::Keep)
            }
            State::Lent(departure) | State::Flowing(_, departure) => {
                departure.left_ms = None;
                self.client.cut_off();
                self.look_upstream(true, around)
            }
            State::Tunnelled(..) => self.expire_tunnel(around),
            State::Writing { .. } | State::Draining { .. } | State::Lingering { .. } => Next::Drop,
        }
    }
}

impl Front {
    /// Sees to it that a connection is looked at in time.
    pub(super) fn arm(&mut self, token: usize, connection: &Connection) {
        if let Some(at_ms) = connection.look_at(|| self.now_ms()) {
            self.deadlines.schedule(token, at_ms);
        }
    }

    pub(super) fn check_deadlines(&mut self) {
        let now_ms = self.now_ms();
        if self.accept_again_ms.is_some_and(|at| at <= now_ms) {
            self.accept();
        }
        while let Some(token) = self.deadlines.pop_due(now_ms) {
            self.step(token, Connection::look);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use mio::Poll;
    use mio::net::TcpStream;

    use super::super::connection::{Baggage, Counted};
    use super::super::{Plan, intake, returns};
    use super::*;
    use crate::client::{AfterReply, Bodies, Client};
    use crate::http::reply::Reply;

    /// A connection of which `bytes` have arrived.
    fn connection<F>(bytes: &[u8]) -> Connection<TcpStream, F> {
        let poll = Poll::new().expect("a poll");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        let stream = TcpStream::connect(address).expect("it listens");
        let (returns, _) = returns(&poll).expect("a waker");
        let counted = Counted::new(&Arc::default(), &returns);
        let client = Client::new(stream, address, 0, returns);
        let mut connection = Connection::new(client, Baggage::new(Bodies::new(0).claim(), counted), 5000);
        let plan = Plan::Answer(Reply::options());
        let verdict = intake::Verdict { plan, body_bytes_max: 1000, keep_body: true };
        let mut verdict = Some(verdict);
        let gathered = connection.intake.advance(bytes, |_| Ok(verdict.take().expect("one head")));
        gathered.map_err(|_| ()).expect("a good request");
        connection
    }

    /// How long a connection in this state may stay in it.
    fn check(bytes: &str, state: impl FnOnce(u64) -> State, limit: Option<Duration>) {
        let mut connection: Connection = connection(bytes.as_bytes());
        connection.state = state(5000);
        let expected = limit.map(|limit| 5000 + limit.as_millis() as u64);
        assert_eq!(connection.deadline(), expected, "{bytes:?}");
    }

    #[test]
    fn each_state_has_its_own_deadline() {
        let parked = |since_ms| State::Parked { since_ms };
        check("", parked, Some(IDLE_TIME_MAX));
        check("POST /v1/x HT", parked, Some(HEAD_TIME_MAX));
        let head = "POST /v1/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n";
        check(&head[..head.len() - 1], parked, Some(HEAD_TIME_MAX));
        check(head, parked, Some(BODY_GAP_MAX));
        check(&format!("{head}Hell"), parked, Some(BODY_GAP_MAX));
        check(&format!("{head}Hello"), parked, Some(IDLE_TIME_MAX));
        let writing = |since_ms| State::Writing { bytes: vec![0; 9], written: 1, then: AfterReply::Park, since_ms };
        check("", writing, Some(WRITE_STALL_MAX));
        check("", |since_ms| State::Lingering { since_ms, drained: 0 }, Some(LINGER_TIME_MAX));
        // A model may think for as long as it likes.
        check("", |_| State::Lent(Departure { ends: true, left_ms: None }), None);
        let left = |left_ms| State::Lent(Departure { ends: true, left_ms: Some(left_ms) });
        check("", left, Some(COUNTS_TIME_MAX));
    }
    #[test]
    fn an_event_of_a_stream_that_flows_asks_for_no_time() {
        let mut connection = connection(b"");
        connection.state = State::Flowing((), Departure { ends: true, left_ms: None });
        assert_eq!(connection.look_at(|| unreachable!("it is looked at when it no longer flows")), None);
    }
}
