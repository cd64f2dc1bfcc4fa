//! AVX2 with FMA: 8 numbers of 32 bits or 4 of 64, 16 registers, masks as vectors of sign bits.
#![allow(unsafe_code)]

mod half;

use std::arch::asm;
use std::arch::x86_64::*;

use super::{in_turn, proved, single_intrinsics, tie};
use crate::{Element, Isa, Kernel, Lanes, Storage};

/// Proof that the CPU has AVX2, FMA and F16C.
#[derive(Clone, Copy, Debug)]
pub struct Avx2(());

impl Avx2 {
    /// The token, if this CPU has the instructions.
    pub fn detect() -> Option<Self> {
        let present = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        present.then_some(Self(()))
    }
}

impl Avx2 {
    /// `2^n` and `r` with `a · (factor + little) = n + r`, `n` whole and |r| ≤ ½; 0 and ∞ beyond the range.
    #[inline(always)]
    fn split_f32(self, a: __m256, [factor, little]: [f32; 2]) -> (__m256, __m256) {
        // A sum as large as BASE is rounded to a whole number, whose lowest bits are n and the bias of
        // exponents: those of 2^n, or at the bounds those of 0 and ∞. NaN passes as the second operand.
        const BASE: f32 = 12_582_912.0 + 127.0;
        proved!({
            let a = _mm256_max_ps(_mm256_set1_ps(-127.0 / factor), a);
            let a = _mm256_min_ps(_mm256_set1_ps(128.0 / factor), a);
            let (base, factor) = (_mm256_set1_ps(BASE), _mm256_set1_ps(factor));
            let sum = _mm256_fmadd_ps(a, factor, base);
            let mut rest = _mm256_fmsub_ps(a, factor, _mm256_sub_ps(sum, base));
            if little != 0.0 {
                rest = _mm256_fmadd_ps(a, _mm256_set1_ps(little), rest);
            }
            (_mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_castps_si256(sum))), rest)
        })
    }
    /// `2^n` and `r` with `a · (factor + little) = n + r`, `n` whole and |r| ≤ ½; 0 and ∞ beyond the range.
    #[inline(always)]
    fn split_f64(self, a: __m256d, [factor, little]: [f64; 2]) -> (__m256d, __m256d) {
        // A sum as large as BASE is rounded to a whole number, whose lowest bits are n and the bias of
        // exponents: those of 2^n, or at the bounds those of 0 and ∞. NaN passes as the second operand.
        const BASE: f64 = 6_755_399_441_055_744.0 + 1023.0;
        proved!({
            let a = _mm256_max_pd(_mm256_set1_pd(-1023.0 / factor), a);
            let a = _mm256_min_pd(_mm256_set1_pd(1024.0 / factor), a);
            let (base, factor) = (_mm256_set1_pd(BASE), _mm256_set1_pd(factor));
            let sum = _mm256_fmadd_pd(a, factor, base);
            let mut rest = _mm256_fmsub_pd(a, factor, _mm256_sub_pd(sum, base));
            if little != 0.0 {
                rest = _mm256_fmadd_pd(a, _mm256_set1_pd(little), rest);
            }
            (_mm256_castsi256_pd(_mm256_slli_epi64::<52>(_mm256_castpd_si256(sum))), rest)
        })
    }
}

impl Isa for Avx2 {
    const NAME: &'static str = "avx2";
    const REGISTERS: usize = 16;

    #[inline(always)]
    fn vectorize<E: Element, K: Kernel<E>>(self, kernel: K) -> K::Output
    where
        Self: Storage<E>,
    {
        #[inline(never)]
        #[target_feature(enable = "avx2,fma,f16c")]
        fn run<E: Element, I: Storage<E>, K: Kernel<E>>(isa: I, kernel: K) -> K::Output {
            kernel.run(isa)
        }
        proved!(run(self, kernel))
    }
}

tie!(tie_singles, "avx", ymm_reg, __m256);
tie!(tie_doubles, "avx", ymm_reg, __m256d);
in_turn!(singles_in_turn, "avx", ymm_reg, __m256);
in_turn!(doubles_in_turn, "avx", ymm_reg, __m256d);

const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;

