//! Powers of two and the natural logarithm.

use std::f64::consts::{LN_2, LOG2_E};

use fusewire_simd::{Lanes, Real};

use super::normal::Normal;

/// A number type with the constants that its elementary functions need.
pub trait Elementary: Normal {
    /// `(2^x − 1) / x` on [−½, ½] as a polynomial, lowest power first; minimax in the relative
    /// error of `2^x`: 2·10⁻⁹ for `f32`, 3·10⁻¹⁸ for `f64` (Remez exchange in 40 digits).
    const EXP2_MINUS_ONE: &'static [Self];
    /// The same with fewer terms, for what will be rounded to 16 bits: 3·10⁻⁶ for `f32`.
    const EXP2_MINUS_ONE_SHORT: &'static [Self];
    /// Above this power of two a result is ∞; below its negation it is 0.
    const HIGHEST_EXPONENT: Self;
    /// ln 2 in two parts, the first of so few bits that whole multiples of it are exact.
    const LN_2_PARTS: [Self; 2];
    /// `atanh(s) / s` on |s| ≤ 3 − 2√2 as a polynomial in `s²`: its Taylor series, as long as needed.
    const ATANH: &'static [Self];
    /// `(tanh x / x − 1) / x²` on |x| ≤ ⅝ as a polynomial in `x²`; minimax in the relative error
    /// of tanh: 8·10⁻⁹ for `f32`, 7·10⁻¹⁹ for `f64` (Remez exchange in 50 digits).
    const TANH: &'static [Self];
}

impl Elementary for f32 {
    const EXP2_MINUS_ONE: &'static [f32] = &[
        std::f32::consts::LN_2,
        0.240_226_48,
        0.055_503_324,
        0.009_618_437,
        0.001_339_887_4,
        0.000_153_533_62,
    ];
    const EXP2_MINUS_ONE_SHORT: &'static [f32] =
        &[0.693_124_2, 0.240_240_99, 0.055_906_43, 0.009_582_85];
    const HIGHEST_EXPONENT: f32 = 151.0;
    const LN_2_PARTS: [f32; 2] = [355.0 / 512.0, -2.121_944_4e-4];
    const ATANH: &'static [f32] = &[1.0, 1.0 / 3.0, 0.2, 1.0 / 7.0, 1.0 / 9.0];
    const TANH: &'static [f32] =
        &[-0.333_332_93, 0.133_315_42, -0.053_738_63, 0.020_616_01, -0.005_664_79];
}

impl Elementary for f64 {
    const EXP2_MINUS_ONE: &'static [f64] = &[
        std::f64::consts::LN_2,
        0.240_226_506_959_101_3,
        0.055_504_108_664_820_08,
        0.009_618_129_107_594_12,
        0.001_333_355_814_677_464_9,
        0.000_154_035_304_571_113_6,
        1.525_273_349_309_594e-5,
        1.321_543_528_268_066_3e-6,
        1.017_819_958_664_479_1e-7,
        7.073_783_184_458_311e-9,
        4.434_768_928_626_335e-10,
    ];
    const EXP2_MINUS_ONE_SHORT: &'static [f64] = Self::EXP2_MINUS_ONE;
    const HIGHEST_EXPONENT: f64 = 1080.0;
    const LN_2_PARTS: [f64; 2] = [0.693_145_751_953_125, 1.428_606_820_309_417_3e-6];
    const ATANH: &'static [f64] = &[
        1.0,
        1.0 / 3.0,
        0.2,
        1.0 / 7.0,
        1.0 / 9.0,
        1.0 / 11.0,
        1.0 / 13.0,
        1.0 / 15.0,
        1.0 / 17.0,
        1.0 / 19.0,
        1.0 / 21.0,
    ];
    const TANH: &'static [f64] = &[
        -0.333_333_333_333_333_26,
        0.133_333_333_333_311_54,
        -0.053_968_253_966_647_5,
        0.021_869_488_480_781_612,
        -0.008_863_234_453_156_383,
        0.003_592_114_994_268_315,
        -0.001_455_730_295_535_552_3,
        0.000_589_463_139_893_933_8,
        -0.000_237_026_737_303_622_28,
        9.156_006_449_327_976e-5,
        -3.016_755_392_693_514_4e-5,
        6.025_742_666_253_523e-6,
    ];
}

/// The polynomial with these coefficients, lowest power first, at `x`.
#[inline(always)]
pub(super) fn polynomial<T: Real, I: Lanes<T>>(
    isa: I,
    coefficients: &[T],
    x: I::Vector,
) -> I::Vector {
    let [lower @ .., highest] = coefficients else { return isa.zero() };
    let mut sum = isa.splat(*highest);
    for &coefficient in lower.iter().rev() {
        sum = isa.mul_add(sum, x, isa.splat(coefficient));
    }
    sum
}

