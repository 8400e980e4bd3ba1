//! Decoder processes: what breaks one costs its stream an error or a gap, and nobody else anything.
#![cfg(feature = "video")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test may

#[path = "isolation/camera.rs"]
mod camera;
#[path = "isolation/liars.rs"]
mod liars;
#[allow(dead_code)] // other tests use the rest of it
#[path = "cli_job/site.rs"]
mod site;
mod video_support;

use std::{
    collections::VecDeque,
    fs,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use headhunt::{
    error::{Error, Kind, Result},
    media::{Frame, MediaEvent, MediaSource, RgbImage, SharedImage},
    model::pixels::{resize_bicubic, resize_bicubic_into},
    pipeline::{
        options::PictureOptions,
        prepare::{Preparation, PrepareOptions, Prepared, PreparedSegment},
        snapshot::SnapshotRules,
    },
    segment::SegmentRule,
    video::{
        Input, VideoLimits, open,
        worker::{ForkServer, Workers},
    },
};
use tokio_util::sync::CancellationToken;
use video_support::{Chunks, Clip, H264, Then, drain, folder};

const BINARY: &str = env!("CARGO_BIN_EXE_headhunt");
/// Longest wait for what happens at once.
const PATIENCE: Duration = Duration::from_secs(30);

/// No process.
const NONE: [u32; 0] = [];

/// A clip whose pictures are so large that they stay in the decoder's process.
fn large(frames: u64) -> PathBuf {
    let clip = Clip::h264("mp4mux").sized(1280, 720);
    clip.frames(frames).make()
}

/// Every test here starts children or looks at them, so they go one by one.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn workers() -> Workers {
    static FORKS: LazyLock<ForkServer> = LazyLock::new(ForkServer::default);
    Workers {
        program: BINARY.into(),
        forks: Some(FORKS.clone()),
        ..Workers::of_this_program()
    }
}

fn limits() -> VideoLimits {
    VideoLimits {
        workers: Some(workers()),
        spool_dir: folder().to_path_buf(),
        ..VideoLimits::default()
    }
}

/// What runs under a name.
struct Running {
    pid: u32,
    parent: u32,
    name: String,
    zombie: bool,
}

fn processes() -> Vec<Running> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            let (before, behind) = stat.rsplit_once(')').unwrap();
            let mut fields = behind.split_whitespace();
            Some(Running {
                pid,
                name: before.split_once('(').unwrap().1.to_owned(),
                zombie: fields.next() == Some("Z"),
                parent: fields.next().unwrap().parse().unwrap(),
            })
        })
        .collect()
}

fn fork_servers(of: u32, among: &[Running]) -> Vec<u32> {
    let of_it = among
        .iter()
        .filter(|p| p.parent == of && p.name == "headhunt-forks");
    of_it.map(|p| p.pid).collect()
}

/// Decoder processes of a process and of its fork servers, dead ones that nobody has waited for among them.
fn decoders(of: u32) -> Vec<u32> {
    let all = processes();
    let forks = fork_servers(of, &all);
    all.iter()
        .filter(|p| p.parent == of || forks.contains(&p.parent))
        .filter(|p| !forks.contains(&p.pid))
        .filter(|p| p.zombie || is_decoder(p.pid))
        .map(|p| p.pid)
        .collect()
}

fn is_decoder(pid: u32) -> bool {
    let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    command.windows(13).any(|piece| piece == b"decode-worker")
}

fn mine() -> Vec<u32> {
    decoders(std::process::id())
}