/// A window of eight words that starts `8 − count` words in has its first `count` words set.
static FIRST_WORDS: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];
/// The same for four double words.
static FIRST_DOUBLE_WORDS: [i64; 8] = [-1, -1, -1, -1, 0, 0, 0, 0];

impl Lanes<f32> for Avx2 {
    type Vector = __m256;
    type Mask = __m256;
    const LANES: usize = 8;

    #[inline(always)]
    fn tie(self, a: __m256, b: __m256) -> (__m256, __m256) {
        proved!(tie_singles(a, b))
    }
    #[inline(always)]
    fn in_turn(self, offset: isize, sum: __m256) -> (isize, __m256) {
        proved!(singles_in_turn(offset, sum))
    }

    single_intrinsics!(f32: _mm256_set1_ps _mm256_add_ps _mm256_sub_ps _mm256_mul_ps _mm256_div_ps
        _mm256_min_ps _mm256_max_ps _mm256_fmadd_ps _mm256_fnmadd_ps
        _mm256_loadu_ps _mm256_storeu_ps);

    #[inline(always)]
    fn round(self, a: __m256) -> __m256 {
        proved!(_mm256_round_ps::<NEAREST>(a))
    }
    #[inline(always)]
    fn scale_exponent(self, a: __m256, n: __m256) -> __m256 {
        // In two factors, because 2^n alone may lie outside the range of normal numbers.
        proved!({
            let bias = _mm256_set1_epi32(127);
            let n = _mm256_cvtps_epi32(n);
            let half = _mm256_srai_epi32::<1>(n);
            let rest = _mm256_sub_epi32(n, half);
            // Spelt out, because a closure may be compiled without these instructions.
            let half = _mm256_slli_epi32::<23>(_mm256_add_epi32(half, bias));
            let rest = _mm256_slli_epi32::<23>(_mm256_add_epi32(rest, bias));
            _mm256_mul_ps(_mm256_mul_ps(a, _mm256_castsi256_ps(half)), _mm256_castsi256_ps(rest))
        })
    }
    #[inline(always)]
    fn split_power(self, a: __m256, factor: Option<f32>, _: f32) -> (__m256, __m256) {
        self.split_f32(a, [factor.unwrap_or(1.0), 0.0])
    }
    #[inline(always)]
    fn split_exp(self, a: __m256, log2_e: [f32; 2], _: [f32; 2], _: f32) -> (__m256, __m256) {
        self.split_f32(a, log2_e)
    }
    #[inline(always)]
    fn shift(self, a: __m256, n: __m256) -> __m256 {
        proved!(_mm256_mul_ps(a, n))
    }
    #[inline(always)]
    fn split_exponent(self, a: __m256) -> (__m256, __m256) {
        proved!({
            let bits = _mm256_castps_si256(a);
            let exponent = _mm256_sub_epi32(_mm256_srli_epi32::<23>(bits), _mm256_set1_epi32(127));
            let mantissa = _mm256_or_si256(
                _mm256_and_si256(bits, _mm256_set1_epi32(0x007f_ffff)),
                _mm256_set1_epi32(0x3f80_0000),
            );
            (_mm256_castsi256_ps(mantissa), _mm256_cvtepi32_ps(exponent))
        })
    }
    #[inline(always)]
    fn less(self, a: __m256, b: __m256) -> __m256 {
        proved!(_mm256_cmp_ps::<_CMP_LT_OQ>(a, b))
    }
    #[inline(always)]
    fn first(self, count: usize) -> __m256 {
        let start = 8 - count.min(8);
        // The window ends inside the table: start is at most 8, and the table has 16 words.
        proved!(_mm256_loadu_ps(FIRST_WORDS.as_ptr().add(start).cast()))
    }
    #[inline(always)]
    fn select(self, mask: __m256, a: __m256, b: __m256) -> __m256 {
        proved!(_mm256_blendv_ps(b, a, mask))
    }
    #[inline(always)]
    fn any(self, mask: __m256) -> bool {
        proved!(_mm256_movemask_ps(mask)) != 0
    }
    #[inline(always)]
    fn sum_lanes(self, a: __m256) -> f32 {
        proved!({
            let half = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let pair = _mm_add_ps(half, _mm_movehl_ps(half, half));
            _mm_cvtss_f32(_mm_add_ss(pair, _mm_shuffle_ps::<1>(pair, pair)))
        })
    }
    #[inline(always)]
    fn sum_each(self, vectors: &[__m256]) -> __m256 {
        assert!(vectors.len() == 8);
        proved!({
            let mut quads = [_mm256_setzero_ps(); 2];
            for (i, quad) in quads.iter_mut().enumerate() {
                let first = _mm256_hadd_ps(vectors[4 * i], vectors[4 * i + 1]);
                let second = _mm256_hadd_ps(vectors[4 * i + 2], vectors[4 * i + 3]);
                *quad = _mm256_hadd_ps(first, second);
            }
            let [a, b] = quads;
            _mm256_add_ps(
                _mm256_permute2f128_ps::<0x20>(a, b),
                _mm256_permute2f128_ps::<0x31>(a, b),
            )
        })
    }
    #[inline(always)]
    fn max_lanes(self, a: __m256) -> f32 {
        proved!({
            let half = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let pair = _mm_max_ps(half, _mm_movehl_ps(half, half));
            _mm_cvtss_f32(_mm_max_ss(pair, _mm_shuffle_ps::<1>(pair, pair)))
        })
    }
    #[inline(always)]
    unsafe fn load_masked(self, source: *const f32, mask: __m256) -> __m256 {
        proved!(_mm256_maskload_ps(source, _mm256_castps_si256(mask)))
    }
    #[inline(always)]
    unsafe fn store_masked(self, target: *mut f32, mask: __m256, a: __m256) {
        proved!(_mm256_maskstore_ps(target, _mm256_castps_si256(mask), a));
    }

