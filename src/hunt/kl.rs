//! KL: the symmetric divergence of two Gaussians with Ledoit-Wolf covariances.
//!
//! The log-determinants of the two directions cancel, which leaves
//! ¼ (tr Σ₂⁻¹Σ₁ + tr Σ₁⁻¹Σ₂ − 2d + δᵀ(Σ₁⁻¹ + Σ₂⁻¹)δ), and with Σ = RᵀR each trace is a squared norm.

use super::linalg::{cholesky, norm2, solve_forward, trace_of_quotient};
use super::samples::{Layout, Scratch};
use super::simd::{Isa, padded, stride};

/// Added to the diagonal of each covariance.
pub(super) const RIDGE: f64 = 1e-10;

/// Largest divergence.
const CLIP: f64 = 1e6;

/// The divergence, and whether a covariance was singular to working precision.
pub(super) struct Kl {
    /// In `0..=1e6`.
    pub value: f64,
    /// A covariance could not be factored, so the divergence is past any bound.
    pub singular: bool,
}

/// Measures one head. Expects the class scatters in the first two matrices and consumes them.
#[inline(always)]
pub(super) fn kl<T: Isa>(layout: &Layout, scratch: &mut Scratch) -> Kl {
    let (d, n, st) = (layout.dim, padded(layout.dim), stride(layout.dim));
    let (anomalous, normal) = scratch.within_norms.split_at(layout.anomalous);
    let [p, q, m] = &mut scratch.matrices;
    covariance::<T>(p, anomalous, d);
    covariance::<T>(q, normal, d);
    if cholesky::<T>(p, n, st).is_none() || cholesky::<T>(q, n, st).is_none() {
        return Kl {
            value: CLIP,
            singular: true,
        };
    }
    let mut sum = -2.0 * n as f64;
    sum += trace_of_quotient::<T>(p, q, m, n, st);
    sum += trace_of_quotient::<T>(q, p, m, n, st);
    for factor in [&*p, &*q] {
        let y = &mut scratch.vectors[0][..n];
        y.fill(0.0);
        y[..d].copy_from_slice(&scratch.delta[..d]);
        solve_forward::<T>(factor, y, n, st);
        sum += norm2::<T>(y);
    }
    let value = 0.25 * sum;
    Kl {
        value: value.clamp(0.0, CLIP),
        // Overflow to infinity or NaN.
        singular: !value.is_finite(),
    }
}

/// Turns a class's scatter into its covariance shrunk towards a multiple of the identity, plus the
/// ridge (Ledoit & Wolf 2004, as scikit-learn computes it); `norms` are the squared norms of
/// the centred samples.
#[inline(always)]
pub(super) fn covariance<T: Isa>(scatter: &mut [f64], norms: &[f64], d: usize) {
    let (n, st, dims) = (norms.len() as f64, stride(d), d as f64);
    let mean_variance = norms.iter().sum::<f64>() / n / dims;
    let shrinkage = if d == 1 {
        0.0
    } else {
        // ‖S‖², each off-diagonal number twice.
        let mut frobenius2 = 0.0;
        for i in 0..d {
            let row = &scatter[i * st + i..][..d - i];
            frobenius2 += 2.0 * norm2::<T>(row) - row[0] * row[0];
        }
        shrinkage(norms, frobenius2, mean_variance, dims)
    };
    let scale = (1.0 - shrinkage) / n;
    for i in 0..padded(d) {
        let row = &mut scatter[i * st + i..i * st + padded(d)];
        for x in &mut *row {
            *x *= scale;
        }
        if i < d {
            row[0] += shrinkage * mean_variance + RIDGE;
        } else {
            row[0] = 1.0;
        }
    }
}

/// The Ledoit-Wolf coefficient from the squared norms of the samples, the squared Frobenius norm of
/// their scatter and the mean variance of a feature.
pub(super) fn shrinkage(norms: &[f64], frobenius2: f64, mean_variance: f64, dims: f64) -> f64 {
    let n = norms.len() as f64;
    let fourth: f64 = norms.iter().map(|x| x * x).sum();
    let delta = frobenius2 / (n * n);
    let beta = 1.0 / (dims * n) * (fourth / n - delta);
    let trace = mean_variance * dims;
    let delta = (delta - 2.0 * mean_variance * trace + dims * mean_variance * mean_variance) / dims;
    let beta = beta.min(delta);
    if beta == 0.0 { 0.0 } else { beta / delta }
}
