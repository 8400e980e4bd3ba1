use super::*;
use crate::error::Kind;

/// Numbers in −1..1 that repeat from run to run.
fn noise(n: usize, seed: u64) -> Vec<f64> {
    let mut state = seed;
    (0..n)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
        })
        .collect()
}

fn samples(n: usize, d: usize, shift: f64, scale: f64) -> (Vec<f32>, Vec<bool>) {
    let labels: Vec<bool> = (0..n).map(|i| i % 3 == 0).collect();
    let data = noise(n * d, 7)
        .chunks_exact(d)
        .zip(&labels)
        .flat_map(|(row, label)| {
            let shift = if *label { shift } else { 0.0 };
            row.iter().map(move |v| ((v + shift) * scale) as f32)
        })
        .collect();
    (data, labels)
}

/// The gradient's norm at a fit, from the objective's definition.
fn gradient_norm(rows: &[&[f32]], labels: &[bool], fit: &Logistic, options: &FitOptions) -> f64 {
    let mut gradient: Vec<f64> = fit.weights.iter().map(|w| w / options.c).collect();
    let mut free = if options.penalize_intercept {
        fit.intercept / options.c
    } else {
        0.0
    };
    for (row, label) in rows.iter().zip(labels) {
        let r = fit.probability(row).unwrap() - f64::from(*label);
        for (g, x) in gradient.iter_mut().zip(*row) {
            *g += r * f64::from(*x);
        }
        free += r;
    }
    gradient.push(free);
    gradient.iter().map(|g| g * g).sum::<f64>().sqrt()
}

#[test]
fn converges_whatever_the_shape_the_scale_and_the_overlap() {
    for (n, d) in [(10, 300), (40, 39), (40, 40), (41, 40), (400, 20), (2, 1)] {
        // Overlapping, separable; small, large features.
        for shift in [0.1, 3.0] {
            for scale in [1e-3, 1.0, 50.0] {
                for penalize_intercept in [true, false] {
                    for c in [0.01, 1.0, 1e4] {
                        let options = FitOptions {
                            c,
                            penalize_intercept,
                        };
                        let (data, labels) = samples(n, d, shift, scale);
                        let rows: Vec<&[f32]> = data.chunks_exact(d).collect();
                        let fit = Logistic::fit(&rows, &labels, &options).unwrap();
                        let norm = gradient_norm(&rows, &labels, &fit, &options);
                        assert!(
                            norm < 1e-7,
                            "n {n} d {d} shift {shift} scale {scale} {options:?}: {norm:e}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn solving_over_samples_and_over_weights_gives_the_same() {
    let (data, labels) = samples(60, 40, 0.3, 2.0);
    let rows: Vec<&[f32]> = data.chunks_exact(40).collect();
    for penalize_intercept in [true, false] {
        let x: Vec<f64> = rows
            .iter()
            .flat_map(|r| r.iter().map(|v| f64::from(*v)).chain([1.0]))
            .collect();
        let problem = Problem {
            x: &x,
            width: 41,
            labels: &labels,
            c: 1.0,
            penalize_intercept,
        };
        let primal = problem.solve(None).unwrap();
        let dual = problem.solve(Some(&problem.gram())).unwrap();
        for (a, b) in primal.iter().zip(&dual) {
            assert!((a - b).abs() < 1e-8, "{a} {b}");
        }
    }
}

#[test]
fn extreme_margins_give_probabilities() {
    let fit = Logistic {
        weights: vec![1e300],
        intercept: 0.0,
    };
    assert_eq!(fit.probability(&[1.0]).unwrap(), 1.0);
    assert_eq!(fit.probability(&[-1.0]).unwrap(), 0.0);
    assert!((sigmoid(-700.0) - (-700.0_f64).exp()).abs() < 1e-310);
    assert_eq!(softplus(1000.0), 1000.0);
    assert_eq!(softplus(-40.0), (-40.0_f64).exp());
}

#[test]
fn what_cannot_be_fitted_is_refused_by_row() {
    let fit = |rows: &[&[f32]], labels: &[bool]| {
        let error = Logistic::fit(rows, labels, &FitOptions::default()).unwrap_err();
        assert_eq!(error.kind(), Kind::InvalidArgument);
        error.to_string()
    };
    assert!(fit(&[], &[]).contains("no samples"));
    assert!(fit(&[&[1.0], &[2.0]], &[true]).contains("2 samples but 1 labels"));
    assert!(fit(&[&[], &[]], &[true, false]).contains("no features"));
    assert!(fit(&[&[1.0], &[2.0, 3.0]], &[true, false]).contains("sample 1 has 2"));
    assert!(fit(&[&[1.0], &[f32::NAN]], &[true, false]).contains("feature 0 of sample 1 is NaN"));
    assert!(fit(&[&[1.0], &[2.0]], &[true, true]).contains("all 2 samples are anomalous"));
    assert!(fit(&[&[1.0], &[2.0]], &[false, false]).contains("all 2 samples are normal"));
    let options = FitOptions {
        c: 0.0,
        ..FitOptions::default()
    };
    assert!(Logistic::fit(&[&[1.0], &[2.0]], &[true, false], &options).is_err());

    let fit = Logistic {
        weights: vec![1.0, 2.0],
        intercept: 0.0,
    };
    assert!(fit.probability(&[1.0]).is_err());
    assert!(
        fit.probability(&[1.0, f32::INFINITY])
            .unwrap_err()
            .to_string()
            .contains("number 1")
    );
    let broken = Logistic {
        weights: vec![f64::NAN],
        intercept: 0.0,
    };
    assert_eq!(
        broken.probability(&[1.0]).unwrap_err().kind(),
        Kind::DataLoss
    );
}