    #[inline(always)]
    unsafe fn transpose_tile(
        self,
        source: *const f32,
        source_stride: usize,
        scales: Option<&[f32]>,
        target: *mut f32,
        target_stride: usize,
    ) {
        proved!(for half in 0..2 {
            // Rows r and r + 4 in the two halves.
            let mut pairs = [_mm256_setzero_ps(); 4];
            for (row, pair) in pairs.iter_mut().enumerate() {
                let from = source.add(row * source_stride + half * 4);
                let upper = _mm_loadu_ps(from.add(4 * source_stride));
                *pair =
                    _mm256_insertf128_ps::<1>(_mm256_castps128_ps256(_mm_loadu_ps(from)), upper);
            }
            // A transpose of 4 × 4 inside each 128 bits.
            let [a, b, c, d] = pairs;
            let [ab, ab_high] = [_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b)];
            let [cd, cd_high] = [_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d)];
            let columns = [
                _mm256_shuffle_ps::<0b01_00_01_00>(ab, cd),
                _mm256_shuffle_ps::<0b11_10_11_10>(ab, cd),
                _mm256_shuffle_ps::<0b01_00_01_00>(ab_high, cd_high),
                _mm256_shuffle_ps::<0b11_10_11_10>(ab_high, cd_high),
            ];
            for (column, &numbers) in columns.iter().enumerate() {
                let (column, mut numbers) = (half * 4 + column, numbers);
                if let Some(scales) = scales {
                    numbers = _mm256_mul_ps(numbers, _mm256_set1_ps(scales[column]));
                }
                _mm256_storeu_ps(target.add(column * target_stride), numbers);
            }
        });
    }
}

impl Lanes<f64> for Avx2 {
    type Vector = __m256d;
    type Mask = __m256d;
    const LANES: usize = 4;

    #[inline(always)]
    fn tie(self, a: __m256d, b: __m256d) -> (__m256d, __m256d) {
        proved!(tie_doubles(a, b))
    }
    #[inline(always)]
    fn in_turn(self, offset: isize, sum: __m256d) -> (isize, __m256d) {
        proved!(doubles_in_turn(offset, sum))
    }

    single_intrinsics!(f64: _mm256_set1_pd _mm256_add_pd _mm256_sub_pd _mm256_mul_pd _mm256_div_pd
        _mm256_min_pd _mm256_max_pd _mm256_fmadd_pd _mm256_fnmadd_pd
        _mm256_loadu_pd _mm256_storeu_pd);

