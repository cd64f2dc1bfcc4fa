//! PyTorch's own threads.
//!
//! A pool of ours beside them would gain nothing: after each of its operators PyTorch's threads
//! spin for some milliseconds on the cores that ours would need.

use std::any::Any;
use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Mutex;

use fusewire_kernels::parallel::Team;

use super::symbols::symbols;

/// The team that PyTorch's operators run on; as large as `torch.get_num_threads()` says.
pub(crate) struct TorchTeam;

struct Job<'a> {
    member: &'a (dyn Fn(usize) + Sync),
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

/// Works off a range of members; must not unwind into libtorch.
unsafe extern "C" fn work(begin: i64, end: i64, context: *mut c_void) {
    // SAFETY: the context is the job of the call of `run` that waits for this function.
    let job = unsafe { &*context.cast::<Job<'_>>() };
    for index in begin..end {
        let outcome = catch_unwind(AssertUnwindSafe(|| (job.member)(index as usize)));
        if let (Err(payload), Ok(mut panic)) = (outcome, job.panic.lock()) {
            panic.get_or_insert(payload);
        }
    }
}

impl Team for TorchTeam {
    fn threads(&self) -> usize {
        let mut threads = 1;
        // SAFETY: the argument is a place for the number.
        unsafe { (symbols().torch_get_num_threads)(&mut threads) };
        threads.max(1) as usize
    }

    fn run(&self, members: usize, member: &(dyn Fn(usize) + Sync)) {
        if members <= 1 {
            return (0..members).for_each(member);
        }
        let job = Job { member, panic: Mutex::new(None) };
        let context = std::ptr::from_ref(&job).cast_mut().cast::<c_void>();
        // SAFETY: the job outlives the call, which returns when all members have.
        let status = unsafe { (symbols().torch_parallel_for)(0, members as i64, 1, work, context) };
        assert_eq!(status, 0, "PyTorch's threads could not be used");
        if let Some(payload) = job.panic.into_inner().ok().flatten() {
            resume_unwind(payload);
        }
    }
}
