//! The workers: threads that start on demand and leave again, each with one job at a time.
//!
//! The worker that was busy last gets the next job: its stack and its buffers are warm. `MAX_WORKERS` bounds the
//! exchanges in flight, whoever has them in hand: a worker or a loop. Further ones wait in a bounded queue
//! ([`super::admission`]); beyond that they are refused. What an exchange in flight needs done waits for no exchange to
//! end.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use super::Shared;
use super::admission::{Admission, Admitted};
use super::in_flight::Exchange;
use super::relay::Step;
use super::request::ForwardedRequest;
use super::worker::{Done, Worker};
use crate::bell::{Bell, lock};
use crate::client::Tail;
use crate::limits::*;
use crate::outage::Outage;

/// What a worker can be asked to do.
pub enum Job {
    /// Answer a request.
    Exchange(Box<ForwardedRequest>),
    /// Go on with a stream that did nothing but flow.
    Resume(Box<Exchange>, Step),
    /// Send the last bytes of replies whose rows are committed.
    Finish(Vec<Tail>),
    /// Commit the rows that have arrived.
    Commit,
}

impl Job {
    /// Whether an exchange goes on or ends with it.
    fn is_exchange(&self) -> bool {
        match self {
            Job::Exchange(_) | Job::Resume(..) => true,
            Job::Finish(_) | Job::Commit => false,
        }
    }
}

/// The pool of workers.
pub struct Pool {
    shared: Arc<Shared>,
    in_flight_max: usize,
    state: Mutex<State>,
    /// Threads that the system does not give.
    starting: Outage,
    /// Jobs for which there was none at all.
    without_thread: Outage,
}

struct State {
    /// Waiting workers, the last busy one on top.
    idle: Vec<Arc<Seat>>,
    /// Exchanges in flight, and the requests that wait.
    admission: Admission<Box<ForwardedRequest>>,
    /// Jobs of exchanges in flight that wait for a worker.
    urgent: VecDeque<Job>,
    /// Threads, those about to start among them.
    workers: usize,
    /// Threads that have started.
    started: usize,
}

/// That an exchange in flight has yet to come to a connection. Dropped when it has, or has given that up: others begin
/// then.
pub struct Connecting(Arc<Pool>);

impl Drop for Connecting {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.admission.connected();
        self.0.begin_next(state);
    }
}

/// How busy the pool is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Threads there are.
    pub workers: usize,
    /// Exchanges begun and not ended.
    pub in_flight: usize,
    /// Requests that wait to begin.
    pub queued: usize,
}

/// Where one worker finds its next job, or waits for it.
type Seat = Bell<Option<Job>>;

impl Pool {
    /// A pool for at most `in_flight_max` exchanges at once. No thread is started yet.
    pub fn new(shared: Arc<Shared>, in_flight_max: usize) -> Arc<Pool> {
        Arc::new(Pool {
            shared,
            in_flight_max,
            state: Mutex::new(State {
                idle: Vec::new(),
                admission: Admission::new(in_flight_max),
                urgent: VecDeque::new(),
                workers: 0,
                started: 0,
            }),
            starting: Outage::new(),
            without_thread: Outage::new(),
        })
    }

    /// Lends a connection and its request to a worker; back it comes when the queue is full.
    pub fn lend(self: &Arc<Pool>, request: Box<ForwardedRequest>) -> Result<(), Box<ForwardedRequest>> {
        let mut state = self.state();
        if state.admission.is_full() {
            state = self.dismiss(state);
        }
        match state.admission.ask(request) {
            Admitted::Queued => Ok(()),
            Admitted::Refused(request) => Err(request),
            Admitted::Begun(request) => {
                let Err(job) = self.give(state, self.first_job(request)) else { return Ok(()) };
                let Job::Exchange(mut request) = job else { unreachable!("the job given comes back") };
                request.connecting = None;
                self.state().admission.end();
                Err(request)
            }
        }
    }

