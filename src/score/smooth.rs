//! Gaussian smoothing of p along a sequence of segments.

use crate::profile::Edge;

/// Taps of one side: `⌊(⌊6σ⌋ + 1) / 2⌋`, at least 1 (5 at σ = 1.5).
///
/// For σ > 0; see [`LOCATOR_SIGMA_MAX`](crate::limits::LOCATOR_SIGMA_MAX).
pub fn radius(sigma: f64) -> usize {
    // A float to integer cast saturates, and NaN becomes 0.
    (((6.0 * sigma).floor() as usize).saturating_add(1) / 2).max(1)
}

/// p′ = p ∗ G(σ) over one run, always `p.len()` values.
pub fn smooth(p: &[f64], sigma: f64, edge: Edge) -> Vec<f64> {
    let filter = Filter::new(sigma, edge);
    (0..p.len()).map(|at| filter.at(p, at)).collect()
}

/// The filter; streaming and batch smoothing sum through the same [`Filter::at`].
#[derive(Clone, Debug)]
pub(super) struct Filter {
    /// exp(−x²/2σ²) for x = 0..=radius.
    taps: Vec<f64>,
    /// Sum over both sides.
    total: f64,
    edge: Edge,
}

impl Filter {
    pub(super) fn new(sigma: f64, edge: Edge) -> Filter {
        let radius = radius(sigma);
        let taps: Vec<f64> = (0..=radius)
            .map(|x| {
                let x = x as f64 / sigma;
                (-0.5 * x * x).exp()
            })
            .collect();
        // In the order of `at`, so that p′ ≤ 1 where p ≤ 1, to the last bit.
        let total = taps
            .iter()
            .rev()
            .chain(taps.iter().skip(1))
            .fold(0.0, |sum, tap| sum + tap);
        Filter { taps, total, edge }
    }

    pub(super) fn radius(&self) -> usize {
        self.taps.len() - 1
    }

    /// p′ at `at`. Each end of `p` is either an end of the sequence or more than a radius away, so
    /// that a window into a sequence gives the same bits as the whole.
    pub(super) fn at(&self, p: &[f64], at: usize) -> f64 {
        let radius = self.radius();
        let from = at.saturating_sub(radius);
        let to = at.saturating_add(radius + 1).min(p.len());
        let (mut sum, mut inside) = (0.0, 0.0);
        for (i, p) in p.iter().enumerate().take(to).skip(from) {
            let tap = self.taps[i.abs_diff(at)];
            sum += tap * p;
            inside += tap;
        }
        match self.edge {
            Edge::Renormalize => sum / inside,
            Edge::Zero => sum / self.total,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn radius_is_the_methods() {
        let radii: Vec<usize> = [0.1, 0.3, 0.5, 1.0, 1.5, 2.25, 3.0].map(radius).to_vec();
        assert_eq!(radii, [1, 1, 2, 3, 5, 7, 9]);
    }

    #[test]
    fn a_constant_stays_constant_up_to_the_renormalised_ends() {
        for n in 0..30 {
            for p in smooth(&vec![0.7; n], 1.5, Edge::Renormalize) {
                assert!((p - 0.7).abs() < 1e-15);
            }
        }
        let zero = smooth(&[0.7; 30], 1.5, Edge::Zero);
        assert!(zero[0] < 0.5 && (zero[15] - 0.7).abs() < 1e-15);
    }
}
