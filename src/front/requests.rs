//! From bytes to whole requests, and each to whoever answers it.

use std::sync::Arc;

use super::connection::{Connection, Dropped, Next, State, Surroundings};
use super::intake::{AwaitedPart, Intake, Step, WholeRequest};
use super::judge::Plan;
use crate::calendar::now_ms;
use crate::client::Socket;
use crate::exchange::request::Kind;
use crate::http::refusal::Refusal;
use crate::http::reply::{CONTINUE, Persistence, Reply};
use crate::limits::OVERLOADED_RETRY_S;

/// How many bytes were used, and the request that they made whole.
type Gathered = (usize, Option<Box<WholeRequest<Plan>>>);

impl<S: Socket, F> Connection<S, F> {
    /// Takes in bytes behind those not used up before.
    pub(super) fn take_in(&mut self, bytes: &[u8], around: &mut impl Surroundings<S, F>) -> Next {
        if !self.baggage.unread.is_empty() {
            self.baggage.unread.append(bytes);
            return self.use_up(around);
        }
        // The usual: nothing is kept, so nothing is copied.
        let Ok((used, request)) = self.gather_from(bytes, around) else { return Next::Drop };
        self.baggage.unread.append(&bytes[used..]);
        let Some(request) = request else { return Next::Keep };
        self.on_request(request, around).or_else(|| self.use_up(around))
    }

    /// Uses up what was read before, request after request, until one is answered by others or more must be read.
    pub(super) fn use_up(&mut self, around: &mut impl Surroundings<S, F>) -> Next {
        while let State::Parked { .. } = self.state
            && !self.baggage.unread.is_empty()
        {
            let mut unread = std::mem::take(&mut self.baggage.unread);
            let Ok((used, request)) = self.gather_from(unread.rest(), around) else { return Next::Drop };
            unread.use_up(used);
            self.baggage.unread = unread;
            let Some(request) = request else { return Next::Keep };
            match self.on_request(request, around) {
                Next::Keep => {}
                next @ (Next::Again | Next::Move(_) | Next::Drop) => return next,
            }
        }
        Next::Keep
    }

    /// Gathers from `bytes` until a request is whole; how many were used, and the request. Without one, more must be
    /// read, or a reply of our own is being written.
    fn gather_from(&mut self, bytes: &[u8], around: &mut impl Surroundings<S, F>) -> Result<Gathered, Dropped> {
        let mut used = 0;
        while used < bytes.len() && matches!(self.state, State::Parked { .. }) {
            let waited = self.intake.waiting();
            let step = match self.intake.advance(&bytes[used..], |head| around.judge(head)) {
                Ok((n, step)) => {
                    used += n;
                    step
                }
                Err(refusal) => {
                    self.refuse(refusal, around)?;
                    return Ok((bytes.len(), None));
                }
            };
            self.baggage.claim.set(match &step {
                Step::Whole(request) => request.body.len(),
                Step::More | Step::Continue => self.intake.body_bytes(),
            });
            if around.are_bodies_too_many() {
                self.turn_away(around)?;
                return Ok((bytes.len(), None));
            }
            // A head has one deadline from its first byte; a body one from its last.
            if waited != AwaitedPart::Head || self.intake.waiting() != AwaitedPart::Head {
                self.state = State::Parked { since_ms: around.now_ms() };
            }
            match step {
                Step::More => break,
                Step::Continue => self.reply(CONTINUE.to_vec(), true, around)?,
                Step::Whole(request) => return Ok((used, Some(request))),
            }
        }
        Ok((used, None))
    }

    /// Answers a whole request, or has it answered.
    pub(super) fn on_request(
        &mut self,
        mut request: Box<WholeRequest<Plan>>,
        around: &mut impl Surroundings<S, F>,
    ) -> Next {
        if let Plan::Forward(forwarding) = &mut request.plan {
            forwarding.kind = Kind::of(&request.head, &request.body);
        }
        match &request.plan {
            Plan::Answer(answer) => {
                self.baggage.claim.set(0);
                let keep_alive = request.head.meaning.keep_alive && !around.is_stopping();
                let persistence = if keep_alive { request.head.persistence() } else { Persistence::Close };
                let (peer, head) = (self.client.peer(), &request.head);
                log::debug!("{peer} {} {} {} answered here", head.method(), head.path(), answer.status());
                let bytes = answer.encode(persistence, request.head.method() == "HEAD", now_ms());
                return self.reply(bytes, keep_alive, around).map_or(Next::Drop, |()| Next::Keep);
            }
            // Where somebody still has a hand on it, it stays.
            Plan::Forward(_) if Arc::strong_count(&self.client) == 1 && around.moves(&request) => {
                return Next::Move(request);
            }
            Plan::Statistics(_) | Plan::Forward(_) => self.lend(*request, around),
        }
        Next::Keep
    }

    /// The memory for bodies is full: whose body grows now tries again later.
    fn turn_away(&mut self, around: &mut impl Surroundings<S, F>) -> Result<(), Dropped> {
        around.figures().note_bodies_full(self.client.peer());
        let busy = Reply::overloaded("Too many large requests at once.", OVERLOADED_RETRY_S);
        self.turn_down(&busy, around)
    }

    pub(super) fn refuse(&mut self, refusal: Refusal, around: &mut impl Surroundings<S, F>) -> Result<(), Dropped> {
        log::debug!("{}: refused: {}", self.client.peer(), refusal.facts().name);
        around.figures().note_refusal(refusal);
        self.turn_down(&Reply::refusal(refusal), around)
    }

    /// The connection's last reply, without content where the request was one for a head.
    fn turn_down(&mut self, reply: &Reply, around: &mut impl Surroundings<S, F>) -> Result<(), Dropped> {
        let bytes = reply.encode(Persistence::Close, self.intake.is_head_only(), now_ms());
        // What came of a request that is refused takes no memory while its client reads why.
        self.intake = Intake::default();
        self.baggage.claim.set(0);
        self.reply(bytes, false, around)
    }
}