    /// Counts an exchange that a lane begins; false when there is no room for it.
    pub fn begin(&self) -> bool {
        self.state().admission.begin_connected()
    }

    /// One that a lane has begun, and no worker went on with, is over.
    pub fn end(self: &Arc<Pool>) {
        let mut state = self.state();
        state.admission.end();
        self.begin_next(state);
    }

    /// Has a worker begin the first request that waits, if it may.
    fn begin_next(self: &Arc<Pool>, mut state: MutexGuard<'_, State>) {
        let next = state.admission.next();
        drop(state);
        if let Some(request) = next {
            self.always_give(self.first_job(request));
        }
    }

    /// Has a worker answer one that a lane has counted, and may have begun.
    pub fn go_on(self: &Arc<Pool>, request: Box<ForwardedRequest>) {
        self.always_give(Job::Exchange(request));
    }

    /// The job of an exchange that begins.
    fn first_job(self: &Arc<Pool>, mut request: Box<ForwardedRequest>) -> Job {
        request.connecting = Some(Connecting(self.clone()));
        Job::Exchange(request)
    }

    /// Has a worker commit what has arrived; false when none can begin at once.
    pub fn commit(self: &Arc<Pool>) -> bool {
        let mut state = self.state();
        if let Some(seat) = state.idle.pop() {
            drop(state);
            seat.ring(|next| *next = Some(Job::Commit));
            return true;
        }
        if state.workers > self.in_flight_max {
            return false;
        }
        state.workers += 1;
        drop(state);
        self.start(Job::Commit).is_ok()
    }

    /// What all workers share.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Has a worker go on with a stream.
    pub fn resume(self: &Arc<Pool>, exchange: Box<Exchange>, step: Step) {
        self.always_give(Job::Resume(exchange, step));
    }

    /// Has a worker finish replies.
    pub fn finish(self: &Arc<Pool>, tails: Vec<Tail>) {
        self.always_give(Job::Finish(tails));
    }

    /// How busy it is at this moment.
    pub fn load(&self) -> Load {
        let state = self.state();
        let (in_flight, queued) = (state.admission.in_flight(), state.admission.queued());
        Load { workers: state.workers, in_flight, queued }
    }

