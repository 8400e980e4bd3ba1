//! `ReportFeedback` through the wire: what a verdict stores, what a restart keeps, and what each bad
//! one is answered with.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test may

mod common;

use std::{path::Path, sync::Arc, time::Duration};

use common::{
    detect::{Call, Seen, chunk, detect, open},
    eventually,
    media::{FRAME, RawMedia, flash, video},
    probe::{HEADS, SIDE, fingerprint},
    server::{Client, TestServer},
    within,
};
use headhunt::{
    engine::{Job, Lane, probe::Clip},
    error::Result,
    feedback::{FeedbackSamples, FeedbackStore},
    head::HeadSelection,
    media::{ChunkEvent, ChunkSource, MediaSource, SharedImage},
    rpc::{
        OpenMedia, UriSource,
        proto::{
            self, FeedbackVerdict, ReportFeedbackRequest, ReportFeedbackResponse,
            detect_request::Message as Ask, detect_response::Message as Told, watch_response,
        },
    },
};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// The prompt of the test's profiles.
const PROMPT: &str = "Is it bright?";

fn toml(dir: &Path, more: &str) -> String {
    format!("[feedback]\ndir = '{}'\n{more}", dir.display())
}

fn on_event(session: &str, event: &str, verdict: FeedbackVerdict) -> ReportFeedbackRequest {
    ReportFeedbackRequest {
        session_id: session.into(),
        event_id: event.into(),
        verdict: verdict.into(),
        ..Default::default()
    }
}

/// From one frame to another, exclusive.
fn missed(session: &str, from: i64, to: i64) -> ReportFeedbackRequest {
    let at = |frame: i64| {
        Some(prost_types::Duration {
            seconds: frame * FRAME / 1_000_000_000,
            nanos: (frame * FRAME % 1_000_000_000) as i32,
        })
    };
    ReportFeedbackRequest {
        session_id: session.into(),
        verdict: FeedbackVerdict::MissedInterval.into(),
        start: at(from),
        end: at(to),
        ..Default::default()
    }
}

async fn report(
    client: &mut Client,
    request: ReportFeedbackRequest,
) -> Result<ReportFeedbackResponse, Status> {
    let response = within("ReportFeedback", client.report_feedback(request)).await;
    response.map(tonic::Response::into_inner)
}

/// Segments stored and missing.
async fn counts(client: &mut Client, request: ReportFeedbackRequest) -> (u32, u32) {
    let response = report(client, request).await.unwrap();
    (response.segments_stored, response.segments_missing)
}

fn field(status: &Status) -> String {
    let details = status.get_error_details();
    let violations = details.bad_request().map(|b| b.field_violations.clone());
    let first = violations.unwrap_or_default().into_iter().next();
    first.map(|v| v.field).unwrap_or_default()
}

fn samples(store: &FeedbackStore) -> FeedbackSamples {
    store
        .samples_for(&fingerprint(3), &HEADS, PROMPT, 16)
        .unwrap()
}

/// What the model gives for a segment of this brightness.
async fn features(server: &TestServer, level: u8) -> Vec<f32> {
    let frame = SharedImage::square(SIDE as u32, vec![level; SIDE * SIDE * 3]);
    let job = Job {
        clip: Clip {
            frames: vec![frame; 16],
        },
        prompts: vec![PROMPT.to_owned()].into(),
        heads: HeadSelection::Only(HEADS.to_vec()),
        lane: Lane::Offline,
        stream: server.engine.new_stream(),
        deadline: None,
        cancel: CancellationToken::new(),
        stages: None,
    };
    let ticket = server.engine.submit(job).await.unwrap();
    within("features", ticket).await.unwrap().data
}

/// 48-frame segments of these levels.
fn segments(levels: &[u8]) -> Vec<u8> {
    video(&levels.iter().flat_map(|l| [*l; 48]).collect::<Vec<_>>())
}

async fn seen(client: &mut Client, bytes: &[u8]) -> Seen {
    detect(client, open(""), bytes, 1000).await.unwrap()
}

