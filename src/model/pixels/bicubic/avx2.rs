//! The weighted sums of the resizer with AVX2, two source rows at a time.
//!
//! A weight has 22 fractional bits and does not fit the 16 that the processor multiplies fastest, so each is
//! two numbers, `high * 2^11 + low`. Sums wrap in between and come out the same in the end, since the
//! whole sum fits 32 bits.

use std::arch::x86_64::*;

use super::{Axis, FRACTION_BITS, HALF, LANES, resample_rest};

/// Bits of the lower part of a weight.
const LOW_BITS: u32 = 11;

/// Values whose sums are in registers at the same time, in sixteens.
const GROUPS: usize = LANES / 16;

/// The weights of two neighbouring source rows, 16 bits each, the first one's in the lower half.
#[derive(Clone, Copy)]
struct Pair {
    low: i32,
    high: i32,
}

/// The weights of an axis, as many pairs for each target row.
pub(super) struct Pairs {
    each: usize,
    pairs: Vec<Pair>,
}

impl Pairs {
    /// Of `taps` weights a target row, each at most 2^22 in size.
    pub fn of(weights: &[i32], taps: usize) -> Self {
        let pair = |pair: &[i32]| {
            let (a, b) = (pair[0], pair.get(1).copied().unwrap_or(0));
            let both = |part: fn(i32) -> i32| (part(a) & 0xffff) | (part(b) << 16);
            Pair {
                low: both(|weight| weight & ((1 << LOW_BITS) - 1)),
                high: both(|weight| weight >> LOW_BITS),
            }
        };
        Pairs {
            each: taps.div_ceil(2),
            pairs: weights
                .chunks_exact(taps)
                .flat_map(|row| row.chunks(2).map(pair))
                .collect(),
        }
    }
}

/// As [`resample_rows`](super::resample_rows).
#[target_feature(enable = "avx2")]
pub(super) fn resample(source: &[u8], target: &mut [u8], stride: usize, axis: &Axis) {
    let rows = target.chunks_exact_mut(stride).zip(&axis.starts);
    let weights = axis.weights.chunks_exact(axis.taps);
    let pairs = axis.pairs.pairs.chunks_exact(axis.pairs.each);
    for (((target, &start), weights), pairs) in rows.zip(weights).zip(pairs) {
        let window = &source[start * stride..(start + axis.taps) * stride];
        let (blocks, rest) = target.as_chunks_mut::<LANES>();
        let done = blocks.len() * LANES;
        for (b, block) in blocks.iter_mut().enumerate() {
            sum(window, b * LANES, stride, pairs, block);
        }
        resample_rest(window, rest, done, weights, stride);
    }
}

/// The sums of [`LANES`] columns from `at` on.
#[target_feature(enable = "avx2")]
#[inline]
fn sum(window: &[u8], at: usize, stride: usize, pairs: &[Pair], block: &mut [u8; LANES]) {
    const { assert!(LANES == GROUPS * 16) };
    let zero = _mm256_setzero_si256();
    // Of each sixteen values the first eight and the last, by the lower and the higher part of the weights.
    let mut lows = [[zero; 2]; GROUPS];
    let mut highs = [[zero; 2]; GROUPS];
    let last = window.len() / stride - 1;
    for (p, pair) in pairs.iter().enumerate() {
        // A row too many has no weight.
        let row = |r: usize| window[r.min(last) * stride + at..].first_chunk::<LANES>();
        let (Some(a), Some(b)) = (row(2 * p), row(2 * p + 1)) else {
            return;
        };
        let (low, high) = (_mm256_set1_epi32(pair.low), _mm256_set1_epi32(pair.high));
        let sixteens = a.as_chunks::<16>().0.iter().zip(b.as_chunks::<16>().0);
        for ((a, b), (lows, highs)) in sixteens.zip(lows.iter_mut().zip(&mut highs)) {
            let (a, b) = (load(a), load(b));
            let halves = [_mm_unpacklo_epi8(a, b), _mm_unpackhi_epi8(a, b)];
            for (half, (lows, highs)) in halves.into_iter().zip(lows.iter_mut().zip(highs)) {
                let values = _mm256_cvtepu8_epi16(half);
                *lows = _mm256_add_epi32(*lows, _mm256_madd_epi16(values, low));
                *highs = _mm256_add_epi32(*highs, _mm256_madd_epi16(values, high));
            }
        }
    }
    let half = _mm256_set1_epi32(HALF);
    let sums = lows.iter().zip(&highs);
    for (sixteen, (lows, highs)) in block.as_chunks_mut::<16>().0.iter_mut().zip(sums) {
        let level = |low: __m256i, high: __m256i| {
            let high = _mm256_slli_epi32::<{ LOW_BITS as i32 }>(high);
            let sum = _mm256_add_epi32(_mm256_add_epi32(low, high), half);
            _mm256_srai_epi32::<{ FRACTION_BITS as i32 }>(sum)
        };
        // Packing clips, first to 16 bits and then to a level; it takes turns between the halves of registers.
        let words = _mm256_packs_epi32(level(lows[0], highs[0]), level(lows[1], highs[1]));
        let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(words);
        let bytes = _mm_packus_epi16(
            _mm256_castsi256_si128(words),
            _mm256_extracti128_si256::<1>(words),
        );
        // SAFETY: sixteen bytes, in any alignment.
        unsafe { _mm_storeu_si128(sixteen.as_mut_ptr().cast(), bytes) };
    }
}

#[target_feature(enable = "avx2")]
#[inline]
fn load(sixteen: &[u8; 16]) -> __m128i {
    // SAFETY: sixteen bytes, in any alignment.
    unsafe { _mm_loadu_si128(sixteen.as_ptr().cast()) }
}