    #[inline(always)]
    fn round(self, a: __m256d) -> __m256d {
        proved!(_mm256_round_pd::<NEAREST>(a))
    }
    #[inline(always)]
    fn scale_exponent(self, a: __m256d, n: __m256d) -> __m256d {
        proved!({
            let bias = _mm256_set1_epi64x(1023);
            let n = _mm256_cvtpd_epi32(n);
            let half = _mm_srai_epi32::<1>(n);
            let rest = _mm_sub_epi32(n, half);
            let half = _mm256_add_epi64(_mm256_cvtepi32_epi64(half), bias);
            let half = _mm256_castsi256_pd(_mm256_slli_epi64::<52>(half));
            let rest = _mm256_add_epi64(_mm256_cvtepi32_epi64(rest), bias);
            let rest = _mm256_castsi256_pd(_mm256_slli_epi64::<52>(rest));
            _mm256_mul_pd(_mm256_mul_pd(a, half), rest)
        })
    }
    #[inline(always)]
    fn split_power(self, a: __m256d, factor: Option<f64>, _: f64) -> (__m256d, __m256d) {
        self.split_f64(a, [factor.unwrap_or(1.0), 0.0])
    }
    #[inline(always)]
    fn split_exp(self, a: __m256d, log2_e: [f64; 2], _: [f64; 2], _: f64) -> (__m256d, __m256d) {
        self.split_f64(a, log2_e)
    }
    #[inline(always)]
    fn shift(self, a: __m256d, n: __m256d) -> __m256d {
        proved!(_mm256_mul_pd(a, n))
    }
    #[inline(always)]
    fn split_exponent(self, a: __m256d) -> (__m256d, __m256d) {
        proved!({
            let bits = _mm256_castpd_si256(a);
            let mantissa = _mm256_or_si256(
                _mm256_and_si256(bits, _mm256_set1_epi64x(0x000f_ffff_ffff_ffff)),
                _mm256_set1_epi64x(0x3ff0_0000_0000_0000),
            );
            // The biased exponent becomes the low bits of 2^52 + e, where a subtraction reads it.
            let magic = _mm256_set1_epi64x(0x4330_0000_0000_0000);
            let biased = _mm256_or_si256(_mm256_srli_epi64::<52>(bits), magic);
            let exponent =
                _mm256_sub_pd(_mm256_castsi256_pd(biased), _mm256_set1_pd(4_503_599_627_371_519.0));
            (_mm256_castsi256_pd(mantissa), exponent)
        })
    }
    #[inline(always)]
    fn less(self, a: __m256d, b: __m256d) -> __m256d {
        proved!(_mm256_cmp_pd::<_CMP_LT_OQ>(a, b))
    }
    #[inline(always)]
    fn first(self, count: usize) -> __m256d {
        let start = 4 - count.min(4);
        // The window ends inside the table: start is at most 4, and the table has 8 double words.
        proved!(_mm256_loadu_pd(FIRST_DOUBLE_WORDS.as_ptr().add(start).cast()))
    }
    #[inline(always)]
    fn select(self, mask: __m256d, a: __m256d, b: __m256d) -> __m256d {
        proved!(_mm256_blendv_pd(b, a, mask))
    }
    #[inline(always)]
    fn any(self, mask: __m256d) -> bool {
        proved!(_mm256_movemask_pd(mask)) != 0
    }
    #[inline(always)]
    fn sum_lanes(self, a: __m256d) -> f64 {
        proved!({
            let half = _mm_add_pd(_mm256_castpd256_pd128(a), _mm256_extractf128_pd::<1>(a));
            _mm_cvtsd_f64(_mm_add_sd(half, _mm_unpackhi_pd(half, half)))
        })
    }
    #[inline(always)]
    fn max_lanes(self, a: __m256d) -> f64 {
        proved!({
            let half = _mm_max_pd(_mm256_castpd256_pd128(a), _mm256_extractf128_pd::<1>(a));
            _mm_cvtsd_f64(_mm_max_sd(half, _mm_unpackhi_pd(half, half)))
        })
    }
    #[inline(always)]
    unsafe fn load_masked(self, source: *const f64, mask: __m256d) -> __m256d {
        proved!(_mm256_maskload_pd(source, _mm256_castpd_si256(mask)))
    }
    #[inline(always)]
    unsafe fn store_masked(self, target: *mut f64, mask: __m256d, a: __m256d) {
        proved!(_mm256_maskstore_pd(target, _mm256_castpd_si256(mask), a));
    }
}