fn signal(name: &str, pid: u32) {
    // Rust's handler of SIGSEGV takes itself away and returns, since a true fault comes again at once.
    for _ in 0..if name == "SEGV" { 2 } else { 1 } {
        let status = Command::new("kill")
            .args(["-s", name, &pid.to_string()])
            .status()
            .unwrap();
        assert!(status.success(), "kill -s {name} {pid}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn frame(source: &mut dyn MediaSource) -> Frame {
    loop {
        if let MediaEvent::Frame(frame) = source.next_event().unwrap().unwrap() {
            return frame;
        }
    }
}

/// The error that ends a source, which may give what was on its way before.
fn end_of(source: &mut dyn MediaSource) -> Error {
    let begun = Instant::now();
    loop {
        match source.next_event() {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it ended well"),
            Err(error) => {
                assert!(begun.elapsed() < PATIENCE);
                return error;
            }
        }
    }
}

#[test]
fn a_killed_or_crashed_process_is_an_error_of_its_stream_alone() {
    let _alone = alone();
    let long = large(300);
    for (name, told) in [
        ("KILL", "signal 9 (SIGKILL)"),
        ("SEGV", "signal 11 (SIGSEGV)"),
        ("ABRT", "signal 6 (SIGABRT"),
    ] {
        let mut broken = open(
            Input::File(long.clone()),
            &limits(),
            CancellationToken::new(),
        )
        .unwrap();
        let [pid] = mine()[..] else {
            panic!("{:?}", mine());
        };
        let bytes = fs::read(Clip::h264("mpegtsmux").frames(100).make()).unwrap();
        let mut other = open(
            Input::Upload(Box::new(Chunks::new(bytes, 1000))),
            &limits(),
            CancellationToken::new(),
        )
        .unwrap();
        let kept = frame(&mut *broken);
        signal(name, pid);
        let error = end_of(&mut *broken);
        assert_eq!(error.kind(), Kind::Aborted);
        assert!(error.message().contains(told), "{error}");
        assert!(error.message().contains("frames"), "{error}");
        let gone = kept.picture.to_rgb().unwrap_err();
        assert_eq!(gone.kind(), Kind::DataLoss, "{gone}");
        assert!(gone.message().contains(told), "{gone}");
        // It stays failed.
        assert!(broken.next_event().is_err());
        assert_eq!(drain(&mut *other).unwrap().stamps.len(), 100);
        drop((kept, broken, other));
        assert_eq!(mine(), NONE, "processes stay behind");
    }
}

/// Small ones lie where the server sees them: in the memory of a process, which the next one gets cleared.
#[test]
fn small_pictures_outlive_their_process_and_are_of_no_other_stream() {
    let _alone = alone();
    for (muxer, width, height) in [
        ("mp4mux", 320, 240),
        ("matroskamux", 322, 182),
        ("mp4mux", 640, 480),
    ] {
        let clip = || Clip::h264(muxer).sized(width, height);
        let path = clip().frames(60).make();
        let decoded = |limits: &VideoLimits| {
            let mut source =
                open(Input::File(path.clone()), limits, CancellationToken::new()).unwrap();
            let mut frames = Vec::new();
            while let Some(event) = source.next_event().unwrap() {
                if let MediaEvent::Frame(frame) = event {
                    frames.push(frame.picture);
                }
            }
            frames
        };
        let here: Vec<RgbImage> = decoded(&VideoLimits::default())
            .iter()
            .map(|picture| picture.to_rgb().unwrap())
            .collect();
        let there = decoded(&limits());
        // Another one meanwhile, and one that gets what the first had.
        let second = decoded(&limits());
        assert_eq!(mine().len(), 2, "they live as long as their pictures");
        mine().iter().for_each(|pid| signal("KILL", *pid));
        for pictures in [&there, &second] {
            assert!(
                pictures.iter().all(|picture| picture.as_rows().is_some()),
                "{width}"
            );
            let pictures = pictures.iter().map(|picture| picture.to_rgb().unwrap());
            assert!(pictures.eq(here.iter().cloned()), "{width} x {height}");
        }
        drop(there);
        let third = decoded(&limits());
        for (picture, same) in second.iter().chain(&third).zip(here.iter().chain(&here)) {
            assert!(picture.to_rgb().unwrap() == *same);
        }
        drop((second, third));
        assert_eq!(mine(), NONE);
    }
    let path = large(10);
    let mut source = open(Input::File(path), &limits(), CancellationToken::new()).unwrap();
    assert!(frame(&mut *source).picture.as_rows().is_none());
}

/// Decodes a file in both places and compares each picture with itself when 20 more have been decoded, and, where they are to be
/// the `same`, with that of this process. How many there were, if it can be opened.
fn looked_at_twice(path: &Path, what: &str, shared: bool, same: bool) -> Option<u64> {
    let opened = |limits: &VideoLimits| {
        open(
            Input::File(path.to_owned()),
            limits,
            CancellationToken::new(),
        )
        .ok()
    };
    let next = |source: &mut dyn MediaSource| loop {
        match source.next_event() {
            Ok(Some(MediaEvent::Frame(frame))) => return Some(frame.picture),
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => return None,
        }
    };
    let (mut here, mut there) = (opened(&VideoLimits::default())?, opened(&limits())?);
    let (mut held, mut frames, mut ended) = (VecDeque::new(), 0, false);
    while !ended {
        let picture = next(&mut *there);
        ended = picture.is_none();
        held.extend(picture.map(|picture| {
            let first = picture.to_rgb().unwrap();
            (picture, first)
        }));
        while held.len() > if ended { 0 } else { 20 } {
            let (picture, first) = held.pop_front().unwrap();
            let second = picture.to_rgb().unwrap();
            assert!(second == first, "{what}: picture {frames} changed");
            let other = next(&mut *here).expect("it has fewer here");
            let other = !same || other.to_rgb().unwrap() == first;
            assert!(other, "{what}: picture {frames} is another here");
            assert!(
                !shared || picture.as_rows().is_some(),
                "{what} was not shared"
            );
            frames += 1;
        }
    }
    assert!(next(&mut *here).is_none(), "{what} has more here");
    Some(frames)
}

/// No decoder draws in what somebody still looks at, nor in what it has given. Of whole files pictures are those of this
/// process; what the decoder of a damaged one leaves out shows what was there before.
#[test]
fn pictures_of_every_codec_stay_as_they_were_while_more_are_decoded() {
    const FIELDS: &str = "x264enc interlaced=true key-int-max=12 ! h264parse";
    const DEEP: &str =
        "x264enc speed-preset=veryfast b-adapt=false bframes=4 b-pyramid=true ref=8 ! h264parse";
    let _alone = alone();
    let mut damaged = 0;
    for (what, encoder, muxer, shared) in [
        ("H.264", H264, "mp4mux", true),
        ("many references", DEEP, "matroskamux", true),
        ("fields", FIELDS, "mpegtsmux", true),
        (
            "H.265",
            "x265enc speed-preset=ultrafast key-int-max=12 ! h265parse",
            "mp4mux",
            true,
        ),
        (
            "MPEG-4",
            "avenc_mpeg4 bitrate=1500000 gop-size=12 max-bframes=2",
            "avimux",
            true,
        ),
        ("JPEG", "jpegenc quality=90", "avimux", false),
        (
            "VP8",
            "vp8enc deadline=1 cpu-used=8 keyframe-max-dist=12",
            "webmmux",
            false,
        ),
        (
            "VP9",
            "vp9enc deadline=1 cpu-used=8 keyframe-max-dist=12",
            "webmmux",
            false,
        ),
    ] {
        let element = encoder.split_whitespace().next().unwrap();
        if gstreamer::init().is_ok() && gstreamer::ElementFactory::find(element).is_none() {
            assert_eq!(element, "x265enc", "{element} is missing");
            continue;
        }
        let mut clip = Clip::new(encoder, muxer).sized(176, 144).frames(150);
        if what == "fields" {
            clip.caps = ",interlace-mode=interleaved";
        }
        let whole = clip.make();
        let mut broken = fs::read(&whole).unwrap();
        let length = broken.len();
        for at in (length / 4..length * 3 / 4).step_by(length / 40) {
            broken[at] ^= 0x55;
        }
        let broken_path = folder().join(format!("broken-{what}"));
        fs::write(&broken_path, broken).unwrap();
        assert_eq!(looked_at_twice(&whole, what, shared, true), Some(150));
        let left = looked_at_twice(&broken_path, what, shared, false);
        damaged += u64::from(left.is_some_and(|frames| frames < 150));
    }
    assert!(damaged > 0, "nothing was damaged");
    assert_eq!(mine(), NONE);
}

#[test]
fn a_process_that_hangs_is_stopped() {
    let _alone = alone();
    let path = large(300);
    let limits = VideoLimits {
        stall_timeout: Duration::from_millis(300),
        ..limits()
    };
    let mut source = open(Input::File(path), &limits, CancellationToken::new()).unwrap();
    let kept = frame(&mut *source);
    let [pid] = mine()[..] else {
        panic!("{:?}", mine());
    };
    signal("STOP", pid);
    let gone = kept.picture.to_rgb().unwrap_err();
    assert_eq!(gone.kind(), Kind::DataLoss, "{gone}");
    let error = end_of(&mut *source);
    assert!(error.message().contains("hung"), "{error}");
    assert_eq!(mine(), NONE, "it was not stopped");
}

#[test]
fn cancelling_and_dropping_end_a_process_at_once_even_one_that_hangs() {
    let _alone = alone();
    let bytes = fs::read(Clip::h264("matroskamux").frames(100).make()).unwrap();
    for stop in [false, true] {
        let cancel = CancellationToken::new();
        let chunks = Chunks::new(bytes.clone(), 1000).then(Then::Stall);
        let mut source = open(Input::Upload(Box::new(chunks)), &limits(), cancel.clone()).unwrap();
        frame(&mut *source);
        if stop {
            signal("STOP", mine()[0]);
        }
        let begun = Instant::now();
        cancel.cancel();
        assert_eq!(end_of(&mut *source).kind(), Kind::Cancelled);
        drop(source);
        assert!(begun.elapsed() < Duration::from_secs(5));
        assert_eq!(mine(), NONE);
    }
}

#[test]
fn a_service_manager_that_asks_every_process_to_end_ends_no_decoder() {
    let _alone = alone();
    let path = Clip::h264("mp4mux").frames(100).make();
    let one_by_one = VideoLimits {
        workers: Some(Workers {
            forks: None,
            ..workers()
        }),
        ..limits()
    };
    for limits in [limits(), one_by_one] {
        let mut source =
            open(Input::File(path.clone()), &limits, CancellationToken::new()).unwrap();
        frame(&mut *source);
        let servers = fork_servers(std::process::id(), &processes());
        for name in ["TERM", "INT", "HUP"] {
            for pid in mine().iter().chain(&servers) {
                signal(name, *pid);
            }
        }
        let mut frames = 1;
        while let Some(event) = source.next_event().unwrap() {
            frames += u64::from(matches!(event, MediaEvent::Frame(_)));
        }
        assert_eq!(frames, 100);
        drop(source);
        assert_eq!(mine(), NONE);
    }
}

#[test]
fn nobody_waits_for_a_picture_of_a_stream_that_was_cancelled() {
    let _alone = alone();
    let path = large(300);
    let cancel = CancellationToken::new();
    let mut source = open(Input::File(path), &limits(), cancel.clone()).unwrap();
    let kept = frame(&mut *source);
    signal("STOP", mine()[0]);
    let begun = Instant::now();
    let later = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(200));
        cancel.cancel();
    });
    assert_eq!(kept.picture.to_rgb().unwrap_err().kind(), Kind::Cancelled);
    assert!(begun.elapsed() < Duration::from_secs(5));
    later.join().unwrap();
    drop((kept, source));
    assert_eq!(mine(), NONE);
}

