//! Uploads to frames: any chunking, as they arrive or spooled, and everything that cuts them off.
#![cfg(feature = "video")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod video_support;

use std::{
    path::PathBuf,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use headhunt::{
    error::Kind,
    media::{Gap, GapReason, MediaEvent},
    video::{Input, VideoLimits, open},
};
use tokio_util::sync::CancellationToken;
use video_support::*;

/// Containers that are decoded as they arrive.
const STREAMED: [&str; 5] = [
    "mp4mux faststart=true",
    "mp4mux fragment-duration=400",
    "matroskamux",
    "matroskamux streamable=true",
    "mpegtsmux",
];
/// Containers that are spooled.
const SPOOLED: [&str; 2] = ["mp4mux", "avimux"];

fn bytes_of(clip: &Clip) -> Vec<u8> {
    std::fs::read(clip.make()).unwrap()
}

fn upload(chunks: Chunks) -> Input {
    Input::Upload(Box::new(chunks))
}

#[test]
fn every_chunking_gives_the_frames_of_the_file() {
    for muxer in STREAMED.into_iter().chain(SPOOLED) {
        let clip = Clip::h264(muxer);
        let path = clip.make();
        let bytes = std::fs::read(&path).unwrap();
        let of_file = decode(&path).unwrap();
        assert_whole(muxer, &of_file, clip.frames);
        for size in [1, 7, 1000, 65_536, 4 << 20] {
            let what = format!("{muxer} in chunks of {size}");
            let mut chunks = Chunks::new(bytes.clone(), size);
            chunks.hesitate = size == 1000;
            let decoded = decode_upload(chunks).unwrap_or_else(|e| panic!("{what}: {e:#}"));
            assert_whole(&what, &decoded, clip.frames);
            assert_constant_rate(&what, &decoded, 25.0, 1.1);
            assert_eq!(decoded.info, of_file.info, "{what}");
        }
    }
}

#[test]
fn frames_come_while_the_upload_goes_on() {
    // As DASH packagers and cameras write it: other boxes stand between index and first fragment.
    let aside = "mp4mux fragment-duration=400 name=aside";
    for muxer in STREAMED.into_iter().chain([aside]) {
        // Large enough that the queue in front of the demuxer cannot hold it all.
        let mut clip = Clip::h264(muxer).sized(640, 480).frames(200);
        clip.noise = true;
        clip.encoder =
            "x264enc speed-preset=ultrafast key-int-max=12 pass=quant quantizer=15 ! h264parse"
                .to_owned();
        let mut bytes = bytes_of(&clip);
        if muxer == aside {
            let first = bytes.windows(4).position(|w| w == b"moof").unwrap() - 4;
            for name in [b"uuid", b"emsg"] {
                let mut other = vec![0; 200];
                other[..4].copy_from_slice(&200u32.to_be_bytes());
                other[4..8].copy_from_slice(name);
                bytes.splice(first..first, other);
            }
        }
        let total = bytes.len();
        assert!(total > 9 << 20, "{muxer}: {total} bytes");
        let taken = Arc::new(AtomicUsize::new(0));
        let mut chunks = Chunks::new(bytes, 50_000);
        chunks.taken = Some(Arc::clone(&taken));
        let mut source = open_input(upload(chunks)).unwrap();
        while !matches!(source.next_event().unwrap(), Some(MediaEvent::Frame(_))) {}
        let at_first = taken.load(Ordering::SeqCst);
        assert!(
            at_first < total * 2 / 3,
            "{muxer}: {at_first} of {total} bytes were taken before the first frame"
        );
        // A consumer that does not ask holds the upload back, once the frames ahead of it are there.
        let mut settled = 0;
        for _ in 0..20 {
            std::thread::sleep(Duration::from_millis(500));
            let now = taken.load(Ordering::SeqCst);
            if now == settled {
                break;
            }
            settled = now;
        }
        assert!(settled < total * 3 / 4, "{muxer}: {settled} of {total}");
        std::thread::sleep(Duration::from_millis(200));
        assert_eq!(taken.load(Ordering::SeqCst), settled, "{muxer}");
    }
}

#[test]
fn a_stream_that_was_cut_out_of_another_ends_where_it_ends() {
    let mut clip = Clip::h264("mpegtsmux").frames(200);
    clip.encoder = "x264enc speed-preset=ultrafast key-int-max=25 ! h264parse".to_owned();
    let bytes = bytes_of(&clip);
    for cut in [4, 5, 6, 7] {
        let packets = bytes.len() / 188;
        let rest = bytes[packets * cut / 10 * 188..].to_vec();
        let decoded = decode_upload(Chunks::new(rest, 10_000)).unwrap();
        assert!(decoded.carried.len() > 20, "cut at {cut}");
        for (_, gap) in &decoded.gaps {
            assert!(gap.frames_lost < 50, "cut at {cut}: {gap:?}");
            assert!(gap.to.as_nanos() < 8_000_000_000, "cut at {cut}: {gap:?}");
        }
    }
}

#[test]
fn what_is_not_a_video_is_refused_by_name() {
    let says = |bytes: &[u8], size: usize| {
        let e = refusal(decode_upload(Chunks::new(bytes.to_vec(), size)));
        assert_eq!(e.kind(), Kind::InvalidArgument, "{e}");
        e.message().to_owned()
    };
    for size in [1, 100] {
        assert!(says(b"", size).contains("empty"));
        assert!(says(&b"word ".repeat(1000), size).contains("a text file"));
        assert!(says(b"\x89PNG\r\n\x1a\n", size).contains("PNG"));
    }
}

#[test]
fn a_truncated_mp4_upload_is_an_error_not_a_hang() {
    let last = bytes_of(&Clip::h264("mp4mux"));
    let e = refusal(decode_upload(Chunks::new(
        last[..last.len() / 2].to_vec(),
        999,
    )));
    assert_eq!(e.kind(), Kind::InvalidArgument);
    assert!(e.message().contains("truncated MP4"), "{e}");
    let first = bytes_of(&Clip::h264("mp4mux faststart=true"));
    let moov = first.windows(4).position(|w| w == b"moov").unwrap();
    let start = Instant::now();
    for cut in [moov + 4, moov + 100] {
        let e = refusal(decode_upload(Chunks::new(first[..cut].to_vec(), 999)));
        assert_eq!(e.kind(), Kind::InvalidArgument, "{e}");
    }
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[test]
fn an_upload_cut_in_its_media_gives_what_is_there() {
    for muxer in STREAMED {
        let whole = bytes_of(&Clip::h264(muxer));
        let cut = whole[..whole.len() * 2 / 3].to_vec();
        let decoded =
            decode_upload(Chunks::new(cut, 5000)).unwrap_or_else(|e| panic!("{muxer}: {e:#}"));
        let n = decoded.carried.len();
        assert!((10..40).contains(&n), "{muxer}: {n} frames");
        let whole_part: Vec<u64> = (0..n as u64 - 1).collect();
        assert_eq!(decoded.carried[..n - 1], whole_part, "{muxer}");
    }
}

#[test]
fn audio_alone_is_no_video() {
    for muxer in [
        "mp4mux faststart=true",
        "mp4mux",
        "matroskamux",
        "mpegtsmux",
        "avimux",
    ] {
        let path = run_pipeline(&format!(
            "audiotestsrc num-buffers=40 ! audio/x-raw,rate=44100 ! lamemp3enc ! mpegaudioparse \
             ! {muxer} ! filesink name=out"
        ));
        let start = Instant::now();
        let e = refusal(decode_upload(Chunks::new(
            std::fs::read(path).unwrap(),
            3000,
        )));
        assert_eq!(e.kind(), Kind::InvalidArgument, "{muxer}: {e}");
        assert!(e.message().contains("no video track"), "{muxer}: {e}");
        assert!(start.elapsed() < Duration::from_secs(5), "{muxer}");
    }
}

#[test]
fn damage_in_an_upload_is_a_gap() {
    for muxer in STREAMED {
        let clip = Clip::h264(muxer).frames(100);
        let mut bytes = bytes_of(&clip);
        let (from, to) = (bytes.len() * 45 / 100, bytes.len() * 55 / 100);
        bytes[from..to].fill(0);
        let decoded =
            decode_upload(Chunks::new(bytes, 5000)).unwrap_or_else(|e| panic!("{muxer}: {e:#}"));
        let gaps: &[(usize, Gap)] = &decoded.gaps;
        assert!(!gaps.is_empty(), "{muxer}: {} frames", decoded.stamps.len());
        let (at, gap) = &gaps[0];
        assert!((35..60).contains(at), "{muxer}: {gaps:?}");
        assert_eq!(gap.reason, GapReason::DecodeError, "{muxer}");
        assert!(gap.frames_lost > 0, "{muxer}: {gaps:?}");
    }
}

#[test]
fn the_sender_s_error_is_passed_on() {
    let bytes = bytes_of(&Clip::h264("matroskamux"));
    for cut in [0, 10, bytes.len() / 2] {
        let chunks = Chunks::new(bytes[..cut].to_vec(), 1000).then(Then::Fail("the client left"));
        let e = refusal(decode_upload(chunks));
        assert_eq!(e.kind(), Kind::Cancelled);
        assert_eq!(e.message(), "the client left");
    }
}

#[test]
fn a_silent_upload_ends_at_the_stall_time() {
    let short = VideoLimits {
        stall_timeout: Duration::from_millis(400),
        ..limits()
    };
    let bytes = bytes_of(&Clip::h264("matroskamux"));
    let last = bytes_of(&Clip::h264("mp4mux"));
    for part in [
        vec![],
        bytes[..20].to_vec(),
        bytes[..bytes.len() / 2].to_vec(),
        last[..last.len() / 2].to_vec(),
    ] {
        let start = Instant::now();
        let n = part.len();
        let chunks = Chunks::new(part, 1000).then(Then::Stall);
        let e = match open(upload(chunks), &short, CancellationToken::new()) {
            Err(e) => e,
            Ok(mut source) => refusal(drain(&mut *source)),
        };
        assert_eq!(e.kind(), Kind::DeadlineExceeded, "after {n} bytes: {e}");
        assert!(e.message().contains("sent nothing"), "after {n} bytes: {e}");
        assert!(start.elapsed() < Duration::from_secs(3), "after {n} bytes");
    }
}

#[test]
fn cancellation_wakes_a_waiting_source() {
    let bytes = bytes_of(&Clip::h264("matroskamux"));
    for cut in [0, bytes.len() / 2] {
        let cancel = CancellationToken::new();
        let remote = cancel.clone();
        let canceller = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(300));
            remote.cancel();
            Instant::now()
        });
        let chunks = Chunks::new(bytes[..cut].to_vec(), 1000).then(Then::Stall);
        let e = match open(upload(chunks), &limits(), cancel) {
            Err(e) => e,
            Ok(mut source) => refusal(drain(&mut *source)),
        };
        let seen = Instant::now();
        assert_eq!(e.kind(), Kind::Cancelled, "{e}");
        let cancelled = canceller.join().unwrap();
        let late = seen.duration_since(cancelled);
        // About 40 ms by design; the rest is for a busy machine.
        assert!(late < Duration::from_millis(500), "{late:?}");
    }
}

