//! Numbers of 16 bits: eight to a register of 128 bits.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::super::proved;
use super::Avx2;
use crate::HalfLanes;

impl Avx2 {
    /// The upper half of each lane, after rounding it there; the lower half is left over.
    #[inline(always)]
    fn round_to_upper_half(self, a: __m256) -> __m256i {
        proved!({
            let bits = _mm256_castps_si256(a);
            let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
            let rounding = _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff));
            let quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x0040_0000));
            let nan = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(a, a));
            _mm256_blendv_epi8(_mm256_add_epi32(bits, rounding), quiet, nan)
        })
    }
}

impl HalfLanes for Avx2 {
    type Halves = __m128i;

    #[inline(always)]
    unsafe fn load_halves(self, source: *const u16) -> __m128i {
        proved!(_mm_loadu_si128(source.cast()))
    }
    #[inline(always)]
    unsafe fn store_halves(self, target: *mut u16, a: __m128i) {
        proved!(_mm_storeu_si128(target.cast(), a));
    }
    #[inline(always)]
    unsafe fn load_halves_masked(self, source: *const u16, mask: __m256) -> __m128i {
        let mut halves = [0_u16; 8];
        proved!({
            let lanes = _mm256_movemask_ps(mask);
            for (lane, half) in halves.iter_mut().enumerate() {
                if lanes >> lane & 1 == 1 {
                    *half = *source.add(lane);
                }
            }
            _mm_loadu_si128(halves.as_ptr().cast())
        })
    }
    #[inline(always)]
    unsafe fn store_halves_masked(self, target: *mut u16, mask: __m256, a: __m128i) {
        let mut halves = [0_u16; 8];
        proved!({
            _mm_storeu_si128(halves.as_mut_ptr().cast(), a);
            let lanes = _mm256_movemask_ps(mask);
            for (lane, half) in halves.iter().enumerate() {
                if lanes >> lane & 1 == 1 {
                    *target.add(lane) = *half;
                }
            }
        });
    }
    #[inline(always)]
    fn widen_bf16(self, a: __m128i) -> __m256 {
        proved!(_mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(a))))
    }
    #[inline(always)]
    fn narrow_bf16(self, a: __m256) -> __m128i {
        let upper = self.round_to_upper_half(a);
        proved!({
            let words = _mm256_srli_epi32::<16>(upper);
            _mm_packus_epi32(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words))
        })
    }
    #[inline(always)]
    fn widen_f16(self, a: __m128i) -> __m256 {
        proved!(_mm256_cvtph_ps(a))
    }
    #[inline(always)]
    fn narrow_f16(self, a: __m256) -> __m128i {
        proved!(_mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(a))
    }
    #[inline(always)]
    fn pair(self, low: __m256, high: __m256) -> __m256 {
        let (low, high) = (self.round_to_upper_half(low), self.round_to_upper_half(high));
        proved!(_mm256_castsi256_ps(_mm256_blend_epi16::<0b1010_1010>(
            _mm256_srli_epi32::<16>(low),
            high
        )))
    }
    #[inline(always)]
    fn split_pairs(self, pairs: __m256) -> (__m256, __m256) {
        proved!({
            let bits = _mm256_castps_si256(pairs);
            let upper = _mm256_set1_epi32(0xffff_0000_u32.cast_signed());
            (
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(bits)),
                _mm256_castsi256_ps(_mm256_and_si256(bits, upper)),
            )
        })
    }
}
