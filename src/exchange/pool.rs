//! The workers: threads that start on demand and leave again, each with one job at a time.
//!
//! The worker that was busy last gets the next job: its stack and its buffers are warm. `MAX_WORKERS` bounds the
//! exchanges in flight, whoever has them in hand ([`Place`]). Further requests wait in a bounded queue
//! ([`super::admission`]); beyond that they are refused. What an exchange in flight needs done waits for no exchange to
//! end.
//!
//! What the jobs are, the pool does not know: it is told how to make somebody who does them.

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use super::admission::{Admission, Admitted};
use crate::bell::{Bell, lock};
use crate::limits::*;
use crate::outage::Outage;

/// A request that may have to wait until it begins.
pub trait QueuedRequest: Send + 'static {
    /// It begins, and holds these: the one until it is over, the other until it has a connection or needs none.
    fn begin(&mut self, in_flight: Place, connecting: Option<Place>);

    /// Whether it has nothing to wait for any more.
    fn is_called_off(&self) -> bool;
}

/// Who does the jobs of one worker, one after the other.
pub trait Runner<J> {
    /// Does one job.
    fn run(&mut self, job: J);

    /// Nothing was to be done for a while.
    fn rest(&mut self) {}

    /// A job ended by a panic. Another runner does the next one.
    fn end_by_bug(&mut self) {}
}

/// Makes the runner of one worker.
type MakeRunner<R, J> = dyn Fn(&Arc<Pool<R, J>>) -> Box<dyn Runner<J>> + Send + Sync;
/// Starts a thread.
type StartThread = dyn Fn(Box<dyn FnOnce() + Send>) -> io::Result<()> + Send + Sync;

/// The pool of workers. `R`: the requests that wait to begin; `J`: what a worker can be asked to do.
pub struct Pool<R, J> {
    in_flight_max: usize,
    make: Box<MakeRunner<R, J>>,
    start: Box<StartThread>,
    state: Mutex<State<R, J>>,
    /// Threads that the system does not give.
    starting: Outage,
    /// Jobs for which there was none at all.
    without_thread: Outage,
}

struct State<R, J> {
    /// Waiting workers, the last busy one on top.
    idle: Vec<Arc<NextJob<J>>>,
    /// Exchanges in flight, and the requests that wait.
    admission: Admission<R>,
    /// Jobs of exchanges in flight that wait for a worker.
    urgent: VecDeque<J>,
    /// Jobs beside the exchanges, begun or not.
    beside: usize,
    /// Threads, those about to start among them.
    workers: usize,
    /// Threads that have started.
    started: usize,
}

/// Where one worker waits for its next job.
type NextJob<J> = Bell<Option<J>>;

/// A place in the pool, taken for as long as this is kept.
pub struct Place(Arc<dyn Places>, PlaceOf);

/// Whose place it is.
#[derive(Clone, Copy)]
enum PlaceOf {
    /// An exchange in flight. When it is over, others begin.
    Exchange,
    /// An exchange in flight that has yet to come to a connection. When it has, or has given that up, others begin.
    Connecting,
    /// A job that is no exchange and may block a worker as one.
    Beside,
}

/// Where they are counted.
trait Places: Send + Sync {
    fn free(self: Arc<Self>, place: PlaceOf);
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.clone().free(self.1);
    }
}

/// Why a request cannot even wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Busy {
    /// As many are in flight as may be, and as many wait.
    QueueFull,
    /// There is no worker, and none can be started.
    NoThread,
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