#[test]
fn a_decoder_that_needs_more_memory_than_it_may_have_fails_alone() {
    let _alone = alone();
    // Some 12 MB a frame; reference frames, and those that wait, are more than is left beside the libraries.
    let path = Clip::h264("mp4mux").sized(3840, 2160).frames(20).make();
    let tight = VideoLimits {
        workers: Some(Workers {
            memory_max_bytes: 420 << 20,
            ..workers()
        }),
        ..limits()
    };
    let failed = open(Input::File(path.clone()), &tight, CancellationToken::new())
        .and_then(|mut source| drain(&mut *source));
    match failed {
        Ok(decoded) => assert!(!decoded.gaps.is_empty(), "it had enough memory"),
        Err(error) => assert!(
            matches!(
                error.kind(),
                Kind::Aborted | Kind::InvalidArgument | Kind::DataLoss
            ),
            "{error:#}"
        ),
    }
    let mut source = open(Input::File(path), &limits(), CancellationToken::new()).unwrap();
    assert_eq!(drain(&mut *source).unwrap().stamps.len(), 20);
    drop(source);
    assert_eq!(mine(), NONE);
}

fn people_and_masks() -> PictureOptions {
    let mut pictures = PictureOptions {
        snapshots: Some(SnapshotRules::default()),
        ..PictureOptions::default()
    };
    pictures
        .mask(vec![vec![(0.1, 0.1), (0.6, 0.2), (0.3, 0.9)]])
        .unwrap();
    pictures
}

