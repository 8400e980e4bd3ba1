//! Hunting at the shape of an 8B model: 28 layers of 28 heads of 128 numbers, two prompts.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use headhunt::hunt::{Features, HuntOptions, hunt};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

fn features(samples: usize) -> (Features, Vec<bool>) {
    let [prompts, layers, heads, head_dim] = [2, 28, 28, 128];
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let len = prompts * samples * layers * heads * head_dim;
    let sample_len = layers * heads * head_dim;
    let data = (0..len)
        .map(|i| {
            // Every other sample is anomalous, and some heads see it.
            let anomalous = i / sample_len % 2 == 0;
            let shift = if anomalous && i / head_dim % 5 == 0 {
                0.3
            } else {
                0.0
            };
            rng.random::<f32>() - rng.random::<f32>() + shift
        })
        .collect();
    let labels = (0..samples).map(|i| i % 2 == 0).collect();
    let features = Features {
        prompts,
        samples,
        layers,
        heads,
        head_dim,
        data,
    };
    (features, labels)
}

fn bench(c: &mut Criterion) {
    let mut group = c.benchmark_group("hunt 28x28x128, 2 prompts");
    group.sample_size(10);
    for samples in [40, 200] {
        let (features, labels) = features(samples);
        group.bench_function(format!("{samples} samples"), |b| {
            b.iter(|| {
                hunt(
                    black_box(&features),
                    &labels,
                    None,
                    &HuntOptions::default(),
                    &|_, _| (),
                )
            });
        });
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
