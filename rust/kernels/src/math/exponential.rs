//! Powers of two and the natural logarithm.

use fusewire_simd::{Lanes, Real};

/// A number type with the constants that its elementary functions need.
pub trait Elementary: Real {
    /// `(2^x − 1) / x` on [−½, ½] as a polynomial, lowest power first; minimax in the relative
    /// error of `2^x`: 2·10⁻⁹ for `f32`, 3·10⁻¹⁸ for `f64` (Remez exchange in 40 digits).
    const EXP2_MINUS_ONE: &'static [Self];
    /// Below this power of two a result is 0; above its negation it is ∞.
    const LOWEST_EXPONENT: Self;
    /// `atanh(s) / s` on |s| ≤ 3 − 2√2 as a polynomial in `s²`: its Taylor series, as long as needed.
    const ATANH: &'static [Self];
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
    const LOWEST_EXPONENT: f32 = -151.0;
    const ATANH: &'static [f32] = &[1.0, 1.0 / 3.0, 0.2, 1.0 / 7.0, 1.0 / 9.0];
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
    const LOWEST_EXPONENT: f64 = -1080.0;
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
}

/// The polynomial with these coefficients, lowest power first, at `x`.
#[inline(always)]
fn polynomial<T: Real, I: Lanes<T>>(isa: I, coefficients: &[T], x: I::Vector) -> I::Vector {
    let mut sum = isa.zero();
    for &coefficient in coefficients.iter().rev() {
        sum = isa.mul_add(sum, x, isa.splat(coefficient));
    }
    sum
}

/// `x` as a whole number and a rest in [−½, ½], with `x` clamped to where `2^x` is 0 or ∞.
#[inline(always)]
fn split<T: Elementary, I: Lanes<T>>(isa: I, x: I::Vector) -> (I::Vector, I::Vector) {
    // The clamps keep ∞ − ∞ away, and let NaN through as their second operand.
    let x = isa.max(isa.splat(T::LOWEST_EXPONENT), x);
    let x = isa.min(isa.splat(-T::LOWEST_EXPONENT), x);
    let whole = isa.round(x);
    (whole, isa.sub(x, whole))
}

/// `2^x`, within 1 unit in the last place of normal results; exactly 1 at 0, 0 at −∞.
#[inline(always)]
pub fn exp2<T: Elementary, I: Lanes<T>>(isa: I, x: I::Vector) -> I::Vector {
    let (whole, rest) = split(isa, x);
    let slope = polynomial(isa, T::EXP2_MINUS_ONE, rest);
    isa.scale_exponent(isa.mul_add(slope, rest, isa.splat(T::ONE)), whole)
}

/// `2^x − 1` without cancellation near 0.
#[inline(always)]
pub fn exp2_minus_one<T: Elementary, I: Lanes<T>>(isa: I, x: I::Vector) -> I::Vector {
    let (whole, rest) = split(isa, x);
    let slope = polynomial(isa, T::EXP2_MINUS_ONE, rest);
    let power = isa.scale_exponent(isa.splat(T::ONE), whole);
    // 2^(w + r) − 1 = 2^w (2^r − 1) + (2^w − 1)
    isa.mul_add(isa.mul(power, rest), slope, isa.sub(power, isa.splat(T::ONE)))
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
    isa.mul_add(exponent, isa.splat(T::from_f64(std::f64::consts::LN_2)), rest)
}
