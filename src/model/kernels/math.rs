//! Vectorised maths on f32 slices.
//!
//! Each function is compiled for AVX-512, AVX2 and the target's baseline from one body and picked
//! at run time. The bodies use neither fused multiply-add nor reassociation beyond their own 16
//! lanes, so that the three give the same bits.

/// Compiles a function for several instruction sets and calls the best that the CPU has.
macro_rules! vectorised {
    ($(#[$meta:meta])* pub fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$meta])*
        pub fn $name($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            fn body($($arg: $ty),*) $(-> $ret)? $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
                fn avx512($($arg: $ty),*) $(-> $ret)? { body($($arg),*) }
                #[target_feature(enable = "avx2")]
                fn avx2($($arg: $ty),*) $(-> $ret)? { body($($arg),*) }

                if is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
                {
                    // SAFETY: the CPU has the four features that the function was compiled for.
                    return unsafe { avx512($($arg),*) };
                }
                if is_x86_feature_detected!("avx2") {
                    // SAFETY: the CPU has the feature that the function was compiled for.
                    return unsafe { avx2($($arg),*) };
                }
            }
            body($($arg),*)
        }
    };
}

mod rounded;

pub use rounded::{exp_round, round};

const LANES: usize = 16;

/// e^x, within 2 ulp between -87 and 88; below it stays at e^-87, above at e^88. NaN stays NaN.
#[inline(always)]
fn exp(x: f32) -> f32 {
    // Comparisons instead of min and max, which would drop a NaN.
    let x = if x < -87.0 { -87.0 } else { x };
    let x = if x > 88.0 { 88.0 } else { x };
    // Adding 1.5 * 2^23 rounds to an integer, whose bits then are the low bits of the sum.
    const ROUND: f32 = 12_582_912.0;
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    // ln 2 in two parts: the first has few bits, so that n * HIGH is exact.
    const HIGH: f32 = 0.693_359_4;
    const LOW: f32 = -2.121_944_4e-4;
    let r = x - n * HIGH - n * LOW;
    let mut p = 1.987_569_1e-4;
    p = p * r + 1.398_2e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 0.5;
    let p = p * r * r + r + 1.0;
    let exponent = shifted
        .to_bits()
        .wrapping_sub(ROUND.to_bits())
        .wrapping_add(127);
    p * f32::from_bits(exponent << 23)
}

/// erf(x) by an odd rational function on [-4, 4] (error below 5e-7), where it has reached 1.
#[inline(always)]
fn erf(x: f32) -> f32 {
    let x = if x < -4.0 { -4.0 } else { x };
    let x = if x > 4.0 { 4.0 } else { x };
    let s = x * x;
    let mut a = -2.726_142_3e-10;
    a = a * s + 2.770_681_4e-8;
    a = a * s - 2.101_024e-6;
    a = a * s - 5.692_506_5e-5;
    a = a * s - 7.349_906e-4;
    a = a * s - 2.954_6e-3;
    a = a * s - 1.609_603_3e-2;
    let mut b = -1.456_607_2e-5;
    b = b * s - 2.133_740_6e-4;
    b = b * s - 1.682_827e-3;
    b = b * s - 7.373_329e-3;
    b = b * s - 1.426_474e-2;
    x * a / b
}

/// Sum in 16 lanes.
#[inline(always)]
fn sum(x: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0.0; LANES];
    let chunks = x.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (lane, &v) in lanes.iter_mut().zip(chunk) {
            *lane += f(v);
        }
    }
    for (lane, &v) in lanes.iter_mut().zip(rest) {
        *lane += f(v);
    }
    lanes.iter().sum()
}

#[inline(always)]
fn maximum(x: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let chunks = x.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (lane, &v) in lanes.iter_mut().zip(chunk) {
            *lane = if v > *lane { v } else { *lane };
        }
    }
    let most = lanes
        .iter()
        .fold(f32::NEG_INFINITY, |m, &v| if v > m { v } else { m });
    rest.iter().fold(most, |m, &v| if v > m { v } else { m })
}

vectorised! {
    /// `x + bias`, row by row.
    pub fn add_bias(x: &mut [f32], bias: &[f32]) {
        for row in x.chunks_exact_mut(bias.len()) {
            for (x, &b) in row.iter_mut().zip(bias) {
                *x += b;
            }
        }
    }
}

