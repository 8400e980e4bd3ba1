//! One segment of 16 frames through the model: the tiny golden checkpoint (4 frames), and the true
//! 1B shape where `target/bench-1b` holds one, each in f32 and in bf16:
//!
//! ```text
//! headhunt model synthesize --preset 1b --seed 1 --layout hf --dtype bf16 --out target/bench-1b
//! ```
#![allow(clippy::unwrap_used, missing_docs)]

use std::{path::Path, time::Duration};

use criterion::{Criterion, criterion_group, criterion_main};
use headhunt::{
    engine::probe::{Clip, HeadProbe},
    head::{HeadId, HeadSelection},
    media::SharedImage,
    model::{DeviceSpec, InternVl, LoadOptions, Precision, prompt::DEFAULT_PROMPTS},
};

/// Different frames of noise, so that none is encoded for another.
fn clip(side: usize, frames: usize) -> Clip {
    let frame = |seed: usize| {
        let levels =
            (0..3 * side * side).map(|i| ((i + seed).wrapping_mul(2_654_435_761) >> 13) as u8);
        SharedImage::square(side as u32, levels.collect::<Vec<u8>>())
    };
    Clip {
        frames: (0..frames).map(frame).collect(),
    }
}

const PRECISIONS: [(&str, Precision); 2] = [("f32", Precision::F32), ("bf16", Precision::Bf16)];

fn load(dir: &Path, precision: Precision) -> InternVl {
    let options = LoadOptions {
        device: DeviceSpec::Cpu,
        precision,
        ..LoadOptions::default()
    };
    InternVl::load(dir, &options).unwrap()
}

/// The process's largest resident set so far, MB.
fn peak_mb() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|l| l.starts_with("VmHWM:"))?;
    let kb: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kb / 1024)
}

fn tiny(c: &mut Criterion) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/checkpoints/tiny/hf");
    let prompts = [DEFAULT_PROMPTS[0].to_owned()];
    for (dtype, precision) in PRECISIONS {
        let model = load(&dir, precision);
        let clips = [clip(model.info().image_side, 4)];
        c.bench_function(&format!("model/tiny {dtype}, 4 frames, all heads"), |b| {
            b.iter(|| model.probe(&clips, &prompts, &HeadSelection::All).unwrap());
        });
    }
}

fn one_billion(c: &mut Criterion) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench-1b");
    if !dir.exists() {
        eprintln!("{} does not exist; the 1B shape is left out", dir.display());
        return;
    }
    let prompts: Vec<String> = DEFAULT_PROMPTS.iter().map(|p| (*p).to_owned()).collect();
    // Five heads in the layers where the published ones lie, in proportion (18, 20, 23 of 28), and
    // five whose deepest is in layer 17 of 24.
    let heads = |places: [(usize, usize); 5]| {
        HeadSelection::Only(places.map(|(layer, head)| HeadId { layer, head }).to_vec())
    };
    let five = heads([(15, 4), (15, 13), (17, 4), (20, 2), (20, 7)]);
    let to_17 = heads([(12, 4), (12, 13), (14, 4), (17, 2), (17, 7)]);
    // bf16 first: the largest resident set only grows.
    for (dtype, precision) in PRECISIONS.into_iter().rev() {
        let model = load(&dir, precision);
        eprintln!("{dtype}: peak memory after loading: {:?} MB", peak_mb());
        let clips = [clip(model.info().image_side, 16)];
        let mut group = c.benchmark_group(format!("model/1b {dtype}, 16 frames"));
        group
            .sample_size(10)
            .warm_up_time(Duration::from_millis(1))
            .measurement_time(Duration::from_secs(60));
        for (name, heads, prompts) in [
            ("all heads, 1 prompt", &HeadSelection::All, &prompts[..1]),
            ("5 heads, 1 prompt", &five, &prompts[..1]),
            ("5 heads to layer 17, 1 prompt", &to_17, &prompts[..1]),
            ("all heads, 5 prompts", &HeadSelection::All, &prompts[..]),
        ] {
            group.bench_function(name, |b| {
                b.iter(|| model.probe(&clips, prompts, heads).unwrap());
            });
            eprintln!("{dtype}: peak memory after {name}: {:?} MB", peak_mb());
        }
        group.finish();
    }
}

criterion_group!(benches, tiny, one_billion);
criterion_main!(benches);
