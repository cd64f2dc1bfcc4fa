//! The traits: what a token, a vector of lanes and a kernel are.
#![allow(unsafe_code)]

#[cfg(target_arch = "x86_64")]
use crate::arch::amx::Tiles;
use crate::{Element, Real, Storage};

/// An instruction set whose presence on this CPU has been proved by detection.
pub trait Isa: Copy + Send + Sync + 'static {
    /// The name that `FUSEWIRE_ISA` uses for it.
    const NAME: &'static str;
    /// Vector registers that the compiler can name; a register tile must leave room for operands.
    const REGISTERS: usize;

    /// Matrix tiles that multiply pairs, where the CPU has some and they are to be used.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn tiles(self) -> Option<Tiles> {
        None
    }

    /// Compiles `kernel` as a function of its own for this instruction set and calls it.
    fn vectorize<E: Element, K: Kernel<E>>(self, kernel: K) -> K::Output
    where
        Self: Storage<E>;
}

/// Work to be compiled for each instruction set; `run` and all below it are `#[inline(always)]`.
///
/// An implementation for a [`Real`] type may ask for less: `I: Lanes<T>`.
pub trait Kernel<E: Element> {
    /// What the work returns.
    type Output;
    /// Does the work with the lanes of `isa`.
    fn run<I: Storage<E>>(self, isa: I) -> Self::Output;
}

/// Vectors of `LANES` numbers of type `T`, and what the instruction set does with them.
///
/// Minimum and maximum return the second operand where either is NaN, as x86 does.
pub trait Lanes<T: Real>: Isa {
    /// A register of numbers.
    type Vector: Copy;
    /// One truth value per lane.
    type Mask: Copy;
    /// Numbers in a vector.
    const LANES: usize;

