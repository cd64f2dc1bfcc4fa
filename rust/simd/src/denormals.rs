//! Flushing denormal numbers to zero inside a kernel, with the caller's mode restored.
#![allow(unsafe_code)]

use std::marker::PhantomData;

/// While it lives, this thread treats denormal numbers as zero; dropped, it restores the mode.
///
/// A sequence whose values fade into denormals would otherwise run many times slower.
pub struct FlushDenormals {
    #[cfg(target_arch = "x86_64")]
    saved: u32,
    /// The mode belongs to a thread, so the guard must not leave it.
    thread_bound: PhantomData<*const ()>,
}

#[cfg(target_arch = "x86_64")]
mod control {
    /// Flush-to-zero (bit 15) and denormals-are-zero (bit 6) of MXCSR.
    pub(super) const FLUSH: u32 = 1 << 15 | 1 << 6;

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

impl FlushDenormals {
    /// Starts flushing on this thread.
    #[must_use]
    pub fn start() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            let saved = control::read();
            control::write(saved | control::FLUSH);
            Self { saved, thread_bound: PhantomData }
        }
        #[cfg(not(target_arch = "x86_64"))]
        Self { thread_bound: PhantomData }
    }
}

#[cfg(target_arch = "x86_64")]
impl Drop for FlushDenormals {
    fn drop(&mut self) {
        control::write(self.saved);
    }
}

#[cfg(test)]
mod tests {
    use super::FlushDenormals;

    #[test]
    fn flushes_and_restores() {
        let tiny = std::hint::black_box(f32::MIN_POSITIVE);
        let half = std::hint::black_box(0.5_f32);
        assert!(tiny * half > 0.0);
        #[cfg(target_arch = "x86_64")]
        {
            let _guard = FlushDenormals::start();
            assert_eq!(std::hint::black_box(tiny) * std::hint::black_box(half), 0.0);
        }
        assert!(std::hint::black_box(tiny) * std::hint::black_box(half) > 0.0);
    }
}
