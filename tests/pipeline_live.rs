//! Detection on live sources, on doubles: what is not scored in time is dropped and told, nothing
//! holds the source back, and an interruption ends runs and events.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test may

mod collector;
mod doubles;

use std::{
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Duration,
};

use collector::{Collector, named, of};
use doubles::{Counters, FAIL, FakeProbe, FakeSource, GONE, Step, Turnstile, eventually, profile};
use headhunt::{
    engine::{Engine, EngineConfig, EngineHandle, Lane},
    error::{Kind, Result},
    limits::{LIVE_BACKLOG_SEGMENTS, OUTSTANDING_SEGMENTS_MAX},
    media::{GapReason, MediaSource, SourceState},
    pipeline::{
        detect::{DetectOptions, Detection, run},
        event::{DetectEvent, Stage, Summary},
    },
    profile::Profile,
    score::events::EndReason,
    segment::SegmentRule,
    telemetry::traces::{self, Call, Headers},
};
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_util::sync::CancellationToken;

const FRAME: Duration = Duration::from_millis(400);
/// Frames of a segment of the double's profile.
const N: usize = 4;
const LONG: Duration = Duration::from_secs(600);

fn engine() -> (Engine, EngineHandle, Arc<Turnstile>) {
    let probe = FakeProbe::new();
    let turnstile = probe.turnstile.clone();
    let engine = Engine::start(Box::new(probe), EngineConfig::default()).unwrap();
    let handle = engine.handle();
    (engine, handle, turnstile)
}

struct Live {
    events: mpsc::Receiver<DetectEvent>,
    running: JoinHandle<Result<Summary>>,
    counters: Arc<Counters>,
    cancel: CancellationToken,
}

fn live(engine: &EngineHandle, profile: Profile, max_delay: Duration, steps: Vec<Step>) -> Live {
    let options = DetectOptions::default();
    live_with(engine, profile, max_delay, steps, options, None)
}

fn live_with(
    engine: &EngineHandle,
    profile: Profile,
    max_delay: Duration,
    steps: Vec<Step>,
    options: DetectOptions,
    trace: Option<Call>,
) -> Live {
    let cancel = CancellationToken::new();
    let source = FakeSource::new(steps, cancel.clone());
    let counters = source.counters();
    let (sender, events) = mpsc::channel(64);
    let detection = Detection {
        profile: Arc::new(profile),
        options,
        lane: Lane::Live,
        max_delay: Some(max_delay),
        follow: None,
        recorder: None,
        trace,
    };
    let open = Box::new(move || Ok(Box::new(source) as Box<dyn MediaSource>));
    let running = tokio::spawn(run(open, detection, engine.clone(), sender, cancel.clone()));
    Live {
        events,
        running,
        counters,
        cancel,
    }
}

impl Live {
    async fn end(mut self) -> (Vec<DetectEvent>, Result<Summary>) {
        let mut events = vec![];
        while let Some(event) = self.events.recv().await {
            events.push(event);
        }
        (events, self.running.await.unwrap())
    }
}

fn segments(greys: impl IntoIterator<Item = u8>) -> Vec<Step> {
    greys
        .into_iter()
        .flat_map(|grey| (0..N).map(move |_| Step::Frame(grey, FRAME)))
        .collect()
}

/// In order: `s` and the number of each scored segment, `x` and the frames of each dropped run.
fn shape(events: &[DetectEvent]) -> Vec<String> {
    events
        .iter()
        .filter_map(|event| match event {
            DetectEvent::Scores(scores) if scores.stage == Stage::Final => {
                Some(format!("s{}", scores.segment))
            }
            DetectEvent::Gap(gap) if gap.reason == GapReason::LoadShed => {
                Some(format!("x{}", gap.frames_lost))
            }
            DetectEvent::Gap(_) => Some("gap".into()),
            DetectEvent::Source(SourceState::Connected) => Some("up".into()),
            DetectEvent::Source(SourceState::Interrupted { .. }) => Some("down".into()),
            _ => None,
        })
        .collect()
}

fn interrupted() -> Step {
    Step::State(SourceState::Interrupted {
        reason: GapReason::ConnectionLost,
        detail: "double".into(),
        attempts: 1,
        retry_in: Duration::from_secs(1),
    })
}

