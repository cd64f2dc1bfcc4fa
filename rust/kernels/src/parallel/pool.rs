//! A pool of threads of our own, for processes without PyTorch.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::Team;

/// The threads of this process, started at first use; the calling thread is one of them.
///
/// A forked child inherits no threads, so the pool is keyed by process id and starts anew there.
#[derive(Clone, Copy, Debug)]
pub struct Pool {
    threads: usize,
}

impl Pool {
    /// A team of `threads` members of the process-wide pool, the caller included.
    pub fn new(threads: usize) -> Self {
        Self { threads: threads.max(1) }
    }
}

/// A call of [`Team::run`] that waits for its members.
struct Job {
    /// The member function, its lifetime erased: `run` outlives every use of it.
    member: *const (dyn Fn(usize) + Sync),
    /// Members not yet claimed; they are claimed from the last.
    unclaimed: usize,
    /// Members claimed and not yet returned.
    running: usize,
    /// The first panic of a member.
    panic: Option<Box<dyn Any + Send>>,
}

// SAFETY: the member function is `Sync`, and `run` keeps it alive until nobody uses it.
unsafe impl Send for Job {}

#[derive(Default)]
struct State {
    job: Option<Job>,
    workers: usize,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    posted: Condvar,
    finished: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that can panic runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Claims and calls members until none is left; returns the lock.
    fn work<'s>(&'s self, mut state: MutexGuard<'s, State>) -> MutexGuard<'s, State> {
        while let Some(job) = state.job.as_mut().filter(|job| job.unclaimed > 0) {
            job.unclaimed -= 1;
            job.running += 1;
            let (member, index) = (job.member, job.unclaimed);
            drop(state);
            // SAFETY: `run` returns only when no claimed member is running.
            let outcome = catch_unwind(AssertUnwindSafe(|| unsafe { (*member)(index) }));
            state = self.lock();
            if let Some(job) = state.job.as_mut() {
                job.running -= 1;
                if let Err(panic) = outcome {
                    job.panic.get_or_insert(panic);
                }
            }
            self.finished.notify_all();
        }
        state
    }

    fn ensure_workers(self: &Arc<Self>, state: &mut State, wanted: usize) {
        while state.workers < wanted {
            let shared = Arc::clone(self);
            let name = format!("fusewire-{}", state.workers + 1);
            let spawned = std::thread::Builder::new().name(name).spawn(move || {
                let mut state = shared.lock();
                loop {
                    state = shared.work(state);
                    state = shared.posted.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
            });
            if spawned.is_err() {
                break; // The callers do the work themselves.
            }
            state.workers += 1;
        }
    }
}

/// The pool of this process.
fn shared() -> Arc<Shared> {
    static POOL: Mutex<Option<(u32, Arc<Shared>)>> = Mutex::new(None);
    let process = std::process::id();
    let mut pool = POOL.lock().unwrap_or_else(PoisonError::into_inner);
    match pool.as_ref() {
        Some((owner, shared)) if *owner == process => Arc::clone(shared),
        _ => {
            let fresh = Arc::new(Shared::default());
            // The parent's pool is leaked: its lock may have been held while the process forked.
            std::mem::forget(pool.replace((process, Arc::clone(&fresh))));
            fresh
        }
    }
}

impl Team for Pool {
    fn threads(&self) -> usize {
        self.threads
    }

    fn run(&self, members: usize, member: &(dyn Fn(usize) + Sync)) {
        if self.threads == 1 || members <= 1 {
            return (0..members).for_each(member);
        }
        let shared = shared();
        let mut state = shared.lock();
        if state.job.is_some() {
            // Another call has the workers (or this is a member of one): work alone.
            drop(state);
            return (0..members).for_each(member);
        }
        shared.ensure_workers(&mut state, (self.threads - 1).min(members - 1));
        // SAFETY: only the lifetime changes; this function does not return before all use ends.
        let member = unsafe {
            std::mem::transmute::<*const (dyn Fn(usize) + Sync), *const (dyn Fn(usize) + Sync)>(
                member,
            )
        };
        state.job = Some(Job { member, unclaimed: members, running: 0, panic: None });
        shared.posted.notify_all();
        state = shared.work(state);
        while state.job.as_ref().is_some_and(|job| job.running > 0) {
            state = shared.finished.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let panic = state.job.take().and_then(|job| job.panic);
        drop(state);
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }
}
