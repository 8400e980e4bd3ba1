//! Features at one scale: mean 0 and deviation 1 over the samples that a fit is made on.

/// Mean and scale of each feature.
#[derive(Clone, Debug, PartialEq)]
pub struct Standard {
    mean: Vec<f64>,
    /// 1 / deviation (ddof 0); 0 for a feature that does not vary.
    scale: Vec<f64>,
}

impl Standard {
    /// Of rows of one length.
    pub fn fit(rows: &[&[f32]]) -> Standard {
        let n = rows.len() as f64;
        let mut mean = vec![0.0; rows.first().map_or(0, |row| row.len())];
        for row in rows {
            for (mean, v) in mean.iter_mut().zip(*row) {
                *mean += f64::from(*v) / n;
            }
        }
        let mut variance = vec![0.0; mean.len()];
        for row in rows {
            for ((variance, v), mean) in variance.iter_mut().zip(*row).zip(&mean) {
                *variance += (f64::from(*v) - mean).powi(2) / n;
            }
        }
        // As scikit-learn's StandardScaler: what a sum's rounding can make of a constant is none.
        let rounding = |v: f64, mean: f64| n * f64::EPSILON * v + (n * mean * f64::EPSILON).powi(2);
        let scale = variance
            .into_iter()
            .zip(&mean)
            .map(|(v, mean)| {
                if v > rounding(v, *mean) {
                    1.0 / v.sqrt()
                } else {
                    0.0
                }
            })
            .collect();
        Standard { mean, scale }
    }

    /// Numbers of a row.
    pub(super) fn len(&self) -> usize {
        self.mean.len()
    }

    /// A row at this scale.
    pub fn of<'a>(&'a self, row: &'a [f32]) -> impl Iterator<Item = f64> + 'a {
        row.iter()
            .zip(&self.mean)
            .zip(&self.scale)
            .map(|((v, mean), scale)| (f64::from(*v) - mean) * scale)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn centres_and_scales_and_leaves_constants_at_zero() {
        let rows: [&[f32]; 2] = [&[1.0, 5.0], &[3.0, 5.0]];
        let standard = Standard::fit(&rows);
        let at = |row| standard.of(row).collect::<Vec<f64>>();
        assert_eq!(at(rows[0]), [-1.0, 0.0]);
        assert_eq!(at(&[4.0, 9.0]), [2.0, 0.0]);
        // Their mean is not quite 0.1, so their variance is not quite 0.
        for n in [7, 10, 40, 129] {
            let rows = vec![&[0.1f32][..]; n];
            let standard = Standard::fit(&rows);
            let near = f32::from_bits(0.1f32.to_bits() + 1);
            assert_eq!(standard.of(&[near]).collect::<Vec<_>>(), [0.0], "{n}");
        }
    }
}