impl<R: QueuedRequest, J: From<R> + Send + 'static> Pool<R, J> {
    /// A pool for at most `in_flight_max` exchanges at once. No thread is started yet.
    pub fn new(
        in_flight_max: usize,
        make: impl Fn(&Arc<Self>) -> Box<dyn Runner<J>> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Pool::started_by(in_flight_max, Box::new(make), Box::new(start_thread))
    }

    /// The same with another way to start threads.
    fn started_by(in_flight_max: usize, make: Box<MakeRunner<R, J>>, start: Box<StartThread>) -> Arc<Self> {
        let state = State {
            idle: Vec::new(),
            admission: Admission::new(in_flight_max),
            urgent: VecDeque::new(),
            beside: 0,
            workers: 0,
            started: 0,
        };
        let (starting, without_thread) = (Outage::new(), Outage::new());
        Arc::new(Pool { in_flight_max, make, start, state: Mutex::new(state), starting, without_thread })
    }

    // ---- requests ----------------------------------------------------------------------------------------------

    /// Has a worker begin the request as soon as it may; else back it comes, and why.
    pub fn lend(self: &Arc<Self>, request: R) -> Result<(), (R, Busy)> {
        let mut state = self.state();
        let mut left = VecDeque::new();
        if state.admission.is_full() {
            // Those whose clients have left make room for who stays.
            left = state.admission.dismiss(R::is_called_off);
        }
        let asked = state.admission.ask(request);
        drop(state);
        self.end(left);
        match asked {
            Admitted::Queued => Ok(()),
            Admitted::Refused(request) => Err((request, Busy::QueueFull)),
            Admitted::Begun(request) => self.try_give(self.begun(request)).map_err(|request| (request, Busy::NoThread)),
        }
    }

    /// Whether a request would begin at once.
    pub fn has_room(&self) -> bool {
        self.state().admission.has_room()
    }

    /// Has those end that wait for nothing any more.
    pub fn dismiss(self: &Arc<Self>) {
        let left = self.state().admission.dismiss(R::is_called_off);
        self.end(left);
    }

    /// They leave their rows.
    fn end(self: &Arc<Self>, left: VecDeque<R>) {
        for mut request in left {
            request.begin(self.place(PlaceOf::Exchange), None);
            self.give(request.into());
        }
    }

    /// Counts an exchange that begins on a connection which is there already; `None` when there is no room for it.
    pub fn begin(self: &Arc<Self>) -> Option<Place> {
        self.state().admission.begin_connected().then(|| self.place(PlaceOf::Exchange))
    }

    /// Has a worker begin the first request that waits, if it may.
    fn begin_next(self: &Arc<Self>, mut state: MutexGuard<'_, State<R, J>>) {
        let next = state.admission.next();
        drop(state);
        if let Some(request) = next {
            self.give(self.begun(request).into());
        }
    }

    fn begun(self: &Arc<Self>, mut request: R) -> R {
        request.begin(self.place(PlaceOf::Exchange), Some(self.place(PlaceOf::Connecting)));
        request
    }

    fn place(self: &Arc<Self>, of: PlaceOf) -> Place {
        Place(self.clone(), of)
    }

    /// How busy it is at this moment.
    pub fn load(&self) -> Load {
        let state = self.state();
        let (in_flight, queued) = (state.admission.in_flight(), state.admission.queued());
        Load { workers: state.workers, in_flight, queued }
    }

    // ---- jobs --------------------------------------------------------------------------------------------------

    /// Counts a job beside the exchanges, which takes no thread from them. Whoever has such jobs bounds their number.
    pub fn beside(self: &Arc<Self>) -> Place {
        self.state().beside += 1;
        self.place(PlaceOf::Beside)
    }

    /// Gives a worker a job of an exchange in flight, or one beside them.
    pub fn give(self: &Arc<Self>, job: J) {
        // Nobody can be started and nobody runs. Dropped, its connections are cut. But whoever has such a job runs on a
        // worker, or had its exchange or its connection to upstream from one, and the last few workers stay.
        if self.try_give(job).is_err() {
            self.without_thread.error("no thread can be started to end an exchange");
        }
    }

    /// Gives the job to a worker that is idle or new; back it comes where neither is to be had at once.
    pub fn give_now<T: Into<J>>(self: &Arc<Self>, job: T) -> Result<(), T> {
        match self.free_worker() {
            Some(worker) => hand(&worker, job),
            None => return Err(job),
        }
        Ok(())
    }

    /// Gives the job to an idle worker, to a new one, or to the next that ends its job. Back it comes when there is
    /// none at all.
    fn try_give<T: Into<J>>(self: &Arc<Self>, job: T) -> Result<(), T> {
        let Err(job) = self.give_now(job) else { return Ok(()) };
        let mut state = self.state();
        // With nobody running, nobody would ever come for it. Whoever is about to start may fail as well.
        if state.started == 0 {
            return Err(job);
        }
        // Whoever became idle meanwhile has not seen it.
        match state.idle.pop() {
            Some(worker) => hand(&worker, job),
            None => state.urgent.push_back(job.into()),
        }
        Ok(())
    }

    fn free_worker(self: &Arc<Self>) -> Option<Arc<NextJob<J>>> {
        let mut state = self.state();
        if let Some(worker) = state.idle.pop() {
            return Some(worker);
        }
        // No more than that many can be blocked; one more thread always has something short to do.
        if state.workers > self.in_flight_max + state.beside {
            return None;
        }
        state.workers += 1;
        drop(state);
        self.start_worker()
    }

    /// A worker that was counted already. `None` where no thread can start.
    fn start_worker(self: &Arc<Self>) -> Option<Arc<NextJob<J>>> {
        let worker = Arc::new(NextJob::default());
        let (pool, own) = (self.clone(), worker.clone());
        let started = (self.start)(Box::new(move || pool.work(&own)));
        let mut state = self.state();
        let Err(e) = started else {
            state.started += 1;
            drop(state);
            self.starting.over(|count| format!("workers can be started again; that failed {count} times"));
            return Some(worker);
        };
        state.workers -= 1;
        let running = state.started;
        drop(state);
        self.starting.warn(format_args!("cannot start another worker ({e}); {running} are running"));
        None
    }

    // ---- a worker's thread -------------------------------------------------------------------------------------

    fn work(self: &Arc<Self>, worker: &Arc<NextJob<J>>) {
        let mut runner = (self.make)(self);
        while let Some(job) = self.wait(worker, &mut *runner) {
            let mut job = Some(job);
            while let Some(next) = job {
                self.run(&mut runner, next);
                job = self.urgent_or_idle(worker);
            }
        }
    }

    /// The worker's next job; `None` when it has left.
    fn wait(&self, worker: &Arc<NextJob<J>>, runner: &mut dyn Runner<J>) -> Option<J> {
        // First the upstream connection grows too old to be of use; then the thread itself does.
        let job = worker.wait_for(UPSTREAM_IDLE_TIME_MAX, Option::take).or_else(|| {
            runner.rest();
            worker.wait_for(WORKER_IDLE_TIME_MAX - UPSTREAM_IDLE_TIME_MAX, Option::take)
        });
        match job {
            None if self.leave(worker) => None,
            None => Some(worker.wait(Option::take)),
            job => job,
        }
    }

    /// Runs one job. A panic ends that alone: what it held was dropped by what it unwound through.
    fn run(self: &Arc<Self>, runner: &mut Box<dyn Runner<J>>, job: J) {
        if catch_unwind(AssertUnwindSafe(|| runner.run(job))).is_ok() {
            return;
        }
        let bugged = mem::replace(runner, (self.make)(self));
        let ended = catch_unwind(AssertUnwindSafe(|| { bugged }.end_by_bug()));
        if ended.is_err() {
            log::error!("nor could it be recorded");
        }
    }

    /// The next job that waits for a worker. If there is none, this one waits among the idle.
    fn urgent_or_idle(&self, worker: &Arc<NextJob<J>>) -> Option<J> {
        let mut state = self.state();
        let job = state.urgent.pop_front();
        if job.is_none() {
            state.idle.push(worker.clone());
        }
        job
    }

    /// Leaves the pool, unless this is one of the kept few or was just given a job.
    fn leave(&self, worker: &Arc<NextJob<J>>) -> bool {
        let mut state = self.state();
        if state.workers <= WORKERS_KEPT {
            return false;
        }
        let Some(at) = state.idle.iter().position(|other| Arc::ptr_eq(other, worker)) else { return false };
        state.idle.remove(at);
        state.workers -= 1;
        state.started -= 1;
        true
    }

    fn state(&self) -> MutexGuard<'_, State<R, J>> {
        lock(&self.state)
    }
}

