//! What decoding in processes costs: the same file to segments of 448 × 448 pixels, in this process and
//! in decoder processes, by turns.
//!
//! ```text
//! cargo bench --bench isolation -- FILE [ROUNDS [here|apart|both [STREAMS]]]
//! ```
//!
//! Twice as many streams at once as the machine has cores, so that none of these waits; each stream after the other, until
//! every one of them has made 40 segments: starts and ends count as often as there are short files. Prints one JSON
//! object a round and one of the medians: segments a second either way, their ratio, and CPU seconds a segment of this
//! process and the decoders' together. With `here` or `apart` it does that alone, for a profiler. With one
//! stream a core (`STREAMS`) the time in which a process starts and ends and nothing else runs shows too. Without a file it says so and
//! does nothing.
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
    model::pixels::resize_bicubic_into,
    pipeline::{
        options::PictureOptions,
        prepare::{Preparation, PrepareOptions, Prepared},
    },
    segment::SegmentRule,
    video::{
        self, Input, VideoLimits,
        worker::{ForkServer, Workers},
    },
};
use tokio_util::sync::CancellationToken;

/// Of this process, its children and those that they have waited for, seconds, in hundredths.
fn cpu() -> f64 {
    let own = std::process::id();
    let ticks: u64 = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| {
            let process = entry.ok()?.path();
            process.file_name()?.to_str()?.parse::<u32>().ok()?;
            fs::read_to_string(process.join("stat")).ok()
        })
        .map(|stat| {
            let (before, fields) = stat.rsplit_once(')').unwrap();
            let pid: u32 = before.split_whitespace().next().unwrap().parse().unwrap();
            let fields: Vec<&str> = fields.split_whitespace().collect();
            let parent: u32 = fields[1].parse().unwrap();
            // utime, stime, cutime, cstime
            let ticks = fields[11..15].iter().map(|n| n.parse::<u64>().unwrap());
            if pid == own || parent == own {
                ticks.sum()
            } else {
                0
            }
        })
        .sum();
    ticks as f64 / 100.0
}

/// Segments of a file.
fn prepare(file: &Path, workers: Option<Workers>) -> u64 {
    let limits = VideoLimits {
        workers,
        ..VideoLimits::default()
    };
    let options = PrepareOptions {
        rule: SegmentRule::Frames(SEGMENT_FRAMES),
        frames_per_segment: FRAMES_PER_SEGMENT,
        image_side: 448,
        keep_smaller: false,
        resize: Arc::new(resize_bicubic_into),
        pictures: PictureOptions::default(),
    };
    let cancel = CancellationToken::new();
    let (file, own) = (file.to_owned(), cancel.clone());
    let opener = Box::new(move || video::open(Input::File(file), &limits, own));
    let mut preparation = Preparation::start(opener, options, cancel).unwrap();
    let mut segments = 0;
    while let Some(prepared) = preparation.blocking_next() {
        if let Prepared::Segment(segment) = prepared.unwrap() {
            black_box(&segment);
            segments += 1;
        }
    }
    segments
}

/// Segments that each of the streams makes at least.
const SEGMENTS: u64 = 40;

/// Segments a second and CPU seconds a segment.
fn run(file: &Path, workers: Option<&Workers>, streams: usize) -> (f64, f64) {
    let (before, began) = (cpu(), Instant::now());
    let one_after_the_other = || {
        let mut segments = 0;
        while segments < SEGMENTS {
            let more = prepare(file, workers.cloned());
            assert!(more > 0, "no segment");
            segments += more;
        }
        segments
    };
    let segments: u64 = std::thread::scope(|scope| {
        let running: Vec<_> = (0..streams)
            .map(|_| scope.spawn(one_after_the_other))
            .collect();
        running.into_iter().map(|r| r.join().unwrap()).sum()
    });
    let n = segments as f64;
    (n / began.elapsed().as_secs_f64(), (cpu() - before) / n)
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

fn main() {
    let mut args = std::env::args()
        .skip(1)
        .filter(|arg| !arg.starts_with("--"));
    let Some(file) = args.next().map(PathBuf::from) else {
        eprintln!("isolation: no file given; nothing is measured");
        return;
    };
    let rounds: usize = args.next().map_or(5, |n| n.parse().unwrap());
    let cores = std::thread::available_parallelism().unwrap().get();
    let mut streams = 2 * cores;
    let workers = Workers {
        program: env!("CARGO_BIN_EXE_headhunt").into(),
        forks: Some(ForkServer::default()),
        ..Workers::of_this_program()
    };
    let alone = args.next();
    if let Some(n) = args.next() {
        streams = n.parse().unwrap();
    }
    if let Some(alone) = alone.filter(|alone| alone != "both") {
        let workers = (alone == "apart").then_some(&workers);
        for _ in 0..rounds {
            let (segments, cpu) = run(&file, workers, streams);
            println!("{{\"per_s\": {segments:.3}, \"cpu_s\": {cpu:.4}}}");
        }
        return;
    }
    run(&file, None, 1);
    run(&file, Some(&workers), 1);
    let mut all: [Vec<f64>; 5] = Default::default();
    for _ in 0..rounds {
        let (here, here_cpu) = run(&file, None, streams);
        let (apart, apart_cpu) = run(&file, Some(&workers), streams);
        let row = [here, apart, apart / here, here_cpu, apart_cpu];
        for (kept, value) in all.iter_mut().zip(row) {
            kept.push(value);
        }
        tell(streams, row);
    }
    tell(streams, all.map(|values| median(&values)));
}

fn tell(streams: usize, [here, apart, ratio, here_cpu, apart_cpu]: [f64; 5]) {
    println!(
        "{{\"streams\": {streams}, \"in_process_per_s\": {here:.3}, \"processes_per_s\": {apart:.3}, \
         \"ratio\": {ratio:.3}, \"in_process_cpu_s\": {here_cpu:.3}, \"processes_cpu_s\": {apart_cpu:.3}}}"
    );
}