vectorised! {
    /// `gelu(x + bias)`, row by row.
    pub fn gelu_bias(x: &mut [f32], bias: &[f32]) {
        for row in x.chunks_exact_mut(bias.len()) {
            for (x, &b) in row.iter_mut().zip(bias) {
                let v = *x + b;
                *x = 0.5 * v * (1.0 + erf(v * std::f32::consts::FRAC_1_SQRT_2));
            }
        }
    }
}

vectorised! {
    /// `gate / (1 + exp(-gate)) * up`.
    pub fn silu_mul(gate: &mut [f32], up: &[f32]) {
        for (g, &u) in gate.iter_mut().zip(up) {
            *g = *g / (1.0 + exp(-*g)) * u;
        }
    }
}

vectorised! {
    /// `x + y`.
    pub fn add(x: &mut [f32], y: &[f32]) {
        for (x, &y) in x.iter_mut().zip(y) {
            *x += y;
        }
    }
}

vectorised! {
    /// `x + scale * (y + bias)`, row by row.
    pub fn add_scaled(x: &mut [f32], y: &[f32], scale: &[f32], bias: &[f32]) {
        let width = scale.len();
        for (row, y) in x.chunks_exact_mut(width).zip(y.chunks_exact(width)) {
            for (((x, &y), &s), &b) in row.iter_mut().zip(y).zip(scale).zip(bias) {
                *x += s * (y + b);
            }
        }
    }
}

vectorised! {
    /// LayerNorm, row by row.
    pub fn layer_norm(x: &[f32], out: &mut [f32], weight: &[f32], bias: &[f32], eps: f32) {
        let width = weight.len();
        for (x, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
            let mean = sum(x, |v| v) / width as f32;
            let variance = sum(x, |v| (v - mean) * (v - mean)) / width as f32;
            let scale = 1.0 / (variance + eps).sqrt();
            for (((o, &x), &w), &b) in out.iter_mut().zip(x).zip(weight).zip(bias) {
                *o = (x - mean) * scale * w + b;
            }
        }
    }
}

vectorised! {
    /// RMSNorm, row by row.
    pub fn rms_norm(x: &[f32], out: &mut [f32], weight: &[f32], eps: f32) {
        let width = weight.len();
        for (x, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
            let scale = 1.0 / (sum(x, |v| v * v) / width as f32 + eps).sqrt();
            for ((o, &x), &w) in out.iter_mut().zip(x).zip(weight) {
                *o = x * scale * w;
            }
        }
    }
}

vectorised! {
    /// Rotary embedding of one row of heads by one position's `cos` and `sin`.
    pub fn rotary(row: &mut [f32], cos: &[f32], sin: &[f32]) {
        let half = cos.len();
        for head in row.chunks_exact_mut(2 * half) {
            let (low, high) = head.split_at_mut(half);
            for (((a, b), &c), &s) in low.iter_mut().zip(high).zip(cos).zip(sin) {
                let (x, y) = (*a, *b);
                *a = x * c - y * s;
                *b = y * c + x * s;
            }
        }
    }
}

/// Running maximum and sum of a row's softmax over tiles of keys.
#[derive(Clone, Copy, Debug)]
pub struct Running {
    /// Largest score so far.
    pub max: f32,
    /// Sum of exp(score − max) so far.
    pub sum: f32,
}

impl Running {
    /// Nothing seen.
    pub const START: Running = Running {
        max: f32::NEG_INFINITY,
        sum: 0.0,
    };
}

vectorised! {
    /// Turns the first `valid` scores of a row into exp(score − max), the others into 0, and
    /// returns the factor by which sums over earlier tiles shrink.
    pub fn softmax_step(row: &mut [f32], valid: usize, running: &mut Running) -> f32 {
        let (scores, masked) = row.split_at_mut(valid);
        masked.fill(0.0);
        if scores.is_empty() {
            return 1.0;
        }
        let tile = maximum(scores);
        let max = if tile > running.max { tile } else { running.max };
        for s in scores.iter_mut() {
            *s = exp(*s - max);
        }
        let shrink = if running.sum == 0.0 { 0.0 } else { exp(running.max - max) };
        running.sum = running.sum * shrink + sum(scores, |v| v);
        running.max = max;
        shrink
    }
}

vectorised! {
    /// `x * factor`.
    pub fn scale(x: &mut [f32], factor: f32) {
        for x in x {
            *x *= factor;
        }
    }
}