/// `x` between the `bound`s, which keep ∞ − ∞ away and let NaN through as their second operand.
#[inline(always)]
fn clamp<T: Real, I: Lanes<T>>(isa: I, x: I::Vector, bound: T) -> I::Vector {
    isa.min(isa.splat(bound), isa.max(isa.splat(-bound), x))
}

/// `2^x`, within 1 unit in the last place of normal results; exactly 1 at 0, 0 at −∞.
#[inline(always)]
pub fn exp2<T: Elementary, I: Lanes<T>>(isa: I, x: I::Vector) -> I::Vector {
    exp2_by(isa, T::EXP2_MINUS_ONE, x)
}

/// `2^x` for what will be rounded to 16 bits: within 3·10⁻⁶ of itself; exactly 1 at 0, 0 at −∞.
#[inline(always)]
pub fn exp2_short<T: Elementary, I: Lanes<T>>(isa: I, x: I::Vector) -> I::Vector {
    exp2_by(isa, T::EXP2_MINUS_ONE_SHORT, x)
}

/// `2^(x · factor)` without the rounding of that product, for a positive `factor`; exactly 1 at 0, 0 at
/// −∞, and NaN or ∞ at ∞.
#[inline(always)]
pub fn exp2_product<T: Elementary, I: Lanes<T>>(isa: I, x: I::Vector, factor: T) -> I::Vector {
    let (whole, rest) = isa.split_product(x, factor, T::HIGHEST_EXPONENT);
    exp2_from(isa, T::EXP2_MINUS_ONE, whole, rest)
}

/// `2^x` by a polynomial for `(2^x − 1) / x`.
#[inline(always)]
fn exp2_by<T: Elementary, I: Lanes<T>>(isa: I, coefficients: &[T], x: I::Vector) -> I::Vector {
    let (whole, rest) = isa.split_whole(x, T::HIGHEST_EXPONENT);
    exp2_from(isa, coefficients, whole, rest)
}

/// `2^(whole + rest)` by a polynomial for `(2^rest − 1) / rest`.
#[inline(always)]
fn exp2_from<T: Elementary, I: Lanes<T>>(
    isa: I,
    coefficients: &[T],
    whole: I::Vector,
    rest: I::Vector,
) -> I::Vector {
    let slope = polynomial(isa, coefficients, rest);
    isa.scale_exponent(isa.mul_add(slope, rest, isa.splat(T::ONE)), whole)
}

/// `e^x`, within 1 unit in the last place of normal results; exactly 1 at 0, 0 at −∞.
///
/// Unlike `2^(x · log₂e)`, whose product is rounded as coarsely as its whole part is large.
#[inline(always)]
pub fn exp<T: Elementary, I: Lanes<T>>(isa: I, x: I::Vector) -> I::Vector {
    let log2_e = isa.splat(T::from_f64(LOG2_E));
    let x = clamp(isa, x, T::HIGHEST_EXPONENT);
    let whole = isa.round(isa.mul(x, log2_e));
    let [most, little] = T::LN_2_PARTS;
    let rest = isa.neg_mul_add(whole, isa.splat(most), x);
    let rest = isa.neg_mul_add(whole, isa.splat(little), rest);
    let rest = isa.mul(rest, log2_e);
    let slope = polynomial(isa, T::EXP2_MINUS_ONE, rest);
    isa.scale_exponent(isa.mul_add(slope, rest, isa.splat(T::ONE)), whole)
}

/// The natural logarithm of a positive normal number, within 2 units in the last place.
#[inline(always)]
pub fn ln<T: Elementary, I: Lanes<T>>(isa: I, x: I::Vector) -> I::Vector {
    let one = isa.splat(T::ONE);
    let half = isa.splat(T::from_f64(0.5));
    let (mantissa, exponent) = isa.split_exponent(x);
    // To [√½, √2), where the logarithm is smallest.
    let large = isa.less(isa.splat(T::from_f64(std::f64::consts::SQRT_2)), mantissa);
    let mantissa = isa.select(large, isa.mul(mantissa, half), mantissa);
    let exponent = isa.select(large, isa.add(exponent, one), exponent);
    // ln m = 2 atanh((m − 1) / (m + 1))
    let ratio = isa.div(isa.sub(mantissa, one), isa.add(mantissa, one));
    let series = polynomial(isa, T::ATANH, isa.mul(ratio, ratio));
    let rest = isa.mul(isa.add(ratio, ratio), series);
    isa.mul_add(exponent, isa.splat(T::from_f64(LN_2)), rest)
}