fn hand<J>(worker: &NextJob<J>, job: impl Into<J>) {
    worker.ring(|next| *next = Some(job.into()));
}

fn start_thread(work: Box<dyn FnOnce() + Send>) -> io::Result<()> {
    thread::Builder::new().name("worker".into()).stack_size(WORKER_STACK_BYTES).spawn(work).map(drop)
}

impl<R: QueuedRequest, J: From<R> + Send + 'static> Places for Pool<R, J> {
    fn free(self: Arc<Self>, place: PlaceOf) {
        let mut state = self.state();
        match place {
            PlaceOf::Exchange => state.admission.end(),
            PlaceOf::Connecting => state.admission.connected(),
            PlaceOf::Beside => state.beside -= 1,
        }
        self.begin_next(state);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::thread::ThreadId;

    use super::*;

    /// What a request holds while it is in flight.
    type Held = (Place, Option<Place>);

    /// A request that does this when it begins.
    struct Ask {
        held: Option<Held>,
        is_called_off: Arc<AtomicBool>,
        does: Box<dyn FnOnce(Held) + Send>,
    }

    struct Task(Box<dyn FnOnce() + Send>);

    /// Does tasks, and counts itself and the bugs that it met.
    struct Doer(Arc<AtomicUsize>);

    impl Runner<Task> for Doer {
        fn run(&mut self, Task(task): Task) {
            task();
        }

        fn end_by_bug(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
            panic!("on purpose, again");
        }
    }

    impl QueuedRequest for Ask {
        fn begin(&mut self, in_flight: Place, connecting: Option<Place>) {
            assert!(self.held.replace((in_flight, connecting)).is_none(), "it begins once");
        }

        fn is_called_off(&self) -> bool {
            self.is_called_off.load(Ordering::SeqCst)
        }
    }

    impl From<Ask> for Task {
        fn from(mut ask: Ask) -> Task {
            let held = ask.held.take().expect("it has begun");
            Task(Box::new(move || (ask.does)(held)))
        }
    }

    type TestPool = Arc<Pool<Ask, Task>>;

    fn pool(in_flight_max: usize) -> TestPool {
        Pool::new(in_flight_max, |_| Box::new(Doer(Arc::default())))
    }

    /// A pool to which the system gives so many threads.
    fn pool_with_threads(in_flight_max: usize, threads: usize) -> TestPool {
        let left = AtomicUsize::new(threads);
        let start = move |work| {
            let one_less = |left: usize| left.checked_sub(1);
            left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less).map_err(|_| io::ErrorKind::WouldBlock)?;
            start_thread(work)
        };
        Pool::started_by(in_flight_max, Box::new(|_| Box::new(Doer(Arc::default()))), Box::new(start))
    }

    fn ask(does: impl FnOnce(Held) + Send + 'static) -> Ask {
        Ask { held: None, is_called_off: Arc::default(), does: Box::new(does) }
    }

    fn lend(pool: &TestPool, does: impl FnOnce(Held) + Send + 'static) {
        assert!(pool.lend(ask(does)).is_ok());
    }

    fn give(pool: &TestPool, task: impl FnOnce() + Send + 'static) {
        pool.give(Task(Box::new(task)));
    }

    /// Something to do that tells when it is begun, as `name` and on which thread, and goes on when it is let go.
    struct Steps {
        begun: Receiver<(usize, ThreadId)>,
        begins: Sender<(usize, ThreadId)>,
    }

    /// Dropped, it lets go.
    type LetGo = Sender<()>;

    impl Steps {
        fn new() -> Steps {
            let (begins, begun) = channel();
            Steps { begun, begins }
        }

        fn step(&self, name: usize) -> (impl FnOnce() + Send + use<>, LetGo) {
            let (let_go, gone) = channel();
            let begins = self.begins.clone();
            let step = move || {
                begins.send((name, thread::current().id())).expect("the test looks");
                let _ = gone.recv();
            };
            (step, let_go)
        }

        /// A request that has a connection at once.
        fn lend(&self, pool: &TestPool, name: usize) -> LetGo {
            let (step, let_go) = self.step(name);
            lend(pool, move |(in_flight, connecting)| {
                drop(connecting);
                step();
                drop(in_flight);
            });
            let_go
        }

        fn give(&self, pool: &TestPool, name: usize) -> LetGo {
            let (step, let_go) = self.step(name);
            give(pool, step);
            let_go
        }

        fn next(&self) -> (usize, ThreadId) {
            self.begun.recv().expect("it comes")
        }

        fn has_next(&self) -> bool {
            self.begun.try_recv().is_ok()
        }
    }

    fn until(is_so: impl Fn() -> bool) {
        while !is_so() {
            thread::yield_now();
        }
    }

    fn load(workers: usize, in_flight: usize, queued: usize) -> Load {
        Load { workers, in_flight, queued }
    }

    #[test]
    fn so_many_are_in_flight_and_whoever_ends_lets_the_next_begin() {
        let (pool, steps) = (pool(2), Steps::new());
        assert_eq!(pool.load(), Load::default(), "no thread before it is needed");
        let going = [0, 1, 2, 3].map(|name| {
            let let_go = steps.lend(&pool, name);
            assert!(name > 1 || steps.next().0 == name);
            let_go
        });
        assert_eq!(pool.load(), load(2, 2, 2));
        let [first, second, third, fourth] = going;
        drop(second);
        assert_eq!(steps.next().0, 2, "in order");
        assert_eq!((pool.load().in_flight, pool.load().queued), (2, 1));
        drop(first);
        assert_eq!(steps.next().0, 3);
        drop((third, fourth));
        until(|| pool.load().in_flight == 0);
        assert!(pool.load().workers <= 3, "one more than may be in flight");
    }

    #[test]
    fn one_with_a_connection_counts_but_overtakes_nobody() {
        let (pool, steps) = (pool(1), Steps::new());
        let connected = pool.begin().expect("there is room");
        assert_eq!(pool.load(), load(0, 1, 0));
        assert!(pool.begin().is_none());
        let first = steps.lend(&pool, 0);
        assert!(!steps.has_next());
        drop(connected);
        assert_eq!(steps.next().0, 0);
        let second = steps.lend(&pool, 1);
        drop(first);
        assert_eq!(steps.next().0, 1);
        drop(second);
        until(|| pool.begin().is_some());
    }

    #[test]
    fn beyond_the_queue_a_request_comes_back_and_those_without_a_client_make_room() {
        let (pool, steps) = (pool(1), Steps::new());
        let busy = steps.lend(&pool, 0);
        steps.next();
        let left: Arc<AtomicBool> = Arc::default();
        let (tell, told) = channel();
        for n in 0..QUEUE_LENGTH_MAX {
            let tell = tell.clone();
            let mut one = ask(move |(_in_flight, connecting)| {
                let _ = tell.send((n, connecting.is_none()));
            });
            if n % 500 == 7 {
                one.is_called_off = left.clone();
            }
            assert!(pool.lend(one).is_ok(), "{n}");
        }
        let refused = pool.lend(ask(|_| unreachable!("it is refused")));
        assert_eq!(refused.map_err(|(_, why)| why), Err(Busy::QueueFull));
        assert_eq!(pool.load(), load(1, 1, QUEUE_LENGTH_MAX));
        left.store(true, Ordering::SeqCst);
        lend(&pool, |_| {});
        // They begin although as many are in flight as may be: they only leave a row.
        let gone: Vec<_> = (0..3).map(|_| told.recv().expect("it begins")).collect();
        assert_eq!(gone, [(7, true), (507, true), (1007, true)]);
        until(|| pool.load().in_flight == 1);
        assert_eq!(pool.load().queued, QUEUE_LENGTH_MAX - 2);
        drop(busy);
        assert_eq!(told.recv().expect("it begins"), (0, false));
        until(|| pool.load().in_flight == 0 && pool.load().queued == 0);
    }

    #[test]
    fn few_at_a_time_are_on_their_way_to_a_connection() {
        let (pool, steps) = (pool(1000), Steps::new());
        let (hold, held) = channel();
        for _ in 0..CONNECTING_MAX {
            let hold = hold.clone();
            lend(&pool, move |own| hold.send(own).expect("the test looks"));
        }
        let mut held: Vec<Held> = (0..CONNECTING_MAX).map(|_| held.recv().expect("it begins")).collect();
        let next = steps.lend(&pool, 0);
        assert_eq!((pool.load().in_flight, pool.load().queued), (CONNECTING_MAX, 1));
        assert!(!steps.has_next());
        // A connection is enough: the exchange itself goes on.
        drop(held[0].1.take());
        assert_eq!(steps.next().0, 0);
        assert_eq!((pool.load().in_flight, pool.load().queued), (CONNECTING_MAX + 1, 0));
        drop((next, held));
        until(|| pool.load().in_flight == 0);
    }

    #[test]
    fn a_job_beside_the_exchanges_takes_no_thread_from_them() {
        let pool = pool(1);
        let (go, gone) = channel::<()>();
        let (tell, told) = channel();
        let (beside, exports) = (pool.beside(), tell.clone());
        give(&pool, move || {
            let _beside = beside;
            exports.send("exports").expect("the test looks");
            let _ = gone.recv();
        });
        let (go_too, gone_too) = channel::<()>();
        let exchanges = tell.clone();
        lend(&pool, move |_held| {
            exchanges.send("exchanges").expect("the test looks");
            let _ = gone_too.recv();
        });
        assert_eq!([told.recv(), told.recv()].map(Result::ok).iter().flatten().count(), 2);
        give(&pool, move || tell.send("something short").expect("the test looks"));
        assert_eq!(told.recv(), Ok("something short"));
        assert_eq!((pool.load().workers, pool.state().beside), (3, 1));
        drop((go, go_too));
        until(|| pool.state().beside == 0);
    }

    #[test]
    fn the_last_busy_gets_the_next_job() {
        let (pool, steps) = (pool(8), Steps::new());
        let idle = |count| until(|| pool.state().idle.len() == count);
        let going = [0, 1, 2].map(|name| steps.give(&pool, name));
        let threads = [0, 1, 2].map(|_| steps.next());
        for (count, let_go) in going.into_iter().enumerate() {
            drop(let_go);
            idle(count + 1);
        }
        let last = threads.iter().find(|(name, _)| *name == 2).expect("it was begun").1;
        for _ in 0..3 {
            let let_go = steps.give(&pool, 3);
            assert_eq!(steps.next(), (3, last));
            drop(let_go);
            idle(3);
        }
        assert_eq!(pool.load(), load(3, 0, 0));
    }

    #[test]
    fn what_is_in_flight_goes_before_what_waits() {
        let (pool, steps) = (pool(1), Steps::new());
        let exchange = steps.lend(&pool, 0);
        let other = steps.give(&pool, 1);
        let _begun = [steps.next(), steps.next()];
        assert_eq!(pool.load(), load(2, 1, 0));
        let (_waits, urgent) = (steps.lend(&pool, 2), steps.give(&pool, 3));
        assert!(pool.give_now(Task(Box::new(|| unreachable!("it comes back")))).is_err());
        assert_eq!(pool.load(), load(2, 1, 1), "no thread more than one beyond those in flight");
        drop(exchange);
        assert_eq!(steps.next().0, 3);
        drop(urgent);
        assert_eq!(steps.next().0, 2);
        drop(other);
    }

    #[test]
    fn without_any_thread_a_request_comes_back() {
        let pool = pool_with_threads(4, 0);
        let back = pool.lend(ask(|_| unreachable!("nobody runs it")));
        assert_eq!(pool.load(), load(0, 1, 0), "until it is answered");
        assert!(matches!(&back, Err((_, Busy::NoThread))));
        drop(back);
        assert_eq!(pool.load(), Load::default());
        let (kept, is_dropped) = channel::<()>();
        give(&pool, move || drop(kept));
        assert!(is_dropped.recv().is_err(), "with what it holds");
        assert!(pool.give_now(Task(Box::new(|| {}))).is_err());
    }

    #[test]
    fn without_another_thread_a_request_waits_for_whoever_runs() {
        let (pool, steps) = (pool_with_threads(4, 1), Steps::new());
        let first = steps.lend(&pool, 0);
        let (_, thread) = steps.next();
        let second = steps.lend(&pool, 1);
        assert_eq!(pool.load(), load(1, 2, 0));
        drop(first);
        assert_eq!(steps.next(), (1, thread));
        drop(second);
        until(|| pool.load().in_flight == 0);
    }

    #[test]
    fn who_is_about_to_leave_takes_the_job_that_came_first() {
        // Its threads are the test itself.
        let pool: TestPool = Pool::started_by(8, Box::new(|_| unreachable!("no thread runs")), Box::new(|_| Ok(())));
        let workers: Vec<_> = (0..WORKERS_KEPT + 2).map(|_| pool.free_worker().expect("a new one")).collect();
        workers.iter().for_each(|worker| assert!(pool.urgent_or_idle(worker).is_none()));
        let last = workers.last().expect("there are some");
        let (tell, told) = channel();
        give(&pool, move || tell.send("done").expect("the test looks"));
        assert!(!pool.leave(last), "it has a job");
        assert!(pool.leave(&workers[0]));
        assert_eq!(pool.load().workers, WORKERS_KEPT + 1);
        (last.wait(Option::take).0)();
        assert_eq!(told.recv(), Ok("done"));
        assert!(pool.urgent_or_idle(last).is_none());
        assert!(pool.leave(last), "now it has none");
        assert!(workers[1..=WORKERS_KEPT].iter().all(|worker| !pool.leave(worker)), "some are kept");
        let state = pool.state();
        assert_eq!((state.workers, state.started, state.idle.len()), (WORKERS_KEPT, WORKERS_KEPT, WORKERS_KEPT));
    }

    #[test]
    fn a_panic_costs_neither_the_worker_nor_the_count() {
        let (made, bugs) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (makes, counts) = (made.clone(), bugs.clone());
        let pool: TestPool = Pool::new(1, move |_| {
            makes.fetch_add(1, Ordering::SeqCst);
            Box::new(Doer(counts.clone()))
        });
        let steps = Steps::new();
        lend(&pool, |_held| panic!("on purpose"));
        until(|| pool.load().in_flight == 0 && !pool.state().idle.is_empty());
        assert_eq!((made.load(Ordering::SeqCst), bugs.load(Ordering::SeqCst)), (2, 1));
        drop(steps.lend(&pool, 0));
        assert_eq!(steps.next().0, 0);
        assert_eq!(pool.load().workers, 1);
    }
}
