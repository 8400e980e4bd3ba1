//! What people ask of a detection, on doubles: masks, the motion gate, snapshots, and which events
//! are told and when.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test may

mod doubles;

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, SystemTime},
};

use doubles::{FakeProbe, SIDE, Turnstile, eventually, profile};
use headhunt::{
    engine::{Engine, EngineConfig, EngineHandle, Lane},
    error::{Kind, Result},
    limits::RAW_PICTURES_MAX_BYTES,
    media::{
        Frame, FrameStamp, Gap, GapReason, MediaEvent, MediaInfo, MediaSource, MediaTime, Picture,
        RgbImage,
    },
    model::pixels::resize_bicubic_into,
    pipeline::{
        detect::{DetectOptions, Detection, run},
        event::{DetectEvent, SegmentScores, Stage, Summary},
        options::PictureOptions,
        prepare::{OpenSource, Preparation, PrepareOptions, Prepared, PreparedSegment},
        snapshot::{Snapshot, SnapshotRules},
    },
    profile::Profile,
    score::{alerts::AlertRules, events::EndReason},
    segment::SegmentRule,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

const FRAME: Duration = Duration::from_millis(400);
/// Frames of a segment of the double's profile; frames 1 and 3 are sampled, 3 is the middle one.
const N: usize = 4;
const SEGMENT: Duration = Duration::from_millis(1600);
/// When the first frame arrives.
const ARRIVAL: SystemTime = SystemTime::UNIX_EPOCH;

/// Pictures, or breaks between them.
#[derive(Clone)]
enum Scene {
    Shot(Arc<RgbImage>),
    Break,
    /// Nothing comes for so long.
    Pause(Duration),
}

struct Shown {
    rgb: Arc<RgbImage>,
    size: usize,
}

impl Picture for Shown {
    fn to_rgb(&self) -> Result<RgbImage> {
        Ok((*self.rgb).clone())
    }

    fn size_bytes(&self) -> usize {
        self.size
    }
}

struct Film {
    scenes: VecDeque<Scene>,
    opened: bool,
    index: u64,
    now: MediaTime,
    size: usize,
}

impl MediaSource for Film {
    fn next_event(&mut self) -> Result<Option<MediaEvent>> {
        if !self.opened {
            self.opened = true;
            return Ok(Some(MediaEvent::Opened(MediaInfo {
                declared_fps: Some(2.5),
                ..MediaInfo::default()
            })));
        }
        let mut next = self.scenes.pop_front();
        while let Some(Scene::Pause(length)) = next {
            std::thread::sleep(length);
            next = self.scenes.pop_front();
        }
        Ok(match next {
            None | Some(Scene::Pause(_)) => None,
            Some(Scene::Shot(rgb)) => {
                let stamp = FrameStamp {
                    index: self.index,
                    pts: self.now,
                    duration: FRAME,
                };
                self.index += 1;
                self.now = stamp.end();
                Some(MediaEvent::Frame(Frame {
                    stamp,
                    picture: Arc::new(Shown {
                        rgb,
                        size: self.size,
                    }),
                    received: Some(ARRIVAL + FRAME * stamp.index as u32),
                }))
            }
            Some(Scene::Break) => {
                let from = self.now;
                self.now = from.saturating_add(SEGMENT * 10);
                Some(MediaEvent::Gap(Gap {
                    from,
                    to: self.now,
                    reason: GapReason::DecodeError,
                    frames_lost: 1,
                    detail: String::new(),
                }))
            }
        })
    }
}

fn film(scenes: Vec<Scene>) -> Film {
    Film {
        scenes: scenes.into(),
        opened: false,
        index: 0,
        now: MediaTime::ZERO,
        size: 100,
    }
}

fn plain(grey: u8) -> Arc<RgbImage> {
    wide(16, 16, grey)
}

fn wide(width: u32, height: u32, grey: u8) -> Arc<RgbImage> {
    Arc::new(RgbImage {
        width,
        height,
        data: vec![grey; (width * height * 3) as usize],
    })
}

/// Speckles, which no JPEG makes small.
fn speckled(width: u32, height: u32, grey: u8) -> Arc<RgbImage> {
    let mut state = 1u32;
    let data = (0..width * height * 3)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            grey.saturating_add((state >> 26) as u8)
        })
        .collect();
    Arc::new(RgbImage {
        width,
        height,
        data,
    })
}

