//! A detection that moves to another version of its profile: where, and that nothing else changes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests fail like tests

mod doubles;

use std::{sync::Arc, time::Duration};

use doubles::{FakeProbe, FakeSource, Step, Turnstile, profile};
use headhunt::{
    engine::{Engine, EngineConfig, EngineHandle, Lane},
    head::HeadId,
    media::MediaSource,
    pipeline::{
        detect::{DetectOptions, Detection, run},
        event::{DetectEvent, SegmentScores, Stage, Summary},
        options::PictureOptions,
    },
    profile::{Profile, ScorerParams},
    score::events::EndReason,
    segment::SegmentRule,
};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

const FRAME: Duration = Duration::from_millis(40);

/// Frames of a segment.
const N: usize = 4;

/// Other heads, another prompt, another scorer, another locator.
fn newer() -> Profile {
    let mut newer = profile();
    newer.heads = vec![HeadId { layer: 1, head: 1 }, HeadId { layer: 0, head: 1 }];
    newer.scoring_prompts = vec!["what is going on here?".into()];
    newer.scorer = ScorerParams {
        weights: vec![0.2, 0.3, 0.4, 0.1, 0.6, 0.2],
        intercept: -1.5,
    }
    .into();
    newer.locator.sigma = 1.3;
    newer.locator.threshold = 0.55;
    newer
}

struct Bench {
    _engine: Engine,
    handle: EngineHandle,
    turnstile: Arc<Turnstile>,
}

async fn engine() -> Bench {
    let probe = FakeProbe::new();
    let turnstile = probe.turnstile.clone();
    let engine = Engine::start(Box::new(probe), EngineConfig::default()).unwrap();
    let handle = engine.handle();
    handle.ready().await.unwrap();
    Bench {
        _engine: engine,
        handle,
        turnstile,
    }
}

impl Bench {
    /// Starts a detection over frames of these greys.
    fn start(
        &self,
        profile: Profile,
        follow: Option<watch::Receiver<Arc<Profile>>>,
        gate: Option<f64>,
        greys: &[u8],
    ) -> tokio::task::JoinHandle<(Vec<DetectEvent>, Summary)> {
        let cancel = CancellationToken::new();
        let steps: Vec<Step> = greys.iter().map(|g| Step::Frame(*g, FRAME)).collect();
        let source = FakeSource::new(steps, cancel.clone());
        let detection = Detection {
            profile: Arc::new(profile),
            options: DetectOptions {
                provisional: true,
                pictures: PictureOptions {
                    motion_gate: gate,
                    ..PictureOptions::default()
                },
                ..DetectOptions::default()
            },
            lane: Lane::Upload,
            max_delay: None,
            recorder: None,
            trace: None,
            follow,
        };
        let (sender, mut receiver) = mpsc::channel(8);
        let running = tokio::spawn(run(
            Box::new(move || Ok(Box::new(source) as Box<dyn MediaSource>)),
            detection,
            self.handle.clone(),
            sender,
            cancel,
        ));
        tokio::spawn(async move {
            let mut events = Vec::new();
            while let Some(event) = receiver.recv().await {
                events.push(event);
            }
            (events, running.await.unwrap().unwrap())
        })
    }

