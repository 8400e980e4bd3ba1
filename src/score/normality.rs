//! The scorer of normal footage: how far z lies from it, as a quantile of footage that the fit had not
//! seen. p is not the probability of an anomaly: over normal footage it is uniform, and an anomaly
//! drives it towards 1.

use super::logistic::check_vector;
use crate::{
    error::{Error, Result},
    profile::NormalityParams,
};

/// A normality scorer; see [`NormalityParams`] for its arithmetic.
#[derive(Clone, Debug, PartialEq)]
pub struct Normality {
    params: NormalityParams,
}

impl Normality {
    /// Squared Mahalanobis distance of a feature vector, at least 0.
    ///
    /// `InvalidArgument` for a wrong length, a NaN or an infinite feature.
    pub fn squared_distance(&self, z: &[f32]) -> Result<f64> {
        let NormalityParams {
            mean,
            variance,
            excess,
            directions,
            ..
        } = &self.params;
        check_vector(z, mean.len())?;
        let centred: Vec<f64> = z.iter().zip(mean).map(|(z, m)| f64::from(*z) - m).collect();
        // What no direction explains is summed by itself, so that nothing large cancels.
        let mut rest = centred.clone();
        let mut along = 0.0;
        for (direction, excess) in directions.chunks_exact(mean.len().max(1)).zip(excess) {
            let part: f64 = direction.iter().zip(&centred).map(|(u, x)| u * x).sum();
            along += part * part / (1.0 + excess);
            for (rest, u) in rest.iter_mut().zip(direction) {
                *rest -= part * u;
            }
        }
        let beside: f64 = rest.iter().map(|x| x * x).sum();
        Ok((beside + along) / variance)
    }

    /// p of a feature vector.
    ///
    /// `InvalidArgument` for a wrong length, a NaN or an infinite feature.
    pub fn probability(&self, z: &[f32]) -> Result<f64> {
        let p = self.quantile(self.squared_distance(z)?);
        if p.is_nan() {
            return Err(Error::data_loss("the scorer's numbers are not finite"));
        }
        Ok(p)
    }

    /// Which part of normal footage lies no farther than this squared distance: linear between the
    /// stored quantiles, exponential beyond the last. Never falls as the distance grows.
    pub fn quantile(&self, distance: f64) -> f64 {
        let NormalityParams {
            distances,
            quantiles,
            tail_scale,
            ..
        } = &self.params;
        let above = distances.partition_point(|d| *d < distance);
        let (low, high) = match (above.checked_sub(1), distances.get(above)) {
            (Some(last), None) => {
                let beyond = (distance - distances[last]) / tail_scale;
                return 1.0 - (1.0 - quantiles[last]) * (-beyond).exp();
            }
            (below, Some(high)) => (
                below.map_or((0.0, 0.0), |i| (distances[i], quantiles[i])),
                (*high, quantiles[above]),
            ),
            (None, None) => return f64::NAN,
        };
        if distance >= high.0 {
            return high.1;
        }
        let part = (distance - low.0) / (high.0 - low.0);
        low.1 + part * (high.1 - low.1)
    }
}

impl From<&NormalityParams> for Normality {
    fn from(params: &NormalityParams) -> Self {
        Normality {
            params: params.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scorer() -> Normality {
        Normality::from(&NormalityParams {
            mean: vec![1.0, 2.0, 3.0],
            variance: 0.5,
            excess: vec![3.0],
            directions: vec![0.6, 0.8, 0.0],
            distances: vec![1.0, 2.0, 6.0],
            quantiles: vec![0.25, 0.5, 0.75],
            tail_scale: 4.0,
        })
    }

    #[test]
    fn the_distance_is_that_of_the_covariance_it_stands_for() {
        // Sigma = 0.5 (I + 3 u u^T): along u the variance is 2, across it 0.5.
        let at = |z: [f32; 3]| scorer().squared_distance(&z).unwrap();
        assert_eq!(at([1.0, 2.0, 3.0]), 0.0);
        assert!((at([1.6, 2.8, 3.0]) - 1.0 / 2.0).abs() < 1e-6);
        assert!((at([1.0, 2.0, 4.0]) - 1.0 / 0.5).abs() < 1e-12);
        assert!((at([1.8, 1.4, 3.0]) - 1.0 / 0.5).abs() < 1e-6);
    }

    #[test]
    fn p_passes_through_the_quantiles_and_never_falls() {
        let s = scorer();
        for (distance, p) in [
            (0.0, 0.0),
            (0.5, 0.125),
            (1.0, 0.25),
            (2.0, 0.5),
            (4.0, 0.625),
            (6.0, 0.75),
        ] {
            assert_eq!(s.quantile(distance), p, "{distance}");
        }
        assert!((s.quantile(10.0) - (1.0 - 0.25 * (-1.0_f64).exp())).abs() < 1e-15);
        let mut before = -1.0;
        for step in 0..4000 {
            let p = s.quantile(f64::from(step) * 0.01);
            assert!(p >= before && p <= 1.0);
            before = p;
        }
        assert_eq!(s.quantile(1e300), 1.0);
    }

    #[test]
    fn a_vector_that_does_not_fit_is_refused() {
        assert!(scorer().probability(&[1.0]).is_err());
        assert!(scorer().probability(&[1.0, f32::NAN, 0.0]).is_err());
    }
}
