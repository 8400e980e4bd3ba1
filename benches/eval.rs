//! Evaluation of UCF-Crime's test set with one score per frame: 1,111,808 numbers in a scores file of
//! 290 lines. Budget: 1 s.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{fmt::Write, hint::black_box};

use criterion::{Criterion, criterion_group, criterion_main};
use headhunt::eval::{counts::FrameCounts, evaluate, ucf_crime};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

const ANNOTATIONS: &str = include_str!(
    "../tests/golden/datasets/ucf_crime/Temporal_Anomaly_Annotation_for_Testing_Videos.txt"
);
const COUNTS: &str = include_str!("../tests/golden/datasets/ucf_crime/frame_counts.csv");

fn bench(c: &mut Criterion) {
    let counts = FrameCounts::parse(COUNTS).unwrap();
    let set = ucf_crime::parse(ANNOTATIONS, &counts).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let mut file = String::new();
    for video in set.videos() {
        let scores: Vec<f64> = (0..video.frames).map(|_| rng.random()).collect();
        let line = serde_json::json!({"video": video.name, "stride": 1, "scores": scores});
        writeln!(file, "{line}").unwrap();
    }
    let mut group = c.benchmark_group("evaluate");
    group.sample_size(10);
    group.bench_function("UCF-Crime, 1,111,808 frame scores", |b| {
        b.iter(|| evaluate(black_box(&set), file.as_bytes()).unwrap());
    });
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
