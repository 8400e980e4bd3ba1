//! CPU seconds per 48-frame segment from a file to 16 pictures of 448 × 448 pixels, user and system
//! time of all threads, one part after the other: decoding alone; with the sampled frames as RGB; and
//! all of it, the way that detection prepares segments. `tools/bench/decode.py` runs it beside the
//! authors' path on the same file and checks the pixels:
//!
//! ```text
//! cargo bench --bench decode -- FILE [DUMP]
//! ```
//!
//! Prints one JSON object; without a file it says so and does nothing. With DUMP, a folder, the
//! sampled RGB frames of the first segment and their 448 × 448 pixels are written there, raw.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::{
    fs,
    hint::black_box,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use headhunt::{
    limits::{FRAMES_PER_SEGMENT, SEGMENT_FRAMES},
    media::{MediaEvent, MediaSource},
    model::pixels::{resize_bicubic, resize_bicubic_into},
    pipeline::{
        options::PictureOptions,
        prepare::{Preparation, PrepareOptions, Prepared},
    },
    segment::{SegmentRule, sample_indices},
    video::{self, Input, VideoLimits},
};
use tokio_util::sync::CancellationToken;

const SIDE: u32 = 448;

/// Of the process so far, seconds. In hundredths: a run takes several seconds.
fn cpu() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    // Behind the name, which may hold anything: utime and stime are fields 14 and 15 of all.
    let fields = stat.rsplit_once(')').unwrap().1.split_whitespace();
    let ticks: u64 = fields
        .skip(11)
        .take(2)
        .map(|n| n.parse::<u64>().unwrap())
        .sum();
    ticks as f64 / 100.0
}

/// CPU and wall seconds of `work`.
fn timed(work: impl FnOnce()) -> (f64, f64) {
    let (before, began) = (cpu(), Instant::now());
    work();
    (cpu() - before, began.elapsed().as_secs_f64())
}

fn open(file: &Path, cancel: CancellationToken) -> Box<dyn MediaSource> {
    let input = Input::File(file.to_owned());
    video::open(input, &VideoLimits::default(), cancel).unwrap()
}

/// Decodes all; gives the frames. Sampled ones become RGB where asked for, and files in `dump`.
fn decode(file: &Path, rgb: bool, dump: Option<&Path>) -> u64 {
    let sampled = sample_indices(u64::from(SEGMENT_FRAMES), FRAMES_PER_SEGMENT);
    let mut source = open(file, CancellationToken::new());
    let mut frames = 0;
    while let Some(event) = source.next_event().unwrap() {
        let MediaEvent::Frame(frame) = event else {
            continue;
        };
        let offset = frame.stamp.index % u64::from(SEGMENT_FRAMES);
        if rgb && sampled.contains(&offset) {
            let picture = black_box(frame.picture.to_rgb().unwrap());
            if let (Some(dump), true) = (dump, frame.stamp.index == offset) {
                let name = format!("{offset:02}-{}x{}.rgb", picture.width, picture.height);
                fs::write(dump.join(name), &picture.data).unwrap();
                let pixels = resize_bicubic(&picture, SIDE).unwrap();
                fs::write(dump.join(format!("{offset:02}.pixels")), pixels).unwrap();
            }
        }
        frames += 1;
    }
    frames
}

/// As detection does it; gives the segments.
fn prepare(file: &Path) -> u64 {
    let options = PrepareOptions {
        rule: SegmentRule::Frames(SEGMENT_FRAMES),
        frames_per_segment: FRAMES_PER_SEGMENT,
        image_side: SIDE as usize,
        keep_smaller: false,
        resize: Arc::new(resize_bicubic_into),
        pictures: PictureOptions::default(),
    };
    let cancel = CancellationToken::new();
    let (file, own) = (file.to_owned(), cancel.clone());
    let opener = Box::new(move || Ok(open(&file, own)));
    let mut preparation = Preparation::start(opener, options, cancel).unwrap();
    let mut segments = 0;
    while let Some(prepared) = preparation.blocking_next() {
        if let Prepared::Segment(segment) = prepared.unwrap() {
            assert_eq!(segment.clip.frames.len(), FRAMES_PER_SEGMENT);
            black_box(&segment);
            segments += 1;
        }
    }
    segments
}

fn main() {
    // cargo bench adds --bench.
    let mut args = std::env::args()
        .skip(1)
        .filter(|arg| !arg.starts_with("--"));
    let Some(file) = args.next().map(PathBuf::from) else {
        eprintln!("decode: no file given; nothing is measured");
        return;
    };
    if let Some(dump) = args.next() {
        decode(&file, true, Some(Path::new(&dump)));
    }
    // GStreamer's registry and the file's pages.
    let frames = decode(&file, false, None);
    let (alone, _) = timed(|| assert_eq!(decode(&file, false, None), frames));
    let (with_rgb, _) = timed(|| assert_eq!(decode(&file, true, None), frames));
    let mut segments = 0;
    let (all, wall) = timed(|| segments = prepare(&file));
    let n = segments as f64;
    println!(
        "{{\"frames\": {frames}, \"segments\": {segments}, \"decode\": {}, \"rgb\": {}, \
         \"resize\": {}, \"all\": {}, \"wall\": {}}}",
        alone / n,
        (with_rgb - alone) / n,
        (all - with_rgb) / n,
        all / n,
        wall / n
    );
}
