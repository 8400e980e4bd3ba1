use super::*;
use rand::Rng;

/// Six heads of 8 numbers under two prompts, 8 videos of 10 samples. Head 3 keeps to two directions,
/// the same under both prompts; head 1 too, but others under the second prompt and with another
/// arrangement of samples; the others are noise.
fn set() -> (Features, Vec<usize>) {
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let mut noise = move || rng.random::<f64>() - rng.random::<f64>();
    let factors: Vec<f64> = (0..80 * 6).map(|_| 3.0 * noise()).collect();
    let mut data = Vec::new();
    for prompt in 0..2 {
        for sample in 0..80 {
            for head in 0..6 {
                for j in 0..8 {
                    let factor = |which: usize| factors[sample * 6 + which];
                    let along = match head {
                        3 if j < 2 => factor(j),
                        1 if prompt == 0 && j < 2 => factor(2 + j),
                        1 if prompt == 1 && j >= 6 => factor(j - 2),
                        _ => 0.0,
                    };
                    data.push((0.3 * noise() + along) as f32);
                }
            }
        }
    }
    let features = Features {
        prompts: 2,
        samples: 80,
        layers: 2,
        heads: 3,
        head_dim: 8,
        data,
    };
    (features, (0..80).map(|i| i / 10).collect())
}

fn options() -> HuntOptions {
    HuntOptions {
        top_k: 2,
        lambda: 0.5,
    }
}

#[test]
fn a_steady_head_of_few_directions_is_first() {
    let (features, groups) = set();
    let rows: Vec<usize> = (0..80).collect();
    let found = rank_heads(
        &features,
        &rows,
        &groups,
        &options(),
        0,
        &|| false,
        &|_, _| (),
    )
    .unwrap();
    assert_eq!(found.expert_heads[0], HeadId { layer: 1, head: 0 });
    assert!(
        found.steadiness[3] > 0.9 && found.steadiness[1] < 0.4,
        "{:?}",
        found.steadiness
    );
    assert!(
        found.structure[3] > 0.3 && found.structure[1] > 0.3,
        "{:?}",
        found.structure
    );
    assert!(found.structure[0].abs() < 0.1, "{:?}", found.structure);
    // Steadiness is the same seen from either prompt where there are two.
    assert_eq!(found.steadiness[..6], found.steadiness[6..]);
}

#[test]
fn the_rv_coefficient_is_that_of_the_definition() {
    let (features, groups) = set();
    let rows: Vec<usize> = (0..80).step_by(3).collect();
    let found = rank_heads(
        &features,
        &rows,
        &groups,
        &options(),
        0,
        &|| false,
        &|_, _| (),
    )
    .unwrap();
    let gram = |prompt: usize, head: usize| -> Vec<f64> {
        let at = |i: usize, j: usize| {
            f64::from(features.data[((prompt * 80 + rows[i]) * 6 + head) * 8 + j])
        };
        let n = rows.len();
        let mean: Vec<f64> = (0..8)
            .map(|j| (0..n).map(|i| at(i, j)).sum::<f64>() / n as f64)
            .collect();
        (0..n * n)
            .map(|k| {
                (0..8)
                    .map(|j| (at(k / n, j) - mean[j]) * (at(k % n, j) - mean[j]))
                    .sum()
            })
            .collect()
    };
    for head in 0..6 {
        let (a, b) = (gram(0, head), gram(1, head));
        let inner = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
        let want = inner(&a, &b) / (inner(&a, &a) * inner(&b, &b)).sqrt();
        assert!((found.steadiness[head] - want).abs() < 1e-9, "{head}");
    }
}

#[test]
fn what_cannot_be_ranked_is_refused() {
    let (mut features, groups) = set();
    let run = |features: &Features, rows: &[usize], k| {
        let options = HuntOptions {
            top_k: k,
            ..options()
        };
        rank_heads(features, rows, &groups, &options, 0, &|| false, &|_, _| ())
    };
    assert!(
        run(&features, &(0..10).collect::<Vec<_>>(), 2).is_err(),
        "one video"
    );
    assert!(run(&features, &(0..80).collect::<Vec<_>>(), 7).is_err());
    features.data[6 * 8 * 4] = f32::INFINITY;
    let error = run(&features, &(0..80).collect::<Vec<_>>(), 2).unwrap_err();
    assert!(error.message().contains("sample 4"), "{error}");
}
