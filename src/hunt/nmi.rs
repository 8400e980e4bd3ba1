//! NMI: mutual information of clusters and classes, normalised by the arithmetic mean of their
//! entropies (natural logarithms; the base cancels).

/// In `0..=1`. `clusters` holds 0 or 1 for each sample, the `anomalous` first samples being one class.
///
/// One cluster alone tells nothing: 0.
pub(super) fn nmi(clusters: &[u8], anomalous: usize) -> f64 {
    let mut table = [[0_u32; 2]; 2];
    for (i, &cluster) in clusters.iter().enumerate() {
        table[usize::from(i >= anomalous)][usize::from(cluster != 0)] += 1;
    }
    let n = clusters.len() as f64;
    let table = table.map(|row| row.map(f64::from));
    let classes = [table[0][0] + table[0][1], table[1][0] + table[1][1]];
    let sizes = [table[0][0] + table[1][0], table[0][1] + table[1][1]];
    if sizes.contains(&0.0) || classes.contains(&0.0) {
        return 0.0;
    }
    let mut information = 0.0;
    for (row, class) in table.iter().zip(classes) {
        for (&count, size) in row.iter().zip(sizes) {
            if count > 0.0 {
                let p = count / n;
                let log_outer = -(class * size).ln() + n.ln() + n.ln();
                let term = p * (count.ln() - n.ln()) + p * log_outer;
                // An independent cell is 0, not rounding noise.
                if term.abs() >= f64::EPSILON {
                    information += term;
                }
            }
        }
    }
    if information <= 0.0 {
        return 0.0;
    }
    let entropy = |counts: [f64; 2]| -> f64 {
        -counts
            .iter()
            .map(|c| c / n * (c.ln() - n.ln()))
            .sum::<f64>()
    };
    information / (0.5 * (entropy(classes) + entropy(sizes)))
}

#[cfg(test)]
mod tests {
    use super::nmi;

    #[test]
    fn perfect_swapped_and_useless_clusters() {
        assert!((nmi(&[0, 0, 1, 1], 2) - 1.0).abs() < 1e-15);
        assert!((nmi(&[1, 1, 0, 0, 0], 2) - 1.0).abs() < 1e-15);
        assert_eq!(nmi(&[0, 1, 0, 1], 2), 0.0);
        assert_eq!(nmi(&[0, 0, 0, 0], 2), 0.0);
        // Of 3 + 5 samples one is on the wrong side; by hand from the definition.
        let h = |p: f64| -p * p.ln() - (1.0 - p) * (1.0 - p).ln();
        let mi = h(0.375) - 0.5 * h(0.75);
        let want = mi / (0.5 * (h(0.375) + h(0.5)));
        assert!((nmi(&[0, 0, 0, 0, 1, 1, 1, 1], 3) - want).abs() < 1e-14);
    }
}