fn prepared(
    path: &Path,
    workers: Option<Workers>,
    pictures: PictureOptions,
    keep_smaller: bool,
) -> Vec<PreparedSegment> {
    let limits = VideoLimits {
        workers,
        ..limits()
    };
    let options = PrepareOptions {
        rule: SegmentRule::Frames(48),
        frames_per_segment: 16,
        image_side: 448,
        keep_smaller,
        resize: Arc::new(resize_bicubic_into),
        pictures,
    };
    let cancel = CancellationToken::new();
    let (path, own) = (path.to_owned(), cancel.clone());
    let opener = Box::new(move || open(Input::File(path), &limits, own));
    let mut preparation = Preparation::start(opener, options, cancel).unwrap();
    let mut segments = Vec::new();
    while let Some(item) = preparation.blocking_next() {
        if let Prepared::Segment(segment) = item.unwrap() {
            segments.push(segment);
        }
    }
    segments
}

#[test]
fn pixels_masks_and_snapshots_are_those_of_this_process_to_the_bit() {
    let _alone = alone();
    // The first so small that pictures come as they are, the last so large that they are reduced before it is known
    // which are sampled.
    for (width, height) in [(320, 240), (640, 480), (1280, 720), (3840, 2160)] {
        let path = Clip::h264("mp4mux").sized(width, height).frames(60).make();
        let here = prepared(&path, None, people_and_masks(), false);
        assert_eq!(here.len(), 2);
        // One picture after the other, and several at a time.
        for reducers in [1, 4] {
            let workers = Workers {
                reducers,
                ..workers()
            };
            let there = prepared(&path, Some(workers), people_and_masks(), false);
            assert_eq!(here.len(), there.len());
            for (a, b) in here.iter().zip(&there) {
                assert_eq!(a.frames, b.frames);
                assert_eq!(a.clip.frames, b.clip.frames);
                assert!(a.snapshot.is_some());
                assert_eq!(a.snapshot, b.snapshot);
            }
        }
    }
}

