//! The workers: threads that start on demand and leave again, each with one job at a time.
//!
//! The worker that was busy last gets the next job: its stack, its buffers and its upstream connection are warm. When
//! all are busy and no more may start, jobs wait in a bounded queue; beyond that they are refused.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::worker::Worker;
use super::{Lend, Shared};
use crate::limits::*;
use crate::record::tail::Tail;

/// What a worker can be asked to do.
pub enum Job {
    /// Answer a request.
    Exchange(Box<Lend>),
    /// Send the last bytes of replies whose rows are committed.
    Finish(Vec<Tail>),
}

/// The pool of workers.
pub struct Pool {
    shared: Arc<Shared>,
    workers_max: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Waiting workers, the last busy one on top.
    idle: Vec<Arc<Seat>>,
    queue: VecDeque<Job>,
    workers: usize,
}

/// How busy the pool is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Threads there are.
    pub workers: usize,
    /// Those of them that have a job.
    pub busy: usize,
    /// Jobs that wait for one.
    pub queued: usize,
}

/// Where one worker waits for its next job.
#[derive(Default)]
struct Seat {
    job: Mutex<Option<Job>>,
    given: Condvar,
}

/// Why a wait for a job ended.
enum Waited {
    Job(Job),
    Idle,
}

impl Pool {
    /// A pool of at most `workers_max` threads. None is started yet.
    pub fn new(shared: Arc<Shared>, workers_max: usize) -> Arc<Pool> {
        Arc::new(Pool { shared, workers_max, state: Mutex::new(State::default()) })
    }

    /// Lends a connection and its request to a worker; back it comes when the queue is full.
    pub fn lend(self: &Arc<Pool>, lend: Lend) -> Result<(), Box<Lend>> {
        match self.give(Job::Exchange(Box::new(lend)), QUEUE_LENGTH_MAX) {
            Ok(()) => Ok(()),
            Err(Job::Exchange(lend)) => Err(lend),
            Err(Job::Finish(_)) => unreachable!("the job given comes back"),
        }
    }

    /// Has a worker finish replies. Always taken: their exchanges have left the count of those in flight.
    pub fn finish(self: &Arc<Pool>, tails: Vec<Tail>) {
        if self.give(Job::Finish(tails), usize::MAX).is_err() {
            unreachable!("an unbounded queue takes every job");
        }
    }

    /// How busy it is at this moment.
    pub fn load(&self) -> Load {
        let state = self.state();
        Load { workers: state.workers, busy: state.workers - state.idle.len(), queued: state.queue.len() }
    }

    fn give(self: &Arc<Pool>, job: Job, queue_max: usize) -> Result<(), Job> {
        let mut state = self.state();
        if let Some(seat) = state.idle.pop() {
            drop(state);
            seat.give(job);
            return Ok(());
        }
        if state.workers < self.workers_max {
            state.workers += 1;
            drop(state);
            return self.start(job, queue_max);
        }
        Self::enqueue(state, job, queue_max)
    }

    fn enqueue(mut state: MutexGuard<'_, State>, job: Job, queue_max: usize) -> Result<(), Job> {
        if state.queue.len() >= queue_max {
            return Err(job);
        }
        state.queue.push_back(job);
        Ok(())
    }

    fn start(self: &Arc<Pool>, job: Job, queue_max: usize) -> Result<(), Job> {
        // The job lies in the seat, not in the closure: if the thread cannot start, it is still there.
        let seat = Arc::new(Seat { job: Mutex::new(Some(job)), given: Condvar::new() });
        let (pool, own_seat) = (self.clone(), seat.clone());
        let builder = thread::Builder::new().name("worker".into()).stack_size(WORKER_STACK_BYTES);
        let Err(e) = builder.spawn(move || pool.work(&own_seat)) else { return Ok(()) };
        let mut state = self.state();
        state.workers -= 1;
        let workers = state.workers;
        log::warn!("cannot start another worker ({e}); {workers} are running");
        let job = seat.take().expect("a thread that did not start took nothing");
        // With nobody running, nobody would ever come for it.
        Self::enqueue(state, job, if workers == 0 { 0 } else { queue_max })
    }

    fn work(self: &Arc<Pool>, seat: &Arc<Seat>) {
        let mut worker = Worker::new(self.shared.clone(), self.clone());
        loop {
            while let Some(job) = seat.take() {
                worker = self.run(worker, job);
                if !self.sit_down(seat) {
                    return;
                }
            }
            // First the upstream connection grows too old to be of use; then the thread itself does.
            match seat.wait(UPSTREAM_IDLE_TIME_MAX) {
                Waited::Job(job) => seat.put(job),
                Waited::Idle => {
                    worker.disconnect();
                    if let Waited::Job(job) = seat.wait(WORKER_IDLE_TIME_MAX - UPSTREAM_IDLE_TIME_MAX) {
                        seat.put(job);
                    } else if self.leave(seat) {
                        return;
                    } else {
                        seat.wait_for_ever();
                    }
                }
            }
        }
    }

    /// Runs one job. A panic ends that exchange alone: its connection was cut by what it unwound through, and the
    /// worker goes on with new state.
    fn run(self: &Arc<Pool>, mut worker: Worker, job: Job) -> Worker {
        match catch_unwind(AssertUnwindSafe(|| worker.run(job))) {
            Ok(()) => worker,
            Err(_) => {
                log::error!("an exchange ended by a bug of the proxy; its connection was cut");
                if catch_unwind(AssertUnwindSafe(|| worker.record_bug())).is_err() {
                    log::error!("nor could it be recorded");
                }
                Worker::new(self.shared.clone(), self.clone())
            }
        }
    }

    /// Takes the next job of the queue, or waits among the idle. False when the worker shall end.
    fn sit_down(&self, seat: &Arc<Seat>) -> bool {
        let mut state = self.state();
        match state.queue.pop_front() {
            Some(job) => {
                drop(state);
                seat.put(job);
            }
            None => state.idle.push(seat.clone()),
        }
        true
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
        true
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    fn give(&self, job: Job) {
        *self.job() = Some(job);
        self.given.notify_one();
    }

    fn put(&self, job: Job) {
        *self.job() = Some(job);
    }

    fn take(&self) -> Option<Job> {
        self.job().take()
    }

    fn wait(&self, at_most: Duration) -> Waited {
        let no_job = |job: &mut Option<Job>| job.is_none();
        let (mut job, _) =
            self.given.wait_timeout_while(self.job(), at_most, no_job).unwrap_or_else(PoisonError::into_inner);
        job.take().map_or(Waited::Idle, Waited::Job)
    }

    fn wait_for_ever(&self) {
        let no_job = |job: &mut Option<Job>| job.is_none();
        drop(self.given.wait_while(self.job(), no_job).unwrap_or_else(PoisonError::into_inner));
    }

    fn job(&self) -> MutexGuard<'_, Option<Job>> {
        self.job.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
