//! Detection end to end on doubles: order, one final score a frame, gaps, bounds, who leaves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests fail like tests

mod doubles;

use std::{
    sync::{Arc, Mutex, atomic::Ordering::SeqCst},
    time::Duration,
};

use doubles::{
    Counters, FakeProbe, FakeSource, GONE, PANIC, SIDE, Step, Turnstile, eventually, info, profile,
};
use headhunt::{
    engine::{Engine, EngineConfig, EngineHandle, Lane},
    error::{Error, Kind, Result},
    limits::{OUTSTANDING_SEGMENTS_MAX, PREPARED_SEGMENTS_MAX},
    media::{FrameStamp, GapReason, MediaSource, MediaTime, RgbRows},
    pipeline::{
        detect::{DetectOptions, Detection, run},
        event::{DetectEvent, SegmentScores, Stage, Summary},
        options::PictureOptions,
        prepare::{OpenSource, Preparation, PrepareOptions, Prepared, Resize, whole_video},
    },
    profile::{NormalityParams, Profile},
    score::{
        events::{EndReason, Event},
        locate::{SegmentSpan, locate},
    },
    segment::SegmentRule,
};
use proptest::prelude::*;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

const FRAME: Duration = Duration::from_millis(40);

fn frames(greys: impl IntoIterator<Item = u8>) -> Vec<Step> {
    greys
        .into_iter()
        .map(|grey| Step::Frame(grey, FRAME))
        .collect()
}

fn gap(seconds: f64) -> Step {
    Step::Gap(GapReason::DecodeError, Duration::from_secs_f64(seconds))
}

struct Bench {
    _engine: Engine,
    handle: EngineHandle,
    turnstile: Arc<Turnstile>,
    log: doubles::Log,
}

