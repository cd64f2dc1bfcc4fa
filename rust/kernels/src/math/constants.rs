//! The constants of elementary functions, for each number type.

use fusewire_simd::Real;

/// A number type with the constants that its elementary functions need.
pub trait Elementary: Real {
    /// `(2^x − 1) / x` on [−½, ½] as a polynomial, lowest power first; minimax in the relative
    /// error of `2^x`: 2·10⁻⁹ for `f32`, 3·10⁻¹⁸ for `f64` (Remez exchange in 40 digits).
    const EXP2_MINUS_ONE: &'static [Self];
    /// The same with fewer terms, for what will be rounded to 16 bits: 3·10⁻⁶ for `f32`.
    const EXP2_MINUS_ONE_SHORT: &'static [Self];
    /// Above this power of two a result is ∞; below its negation it is 0.
    const HIGHEST_EXPONENT: Self;
    /// `e` to this power and its reciprocal are still normal numbers: beyond, sigmoid and tanh have
    /// reached their limits.
    const SATURATION: Self;
    /// ln 2 in two parts, the first of so few bits that whole multiples of it are exact.
    const LN_2_PARTS: [Self; 2];
    /// log₂e, rounded, and what it lost.
    const LOG2_E_PARTS: [Self; 2];
    /// `atanh(s) / s` on |s| ≤ 3 − 2√2 as a polynomial in `s²`: its Taylor series, as long as needed.
    const ATANH: &'static [Self];
    /// `(tanh x / x − 1) / x²` on |x| ≤ ⅝ as a polynomial in `x²`; minimax in the relative error
    /// of tanh: 8·10⁻⁹ for `f32`, 7·10⁻¹⁹ for `f64` (Remez exchange in 50 digits).
    const TANH: &'static [Self];
    /// `(1 + 2z) e^z² erfc z` for `z ≥ 0` as a polynomial in `(z − 3) / (z + 3)`, which is Shepherd
    /// and Laframboise's form (1981), interpolated at Chebyshev's nodes in 60 digits; relative error
    /// 3·10⁻⁹ for `f32`, 3·10⁻¹⁷ for `f64`.
    const TAIL: &'static [Self];
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
    const SATURATION: f32 = 86.0;
    const LN_2_PARTS: [f32; 2] = [355.0 / 512.0, -2.121_944_4e-4];
    const LOG2_E_PARTS: [f32; 2] = [std::f32::consts::LOG2_E, 1.925_963e-8];
    const ATANH: &'static [f32] = &[1.0, 1.0 / 3.0, 0.2, 1.0 / 7.0, 1.0 / 9.0];
    const TANH: &'static [f32] =
        &[-0.333_332_93, 0.133_315_42, -0.053_738_63, 0.020_616_01, -0.005_664_79];
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
    const SATURATION: f64 = 700.0;
    const LN_2_PARTS: [f64; 2] = [0.693_145_751_953_125, 1.428_606_820_309_417_3e-6];
    const LOG2_E_PARTS: [f64; 2] = [std::f64::consts::LOG2_E, 2.035_527_374_093_103_3e-17];
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
}
