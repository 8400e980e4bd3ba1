//! A linear support vector machine, to compare the scorer with.
//!
//! Minimises ½‖w̃‖² + C Σ max(0, 1 − yᵢ w̃·z̃ᵢ)², y = ±1, as scikit-learn's LinearSVC does by default:
//! squared hinge, and the intercept is the weight of an appended feature of value 1 and penalised.
//! Solved by Newton's method on the samples inside the margin, with backtracking.

use rayon::prelude::*;

use super::{
    cholesky::Cholesky,
    logistic::{FitOptions, check, sigmoid},
};
use crate::{
    error::{Error, Result},
    limits::SVM_MAX_STEPS,
};

/// Part of the first gradient's norm at which a fit has converged.
const GRADIENT_TOLERANCE: f64 = 1e-9;

/// A decision value w·z + b.
#[derive(Clone, Debug, PartialEq)]
pub struct LinearSvm {
    /// w.
    pub weights: Vec<f64>,
    /// b.
    pub intercept: f64,
}

impl LinearSvm {
    /// Fits to `rows` (n samples of d features each) with their `labels` (true: anomaly).
    ///
    /// `InvalidArgument` as for the [`Logistic`](super::logistic::Logistic) scorer; `Internal` if
    /// the optimum cannot be reached in f64.
    pub fn fit(rows: &[&[f32]], labels: &[bool], c: f64) -> Result<LinearSvm> {
        let options = FitOptions {
            c,
            penalize_intercept: true,
        };
        let width = check(rows, labels, &options)? + 1;
        let x: Vec<f64> = rows
            .iter()
            .flat_map(|row| row.iter().map(|&v| f64::from(v)).chain([1.0]))
            .collect();
        let problem = Problem {
            x: &x,
            width,
            labels,
            c,
        };
        let mut weights = problem.solve()?;
        let intercept = weights.pop().unwrap_or_default();
        Ok(LinearSvm { weights, intercept })
    }

    /// The decision value of a feature vector, above 0 for an anomaly.
    ///
    /// `InvalidArgument` for a wrong length, or where the value is not finite.
    pub fn decision(&self, z: &[f32]) -> Result<f64> {
        if z.len() != self.weights.len() {
            return Err(Error::invalid(format!(
                "the machine has {} weights, the feature vector {} numbers",
                self.weights.len(),
                z.len()
            )));
        }
        let pairs = z.iter().zip(&self.weights);
        let value = pairs.map(|(z, w)| f64::from(*z) * w).sum::<f64>() + self.intercept;
        if !value.is_finite() {
            return Err(Error::invalid("the feature vector is not finite"));
        }
        Ok(value)
    }

    /// The decision value as a number from 0 to 1 by the logistic function: no calibrated
    /// probability, but what smoothing takes, in the same order.
    ///
    /// Errors as [`decision`](Self::decision).
    pub fn squashed(&self, z: &[f32]) -> Result<f64> {
        Ok(sigmoid(self.decision(z)?))
    }
}

struct Problem<'a> {
    /// `[n, width]`, the last column is 1.
    x: &'a [f64],
    width: usize,
    labels: &'a [bool],
    c: f64,
}

struct State {
    value: f64,
    gradient: Vec<f64>,
    /// Samples inside the margin.
    active: Vec<bool>,
}

