//! Host threads that work for the length of a round, again and again.
//!
//! A round is some hundred microseconds of host time, so what matters is what it costs to hand work over and to
//! keep caches warm:
//!
//! - *Work is moved, not lent.* Its thread owns a task while it runs. So the threads outlive every
//!   round, and nothing here is unsafe.
//! - *Whoever waits spins first, then parks.* Waking a parked thread takes longer than most waits. A thread spins for
//!   [`SPIN_MAX`] at most, and only if its last wait would have been over within that time; so one for which there is
//!   nothing to do burns no core. While it spins it lets other processes go first.
//! - *A task goes home.* It runs on the thread that ran it last, whose caches know it. Another thread takes it over
//!   for good if it has nothing to do and the task would otherwise wait longer than the move costs
//!   ([`MOVE_COST`]). How long tasks take is measured.
//! - *Little work stays with the caller*, who is the first of the threads.
//!
//! Host time decides who does what, and nothing else: tasks share nothing, and come back all together.

use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What is done on some thread.
pub trait Work: Send + 'static {
    /// Does it.
    fn run(&mut self);

    /// How much there is to do, in a unit of its own; the time that it takes is about proportional.
    fn size(&self) -> u64;
}

/// Work with what is known of it.
#[derive(Debug)]
pub struct Task<W> {
    /// The work.
    pub work: W,
    habit: Habit,
    expected: Duration,
}

/// Where a task has run, and how long it took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Habit {
    /// The thread that ran it last, if any has.
    home: Option<usize>,
    /// Picoseconds for each unit of its size.
    pace: u64,
}

impl<W: Work> Task<W> {
    /// A task that will go on as another one with that habit did.
    pub fn new(work: W, habit: Habit) -> Task<W> {
        Task { work, habit, expected: Duration::ZERO }
    }

    /// What has been learnt about it.
    pub fn habit(&self) -> Habit {
        self.habit
    }

    fn expect(&mut self) {
        self.expected = Duration::from_nanos(self.work.size().saturating_mul(self.habit.pace) / 1000);
    }

    /// Runs on the calling thread.
    fn run(&mut self) {
        let size = self.work.size().max(1);
        let start = Instant::now();
        self.work.run();
        let pace = start.elapsed().as_nanos() as u64 * 1000 / size;
        self.habit.pace = if self.habit.pace == 0 { pace } else { (3 * self.habit.pace + pace) / 4 };
    }
}

/// The longest that a thread spins: some times what waking it takes.
pub const SPIN_MAX: Duration = Duration::from_micros(200);
/// What it costs to run a task on a thread that did not run it last: its share of a level-two cache, fetched again.
pub const MOVE_COST: Duration = Duration::from_micros(30);
/// Less work than this is not worth another thread.
const WORTH_HANDING_OVER: Duration = Duration::from_micros(10);

/// The threads. Dropping them ends them.
#[derive(Debug)]
pub struct HostThreads<W: Work> {
    shared: Arc<Shared<W>>,
    /// All but the caller's.
    threads: Vec<JoinHandle<()>>,
    patience: Patience,
}

#[derive(Debug)]
struct Shared<W> {
    state: Mutex<State<W>>,
    /// Counts calls of `run`; whoever has nothing to do looks at it.
    calls: AtomicUsize,
    /// Tasks of this call that have not come back.
    unfinished: AtomicUsize,
    /// Where each thread parks; the caller, who is the first, until all tasks have come back.
    wake: Vec<Condvar>,
}

#[derive(Debug)]
struct State<W> {
    /// By thread; the first is the caller's.
    hands: Vec<Hand<W>>,
    finished: Vec<Task<W>>,
    is_over: bool,
    panic: Option<Panic>,
}

/// What a thread has to do.
#[derive(Debug)]
struct Hand<W> {
    waiting: VecDeque<Task<W>>,
    /// When it will be free for the next, if all goes as expected.
    free_at: Instant,
    is_parked: bool,
}

struct Panic(Box<dyn Any + Send>);

impl std::fmt::Debug for Panic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Panic")
    }
}

