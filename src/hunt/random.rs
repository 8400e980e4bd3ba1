//! Heads drawn at random, to compare the hunted ones with.

use rand::{SeedableRng, seq::index};
use rand_chacha::ChaCha8Rng;

use crate::{
    error::{Error, Result},
    head::HeadId,
};

/// `k` different heads of `layers` × `heads`, each as likely as any other; the same for the same seed.
///
/// `InvalidArgument` for more heads than there are.
pub fn random_heads(layers: usize, heads: usize, k: usize, seed: u64) -> Result<Vec<HeadId>> {
    let all = layers * heads;
    if k > all {
        return Err(Error::invalid(format!(
            "{k} random heads of a model that has {all}"
        )));
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    Ok(index::sample(&mut rng, all, k)
        .into_iter()
        .map(|at| HeadId {
            layer: at / heads,
            head: at % heads,
        })
        .collect())
}

/// Mean and standard deviation (ddof 1; 0 for one value) of at least one value.
pub fn mean_and_deviation(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    if values.len() < 2 {
        return (mean, 0.0);
    }
    let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
    (mean, (squares / (n - 1.0)).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_different_exist_and_follow_the_seed() {
        let heads = random_heads(4, 6, 24, 1).unwrap();
        let mut sorted = heads.clone();
        sorted.sort();
        sorted.dedup();
        assert_eq!(sorted.len(), 24);
        assert!(heads.iter().all(|h| h.layer < 4 && h.head < 6));
        assert_eq!(
            random_heads(4, 6, 5, 2).unwrap(),
            random_heads(4, 6, 5, 2).unwrap()
        );
        assert_ne!(
            random_heads(4, 6, 5, 2).unwrap(),
            random_heads(4, 6, 5, 3).unwrap()
        );
        assert!(random_heads(4, 6, 25, 1).is_err());
    }

    #[test]
    fn mean_and_deviation_by_hand() {
        assert_eq!(mean_and_deviation(&[1.0, 3.0]), (2.0, 2.0_f64.sqrt()));
        assert_eq!(mean_and_deviation(&[5.0]), (5.0, 0.0));
    }
}
