//! AVX-512: 16 numbers of 32 bits or 8 of 64, 32 registers, masks in registers of their own.
#![allow(unsafe_code)]

mod half;

use std::arch::asm;
use std::arch::x86_64::*;

use super::amx::Tiles;
use super::{proved, single_intrinsics, tie};
use crate::{Element, Isa, Kernel, Lanes, Storage};

/// Proof that the CPU has AVX-512 F, BW, DQ and VL; with `PAIRS`, BF16 too, and perhaps tiles of them.
#[derive(Clone, Copy, Debug)]
pub struct Avx512<const PAIRS: bool> {
    tiles: Option<Tiles>,
}

impl<const PAIRS: bool> Avx512<PAIRS> {
    /// The token, if this CPU has the instructions.
    pub fn detect() -> Option<Self> {
        let present = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && (!PAIRS || is_x86_feature_detected!("avx512bf16"));
        present.then_some(Self { tiles: None })
    }
}

impl Avx512<true> {
    /// The token, if this CPU has the instructions and matrix tiles beside them.
    pub fn detect_with_tiles() -> Option<Self> {
        let tiles = Some(Tiles::detect()?);
        Self::detect().map(|_| Self { tiles })
    }
}

macro_rules! token {
    ($pairs:literal, $name:literal, $features:literal) => {
        impl Isa for Avx512<$pairs> {
            const NAME: &'static str = $name;
            const REGISTERS: usize = 32;

            #[inline(always)]
            fn tiles(self) -> Option<Tiles> {
                self.tiles
            }

            #[inline(always)]
            fn vectorize<E: Element, K: Kernel<E>>(self, kernel: K) -> K::Output
            where
                Self: Storage<E>,
            {
                #[inline(never)]
                #[target_feature(enable = $features)]
                fn run<E: Element, I: Storage<E>, K: Kernel<E>>(isa: I, kernel: K) -> K::Output {
                    kernel.run(isa)
                }
                proved!(run(self, kernel))
            }
        }
    };
}

token!(false, "avx512", "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma");
token!(true, "avx512bf16", "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma");

/// Below, `2^n · m`, |m| about 1, is no normal number. `scalef` takes any exponent, but where the result is
/// denormal or a little less, Intel's takes 200 cycles: as many hidden scores would cost.
const LEAST_EXPONENT: f32 = -126.0;
/// The same of float64.
const LEAST_EXPONENT_64: f64 = -1022.0;

tie!(tie_singles, "avx512f", zmm_reg, __m512);
tie!(tie_doubles, "avx512f", zmm_reg, __m512d);

const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;

