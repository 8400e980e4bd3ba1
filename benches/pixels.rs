//! What one sampled frame costs before the model: resize and normalise, on one thread.

#![allow(clippy::unwrap_used, reason = "a benchmark stops by panicking")]
#![allow(missing_docs, reason = "criterion's macros make public items")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use headhunt::{
    media::RgbImage,
    model::pixels::{normalize_into, resize_bicubic},
};

const SIDE: u32 = 448;

fn picture(width: u32, height: u32) -> RgbImage {
    let data = (0..width * height * 3)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    RgbImage {
        width,
        height,
        data,
    }
}

fn resize(c: &mut Criterion) {
    let mut group = c.benchmark_group("resize_bicubic");
    group.throughput(Throughput::Elements(1));
    for (name, width, height) in [
        ("320x240", 320, 240),
        ("640x480", 640, 480),
        ("1280x720", 1280, 720),
        ("1920x1080", 1920, 1080),
        ("3840x2160", 3840, 2160),
        ("1080x1920", 1080, 1920),
    ] {
        let image = picture(width, height);
        group.bench_function(name, |b| {
            b.iter(|| resize_bicubic(black_box(&image), SIDE).unwrap());
        });
    }
    group.finish();
}

fn normalise(c: &mut Criterion) {
    let mut group = c.benchmark_group("normalize");
    group.throughput(Throughput::Elements(1));
    let rgb = picture(SIDE, SIDE).data;
    let mut planes = vec![0.0; rgb.len()];
    group.bench_function("448x448", |b| {
        b.iter(|| normalize_into(black_box(&rgb), &mut planes).unwrap());
    });
    group.finish();
}

criterion_group!(benches, resize, normalise);
criterion_main!(benches);