#[test]
fn pictures_that_the_model_resizes_are_kept_where_they_are_smaller() {
    let _alone = alone();
    let resized = |picture: &SharedImage| {
        let rgb = RgbImage {
            width: picture.width,
            height: picture.height,
            data: picture.data.to_vec(),
        };
        SharedImage::square(448, resize_bicubic(&rgb, 448).unwrap())
    };
    // The third is larger than the model's.
    for (width, height) in [(320, 240), (500, 400), (640, 480)] {
        let path = Clip::h264("mp4mux").sized(width, height).frames(60).make();
        let kept = width * height < 448 * 448;
        for workers in [None, Some(workers())] {
            for pictures in [PictureOptions::default(), people_and_masks()] {
                let square = prepared(&path, workers.clone(), pictures.clone(), false);
                let smaller = prepared(&path, workers.clone(), pictures.clone(), true);
                assert_eq!(smaller.len(), 2);
                for (a, b) in smaller.iter().zip(&square) {
                    let expected = if kept { (width, height) } else { (448, 448) };
                    assert!(a.clip.frames.iter().all(|frame| frame.size() == expected));
                    let frames: Vec<_> = a.clip.frames.iter().map(resized).collect();
                    assert_eq!(frames, b.clip.frames);
                    assert_eq!(a.snapshot, b.snapshot);
                }
            }
        }
        // A motion gate compares pictures of one size.
        let gated = PictureOptions {
            motion_gate: Some(0.02),
            ..PictureOptions::default()
        };
        let segments = prepared(&path, None, gated, true);
        let mut frames = segments.iter().flat_map(|segment| &segment.clip.frames);
        assert!(frames.all(|frame| frame.size() == (448, 448)));
    }
}

#[test]
fn a_fork_server_that_is_killed_costs_no_stream() {
    let _alone = alone();
    let path = Clip::h264("mp4mux").frames(100).make();
    // One of its own, whose end no other test sees.
    let limits = VideoLimits {
        workers: Some(Workers {
            forks: Some(ForkServer::default()),
            ..workers()
        }),
        ..limits()
    };
    let own = std::process::id();
    // As the first process of a container, it gets the children of the one that is killed.
    rustix::process::set_child_subreaper(rustix::process::Pid::from_raw(1)).unwrap();
    let before = fork_servers(own, &processes());
    let forks = || {
        let mut now = fork_servers(own, &processes());
        now.retain(|pid| !before.contains(pid));
        now
    };
    let opened = || open(Input::File(path.clone()), &limits, CancellationToken::new()).unwrap();
    let parent = |pid: u32| {
        let all = processes();
        all.iter().find(|p| p.pid == pid).unwrap().parent
    };

    let mut first = opened();
    frame(&mut *first);
    let server = match forks()[..] {
        [server] => server,
        ref other => panic!("{} fork servers", other.len()),
    };
    assert_eq!(parent(mine()[0]), server);
    signal("KILL", server);
    // What it forked goes on to the end, and what comes next needs none.
    let mut frames = 1;
    let mut second = opened();
    while let Some(event) = second.next_event().unwrap() {
        frames += u64::from(matches!(event, MediaEvent::Frame(_)));
    }
    assert_eq!(frames, 101);
    assert_eq!(parent(mine()[0]), own, "it has another parent");
    while first.next_event().unwrap().is_some() {}
    drop((first, second));
    assert_eq!(mine(), NONE);
    rustix::process::set_child_subreaper(None).unwrap();
}

