//! From bytes to whole requests, and each to whoever answers it.

use super::client::{CalledOff, Loan};
use super::gather::{self, Step, Waiting};
use super::{Connection, Dropped, Front, Next, Plan, Role, State};
use crate::exchange::Lend;
use crate::http::refusal::Refusal;
use crate::http::reply::{CONTINUE, Persistence, Reply};
use crate::http::target::Local;
use crate::limits::OVERLOADED_RETRY_S;

impl Front {
    /// Takes in bytes behind those not used up before.
    pub(super) fn take_in(&mut self, connection: &mut Connection, bytes: &[u8]) -> Next {
        if connection.unread.is_empty() {
            return match self.use_up(connection, bytes) {
                Ok(used) => {
                    connection.unread = bytes[used..].to_vec();
                    Next::Keep
                }
                Err(Dropped) => Next::Drop,
            };
        }
        let mut all = std::mem::take(&mut connection.unread);
        all.extend_from_slice(bytes);
        match self.use_up(connection, &all) {
            Ok(used) => {
                all.drain(..used);
                connection.unread = all;
                Next::Keep
            }
            Err(Dropped) => Next::Drop,
        }
    }

    /// Uses up `bytes`, request after request, until one is lent or more must be read; how many were used.
    fn use_up(&mut self, connection: &mut Connection, bytes: &[u8]) -> Result<usize, Dropped> {
        let mut used = 0;
        while used < bytes.len() && matches!(connection.state, State::Parked { .. }) {
            let waited = connection.gather.waiting();
            let judge = &self.common.judge;
            let step = match connection.gather.advance(&bytes[used..], |head| judge.judge(head)) {
                Ok((n, step)) => {
                    used += n;
                    step
                }
                Err(refusal) => {
                    used = bytes.len();
                    self.refuse(connection, refusal)?;
                    break;
                }
            };
            connection.claim.set(match &step {
                Step::Whole(request) => request.body.len(),
                Step::More | Step::Continue => connection.gather.body_bytes(),
            });
            if self.common.bodies.are_too_many() {
                self.turn_away(connection)?;
                return Ok(bytes.len());
            }
            // A head has one deadline from its first byte; a body one from its last.
            if waited != Waiting::Head || connection.gather.waiting() != Waiting::Head {
                connection.state = State::Parked { since_ms: self.returns.now_ms() };
            }
            match step {
                Step::More => break,
                Step::Continue => {
                    connection.client.write_now(CONTINUE).map_err(|_| Dropped)?;
                }
                Step::Whole(request) => {
                    let pending = used < bytes.len() || connection.hung_up;
                    self.on_request(connection, request, pending)?;
                }
            }
        }
        Ok(used)
    }

    pub(super) fn on_request(
        &mut self,
        connection: &mut Connection,
        request: Box<gather::Request<Plan>>,
        pending: bool,
    ) -> Result<(), Dropped> {
        match &request.plan {
            Plan::Answer(answer) => {
                connection.claim.set(0);
                let keep_alive = request.head.keep_alive && self.stopping.is_none();
                let persistence = if keep_alive { request.head.persistence() } else { Persistence::Close };
                let bytes = answer.encode(persistence, request.head.method() == "HEAD");
                return self.reply(connection, bytes, keep_alive);
            }
            Plan::Forward if self.suits_express(&request) && self.express_is_open() => {
                connection.state = State::Moving(request);
            }
            Plan::Statistics(_) | Plan::Forward => self.lend(connection, *request, pending),
        }
        Ok(())
    }

    /// Lends the connection to whoever answers the request.
    pub(super) fn lend(&mut self, connection: &mut Connection, request: gather::Request<Plan>, pending: bool) {
        let keep_alive = request.head.keep_alive && self.stopping.is_none();
        let question = match request.plan {
            Plan::Statistics(question) => Some(question),
            Plan::Forward | Plan::Answer(_) => None,
        };
        let ends_with_client = match question {
            Some(question) => question == Local::Live,
            None => request.head.method() == "POST",
        };
        connection.client.lend(pending || self.stopping.is_some());
        if connection.hung_up && ends_with_client {
            connection.client.call_off(CalledOff::ClientLeft);
        }
        connection.state = State::Lent { ends_with_client, left_ms: None };
        let loan = Loan::new(connection.client.clone(), keep_alive);
        let lend = Box::new(Lend::new(loan, request.head, request.body, connection.claim.take()));
        let taken = match question {
            Some(question) => self.common.statistics.ask(question, lend),
            None => self.forward(lend).inspect(|()| self.common.figures.note_room()),
        };
        if let Err(lend) = taken {
            self.common.figures.note_queue_full(connection.client.peer(), lend.head.path());
            let busy = Reply::overloaded(
                "The proxy is busy: MAX_WORKERS requests are being answered, and the queue is full.",
                OVERLOADED_RETRY_S,
            );
            let persistence = lend.loan.persistence(&lend.head);
            lend.loan.give_back_with(busy.encode(persistence, lend.head.method() == "HEAD"), true);
        }
    }

    fn forward(&mut self, lend: Box<Lend>) -> Result<(), Box<Lend>> {
        if let Role::Express { lane, .. } = &mut self.role {
            return lane.ask(lend).or_else(|lend| self.common.pool.lend(lend));
        }
        self.common.pool.lend(lend)
    }

    /// The memory for bodies is full: whose body grows now tries again later.
    fn turn_away(&mut self, connection: &mut Connection) -> Result<(), Dropped> {
        self.common.figures.note_bodies_full(connection.client.peer());
        let busy = Reply::overloaded("Too many large requests at once.", OVERLOADED_RETRY_S);
        self.turn_down(connection, &busy)
    }

    pub(super) fn refuse(&mut self, connection: &mut Connection, refusal: Refusal) -> Result<(), Dropped> {
        log::debug!("{}: refused: {}", connection.client.peer(), refusal.name());
        self.common.figures.note_refusal(refusal);
        self.turn_down(connection, &Reply::refusal(refusal))
    }

    /// The connection's last reply, without content where the request was one for a head.
    fn turn_down(&mut self, connection: &mut Connection, reply: &Reply) -> Result<(), Dropped> {
        let bytes = reply.encode(Persistence::Close, connection.gather.is_head_only());
        connection.forget_request();
        self.reply(connection, bytes, false)
    }
}
