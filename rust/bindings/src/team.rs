//! The team of threads that calls run on.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::available_parallelism;

use fusewire_kernels::parallel::{Pool, Team};

use crate::torch_abi::{self, TorchTeam};

/// Members of our own team; 0 stands for as many as the process has cores.
static OWN_THREADS: AtomicUsize = AtomicUsize::new(0);

fn own_threads() -> usize {
    match OWN_THREADS.load(Ordering::Relaxed) {
        0 => available_parallelism().map_or(1, usize::from),
        threads => threads,
    }
}

/// Calls `work` with the team of this process: PyTorch's where it is attached, else our own.
pub(crate) fn with_team<R>(work: impl FnOnce(&dyn Team) -> R) -> R {
    if torch_abi::is_attached() { work(&TorchTeam) } else { work(&Pool::new(own_threads())) }
}

/// Sets the members of our own team, at least 1; PyTorch's team has its own count.
pub(crate) fn set_own_threads(threads: usize) {
    OWN_THREADS.store(threads, Ordering::Relaxed);
}
