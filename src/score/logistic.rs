//! The scorer: L2-regularised logistic regression on the expert heads' features.
//!
//! Minimises Σ log(1 + exp(−yᵢ (w·zᵢ + b))) + ‖w‖² / (2C), y = ±1, by Newton's method with
//! backtracking in f64 until the gradient's norm is at most 1e-8. As in liblinear the intercept is
//! the weight of an appended feature of value 1 and penalised with the others, unless told
//! otherwise.
//!
//! There are 640 weights and often 40 samples. The optimum's w is a combination Xᵀa of the samples,
//! so a step is solved in whichever is smaller, the weights (d × d) or the samples (n × n, through
//! the Woodbury identity); both are symmetric positive definite and solved by Cholesky.

mod wide;

use rayon::prelude::*;

use super::cholesky::Cholesky;
use crate::{
    error::{Error, Result},
    limits::LOGISTIC_MAX_STEPS,
    profile::ScorerParams,
};

/// Norm of the gradient at which a fit has converged.
const GRADIENT_TOLERANCE: f64 = 1e-8;

/// How to fit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FitOptions {
    /// Inverse strength of the penalty.
    pub c: f64,
    /// Whether the intercept is penalised like a weight, as liblinear does.
    pub penalize_intercept: bool,
}

impl Default for FitOptions {
    fn default() -> Self {
        FitOptions {
            c: 1.0,
            penalize_intercept: true,
        }
    }
}

/// p = σ(w·z + b).
#[derive(Clone, Debug, PartialEq)]
pub struct Logistic {
    /// w.
    pub weights: Vec<f64>,
    /// b.
    pub intercept: f64,
}

impl Logistic {
    /// Fits to `rows` (n samples of d features each) with their `labels` (true: anomaly).
    ///
    /// `InvalidArgument`, naming the row: rows of different lengths, a NaN or infinite feature, no
    /// rows, or rows of one class only. `Internal` if the optimum cannot be reached in f64.
    pub fn fit(rows: &[&[f32]], labels: &[bool], options: &FitOptions) -> Result<Logistic> {
        let dim = check(rows, labels, options)?;
        let width = dim + 1;
        // X̃: the samples with the appended feature of value 1.
        let x: Vec<f64> = rows
            .iter()
            .flat_map(|row| {
                row.iter()
                    .map(|&v| f64::from(v))
                    .chain(std::iter::once(1.0))
            })
            .collect();
        let problem = Problem {
            x: &x,
            width,
            labels,
            c: options.c,
            penalize_intercept: options.penalize_intercept,
        };
        let dual = (rows.len() < width).then(|| problem.gram());
        let mut w = problem.solve(dual.as_deref())?;
        let intercept = w.pop().unwrap_or_default();
        Ok(Logistic {
            weights: w,
            intercept,
        })
    }

    /// p of a feature vector.
    ///
    /// `InvalidArgument` for a wrong length, a NaN or an infinite feature.
    pub fn probability(&self, z: &[f32]) -> Result<f64> {
        check_vector(z, self.weights.len())?;
        let sum: f64 = z
            .iter()
            .zip(&self.weights)
            .map(|(z, w)| f64::from(*z) * w)
            .sum();
        let p = sigmoid(sum + self.intercept);
        if p.is_nan() {
            return Err(Error::data_loss("the scorer's weights are not finite"));
        }
        Ok(p)
    }
}

/// Refuses a feature vector that a scorer of `expected` numbers cannot score.
pub(super) fn check_vector(z: &[f32], expected: usize) -> Result<()> {
    if z.len() != expected {
        return Err(Error::invalid(format!(
            "the scorer has {expected} weights, the feature vector {} numbers",
            z.len()
        )));
    }
    match z.iter().position(|v| !v.is_finite()) {
        Some(at) => Err(Error::invalid(format!(
            "number {at} of the feature vector is {}",
            z[at]
        ))),
        None => Ok(()),
    }
}