/// After each key frame of a good connection a score follows once one segment of media and one frame
/// have come: here nothing comes after that, and the scores do.
#[tokio::test(flavor = "multi_thread")]
async fn the_first_score_takes_one_segment_of_media_and_a_frame() {
    let (_engine, handle, _turnstile) = engine();
    handle.ready().await.unwrap();
    let mut by_time = profile();
    by_time.segment = SegmentRule::Seconds(1.6);
    let tenth = Duration::from_millis(100);
    let one_segment_and_a_frame = || (0..17).map(move |_| Step::Frame(1, tenth));
    let steps = one_segment_and_a_frame()
        .chain([
            interrupted(),
            Step::Gap(GapReason::ConnectionLost, Duration::from_secs(30)),
            Step::State(SourceState::Connected),
        ])
        .chain(one_segment_and_a_frame())
        .chain([Step::Stall])
        .collect();
    let options = DetectOptions {
        provisional: true,
        ..DetectOptions::default()
    };
    let mut live = live_with(&handle, by_time, LONG, steps, options, None);
    let mut firsts = vec![];
    // The first frame of each whole segment: the lone 17th before the gap is a segment of its own.
    while firsts != [0, 16, 17] {
        let event = tokio::time::timeout(Duration::from_secs(60), live.events.recv());
        let event = event.await.expect("a score comes without a further frame");
        if let Some(DetectEvent::Scores(scores)) = event
            && scores.stage == Stage::Provisional
        {
            firsts.push(scores.frames[0].index);
        }
    }
    live.cancel.cancel();
    let (_, ended) = live.end().await;
    assert_eq!(ended.unwrap_err().kind(), Kind::Cancelled);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stuck_model_does_not_hold_a_camera_back_and_costs_its_oldest_waiting_segments() {
    let (_engine, handle, turnstile) = engine();
    handle.ready().await.unwrap();
    turnstile.close();
    let n = 20;
    let live = live(&handle, profile(), LONG, segments(0..n));
    let counters = live.counters.clone();
    tokio::task::spawn_blocking(move || {
        eventually("all frames are taken", || {
            counters.decoded.load(SeqCst) == N * n as usize
        });
    })
    .await
    .unwrap();
    // The last ones may still be on their way through the preparation's channel.
    tokio::time::sleep(Duration::from_millis(200)).await;
    turnstile.open();
    let (events, summary) = live.end().await;
    let summary = summary.unwrap();
    // Those queued, one that waits for a place in the order, and the newest.
    let first = OUTSTANDING_SEGMENTS_MAX;
    let last = LIVE_BACKLOG_SEGMENTS;
    let shed = n as usize - first - last;
    let expected: Vec<String> = (0..first)
        .map(|i| format!("s{i}"))
        .chain([format!("x{}", shed * N)])
        .chain((n as usize - last..n as usize).map(|i| format!("s{i}")))
        .collect();
    assert_eq!(shape(&events), expected);
    assert_eq!(summary.segments, (first + last) as u64);
    assert_eq!(summary.segments_shed, shed as u64);
    assert_eq!(
        summary.frames + summary.frames_shed,
        (N * n as usize) as u64
    );
    assert_eq!(summary.gaps, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_segment_has_a_span_that_says_so() {
    let collector = Collector::start().await;
    let (traces, sending) = traces::start(traces::Options {
        endpoint: format!("http://{}", collector.address),
        ca: None,
        sample_ratio: 1.0,
        queue_spans: 1024,
        timeout: LONG,
        headers: Headers::default(),
    })
    .unwrap();
    let running = traces.begin("headhunt.v1.Test/Watch", None).unwrap();
    let (_engine, handle, turnstile) = engine();
    handle.ready().await.unwrap();
    turnstile.close();
    let n = 20;
    let trace = Some(running.call().clone());
    let (steps, options) = (segments(0..n), DetectOptions::default());
    let live = live_with(&handle, profile(), LONG, steps, options, trace);
    let counters = live.counters.clone();
    tokio::task::spawn_blocking(move || {
        eventually("all frames are taken", || {
            counters.decoded.load(SeqCst) == N * n as usize
        });
    })
    .await
    .unwrap();
    turnstile.open();
    let (_, summary) = live.end().await;
    let summary = summary.unwrap();
    running.end("OK", None);
    sending.flush(LONG).await;
    let spans = collector.spans();
    let outcomes: Vec<_> = named(&spans, "segment")
        .into_iter()
        .map(|span| of(span, "headhunt.segment.outcome").unwrap())
        .collect();
    let having = |outcome: &str| outcomes.iter().filter(|o| *o == outcome).count() as u64;
    assert!(summary.segments_shed > 0);
    assert_eq!(having("shed"), summary.segments_shed);
    assert_eq!(having("scored"), summary.segments);
    assert_eq!(outcomes.len(), n as usize);
}

#[tokio::test(flavor = "multi_thread")]
async fn segments_that_wait_too_long_are_dropped_and_split_the_smoothing() {
    let (_engine, handle, turnstile) = engine();
    handle.ready().await.unwrap();
    turnstile.close();
    let live = live(
        &handle,
        profile(),
        Duration::from_millis(150),
        segments([10; 4]),
    );
    tokio::time::sleep(Duration::from_millis(500)).await;
    turnstile.open();
    let (events, summary) = live.end().await;
    let shape = shape(&events);
    // The one in the pass was in time.
    assert_eq!(shape[0], "s0");
    assert!(shape.iter().skip(1).all(|s| s == "x4"), "{shape:?}");
    assert_eq!(summary.unwrap().segments_shed, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_lateness_still_ends_the_detection() {
    let (_engine, handle, _turnstile) = engine();
    let live = live(&handle, profile(), LONG, segments([10, FAIL, 10]));
    let (events, summary) = live.end().await;
    assert_eq!(shape(&events), ["s0"]);
    assert_eq!(summary.unwrap_err().kind(), Kind::DataLoss);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interruption_makes_scores_final_at_once_and_ends_an_event_after_the_bridge() {
    let (_engine, handle, _turnstile) = engine();
    let mut profile = profile();
    profile.locator.event_bridge_s = Some(0.1);
    let mut steps = vec![Step::State(SourceState::Connected)];
    steps.extend(segments([10, 240, 240]));
    // Two frames of a segment that will not be whole.
    steps.extend(segments([240]).into_iter().take(2));
    steps.push(interrupted());
    steps.push(Step::Stall);
    let mut live = live(&handle, profile, LONG, steps);
    let mut events = vec![];
    while !matches!(events.last(), Some(DetectEvent::EventEnded(..))) {
        let event = tokio::time::timeout(Duration::from_secs(10), live.events.recv()).await;
        events.push(
            event
                .expect("the event ends while the camera is away")
                .unwrap(),
        );
    }
    assert_eq!(shape(&events), ["up", "s0", "s1", "s2", "s3", "down"]);
    let Some(DetectEvent::EventEnded(event, reason, _)) = events.last() else {
        unreachable!()
    };
    assert_eq!(*reason, EndReason::Gap);
    assert_eq!(event.last_frame, 13);
    live.cancel.cancel();
    assert_eq!(live.end().await.1.unwrap_err().kind(), Kind::Cancelled);
}

/// As where a GPU's memory is another process's for hours, too: nothing is scored that could end the event.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_ends_where_gap_follows_gap_and_nothing_is_scored() {
    let (_engine, handle, _turnstile) = engine();
    let mut profile = profile();
    // Three segments.
    profile.locator.event_bridge_s = Some(3.0 * N as f64 * FRAME.as_secs_f64());
    let mut steps = segments([10, 240, 240, GONE, GONE, GONE, GONE, GONE]);
    steps.push(Step::Stall);
    let mut live = live(&handle, profile, LONG, steps);
    let mut events = vec![];
    while !matches!(events.last(), Some(DetectEvent::EventEnded(..))) {
        let event = tokio::time::timeout(Duration::from_secs(10), live.events.recv()).await;
        events.push(event.expect("the event ends while gaps come").unwrap());
    }
    // Three gaps are within the bridge, the fourth is not.
    assert_eq!(shape(&events), ["s0", "s1", "s2", "gap", "gap", "gap"]);
    let Some(DetectEvent::EventEnded(event, reason, _)) = events.last() else {
        unreachable!()
    };
    assert_eq!(*reason, EndReason::Gap);
    assert_eq!(event.last_frame, 3 * N as u64 - 1);
    live.cancel.cancel();
    assert_eq!(live.end().await.1.unwrap_err().kind(), Kind::Cancelled);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_interruption_leaves_the_event_open() {
    let (_engine, handle, _turnstile) = engine();
    let mut profile = profile();
    profile.locator.event_bridge_s = Some(5.0);
    let mut steps = segments([240, 240]);
    steps.push(interrupted());
    steps.push(Step::State(SourceState::Connected));
    steps.push(Step::Gap(GapReason::ConnectionLost, Duration::from_secs(3)));
    steps.extend(segments([240, 240]));
    let (events, summary) = live(&handle, profile, LONG, steps).end().await;
    assert_eq!(summary.unwrap().events, 1);
    assert_eq!(
        shape(&events),
        ["s0", "s1", "down", "up", "gap", "s2", "s3"]
    );
}