impl Problem<'_> {
    fn at(&self, w: &[f64]) -> State {
        let mut gradient = w.to_vec();
        let mut value = 0.5 * dot(w, w);
        let active = self
            .x
            .chunks_exact(self.width)
            .zip(self.labels)
            .map(|(x, &label)| {
                let y = if label { 1.0 } else { -1.0 };
                let slack = 1.0 - y * dot(x, w);
                if slack > 0.0 {
                    value += self.c * slack * slack;
                    for (g, x) in gradient.iter_mut().zip(x) {
                        *g -= 2.0 * self.c * slack * y * x;
                    }
                }
                slack > 0.0
            })
            .collect();
        State {
            value,
            gradient,
            active,
        }
    }

    fn solve(&self) -> Result<Vec<f64>> {
        let mut w = vec![0.0; self.width];
        let mut state = self.at(&w);
        let norm = |state: &State| dot(&state.gradient, &state.gradient).sqrt();
        let enough = GRADIENT_TOLERANCE * norm(&state).max(1.0);
        for _ in 0..SVM_MAX_STEPS {
            if norm(&state) <= enough {
                return Ok(w);
            }
            let direction = self.direction(&state)?;
            let slope = dot(&state.gradient, &direction);
            let mut length = 1.0;
            let next = loop {
                let next: Vec<f64> = w
                    .iter()
                    .zip(&direction)
                    .map(|(w, d)| w + length * d)
                    .collect();
                let at = self.at(&next);
                if at.value <= state.value + 1e-4 * length * slope || norm(&at) <= enough {
                    break Some((next, at));
                }
                length *= 0.5;
                if length < 1e-12 {
                    break None;
                }
            };
            match next {
                Some(next) => (w, state) = next,
                None => break,
            }
        }
        Err(Error::internal(format!(
            "the support vector machine's fit stopped at a gradient of norm {:.3e}; are the \
             features' scales far apart?",
            norm(&state)
        )))
    }

    /// −H⁻¹g with H = I + 2C Σ x xᵀ over the samples inside the margin; in the samples' space where
    /// that is smaller: (I + AᵀA)⁻¹ = I − Aᵀ (I + A Aᵀ)⁻¹ A with A the scaled samples.
    fn direction(&self, state: &State) -> Result<Vec<f64>> {
        let width = self.width;
        let scale = 2.0 * self.c;
        let rows: Vec<&[f64]> = self
            .x
            .chunks_exact(width)
            .zip(&state.active)
            .filter(|(_, active)| **active)
            .map(|(x, _)| x)
            .collect();
        let singular = || {
            Error::internal(
                "the support vector machine met a matrix that is not positive definite: the \
                 features are too large for f64",
            )
        };
        let mut direction: Vec<f64> = state.gradient.iter().map(|g| -g).collect();
        if rows.len() < width {
            let n = rows.len();
            let mut m = vec![0.0; n * n];
            m.par_chunks_mut(n.max(1)).enumerate().for_each(|(i, out)| {
                for (j, out) in out.iter_mut().enumerate().take(i + 1) {
                    *out = scale * dot(rows[i], rows[j]) + if i == j { 1.0 } else { 0.0 };
                }
            });
            let mut a: Vec<f64> = rows.iter().map(|x| dot(x, &direction)).collect();
            Cholesky::new(m, n).ok_or_else(singular)?.solve(&mut a);
            for (x, a) in rows.iter().zip(a) {
                for (d, x) in direction.iter_mut().zip(*x) {
                    *d -= scale * a * x;
                }
            }
        } else {
            let mut h = vec![0.0; width * width];
            h.par_chunks_mut(width).enumerate().for_each(|(i, out)| {
                for x in &rows {
                    let s = scale * x[i];
                    for (out, x) in out.iter_mut().zip(&x[..=i]) {
                        *out += s * x;
                    }
                }
                out[i] += 1.0;
            });
            let factor = Cholesky::new(h, width).ok_or_else(singular)?;
            factor.solve(&mut direction);
        }
        Ok(direction)
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two samples at ±a: by symmetry b = 0, and w of ½w² + 2C (1 − a w)² is 4Ca / (1 + 4Ca²).
    #[test]
    fn by_hand() {
        let (a, c) = (0.5_f64, 1.0);
        let rows: [&[f32]; 2] = [&[0.5], &[-0.5]];
        let svm = LinearSvm::fit(&rows, &[true, false], c).unwrap();
        let expected = 4.0 * c * a / (1.0 + 4.0 * c * a * a);
        assert!((svm.weights[0] - expected).abs() < 1e-12);
        assert!(svm.intercept.abs() < 1e-12);
        assert!(svm.squashed(&[2.0]).unwrap() > 0.5);
        assert!(svm.decision(&[1.0, 2.0]).is_err());
        assert!(svm.decision(&[f32::NAN]).is_err());
    }

    #[test]
    fn both_spaces_reach_an_optimum() {
        let n = 40;
        for dim in [3, 90] {
            let data: Vec<Vec<f32>> = (0..n)
                .map(|i| {
                    (0..dim)
                        .map(|j| ((i * 37 + j * 101 + i * j) % 17) as f32 / 8.0 - 1.0)
                        .collect()
                })
                .collect();
            let rows: Vec<&[f32]> = data.iter().map(Vec::as_slice).collect();
            let labels: Vec<bool> = (0..n).map(|i| i * 7 % 5 < 2).collect();
            let svm = LinearSvm::fit(&rows, &labels, 1.0).unwrap();
            // The objective grows in every direction.
            let objective = |w: &[f64], b: f64| {
                let norm = 0.5 * (dot(w, w) + b * b);
                rows.iter().zip(&labels).fold(norm, |sum, (x, &label)| {
                    let f: f64 = x.iter().zip(w).map(|(x, w)| f64::from(*x) * w).sum();
                    let y = if label { 1.0 } else { -1.0 };
                    sum + (1.0 - y * (f + b)).max(0.0).powi(2)
                })
            };
            let best = objective(&svm.weights, svm.intercept);
            for k in 0..=dim {
                for step in [-1e-4, 1e-4] {
                    let (mut w, mut b) = (svm.weights.clone(), svm.intercept);
                    match w.get_mut(k) {
                        Some(w) => *w += step,
                        None => b += step,
                    }
                    assert!(objective(&w, b) > best, "{dim} {k}");
                }
            }
        }
    }
}