/// One segment of each grey.
fn segments(greys: impl IntoIterator<Item = u8>) -> Vec<Scene> {
    of_pictures(greys.into_iter().map(plain))
}

fn of_pictures(pictures: impl IntoIterator<Item = Arc<RgbImage>>) -> Vec<Scene> {
    pictures
        .into_iter()
        .flat_map(|picture| (0..N).map(move |_| Scene::Shot(picture.clone())))
        .collect()
}

struct Bench {
    _engine: Engine,
    handle: EngineHandle,
    turnstile: Arc<Turnstile>,
    log: doubles::Log,
}

async fn bench() -> Bench {
    let probe = FakeProbe::new();
    let (turnstile, log) = (probe.turnstile.clone(), probe.log.clone());
    let engine = Engine::start(Box::new(probe), EngineConfig::default()).unwrap();
    let handle = engine.handle();
    handle.ready().await.unwrap();
    log.lock().unwrap().clear();
    Bench {
        _engine: engine,
        handle,
        turnstile,
        log,
    }
}

impl Bench {
    /// First bytes of the clips that the model saw since the last call.
    fn seen(&self) -> Vec<u8> {
        std::mem::take(&mut *self.log.lock().unwrap()).concat()
    }

    async fn detect(&self, options: DetectOptions, film: Film) -> (Vec<DetectEvent>, Summary) {
        let (events, summary) = self.try_detect(profile(), options, None, film).await;
        (events, summary.unwrap())
    }

    async fn try_detect(
        &self,
        profile: Profile,
        options: DetectOptions,
        max_delay: Option<Duration>,
        film: Film,
    ) -> (Vec<DetectEvent>, Result<Summary>) {
        let (sender, mut received) = mpsc::channel(8);
        let detection = Detection {
            profile: Arc::new(profile),
            options,
            lane: Lane::Live,
            max_delay,
            follow: None,
            recorder: None,
            trace: None,
        };
        let running = tokio::spawn(run(
            Box::new(move || Ok(Box::new(film) as Box<dyn MediaSource>)),
            detection,
            self.handle.clone(),
            sender,
            CancellationToken::new(),
        ));
        let mut events = Vec::new();
        while let Some(event) = received.recv().await {
            events.push(event);
        }
        (events, running.await.unwrap())
    }
}

fn pictures(pictures: PictureOptions) -> DetectOptions {
    DetectOptions {
        pictures,
        ..DetectOptions::default()
    }
}

fn masked(polygons: &[&[(f64, f64)]]) -> PictureOptions {
    let mut options = PictureOptions::default();
    options
        .mask(polygons.iter().map(|points| points.to_vec()).collect())
        .unwrap();
    options
}

const ALL: &[(f64, f64)] = &[(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)];
const LEFT: &[(f64, f64)] = &[(0.0, 0.0), (0.5, 0.0), (0.5, 1.0), (0.0, 1.0)];

fn gate(threshold: f64) -> DetectOptions {
    pictures(PictureOptions {
        motion_gate: Some(threshold),
        ..PictureOptions::default()
    })
}

fn finals(events: &[DetectEvent]) -> Vec<&SegmentScores> {
    events
        .iter()
        .filter_map(|event| match event {
            DetectEvent::Scores(scores) if scores.stage == Stage::Final => Some(scores),
            _ => None,
        })
        .collect()
}

fn p(events: &[DetectEvent]) -> Vec<f64> {
    finals(events).iter().map(|s| s.probability).collect()
}

fn gated(events: &[DetectEvent]) -> Vec<bool> {
    finals(events).iter().map(|s| s.gated).collect()
}