    /// All lanes `x`.
    fn splat(self, x: T) -> Self::Vector;
    /// All lanes 0.
    #[inline(always)]
    fn zero(self) -> Self::Vector {
        self.splat(T::ZERO)
    }
    /// `a + b`.
    fn add(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// `a − b`.
    fn sub(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// `a · b`.
    fn mul(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// `a / b`.
    fn div(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// The smaller, `b` where either is NaN.
    fn min(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// The larger, `b` where either is NaN.
    fn max(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// `a · b + c`, rounded once where the instruction set has a fused multiply-add.
    fn mul_add(self, a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector;
    /// `c − a · b`, rounded once where the instruction set has a fused multiply-add.
    fn neg_mul_add(self, a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector;
    /// The nearest whole number, ties to even; for magnitudes below 2³¹.
    fn round(self, a: Self::Vector) -> Self::Vector;
    /// `a · 2^n` for whole `n` within twice the exponent range of `T`.
    fn scale_exponent(self, a: Self::Vector, n: Self::Vector) -> Self::Vector;
    /// `a` where it lies within `±bound`, else what [`Lanes::shift`] makes the same power of, 0 or ∞. NaN
    /// passes.
    #[inline(always)]
    fn bounded(self, a: Self::Vector, bound: T) -> Self::Vector {
        // NaN passes as the second operand.
        self.min(self.splat(bound), self.max(self.splat(-bound), a))
    }
    /// `(n, r)` with `a = n + r`, `n` whole and |r| ≤ ½. Beyond `±bound`, where powers of two are 0
    /// or ∞, it is enough that [`Lanes::scale_exponent`] by `n` makes them so and that `r` is finite.
    #[inline(always)]
    fn split_whole(self, a: Self::Vector, bound: T) -> (Self::Vector, Self::Vector) {
        let a = self.bounded(a, bound);
        let whole = self.round(a);
        (whole, self.sub(a, whole))
    }
    /// [`Lanes::split_whole`] of `a · factor`, whose rounding stays out of `r` where products are added
    /// before they are rounded; `factor` is positive. `r` may be NaN where `a` is ∞.
    #[inline(always)]
    fn split_product(self, a: Self::Vector, factor: T, bound: T) -> (Self::Vector, Self::Vector) {
        let a = self.bounded(a, bound / factor);
        let factor = self.splat(factor);
        let whole = self.round(self.mul(a, factor));
        (whole, self.mul_add(a, factor, self.sub(self.zero(), whole)))
    }
    /// [`Lanes::split_product`], or without a factor [`Lanes::split_whole`], with `n` as [`Lanes::shift`]
    /// takes it.
    #[inline(always)]
    fn split_power(
        self,
        a: Self::Vector,
        factor: Option<T>,
        bound: T,
    ) -> (Self::Vector, Self::Vector) {
        match factor {
            Some(factor) => self.split_product(a, factor, bound),
            None => self.split_whole(a, bound),
        }
    }
    /// The same for `a · log₂e`, precise where that is large, too. Each constant is a rounded number and what
    /// it lost; of `ln_2` the first has so few bits that whole multiples of it are exact.
    #[inline(always)]
    fn split_exp(
        self,
        a: Self::Vector,
        log2_e: [T; 2],
        ln_2: [T; 2],
        bound: T,
    ) -> (Self::Vector, Self::Vector) {
        let factor = self.splat(log2_e[0]);
        let a = self.bounded(a, bound);
        let whole = self.round(self.mul(a, factor));
        let rest = self.neg_mul_add(whole, self.splat(ln_2[0]), a);
        let rest = self.neg_mul_add(whole, self.splat(ln_2[1]), rest);
        (whole, self.mul(rest, factor))
    }
    /// `a · 2^n` for |a| about 1 and what [`Lanes::split_power`] or [`Lanes::split_exp`] gave for `n`.
    /// Where 2^n is no normal number it may count as 0 or ∞, whatever `a` is.
    #[inline(always)]
    fn shift(self, a: Self::Vector, n: Self::Vector) -> Self::Vector {
        self.scale_exponent(a, n)
    }
    /// `(m, e)` with `a = m · 2^e`, `1 ≤ m < 2`, for positive normal `a`.
    fn split_exponent(self, a: Self::Vector) -> (Self::Vector, Self::Vector);
    /// Near enough to `1 / a` for 2 units in the last place; `a` normal and finite.
    #[inline(always)]
    fn reciprocal(self, a: Self::Vector) -> Self::Vector {
        self.div(self.splat(T::ONE), a)
    }

    /// Where `a < b`.
    fn less(self, a: Self::Vector, b: Self::Vector) -> Self::Mask;
    /// The first `count` lanes (all of them from `LANES` on).
    fn first(self, count: usize) -> Self::Mask;
    /// `a` where the mask holds, else `b`.
    fn select(self, mask: Self::Mask, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// Whether the mask holds anywhere.
    fn any(self, mask: Self::Mask) -> bool;

    /// The sum of the lanes, pairwise.
    fn sum_lanes(self, a: Self::Vector) -> T;
    /// The sum of each vector's lanes, pairwise: lane `i` has that of vector `i`.
    ///
    /// # Panics
    /// If there are not `LANES` vectors.
    #[inline(always)]
    fn sum_each(self, vectors: &[Self::Vector]) -> Self::Vector {
        assert!(vectors.len() == Self::LANES);
        // As many as the widest vectors have lanes, four abreast.
        let mut sums = [T::ZERO; 64];
        for (sum, &vector) in sums.iter_mut().zip(vectors) {
            *sum = self.sum_lanes(vector);
        }
        self.load(&sums)
    }
    /// The largest lane.
    fn max_lanes(self, a: Self::Vector) -> T;

    /// Loads `LANES` numbers.
    ///
    /// # Safety
    /// `source` must be readable for `LANES` numbers; it need not be aligned to the vector.
    unsafe fn load_pointer(self, source: *const T) -> Self::Vector;
    /// Stores `LANES` numbers.
    ///
    /// # Safety
    /// `target` must be writable for `LANES` numbers; it need not be aligned to the vector.
    unsafe fn store_pointer(self, target: *mut T, a: Self::Vector);
    /// Loads the lanes where the mask holds, 0 elsewhere; the others are not touched.
    ///
    /// # Safety
    /// `source` must be readable at the lanes of the mask.
    unsafe fn load_masked(self, source: *const T, mask: Self::Mask) -> Self::Vector;
    /// Stores the lanes where the mask holds; the others are not touched.
    ///
    /// # Safety
    /// `target` must be writable at the lanes of the mask.
    unsafe fn store_masked(self, target: *mut T, mask: Self::Mask, a: Self::Vector);

    /// Writes the transpose of a `LANES × LANES` tile, its columns times `scales`.
    ///
    /// # Safety
    /// `source + row · source_stride` must be readable and `target + row · target_stride` writable
    /// for `LANES` numbers each, aligned or not, for every `row < LANES`; the two must not overlap.
    #[inline(always)]
    unsafe fn transpose_tile(
        self,
        source: *const T,
        source_stride: usize,
        scales: Option<&[T]>,
        target: *mut T,
        target_stride: usize,
    ) {
        for row in 0..Self::LANES {
            for column in 0..Self::LANES {
                // SAFETY: row and column are below LANES, which the caller promised.
                unsafe {
                    let number = source.add(row * source_stride + column).read_unaligned();
                    let scaled = scales.map_or(number, |scales| number * scales[column]);
                    target.add(column * target_stride + row).write_unaligned(scaled);
                }
            }
        }
    }

    /// The same two, neither of which the compiler takes to be known before both are: so what leads to
    /// them, and what they lead to, stays interleaved.
    #[inline(always)]
    fn tie(self, a: Self::Vector, b: Self::Vector) -> (Self::Vector, Self::Vector) {
        (a, b)
    }

    /// The same two, of which the compiler knows no more: what is read at the offset is not read before
    /// the sum is had, which would want registers for both.
    #[inline(always)]
    fn in_turn(self, offset: isize, sum: Self::Vector) -> (isize, Self::Vector) {
        (offset, sum)
    }

    /// Asks for the line at `target` to be brought near for reading; never faults.
    #[inline(always)]
    fn prefetch(self, target: *const T) {
        let _ = target;
    }
    /// Asks for the line at `target` to be brought to the second-level cache, which waits for more lines
    /// at once than the nearest; never faults.
    #[inline(always)]
    fn prefetch_second(self, target: *const T) {
        let _ = target;
    }
    /// Asks for the line at `target` to be brought near for writing; never faults.
    #[inline(always)]
    fn prefetch_write(self, target: *mut T) {
        let _ = target;
    }

    /// Loads the first `LANES` numbers of `source`.
    ///
    /// # Panics
    /// If `source` is shorter than a vector.
    #[inline(always)]
    fn load(self, source: &[T]) -> Self::Vector {
        assert!(source.len() >= Self::LANES);
        // SAFETY: the length was checked above.
        unsafe { self.load_pointer(source.as_ptr()) }
    }
    /// Stores to the first `LANES` numbers of `target`.
    ///
    /// # Panics
    /// If `target` is shorter than a vector.
    #[inline(always)]
    fn store(self, target: &mut [T], a: Self::Vector) {
        assert!(target.len() >= Self::LANES);
        // SAFETY: the length was checked above.
        unsafe { self.store_pointer(target.as_mut_ptr(), a) }
    }
    /// Loads up to `LANES` numbers of `source`; lanes beyond its end are 0.
    #[inline(always)]
    fn load_first(self, source: &[T]) -> Self::Vector {
        if source.len() >= Self::LANES {
            return self.load(source);
        }
        // SAFETY: the mask covers no lane beyond the end of the slice.
        unsafe { self.load_masked(source.as_ptr(), self.first(source.len())) }
    }
    /// Stores up to `LANES` numbers of `target`; lanes beyond its end are dropped.
    #[inline(always)]
    fn store_first(self, target: &mut [T], a: Self::Vector) {
        if target.len() >= Self::LANES {
            // Not by a mask of all lanes: the CPU forwards no masked store to a later load.
            return self.store(target, a);
        }
        // SAFETY: the mask covers no lane beyond the end of the slice.
        unsafe { self.store_masked(target.as_mut_ptr(), self.first(target.len()), a) }
    }
}