    async fn whole(&self, profile: Profile, greys: &[u8]) -> Vec<DetectEvent> {
        self.start(profile, None, None, greys).await.unwrap().0
    }
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

/// p and p′, bit by bit.
fn bits(events: &[DetectEvent]) -> Vec<(u64, u64)> {
    finals(events)
        .iter()
        .map(|scores| (scores.probability.to_bits(), scores.smoothed.to_bits()))
        .collect()
}

/// First frame, last frame, peak and mean of the events that ended, and why.
fn ended(events: &[DetectEvent]) -> Vec<(u64, u64, u64, u64, EndReason)> {
    events
        .iter()
        .filter_map(|event| match event {
            DetectEvent::EventEnded(e, reason, _) => Some((
                e.first_frame,
                e.last_frame,
                e.peak.to_bits(),
                e.mean.to_bits(),
                *reason,
            )),
            _ => None,
        })
        .collect()
}

fn changes(events: &[DetectEvent]) -> Vec<usize> {
    let is_change = |event: &DetectEvent| matches!(event, DetectEvent::ProfileChanged { .. });
    (0..events.len())
        .filter(|at| is_change(&events[*at]))
        .collect()
}

/// Bright nearly everywhere, so that an event is under way at any boundary; never twice the same.
fn film() -> Vec<u8> {
    (0..N as u8 * 14).map(|n| 150 + n).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn later_segments_are_scored_as_by_a_detection_that_began_there() {
    let bench = engine().await;
    let film = film();
    bench.turnstile.close();
    let (versions, follow) = watch::channel(Arc::new(profile()));
    let running = bench.start(profile(), Some(follow), None, &film);
    let turnstile = bench.turnstile.clone();
    tokio::task::spawn_blocking(move || turnstile.wait_for_arrival())
        .await
        .unwrap();
    // The first segment is with the model: it stays with the old version.
    versions.send_replace(Arc::new(newer()));
    bench.turnstile.open();
    let (events, summary) = running.await.unwrap();
    assert_eq!((summary.frames, summary.segments), (14 * N as u64, 14));
    assert_eq!(summary.gaps, 0);
    let [at] = changes(&events)[..] else {
        panic!("one change: {:?}", changes(&events));
    };
    assert_eq!(
        events[at],
        DetectEvent::ProfileChanged {
            profile: "double".into(),
            version: newer().checksum().unwrap()
        }
    );
    let (before, after) = events.split_at(at);
    let boundary = finals(before).len();
    assert!((1..=6).contains(&boundary), "{boundary} before");
    let numbers: Vec<u64> = finals(&events).iter().map(|s| s.segment).collect();
    assert_eq!(numbers, (0..14).collect::<Vec<_>>());

    let old = bench.whole(profile(), &film[..boundary * N]).await;
    assert_eq!(bits(before), bits(&old), "final before the change");
    let new = bench.whole(newer(), &film[boundary * N..]).await;
    assert_eq!(bits(after), bits(&new), "as if it began there");
    let provisional = |events: &[DetectEvent]| -> Vec<u64> {
        let scores = events.iter().filter_map(|event| match event {
            DetectEvent::Scores(s) if s.stage == Stage::Provisional => Some(s.smoothed.to_bits()),
            _ => None,
        });
        scores.collect()
    };
    assert_eq!(provisional(before), provisional(&old));
    assert_eq!(provisional(after), provisional(&new));

    // The event under way ended, and what goes on is another one.
    let mut expected = ended(&old);
    let last = expected.last_mut().expect("an event at the boundary");
    assert_eq!(last.4, EndReason::EndOfStream);
    last.4 = EndReason::ProfileChanged;
    assert_eq!(ended(before), expected);
    let offset = (boundary * N) as u64;
    let shifted: Vec<_> = ended(&new)
        .into_iter()
        .map(|(first, last, peak, mean, why)| (first + offset, last + offset, peak, mean, why))
        .collect();
    assert_eq!(ended(after), shifted);
    let ids: Vec<u64> = events
        .iter()
        .filter_map(|event| match event {
            DetectEvent::EventStarted(event) => Some(event.id),
            _ => None,
        })
        .collect();
    assert_eq!(ids, (0..ids.len() as u64).collect::<Vec<_>>());
    assert!(ids.len() >= 2, "{ids:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_change_following_changes_nothing() {
    let bench = engine().await;
    let film = film();
    let (versions, follow) = watch::channel(Arc::new(profile()));
    let (followed, _) = bench
        .start(profile(), Some(follow), None, &film)
        .await
        .unwrap();
    assert_eq!(followed, bench.whole(profile(), &film).await);
    drop(versions);
    // Nor does a version that cuts video otherwise.
    let mut other = newer();
    other.segment = SegmentRule::Frames(N as u32 + 1);
    let (_versions, follow) = watch::channel(Arc::new(other));
    let (followed, _) = bench
        .start(profile(), Some(follow), None, &film)
        .await
        .unwrap();
    assert_eq!(followed, bench.whole(profile(), &film).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nothing_moves_a_segment_is_scored_anew_and_none_is_lost() {
    let bench = engine().await;
    let film = vec![120; N * 120];
    bench.turnstile.close();
    let (versions, follow) = watch::channel(Arc::new(profile()));
    let running = bench.start(profile(), Some(follow), Some(0.02), &film);
    let turnstile = bench.turnstile.clone();
    tokio::task::spawn_blocking(move || turnstile.wait_for_arrival())
        .await
        .unwrap();
    versions.send_replace(Arc::new(newer()));
    bench.turnstile.open();
    let (events, summary) = running.await.unwrap();
    assert_eq!((summary.frames, summary.gaps), (120 * N as u64, 0));
    assert!(summary.segments_gated > 100, "{summary:?}");
    let [at] = changes(&events)[..] else {
        panic!("one change: {:?}", changes(&events));
    };
    let (before, after) = events.split_at(at);
    let first = finals(after)[0];
    assert!(!first.gated, "the first one of the new version was scored");
    let of = |events: &[DetectEvent]| bits(events).iter().map(|b| b.0).collect::<Vec<_>>();
    let p = |events: Vec<DetectEvent>| of(&events)[0];
    let old = p(bench.whole(profile(), &film[..N]).await);
    let new = p(bench.whole(newer(), &film[..N]).await);
    assert_ne!(old, new);
    assert!(of(before).iter().all(|p| *p == old));
    assert!(of(after).iter().all(|p| *p == new));
}