impl From<&ScorerParams> for Logistic {
    fn from(params: &ScorerParams) -> Self {
        Logistic {
            weights: params.weights.clone(),
            intercept: params.intercept,
        }
    }
}

impl From<Logistic> for ScorerParams {
    fn from(fitted: Logistic) -> Self {
        ScorerParams {
            weights: fitted.weights,
            intercept: fitted.intercept,
        }
    }
}

/// 1 / (1 + e⁻ˣ) without overflow.
pub fn sigmoid(x: f64) -> f64 {
    if x >= 0.0 {
        1.0 / (1.0 + (-x).exp())
    } else {
        let e = x.exp();
        e / (1.0 + e)
    }
}

/// log(1 + eˣ) without overflow or cancellation.
pub(super) fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

/// The number of features, or what is wrong with the samples.
pub(super) fn check(rows: &[&[f32]], labels: &[bool], options: &FitOptions) -> Result<usize> {
    if !(options.c.is_finite() && options.c > 0.0) {
        return Err(Error::invalid(format!(
            "the scorer's C is {}: give a positive number",
            options.c
        )));
    }
    if rows.len() != labels.len() {
        return Err(Error::invalid(format!(
            "{} samples but {} labels",
            rows.len(),
            labels.len()
        )));
    }
    let Some(first) = rows.first() else {
        return Err(Error::invalid("no samples to fit the scorer to"));
    };
    let dim = first.len();
    if dim == 0 {
        return Err(Error::invalid("the samples have no features"));
    }
    for (i, row) in rows.iter().enumerate() {
        if row.len() != dim {
            return Err(Error::invalid(format!(
                "sample {i} has {} features, sample 0 has {dim}",
                row.len()
            )));
        }
        if let Some(at) = row.iter().position(|v| !v.is_finite()) {
            return Err(Error::invalid(format!(
                "feature {at} of sample {i} is {}",
                row[at]
            )));
        }
    }
    let anomalous = labels.iter().filter(|l| **l).count();
    if anomalous == 0 || anomalous == labels.len() {
        let (has, lacks) = if anomalous == 0 {
            ("normal", "anomalous")
        } else {
            ("anomalous", "normal")
        };
        return Err(Error::invalid(format!(
            "all {} samples are {has}: the scorer needs {lacks} ones too",
            labels.len()
        )));
    }
    Ok(dim)
}

/// The objective over w̃ = (w, b).
struct Problem<'a> {
    /// `[n, width]`, the last column is 1.
    x: &'a [f64],
    width: usize,
    labels: &'a [bool],
    c: f64,
    penalize_intercept: bool,
}

/// The objective's value and slopes at a point.
struct State {
    value: f64,
    /// ∂loss/∂margin of each sample: p − y.
    residual: Vec<f64>,
    /// Curvature of each sample's loss: p (1 − p).
    curvature: Vec<f64>,
    gradient: Vec<f64>,
    gradient_norm: f64,
}

