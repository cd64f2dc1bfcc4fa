//! What a thread does with denormal numbers: the mode of its arithmetic, changed inside a kernel and restored.
#![allow(unsafe_code)]

use std::marker::PhantomData;

/// What a thread's arithmetic does with denormal numbers, among other things.
///
/// A new thread has the mode of the one that starts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FloatMode {
    #[cfg(target_arch = "x86_64")]
    control: u32,
}

/// While it lives, its thread has another [`FloatMode`]; dropped, it restores the one before.
pub struct HeldMode {
    before: FloatMode,
    /// The mode belongs to a thread, so the guard must not leave it.
    thread_bound: PhantomData<*const ()>,
}

#[cfg(target_arch = "x86_64")]
mod control {
    /// Flush-to-zero (bit 15) and denormals-are-zero (bit 6) of MXCSR.
    pub(super) const FLUSH: u32 = 1 << 15 | 1 << 6;

    /// What has happened so far, such as an underflow: no part of the mode.
    pub(super) const SEEN: u32 = 0x3f;

    pub(super) fn read() -> u32 {
        let mut value = 0_u32;
        // SAFETY: the instruction stores four bytes to a valid address.
        unsafe {
            std::arch::asm!("stmxcsr [{}]", in(reg) &raw mut value, options(nostack, preserves_flags));
        }
        value
    }

    pub(super) fn write(value: u32) {
        // SAFETY: the value was read from the register, with the two flush bits changed at most;
        // the mode is restored before the caller's code runs again.
        unsafe {
            std::arch::asm!("ldmxcsr [{}]", in(reg) &raw const value, options(nostack, preserves_flags));
        }
    }
}

impl FloatMode {
    /// That of the calling thread.
    #[must_use]
    pub fn of_thread() -> Self {
        Self {
            #[cfg(target_arch = "x86_64")]
            control: control::read() & !control::SEEN,
        }
    }

    /// The same, but with denormal numbers treated as zero.
    ///
    /// A sequence whose values fade into denormals would otherwise run many times slower.
    #[must_use]
    pub fn flushing(self) -> Self {
        Self {
            #[cfg(target_arch = "x86_64")]
            control: self.control | control::FLUSH,
        }
    }

    /// Gives the calling thread this mode.
    #[must_use]
    pub fn hold(self) -> HeldMode {
        let before = Self::of_thread();
        self.set();
        HeldMode { before, thread_bound: PhantomData }
    }

    fn set(self) {
        #[cfg(target_arch = "x86_64")]
        control::write(self.control | control::read() & control::SEEN);
    }
}

impl Drop for HeldMode {
    fn drop(&mut self) {
        self.before.set();
    }
}

#[cfg(test)]
mod tests {
    use super::FloatMode;

    #[test]
    fn flushes_and_restores() {
        let tiny = std::hint::black_box(f32::MIN_POSITIVE);
        let half = std::hint::black_box(0.5_f32);
        let before = FloatMode::of_thread();
        assert!(tiny * half > 0.0);
        #[cfg(target_arch = "x86_64")]
        {
            let _held = before.flushing().hold();
            assert_eq!(std::hint::black_box(tiny) * std::hint::black_box(half), 0.0);
            let _paused = before.hold();
            assert!(std::hint::black_box(tiny) * std::hint::black_box(half) > 0.0);
        }
        assert!(std::hint::black_box(tiny) * std::hint::black_box(half) > 0.0);
        assert_eq!(before, FloatMode::of_thread());
    }
}
