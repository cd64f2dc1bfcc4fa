//! Huge pages for large tensors, as NumPy asks for them for large arrays.
//!
//! The system hands out memory in pages of 4 KB at their first use, and takes it back with the tensor:
//! for what a backward pass needs that takes a tenth of a training step.

use std::ffi::c_void;

/// Bytes of a huge page.
const PAGE: usize = 2 << 20;

/// Bytes from which it is worth the call.
const WORTH_A_CALL: usize = 2 * PAGE;

#[cfg(target_os = "linux")]
mod system {
    use std::ffi::{c_int, c_void};

    pub(super) const HUGE_PAGES: c_int = 14;

    unsafe extern "C" {
        pub(super) fn madvise(start: *mut c_void, length: usize, advice: c_int) -> c_int;
    }
}

/// Asks that `bytes` from `start` on lie in huge pages where those fit whole; nothing depends on it.
pub(super) fn prefer_huge(start: *mut c_void, bytes: usize) {
    let skipped = start.addr().wrapping_neg() % PAGE;
    let whole = bytes.saturating_sub(skipped) / PAGE * PAGE;
    if bytes < WORTH_A_CALL || whole == 0 {
        return;
    }
    #[cfg(target_os = "linux")]
    // SAFETY: the range is page-aligned and inside the caller's memory, whose contents stay what they
    // are; a kernel that cannot do it refuses, and everything stays as it was.
    unsafe {
        system::madvise(start.wrapping_byte_add(skipped), whole, system::HUGE_PAGES);
    }
}