impl<W: Work> HostThreads<W> {
    /// `count` threads, of which the caller is one.
    ///
    /// # Errors
    /// When the host gives no more threads.
    pub fn new(count: usize) -> std::io::Result<HostThreads<W>> {
        let count = count.max(1);
        let hand = |_| Hand { waiting: VecDeque::new(), free_at: Instant::now(), is_parked: false };
        let hands = (0..count).map(hand).collect();
        let state = State { hands, finished: Vec::new(), is_over: false, panic: None };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            calls: AtomicUsize::new(0),
            unfinished: AtomicUsize::new(0),
            wake: (0..count).map(|_| Condvar::new()).collect(),
        });
        let mut all = HostThreads { shared, threads: Vec::new(), patience: Patience::default() };
        for hand in 1..count {
            let shared = Arc::clone(&all.shared);
            let builder = std::thread::Builder::new().name(format!("disco CPUs {hand}"));
            all.threads.push(builder.spawn(move || shared.serve(hand))?);
        }
        Ok(all)
    }

    /// Runs all tasks and puts them back, in any order.
    ///
    /// # Panics
    /// If a task does. That task is lost.
    pub fn run(&mut self, tasks: &mut Vec<Task<W>>) {
        tasks.iter_mut().for_each(|task| task.expect());
        if self.threads.is_empty() || tasks.len() < 2 || !is_worth_handing_over(tasks) {
            tasks.iter_mut().for_each(|task| task.run());
            return;
        }
        let shared = &self.shared;
        shared.post(tasks);
        drop(shared.work(shared.lock(), CALLER));
        shared.wait(CALLER, &mut self.patience, || shared.unfinished.load(Ordering::Acquire) == 0);
        let mut state = shared.lock();
        if let Some(Panic(cause)) = state.panic.take() {
            tasks.append(&mut state.finished);
            drop(state);
            resume_unwind(cause);
        }
        tasks.append(&mut state.finished);
    }
}

/// Whether there is enough to do beside the longest task, or too little is known.
fn is_worth_handing_over<W>(tasks: &[Task<W>]) -> bool {
    let expected = || tasks.iter().map(|task| task.expected);
    let rest = expected().sum::<Duration>() - expected().max().unwrap_or_default();
    rest > WORTH_HANDING_OVER || tasks.iter().any(|task| task.habit.pace == 0)
}

impl<W: Work> Drop for HostThreads<W> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.is_over = true;
        self.shared.calls.fetch_add(1, Ordering::Release);
        self.shared.wake.iter().for_each(|wake| wake.notify_one());
        drop(state);
        for thread in self.threads.drain(..) {
            thread.join().expect("a thread ends without a panic: those of tasks are passed on");
        }
    }
}

/// The thread that asks for work.
const CALLER: usize = 0;
/// No code that can panic runs with the lock.
const UNPOISONED: &str = "nobody panics with the lock";

impl<W: Work> Shared<W> {
    fn lock(&self) -> MutexGuard<'_, State<W>> {
        self.state.lock().expect(UNPOISONED)
    }

    /// Hands the tasks out and wakes the threads that have something to do.
    fn post(&self, tasks: &mut Vec<Task<W>>) {
        let mut state = self.lock();
        self.unfinished.store(tasks.len(), Ordering::Release);
        state.hand_out(tasks);
        self.calls.fetch_add(1, Ordering::Release);
        for (hand, wake) in state.hands.iter().zip(&self.wake) {
            if hand.is_parked && !hand.waiting.is_empty() {
                wake.notify_one();
            }
        }
    }

    /// The life of a thread.
    fn serve(&self, hand: usize) {
        let mut patience = Patience::default();
        loop {
            let seen = self.calls.load(Ordering::Acquire);
            let state = self.work(self.lock(), hand);
            if state.is_over {
                return;
            }
            drop(state);
            self.wait(hand, &mut patience, || self.calls.load(Ordering::Acquire) != seen);
        }
    }

    /// Works until there is nothing for `hand` any more.
    fn work<'s>(&'s self, mut state: MutexGuard<'s, State<W>>, hand: usize) -> MutexGuard<'s, State<W>> {
        while let Some(mut task) = state.next(hand) {
            drop(state);
            let end = catch_unwind(AssertUnwindSafe(|| task.run()));
            state = self.lock();
            match end {
                Ok(()) => state.finished.push(task),
                Err(cause) => state.panic = Some(Panic(cause)),
            }
            if self.unfinished.fetch_sub(1, Ordering::AcqRel) == 1 && state.hands[CALLER].is_parked {
                self.wake[CALLER].notify_one();
            }
        }
        state
    }

    /// Waits until `is_over`, and takes over meanwhile what turns out to wait too long for another thread.
    fn wait(&self, hand: usize, patience: &mut Patience, is_over: impl Fn() -> bool) {
        let start = Instant::now();
        while patience.spins && start.elapsed() < SPIN_MAX {
            if spin(MOVE_COST, &is_over) {
                break;
            }
            drop(self.work(self.lock(), hand));
        }
        let mut state = self.lock();
        while !is_over() {
            state.hands[hand].is_parked = true;
            state = self.wake[hand].wait(state).expect(UNPOISONED);
            state.hands[hand].is_parked = false;
        }
        drop(state);
        patience.spins = start.elapsed() < SPIN_MAX;
    }
}

