//! The normal distribution and the activations that are made of it.

use std::f64::consts::{FRAC_2_SQRT_PI, LOG2_E, SQRT_2};

use fusewire_simd::{Lanes, Real};

use super::activation::sigmoid;
use super::exponential::{Elementary, exp2, polynomial};

/// A number type with the constants of the normal distribution.
pub trait Normal: Real {
    /// `(1 + 2z) e^z² erfc z` for `z ≥ 0` as a polynomial in `(z − 3) / (z + 3)`, which is Shepherd
    /// and Laframboise's form (1981), interpolated at Chebyshev's nodes in 60 digits; relative error
    /// 3·10⁻⁹ for `f32`, 3·10⁻¹⁷ for `f64`.
    const TAIL: &'static [Self];
    /// `log₂ e` less its nearest number.
    const LOG2_E_REST: Self;
}

impl Normal for f32 {
    const TAIL: &'static [f32] = &[
        1.253_008,
        -0.135_621_15,
        -0.047_562_27,
        0.129_646_54,
        -0.119_272_83,
        0.068_293_67,
        -0.023_789_117,
        0.002_579_984_3,
        0.001_992_521,
        -8.009_518e-4,
        -2.782_657e-4,
    ];
    const LOG2_E_REST: f32 = 1.925_963e-8;
}

impl Normal for f64 {
    const TAIL: &'static [f64] = &[
        1.253_008_058_269_729_6,
        -0.135_621_106_124_580_7,
        -0.047_562_294_353_446_374,
        0.129_645_158_702_705_52,
        -0.119_273_663_415_528_53,
        0.068_308_027_345_804_59,
        -0.023_770_514_914_233_67,
        0.002_529_391_788_270_445,
        0.001_888_690_312_003_782,
        -7.798_320_379_611_115e-4,
        -1.051_594_903_377_597_5e-4,
        1.250_981_517_486_432_2e-4,
        4.948_147_875_576_539e-6,
        -2.009_663_087_595_395e-5,
        -7.275_875_746_667_183e-7,
        3.463_997_532_352_904e-6,
        3.489_919_788_974_429_3e-7,
        -6.050_048_623_933_503e-7,
        -1.311_166_137_536_459e-7,
        9.186_243_026_143_847e-8,
        3.291_634_396_766_32e-8,
        -8.500_119_502_115_306e-9,
        -4.210_104_975_119_195e-9,
    ];
    const LOG2_E_REST: f64 = 2.035_527_374_093_103_3e-17;
}

/// Where the polynomial's variable is 0.
const MIDDLE: f64 = 3.0;
/// Beyond this, `e^−x²` is 0 in any precision while `x²` is still a finite number.
const FAR: f64 = 60.0;

/// `erfc z` and `e^−z²` for `z ≥ 0`, each with a small relative error wherever it is normal.
#[inline(always)]
fn tail<T: Elementary, I: Lanes<T>>(isa: I, z: I::Vector) -> (I::Vector, I::Vector) {
    let (one, middle) = (isa.splat(T::ONE), isa.splat(T::from_f64(MIDDLE)));
    let z = isa.min(isa.splat(T::from_f64(FAR)), z);
    // The square and its rounding, times log₂ e and its rounding: an error of the exponent becomes a
    // relative error of the power.
    let square = isa.mul(z, z);
    let square_rest = isa.sub(isa.zero(), isa.neg_mul_add(z, z, square));
    let log2_e = isa.splat(T::from_f64(-LOG2_E));
    let exponent = isa.mul(square, log2_e);
    let rest = isa.mul_add(square, log2_e, isa.sub(isa.zero(), exponent));
    let rest = isa.mul_add(square, isa.splat(-T::LOG2_E_REST), rest);
    let rest = isa.mul_add(square_rest, log2_e, rest);
    let power = exp2(isa, exponent);
    let ln_2 = isa.splat(T::from_f64(std::f64::consts::LN_2));
    let power = isa.mul_add(isa.mul(power, rest), ln_2, power);

    let place = isa.mul(isa.sub(z, middle), isa.reciprocal(isa.add(z, middle)));
    let scaled = isa.mul(polynomial(isa, T::TAIL, place), power);
    let divisor = isa.mul_add(z, isa.splat(T::from_f64(2.0)), one);
    (isa.mul(scaled, isa.reciprocal(divisor)), power)
}