impl<const PAIRS: bool> Lanes<f32> for Avx512<PAIRS>
where
    Self: Isa,
{
    type Vector = __m512;
    type Mask = __mmask16;
    const LANES: usize = 16;

    #[inline(always)]
    fn tie(self, a: __m512, b: __m512) -> (__m512, __m512) {
        proved!(tie_singles(a, b))
    }

    single_intrinsics!(f32: _mm512_set1_ps _mm512_add_ps _mm512_sub_ps _mm512_mul_ps _mm512_div_ps
        _mm512_min_ps _mm512_max_ps _mm512_fmadd_ps _mm512_fnmadd_ps
        _mm512_loadu_ps _mm512_storeu_ps);

    #[inline(always)]
    fn round(self, a: __m512) -> __m512 {
        proved!(_mm512_roundscale_ps::<NEAREST>(a))
    }
    #[inline(always)]
    fn scale_exponent(self, a: __m512, n: __m512) -> __m512 {
        proved!(_mm512_scalef_ps(a, n))
    }
    #[inline(always)]
    fn shift(self, a: __m512, n: __m512) -> __m512 {
        proved!({
            // NaN is not less.
            let normal = _mm512_cmp_ps_mask::<_CMP_NLT_UQ>(n, _mm512_set1_ps(LEAST_EXPONENT));
            _mm512_maskz_scalef_ps(normal, a, n)
        })
    }
    #[inline(always)]
    fn bounded(self, a: __m512, bound: f32) -> __m512 {
        // Below, `shift` gives 0 whatever the rest is; NaN passes as the second operand.
        proved!(_mm512_min_ps(_mm512_set1_ps(bound), a))
    }
    #[inline(always)]
    fn split_whole(self, a: __m512, _: f32) -> (__m512, __m512) {
        // The rest of ±∞ is 0, and `scalef` takes any exponent: no bound is needed.
        proved!({
            let rest = _mm512_reduce_ps::<NEAREST>(a);
            (_mm512_sub_ps(a, rest), rest)
        })
    }
    #[inline(always)]
    fn split_product(self, a: __m512, factor: f32, _: f32) -> (__m512, __m512) {
        // The rest of ±∞ is not a number, and `shift` gives 0 for −∞: no bound is needed.
        proved!({
            let factor = _mm512_set1_ps(factor);
            let whole = _mm512_roundscale_ps::<NEAREST>(_mm512_mul_ps(a, factor));
            (whole, _mm512_fmsub_ps(a, factor, whole))
        })
    }
    #[inline(always)]
    fn split_exponent(self, a: __m512) -> (__m512, __m512) {
        proved!((_mm512_getmant_ps::<_MM_MANT_NORM_1_2, _MM_MANT_SIGN_SRC>(a), _mm512_getexp_ps(a)))
    }
    #[inline(always)]
    fn reciprocal(self, a: __m512) -> __m512 {
        // 14 bits, doubled by one Newton step: five times the throughput of a division.
        proved!({
            let guess = _mm512_rcp14_ps(a);
            let error = _mm512_fnmadd_ps(a, guess, _mm512_set1_ps(1.0));
            _mm512_fmadd_ps(guess, error, guess)
        })
    }
    #[inline(always)]
    fn less(self, a: __m512, b: __m512) -> __mmask16 {
        proved!(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b))
    }
    #[inline(always)]
    fn first(self, count: usize) -> __mmask16 {
        if count >= 16 { u16::MAX } else { (1_u16 << count) - 1 }
    }
    #[inline(always)]
    fn select(self, mask: __mmask16, a: __m512, b: __m512) -> __m512 {
        proved!(_mm512_mask_blend_ps(mask, b, a))
    }
    #[inline(always)]
    fn any(self, mask: __mmask16) -> bool {
        mask != 0
    }
    #[inline(always)]
    fn sum_lanes(self, a: __m512) -> f32 {
        proved!(_mm512_reduce_add_ps(a))
    }
    #[inline(always)]
    fn sum_each(self, vectors: &[__m512]) -> __m512 {
        assert!(vectors.len() == 16);
        proved!({
            // Two vectors share one after each addition, and each then has half as many lanes.
            let mut pairs = [_mm512_setzero_pd(); 8];
            for (i, pair) in pairs.iter_mut().enumerate() {
                let (a, b) = (vectors[2 * i], vectors[2 * i + 1]);
                let sum = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
                *pair = _mm512_castps_pd(sum);
            }
            let mut quads = [_mm512_setzero_ps(); 4];
            for (i, quad) in quads.iter_mut().enumerate() {
                let (a, b) = (pairs[2 * i], pairs[2 * i + 1]);
                let (low, high) = (_mm512_unpacklo_pd(a, b), _mm512_unpackhi_pd(a, b));
                *quad = _mm512_add_ps(_mm512_castpd_ps(low), _mm512_castpd_ps(high));
            }
            // Now a vector has the sums of four in each quarter: the quarters are left to be added.
            let [a, b, c, d] = quads;
            let ab = _mm512_add_ps(
                _mm512_shuffle_f32x4::<0x44>(a, b),
                _mm512_shuffle_f32x4::<0xee>(a, b),
            );
            let cd = _mm512_add_ps(
                _mm512_shuffle_f32x4::<0x44>(c, d),
                _mm512_shuffle_f32x4::<0xee>(c, d),
            );
            _mm512_add_ps(
                _mm512_shuffle_f32x4::<0x88>(ab, cd),
                _mm512_shuffle_f32x4::<0xdd>(ab, cd),
            )
        })
    }
    #[inline(always)]
    fn max_lanes(self, a: __m512) -> f32 {
        proved!(_mm512_reduce_max_ps(a))
    }
    #[inline(always)]
    unsafe fn load_masked(self, source: *const f32, mask: __mmask16) -> __m512 {
        proved!(_mm512_maskz_loadu_ps(mask, source))
    }
    #[inline(always)]
    unsafe fn store_masked(self, target: *mut f32, mask: __mmask16, a: __m512) {
        proved!(_mm512_mask_storeu_ps(target, mask, a));
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
        proved!(for quarter in 0..4 {
            // Rows r, r + 4, r + 8 and r + 12: a masked broadcast from memory needs no shuffle.
            let mut quads = [_mm512_setzero_ps(); 4];
            for (row, quad) in quads.iter_mut().enumerate() {
                for part in 0..4 {
                    let from = source.add((row + 4 * part) * source_stride + quarter * 4);
                    let mask = 0xf << (4 * part);
                    *quad = _mm512_mask_broadcast_f32x4(*quad, mask, _mm_loadu_ps(from));
                }
            }
            // A transpose of 4 × 4 inside each 128 bits.
            let [a, b, c, d] = quads;
            let [ab, cd] = [_mm512_unpacklo_ps(a, b), _mm512_unpacklo_ps(c, d)];
            let [ab, cd] = [_mm512_castps_pd(ab), _mm512_castps_pd(cd)];
            let [ab_high, cd_high] = [_mm512_unpackhi_ps(a, b), _mm512_unpackhi_ps(c, d)];
            let [ab_high, cd_high] = [_mm512_castps_pd(ab_high), _mm512_castps_pd(cd_high)];
            let columns = [
                _mm512_unpacklo_pd(ab, cd),
                _mm512_unpackhi_pd(ab, cd),
                _mm512_unpacklo_pd(ab_high, cd_high),
                _mm512_unpackhi_pd(ab_high, cd_high),
            ];
            for (column, numbers) in columns.into_iter().enumerate() {
                let column = quarter * 4 + column;
                let mut numbers = _mm512_castpd_ps(numbers);
                if let Some(scales) = scales {
                    numbers = _mm512_mul_ps(numbers, _mm512_set1_ps(scales[column]));
                }
                _mm512_storeu_ps(target.add(column * target_stride), numbers);
            }
        });
    }
}