impl<W> State<W> {
    /// Gives every task to the thread that ran it last. New ones go to those with least to do, the longest first; so
    /// does what would wait for a thread while another has nothing at all to do.
    fn hand_out(&mut self, tasks: &mut Vec<Task<W>>) {
        let now = Instant::now();
        self.hands.iter_mut().for_each(|hand| hand.free_at = now);
        let (at_home, mut new): (Vec<_>, Vec<_>) = tasks.drain(..).partition(|task| task.habit.home.is_some());
        for task in at_home {
            let home = task.habit.home.expect("just looked at") % self.hands.len();
            self.hands[home].waiting.push_back(task);
        }
        new.sort_by_key(|task| std::cmp::Reverse(task.expected));
        for task in new {
            let least = self.hands.iter_mut().min_by_key(|hand| (hand.expected(), hand.waiting.len()));
            least.expect("the caller is one").waiting.push_back(task);
        }
        for hand in 0..self.hands.len() {
            if self.hands[hand].waiting.is_empty() {
                let taken = self.take_over(now);
                self.hands[hand].waiting.extend(taken);
            }
        }
    }

    /// What thread `hand` does next: its own, or what another would not come to soon.
    fn next(&mut self, hand: usize) -> Option<Task<W>> {
        let own = self.hands[hand].waiting.pop_front();
        let now = if own.is_some() || self.is_any_waiting() { Instant::now() } else { return None };
        let mut task = own.or_else(|| self.take_over(now))?;
        task.habit.home = Some(hand);
        self.hands[hand].free_at = now + task.expected;
        Some(task)
    }

    fn is_any_waiting(&self) -> bool {
        self.hands.iter().any(|hand| !hand.waiting.is_empty())
    }

    /// Takes the task that would wait longest, if that is long enough.
    fn take_over(&mut self, now: Instant) -> Option<Task<W>> {
        let longest = self.hands.iter_mut().max_by_key(|hand| hand.wait_of_last(now))?;
        if longest.wait_of_last(now) > MOVE_COST { longest.waiting.pop_back() } else { None }
    }
}

impl<W> Hand<W> {
    fn expected(&self) -> Duration {
        self.waiting.iter().map(|task| task.expected).sum()
    }

    /// How long its last task will wait: for the others, and for what the thread does now. What is overdue, or not
    /// begun because the thread has not woken up, is expected to take as long again.
    fn wait_of_last(&self, now: Instant) -> Duration {
        let Some(last) = self.waiting.back() else { return Duration::ZERO };
        let current = (self.free_at - now).max(now - self.free_at);
        current + self.expected() - last.expected
    }
}

/// How somebody waits who has waited before.
#[derive(Debug, Default)]
struct Patience {
    /// Spinning is worth while: the last wait was short.
    spins: bool,
}

