//! Vectors from and to memory of every element type, and the products of what lies there.
#![allow(unsafe_code)]

use crate::{Bf16, Element, F16, Factor, Lanes, LoneBf16, Real};

/// Lanes whose operands lie in memory as `E`: widened when read, rounded when written, and
/// multiplied as [`Element::Factor`]s, vectors of which travel as vectors of numbers.
pub trait Storage<E: Element>: Lanes<E::Real> {
    /// `c` plus, in each lane, the products of what the factors `a` and `b` hold there.
    fn multiply_add(self, a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector;
    /// The factors that hold, in each lane, the numbers of `parts` in order.
    ///
    /// # Panics
    /// If there are not [`Factor::DEPTH`] parts.
    fn join(self, parts: &[Self::Vector]) -> Self::Vector;
    /// The factors of neighbours: of the numbers of `parts` one behind the other.
    ///
    /// # Panics
    /// If there are not [`Factor::DEPTH`] parts.
    fn join_neighbours(self, parts: &[Self::Vector]) -> Self::Vector;

    /// Reads `LANES` numbers.
    ///
    /// # Safety
    /// `source` must be readable for `LANES` numbers; it need not be aligned to the vector.
    unsafe fn read_pointer(self, source: *const E) -> Self::Vector;
    /// Writes `LANES` numbers.
    ///
    /// # Safety
    /// `target` must be writable for `LANES` numbers; it need not be aligned to the vector.
    unsafe fn write_pointer(self, target: *mut E, a: Self::Vector);
    /// Reads the lanes where the mask holds, 0 elsewhere; the others are not touched.
    ///
    /// # Safety
    /// `source` must be readable at the lanes of the mask.
    unsafe fn read_masked(self, source: *const E, mask: Self::Mask) -> Self::Vector;
    /// Writes the lanes where the mask holds; the others are not touched.
    ///
    /// # Safety
    /// `target` must be writable at the lanes of the mask.
    unsafe fn write_masked(self, target: *mut E, mask: Self::Mask, a: Self::Vector);

    /// Reads the first `LANES` numbers of `source`.
    ///
    /// # Panics
    /// If `source` is shorter than a vector.
    #[inline(always)]
    fn read(self, source: &[E]) -> Self::Vector {
        assert!(source.len() >= Self::LANES);
        // SAFETY: the length was checked above.
        unsafe { self.read_pointer(source.as_ptr()) }
    }
    /// Writes to the first `LANES` numbers of `target`.
    ///
    /// # Panics
    /// If `target` is shorter than a vector.
    #[inline(always)]
    fn write(self, target: &mut [E], a: Self::Vector) {
        assert!(target.len() >= Self::LANES);
        // SAFETY: the length was checked above.
        unsafe { self.write_pointer(target.as_mut_ptr(), a) }
    }
    /// Reads up to `LANES` numbers of `source`; lanes beyond its end are 0.
    #[inline(always)]
    fn read_first(self, source: &[E]) -> Self::Vector {
        if source.len() >= Self::LANES {
            return self.read(source);
        }
        // SAFETY: the mask covers no lane beyond the end of the slice.
        unsafe { self.read_masked(source.as_ptr(), self.first(source.len())) }
    }
    /// Writes up to `LANES` numbers of `target`; lanes beyond its end are dropped.
    #[inline(always)]
    fn write_first(self, target: &mut [E], a: Self::Vector) {
        if target.len() >= Self::LANES {
            return self.write(target, a);
        }
        // SAFETY: the mask covers no lane beyond the end of the slice.
        unsafe { self.write_masked(target.as_mut_ptr(), self.first(target.len()), a) }
    }
    /// Loads up to `LANES` factors of `source`; lanes beyond its end are 0.
    #[inline(always)]
    fn load_factors(self, source: &[E::Factor]) -> Self::Vector {
        let start = source.as_ptr().cast();
        // SAFETY: neither reaches beyond the end of the slice; a factor is as large as a number.
        unsafe {
            if source.len() >= Self::LANES {
                self.load_pointer(start)
            } else {
                self.load_masked(start, self.first(source.len()))
            }
        }
    }
    /// Stores up to `LANES` factors to `target`; lanes beyond its end are dropped.
    #[inline(always)]
    fn store_factors(self, target: &mut [E::Factor], a: Self::Vector) {
        let start = target.as_mut_ptr().cast();
        // SAFETY: as above.
        unsafe {
            if target.len() >= Self::LANES {
                self.store_pointer(start, a);
            } else {
                self.store_masked(start, self.first(target.len()), a);
            }
        }
    }
}

/// The operations on 16 bits that an instruction set provides beside those on `f32`.
pub trait HalfLanes: Lanes<f32> {
    /// As many numbers of 16 bits as there are lanes.
    type Halves: Copy;

    /// Loads `LANES` halves.
    ///
    /// # Safety
    /// `source` must be readable for `LANES` halves.
    unsafe fn load_halves(self, source: *const u16) -> Self::Halves;
    /// Stores `LANES` halves.
    ///
    /// # Safety
    /// `target` must be writable for `LANES` halves.
    unsafe fn store_halves(self, target: *mut u16, a: Self::Halves);
    /// Loads the halves where the mask holds, 0 elsewhere.
    ///
    /// # Safety
    /// `source` must be readable at the lanes of the mask.
    unsafe fn load_halves_masked(self, source: *const u16, mask: Self::Mask) -> Self::Halves;
    /// Stores the halves where the mask holds.
    ///
    /// # Safety
    /// `target` must be writable at the lanes of the mask.
    unsafe fn store_halves_masked(self, target: *mut u16, mask: Self::Mask, a: Self::Halves);

