//! Decoding with the conversion of the sampled frames (16 of 48), frames per second on one core's
//! worth of decoder; and the conversion alone.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "../tests/video_support/mod.rs"]
mod video_support;

use std::{hint::black_box, path::Path, time::Duration};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use headhunt::media::MediaEvent;
use video_support::{Clip, open_input};

/// Decodes all frames and converts every third, as segments of 48 frames sample 16.
fn decode_sampled(path: &Path) -> u64 {
    let mut source = open_input(headhunt::video::Input::File(path.to_path_buf())).unwrap();
    let mut frames = 0;
    while let Some(event) = source.next_event().unwrap() {
        if let MediaEvent::Frame(frame) = event {
            if frame.stamp.index % 3 == 1 {
                black_box(frame.picture.to_rgb().unwrap());
            }
            frames += 1;
        }
    }
    frames
}

fn first_picture(path: &Path) -> std::sync::Arc<dyn headhunt::media::Picture> {
    let mut source = open_input(headhunt::video::Input::File(path.to_path_buf())).unwrap();
    loop {
        if let Some(MediaEvent::Frame(frame)) = source.next_event().unwrap() {
            return frame.picture;
        }
    }
}

fn benches(c: &mut Criterion) {
    for (name, width, height, frames) in [
        ("320x240", 320, 240, 480),
        ("720p", 1280, 720, 200),
        ("1080p", 1920, 1080, 96),
    ] {
        let mut clip = Clip::h264("mp4mux").sized(width, height).frames(frames);
        clip.fps = 30;
        clip.encoder =
            "x264enc speed-preset=veryfast key-int-max=60 pass=quant quantizer=23 ! h264parse"
                .to_owned();
        let path = clip.make();
        let mut group = c.benchmark_group("video");
        group
            .sample_size(10)
            .measurement_time(Duration::from_secs(8))
            .throughput(Throughput::Elements(frames));
        group.bench_function(format!("decode_sampled/{name}"), |b| {
            b.iter(|| assert_eq!(decode_sampled(&path), frames));
        });
        let picture = first_picture(&path);
        group.throughput(Throughput::Elements(1));
        group.bench_function(format!("to_rgb/{name}"), |b| {
            b.iter(|| black_box(picture.to_rgb().unwrap()));
        });
        group.finish();
    }
}

criterion_group!(video, benches);
criterion_main!(video);
