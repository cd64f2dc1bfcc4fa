//! Plain arrays, which the compiler turns into whatever the baseline CPU has.
#![allow(unsafe_code)]

use crate::{Bf16, Element, F16, HalfLanes, Isa, Kernel, Lanes, Storage};

/// Needs no proof: every CPU can do it.
#[derive(Clone, Copy, Debug)]
pub struct Portable;

impl Isa for Portable {
    const NAME: &'static str = "portable";
    const REGISTERS: usize = 8; // in pairs: a vector takes two on most baseline CPUs

    #[inline(never)]
    fn vectorize<E: Element, K: Kernel<E>>(self, kernel: K) -> K::Output
    where
        Self: Storage<E>,
    {
        kernel.run(self)
    }
}

macro_rules! portable_lanes {
    ($number:ty, $bits:ty, $lanes:literal, mantissa: $mantissa:literal, bias: $bias:literal,
        round: $round:expr) => {
        impl Lanes<$number> for Portable {
            type Vector = [$number; $lanes];
            type Mask = [bool; $lanes];
            const LANES: usize = $lanes;

            #[inline(always)]
            fn splat(self, x: $number) -> Self::Vector {
                [x; $lanes]
            }
            #[inline(always)]
            fn add(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
                std::array::from_fn(|lane| a[lane] + b[lane])
            }
            #[inline(always)]
            fn sub(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
                std::array::from_fn(|lane| a[lane] - b[lane])
            }
            #[inline(always)]
            fn mul(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
                std::array::from_fn(|lane| a[lane] * b[lane])
            }
            #[inline(always)]
            fn div(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
                std::array::from_fn(|lane| a[lane] / b[lane])
            }
            #[inline(always)]
            fn min(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
                std::array::from_fn(|lane| if a[lane] < b[lane] { a[lane] } else { b[lane] })
            }
            #[inline(always)]
            fn max(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
                std::array::from_fn(|lane| if a[lane] > b[lane] { a[lane] } else { b[lane] })
            }
            #[inline(always)]
            fn mul_add(self, a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector {
                // Not `f32::mul_add`: without the instruction that is a library call per lane.
                std::array::from_fn(|lane| a[lane] * b[lane] + c[lane])
            }
            #[inline(always)]
            fn neg_mul_add(
                self,
                a: Self::Vector,
                b: Self::Vector,
                c: Self::Vector,
            ) -> Self::Vector {
                std::array::from_fn(|lane| c[lane] - a[lane] * b[lane])
            }
            #[inline(always)]
            fn round(self, a: Self::Vector) -> Self::Vector {
                // Adding and taking away 1.5 · 2^mantissa leaves the nearest whole number.
                std::array::from_fn(|lane| (a[lane] + $round) - $round)
            }
            #[inline(always)]
            fn scale_exponent(self, a: Self::Vector, n: Self::Vector) -> Self::Vector {
                let power = |e: i32| <$number>::from_bits(((e + $bias) as $bits) << $mantissa);
                std::array::from_fn(|lane| {
                    // In two factors, because 2^n alone may lie outside the normal numbers.
                    let n = n[lane] as i32;
                    let half = n >> 1;
                    a[lane] * power(half) * power(n - half)
                })
            }
            #[inline(always)]
            fn split_exponent(self, a: Self::Vector) -> (Self::Vector, Self::Vector) {
                let one = (1.0 as $number).to_bits();
                let mantissa = (1 << $mantissa) - 1;
                (
                    std::array::from_fn(|lane| {
                        <$number>::from_bits((a[lane].to_bits() & mantissa) | one)
                    }),
                    std::array::from_fn(|lane| {
                        ((a[lane].to_bits() >> $mantissa) as i32 - $bias) as $number
                    }),
                )
            }
            #[inline(always)]
            fn less(self, a: Self::Vector, b: Self::Vector) -> Self::Mask {
                std::array::from_fn(|lane| a[lane] < b[lane])
            }
            #[inline(always)]
            fn first(self, count: usize) -> Self::Mask {
                std::array::from_fn(|lane| lane < count)
            }
            #[inline(always)]
            fn select(self, mask: Self::Mask, a: Self::Vector, b: Self::Vector) -> Self::Vector {
                std::array::from_fn(|lane| if mask[lane] { a[lane] } else { b[lane] })
            }
            #[inline(always)]
            fn any(self, mask: Self::Mask) -> bool {
                mask.iter().any(|&lane| lane)
            }
            #[inline(always)]
            fn sum_lanes(self, a: Self::Vector) -> $number {
                let mut lanes = a;
                let mut width = $lanes;
                while width > 1 {
                    width /= 2;
                    for lane in 0..width {
                        lanes[lane] += lanes[lane + width];
                    }
                }
                lanes[0]
            }
            #[inline(always)]
            fn max_lanes(self, a: Self::Vector) -> $number {
                a.into_iter().fold(<$number>::NEG_INFINITY, <$number>::max)
            }
            #[inline(always)]
            unsafe fn load_pointer(self, source: *const $number) -> Self::Vector {
                // SAFETY: the caller promised LANES readable numbers.
                unsafe { source.cast::<Self::Vector>().read_unaligned() }
            }
            #[inline(always)]
            unsafe fn store_pointer(self, target: *mut $number, a: Self::Vector) {
                // SAFETY: the caller promised LANES writable numbers.
                unsafe { target.cast::<Self::Vector>().write_unaligned(a) }
            }
            #[inline(always)]
            unsafe fn load_masked(self, source: *const $number, mask: Self::Mask) -> Self::Vector {
                std::array::from_fn(|lane| {
                    if mask[lane] {
                        // SAFETY: the caller promised that the lanes of the mask are readable.
                        unsafe { source.add(lane).read_unaligned() }
                    } else {
                        0.0
                    }
                })
            }
            #[inline(always)]
            unsafe fn store_masked(self, target: *mut $number, mask: Self::Mask, a: Self::Vector) {
                for lane in 0..$lanes {
                    if mask[lane] {
                        // SAFETY: the caller promised that the lanes of the mask are writable.
                        unsafe { target.add(lane).write_unaligned(a[lane]) }
                    }
                }
            }
        }
    };
}

portable_lanes!(f32, u32, 8, mantissa: 23, bias: 127, round: 12_582_912.0);
portable_lanes!(f64, u64, 4, mantissa: 52, bias: 1023, round: 6_755_399_441_055_744.0);

impl HalfLanes for Portable {
    type Halves = [u16; 8];

    #[inline(always)]
    unsafe fn load_halves(self, source: *const u16) -> [u16; 8] {
        // SAFETY: the caller promised LANES readable halves.
        unsafe { source.cast::<[u16; 8]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store_halves(self, target: *mut u16, a: [u16; 8]) {
        // SAFETY: the caller promised LANES writable halves.
        unsafe { target.cast::<[u16; 8]>().write_unaligned(a) }
    }
    #[inline(always)]
    unsafe fn load_halves_masked(self, source: *const u16, mask: [bool; 8]) -> [u16; 8] {
        let mut halves = [0; 8];
        for lane in 0..8 {
            if mask[lane] {
                // SAFETY: the caller promised that the lanes of the mask are readable.
                halves[lane] = unsafe { *source.add(lane) };
            }
        }
        halves
    }
    #[inline(always)]
    unsafe fn store_halves_masked(self, target: *mut u16, mask: [bool; 8], a: [u16; 8]) {
        for lane in 0..8 {
            if mask[lane] {
                // SAFETY: the caller promised that the lanes of the mask are writable.
                unsafe { *target.add(lane) = a[lane] }
            }
        }
    }
    #[inline(always)]
    fn widen_bf16(self, a: [u16; 8]) -> [f32; 8] {
        let mut wide = [0.0; 8];
        for lane in 0..8 {
            wide[lane] = Bf16(a[lane]).to_f32();
        }
        wide
    }
    #[inline(always)]
    fn narrow_bf16(self, a: [f32; 8]) -> [u16; 8] {
        let mut halves = [0; 8];
        for lane in 0..8 {
            halves[lane] = Bf16::from_f32(a[lane]).0;
        }
        halves
    }
    #[inline(always)]
    fn widen_f16(self, a: [u16; 8]) -> [f32; 8] {
        let mut wide = [0.0; 8];
        for lane in 0..8 {
            wide[lane] = F16(a[lane]).to_f32();
        }
        wide
    }
    #[inline(always)]
    fn narrow_f16(self, a: [f32; 8]) -> [u16; 8] {
        let mut halves = [0; 8];
        for lane in 0..8 {
            halves[lane] = F16::from_f32(a[lane]).0;
        }
        halves
    }
    #[inline(always)]
    fn pair(self, low: [f32; 8], high: [f32; 8]) -> [f32; 8] {
        let mut pairs = [0.0; 8];
        for lane in 0..8 {
            let half = |x| u32::from(Bf16::from_f32(x).0);
            pairs[lane] = f32::from_bits(half(high[lane]) << 16 | half(low[lane]));
        }
        pairs
    }
    #[inline(always)]
    fn split_pairs(self, pairs: [f32; 8]) -> ([f32; 8], [f32; 8]) {
        let (mut low, mut high) = ([0.0; 8], [0.0; 8]);
        for lane in 0..8 {
            let bits = pairs[lane].to_bits();
            low[lane] = f32::from_bits(bits << 16);
            high[lane] = f32::from_bits(bits & 0xffff_0000);
        }
        (low, high)
    }
}