impl<const PAIRS: bool> Lanes<f64> for Avx512<PAIRS>
where
    Self: Isa,
{
    type Vector = __m512d;
    type Mask = __mmask8;
    const LANES: usize = 8;

    #[inline(always)]
    fn tie(self, a: __m512d, b: __m512d) -> (__m512d, __m512d) {
        proved!(tie_doubles(a, b))
    }

    single_intrinsics!(f64: _mm512_set1_pd _mm512_add_pd _mm512_sub_pd _mm512_mul_pd _mm512_div_pd
        _mm512_min_pd _mm512_max_pd _mm512_fmadd_pd _mm512_fnmadd_pd
        _mm512_loadu_pd _mm512_storeu_pd);

    #[inline(always)]
    fn round(self, a: __m512d) -> __m512d {
        proved!(_mm512_roundscale_pd::<NEAREST>(a))
    }
    #[inline(always)]
    fn scale_exponent(self, a: __m512d, n: __m512d) -> __m512d {
        proved!(_mm512_scalef_pd(a, n))
    }
    #[inline(always)]
    fn shift(self, a: __m512d, n: __m512d) -> __m512d {
        proved!({
            // NaN is not less.
            let normal = _mm512_cmp_pd_mask::<_CMP_NLT_UQ>(n, _mm512_set1_pd(LEAST_EXPONENT_64));
            _mm512_maskz_scalef_pd(normal, a, n)
        })
    }
    #[inline(always)]
    fn bounded(self, a: __m512d, bound: f64) -> __m512d {
        // Below, `shift` gives 0 whatever the rest is; NaN passes as the second operand.
        proved!(_mm512_min_pd(_mm512_set1_pd(bound), a))
    }
    #[inline(always)]
    fn split_whole(self, a: __m512d, _: f64) -> (__m512d, __m512d) {
        // The rest of ±∞ is 0, and `scalef` takes any exponent: no bound is needed.
        proved!({
            let rest = _mm512_reduce_pd::<NEAREST>(a);
            (_mm512_sub_pd(a, rest), rest)
        })
    }
    #[inline(always)]
    fn split_product(self, a: __m512d, factor: f64, _: f64) -> (__m512d, __m512d) {
        // The rest of ±∞ is not a number, and `shift` gives 0 for −∞: no bound is needed.
        proved!({
            let factor = _mm512_set1_pd(factor);
            let whole = _mm512_roundscale_pd::<NEAREST>(_mm512_mul_pd(a, factor));
            (whole, _mm512_fmsub_pd(a, factor, whole))
        })
    }
    #[inline(always)]
    fn split_exponent(self, a: __m512d) -> (__m512d, __m512d) {
        proved!((_mm512_getmant_pd::<_MM_MANT_NORM_1_2, _MM_MANT_SIGN_SRC>(a), _mm512_getexp_pd(a)))
    }
    #[inline(always)]
    fn less(self, a: __m512d, b: __m512d) -> __mmask8 {
        proved!(_mm512_cmp_pd_mask::<_CMP_LT_OQ>(a, b))
    }
    #[inline(always)]
    fn first(self, count: usize) -> __mmask8 {
        if count >= 8 { u8::MAX } else { (1_u8 << count) - 1 }
    }
    #[inline(always)]
    fn select(self, mask: __mmask8, a: __m512d, b: __m512d) -> __m512d {
        proved!(_mm512_mask_blend_pd(mask, b, a))
    }
    #[inline(always)]
    fn any(self, mask: __mmask8) -> bool {
        mask != 0
    }
    #[inline(always)]
    fn sum_lanes(self, a: __m512d) -> f64 {
        proved!(_mm512_reduce_add_pd(a))
    }
    #[inline(always)]
    fn max_lanes(self, a: __m512d) -> f64 {
        proved!(_mm512_reduce_max_pd(a))
    }
    #[inline(always)]
    unsafe fn load_masked(self, source: *const f64, mask: __mmask8) -> __m512d {
        proved!(_mm512_maskz_loadu_pd(mask, source))
    }
    #[inline(always)]
    unsafe fn store_masked(self, target: *mut f64, mask: __mmask8, a: __m512d) {
        proved!(_mm512_mask_storeu_pd(target, mask, a));
    }
}