    /// [`Bf16::to_f32`] in each lane.
    fn widen_bf16(self, a: Self::Halves) -> Self::Vector;
    /// [`Bf16::from_f32`] in each lane.
    fn narrow_bf16(self, a: Self::Vector) -> Self::Halves;
    /// [`F16::to_f32`] in each lane.
    fn widen_f16(self, a: Self::Halves) -> Self::Vector;
    /// [`F16::from_f32`] in each lane.
    fn narrow_f16(self, a: Self::Vector) -> Self::Halves;
    /// Each lane's two numbers, rounded, as a [`Pair`](crate::Pair); denormal numbers may become 0.
    fn pair(self, low: Self::Vector, high: Self::Vector) -> Self::Vector;
    /// The numbers of `first` and then of `second`, rounded, each [`Pair`](crate::Pair) of two
    /// neighbours; denormal numbers may become 0.
    #[inline(always)]
    fn pair_neighbours(self, first: Self::Vector, second: Self::Vector) -> Self::Vector {
        let mut halves = [0_u16; 32];
        let [start, middle] = [0, Self::LANES].map(|place| halves[place..].as_mut_ptr());
        // SAFETY: there is room for two vectors of at most 16 halves, which are as large as one of
        // numbers.
        unsafe {
            self.store_halves(start, self.narrow_bf16(first));
            self.store_halves(middle, self.narrow_bf16(second));
            self.load_pointer(halves.as_ptr().cast())
        }
    }
    /// The lower and the upper numbers of pairs.
    fn split_pairs(self, pairs: Self::Vector) -> (Self::Vector, Self::Vector);
    /// `c` plus the two products of each lane's pairs; denormal numbers may count as 0.
    #[inline(always)]
    fn dot_pairs(self, a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector {
        let ((a_low, a_high), (b_low, b_high)) = (self.split_pairs(a), self.split_pairs(b));
        self.mul_add(a_high, b_high, self.mul_add(a_low, b_low, c))
    }
}

impl<T: Real, I: Lanes<T>> Storage<T> for I {
    #[inline(always)]
    fn multiply_add(self, a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector {
        self.mul_add(a, b, c)
    }
    #[inline(always)]
    fn join(self, parts: &[Self::Vector]) -> Self::Vector {
        assert!(parts.len() == 1);
        parts[0]
    }
    #[inline(always)]
    fn join_neighbours(self, parts: &[Self::Vector]) -> Self::Vector {
        assert!(parts.len() == 1);
        parts[0]
    }
    #[inline(always)]
    unsafe fn read_pointer(self, source: *const T) -> Self::Vector {
        // SAFETY: handed on to the caller.
        unsafe { self.load_pointer(source) }
    }
    #[inline(always)]
    unsafe fn write_pointer(self, target: *mut T, a: Self::Vector) {
        // SAFETY: handed on to the caller.
        unsafe { self.store_pointer(target, a) }
    }
    #[inline(always)]
    unsafe fn read_masked(self, source: *const T, mask: Self::Mask) -> Self::Vector {
        // SAFETY: handed on to the caller.
        unsafe { self.load_masked(source, mask) }
    }
    #[inline(always)]
    unsafe fn write_masked(self, target: *mut T, mask: Self::Mask, a: Self::Vector) {
        // SAFETY: handed on to the caller.
        unsafe { self.store_masked(target, mask, a) }
    }
}

macro_rules! half_storage {
    ($half:ident, $widen:ident, $narrow:ident, $multiply_add:ident,
        |$isa:ident, $parts:ident| $join:expr, $join_neighbours:expr) => {
        impl<I: HalfLanes> Storage<$half> for I {
            #[inline(always)]
            fn multiply_add(
                self,
                a: Self::Vector,
                b: Self::Vector,
                c: Self::Vector,
            ) -> Self::Vector {
                self.$multiply_add(a, b, c)
            }
            #[inline(always)]
            fn join(self, $parts: &[Self::Vector]) -> Self::Vector {
                assert!($parts.len() == <$half as Element>::Factor::DEPTH);
                let $isa = self;
                $join
            }
            #[inline(always)]
            fn join_neighbours(self, $parts: &[Self::Vector]) -> Self::Vector {
                assert!($parts.len() == <$half as Element>::Factor::DEPTH);
                let $isa = self;
                $join_neighbours
            }
            #[inline(always)]
            unsafe fn read_pointer(self, source: *const $half) -> Self::Vector {
                // SAFETY: handed on to the caller; a half is its 16 bits.
                self.$widen(unsafe { self.load_halves(source.cast()) })
            }
            #[inline(always)]
            unsafe fn write_pointer(self, target: *mut $half, a: Self::Vector) {
                // SAFETY: as above.
                unsafe { self.store_halves(target.cast(), self.$narrow(a)) }
            }
            #[inline(always)]
            unsafe fn read_masked(self, source: *const $half, mask: Self::Mask) -> Self::Vector {
                // SAFETY: as above.
                self.$widen(unsafe { self.load_halves_masked(source.cast(), mask) })
            }
            #[inline(always)]
            unsafe fn write_masked(self, target: *mut $half, mask: Self::Mask, a: Self::Vector) {
                // SAFETY: as above.
                unsafe { self.store_halves_masked(target.cast(), mask, self.$narrow(a)) }
            }
        }
    };
}

half_storage!(
    Bf16,
    widen_bf16,
    narrow_bf16,
    dot_pairs,
    |isa, parts| isa.pair(parts[0], parts[1]),
    isa.pair_neighbours(parts[0], parts[1])
);
half_storage!(F16, widen_f16, narrow_f16, mul_add, |_isa, parts| parts[0], parts[0]);
half_storage!(LoneBf16, widen_bf16, narrow_bf16, mul_add, |_isa, parts| parts[0], parts[0]);