#[test]
fn the_spool_is_capped_and_leaves_nothing_behind() {
    let bytes = bytes_of(&Clip::h264("mp4mux"));
    let dir = tempfile::tempdir().unwrap();
    let mut limits = VideoLimits {
        spool_dir: dir.path().to_path_buf(),
        spool_max_bytes: bytes.len() as u64,
        ..limits()
    };
    let cancel = CancellationToken::new;
    let mut source = open(upload(Chunks::new(bytes.clone(), 1000)), &limits, cancel()).unwrap();
    assert_whole("at the limit", &drain(&mut *source).unwrap(), 40);
    limits.spool_max_bytes -= 1;
    let Err(e) = open(upload(Chunks::new(bytes, 1000)), &limits, cancel()) else {
        panic!("over the limit");
    };
    assert_eq!(e.kind(), Kind::ResourceExhausted);
    assert!(
        e.message().contains(&limits.spool_max_bytes.to_string()),
        "{e}"
    );
    // One that is decoded as it arrives is stored all the same: the limit ends it midway.
    let bytes = bytes_of(&Clip::h264("mp4mux faststart=true"));
    limits.spool_max_bytes = bytes.len() as u64 / 2;
    let mut source = open(upload(Chunks::new(bytes, 1000)), &limits, cancel()).unwrap();
    let e = refusal(drain(&mut *source));
    assert_eq!(e.kind(), Kind::ResourceExhausted, "{e}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

/// Set for the copy of this test that runs with a small file-size limit.
const LIMITED: &str = "HEADHUNT_TEST_SPOOL_UPLOAD";

#[test]
fn a_disk_that_takes_no_more_is_resource_exhausted() {
    if let Ok(path) = std::env::var(LIMITED) {
        let path = PathBuf::from(path);
        let limits = VideoLimits {
            spool_dir: path.parent().unwrap().to_path_buf(),
            ..limits()
        };
        let chunks = Chunks::new(std::fs::read(&path).unwrap(), 1000);
        let Err(e) = open(upload(chunks), &limits, CancellationToken::new()) else {
            panic!("the write did not fail");
        };
        assert_eq!(e.kind(), Kind::ResourceExhausted, "{e:#}");
        assert!(e.message().contains("no space"), "{e}");
        return;
    }
    // Any user may lower the largest file a process may write; with the signal ignored, a write
    // past it fails like one on a full disk.
    let clip = Clip::h264("mp4mux").sized(640, 480).frames(60).make();
    assert!(std::fs::metadata(&clip).unwrap().len() > 64 * 1024);
    let program = std::env::current_exe().unwrap();
    let name = concat!(
        module_path!(),
        "::a_disk_that_takes_no_more_is_resource_exhausted"
    );
    let (_, name) = name.split_once("::").unwrap();
    let output = Command::new("sh")
        .args([
            "-c",
            "trap '' XFSZ; ulimit -f 64; exec \"$0\" --exact \"$1\" --nocapture",
        ])
        .arg(&program)
        .arg(name)
        .env(LIMITED, &clip)
        .env("GST_REGISTRY_UPDATE", "no")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn dropping_a_source_midway_ends_its_threads() {
    let threads = || std::fs::read_dir("/proc/self/task").unwrap().count();
    let bytes = bytes_of(&Clip::h264("matroskamux").frames(100));
    let once = || {
        let chunks = Chunks::new(bytes.clone(), 1000).then(Then::Stall);
        let mut source = open_input(upload(chunks)).unwrap();
        for _ in 0..5 {
            source.next_event().unwrap();
        }
    };
    once();
    let before = threads();
    for _ in 0..30 {
        once();
    }
    // Other tests run beside this one; a leak would be thirty threads or more.
    assert!(
        threads() < before + 25,
        "{} threads, {before} before",
        threads()
    );
}
