//! Numbers of 16 bits, as memory holds them.
#![allow(unsafe_code)]

use std::fmt;

use crate::Plain;

/// The upper half of an `f32`: its range, and 8 bits of precision.
#[derive(Clone, Copy, Default)]
#[repr(transparent)]
pub struct Bf16(pub u16);

/// IEEE 754's binary16: 11 bits of precision, largest number 65504.
#[derive(Clone, Copy, Default)]
#[repr(transparent)]
pub struct F16(pub u16);

/// A [`Bf16`] that is multiplied alone, not as one of a [`Pair`](crate::Pair).
#[derive(Clone, Copy, Default)]
#[repr(transparent)]
pub struct LoneBf16(pub Bf16);

impl LoneBf16 {
    /// [`Bf16::from_f32`].
    #[inline(always)]
    pub const fn from_f32(x: f32) -> Self {
        Self(Bf16::from_f32(x))
    }

    /// [`Bf16::to_f32`].
    #[inline(always)]
    pub const fn to_f32(self) -> f32 {
        self.0.to_f32()
    }
}

impl Bf16 {
    /// The nearest value, ties to even; NaN stays NaN.
    #[inline(always)]
    pub const fn from_f32(x: f32) -> Self {
        let bits = x.to_bits();
        if x.is_nan() {
            // The payload may lie in the lower half alone; the quiet bit keeps it from becoming ∞.
            return Self((bits >> 16) as u16 | 0x40);
        }
        Self(((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16)
    }

    /// The same value.
    #[inline(always)]
    pub const fn to_f32(self) -> f32 {
        f32::from_bits((self.0 as u32) << 16)
    }
}

impl F16 {
    /// The nearest value, ties to even; beyond 65519 that is ∞. NaN stays NaN.
    #[inline(always)]
    pub const fn from_f32(x: f32) -> Self {
        const EXPONENTS: u32 = (127 - 15) << 23;
        let (bits, sign) = (x.to_bits() & 0x7fff_ffff, (x.to_bits() >> 16 & 0x8000) as u16);
        let magnitude = if x.is_nan() {
            0x7e00 | (bits >> 13 & 0x3ff) as u16
        } else if bits >= 0x4780_0000 {
            0x7c00 // from 65536 on
        } else if bits >= 0x3880_0000 {
            let bits = bits - EXPONENTS;
            ((bits + 0xfff + (bits >> 13 & 1)) >> 13) as u16
        } else {
            // Below 2^−14 numbers are multiples of 2^−24, which is the last place of ½.
            ((f32::from_bits(bits) + 0.5).to_bits() - 0.5_f32.to_bits()) as u16
        };
        Self(sign | magnitude)
    }

    /// The same value.
    #[inline(always)]
    pub const fn to_f32(self) -> f32 {
        let (sign, bits) = ((self.0 as u32 & 0x8000) << 16, self.0 as u32 & 0x7fff);
        let magnitude = if bits > 0x7c00 {
            bits << 13 | 0x7fc0_0000
        } else if bits == 0x7c00 {
            0x7f80_0000
        } else if bits >= 0x400 {
            (bits << 13) + ((127 - 15) << 23)
        } else {
            (bits as f32 * (1.0 / (1 << 24) as f32)).to_bits()
        };
        f32::from_bits(sign | magnitude)
    }
}

macro_rules! half {
    ($half:ident) => {
        // SAFETY: an integer of 16 bits.
        unsafe impl Plain for $half {}

        impl PartialEq for $half {
            fn eq(&self, other: &Self) -> bool {
                self.to_f32() == other.to_f32()
            }
        }

        impl fmt::Debug for $half {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.to_f32(), formatter)
            }
        }

        impl fmt::Display for $half {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.to_f32(), formatter)
            }
        }
    };
}

half!(Bf16);
half!(F16);
half!(LoneBf16);