#[inline(always)]
fn magnitude<T: Real, I: Lanes<T>>(isa: I, x: I::Vector) -> I::Vector {
    isa.max(isa.sub(isa.zero(), x), x)
}

/// The error function, `2/√π ∫₀ˣ e^−t² dt`; its error is relative to 1.
#[inline(always)]
pub fn erf<T: Elementary, I: Lanes<T>>(isa: I, x: I::Vector) -> I::Vector {
    let (tail, _) = tail(isa, magnitude(isa, x));
    let one = isa.splat(T::ONE);
    let negative = isa.less(x, isa.zero());
    isa.select(negative, isa.sub(tail, one), isa.sub(one, tail))
}

/// The distribution, `Φ(x) = ½ erfc(−x/√2)`, and its density, `e^(−x²/2) / √2π`.
#[inline(always)]
fn normal<T: Elementary, I: Lanes<T>>(isa: I, x: I::Vector) -> (I::Vector, I::Vector) {
    let half = isa.splat(T::from_f64(0.5));
    let scaled = isa.mul(x, isa.splat(T::from_f64(1.0 / SQRT_2)));
    let (tail, power) = tail(isa, magnitude(isa, scaled));
    let lower = isa.mul(tail, half);
    let negative = isa.less(x, isa.zero());
    let distribution = isa.select(negative, lower, isa.sub(isa.splat(T::ONE), lower));
    (distribution, isa.mul(power, isa.splat(T::from_f64(FRAC_2_SQRT_PI / (2.0 * SQRT_2)))))
}

/// `x · Φ(x)`.
#[inline(always)]
pub fn gelu<T: Elementary, I: Lanes<T>>(isa: I, x: I::Vector) -> I::Vector {
    isa.mul(x, normal(isa, x).0)
}

/// The derivative of [`gelu`]: `Φ(x) + x φ(x)`.
#[inline(always)]
pub fn gelu_derivative<T: Elementary, I: Lanes<T>>(isa: I, x: I::Vector) -> I::Vector {
    let (distribution, density) = normal(isa, x);
    isa.mul_add(x, density, distribution)
}

/// `2√(2/π)`, and what the cubic term of [`gelu_tanh`] is multiplied with.
const SLOPE: f64 = SQRT_2 * FRAC_2_SQRT_PI;
const CUBIC: f64 = 0.044715;

/// `½ x (1 + tanh u)` with `u = √(2/π) (x + 0.044715 x³)`, which is `x · sigmoid(2u)`.
#[inline(always)]
pub fn gelu_tanh<T: Elementary, I: Lanes<T>>(isa: I, x: I::Vector) -> I::Vector {
    isa.mul(x, tanh_gate(isa, x))
}

#[inline(always)]
fn tanh_gate<T: Elementary, I: Lanes<T>>(isa: I, x: I::Vector) -> I::Vector {
    let cubic = isa.splat(T::from_f64(SLOPE * CUBIC));
    let slope = isa.mul_add(isa.mul(x, x), cubic, isa.splat(T::from_f64(SLOPE)));
    sigmoid(isa, isa.mul(x, slope))
}

/// The derivative of [`gelu_tanh`]: `s + x s (1 − s) 2u'` with `s = sigmoid(2u)`.
#[inline(always)]
pub fn gelu_tanh_derivative<T: Elementary, I: Lanes<T>>(isa: I, x: I::Vector) -> I::Vector {
    let gate = tanh_gate(isa, x);
    let cubic = isa.splat(T::from_f64(3.0 * SLOPE * CUBIC));
    let slope = isa.mul_add(isa.mul(x, x), cubic, isa.splat(T::from_f64(SLOPE)));
    let open = isa.mul(gate, isa.sub(isa.splat(T::ONE), gate));
    isa.mul_add(isa.mul(x, slope), open, gate)
}
