//! From metrics to expert heads: saliency per prompt, robust score over prompts, the best K.

use std::cmp::Ordering;

use crate::head::HeadId;

/// A metric whose values span less than this is constant, as for scikit-learn's MinMaxScaler.
const CONSTANT: f64 = 10.0 * f64::EPSILON;

/// Scales one metric of all heads to 0..1 in place; a constant one becomes 0.
///
/// Returns false if it was constant.
pub(super) fn min_max(values: &mut [f64]) -> bool {
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if high - low < CONSTANT {
        values.fill(0.0);
        return false;
    }
    let scale = 1.0 / (high - low);
    for v in values {
        *v = *v * scale - low * scale;
    }
    true
}

/// Mean over prompts, standard deviation over prompts (ddof 0), and mean − λ · standard deviation.
pub(super) struct Robust {
    /// Per head.
    pub mean: Vec<f64>,
    /// Per head.
    pub std: Vec<f64>,
    /// Per head.
    pub rss: Vec<f64>,
}

/// Robust saliency scores of `heads` heads from `saliency`, `[prompts][heads]`.
pub(super) fn robust(saliency: &[f64], heads: usize, lambda: f64) -> Robust {
    let prompts = (saliency.len() / heads) as f64;
    let over_prompts = |f: &dyn Fn(usize, f64) -> f64| -> Vec<f64> {
        let mut sums = vec![0.0; heads];
        for row in saliency.chunks_exact(heads) {
            for (h, (sum, &x)) in sums.iter_mut().zip(row).enumerate() {
                *sum += f(h, x);
            }
        }
        sums.iter().map(|s| s / prompts).collect()
    };
    let mean = over_prompts(&|_, x| x);
    let variance = over_prompts(&|h, x| (x - mean[h]) * (x - mean[h]));
    let std: Vec<f64> = variance.iter().map(|v| v.sqrt()).collect();
    let rss = mean.iter().zip(&std).map(|(m, s)| m - lambda * s).collect();
    Robust { mean, std, rss }
}

/// The `k` heads with the highest scores, best first; a tie goes to the lower (layer, head).
pub(super) fn top(rss: &[f64], heads_per_layer: usize, k: usize) -> Vec<HeadId> {
    let mut order: Vec<usize> = (0..rss.len()).collect();
    // A stable sort keeps equal scores in the order of their numbers.
    order.sort_by(|&a, &b| rss[b].partial_cmp(&rss[a]).unwrap_or(Ordering::Equal));
    order
        .into_iter()
        .take(k)
        .map(|i| HeadId {
            layer: i / heads_per_layer,
            head: i % heads_per_layer,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constant_metric_becomes_zero_and_others_span_the_unit_interval() {
        let mut constant = [3.5; 4];
        assert!(!min_max(&mut constant));
        assert_eq!(constant, [0.0; 4]);
        let mut values = [2.0, -2.0, 0.0];
        assert!(min_max(&mut values));
        assert_eq!(values, [1.0, 0.0, 0.5]);
    }

    #[test]
    fn instability_costs_lambda_standard_deviations_and_ties_go_to_the_lower_head() {
        // Two prompts, four heads.
        let saliency = [0.5, 0.2, 0.8, 0.5, 0.5, 0.6, 0.4, 0.5];
        let r = robust(&saliency, 4, 0.5);
        let near = |a: f64, b: f64| (a - b).abs() < 1e-15;
        assert!(near(r.mean[2], 0.6) && near(r.std[2], 0.2) && near(r.rss[2], 0.5));
        assert!(near(r.mean[1], 0.4) && near(r.std[1], 0.2) && near(r.rss[1], 0.3));
        let ids = |rss: &[f64]| -> Vec<[usize; 2]> {
            top(rss, 2, 3).into_iter().map(Into::into).collect()
        };
        assert_eq!(ids(&[0.5, 0.3, 0.5, 0.5]), [[0, 0], [1, 0], [1, 1]]);
        assert_eq!(ids(&[0.0, -0.0, 1.0, 0.5]), [[1, 0], [1, 1], [0, 0]]);
    }
}