async fn engine() -> Bench {
    let probe = FakeProbe::new();
    let (turnstile, log) = (probe.turnstile.clone(), probe.log.clone());
    let engine = Engine::start(
        Box::new(probe),
        EngineConfig {
            queue_capacity: 32,
            ..EngineConfig::default()
        },
    )
    .unwrap();
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

fn detection(profile: Profile, provisional: bool) -> Detection {
    Detection {
        profile: Arc::new(profile),
        options: DetectOptions {
            provisional,
            ..DetectOptions::default()
        },
        lane: Lane::Upload,
        max_delay: None,
        follow: None,
        recorder: None,
        trace: None,
    }
}

fn source(steps: Vec<Step>, cancel: &CancellationToken) -> (OpenSource, Arc<Counters>) {
    let source = FakeSource::new(steps, cancel.clone());
    let counters = source.counters();
    (
        Box::new(move || Ok(Box::new(source) as Box<dyn MediaSource>)),
        counters,
    )
}

/// Runs a detection to its end and collects everything.
async fn detect(
    engine: &EngineHandle,
    profile: Profile,
    provisional: bool,
    steps: Vec<Step>,
) -> (Vec<DetectEvent>, Result<Summary>) {
    let cancel = CancellationToken::new();
    let (source, _) = source(steps, &cancel);
    let (sender, mut receiver) = mpsc::channel(1);
    let running = tokio::spawn(run(
        source,
        detection(profile, provisional),
        engine.clone(),
        sender,
        cancel.clone(),
    ));
    let mut events = Vec::new();
    while let Some(event) = receiver.recv().await {
        events.push(event);
    }
    let result = running.await.unwrap();
    assert!(cancel.is_cancelled(), "the source is told that it is over");
    (events, result)
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

fn final_indices(events: &[DetectEvent]) -> Vec<u64> {
    finals(events)
        .iter()
        .flat_map(|scores| scores.frames.iter().map(|stamp| stamp.index))
        .collect()
}

/// What the batch locator makes of the p that the detection sent.
fn batch(events: &[DetectEvent], profile: &Profile) -> headhunt::score::locate::Located {
    let mut run = 0;
    let (mut spans, mut p) = (Vec::new(), Vec::new());
    for event in events {
        match event {
            DetectEvent::Gap(_) => run += 1,
            DetectEvent::Scores(scores) if scores.stage == Stage::Final => {
                let (first, last) = (scores.frames[0], *scores.frames.last().unwrap());
                spans.push(SegmentSpan {
                    first_frame: first.index,
                    last_frame: last.index,
                    start: first.pts,
                    end: last.end(),
                    run,
                });
                p.push(scores.probability);
            }
            _ => {}
        }
    }
    locate(
        &spans,
        &p,
        &profile.locator,
        profile.segment.seconds(info().declared_fps),
    )
    .unwrap()
}

#[tokio::test]
async fn events_come_in_media_order_and_say_what_the_batch_locator_says() {
    let bench = engine().await;
    // Dark, bright, dark; then a gap, then bright to the end with a short last segment.
    let mut steps = frames([20; 12].into_iter().chain([200; 12]).chain([20; 10]));
    steps.push(gap(3.0));
    steps.extend(frames([200; 6]));
    let (events, summary) = detect(&bench.handle, profile(), false, steps).await;
    let summary = summary.unwrap();
    assert_eq!(events[0], DetectEvent::Opened(info()));
    assert_eq!(*events.last().unwrap(), DetectEvent::Summary(summary));
    // 12 + 12 + 10 frames: 8 segments of 4, one of 2; then 4 and 2.
    assert_eq!(
        (summary.frames, summary.segments, summary.gaps),
        (40, 11, 1)
    );
    assert_eq!(summary.duration, FRAME * 40 + Duration::from_secs(3));
    assert_eq!(final_indices(&events), (0..40).collect::<Vec<_>>());
    let at = events
        .iter()
        .position(|e| matches!(e, DetectEvent::Gap(_)))
        .unwrap();
    assert_eq!(final_indices(&events[..at]), (0..34).collect::<Vec<_>>());
    let located = batch(&events, &profile());
    let smoothed: Vec<f64> = finals(&events)
        .iter()
        .map(|scores| scores.smoothed)
        .collect();
    assert_eq!(smoothed, located.smoothed);
    let ended: Vec<(Event, EndReason)> = events
        .iter()
        .filter_map(|event| match event {
            DetectEvent::EventEnded(event, reason, _) => Some((event.clone(), *reason)),
            _ => None,
        })
        .collect();
    assert_eq!(ended, located.events);
    assert_eq!(summary.events, 2);
    assert_eq!(ended[0].1, EndReason::BelowThreshold);
    assert_eq!(ended[1].1, EndReason::EndOfStream);
    // Between p's dark and bright there is something to decide.
    let p: Vec<f64> = finals(&events)
        .iter()
        .map(|scores| scores.probability)
        .collect();
    assert!(p[0] < 0.4 && p[4] > 0.6, "{p:?}");
}

#[tokio::test]
async fn a_normality_scorer_streams_what_the_batch_locator_says() {
    let bench = engine().await;
    let mut profile = profile();
    profile.scoring_prompts.truncate(1);
    // Dark frames are normal: about -1.1 in every number of the double's features.
    profile.scorer = NormalityParams {
        mean: vec![-1.1; 6],
        variance: 0.25,
        excess: vec![8.0],
        directions: vec![0.0, 1.0, 0.0, 0.0, 0.0, 0.0],
        distances: vec![1.0, 4.0],
        quantiles: vec![0.25, 0.75],
        tail_scale: 2.0,
    }
    .into();
    profile.schema = profile.scorer.schema();
    let steps = frames([20; 12].into_iter().chain([200; 12]).chain([20; 10]));
    let (events, summary) = detect(&bench.handle, profile.clone(), false, steps).await;
    assert_eq!(summary.unwrap().events, 1);
    let located = batch(&events, &profile);
    let (p, smoothed): (Vec<f64>, Vec<f64>) = finals(&events)
        .iter()
        .map(|scores| (scores.probability, scores.smoothed))
        .unzip();
    assert_eq!(smoothed, located.smoothed);
    assert!(p[0] < 0.25 && p[4] > 0.999, "{p:?}");
}

#[tokio::test]
async fn p_is_the_mean_over_the_scoring_prompts() {
    let bench = engine().await;
    let both = profile();
    let mut ps = Vec::new();
    for prompts in [
        &both.scoring_prompts[..],
        &both.scoring_prompts[..1],
        &both.scoring_prompts[1..],
    ] {
        let mut profile = both.clone();
        profile.scoring_prompts = prompts.to_vec();
        let (events, _) = detect(&bench.handle, profile, false, frames([90; 4])).await;
        ps.push(finals(&events)[0].probability);
    }
    assert_ne!(ps[1], ps[2]);
    assert!((ps[0] - (ps[1] + ps[2]) / 2.0).abs() < 1e-15, "{ps:?}");
}

#[tokio::test]
async fn provisional_scores_come_once_before_the_final_ones() {
    let bench = engine().await;
    let (events, summary) = detect(&bench.handle, profile(), true, frames([60; 30])).await;
    assert_eq!(summary.unwrap().frames, 30);
    for segment in 0..8 {
        let stages: Vec<Stage> = events
            .iter()
            .filter_map(|event| match event {
                DetectEvent::Scores(scores) if scores.segment == segment => Some(scores.stage),
                _ => None,
            })
            .collect();
        assert_eq!(stages, [Stage::Provisional, Stage::Final]);
    }
}

#[tokio::test]
async fn an_input_that_fails_delivers_what_was_whole_and_then_the_error() {
    let bench = engine().await;
    let mut steps = frames([60; 10]);
    steps.push(Step::Fail(Error::invalid("it broke here")));
    let (events, summary) = detect(&bench.handle, profile(), false, steps).await;
    let error = summary.unwrap_err();
    assert_eq!(error.kind(), Kind::InvalidArgument);
    assert_eq!(error.message(), "it broke here");
    assert_eq!(final_indices(&events), (0..8).collect::<Vec<_>>());
    assert!(
        !events
            .iter()
            .any(|event| matches!(event, DetectEvent::Summary(_)))
    );
}

#[tokio::test]
async fn a_segment_that_cannot_be_scored_ends_it_without_a_hole() {
    let bench = engine().await;
    let steps = frames([60; 8].into_iter().chain([PANIC; 4]).chain([60; 40]));
    let (events, summary) = detect(&bench.handle, profile(), false, steps).await;
    assert_eq!(summary.unwrap_err().kind(), Kind::Internal);
    assert_eq!(final_indices(&events), (0..8).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_panic_of_the_decoder_is_an_internal_error() {
    let bench = engine().await;
    let mut steps = frames([60; 5]);
    steps.push(Step::Panic);
    let (events, summary) = detect(&bench.handle, profile(), false, steps).await;
    let error = summary.unwrap_err();
    assert_eq!(error.kind(), Kind::Internal);
    assert!(
        error.message().contains("the source double was told to"),
        "{error}"
    );
    assert_eq!(final_indices(&events), (0..4).collect::<Vec<_>>());
}

#[tokio::test]
async fn no_frames_are_an_error() {
    let bench = engine().await;
    for steps in [vec![], vec![gap(1.0)]] {
        let (events, summary) = detect(&bench.handle, profile(), false, steps).await;
        assert_eq!(summary.unwrap_err().kind(), Kind::InvalidArgument);
        assert!(finals(&events).is_empty());
    }
}

#[tokio::test]
async fn a_source_that_does_not_open_and_a_profile_that_does_not_fit() {
    let bench = engine().await;
    let (sender, _receiver) = mpsc::channel(1);
    let closed: OpenSource = Box::new(|| Err(Error::invalid("no video in it")));
    let cancel = CancellationToken::new();
    let error = run(
        closed,
        detection(profile(), false),
        bench.handle.clone(),
        sender,
        cancel,
    )
    .await
    .unwrap_err();
    assert_eq!(error.message(), "no video in it");
    let mut foreign = profile();
    foreign.model.fingerprint = "0".repeat(64);
    let (events, summary) = detect(&bench.handle, foreign, false, frames([60; 4])).await;
    assert_eq!(summary.unwrap_err().kind(), Kind::FailedPrecondition);
    assert!(events.is_empty());
    let mut deep = profile();
    deep.heads[0].layer = 77;
    let (_, summary) = detect(&bench.handle, deep, false, frames([60; 4])).await;
    assert_eq!(summary.unwrap_err().kind(), Kind::FailedPrecondition);
}

#[tokio::test]
async fn a_receiver_that_stops_reading_holds_back_scoring_and_decoding() {
    let bench = engine().await;
    let cancel = CancellationToken::new();
    let (source, counters) = source(frames([60; 4000]), &cancel);
    let (sender, mut receiver) = mpsc::channel(2);
    let running = tokio::spawn(run(
        source,
        detection(profile(), false),
        bench.handle.clone(),
        sender,
        cancel,
    ));
    assert!(matches!(
        receiver.recv().await,
        Some(DetectEvent::Opened(_))
    ));
    // It settles: neither decoded frames nor passes grow any more.
    let state = || {
        (
            counters.decoded.load(SeqCst),
            bench.log.lock().unwrap().len(),
        )
    };
    let mut before = state();
    loop {
        tokio::time::sleep(Duration::from_millis(150)).await;
        if state() == before {
            break;
        }
        before = state();
    }
    // Segments of 4 frames: read and not final (radius 2), one being sent, two sent; under way;
    // in the decode thread's channel and hands.
    let most = 2 + 1 + 3 + OUTSTANDING_SEGMENTS_MAX + 1 + PREPARED_SEGMENTS_MAX + 2;
    assert!(
        before.0 <= 4 * most,
        "{} frames were decoded ahead",
        before.0
    );
    assert!(
        counters.most_alive.load(SeqCst) <= 5,
        "pictures outlive their segment"
    );
    // And it goes on when the receiver does.
    let mut seen = 0;
    while let Some(event) = receiver.recv().await {
        if let DetectEvent::Scores(scores) = event {
            seen += scores.frames.len();
        }
    }
    assert_eq!(seen, 4000);
    assert_eq!(running.await.unwrap().unwrap().frames, 4000);
}

#[tokio::test]
async fn segments_under_way_are_bounded() {
    let bench = engine().await;
    bench.turnstile.close();
    let cancel = CancellationToken::new();
    let (source, counters) = source(frames([60; 4000]), &cancel);
    let (sender, mut receiver) = mpsc::channel(64);
    let running = tokio::spawn(run(
        source,
        detection(profile(), false),
        bench.handle.clone(),
        sender,
        cancel.clone(),
    ));
    assert!(matches!(
        receiver.recv().await,
        Some(DetectEvent::Opened(_))
    ));
    let mut before = 0;
    loop {
        tokio::time::sleep(Duration::from_millis(150)).await;
        let now = counters.decoded.load(SeqCst);
        if now == before {
            break;
        }
        before = now;
    }
    // One in the pass, the others in the queue.
    assert_eq!(
        bench.handle.queued(Lane::Upload),
        OUTSTANDING_SEGMENTS_MAX - 1
    );
    assert!(before <= 4 * (OUTSTANDING_SEGMENTS_MAX + 1 + PREPARED_SEGMENTS_MAX + 2));
    cancel.cancel();
    assert_eq!(running.await.unwrap().unwrap_err().kind(), Kind::Cancelled);
    assert_eq!(
        bench.handle.queued(Lane::Upload),
        0,
        "its segments left the queue"
    );
    bench.turnstile.open();
}

#[tokio::test]
async fn a_receiver_that_is_gone_frees_everything() {
    let bench = engine().await;
    bench.turnstile.close();
    let cancel = CancellationToken::new();
    let mut steps = frames([60; 100]);
    steps.push(Step::Stall);
    let (source, counters) = source(steps, &cancel);
    let (sender, mut receiver) = mpsc::channel(4);
    let running = tokio::spawn(run(
        source,
        detection(profile(), false),
        bench.handle.clone(),
        sender,
        cancel.clone(),
    ));
    assert!(matches!(
        receiver.recv().await,
        Some(DetectEvent::Opened(_))
    ));
    let turnstile = bench.turnstile.clone();
    tokio::task::spawn_blocking(move || turnstile.wait_for_arrival())
        .await
        .unwrap();
    drop(receiver);
    // During the pass: nothing waits for it.
    let error = running.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), Kind::Cancelled);
    assert!(cancel.is_cancelled());
    assert_eq!(bench.handle.queued(Lane::Upload), 0);
    assert_eq!(counters.alive.load(SeqCst), 0, "the source is closed");
    bench.turnstile.open();
    let count = || bench.log.lock().unwrap().len();
    tokio::task::spawn_blocking(|| std::thread::sleep(Duration::from_millis(50)))
        .await
        .unwrap();
    assert!(count() <= 1, "only the pass in progress ran");
}

#[tokio::test]
async fn a_detection_that_is_dropped_stops_its_source() {
    let bench = engine().await;
    let cancel = CancellationToken::new();
    let (source, counters) = source(vec![Step::Frame(60, FRAME), Step::Stall], &cancel);
    let (sender, mut receiver) = mpsc::channel(4);
    let running = tokio::spawn(run(
        source,
        detection(profile(), false),
        bench.handle.clone(),
        sender,
        cancel.clone(),
    ));
    assert!(matches!(
        receiver.recv().await,
        Some(DetectEvent::Opened(_))
    ));
    running.abort();
    let _ = running.await;
    assert!(cancel.is_cancelled());
    tokio::task::spawn_blocking(move || {
        eventually("the source is closed", || counters.alive.load(SeqCst) == 0);
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_slow_client_does_not_hold_the_queue() {
    // Upload lane of 1: a slow client that kept its granted room would stop the other for ever.
    let probe = FakeProbe::new();
    let engine = Engine::start(
        Box::new(probe),
        EngineConfig {
            queue_capacity: 3,
            ..EngineConfig::default()
        },
    )
    .unwrap();
    let mut slow = Vec::new();
    for _ in 0..4 {
        let cancel = CancellationToken::new();
        let (source, _) = source(frames([60; 400]), &cancel);
        let (sender, receiver) = mpsc::channel(1);
        let running = tokio::spawn(run(
            source,
            detection(profile(), false),
            engine.handle(),
            sender,
            cancel,
        ));
        slow.push((receiver, running));
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    let handle = engine.handle();
    let fast = detect(&handle, profile(), false, frames([60; 400]));
    let (_, summary) = tokio::time::timeout(Duration::from_secs(20), fast)
        .await
        .unwrap();
    assert_eq!(summary.unwrap().frames, 400);
}

#[tokio::test]
async fn a_segment_whose_pictures_are_gone_is_a_gap_and_the_end_is_orderly() {
    // The second of four segments; what comes after it is of the same run for the source.
    let bench = engine().await;
    let steps = frames((0..16).map(|i| if i == 7 { GONE } else { 40 }));
    let (events, summary) = detect(&bench.handle, profile(), false, steps).await;
    let summary = summary.unwrap();
    assert_eq!((summary.segments, summary.frames, summary.gaps), (3, 12, 1));
    let gaps: Vec<u64> = events
        .iter()
        .filter_map(|event| match event {
            DetectEvent::Gap(gap) => Some(gap.frames_lost),
            _ => None,
        })
        .collect();
    assert_eq!(gaps, [4]);
}

// --- preparation alone

fn grey_resize(calls: Arc<Mutex<usize>>) -> Resize {
    Arc::new(move |rgb: &dyn RgbRows, side, pixels: &mut [u8]| {
        *calls.lock().unwrap() += 1;
        assert_eq!(side as usize, SIDE);
        let mut data = Vec::new();
        rgb.rows(&mut |rows| data.extend_from_slice(rows))?;
        pixels.copy_from_slice(&data);
        Ok(())
    })
}

fn prepare(
    steps: Vec<Step>,
    rule: SegmentRule,
    samples: usize,
    picture_bytes: usize,
) -> (Vec<Prepared>, Arc<Counters>, usize) {
    let cancel = CancellationToken::new();
    let source = FakeSource::new(steps, cancel.clone()).picture_bytes(picture_bytes);
    let counters = source.counters();
    let calls = Arc::new(Mutex::new(0));
    let options = PrepareOptions {
        rule,
        frames_per_segment: samples,
        image_side: SIDE,
        keep_smaller: false,
        resize: grey_resize(calls.clone()),
        pictures: PictureOptions::default(),
    };
    let open: OpenSource = Box::new(move || Ok(Box::new(source) as Box<dyn MediaSource>));
    let mut preparation = Preparation::start(open, options, cancel).unwrap();
    let mut items = Vec::new();
    while let Some(item) = preparation.blocking_next() {
        items.push(item.unwrap());
    }
    let calls = *calls.lock().unwrap();
    (items, counters, calls)
}

fn clips(items: &[Prepared]) -> Vec<Vec<u8>> {
    items
        .iter()
        .filter_map(|item| match item {
            Prepared::Segment(segment) => Some(
                segment
                    .clip
                    .frames
                    .iter()
                    .map(|frame| frame.data[0])
                    .collect(),
            ),
            _ => None,
        })
        .collect()
}

#[test]
fn only_sampled_frames_are_converted_and_repeated_ones_share_pixels() {
    let (items, counters, calls) = prepare(frames(0..10), SegmentRule::Frames(8), 4, 100);
    // 8 frames: 1 3 5 7; the last 2 frames: 8 8 9 9.
    assert_eq!(clips(&items), [[1, 3, 5, 7], [8, 8, 9, 9]]);
    assert_eq!((calls, counters.converted.load(SeqCst)), (6, 6));
    let Prepared::Segment(last) = &items[2] else {
        panic!("a segment was expected")
    };
    assert!(Arc::ptr_eq(
        &last.clip.frames[0].data,
        &last.clip.frames[1].data
    ));
    assert!(!Arc::ptr_eq(
        &last.clip.frames[1].data,
        &last.clip.frames[2].data
    ));
    assert!(matches!(items[3], Prepared::End(totals) if totals.frames == 10));
}

#[test]
fn big_pictures_are_reduced_early_to_the_same_pixels() {
    for rule in [SegmentRule::Frames(8), SegmentRule::Seconds(0.32)] {
        let (small, counters, _) = prepare(frames(0..40), rule, 4, 100);
        assert!(counters.most_alive.load(SeqCst) >= 8);
        // 80 MB each: three of them are over the limit.
        let (big, counters, _) = prepare(frames(0..40), rule, 4, 80 << 20);
        assert!(
            counters.most_alive.load(SeqCst) <= 4,
            "{:?}",
            counters.most_alive
        );
        assert_eq!(clips(&big), clips(&small));
    }
}

#[test]
fn a_whole_video_is_one_sample() {
    let calls = Arc::new(Mutex::new(0));
    let resize = grey_resize(calls.clone());
    let mut steps = frames(0..5);
    steps.push(gap(1.0));
    steps.extend(frames(5..10));
    let mut source = FakeSource::new(steps, CancellationToken::new());
    let (clip, stamps) = whole_video(&mut source, 10, 4, SIDE, &resize).unwrap();
    let greys: Vec<u8> = clip.frames.iter().map(|frame| frame.data[0]).collect();
    assert_eq!(greys, [1, 3, 6, 8]);
    assert_eq!(
        stamps.iter().map(|s| s.index).collect::<Vec<_>>(),
        [1, 3, 6, 8]
    );
    assert_eq!(*calls.lock().unwrap(), 4);
    // Fewer frames than samples: repeated ones share pixels.
    let mut source = FakeSource::new(frames(0..2), CancellationToken::new());
    let (clip, _) = whole_video(&mut source, 2, 4, SIDE, &resize).unwrap();
    assert!(Arc::ptr_eq(&clip.frames[0].data, &clip.frames[1].data));
    assert_eq!(*calls.lock().unwrap(), 6);
    // Fewer frames than counted.
    let mut source = FakeSource::new(frames(0..5), CancellationToken::new());
    let error = whole_video(&mut source, 10, 4, SIDE, &resize)
        .err()
        .unwrap();
    assert_eq!(error.kind(), Kind::InvalidArgument);
    let mut source = FakeSource::new(frames(0..5), CancellationToken::new());
    assert!(whole_video(&mut source, 0, 4, SIDE, &resize).is_err());
}

#[derive(Clone, Debug)]
enum Piece {
    Frames(usize, u8, u64),
    Gap(u64),
}

fn pieces() -> impl Strategy<Value = Vec<Piece>> {
    prop::collection::vec(
        prop_oneof![
            4 => (1usize..20, 0u8..240, 10u64..120).prop_map(|(n, grey, ms)| Piece::Frames(n, grey, ms)),
            1 => (0u64..900).prop_map(Piece::Gap),
        ],
        1..12,
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(48) })]

    #[test]
    fn each_frame_gets_exactly_one_final_score_and_gaps_stand_in_place(
        pieces in pieces(),
        seconds in any::<bool>(),
        provisional in any::<bool>(),
        bridge in prop::option::of(0.0..2.0f64),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let mut total = 0;
        // Frames before each gap.
        let mut gaps = Vec::new();
        let mut steps = Vec::new();
        for piece in &pieces {
            match piece {
                Piece::Frames(n, grey, ms) => {
                    total += *n as u64;
                    steps.extend((0..*n).map(|_| Step::Frame(*grey, Duration::from_millis(*ms))));
                }
                Piece::Gap(ms) => {
                    gaps.push(total);
                    steps.push(gap(*ms as f64 / 1e3));
                }
            }
        }
        let mut profile = profile();
        profile.locator.event_bridge_s = bridge;
        if seconds {
            profile.segment = SegmentRule::Seconds(0.3);
        }
        let (events, summary) = runtime.block_on(async {
            let bench = engine().await;
            detect(&bench.handle, profile.clone(), provisional, steps).await
        });
        if total == 0 {
            prop_assert_eq!(summary.unwrap_err().kind(), Kind::InvalidArgument);
            return Ok(());
        }
        let summary = summary.unwrap();
        prop_assert_eq!(summary.frames, total);
        prop_assert_eq!(summary.gaps, gaps.len() as u64);
        prop_assert_eq!(final_indices(&events), (0..total).collect::<Vec<_>>());
        let mut seen = 0;
        let mut seen_gaps = Vec::new();
        let mut last = MediaTime::ZERO;
        for event in &events {
            match event {
                DetectEvent::Scores(scores) if scores.stage == Stage::Final => {
                    let first: FrameStamp = scores.frames[0];
                    prop_assert!(first.pts >= last);
                    last = first.pts;
                    seen += scores.frames.len() as u64;
                }
                DetectEvent::Gap(_) => seen_gaps.push(seen),
                _ => {}
            }
        }
        prop_assert_eq!(seen_gaps, gaps);
        let located = batch(&events, &profile);
        let smoothed: Vec<f64> = finals(&events).iter().map(|scores| scores.smoothed).collect();
        prop_assert_eq!(smoothed, located.smoothed);
        let ended: Vec<_> = events
            .iter()
            .filter_map(|event| match event {
                DetectEvent::EventEnded(event, reason, _) => Some((event.clone(), *reason)),
                _ => None,
            })
            .collect();
        prop_assert_eq!(summary.events, ended.len() as u64);
        prop_assert_eq!(ended, located.events);
    }
}
