//! One row of 8-bit Y'CbCr to RGB with AVX2: the arithmetic of the plain loop, sixteen pixels at a time.
//!
//! Multiplication and addition stay apart (no fused form) and rounding is to nearest, ties to even, as
//! there, so both give the same bits.

use std::arch::x86_64::*;

/// Bytes that `_mm_shuffle_epi8` makes zero.
const NONE: i8 = -128;

/// Where the reds, greens and blues of sixteen pixels go in each third of their 48 bytes.
const PLACES: [[[i8; 16]; 3]; 3] = {
    let mut places = [[[NONE; 16]; 3]; 3];
    let mut byte = 0;
    while byte < 48 {
        places[byte / 16][byte % 3][byte % 16] = (byte / 3) as i8;
        byte += 1;
    }
    places
};

/// How luma is scaled.
#[derive(Clone, Copy)]
pub(super) struct Luma {
    pub offset: f32,
    pub factor: f32,
}

/// Converts as many pixels of a row as make whole sixteens, and says how many. `lumas` is a byte a pixel;
/// what chroma adds to each channel is given once for two pixels; `out` takes 3 bytes a pixel. What is
/// shortest ends it.
#[target_feature(enable = "avx2")]
pub(super) fn row(lumas: &[u8], adds: [&[f32]; 3], luma: Luma, out: &mut [u8]) -> usize {
    let offset = _mm256_set1_ps(luma.offset);
    let factor = _mm256_set1_ps(luma.factor);
    let (least, most) = (_mm256_setzero_ps(), _mm256_set1_ps(255.0));
    // Each of eight chroma values covers two pixels.
    let first = _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3);
    let second = _mm256_setr_epi32(4, 4, 5, 5, 6, 6, 7, 7);
    let places = PLACES.map(|third| third.map(|bytes| load_bytes(&bytes)));

    let [reds, greens, blues] = adds;
    let adds = reds
        .as_chunks::<8>()
        .0
        .iter()
        .zip(greens.as_chunks::<8>().0)
        .zip(blues.as_chunks::<8>().0);
    let sixteens = lumas.as_chunks::<16>().0.iter().zip(adds);
    let mut done = 0;
    for ((lumas, ((reds, greens), blues)), out) in sixteens.zip(out.as_chunks_mut::<48>().0) {
        // SAFETY: sixteen bytes, in any alignment.
        let bytes = unsafe { _mm_loadu_si128(lumas.as_ptr().cast()) };
        let scaled = |bytes| {
            let luma = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes));
            _mm256_mul_ps(_mm256_sub_ps(luma, offset), factor)
        };
        let (low, high) = (scaled(bytes), scaled(_mm_srli_si128::<8>(bytes)));
        let channel = |adds: &[f32; 8]| {
            // SAFETY: eight numbers, in any alignment.
            let adds = unsafe { _mm256_loadu_ps(adds.as_ptr()) };
            let level = |luma, which| {
                let sum = _mm256_add_ps(luma, _mm256_permutevar8x32_ps(adds, which));
                _mm256_cvtps_epi32(_mm256_min_ps(_mm256_max_ps(sum, least), most))
            };
            let words = _mm256_packus_epi32(level(low, first), level(high, second));
            // The halves come out by turns.
            let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(words);
            _mm_packus_epi16(
                _mm256_castsi256_si128(words),
                _mm256_extracti128_si256::<1>(words),
            )
        };
        let channels = [channel(reds), channel(greens), channel(blues)];
        for (third, out) in places.iter().zip(out.as_chunks_mut::<16>().0) {
            let mixed = channels
                .iter()
                .zip(third)
                .map(|(channel, places)| _mm_shuffle_epi8(*channel, *places))
                .fold(_mm_setzero_si128(), |mixed, bytes| {
                    _mm_or_si128(mixed, bytes)
                });
            // SAFETY: sixteen bytes, in any alignment.
            unsafe { _mm_storeu_si128(out.as_mut_ptr().cast(), mixed) };
        }
        done += 16;
    }
    done
}

#[target_feature(enable = "avx2")]
fn load_bytes(bytes: &[i8; 16]) -> __m128i {
    // SAFETY: sixteen bytes, in any alignment.
    unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
}