impl Problem<'_> {
    fn rows(&self) -> std::slice::ChunksExact<'_, f64> {
        self.x.chunks_exact(self.width)
    }

    /// 1/C, or 0 for an intercept that is free.
    fn penalty(&self, column: usize) -> f64 {
        if column + 1 == self.width && !self.penalize_intercept {
            0.0
        } else {
            1.0 / self.c
        }
    }

    /// X Xᵀ `[n, n]` over the penalised columns.
    fn gram(&self) -> Vec<f64> {
        let n = self.labels.len();
        let columns = self.width - usize::from(!self.penalize_intercept);
        let mut gram = vec![0.0; n * n];
        gram.par_chunks_mut(n).enumerate().for_each(|(i, out)| {
            let a = &self.x[i * self.width..][..columns];
            for (b, out) in self.rows().zip(out) {
                *out = dot(a, &b[..columns]);
            }
        });
        gram
    }

    fn at(&self, w: &[f64]) -> State {
        let n = self.labels.len();
        let mut value = 0.0;
        let mut residual = Vec::with_capacity(n);
        let mut curvature = Vec::with_capacity(n);
        let mut gradient = vec![0.0; self.width];
        for (x, &label) in self.rows().zip(self.labels) {
            let margin = dot(x, w);
            let (sign, p) = (if label { 1.0 } else { -1.0 }, sigmoid(margin));
            value += softplus(-sign * margin);
            // p − y without cancellation
            let r = -sign * sigmoid(-sign * margin);
            for (g, x) in gradient.iter_mut().zip(x) {
                *g += r * x;
            }
            residual.push(r);
            curvature.push(p * sigmoid(-margin));
        }
        for (column, (g, w)) in gradient.iter_mut().zip(w).enumerate() {
            let penalty = self.penalty(column);
            value += 0.5 * penalty * w * w;
            *g += penalty * w;
        }
        let gradient_norm = dot(&gradient, &gradient).sqrt();
        State {
            value,
            residual,
            curvature,
            gradient,
            gradient_norm,
        }
    }

    fn solve(&self, gram: Option<&[f64]>) -> Result<Vec<f64>> {
        let mut w = vec![0.0; self.width];
        let mut state = self.at(&w);
        let first_norm = state.gradient_norm;
        for _ in 0..LOGISTIC_MAX_STEPS {
            if state.gradient_norm <= GRADIENT_TOLERANCE {
                return Ok(w);
            }
            let direction = match gram {
                Some(gram) => self.dual_direction(gram, &w, &state)?,
                None => self.primal_direction(&state)?,
            };
            match self.search(&w, &direction, &state) {
                Some((next_w, next)) => (w, state) = (next_w, next),
                // No step goes down any further: rounding. Fine where the gradient is as small as
                // rounding of its terms allows.
                None if state.gradient_norm <= GRADIENT_TOLERANCE * first_norm.max(1.0) => {
                    return Ok(w);
                }
                None => break,
            }
        }
        Err(Error::internal(format!(
            "the scorer's fit stopped at a gradient of norm {:.3e} (it began at {first_norm:.3e}); \
             are the features' scales far apart?",
            state.gradient_norm
        )))
    }

    /// The longest of the steps 1, ½, ¼, … that goes down enough.
    fn search(&self, w: &[f64], direction: &[f64], state: &State) -> Option<(Vec<f64>, State)> {
        let slope = dot(&state.gradient, direction);
        let mut length = 1.0;
        for _ in 0..60 {
            let next_w: Vec<f64> = w
                .iter()
                .zip(direction)
                .map(|(w, d)| w + length * d)
                .collect();
            let next = self.at(&next_w);
            // Near the optimum the values differ by less than their rounding: there a shorter
            // gradient decides.
            let goes_down = next.value <= state.value + 1e-4 * length * slope
                || (next.value <= state.value + 1e-12 * state.value.abs()
                    && next.gradient_norm < 0.9 * state.gradient_norm);
            if goes_down && next.gradient_norm.is_finite() {
                return Some((next_w, next));
            }
            length *= 0.5;
        }
        None
    }

    /// −H⁻¹g with H = Xᵀ D X + diag(penalty), `[width, width]`.
    fn primal_direction(&self, state: &State) -> Result<Vec<f64>> {
        let width = self.width;
        let mut h = vec![0.0; width * width];
        h.par_chunks_mut(width).enumerate().for_each(|(i, out)| {
            for (x, d) in self.rows().zip(&state.curvature) {
                let s = d * x[i];
                for (out, x) in out.iter_mut().zip(&x[..=i]) {
                    *out += s * x;
                }
            }
            out[i] += self.penalty(i);
        });
        let mut direction = state.gradient.clone();
        factor(h, width)?.solve(&mut direction);
        direction.iter_mut().for_each(|d| *d = -*d);
        Ok(direction)
    }

    /// The same through an n × n system, M = I/C + D^½ K D^½ with K = X Xᵀ, T = (D K + I/C)⁻¹ and
    /// H⁻¹ Xᵀ = Xᵀ T; a free intercept is eliminated by its Schur complement.
    fn dual_direction(&self, gram: &[f64], w: &[f64], state: &State) -> Result<Vec<f64>> {
        let n = self.labels.len();
        let columns = self.width - usize::from(!self.penalize_intercept);
        let root: Vec<f64> = state.curvature.iter().map(|d| d.sqrt()).collect();
        // I/C + D^½ K D^½
        let mut m = vec![0.0; n * n];
        for (i, (row, out)) in gram.chunks_exact(n).zip(m.chunks_exact_mut(n)).enumerate() {
            for ((out, k), r) in out.iter_mut().zip(row).zip(&root) {
                *out = root[i] * k * r;
            }
            out[i] += 1.0 / self.c;
        }
        let m = factor(m, n)?;
        let times_gram =
            |v: &[f64]| -> Vec<f64> { gram.chunks_exact(n).map(|row| dot(row, v)).collect() };
        let xw: Vec<f64> = self
            .rows()
            .map(|x| dot(&x[..columns], &w[..columns]))
            .collect();
        // With T v = C (v − D^½ M⁻¹ D^½ K v), which divides by no curvature, and Woodbury for w:
        // H⁻¹ g = H⁻¹ (Xᵀ r + w/C) = w + Xᵀ (C r − D^½ M⁻¹ D^½ (C K r + X w)).
        // w itself stays the only state, so that no a can drift away from it.
        let mut s: Vec<f64> = times_gram(&state.residual)
            .iter()
            .zip(xw.iter().zip(&root))
            .map(|(k, (x, r))| r * (self.c * k + x))
            .collect();
        m.solve(&mut s);
        let a: Vec<f64> = state
            .residual
            .iter()
            .zip(s.iter().zip(&root))
            .map(|(v, (s, r))| self.c * v - r * s)
            .collect();
        let mut direction = vec![0.0; self.width];
        let mut add = |scale: f64, a: &[f64], base: f64| {
            for (d, w) in direction.iter_mut().zip(&w[..columns]) {
                *d += base * w;
            }
            for (x, a) in self.rows().zip(a) {
                for (d, x) in direction.iter_mut().zip(&x[..columns]) {
                    *d += scale * a * x;
                }
            }
        };
        add(-1.0, &a, -1.0);
        if !self.penalize_intercept {
            let d = &state.curvature;
            // T d = T D 1 = D^½ M⁻¹ D^½ 1
            let mut s = root.clone();
            m.solve(&mut s);
            let t_d: Vec<f64> = s.iter().zip(&root).map(|(s, r)| r * s).collect();
            // H⁻¹ g over the weights, seen by the samples: X w + K a.
            let seen: Vec<f64> = times_gram(&a).iter().zip(&xw).map(|(k, x)| k + x).collect();
            let g_b = state.gradient.last().copied().unwrap_or_default();
            // Σd − dᵀ K T d = 1ᵀ T d / C
            let schur = t_d.iter().sum::<f64>() / self.c;
            if !(schur.is_finite() && schur > 0.0) {
                return Err(Error::internal(
                    "the scorer's fit cannot place a free intercept: every sample is saturated; \
                     penalise the intercept or use a smaller C",
                ));
            }
            let step = (dot(d, &seen) - g_b) / schur;
            add(-step, &t_d, 0.0);
            if let Some(last) = direction.last_mut() {
                *last = step;
            }
        }
        Ok(direction)
    }
}

fn factor(matrix: Vec<f64>, n: usize) -> Result<Cholesky> {
    Cholesky::new(matrix, n).ok_or_else(|| {
        Error::internal(
            "the scorer's fit met a matrix that is not positive definite: the features are too \
             large for f64",
        )
    })
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests;
