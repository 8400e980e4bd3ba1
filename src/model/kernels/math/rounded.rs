//! What ends in bf16.

use half::bf16;

use super::{LANES, Running, maximum};

/// To the nearest bf16, ties to even; NaN stays NaN.
#[inline(always)]
fn nearest(x: f32) -> bf16 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1));
    let bits = if x.is_nan() { 0x7fc0_0000 } else { rounded };
    bf16::from_bits((bits >> 16) as u16)
}

/// 2^x for x ≤ 0, within 5e-5 of it; below -126 it stays at 2^-126. NaN stays NaN.
#[inline(always)]
fn exp2(x: f32) -> f32 {
    // A comparison instead of max, which would drop a NaN.
    let x = if x < -126.0 { -126.0 } else { x };
    // Adding 1.5 * 2^23 rounds to an integer, whose bits then are the low bits of the sum.
    const ROUND: f32 = 12_582_912.0;
    let shifted = x + ROUND;
    let r = x - (shifted - ROUND);
    // Its series: the next term is below 5e-5 for |r| ≤ 1/2, and bf16 keeps 8 bits.
    let mut p = 9.618_129e-3;
    p = p * r + 5.550_411e-2;
    p = p * r + 0.240_226_5;
    p = p * r + std::f32::consts::LN_2;
    p = p * r + 1.0;
    let exponent = shifted
        .to_bits()
        .wrapping_sub(ROUND.to_bits())
        .wrapping_add(127);
    p * f32::from_bits(exponent << 23)
}

vectorised! {
    /// `x` as bf16, to the nearest.
    pub fn round(x: &[f32], out: &mut [bf16]) {
        for (out, &x) in out.iter_mut().zip(x) {
            *out = nearest(x);
        }
    }
}

vectorised! {
    /// The first `valid` scores of a row as weights exp(factor · (score − max)) in bf16, the others
    /// as 0. Returns the factor by which sums over earlier tiles shrink.
    pub fn exp_round(
        scores: &mut [f32], valid: usize, factor: f32, running: &mut Running, out: &mut [bf16],
    ) -> f32 {
        let valid = valid.min(scores.len()).min(out.len());
        let (out, masked) = out.split_at_mut(valid);
        masked.fill(bf16::ZERO);
        let scores = &mut scores[..valid];
        if scores.is_empty() {
            return 1.0;
        }
        let tile = maximum(scores);
        let max = if tile > running.max { tile } else { running.max };
        let factor = factor * std::f32::consts::LOG2_E;
        let mut lanes = [0.0; LANES];
        let mut chunks = scores.chunks_exact_mut(LANES);
        for chunk in &mut chunks {
            for (s, lane) in chunk.iter_mut().zip(&mut lanes) {
                *s = exp2((*s - max) * factor);
                *lane += *s;
            }
        }
        for (s, lane) in chunks.into_remainder().iter_mut().zip(&mut lanes) {
            *s = exp2((*s - max) * factor);
            *lane += *s;
        }
        for (out, &s) in out.iter_mut().zip(scores.iter()) {
            *out = nearest(s);
        }
        let shrink = if running.sum == 0.0 { 0.0 } else { exp2((running.max - max) * factor) };
        running.sum = running.sum * shrink + lanes.iter().sum::<f32>();
        running.max = max;
        shrink
    }
}