// --- masks

#[tokio::test(flavor = "multi_thread")]
async fn a_mask_changes_what_the_model_sees_and_nothing_else() {
    let bench = bench().await;
    let (black, _) = bench
        .detect(DetectOptions::default(), film(segments([0; 3])))
        .await;
    let (plain, _) = bench
        .detect(DetectOptions::default(), film(segments([200; 3])))
        .await;
    bench.seen();
    let (all, _) = bench
        .detect(pictures(masked(&[ALL])), film(segments([200; 3])))
        .await;
    assert_eq!(bench.seen(), [0; 3]);
    assert_eq!(p(&all), p(&black));
    assert_ne!(p(&all), p(&plain));
    // Half of the picture: the model's first pixel is black, and p lies between.
    let (half, summary) = bench
        .detect(pictures(masked(&[LEFT])), film(segments([200; 3])))
        .await;
    assert!(bench.seen().iter().all(|first| *first < 30));
    assert!(p(&black)[0] < p(&half)[0] && p(&half)[0] < p(&plain)[0]);
    assert_eq!((summary.frames, summary.segments), (12, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn pictures_that_are_reduced_early_are_masked_too() {
    let bench = bench().await;
    let mut big = film(segments([200; 3]));
    big.size = RAW_PICTURES_MAX_BYTES / 2 + 1;
    let (events, _) = bench.detect(pictures(masked(&[ALL])), big).await;
    assert_eq!(bench.seen(), [0; 3]);
    assert_eq!(finals(&events).len(), 3);
}

// --- the motion gate

#[tokio::test(flavor = "multi_thread")]
async fn the_gate_spares_the_model_what_does_not_move_and_leaves_other_scores_alone() {
    let bench = bench().await;
    // The model would tell 60 from 61.
    let greys = [60, 61, 60, 200, 201, 60, 61];
    let (without, _) = bench
        .detect(DetectOptions::default(), film(segments(greys)))
        .await;
    assert_eq!(bench.seen(), greys);
    let (with, summary) = bench.detect(gate(0.02), film(segments(greys))).await;
    assert_eq!(bench.seen(), [60, 200, 60]);
    assert_eq!(gated(&with), [false, true, true, false, true, false, true]);
    let (with, without) = (p(&with), p(&without));
    assert_ne!(without[0], without[1]);
    let scored = |i: usize| without[i];
    assert_eq!(with, [0, 0, 0, 3, 3, 5, 5].map(scored));
    assert_eq!((summary.segments, summary.segments_gated), (7, 4));
    assert_eq!(summary.frames, 28);

    // Off, and with a threshold that the noise is over.
    let (events, summary) = bench.detect(gate(0.001), film(segments(greys))).await;
    assert_eq!(bench.seen(), greys);
    assert_eq!((p(&events), summary.segments_gated), (without, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_and_30_seconds_end_what_the_gate_skips() {
    let bench = bench().await;
    let mut scenes = segments([60; 3]);
    scenes.push(Scene::Break);
    scenes.extend(segments([60; 22]));
    let (events, summary) = bench.detect(gate(0.02), film(scenes)).await;
    let scored: Vec<usize> = gated(&events)
        .iter()
        .enumerate()
        .filter_map(|(i, gated)| (!gated).then_some(i))
        .collect();
    // 18 segments of 1.6 s are 28.8 s.
    assert_eq!(scored, [0, 3, 3 + 19]);
    assert_eq!(bench.seen().len(), 3);
    assert_eq!(summary.segments, 25);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mask_over_what_moves_keeps_the_gate_shut() {
    let bench = bench().await;
    // A clock that changes every segment, in the left half.
    let ticking = |on: bool| {
        let mut picture = (*plain(90)).clone();
        if on {
            for row in picture.data.chunks_mut(16 * 3).take(8) {
                row[..8 * 3].fill(255);
            }
        }
        Arc::new(picture)
    };
    let scenes = of_pictures((0..6).map(|i| ticking(i % 2 == 0)));
    let (events, _) = bench.detect(gate(0.02), film(scenes.clone())).await;
    assert_eq!(gated(&events), [false; 6]);
    let mut options = gate(0.02);
    options.pictures.mask(vec![LEFT.to_vec()]).unwrap();
    let (events, _) = bench.detect(options, film(scenes)).await;
    assert_eq!(gated(&events), [false, true, true, true, true, true]);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_score_to_repeat_was_dropped_there_is_a_gap_and_then_a_score() {
    let bench = bench().await;
    bench.turnstile.close();
    let turnstile = bench.turnstile.clone();
    // The first one is in the pass when the second and third come; the second waits too long, and
    // the third repeats it. The others come when that is known.
    let mut scenes = segments([10, 200, 200]);
    scenes.push(Scene::Pause(Duration::from_millis(1500)));
    scenes.extend(segments([200; 4]));
    let opener = tokio::task::spawn_blocking(move || {
        turnstile.wait_for_arrival();
        std::thread::sleep(Duration::from_millis(500));
        turnstile.open();
    });
    let (events, summary) = bench
        .try_detect(
            profile(),
            gate(0.02),
            Some(Duration::from_millis(150)),
            film(scenes),
        )
        .await;
    opener.await.unwrap();
    let summary = summary.unwrap();
    let numbers: Vec<(u64, bool)> = finals(&events)
        .iter()
        .map(|scores| (scores.segment, scores.gated))
        .collect();
    assert_eq!(
        numbers,
        [(0, false), (3, false), (4, true), (5, true), (6, true)]
    );
    assert_eq!(bench.seen(), [10, 200]);
    let p = p(&events);
    assert!(p[0] < p[1] && p[1..].iter().all(|after| *after == p[1]));
    let lost: Vec<u64> = events
        .iter()
        .filter_map(|event| match event {
            DetectEvent::Gap(gap) if gap.reason == GapReason::LoadShed => Some(gap.frames_lost),
            _ => None,
        })
        .collect();
    assert_eq!(lost, [4, 4]);
    assert_eq!((summary.segments_shed, summary.frames_shed), (2, 8));
    assert_eq!((summary.segments, summary.segments_gated), (5, 3));
}

// --- identical frames

fn prepare(film: Film, pictures: PictureOptions) -> Vec<PreparedSegment> {
    let options = PrepareOptions {
        rule: SegmentRule::Frames(N as u32),
        frames_per_segment: 2,
        image_side: SIDE,
        keep_smaller: false,
        resize: Arc::new(resize_bicubic_into),
        pictures,
    };
    let open: OpenSource = Box::new(move || Ok(Box::new(film) as Box<dyn MediaSource>));
    let mut preparation = Preparation::start(open, options, CancellationToken::new()).unwrap();
    let mut segments = Vec::new();
    while let Some(item) = preparation.blocking_next() {
        if let Prepared::Segment(segment) = item.unwrap() {
            segments.push(segment);
        }
    }
    segments
}

#[test]
fn sampled_frames_with_the_same_pixels_share_them_within_and_across_segments() {
    let segments = prepare(film(segments([60, 60, 90])), PictureOptions::default());
    let frames: Vec<_> = segments.iter().flat_map(|s| &s.clip.frames).collect();
    assert_eq!(frames.len(), 6);
    for pair in frames.windows(2) {
        assert_eq!(
            Arc::ptr_eq(&pair[0].data, &pair[1].data),
            pair[0] == pair[1]
        );
    }
    assert_eq!(*frames[3], frames[0].clone());
    assert_ne!(frames[3], frames[4]);
}

#[test]
fn segments_know_when_their_frames_arrived() {
    let at = |frame: u32| Some(ARRIVAL + FRAME * frame);
    let mut scenes = segments([60, 90]);
    scenes.truncate(6);
    scenes.push(Scene::Break);
    scenes.extend(segments([60]));
    let received: Vec<_> = prepare(film(scenes), PictureOptions::default())
        .iter()
        .map(|s| (s.received.first, s.received.last))
        .collect();
    assert_eq!(received, [(at(0), at(3)), (at(4), at(5)), (at(6), at(9))]);
}

#[test]
fn under_the_seconds_rule_too() {
    let at = |frame: u32| Some(ARRIVAL + FRAME * frame);
    let options = PrepareOptions {
        rule: SegmentRule::Seconds(1.2),
        frames_per_segment: 2,
        image_side: SIDE,
        keep_smaller: false,
        resize: Arc::new(resize_bicubic_into),
        pictures: PictureOptions::default(),
    };
    let film = film(segments([60, 60]));
    let open: OpenSource = Box::new(move || Ok(Box::new(film) as Box<dyn MediaSource>));
    let mut preparation = Preparation::start(open, options, CancellationToken::new()).unwrap();
    let mut received = Vec::new();
    while let Some(item) = preparation.blocking_next() {
        if let Prepared::Segment(s) = item.unwrap() {
            received.push((s.received.first, s.received.last));
        }
    }
    assert_eq!(received, [(at(0), at(2)), (at(3), at(5)), (at(6), at(7))]);
}

// --- snapshots

fn snapshots(max_side: u32, max_bytes: usize) -> PictureOptions {
    PictureOptions {
        snapshots: Some(SnapshotRules {
            max_side,
            max_bytes,
        }),
        ..PictureOptions::default()
    }
}

/// Width and height that a baseline JPEG says it has; panics where it is none.
fn jpeg_size(jpeg: &[u8]) -> (u32, u32) {
    assert_eq!(jpeg[..3], [0xff, 0xd8, 0xff], "no JPEG");
    assert_eq!(jpeg[jpeg.len() - 2..], [0xff, 0xd9], "no whole JPEG");
    let mut at = 2;
    loop {
        assert_eq!(jpeg[at], 0xff);
        let be = |i: usize| u32::from(u16::from_be_bytes([jpeg[at + i], jpeg[at + i + 1]]));
        if jpeg[at + 1] == 0xc0 {
            return (be(7), be(5));
        }
        at += 2 + be(2) as usize;
    }
}

fn ended(events: &[DetectEvent]) -> Vec<(EndReason, Option<Snapshot>)> {
    events
        .iter()
        .filter_map(|event| match event {
            DetectEvent::EventEnded(_, reason, snapshot) => Some((*reason, snapshot.clone())),
            _ => None,
        })
        .collect()
}

/// Dark, three bright segments of which the second is the brightest, dark.
fn event_of(width: u32, height: u32) -> Vec<Scene> {
    of_pictures([10, 10, 180, 240, 200, 10, 10, 10].map(|grey| wide(width, height, grey)))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_comes_where_asked_for_and_shows_the_peak() {
    let bench = bench().await;
    let (events, _) = bench
        .detect(DetectOptions::default(), film(event_of(64, 36)))
        .await;
    assert_eq!(ended(&events), [(EndReason::BelowThreshold, None)]);
    let (events, _) = bench
        .detect(pictures(snapshots(32, 100_000)), film(event_of(64, 36)))
        .await;
    let (_, snapshot) = ended(&events).remove(0);
    let snapshot = snapshot.unwrap();
    let finals = finals(&events);
    let peak = finals
        .iter()
        .max_by(|a, b| a.smoothed.total_cmp(&b.smoothed))
        .unwrap();
    assert_eq!(peak.segment, 3);
    assert_eq!(snapshot.frame, peak.frames[3]);
    assert_eq!(jpeg_size(&snapshot.jpeg), (32, 18));
    // It shows that frame: the same picture alone makes the same bytes.
    let alone = film(of_pictures([wide(64, 36, 240)]));
    let alone = tokio::task::spawn_blocking(|| prepare(alone, snapshots(32, 100_000)))
        .await
        .unwrap();
    assert_eq!(alone[0].snapshot.as_ref().unwrap().jpeg, snapshot.jpeg);
}

#[test]
fn a_snapshot_is_masked() {
    let options = |mut options: PictureOptions, mask: &[(f64, f64)]| {
        options.mask(vec![mask.to_vec()]).unwrap();
        options
    };
    let one = |picture: Arc<RgbImage>, options: PictureOptions| {
        let segments = prepare(film(of_pictures([picture])), options);
        segments[0].snapshot.clone().unwrap().jpeg
    };
    let bright = speckled(64, 32, 150);
    let black = one(wide(64, 32, 0), snapshots(640, 65_536));
    assert_ne!(one(bright.clone(), snapshots(640, 65_536)), black);
    assert_eq!(
        one(bright.clone(), options(snapshots(640, 65_536), ALL)),
        black
    );
    // Half of it, blackened by hand.
    let mut half = (*bright).clone();
    for row in half.data.chunks_mut(64 * 3) {
        row[..32 * 3].fill(0);
    }
    assert_eq!(
        one(bright, options(snapshots(640, 65_536), LEFT)),
        one(Arc::new(half), snapshots(640, 65_536))
    );
}

#[test]
fn a_snapshot_keeps_to_its_size_or_is_none() {
    let of = |max_side, max_bytes| {
        let scenes = of_pictures([speckled(320, 180, 100)]);
        prepare(film(scenes), snapshots(max_side, max_bytes))[0]
            .snapshot
            .clone()
            .map(|snapshot| (jpeg_size(&snapshot.jpeg), snapshot.jpeg.len()))
    };
    let (size, best) = of(640, 500_000).unwrap();
    assert_eq!(size, (320, 180), "it is not enlarged");
    let (_, smaller) = of(640, best - 1).unwrap();
    assert!(smaller < best);
    let (_, least) = of(640, best / 3).unwrap();
    assert!(least <= best / 3);
    assert_eq!(of(640, 700), None);
    assert_eq!(of(7, 500_000).unwrap().0, (7, 4));
}

#[test]
fn a_frame_that_was_reduced_early_makes_a_snapshot_of_its_own_aspect() {
    let mut scenes = of_pictures([wide(64, 32, 200)]);
    // The last frame of a whole segment is not: nothing waits any more.
    scenes.truncate(3);
    let mut big = film(scenes);
    big.size = RAW_PICTURES_MAX_BYTES + 1;
    let segments = prepare(big, snapshots(640, 65_536));
    let snapshot = segments[0].snapshot.clone().unwrap();
    // No larger than the model's picture, whose side is 2 here.
    assert_eq!(jpeg_size(&snapshot.jpeg), (2, 1));
}

// --- which events are told

fn alerts(provisional: bool, min_duration: Duration, cooldown: Duration) -> DetectOptions {
    DetectOptions {
        alerts: AlertRules {
            provisional,
            min_duration,
            cooldown,
        },
        ..DetectOptions::default()
    }
}

/// What is told of events, a word and the id each, with the segments that are final before it.
fn told(events: &[DetectEvent]) -> Vec<String> {
    let mut finals = 0;
    let mut told = Vec::new();
    for event in events {
        let (word, event) = match event {
            DetectEvent::Scores(scores) => {
                finals += usize::from(scores.stage == Stage::Final);
                continue;
            }
            DetectEvent::EventStarted(event) => ("start".to_owned(), event),
            DetectEvent::EventUpdated(event) => ("update".to_owned(), event),
            DetectEvent::EventEnded(event, reason, _) => (format!("{reason:?}"), event),
            _ => continue,
        };
        let mark = if event.provisional { "?" } else { "" };
        told.push(format!("{finals} {word} {}{mark}", event.id));
    }
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn short_events_and_those_in_the_cooldown_are_not_told() {
    let bench = bench().await;
    let mut profile = profile();
    profile.locator.sigma = 0.1;
    // One bright segment, then three, then two.
    let greys = [10, 240, 10, 10, 240, 240, 240, 10, 10, 240, 240, 10, 10];
    let run = |options| bench.try_detect(profile.clone(), options, None, film(segments(greys)));
    let (events, summary) = run(DetectOptions::default()).await;
    assert_eq!(summary.unwrap().events, 3);
    assert_eq!(
        told(&events),
        [
            "2 start 0",
            "3 BelowThreshold 0",
            "5 start 1",
            "6 update 1",
            "7 update 1",
            "8 BelowThreshold 1",
            "10 start 2",
            "11 update 2",
            "12 BelowThreshold 2",
        ]
    );
    let (events, summary) = run(alerts(false, SEGMENT * 2, Duration::ZERO)).await;
    assert_eq!(summary.unwrap().events, 2);
    assert_eq!(
        told(&events),
        [
            "6 start 0",
            "7 update 0",
            "8 BelowThreshold 0",
            "11 start 1",
            "12 BelowThreshold 1"
        ]
    );
    let (events, summary) = run(alerts(false, SEGMENT * 3, Duration::ZERO)).await;
    assert_eq!(summary.unwrap().events, 1);
    assert_eq!(told(&events), ["7 start 0", "8 BelowThreshold 0"]);
    // The first ends at 2 segments, so nothing is told before 8.
    let (events, summary) = run(alerts(false, Duration::ZERO, SEGMENT * 6)).await;
    assert_eq!(summary.unwrap().events, 2);
    assert_eq!(
        told(&events),
        [
            "2 start 0",
            "3 BelowThreshold 0",
            "10 start 1",
            "11 update 1",
            "12 BelowThreshold 1"
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provisional_event_starts_before_any_score_is_final_and_has_a_picture_either_way() {
    let bench = bench().await;
    // With σ = 0.8 two later segments make a score final, and a single bright one is smoothed away.
    let mut profile = profile();
    profile.locator.threshold = 0.6;
    let greys = [10, 10, 10, 220, 10, 10, 10, 10, 240, 240, 240, 10, 10, 10];
    let mut options = alerts(true, Duration::ZERO, Duration::ZERO);
    options.pictures = snapshots(640, 65_536);
    let (events, summary) = bench
        .try_detect(profile, options, None, film(segments(greys)))
        .await;
    let summary = summary.unwrap();
    let told = told(&events);
    assert_eq!(
        told,
        [
            "2 start 0?",
            "4 NotConfirmed 0?",
            "7 start 1?",
            "9 update 1",
            "10 update 1",
            "11 update 1",
            "12 BelowThreshold 1"
        ],
        "{:?}",
        finals(&events)
            .iter()
            .map(|s| s.smoothed)
            .collect::<Vec<_>>()
    );
    assert_eq!(summary.events, 1, "what was not confirmed was no event");
    let pictures: Vec<u64> = ended(&events)
        .into_iter()
        .map(|(_, snapshot)| snapshot.unwrap().frame.index / N as u64)
        .collect();
    assert_eq!(pictures, [3, 9]);
}

#[tokio::test(flavor = "multi_thread")]
async fn scores_say_when_their_last_frame_arrived() {
    let bench = bench().await;
    let options = DetectOptions {
        provisional: true,
        ..DetectOptions::default()
    };
    let (events, _) = bench.detect(options, film(segments([60; 3]))).await;
    let mut seen = 0;
    for event in &events {
        if let DetectEvent::Scores(scores) = event {
            let last = scores.frames.last().unwrap().index as u32;
            assert_eq!(scores.received, Some(ARRIVAL + FRAME * last));
            seen += 1;
        }
    }
    assert_eq!(seen, 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gate_that_cannot_be_is_refused() {
    let bench = bench().await;
    for threshold in [0.0, 1.5, f64::NAN] {
        let (_, summary) = bench
            .try_detect(profile(), gate(threshold), None, film(segments([60])))
            .await;
        assert_eq!(summary.unwrap_err().kind(), Kind::InvalidArgument);
    }
    eventually("nothing waits", || bench.handle.load().queued == 0);
}
