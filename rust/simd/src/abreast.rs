//! Several vectors as one, whose computations are interleaved.
#![allow(unsafe_code)]

use crate::{Element, Isa, Kernel, Lanes, Real, Storage};

/// The lanes of `N` vectors of `I`, for computations that are long chains of operations.
///
/// A CPU looks some hundred operations ahead, and half as many where two threads share a core: less
/// than two evaluations of a function, so that it waits for each operation's result. The compiler
/// puts one evaluation behind the other, whatever the source says; here each operation is one of all
/// vectors, which [`Lanes::tie`] keeps together.
#[derive(Clone, Copy, Debug)]
pub struct Abreast<I, const N: usize>(pub I);

impl<I: Isa, const N: usize> Isa for Abreast<I, N> {
    const NAME: &'static str = I::NAME;
    const REGISTERS: usize = I::REGISTERS / N;

    #[inline(always)]
    fn vectorize<E: Element, K: Kernel<E>>(self, kernel: K) -> K::Output
    where
        Self: Storage<E>,
    {
        kernel.run(self)
    }
}

impl<I, const N: usize> Abreast<I, N> {
    /// The same vectors, all of them known before any.
    #[inline(always)]
    fn tied<T: Real>(self, mut vectors: [I::Vector; N]) -> [I::Vector; N]
    where
        I: Lanes<T>,
    {
        for index in 1..N {
            (vectors[index - 1], vectors[index]) = self.0.tie(vectors[index - 1], vectors[index]);
        }
        vectors
    }
}

/// Methods that do to all vectors what `I`'s do to one.
macro_rules! each {
    ($($name:ident(first $(, $other:ident)*);)*) => {$(
        #[inline(always)]
        fn $name(self, mut first: Self::Vector $(, $other: Self::Vector)*) -> Self::Vector {
            for index in 0..N {
                first[index] = self.0.$name(first[index] $(, $other[index])*);
            }
            self.tied::<T>(first)
        }
    )*};
}

/// The same of methods with two results.
macro_rules! each_of_two {
    ($($name:ident(first $(, $other:ident: $type:ty)*);)*) => {$(
        #[inline(always)]
        fn $name(
            self,
            mut first: Self::Vector
            $(, $other: $type)*
        ) -> (Self::Vector, Self::Vector) {
            let mut second = first;
            for index in 0..N {
                (first[index], second[index]) = self.0.$name(first[index] $(, $other)*);
            }
            (self.tied::<T>(first), self.tied::<T>(second))
        }
    )*};
}

// Counted loops become registers; what an iterator calls may not be compiled for these.
#[allow(clippy::needless_range_loop)]
impl<T: Real, I: Lanes<T>, const N: usize> Lanes<T> for Abreast<I, N> {
    type Vector = [I::Vector; N];
    type Mask = [I::Mask; N];
    const LANES: usize = N * I::LANES;

    #[inline(always)]
    fn splat(self, x: T) -> Self::Vector {
        [self.0.splat(x); N]
    }
    each! {
        add(first, b);
        sub(first, b);
        mul(first, b);
        div(first, b);
        min(first, b);
        max(first, b);
        mul_add(first, b, c);
        neg_mul_add(first, b, c);
        round(first);
        scale_exponent(first, n);
        shift(first, n);
        reciprocal(first);
    }
    each_of_two! {
        split_whole(first, bound: T);
        split_product(first, factor: T, bound: T);
        split_power(first, factor: Option<T>, bound: T);
        split_exp(first, log2_e: [T; 2], ln_2: [T; 2], bound: T);
        split_exponent(first);
    }
    #[inline(always)]
    fn bounded(self, mut a: Self::Vector, bound: T) -> Self::Vector {
        for index in 0..N {
            a[index] = self.0.bounded(a[index], bound);
        }
        a
    }
    #[inline(always)]
    fn less(self, a: Self::Vector, b: Self::Vector) -> Self::Mask {
        let mut mask = [self.0.first(0); N];
        for index in 0..N {
            mask[index] = self.0.less(a[index], b[index]);
        }
        mask
    }
    #[inline(always)]
    fn first(self, count: usize) -> Self::Mask {
        let mut mask = [self.0.first(count); N];
        for index in 1..N {
            mask[index] = self.0.first(count.saturating_sub(index * I::LANES));
        }
        mask
    }
    #[inline(always)]
    fn select(self, mask: Self::Mask, mut a: Self::Vector, b: Self::Vector) -> Self::Vector {
        for index in 0..N {
            a[index] = self.0.select(mask[index], a[index], b[index]);
        }
        self.tied::<T>(a)
    }
    #[inline(always)]
    fn any(self, mask: Self::Mask) -> bool {
        mask.into_iter().any(|mask| self.0.any(mask))
    }

    #[inline(always)]
    fn sum_lanes(self, a: Self::Vector) -> T {
        let mut sum = a[0];
        for index in 1..N {
            sum = self.0.add(sum, a[index]);
        }
        self.0.sum_lanes(sum)
    }
    #[inline(always)]
    fn max_lanes(self, a: Self::Vector) -> T {
        let mut largest = a[0];
        for index in 1..N {
            largest = self.0.max(largest, a[index]);
        }
        self.0.max_lanes(largest)
    }

    #[inline(always)]
    unsafe fn load_pointer(self, source: *const T) -> Self::Vector {
        let mut vectors = [self.0.zero(); N];
        for index in 0..N {
            // SAFETY: the numbers of all vectors are readable, as the caller promised.
            vectors[index] = unsafe { self.0.load_pointer(source.add(index * I::LANES)) };
        }
        vectors
    }
    #[inline(always)]
    unsafe fn store_pointer(self, target: *mut T, a: Self::Vector) {
        for index in 0..N {
            // SAFETY: the numbers of all vectors are writable, as the caller promised.
            unsafe { self.0.store_pointer(target.add(index * I::LANES), a[index]) };
        }
    }
    #[inline(always)]
    unsafe fn load_masked(self, source: *const T, mask: Self::Mask) -> Self::Vector {
        let mut vectors = [self.0.zero(); N];
        for index in 0..N {
            let source = source.wrapping_add(index * I::LANES);
            // SAFETY: the lanes of the mask are readable, as the caller promised.
            vectors[index] = unsafe { self.0.load_masked(source, mask[index]) };
        }
        vectors
    }
    #[inline(always)]
    unsafe fn store_masked(self, target: *mut T, mask: Self::Mask, a: Self::Vector) {
        for index in 0..N {
            let target = target.wrapping_add(index * I::LANES);
            // SAFETY: the lanes of the mask are writable, as the caller promised.
            unsafe { self.0.store_masked(target, mask[index], a[index]) };
        }
    }
}
