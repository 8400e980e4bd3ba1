//! A small neural network, to compare the scorer with: one hidden layer of 64 ReLU units.
//!
//! Features are standardised by the training samples' mean and deviation. Weights begin as He
//! normal numbers of the seed; the mean log-loss plus α/(2n)·‖W‖² (α = 1e-4, as scikit-learn's
//! MLPClassifier has it) is descended for 300 steps of full-batch Adam with a rate of 0.01, so that a
//! fit is the same on every machine up to rounding.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::{
    logistic::{FitOptions, check, sigmoid},
    standard::Standard,
};
use crate::error::{Error, Result};

/// Units of the hidden layer.
const HIDDEN: usize = 64;
/// Steps of Adam.
const STEPS: usize = 300;
/// Its rate and moments.
const RATE: f64 = 0.01;
const BETA_1: f64 = 0.9;
const BETA_2: f64 = 0.999;
const EPSILON: f64 = 1e-8;
/// Strength of the penalty on weights.
const ALPHA: f64 = 1e-4;

/// p = σ(v · max(0, W x + b) + c) of standardised features x.
#[derive(Clone, Debug, PartialEq)]
pub struct Mlp {
    standard: Standard,
    /// W `[HIDDEN, d]`, b `[HIDDEN]`, v `[HIDDEN]`, c, one after another.
    parameters: Vec<f64>,
}

impl Mlp {
    /// Fits to `rows` (n samples of d features each) with their `labels` (true: anomaly).
    ///
    /// `InvalidArgument` as for the [`Logistic`](super::logistic::Logistic) scorer; `Internal` where
    /// the descent leaves the finite numbers.
    pub fn fit(rows: &[&[f32]], labels: &[bool], seed: u64) -> Result<Mlp> {
        let dim = check(rows, labels, &FitOptions::default())?;
        let standard = Standard::fit(rows);
        let x: Vec<f64> = rows.iter().flat_map(|row| standard.of(row)).collect();
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let (first, second) = ((2.0 / dim as f64).sqrt(), (2.0 / HIDDEN as f64).sqrt());
        let mut parameters: Vec<f64> = (0..HIDDEN * dim)
            .map(|_| first * normal(&mut rng))
            .collect();
        parameters.extend([0.0; HIDDEN]);
        parameters.extend((0..HIDDEN).map(|_| second * normal(&mut rng)));
        parameters.push(0.0);
        let (mut m, mut v) = (vec![0.0; parameters.len()], vec![0.0; parameters.len()]);
        for step in 1..=STEPS {
            let gradient = gradient(&parameters, &x, labels, dim);
            let power = step as i32;
            let (c1, c2) = (1.0 - BETA_1.powi(power), 1.0 - BETA_2.powi(power));
            for (((p, g), m), v) in parameters.iter_mut().zip(gradient).zip(&mut m).zip(&mut v) {
                *m = BETA_1 * *m + (1.0 - BETA_1) * g;
                *v = BETA_2 * *v + (1.0 - BETA_2) * g * g;
                *p -= RATE * (*m / c1) / ((*v / c2).sqrt() + EPSILON);
            }
        }
        if parameters.iter().any(|p| !p.is_finite()) {
            return Err(Error::internal("the network's fit left the finite numbers"));
        }
        Ok(Mlp {
            standard,
            parameters,
        })
    }

    /// p of a feature vector.
    ///
    /// `InvalidArgument` for a wrong length, a NaN or an infinite feature.
    pub fn probability(&self, z: &[f32]) -> Result<f64> {
        if z.len() != self.standard.len() || z.iter().any(|v| !v.is_finite()) {
            return Err(Error::invalid(format!(
                "the network takes {} finite numbers, the feature vector has {}",
                self.standard.len(),
                z.len()
            )));
        }
        let x: Vec<f64> = self.standard.of(z).collect();
        Ok(sigmoid(forward(&self.parameters, &x).1))
    }
}

