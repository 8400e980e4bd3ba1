//! LDA: Fisher's criterion δᵀ S_w⁺ δ, with S_w the within-class scatter + 1e-6 I.
//!
//! The reference inverts S_w with a pseudo-inverse that drops singular values of at most 1e-15
//! times the largest. Below that point (no eigenvalue of S_w is under 1e-6, so while the scatter is
//! under 1e9) the pseudo-inverse is the inverse; above, the spectrum is computed and cut likewise.

use super::linalg::{cholesky, dot, norm2, scatter, solve_backward, solve_forward};
use super::samples::{Layout, Scratch};
use super::simd::{Isa, padded, stride};
use super::spectrum::spectrum;
use crate::error::Result;

/// Added to the diagonal of the scatter.
const RIDGE: f64 = 1e-6;

/// Singular values up to this fraction of the largest are dropped by the pseudo-inverse.
const CUT: f64 = 1e-15;

/// A criterion below this is no separation.
const LEAST: f64 = 1e-9;

/// Eigenvalues up to this multiple of the rounding error of the largest are zeros in disguise.
const NULL: f64 = 4.0 * f64::EPSILON;

/// The criterion, and whether the pseudo-inverse dropped a direction.
pub(super) struct Lda {
    /// Fisher's criterion.
    pub value: f64,
    /// Some direction was dropped: the features are too large for the ridge.
    pub truncated: bool,
}

/// Measures one head. Expects the class scatters in the first two matrices unless the layout is wide.
#[inline(always)]
pub(super) fn lda<T: Isa>(layout: &Layout, scratch: &mut Scratch) -> Result<Lda> {
    let trace: f64 = scratch.within_norms.iter().sum();
    let mut lda = if layout.wide() {
        in_sample_space::<T>(layout, scratch, trace)?
    } else {
        in_feature_space::<T>(layout, scratch, trace)?
    };
    if lda.value < LEAST {
        lda.value = 0.0;
    }
    Ok(lda)
}

/// ‖R⁻ᵀδ‖² with S_w = RᵀR.
#[inline(always)]
fn in_feature_space<T: Isa>(layout: &Layout, scratch: &mut Scratch, trace: f64) -> Result<Lda> {
    let (d, n, st) = (layout.dim, padded(layout.dim), stride(layout.dim));
    let [a, b, sum] = &mut scratch.matrices;
    let [y, values, ..] = &mut scratch.vectors;
    fill_within(a, b, sum, d);
    // The smallest eigenvalue is somewhat under the smallest pivot: 1e3 leaves room for that.
    let safe = match cholesky::<T>(sum, n, st) {
        Some(_) if trace * CUT < RIDGE => true,
        Some(pivot) => pivot > 1e3 * CUT * trace,
        None => false,
    };
    if safe {
        y[..n].fill(0.0);
        y[..d].copy_from_slice(&scratch.delta[..d]);
        solve_forward::<T>(sum, &mut y[..n], n, st);
        return Ok(Lda {
            value: norm2::<T>(&y[..n]),
            truncated: false,
        });
    }
    fill_within(a, b, sum, d);
    let (y, values) = (&mut y[..d], &mut values[..d]);
    y.copy_from_slice(&scratch.delta[..d]);
    spectrum(sum, d, st, y, values)?;
    let cut = CUT * values.iter().fold(0.0, |m: f64, v| m.max(*v));
    let mut lda = Lda {
        value: 0.0,
        truncated: false,
    };
    for (component, &value) in y.iter().zip(&*values) {
        // Rounding can push the eigenvalue of an empty direction under the ridge.
        let value = value.max(RIDGE);
        if value > cut {
            lda.value += component * component / value;
        } else {
            lda.truncated = true;
        }
    }
    Ok(lda)
}

/// `sum` = `a` + `b` + ridge, with ones on the padding's diagonal; upper triangle.
#[inline(always)]
fn fill_within(a: &[f64], b: &[f64], sum: &mut [f64], d: usize) {
    let (n, st) = (padded(d), stride(d));
    for i in 0..n {
        let at = i * st + i;
        let end = i * st + n;
        for ((s, a), b) in sum[at..end].iter_mut().zip(&a[at..end]).zip(&b[at..end]) {
            *s = a + b;
        }
        sum[at] += if i < d { RIDGE } else { 1.0 };
    }
}

/// With fewer samples than features most of S_w is the bare ridge. With W the class-centred rows
/// (S_w = WᵀW + εI), δᵀ S_w⁻¹ δ is the minimum over y of (‖δ − Wᵀy‖² + ε‖y‖²) / ε: errors in
/// y count only squared, and no large terms cancel.
#[inline(always)]
fn in_sample_space<T: Isa>(layout: &Layout, scratch: &mut Scratch, trace: f64) -> Result<Lda> {
    let (count, d) = (layout.samples(), layout.dim);
    let (n, st, ds) = (padded(count), stride(count), stride(d));
    let gram = &mut scratch.matrices[2];
    let [b, y, values, rest] = &mut scratch.vectors;
    let delta = &scratch.delta[..d];
    scatter::<T>(gram, &scratch.within_columns, n, st, d);
    b[..n].fill(0.0);
    for (i, b) in b[..count].iter_mut().enumerate() {
        *b = dot::<T>(&scratch.within[i * ds..][..d], delta);
    }
    if trace * CUT < RIDGE {
        for i in 0..n {
            gram[i * st + i] += RIDGE;
        }
        let y = &mut y[..n];
        y.copy_from_slice(&b[..n]);
        if cholesky::<T>(gram, n, st).is_some() {
            solve_forward::<T>(gram, y, n, st);
            solve_backward::<T>(gram, y, n, st);
            let rest = &mut rest[..d];
            rest.copy_from_slice(delta);
            for (i, &y) in y[..count].iter().enumerate() {
                for (r, w) in rest.iter_mut().zip(&scratch.within[i * ds..][..d]) {
                    *r = T::fma1(-y, *w, *r);
                }
            }
            return Ok(Lda {
                value: (norm2::<T>(rest) + RIDGE * norm2::<T>(&y[..count])) / RIDGE,
                truncated: false,
            });
        }
        scatter::<T>(gram, &scratch.within_columns, n, st, d);
    }
    let (c, values) = (&mut b[..count], &mut values[..count]);
    spectrum(gram, count, st, c, values)?;
    let largest = values.iter().fold(0.0, |m: f64, v| m.max(*v));
    let cut = CUT * (largest + RIDGE);
    let mut lda = Lda {
        value: 0.0,
        truncated: false,
    };
    // What of δ lies in the span of the samples; `c` holds uᵀWδ = √value · component.
    let mut inside = 0.0;
    for (c, &value) in c.iter().zip(&*values) {
        if value > largest * NULL {
            let component2 = c * c / value;
            inside += component2;
            if value + RIDGE > cut {
                lda.value += component2 / (value + RIDGE);
            } else {
                lda.truncated = true;
            }
        }
    }
    if RIDGE > cut {
        lda.value += (norm2::<T>(delta) - inside).max(0.0) / RIDGE;
    } else {
        lda.truncated = true;
    }
    Ok(lda)
}
