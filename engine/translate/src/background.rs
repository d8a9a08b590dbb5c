//! Translating on a thread of its own, while the CPU goes on with the interpreter.
//!
//! Code is found by what its page holds, and a CPU looks for it whenever it comes to a page; so it does not matter
//! to a guest when code is made, or by whom. A CPU sends a [`Request`], which holds all that the code depends on,
//! and hears what became of it when it next wants something. It sends none while as many CPUs run as there are
//! host threads: they would wait for each other.

use std::collections::HashSet;
use std::io;
use std::sync::mpsc::{self, Receiver, Sender, SyncSender, TryRecvError};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use machine::cpu::CodeVersion;
use rustc_hash::FxBuildHasher;

use crate::store::{Made, Request, Store};

/// Requests that may wait; more are not taken.
const WAITING_MAX: usize = 64;
/// Runs that cannot be translated and are remembered; beyond that a CPU forgets them, and asks again.
const NEVER_MAX: usize = 4096;

/// A run, by its page and its place there.
type Run = (CodeVersion, usize);

/// What is sent to the thread.
struct Job {
    run: Run,
    request: Request,
    answers: Sender<Answer>,
}

/// And what comes back.
#[derive(Debug)]
struct Answer {
    run: Run,
    made: Made,
    took: Duration,
}

/// A CPU's line to the thread. The thread ends with the last of them.
#[derive(Debug)]
pub struct Background {
    jobs: SyncSender<Job>,
    answer: Sender<Answer>,
    /// Nobody else listens; a CPU has to be `Sync`.
    answers: Mutex<Receiver<Answer>>,
    /// The pages of which a run was sent and not answered yet. Others of its runs are likely to be in the same region.
    waiting: HashSet<CodeVersion, FxBuildHasher>,
    /// The runs that cannot be translated.
    never: HashSet<Run, FxBuildHasher>,
    host_threads: usize,
}

/// What is known of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It was not sent, or has been answered.
    Nothing,
    /// It, or another of its page, is being translated.
    Waiting,
    /// It cannot be translated.
    Never,
}

impl Background {
    /// Starts a thread that translates for `store`, whose CPUs run on `host_threads` threads.
    ///
    /// # Errors
    /// The host's, if it gives no thread.
    pub fn start(store: &Arc<Store>, host_threads: usize) -> io::Result<Background> {
        let (jobs, waiting) = mpsc::sync_channel(WAITING_MAX);
        let store = Arc::downgrade(store);
        thread::Builder::new().name("disco-translate".to_owned()).spawn(move || work(&store, &waiting))?;
        Ok(Background::new(jobs, host_threads))
    }

    fn new(jobs: SyncSender<Job>, host_threads: usize) -> Background {
        let (answer, answers) = mpsc::channel();
        Background {
            jobs,
            answer,
            answers: Mutex::new(answers),
            waiting: HashSet::default(),
            never: HashSet::default(),
            host_threads,
        }
    }

    /// A line for another CPU.
    pub fn share(&self) -> Background {
        Background::new(self.jobs.clone(), self.host_threads)
    }

    /// Takes in the answers that have come, and says how long the thread has worked for them.
    pub fn listen(&mut self) -> Duration {
        let mut took = Duration::ZERO;
        let answers = self.answers.get_mut().unwrap_or_else(PoisonError::into_inner);
        for answer in answers.try_iter() {
            took += answer.took;
            self.waiting.remove(&answer.run.0);
            if answer.made == Made::Never {
                self.never.insert(answer.run);
            }
        }
        if self.never.len() > NEVER_MAX {
            self.never.clear();
        }
        took
    }

    /// How far the thread is with a run, as far as has been heard.
    pub fn progress(&self, run: Run) -> Progress {
        if self.waiting.contains(&run.0) {
            Progress::Waiting
        } else if self.never.contains(&run) {
            Progress::Never
        } else {
            Progress::Nothing
        }
    }

    /// Whether a host thread is left for translating.
    pub fn is_idle(&self, store: &Store) -> bool {
        store.running_count() < self.host_threads
    }

    /// Sends a run. False: too many wait.
    pub fn send(&mut self, run: Run, request: Request) -> bool {
        let is_sent = self.jobs.try_send(Job { run, request, answers: self.answer.clone() }).is_ok();
        if is_sent {
            self.waiting.insert(run.0);
        }
        is_sent
    }
}

/// The next job; `None` when nobody can send any more. Where code is new, jobs follow each other within this time, and to
/// wake a thread that has gone to sleep costs the CPU that sends as much as it interprets meanwhile.
fn next(waiting: &Receiver<Job>) -> Option<Job> {
    const AWAKE: Duration = Duration::from_micros(100);
    let start = Instant::now();
    loop {
        match waiting.try_recv() {
            Ok(job) => return Some(job),
            Err(TryRecvError::Disconnected) => return None,
            Err(TryRecvError::Empty) if start.elapsed() >= AWAKE => return waiting.recv().ok(),
            Err(TryRecvError::Empty) => std::hint::spin_loop(),
        }
    }
}

/// The thread: translates until nobody can send any more.
fn work(store: &Weak<Store>, waiting: &Receiver<Job>) {
    while let Some(Job { run, request, answers }) = next(waiting) {
        let Some(store) = store.upgrade() else { return };
        let start = Instant::now();
        let made = store.translate(&request);
        // Whoever asked may be gone.
        let _ = answers.send(Answer { run, made, took: start.elapsed() });
    }
}
