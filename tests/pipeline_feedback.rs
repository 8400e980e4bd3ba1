//! What a detection keeps for verdicts, on doubles: the features of each prompt, of the heads of its
//! own profile, whoever shares its passes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests fail like tests

mod doubles;

use std::{sync::Arc, time::Duration};

use doubles::{FINGERPRINT, FakeProbe, FakeSource, Step, clip, profile};
use headhunt::{
    clock::SystemClock,
    engine::{Engine, EngineConfig, EngineHandle, Job, Lane},
    feedback::{Feedback, FeedbackOptions, Statement},
    head::{HeadId, HeadSelection},
    media::{GapReason, MediaSource},
    pipeline::{
        detect::{DetectOptions, Detection, run},
        event::DetectEvent,
    },
    profile::Profile,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

const FRAME: Duration = Duration::from_millis(40);

/// Segments of four frames of one grey, and a gap in the middle.
fn steps(greys: &[u8]) -> Vec<Step> {
    let (before, after) = greys.split_at(greys.len() / 2);
    let frames = |greys: &[u8]| -> Vec<Step> {
        let each = greys.iter().flat_map(|grey| [*grey; 4]);
        each.map(|grey| Step::Frame(grey, FRAME)).collect()
    };
    let mut steps = frames(before);
    steps.push(Step::Gap(GapReason::DecodeError, Duration::from_secs(5)));
    steps.extend(frames(after));
    steps
}

/// Runs a detection to its end; gives what was told.
async fn detect(
    engine: EngineHandle,
    feedback: Arc<Feedback>,
    session: &str,
    profile: Profile,
    greys: Vec<u8>,
) -> Vec<DetectEvent> {
    let cancel = CancellationToken::new();
    let source = FakeSource::new(steps(&greys), cancel.clone());
    let (sender, mut events) = mpsc::channel(1);
    let detection = Detection {
        profile: Arc::new(profile),
        options: DetectOptions::default(),
        lane: Lane::Upload,
        max_delay: None,
        follow: None,
        recorder: Some(feedback.recorder(session, None)),
        trace: None,
    };
    let open = Box::new(move || Ok(Box::new(source) as Box<dyn MediaSource>));
    let running = tokio::spawn(run(open, detection, engine, sender, cancel));
    let mut told = Vec::new();
    while let Some(event) = events.recv().await {
        told.push(event);
    }
    running.await.unwrap().unwrap();
    told
}

/// What the model gives for a segment of this grey under one prompt, in a pass of its own.
async fn alone(engine: &EngineHandle, profile: &Profile, prompt: &str, grey: u8) -> Vec<f32> {
    let job = Job {
        clip: clip(grey),
        prompts: vec![prompt.to_owned()].into(),
        heads: HeadSelection::Only(profile.heads.clone()),
        lane: Lane::Offline,
        stream: engine.new_stream(),
        deadline: None,
        cancel: CancellationToken::new(),
        stages: None,
    };
    engine.submit(job).await.unwrap().await.unwrap().data
}

#[tokio::test]
async fn stored_samples_are_what_each_profiles_own_pass_gives() {
    let dir = tempfile::tempdir().unwrap();
    let options = FeedbackOptions {
        dir: dir.path().to_owned(),
        ring: Duration::from_secs(600),
        keep_after_end: Duration::from_secs(600),
        max_samples: 100,
    };
    let feedback = Arc::new(Feedback::open(options, SystemClock::shared()).unwrap());
    let engine = Engine::start(
        Box::new(FakeProbe::new()),
        EngineConfig {
            max_batch: 4,
            // So that the two share passes.
            batch_wait: Duration::from_millis(20),
            ..EngineConfig::default()
        },
    )
    .unwrap();
    let handle = engine.handle();
    // Two profiles of the same prompts: the heads of one, and others in another order.
    let one = profile();
    let mut other = profile();
    other.name = "other".into();
    other.heads = vec![HeadId { layer: 1, head: 1 }, HeadId { layer: 2, head: 1 }];
    let greys = [20, 30, 200, 210, 220, 230, 40, 50];
    let (first, second) = tokio::join!(
        detect(
            handle.clone(),
            feedback.clone(),
            "a",
            one.clone(),
            greys.to_vec()
        ),
        detect(
            handle.clone(),
            feedback.clone(),
            "b",
            other.clone(),
            greys.to_vec()
        ),
    );
    let mut expected = Vec::new();
    for (session, told) in [("a", &first), ("b", &second)] {
        for event in told {
            if let DetectEvent::EventEnded(event, ..) = event {
                let reported = feedback
                    .report(session, Statement::Confirmed(event.id))
                    .unwrap();
                assert_eq!(reported.missing, 0);
                let segments = event.first_frame / 4..=event.last_frame / 4;
                assert_eq!(reported.stored, segments.clone().count());
                expected.extend(segments.map(|n| (session, n as usize)));
            }
        }
    }
    for (session, profile) in [("a", &one), ("b", &other)] {
        let own: Vec<usize> = expected
            .iter()
            .filter(|(s, _)| *s == session)
            .map(|(_, n)| *n)
            .collect();
        // Both sides of the gap.
        assert!(
            own.iter().any(|n| *n < 4) && own.iter().any(|n| *n >= 4),
            "{own:?}"
        );
        for prompt in &profile.scoring_prompts {
            let found = feedback
                .store()
                .samples_for(FINGERPRINT, &profile.heads, prompt, 2)
                .unwrap();
            assert_eq!(found.unusable, expected.len() - own.len());
            let mut rows = Vec::new();
            for n in &own {
                let z = alone(&handle, profile, prompt, greys[*n]).await;
                rows.push((format!("{session}/{n}"), z));
            }
            let found = found.usable.into_iter().map(|s| (s.id, s.z));
            assert_eq!(found.collect::<Vec<_>>(), rows);
        }
    }
}
