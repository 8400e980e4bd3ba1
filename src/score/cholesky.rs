//! Solves symmetric positive definite systems.

/// The factor L of A = L Lᵀ.
pub(super) struct Cholesky {
    /// `[n, n]` row-major; below and on the diagonal.
    l: Vec<f64>,
    n: usize,
}

impl Cholesky {
    /// Factors `matrix` (`[n, n]`, only its lower triangle is read); `None` where it is not
    /// positive definite or not finite.
    pub(super) fn new(mut matrix: Vec<f64>, n: usize) -> Option<Cholesky> {
        for i in 0..n {
            let (above, rest) = matrix.split_at_mut(i * n);
            let row = &mut rest[..n];
            for j in 0..i {
                let other = &above[j * n..j * n + n];
                let sum = row[j] - dot(&row[..j], &other[..j]);
                row[j] = sum / other[j];
            }
            let pivot = row[i] - dot(&row[..i], &row[..i]);
            // Also refuses NaN.
            if !(pivot > 0.0 && pivot.is_finite()) {
                return None;
            }
            row[i] = pivot.sqrt();
        }
        Some(Cholesky { l: matrix, n })
    }

    /// Replaces `b` (n numbers) by A⁻¹ b.
    pub(super) fn solve(&self, b: &mut [f64]) {
        let n = self.n;
        for i in 0..n {
            let row = &self.l[i * n..i * n + n];
            b[i] = (b[i] - dot(&row[..i], &b[..i])) / row[i];
        }
        for i in (0..n).rev() {
            let row = &self.l[i * n..i * n + n];
            let v = b[i] / row[i];
            b[i] = v;
            for (b, l) in b[..i].iter_mut().zip(&row[..i]) {
                *b -= v * l;
            }
        }
    }
}

/// Four sums at once: the additions do not wait for one another.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let mut sums = [0.0; 4];
    let (a4, b4) = (a.chunks_exact(4), b.chunks_exact(4));
    let tail: f64 = a4
        .remainder()
        .iter()
        .zip(b4.remainder())
        .map(|(a, b)| a * b)
        .sum();
    for (a, b) in a4.zip(b4) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    tail + sums.iter().sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn solves_and_refuses() {
        // A = B Bᵀ + I for a fixed B.
        let n = 7;
        let b: Vec<f64> = (0..n * n)
            .map(|i| ((i * 37 + 11) % 17) as f64 - 8.0)
            .collect();
        let mut a = vec![0.0; n * n];
        for i in 0..n {
            for j in 0..n {
                a[i * n + j] = dot(&b[i * n..i * n + n], &b[j * n..j * n + n]);
            }
            a[i * n + i] += 1.0;
        }
        let x: Vec<f64> = (0..n).map(|i| i as f64 - 2.5).collect();
        let mut rhs: Vec<f64> = (0..n).map(|i| dot(&a[i * n..i * n + n], &x)).collect();
        Cholesky::new(a, n).unwrap().solve(&mut rhs);
        for (got, want) in rhs.iter().zip(&x) {
            assert!((got - want).abs() < 1e-9, "{got} {want}");
        }
        assert!(Cholesky::new(vec![1.0, 2.0, 2.0, 1.0], 2).is_none());
        assert!(Cholesky::new(vec![f64::NAN], 1).is_none());
    }
}
