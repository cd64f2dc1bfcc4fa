//! Working memory that a thread keeps between calls, so that steady-state steps allocate nothing.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

use fusewire_simd::Plain;

use crate::{Error, Result};

/// Bytes of a cache line; blocks start on one, so that no vector straddles two.
const LINE: usize = 64;

/// Bytes that a thread keeps at most; larger blocks go back to the system.
const KEPT: usize = 64 << 20;

thread_local! {
    static FREE: RefCell<Vec<Vec<u64>>> = const { RefCell::new(Vec::new()) };
}

/// A block of numbers from this thread's store, aligned to a cache line; dropped, it goes back.
///
/// Its contents are whatever was there before.
pub struct Scratch<T: Plain> {
    words: Vec<u64>,
    offset: usize,
    len: usize,
    number: std::marker::PhantomData<T>,
}

impl<T: Plain> Scratch<T> {
    /// Takes a block of `len` numbers.
    ///
    /// # Errors
    /// If the memory cannot be had.
    pub fn take(len: usize) -> Result<Self> {
        let no_memory =
            || Error::Memory(format!("cannot allocate {len} numbers of {} bytes", size_of::<T>()));
        let bytes = len.checked_mul(size_of::<T>()).ok_or_else(no_memory)?;
        let needed = bytes.div_ceil(8).checked_add(LINE / 8).ok_or_else(no_memory)?;
        let mut words = FREE.with_borrow_mut(|free| {
            // The smallest kept block that is large enough, else any to grow.
            let fits = |block: &Vec<u64>| block.len() >= needed;
            let best = (0..free.len())
                .filter(|&i| fits(&free[i]))
                .min_by_key(|&i| free[i].len())
                .or_else(|| free.len().checked_sub(1));
            best.map(|i| free.swap_remove(i)).unwrap_or_default()
        });
        if words.len() < needed {
            words.clear();
            words.try_reserve_exact(needed).map_err(|_| no_memory())?;
            words.resize(needed, 0);
        }
        let offset = words.as_ptr().align_offset(LINE);
        Ok(Self { words, offset, len, number: std::marker::PhantomData })
    }

    /// Takes a block of `len` zeros.
    ///
    /// # Errors
    /// If the memory cannot be had.
    pub fn zeros(len: usize) -> Result<Self> {
        let mut scratch = Self::take(len)?;
        scratch.fill(T::default());
        Ok(scratch)
    }
}

#[allow(unsafe_code)]
impl<T: Plain> Deref for Scratch<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        let start = self.words[self.offset..].as_ptr().cast::<T>();
        // SAFETY: `take` reserved `len` numbers behind the offset, which is aligned for any number;
        // every bit pattern is one.
        unsafe { std::slice::from_raw_parts(start, self.len) }
    }
}

#[allow(unsafe_code)]
impl<T: Plain> DerefMut for Scratch<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        let start = self.words[self.offset..].as_mut_ptr().cast::<T>();
        // SAFETY: as for `deref`, and the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(start, self.len) }
    }
}

impl<T: Plain> Drop for Scratch<T> {
    fn drop(&mut self) {
        let words = std::mem::take(&mut self.words);
        if words.len() * 8 <= KEPT {
            // Fails only while the thread ends, when there is nothing left to keep.
            let _ = FREE.try_with(|free| free.borrow_mut().push(words));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Scratch;

    #[test]
    fn blocks_are_aligned_and_reused() {
        let first = Scratch::<f32>::zeros(1000).expect("small");
        assert_eq!(first.as_ptr() as usize % 64, 0);
        let address = first.as_ptr();
        drop(first);
        let second = Scratch::<f64>::take(500).expect("small");
        assert_eq!(second.as_ptr().cast(), address);
        assert_eq!(second.len(), 500);
    }

    #[test]
    fn impossible_sizes_are_errors() {
        assert!(Scratch::<f64>::take(usize::MAX / 2).is_err());
        assert!(Scratch::<f32>::take(usize::MAX / 8).is_err());
    }
}