/// A standard normal number (Box and Muller).
fn normal(rng: &mut ChaCha8Rng) -> f64 {
    let (u, v): (f64, f64) = (1.0 - rng.random::<f64>(), rng.random());
    (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
}

/// Outputs of the hidden units, and the network's before σ.
fn forward(parameters: &[f64], x: &[f64]) -> (Vec<f64>, f64) {
    let dim = x.len();
    let (w, rest) = parameters.split_at(HIDDEN * dim);
    let (b, rest) = rest.split_at(HIDDEN);
    let (v, c) = rest.split_at(HIDDEN);
    let hidden: Vec<f64> = w
        .chunks_exact(dim)
        .zip(b)
        .map(|(w, b)| (dot(w, x) + b).max(0.0))
        .collect();
    let out = dot(v, &hidden) + c.first().copied().unwrap_or_default();
    (hidden, out)
}

/// Gradient of the objective; the samples' parts are added in their order, whatever the threads.
fn gradient(parameters: &[f64], x: &[f64], labels: &[bool], dim: usize) -> Vec<f64> {
    let n = labels.len() as f64;
    let v = &parameters[HIDDEN * dim + HIDDEN..][..HIDDEN];
    let passes: Vec<(Vec<f64>, f64)> = x
        .par_chunks_exact(dim)
        .zip(labels)
        .map(|(x, &label)| {
            let (hidden, out) = forward(parameters, x);
            (hidden, (sigmoid(out) - f64::from(u8::from(label))) / n)
        })
        .collect();
    let mut gradient = vec![0.0; parameters.len()];
    let (w_part, rest) = gradient.split_at_mut(HIDDEN * dim);
    let (b_part, rest) = rest.split_at_mut(HIDDEN);
    let (v_part, c_part) = rest.split_at_mut(HIDDEN);
    w_part
        .par_chunks_exact_mut(dim)
        .zip(b_part)
        .zip(v_part)
        .enumerate()
        .for_each(|(unit, ((w_part, b_part), v_part))| {
            for (x, (hidden, error)) in x.chunks_exact(dim).zip(&passes) {
                let out = hidden[unit];
                *v_part += error * out;
                if out > 0.0 {
                    let back = error * v[unit];
                    *b_part += back;
                    for (g, x) in w_part.iter_mut().zip(x) {
                        *g += back * x;
                    }
                }
            }
            for (g, w) in w_part.iter_mut().zip(&parameters[unit * dim..][..dim]) {
                *g += ALPHA / n * w;
            }
            *v_part += ALPHA / n * v[unit];
        });
    for (_, error) in &passes {
        c_part[0] += error;
    }
    gradient
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Four corners of a square: no line parts them, a network does.
    fn corners() -> (Vec<[f32; 3]>, Vec<bool>) {
        let corners = [(0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0)];
        let rows: Vec<[f32; 3]> = (0..32)
            .map(|i| {
                let (a, b) = corners[i % 4];
                [a + 0.01 * (i / 4) as f32, b, 5.0]
            })
            .collect();
        let labels = (0..32).map(|i| matches!(i % 4, 1 | 2)).collect();
        (rows, labels)
    }

    #[test]
    fn parts_what_no_line_parts_and_repeats_for_a_seed() {
        let (data, labels) = corners();
        let rows: Vec<&[f32]> = data.iter().map(|r| r.as_slice()).collect();
        let mlp = Mlp::fit(&rows, &labels, 3).unwrap();
        for (row, &label) in rows.iter().zip(&labels) {
            let p = mlp.probability(row).unwrap();
            assert_eq!(p > 0.5, label, "{row:?} {p}");
        }
        assert_eq!(mlp, Mlp::fit(&rows, &labels, 3).unwrap());
        assert_ne!(mlp, Mlp::fit(&rows, &labels, 4).unwrap());
        assert!(mlp.probability(&[0.0]).is_err());
        assert!(mlp.probability(&[0.0, f32::NAN, 0.0]).is_err());
        assert!(Mlp::fit(&rows, &[true; 32], 3).is_err());
    }

    #[test]
    fn the_gradient_is_the_objectives() {
        let (data, labels) = corners();
        let rows: Vec<&[f32]> = data.iter().map(|r| r.as_slice()).collect();
        let standard = Standard::fit(&rows);
        let x: Vec<f64> = rows.iter().flat_map(|row| standard.of(row)).collect();
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let parameters: Vec<f64> = (0..HIDDEN * 5 + 1)
            .map(|_| 0.3 * normal(&mut rng))
            .collect();
        let n = labels.len() as f64;
        let objective = |parameters: &[f64]| {
            let loss: f64 = x
                .chunks_exact(3)
                .zip(&labels)
                .map(|(x, &label)| {
                    let out = forward(parameters, x).1;
                    super::super::logistic::softplus(if label { -out } else { out })
                })
                .sum();
            let weights = parameters[..HIDDEN * 3]
                .iter()
                .chain(&parameters[HIDDEN * 4..HIDDEN * 5]);
            (loss + 0.5 * ALPHA * weights.map(|w| w * w).sum::<f64>()) / n
        };
        let ours = gradient(&parameters, &x, &labels, 3);
        for at in (0..parameters.len())
            .step_by(7)
            .chain([parameters.len() - 1])
        {
            let (mut up, mut down) = (parameters.clone(), parameters.clone());
            up[at] += 1e-6;
            down[at] -= 1e-6;
            let slope = (objective(&up) - objective(&down)) / 2e-6;
            assert!(
                (slope - ours[at]).abs() < 1e-7,
                "{at}: {slope} {}",
                ours[at]
            );
        }
    }
}