#[test]
fn pictures_of_a_segment_that_died_are_a_gap_and_the_source_says_what_follows() {
    let _alone = alone();
    let path = large(300);
    let limits = limits();
    let options = PrepareOptions {
        rule: SegmentRule::Frames(48),
        frames_per_segment: 16,
        image_side: 448,
        keep_smaller: false,
        resize: Arc::new(resize_bicubic_into),
        pictures: PictureOptions::default(),
    };
    let cancel = CancellationToken::new();
    let own = cancel.clone();
    // Kills the process when it has given 60 frames.
    struct Fatal(Box<dyn MediaSource>, u64);
    impl MediaSource for Fatal {
        fn next_event(&mut self) -> Result<Option<MediaEvent>> {
            let event = self.0.next_event();
            if let Ok(Some(MediaEvent::Frame(_))) = event {
                self.1 += 1;
                if self.1 == 90 {
                    signal("KILL", mine()[0]);
                }
            }
            event
        }
    }
    let opener = Box::new(move || {
        let source = open(Input::File(path), &limits, own)?;
        Ok(Box::new(Fatal(source, 0)) as Box<dyn MediaSource>)
    });
    let mut preparation = Preparation::start(opener, options, cancel).unwrap();
    let (mut segments, mut gaps, mut error) = (0, Vec::new(), None);
    while let Some(item) = preparation.blocking_next() {
        match item {
            Ok(Prepared::Segment(_)) => segments += 1,
            Ok(Prepared::Gap(gap) | Prepared::Lost(gap)) => gaps.push(gap),
            Ok(_) => {}
            Err(e) => error = Some(e),
        }
    }
    // One segment is whole; the second, if its last frames were on their way, is a gap.
    assert_eq!(segments, 1);
    assert!(
        gaps.iter()
            .all(|gap| gap.frames_lost == 48 && gap.detail.contains("SIGKILL")),
        "{gaps:?}"
    );
    let error = error.unwrap();
    assert!(error.message().contains("SIGKILL"), "{error}");
}

/// Whether the kernel has Landlock, which is a number then.
fn kernel_confines_files() -> bool {
    // SAFETY: with these arguments it asks for a number.
    unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, 0, 0, 1) > 0 }
}

/// What `decode-worker --check` says as a user, in a folder that they may write.
fn check_as(uid: Option<u32>) -> (bool, String) {
    // Where that user may read it.
    let dir = tempfile::tempdir_in("/tmp").unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let program = dir.path().join("headhunt");
    fs::copy(BINARY, &program).unwrap();
    let registry = dir.path().join("gstreamer/registry.bin");
    let mut command = Command::new(&program);
    command
        .args(["decode-worker", "--check"])
        .env("TMPDIR", dir.path())
        .env("HOME", dir.path())
        .env("GST_REGISTRY", &registry);
    if let Some(uid) = uid {
        command.uid(uid).gid(uid);
    }
    let output = command.output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    // The list of plugins is kept for the next process.
    let kept: Vec<_> = fs::read_dir(registry.parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert_eq!(kept, [registry]);
    (
        output.status.success(),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

#[test]
fn a_process_confines_itself_with_and_without_privileges() {
    let _alone = alone();
    let root = rustix::process::geteuid().is_root();
    // Who is not root already is without privileges.
    for uid in [None, root.then_some(65534)] {
        let (confined, said) = check_as(uid);
        assert!(confined, "as {uid:?}: {said}");
        if kernel_confines_files() {
            assert_eq!(said, "confined\n", "as {uid:?}");
        }
    }
    workers().check(&limits()).unwrap();
}

#[test]
fn a_process_started_by_hand_says_so() {
    let _alone = alone();
    let output = Command::new(BINARY).arg("decode-worker").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("started by a server"), "{said}");
}
