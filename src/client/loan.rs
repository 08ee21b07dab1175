//! A lent connection, and the request to answer on it.

use std::sync::Arc;
use std::time::Instant;

use mio::net::TcpStream;

use super::bodies::Claim;
use super::connection::{Client, Socket};
use super::returns::AfterReply;
use crate::calendar::now_ms;
use crate::http::head::RequestHead;
use crate::http::reply::{Persistence, Reply};

/// A connection lent together with the request to answer on it.
pub struct Lend {
    /// The connection.
    pub loan: Loan,
    /// The request's head.
    pub head: RequestHead,
    /// The request's body, whole.
    pub body: Vec<u8>,
    /// What it takes of the memory for bodies.
    pub claim: Claim,
    /// When the request was whole, on the monotonic clock.
    pub began: Instant,
    /// The same moment in milliseconds since 1970-01-01T00:00:00Z.
    pub start_ms: i64,
}

impl Lend {
    /// A whole request, as of now.
    pub fn new(loan: Loan, head: RequestHead, body: Vec<u8>, claim: Claim) -> Lend {
        Lend { loan, head, body, claim, began: Instant::now(), start_ms: now_ms() }
    }

    /// How the reply's head must announce whether the connection goes on.
    pub fn persistence(&self) -> Persistence {
        self.loan.persistence(&self.head)
    }

    /// Answers with a reply that is put together already.
    pub fn answer(self, reply: &Reply) {
        let bytes = reply.encode(self.persistence(), self.head.method() == "HEAD", now_ms());
        self.loan.give_back_with(bytes, true);
    }
}

/// A lent connection in its borrower's hands. Dropped without a word, also by a panic, the connection is cut.
pub struct Loan<S: Socket = TcpStream> {
    client: Arc<Client<S>>,
    keep_alive: bool,
    returned: bool,
}

impl<S: Socket> Loan<S> {
    /// `client` must have been lent just now. `keep_alive`: the connection goes on after the reply.
    pub fn new(client: Arc<Client<S>>, keep_alive: bool) -> Loan<S> {
        Loan { client, keep_alive, returned: false }
    }

    /// The connection.
    pub fn client(&self) -> &Client<S> {
        &self.client
    }

    /// Whether the connection goes on after the reply.
    pub fn keep_alive(&self) -> bool {
        self.keep_alive
    }

    /// How the reply's head must announce that.
    pub fn persistence(&self, head: &RequestHead) -> Persistence {
        if self.keep_alive { head.persistence() } else { Persistence::Close }
    }

    /// This reply shall be the connection's last.
    pub fn make_last(&mut self) {
        self.keep_alive = false;
    }

    /// The same of a reply without framing, which only the end of its connection ends: if that comes too early, it must
    /// not look like one. nginx, which speaks HTTP/1.0 to upstreams, would take it for the reply's end, too.
    pub fn make_last_unframed(&mut self) {
        self.make_last();
        self.client.reset_until_whole();
    }

    /// The reply is complete: back to its loop, which goes on with the connection or closes it, letting the client
    /// read to the end. The loop is woken only if there is something to do.
    pub fn give_back(mut self) {
        self.returned = true;
        if self.keep_alive { self.client.give_back() } else { self.client.close() }
    }

    /// Back to its loop, which writes `bytes` first. Not `complete`: with them the reply is not whole either.
    pub fn give_back_with(mut self, bytes: Vec<u8>, complete: bool) {
        self.returned = true;
        let then = match (complete, self.keep_alive) {
            (false, _) => AfterReply::Cut,
            (true, false) => AfterReply::Linger,
            (true, true) => AfterReply::Park,
        };
        self.client.give_back_with(bytes, then);
    }

    /// The reply is not complete: the connection is cut so that the client can see it.
    pub fn cut(self) {}
}

impl<S: Socket> Drop for Loan<S> {
    fn drop(&mut self) {
        if !self.returned {
            self.client.cut();
        }
    }
}

#[cfg(test)]
mod tests {
    use mio::Waker;

    use super::super::connection::{CalledOff, Interrupt};
    use super::super::returns::{Fate, Returns};
    use super::*;

    /// What the loop finds of a connection that `end` returned, after an event on its socket.
    fn check(end: impl FnOnce(Loan), given_back: bool, fate: Fate) {
        let poll = mio::Poll::new().expect("a poll");
        let waker = Arc::new(Waker::new(poll.registry(), mio::Token(0)).expect("a waker"));
        let returns = Arc::new(Returns::new(waker, Instant::now()));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        let stream = TcpStream::connect(address).expect("it listens");
        let client = Arc::new(Client::new(stream, address, 7, returns.clone()));
        client.lend();
        client.call_back();
        end(Loan::new(client.clone(), true));
        assert_eq!((client.call_back(), client.is_given_back()), (given_back, given_back), "{fate:?}");
        let fates: Vec<Fate> = returns.mailbox.take().into_iter().map(|returned| returned.fate).collect();
        assert_eq!(fates, [fate]);
    }

    #[test]
    fn who_withdraws_upstream_learns_whether_it_was_interrupted() {
        struct Upstream;
        impl Interrupt for Upstream {
            fn interrupt(&self) {}
        }
        let check = |answered: bool, called_off: Option<CalledOff>, untouched: bool| {
            let end = |loan: Loan| {
                let client = loan.client();
                assert_eq!(client.interrupts(Arc::new(Upstream)), Ok(()));
                if answered {
                    client.has_answer();
                }
                called_off.map(|why| client.call_off(why));
                assert_eq!(client.withdraw(), untouched, "{answered} {called_off:?}");
                loan.give_back();
            };
            self::check(end, true, Fate::Parked);
        };
        check(false, None, true);
        check(false, Some(CalledOff::ClientLeft), false);
        check(false, Some(CalledOff::Shutdown), false);
        // Whose client left with its whole answer goes on, and serves the next exchange.
        check(true, Some(CalledOff::ClientLeft), true);
        check(true, Some(CalledOff::Shutdown), false);
    }

    #[test]
    fn an_event_does_not_overtake_what_the_front_still_has_to_do() {
        let reply = || b"reply".to_vec();
        check(|loan| loan.give_back_with(reply(), true), false, Fate::Write(reply(), AfterReply::Park));
        check(|loan| loan.give_back_with(reply(), false), false, Fate::Write(reply(), AfterReply::Cut));
        let last = |mut loan: Loan| {
            loan.make_last();
            loan.give_back_with(reply(), true);
        };
        check(last, false, Fate::Write(reply(), AfterReply::Linger));
        check(Loan::cut, false, Fate::Write(Vec::new(), AfterReply::Cut));
        let last = |mut loan: Loan| {
            loan.make_last();
            loan.give_back();
        };
        check(last, false, Fate::Write(Vec::new(), AfterReply::Linger));
        check(Loan::give_back, true, Fate::Parked);
    }
}