/// Looks again and again whether a wait is over. False: it has taken longer than `limit`.
fn spin(limit: Duration, is_over: impl Fn() -> bool) -> bool {
    const LOOKS: usize = 50; // about a microsecond
    let start = Instant::now();
    while start.elapsed() < limit {
        for _ in 0..LOOKS {
            if is_over() {
                return true;
            }
            std::hint::spin_loop();
        }
        // Whoever else wants the core shall have it.
        std::thread::yield_now();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts to `size` in about as many nanoseconds, `fails` or not.
    struct Counting {
        number: usize,
        size: u64,
        runs: u32,
        fails: bool,
    }

    impl Work for Counting {
        fn run(&mut self) {
            assert!(!self.fails, "task {} fails", self.number);
            let mut sum = 0u64;
            (0..self.size).for_each(|step| sum = std::hint::black_box(sum ^ step));
            self.runs += 1;
        }

        fn size(&self) -> u64 {
            self.size
        }
    }

    fn task(number: usize, size: u64) -> Task<Counting> {
        Task::new(Counting { number, size, runs: 0, fails: false }, Habit::default())
    }

    fn numbers(tasks: &[Task<Counting>]) -> Vec<usize> {
        let mut numbers: Vec<usize> = tasks.iter().map(|task| task.work.number).collect();
        numbers.sort_unstable();
        numbers
    }

    #[test]
    fn every_task_runs_once_in_a_call_on_any_number_of_threads() {
        for count in [0, 1, 2, 3, 7] {
            let mut threads = HostThreads::new(count).unwrap();
            let mut tasks: Vec<_> = (0..9).map(|number| task(number, 1 << (2 * number))).collect();
            for call in 0..300u32 {
                // Some calls have few tasks, some have none.
                let mut others = tasks.split_off(call as usize % 10);
                threads.run(&mut tasks);
                threads.run(&mut others);
                tasks.append(&mut others);
                assert_eq!(numbers(&tasks), Vec::from_iter(0..9));
                assert!(tasks.iter().all(|task| task.work.runs == call + 1), "{count} threads, call {call}");
            }
        }
    }

    #[test]
    fn what_a_task_panics_with_reaches_the_caller_and_the_others_come_back() {
        for count in [1, 2, 4] {
            let mut threads = HostThreads::new(count).unwrap();
            let mut tasks: Vec<_> = (0..6).map(|number| task(number, 100_000)).collect();
            threads.run(&mut tasks);
            tasks.iter_mut().find(|task| task.work.number == 3).unwrap().work.fails = true;
            let cause = catch_unwind(AssertUnwindSafe(|| threads.run(&mut tasks))).unwrap_err();
            assert_eq!(cause.downcast_ref::<String>().unwrap(), "task 3 fails");
            tasks.retain(|task| !task.work.fails);
            assert_eq!(numbers(&tasks), [0, 1, 2, 4, 5]);
            threads.run(&mut tasks);
            assert_eq!(numbers(&tasks), [0, 1, 2, 4, 5]);
        }
    }

    #[test]
    fn threads_without_work_park() {
        let mut threads = HostThreads::new(3).unwrap();
        threads.run(&mut (0..6).map(|number| task(number, 100_000)).collect());
        while !threads.shared.lock().hands[1..].iter().all(|hand| hand.is_parked) {
            std::thread::yield_now();
        }
    }

    /// A task as number, home and expected microseconds.
    type Row = (usize, Option<usize>, u64);

    /// Tasks handed out to two threads; what each has then.
    fn handed_out(tasks: &[Row]) -> (State<Counting>, [Vec<usize>; 2]) {
        let hand = |_| Hand { waiting: VecDeque::new(), free_at: Instant::now(), is_parked: false };
        let mut state =
            State { hands: (0..2).map(hand).collect(), finished: Vec::new(), is_over: false, panic: None };
        let made = tasks.iter().map(|(number, home, micros)| {
            let mut task = task(*number, 1);
            task.habit.home = *home;
            task.expected = Duration::from_micros(*micros);
            task
        });
        state.hand_out(&mut made.collect());
        let waiting = [0, 1].map(|hand| state.hands[hand].waiting.iter().map(|task| task.work.number).collect());
        (state, waiting)
    }

    #[test]
    fn tasks_go_home_and_new_ones_to_those_with_least_to_do() {
        let rows: [(&[Row], [&[usize]; 2]); 5] = [
            (&[(1, Some(1), 90), (2, Some(0), 900), (3, Some(1), 90)], [&[2], &[1, 3]]),
            (&[(1, None, 10), (2, None, 30), (3, None, 10), (4, None, 15)], [&[2], &[4, 1, 3]]),
            (&[(1, None, 0), (2, None, 0), (3, None, 0)], [&[1, 3], &[2]]), // nothing is known
            (&[(1, Some(0), 500), (2, Some(0), 20)], [&[1], &[2]]),         // it would wait long for nothing
            (&[(1, Some(0), 20), (2, Some(0), 500)], [&[1, 2], &[]]),       // not as long as it takes to move
        ];
        for (tasks, [first, second]) in rows {
            assert_eq!(handed_out(tasks).1, [first, second], "{tasks:?}");
        }
    }

    #[test]
    fn whoever_has_nothing_takes_what_would_wait_longest_and_keeps_it() {
        let (mut state, _) =
            handed_out(&[(1, Some(0), 900), (2, Some(0), 900), (3, Some(0), 900), (4, Some(1), 1)]);
        let next =
            |state: &mut State<Counting>, hand| state.next(hand).map(|task| (task.work.number, task.habit.home));
        assert_eq!(next(&mut state, 1), Some((4, Some(1))));
        assert_eq!(next(&mut state, 0), Some((1, Some(0))));
        assert_eq!(next(&mut state, 1), Some((3, Some(1))));
        assert_eq!(next(&mut state, 1), Some((2, Some(1))), "it has been expected to wait for 900 microseconds");
        assert_eq!((next(&mut state, 0), next(&mut state, 1)), (None, None));
    }
}
