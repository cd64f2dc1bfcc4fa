//! Powers of two and the natural logarithm.

use std::f64::consts::{LN_2, LOG2_E};

use fusewire_simd::{Lanes, Real};

use super::constants::Elementary;

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