/// Waits until the server that was stopped has let go of the directory.
async fn freed(dir: &Path) {
    eventually("the directory is free", || async {
        FeedbackStore::open(dir, 100).is_ok()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn verdicts_become_samples_equal_to_what_the_model_gave_and_outlive_the_server() {
    let dir = tempfile::tempdir().unwrap();
    let settings = toml(dir.path(), "");
    let server = TestServer::start(&settings).await;
    let mut client = server.client().await;
    let levels = [10, 20, 230, 240, 250, 30, 40, 235, 50];
    let seen = seen(&mut client, &segments(&levels)).await;
    let session = &seen.opened().session_id;
    let ids: Vec<String> = seen
        .ended_events()
        .iter()
        .map(|ended| ended.event.as_ref().unwrap().id.clone())
        .collect();
    assert_eq!(ids, ["0", "1"]);

    let verdict = on_event(session, "0", FeedbackVerdict::Confirmed);
    assert_eq!(counts(&mut client, verdict).await, (3, 0));
    let verdict = on_event(session, "1", FeedbackVerdict::FalseAlarm);
    assert_eq!(counts(&mut client, verdict).await, (1, 0));
    // From the middle of segment 0 to the first frame of segment 1.
    let verdict = missed(session, 20, 49);
    assert_eq!(counts(&mut client, verdict).await, (2, 0));

    let mut expected = Vec::new();
    for (segment, anomaly) in [
        (2, true),
        (3, true),
        (4, true),
        (7, false),
        (0, true),
        (1, true),
    ] {
        let z = features(&server, levels[segment]).await;
        expected.push((format!("{session}/{segment}"), z, anomaly));
    }
    let check = |found: FeedbackSamples| {
        assert_eq!(found.unusable, 0);
        assert!(found.usable.iter().all(|sample| sample.group == *session));
        let found = found.usable.into_iter();
        let found: Vec<_> = found.map(|s| (s.id, s.z, s.anomaly)).collect();
        assert_eq!(found, expected);
    };
    check(samples(&server.feedback.as_ref().unwrap().store()));
    drop(client);
    server.stop().await;
    freed(dir.path()).await;

    let server = TestServer::start(&settings).await;
    let store = server.feedback.as_ref().unwrap().store();
    check(samples(&store));
    // Of another hunt: counted, not given.
    let found = store
        .samples_for(&fingerprint(3), &HEADS[..1], PROMPT, 16)
        .unwrap();
    assert_eq!((found.usable.len(), found.unusable), (0, 6));
    // The detection went with the old server.
    let mut client = server.client().await;
    let verdict = on_event(session, "0", FeedbackVerdict::FalseAlarm);
    let status = report(&mut client, verdict).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    drop((client, store));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_later_verdict_replaces_the_earlier_one() {
    let dir = tempfile::tempdir().unwrap();
    let server = TestServer::start(&toml(dir.path(), "")).await;
    let mut client = server.client().await;
    let seen = seen(&mut client, &flash(2, 3, 0)).await;
    let session = &seen.opened().session_id;
    let store = server.feedback.as_ref().unwrap().store();
    for (verdict, anomaly) in [
        (FeedbackVerdict::FalseAlarm, false),
        (FeedbackVerdict::Confirmed, true),
        (FeedbackVerdict::Confirmed, true),
        (FeedbackVerdict::FalseAlarm, false),
    ] {
        let verdict = on_event(session, "0", verdict);
        assert_eq!(counts(&mut client, verdict).await, (3, 0));
        let found = samples(&store).usable;
        assert_eq!(found.len(), 3);
        assert!(found.iter().all(|sample| sample.anomaly == anomaly));
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_detection_that_still_runs_gets_verdicts() {
    let dir = tempfile::tempdir().unwrap();
    let server = TestServer::start(&toml(dir.path(), "")).await;
    let mut client = server.client().await;
    let mut call = Call::begin(&mut client).await.unwrap();
    call.send(open("")).await;
    // Enough behind the event that its last score is final.
    call.send(chunk(&flash(6, 4, 0))).await;
    let mut session = String::new();
    let event = loop {
        match call.next().await.unwrap().unwrap() {
            Told::Opened(opened) => session = opened.session_id,
            Told::EventEnded(ended) => break ended.event.unwrap(),
            _ => {}
        }
    };
    let verdict = on_event(&session, &event.id, FeedbackVerdict::Confirmed);
    assert_eq!(counts(&mut client, verdict).await, (4, 0));
    assert_eq!(server.load().await.streams, 1);
    call.finish().await.unwrap();
    server.stop().await;
}

/// Files that are not there: `file:///srv/clip` is a bright flash.
struct Files;

struct Whole(Option<Vec<u8>>);

impl ChunkSource for Whole {
    fn next_chunk(&mut self, _: Duration) -> Result<ChunkEvent> {
        let bytes = self.0.take();
        Ok(bytes.map_or(ChunkEvent::End, |bytes| ChunkEvent::Bytes(bytes.into())))
    }
}

impl OpenMedia for Files {
    fn open_upload(
        &self,
        chunks: Box<dyn ChunkSource>,
        cancel: CancellationToken,
    ) -> Result<Box<dyn MediaSource>> {
        RawMedia.open_upload(chunks, cancel)
    }

    fn open_uri(
        &self,
        _: UriSource,
        _: CancellationToken,
        cancel: CancellationToken,
    ) -> Result<Box<dyn MediaSource>> {
        let clip = Whole(Some(flash(2, 2, 0)));
        RawMedia.open_upload(Box::new(clip), cancel)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn watched_sources_get_verdicts_and_are_grouped_by_source() {
    let dir = tempfile::tempdir().unwrap();
    let settings = toml(
        dir.path(),
        "[sources]\nschemes = ['file']\nfile_roots = ['/srv']",
    );
    let server = TestServer::with(&settings, Arc::new(Files)).await;
    let mut client = server.client().await;
    for _ in 0..2 {
        let request = proto::WatchRequest {
            source: Some(proto::UriSource {
                uri: "file:///srv/clip".into(),
                ..Default::default()
            }),
            ..Default::default()
        };
        let mut responses = within("headers", client.watch(request))
            .await
            .unwrap()
            .into_inner();
        let (mut session, mut event) = (String::new(), String::new());
        while let Some(response) = within("response", responses.message()).await.unwrap() {
            match response.message.unwrap() {
                watch_response::Message::Opened(opened) => session = opened.session_id,
                watch_response::Message::EventEnded(ended) => event = ended.event.unwrap().id,
                _ => {}
            }
        }
        let verdict = on_event(&session, &event, FeedbackVerdict::FalseAlarm);
        assert_eq!(counts(&mut client, verdict).await, (2, 0));
    }
    let found = samples(&server.feedback.as_ref().unwrap().store()).usable;
    assert_eq!(found.len(), 4);
    assert!(found.iter().all(|sample| sample.group == "/srv/clip"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_ring_has_let_go_is_counted_as_missing() {
    let dir = tempfile::tempdir().unwrap();
    // Four segments of 1.6 s: the newest and three before it.
    let settings = toml(dir.path(), "ring_minutes = 0.08\n");
    let server = TestServer::start(&settings).await;
    let mut client = server.client().await;
    let seen = seen(&mut client, &flash(3, 4, 0)).await;
    let session = &seen.opened().session_id;
    // Segments 3 to 6 of 10; 6 to 9 are there.
    let verdict = on_event(session, "0", FeedbackVerdict::Confirmed);
    assert_eq!(counts(&mut client, verdict).await, (1, 3));
    let verdict = missed(session, 0, 10 * 48);
    assert_eq!(counts(&mut client, verdict).await, (4, 6));
    let verdict = missed(session, 0, 48);
    assert_eq!(counts(&mut client, verdict).await, (0, 1));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn segments_that_repeat_a_score_have_no_features_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let server = TestServer::start(&toml(dir.path(), "")).await;
    let mut client = server.client().await;
    let mut first = open("");
    if let Some(Ask::Open(open)) = &mut first.message {
        open.options = Some(proto::DetectOptions {
            motion_gate: Some(proto::MotionGate::default()),
            ..Default::default()
        });
    }
    let seen = detect(&mut client, first, &flash(2, 4, 0), 1000)
        .await
        .unwrap();
    let gated = seen.summary().segments_gated;
    assert!(gated > 0);
    let session = &seen.opened().session_id;
    let verdict = missed(session, 0, 8 * 48);
    let (stored, missing) = counts(&mut client, verdict).await;
    assert_eq!((stored + missing, u64::from(missing)), (8, gated));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_bad_verdict_is_refused_with_its_field() {
    let dir = tempfile::tempdir().unwrap();
    let server = TestServer::start(&toml(dir.path(), "")).await;
    let mut client = server.client().await;
    let seen = seen(&mut client, &flash(2, 2, 0)).await;
    let session = &seen.opened().session_id;
    let confirmed =
        |session: &str, event: &str| on_event(session, event, FeedbackVerdict::Confirmed);
    let with = |mut request: ReportFeedbackRequest, change: fn(&mut ReportFeedbackRequest)| {
        change(&mut request);
        request
    };
    let bad_time = |seconds, nanos| Some(prost_types::Duration { seconds, nanos });
    let mut far = missed(session, 0, 48);
    far.end = bad_time(i64::MAX, 0);
    let mut signs = missed(session, 0, 48);
    signs.end = bad_time(1, -5);
    let stranger = "0".repeat(32);
    for (request, code, wrong) in [
        (confirmed("", "0"), Code::InvalidArgument, "session_id"),
        (
            confirmed(&"a".repeat(65), "0"),
            Code::InvalidArgument,
            "session_id",
        ),
        (confirmed(&stranger, "0"), Code::NotFound, "session_id"),
        (confirmed(session, "7"), Code::NotFound, "event_id"),
        (confirmed(session, "00"), Code::NotFound, "event_id"),
        (confirmed(session, "first"), Code::NotFound, "event_id"),
        (confirmed(session, ""), Code::InvalidArgument, "event_id"),
        (
            confirmed(session, &"1".repeat(65)),
            Code::InvalidArgument,
            "event_id",
        ),
        (
            on_event(session, "0", FeedbackVerdict::Unspecified),
            Code::InvalidArgument,
            "verdict",
        ),
        (
            with(confirmed(session, "0"), |r| r.verdict = 99),
            Code::InvalidArgument,
            "verdict",
        ),
        (
            with(confirmed(session, "0"), |r| {
                r.start = Some(prost_types::Duration::default());
            }),
            Code::InvalidArgument,
            "start",
        ),
        (
            with(confirmed(session, "0"), |r| {
                r.end = Some(prost_types::Duration::default());
            }),
            Code::InvalidArgument,
            "end",
        ),
        (
            with(missed(session, 0, 48), |r| r.event_id = "0".into()),
            Code::InvalidArgument,
            "event_id",
        ),
        (
            with(missed(session, 0, 48), |r| r.start = None),
            Code::InvalidArgument,
            "start",
        ),
        (
            with(missed(session, 0, 48), |r| r.end = None),
            Code::InvalidArgument,
            "end",
        ),
        (missed(session, 48, 48), Code::InvalidArgument, "end"),
        (missed(session, 48, 10), Code::InvalidArgument, "end"),
        (far, Code::InvalidArgument, "end"),
        (signs, Code::InvalidArgument, "end"),
        // The media has 288 frames.
        (missed(session, 300, 400), Code::InvalidArgument, "start"),
        (missed(&stranger, 0, 48), Code::NotFound, "session_id"),
    ] {
        let shown = format!("{request:?}");
        let status = report(&mut client, request).await.unwrap_err();
        assert_eq!(status.code(), code, "{shown}: {status:?}");
        assert_eq!(field(&status), wrong, "{shown}: {status:?}");
    }
    // None of them stored anything, and a good one still does.
    let store = server.feedback.as_ref().unwrap().store();
    assert!(store.is_empty());
    let verdict = confirmed(session, "0");
    assert_eq!(counts(&mut client, verdict).await, (2, 0));
    server.is_as_it_was().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_directory_or_a_ring_there_is_no_feedback() {
    let dir = tempfile::tempdir().unwrap();
    for (settings, key) in [
        (String::new(), "feedback.dir"),
        (
            toml(dir.path(), "ring_minutes = 0.0\n"),
            "feedback.ring_minutes",
        ),
    ] {
        let server = TestServer::start(&settings).await;
        let mut client = server.client().await;
        let seen = seen(&mut client, &flash(2, 2, 0)).await;
        let verdict = on_event(&seen.opened().session_id, "0", FeedbackVerdict::Confirmed);
        let status = report(&mut client, verdict).await.unwrap_err();
        assert_eq!(status.code(), Code::FailedPrecondition);
        assert!(status.message().contains(key), "{status:?}");
        server.stop().await;
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_detection_is_forgotten_after_its_time() {
    let dir = tempfile::tempdir().unwrap();
    let settings = toml(dir.path(), "keep_after_end_s = 0.0\n");
    let server = TestServer::start(&settings).await;
    let mut client = server.client().await;
    let seen = seen(&mut client, &flash(2, 2, 0)).await;
    let session = &seen.opened().session_id;
    // Its task may end a moment after its last message.
    eventually("idle", || server.is_idle()).await;
    let verdict = on_event(session, "0", FeedbackVerdict::Confirmed);
    let status = report(&mut client, verdict).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    assert_eq!(field(&status), "session_id");
    server.stop().await;
}
