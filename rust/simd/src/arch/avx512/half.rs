//! Numbers of 16 bits: sixteen to a register of 256 bits, and the dot product of pairs.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::super::proved;
use super::Avx512;
use crate::{HalfLanes, Isa};

impl<const PAIRS: bool> Avx512<PAIRS>
where
    Self: Isa,
{
    /// The upper half of each lane, after rounding it there; the lower half is left over.
    ///
    /// Not the CPU's own conversion, which makes 0 of denormal numbers.
    #[inline(always)]
    fn round_to_upper_half(self, a: __m512) -> __m512i {
        proved!({
            let bits = _mm512_castps_si512(a);
            let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
            let rounding = _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff));
            let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(a, a);
            let rounded = _mm512_add_epi32(bits, rounding);
            _mm512_mask_or_epi32(rounded, nan, bits, _mm512_set1_epi32(0x0040_0000))
        })
    }
}

impl<const PAIRS: bool> HalfLanes for Avx512<PAIRS>
where
    Self: Isa,
{
    type Halves = __m256i;

    #[inline(always)]
    unsafe fn load_halves(self, source: *const u16) -> __m256i {
        proved!(_mm256_loadu_si256(source.cast()))
    }
    #[inline(always)]
    unsafe fn store_halves(self, target: *mut u16, a: __m256i) {
        proved!(_mm256_storeu_si256(target.cast(), a));
    }
    #[inline(always)]
    unsafe fn load_halves_masked(self, source: *const u16, mask: __mmask16) -> __m256i {
        proved!(_mm256_maskz_loadu_epi16(mask, source.cast()))
    }
    #[inline(always)]
    unsafe fn store_halves_masked(self, target: *mut u16, mask: __mmask16, a: __m256i) {
        proved!(_mm256_mask_storeu_epi16(target.cast(), mask, a));
    }
    #[inline(always)]
    fn widen_bf16(self, a: __m256i) -> __m512 {
        proved!(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(a))))
    }
    #[inline(always)]
    fn narrow_bf16(self, a: __m512) -> __m256i {
        let upper = self.round_to_upper_half(a);
        proved!(_mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(upper)))
    }
    #[inline(always)]
    fn widen_f16(self, a: __m256i) -> __m512 {
        proved!(_mm512_cvtph_ps(a))
    }
    #[inline(always)]
    fn narrow_f16(self, a: __m512) -> __m256i {
        proved!(_mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(a))
    }
    #[inline(always)]
    fn pair(self, low: __m512, high: __m512) -> __m512 {
        if PAIRS {
            // One instruction for both, whose halves one permutation interleaves; that the product
            // ignores denormal numbers, it does anyway.
            proved!({
                let order = _mm512_set_epi32(
                    0x001f_000f,
                    0x001e_000e,
                    0x001d_000d,
                    0x001c_000c,
                    0x001b_000b,
                    0x001a_000a,
                    0x0019_0009,
                    0x0018_0008,
                    0x0017_0007,
                    0x0016_0006,
                    0x0015_0005,
                    0x0014_0004,
                    0x0013_0003,
                    0x0012_0002,
                    0x0011_0001,
                    0x0010_0000,
                );
                let halves = _mm512_cvtne2ps_pbh(high, low);
                let halves = std::mem::transmute::<__m512bh, __m512i>(halves);
                _mm512_castsi512_ps(_mm512_permutexvar_epi16(order, halves))
            })
        } else {
            let (low, high) = (self.round_to_upper_half(low), self.round_to_upper_half(high));
            proved!(_mm512_castsi512_ps(_mm512_mask_blend_epi16(
                0xaaaa_aaaa,
                _mm512_srli_epi32::<16>(low),
                high
            )))
        }
    }
    #[inline(always)]
    fn pair_neighbours(self, first: __m512, second: __m512) -> __m512 {
        if PAIRS {
            proved!({
                let halves = _mm512_cvtne2ps_pbh(second, first);
                std::mem::transmute::<__m512bh, __m512>(halves)
            })
        } else {
            let halves = [self.narrow_bf16(first), self.narrow_bf16(second)];
            proved!(_mm512_castsi512_ps(_mm512_inserti64x4::<1>(
                _mm512_castsi256_si512(halves[0]),
                halves[1]
            )))
        }
    }
    #[inline(always)]
    fn split_pairs(self, pairs: __m512) -> (__m512, __m512) {
        proved!({
            let bits = _mm512_castps_si512(pairs);
            let upper = _mm512_set1_epi32(0xffff_0000_u32.cast_signed());
            (
                _mm512_castsi512_ps(_mm512_slli_epi32::<16>(bits)),
                _mm512_castsi512_ps(_mm512_and_si512(bits, upper)),
            )
        })
    }
    #[inline(always)]
    fn dot_pairs(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        if PAIRS {
            // The same bits under the type that the intrinsic asks for.
            let halves = |pairs| proved!(std::mem::transmute::<__m512, __m512bh>(pairs));
            proved!(_mm512_dpbf16_ps(c, halves(a), halves(b)))
        } else {
            let ((a_low, a_high), (b_low, b_high)) = (self.split_pairs(a), self.split_pairs(b));
            proved!(_mm512_fmadd_ps(a_high, b_high, _mm512_fmadd_ps(a_low, b_low, c)))
        }
    }
}