    /// Ends the exchanges in the queue whose clients have left, so that those who stay find room.
    fn dismiss<'a>(self: &'a Arc<Pool>, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let left = state.admission.dismiss(|request| request.lend.loan.client().called_off().is_some());
        drop(state);
        left.into_iter().for_each(|request| self.always_give(Job::Exchange(request)));
        self.state()
    }

    fn always_give(self: &Arc<Pool>, job: Job) {
        let Err(job) = self.give(self.state(), job) else { return };
        // Nobody can be started and nobody runs. Dropped, its connections are cut. But whoever has such a job runs on a
        // worker, or had its exchange or its connection to upstream from one, and the last few workers stay.
        self.without_thread.error("no thread can be started to end an exchange");
        if job.is_exchange() {
            self.state().admission.end();
        }
    }

    /// Gives the job to an idle worker, to a new one, or to the next that ends its job. Back it comes when there is
    /// none at all.
    fn give<'a>(self: &'a Arc<Pool>, mut state: MutexGuard<'a, State>, mut job: Job) -> Result<(), Job> {
        if let Some(seat) = state.idle.pop() {
            drop(state);
            seat.ring(|next| *next = Some(job));
            return Ok(());
        }
        // Exchanges in flight can block no more than that many; one more thread always has something short to do.
        if state.workers <= self.in_flight_max {
            state.workers += 1;
            drop(state);
            match self.start(job) {
                Ok(()) => return Ok(()),
                Err(back) => job = back,
            }
            state = self.state();
            // With nobody running, nobody would ever come for it. Whoever is about to start may fail as well.
            if state.started == 0 {
                return Err(job);
            }
            // Whoever sat down meanwhile has not seen it.
            if let Some(seat) = state.idle.pop() {
                drop(state);
                seat.ring(|next| *next = Some(job));
                return Ok(());
            }
        }
        state.urgent.push_back(job);
        Ok(())
    }

    /// A thread that was counted already, with its first job. Back that comes where none can start.
    fn start(self: &Arc<Pool>, job: Job) -> Result<(), Job> {
        // The job lies in the seat, not in the closure: if the thread cannot start, it is still there.
        let seat = Arc::new(Bell::new(Some(job)));
        let (pool, own_seat) = (self.clone(), seat.clone());
        let builder = thread::Builder::new().name("worker".into()).stack_size(WORKER_STACK_BYTES);
        let spawned = builder.spawn(move || pool.work(&own_seat));
        let mut state = self.state();
        let Err(e) = spawned else {
            state.started += 1;
            drop(state);
            self.starting.over(|count| format!("workers can be started again; that failed {count} times"));
            return Ok(());
        };
        state.workers -= 1;
        let running = state.started;
        drop(state);
        self.starting.warn(format_args!("cannot start another worker ({e}); {running} are running"));
        Err(seat.lock().take().expect("a thread that did not start took nothing"))
    }

    fn work(self: &Arc<Pool>, seat: &Arc<Seat>) {
        let mut worker = Worker::new(self.shared.clone(), self.clone());
        let mut job = seat.wait(Option::take);
        loop {
            worker = self.run(worker, job);
            job = match self.next_job(seat, &mut worker) {
                Some(job) => job,
                None => return,
            };
        }
    }

    /// Takes the next job, or waits for it among the idle; `None` when the thread is to end.
    fn next_job(self: &Arc<Pool>, seat: &Arc<Seat>, worker: &mut Worker) -> Option<Job> {
        if let Some(job) = self.sit_down(seat) {
            return Some(job);
        }
        // First the upstream connection grows too old to be of use; then the thread itself does.
        if let Some(job) = seat.wait_for(UPSTREAM_IDLE_TIME_MAX, Option::take) {
            return Some(job);
        }
        worker.rest();
        if let Some(job) = seat.wait_for(WORKER_IDLE_TIME_MAX - UPSTREAM_IDLE_TIME_MAX, Option::take) {
            return Some(job);
        }
        (!self.leave(seat)).then(|| seat.wait(Option::take))
    }

    /// Runs one job. A panic ends that exchange alone: its connection was cut by what it unwound through, and the
    /// worker goes on with new state.
    fn run(self: &Arc<Pool>, mut worker: Worker, job: Job) -> Worker {
        let is_exchange = job.is_exchange();
        let done = catch_unwind(AssertUnwindSafe(|| worker.run(job)));
        if done.is_err() {
            log::error!("an exchange ended by a bug of the proxy; its connection was cut");
            if catch_unwind(AssertUnwindSafe(|| worker.record_bug())).is_err() {
                log::error!("nor could it be recorded");
            }
            worker = Worker::new(self.shared.clone(), self.clone());
        }
        if is_exchange && !matches!(done, Ok(Done::Lent)) {
            self.state().admission.end();
        }
        worker
    }

    /// The next job where there is one, else a place among the idle.
    fn sit_down(self: &Arc<Pool>, seat: &Arc<Seat>) -> Option<Job> {
        let mut state = self.state();
        if let Some(job) = state.urgent.pop_front() {
            return Some(job);
        }
        let Some(request) = state.admission.next() else {
            state.idle.push(seat.clone());
            return None;
        };
        drop(state);
        Some(self.first_job(request))
    }

    /// Leaves the pool, unless this is one of the kept few or was just given a job.
    fn leave(&self, seat: &Arc<Seat>) -> bool {
        let mut state = self.state();
        if state.workers <= WORKERS_KEPT {
            return false;
        }
        let Some(at) = state.idle.iter().position(|other| Arc::ptr_eq(other, seat)) else { return false };
        state.idle.remove(at);
        state.workers -= 1;
        state.started -= 1;
        true
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}
