//! The options for people through the wire: masks, the motion gate, snapshots, and which events are
//! told; and each refusal with its field.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test may

mod common;

use std::{sync::Arc, time::SystemTime};

use common::{
    detect::{Seen, detect, open, send_all},
    media::{FRAME, RawMedia, flash, video},
    server::{Client, TestServer},
    within,
};
use headhunt::{
    error::Result,
    media::{ChunkSource, Frame, MediaEvent, MediaSource},
    rpc::{
        OpenMedia,
        proto::{
            self, DetectOptions, EventEndReason, ScoreStage, detect_request::Message as Ask,
            detect_response::Message as Told,
        },
    },
    telemetry::exporter,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// Frames of a segment.
const N: u64 = 48;

fn opened(options: DetectOptions) -> proto::DetectRequest {
    let mut first = open("");
    if let Some(Ask::Open(open)) = &mut first.message {
        open.options = Some(options);
    }
    first
}

async fn seen(client: &mut Client, options: DetectOptions, bytes: &[u8]) -> Seen {
    detect(client, opened(options), bytes, 1000).await.unwrap()
}

fn polygon(points: &[(f64, f64)]) -> proto::Polygon {
    proto::Polygon {
        points: points.iter().map(|&(x, y)| proto::Point { x, y }).collect(),
    }
}

fn whole() -> proto::Polygon {
    polygon(&[(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)])
}

fn left() -> proto::Polygon {
    polygon(&[(0.0, 0.0), (0.5, 0.0), (0.5, 1.0), (0.0, 1.0)])
}

fn seconds(seconds: f64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration {
        seconds: seconds as i64,
        nanos: (seconds.fract() * 1e9) as i32,
    })
}

fn p(seen: &Seen) -> Vec<f64> {
    let finals = seen.scores(ScoreStage::Final);
    finals.iter().map(|s| s.frames[0].probability).collect()
}

/// What is told of events: a word and the id each.
fn told(seen: &Seen) -> Vec<String> {
    seen.messages
        .iter()
        .filter_map(|message| {
            let (word, event) = match message {
                Told::EventStarted(m) => ("start".to_owned(), &m.event),
                Told::EventUpdated(m) => ("update".to_owned(), &m.event),
                Told::EventEnded(m) => (format!("{:?}", m.reason()), &m.event),
                _ => return None,
            };
            let event = event.as_ref().unwrap();
            let mark = if event.provisional { "?" } else { "" };
            Some(format!("{word} {}{mark}", event.id))
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_masked_picture_is_black_for_the_model() {
    let server = TestServer::start("").await;
    let mut client = server.client().await;
    let bright = video(&[240; 48 * 4]);
    let plain = seen(&mut client, DetectOptions::default(), &bright).await;
    let black = seen(&mut client, DetectOptions::default(), &video(&[0; 48 * 4])).await;
    let masked = DetectOptions {
        masks: vec![whole()],
        ..Default::default()
    };
    let masked = seen(&mut client, masked, &bright).await;
    masked.check_frames(4 * N);
    assert_eq!(p(&masked), p(&black));
    assert_eq!((plain.summary().events, masked.summary().events), (1, 0));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_motion_gate_spares_the_model_and_says_so() {
    let server = TestServer::start("").await;
    let mut client = server.client().await;
    let bytes = flash(6, 3, 11);
    let plain = seen(&mut client, DetectOptions::default(), &bytes).await;
    assert_eq!(plain.summary().segments_gated, 0);
    let before = server.probe.passed();
    let gated = DetectOptions {
        motion_gate: Some(proto::MotionGate::default()),
        ..Default::default()
    };
    let gated = seen(&mut client, gated, &bytes).await;
    gated.check_frames(15 * N + 11);
    // Dark, bright, dark.
    assert_eq!(server.probe.passed() - before, 3);
    assert_eq!(gated.summary().segments_gated, 13);
    let scored: Vec<u64> = gated
        .scores(ScoreStage::Final)
        .iter()
        .filter(|scores| !scores.gated)
        .map(|scores| scores.segment)
        .collect();
    assert_eq!(scored, [0, 6, 9]);
    // Nothing moved at all, so the scores are the same to the bit, and so are the events.
    assert_eq!(p(&gated), p(&plain));
    assert_eq!(gated.ended_events(), plain.ended_events());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_brings_a_picture_where_asked_for() {
    let server = TestServer::start("").await;
    let mut client = server.client().await;
    let bytes = flash(3, 3, 0);
    let plain = seen(&mut client, DetectOptions::default(), &bytes).await;
    assert_eq!(plain.ended_events()[0].snapshot, None);
    let asked = |masks: Vec<proto::Polygon>, max_bytes: u32| DetectOptions {
        snapshots: Some(proto::Snapshots {
            max_side: 0,
            max_bytes,
        }),
        masks,
        ..Default::default()
    };
    let with = seen(&mut client, asked(vec![], 0), &bytes).await;
    let snapshot = with.ended_events()[0].snapshot.clone().unwrap();
    assert!(snapshot.jpeg.len() <= 65_536);
    assert_eq!(snapshot.jpeg[..3], [0xff, 0xd8, 0xff]);
    // The middle sampled frame of the second bright segment, whose p′ is the largest.
    assert_eq!(snapshot.frame_index, 4 * N + 25);
    let pts = snapshot.pts.unwrap();
    assert_eq!(
        pts.seconds * 1_000_000_000 + i64::from(pts.nanos),
        snapshot.frame_index as i64 * FRAME
    );
    // Nothing that small is a JPEG.
    let none = seen(&mut client, asked(vec![], 100), &bytes).await;
    assert_eq!(none.ended_events()[0].snapshot, None);
    let half = seen(&mut client, asked(vec![left()], 0), &bytes).await;
    assert_eq!(half.summary().events, 0, "half of it is too dark");
    server.stop().await;
}

#[cfg(feature = "video")]
#[tokio::test(flavor = "multi_thread")]
async fn the_picture_can_be_decoded_and_shows_what_is_not_masked() {
    let server = TestServer::start("").await;
    let mut client = server.client().await;
    // A strip of the picture, so that it stays bright enough for an event.
    let strip = polygon(&[(0.0, 0.0), (0.25, 0.0), (0.25, 1.0), (0.0, 1.0)]);
    let options = DetectOptions {
        snapshots: Some(proto::Snapshots::default()),
        masks: vec![strip],
        ..Default::default()
    };
    let seen = seen(&mut client, options, &flash(3, 3, 0)).await;
    let snapshot = seen.ended_events()[0].snapshot.clone().unwrap();
    let rgb = tokio::task::spawn_blocking(move || common::clips::decode_jpeg(&snapshot.jpeg))
        .await
        .unwrap();
    assert_eq!(rgb.len(), 16 * 16 * 3);
    for row in rgb.chunks(16 * 3) {
        assert!(row[..3 * 3].iter().all(|v| *v < 40), "{row:?}");
        assert!(row[6 * 3..].iter().all(|v| *v > 200), "{row:?}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn short_events_are_not_reported() {
    let server = TestServer::start("").await;
    let mut client = server.client().await;
    let levels = [10, 240, 10, 10, 240, 240, 240, 10, 10];
    let bytes = video(&levels.map(|level| [level; 48]).concat());
    let plain = seen(&mut client, DetectOptions::default(), &bytes).await;
    assert_eq!(plain.summary().events, 2);
    let options = DetectOptions {
        min_event_duration: seconds(4.8),
        ..Default::default()
    };
    let seen = seen(&mut client, options, &bytes).await;
    assert_eq!(told(&seen), ["start 0", "BelowThreshold 0"]);
    assert_eq!(seen.summary().events, 1);
    // It is the whole event.
    let event = seen.ended_events()[0].event.clone().unwrap();
    assert_eq!((event.first_frame, event.last_frame), (4 * N, 7 * N - 1));
    assert_eq!(
        event,
        proto::Event {
            id: "0".into(),
            ..plain.ended_events()[1].event.clone().unwrap()
        }
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_an_event_there_is_quiet_for_the_cooldown() {
    let server = TestServer::start("").await;
    let mut client = server.client().await;
    let levels = [240, 10, 10, 240, 10, 10, 240, 10, 10, 240, 10];
    let bytes = video(&levels.map(|level| [level; 48]).concat());
    let plain = seen(&mut client, DetectOptions::default(), &bytes).await;
    assert_eq!(plain.summary().events, 4);
    // The first ends at 1.6 s; what ends before 8 s is not told.
    let options = DetectOptions {
        event_cooldown: seconds(6.4),
        ..Default::default()
    };
    let seen = seen(&mut client, options, &bytes).await;
    let starts: Vec<u64> = seen
        .ended_events()
        .iter()
        .map(|ended| ended.event.as_ref().unwrap().first_frame / N)
        .collect();
    assert_eq!(starts, [0, 6]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn provisional_events_come_before_their_final_scores() {
    let server = TestServer::start("").await;
    let mut client = server.client().await;
    // The first bright segment is smoothed away: σ is 0.5 and its level just over the threshold.
    let levels = [10, 10, 10, 135, 10, 10, 10, 240, 240, 240, 10, 10, 10];
    let bytes = video(&levels.map(|level| [level; 48]).concat());
    let options = DetectOptions {
        provisional_events: true,
        ..Default::default()
    };
    let seen = seen(&mut client, options, &bytes).await;
    assert_eq!(
        told(&seen),
        [
            "start 0?",
            "NotConfirmed 0?",
            "start 1?",
            "update 1",
            "update 1",
            "update 1",
            "BelowThreshold 1"
        ]
    );
    assert_eq!(seen.summary().events, 1);
    assert_eq!(
        seen.ended_events()[0].reason(),
        EventEndReason::NotConfirmed
    );
    let place = |wanted: &dyn Fn(&Told) -> bool| seen.messages.iter().position(wanted).unwrap();
    let started = place(
        &|m| matches!(m, Told::EventStarted(s) if s.event.as_ref().is_some_and(|e| e.id == "1")),
    );
    let scored = place(&|m| matches!(m, Told::FrameScores(s) if s.segment == 7));
    assert!(started < scored, "{started} {scored}");
    server.stop().await;
}

fn field(status: &Status) -> String {
    let details = status.get_error_details();
    let violations = details.bad_request().map(|b| b.field_violations.clone());
    violations
        .unwrap_or_default()
        .first()
        .map(|v| v.field.clone())
        .unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_asked_for_is_refused_by_its_field() {
    let server = TestServer::start("").await;
    let mut client = server.client().await;
    let snapshots = |max_side, max_bytes| DetectOptions {
        snapshots: Some(proto::Snapshots {
            max_side,
            max_bytes,
        }),
        ..Default::default()
    };
    let gate = |threshold| DetectOptions {
        motion_gate: Some(proto::MotionGate { threshold }),
        ..Default::default()
    };
    let masks = |masks| DetectOptions {
        masks,
        ..Default::default()
    };
    let min = |s| DetectOptions {
        min_event_duration: seconds(s),
        ..Default::default()
    };
    let cooldown = |s| DetectOptions {
        event_cooldown: seconds(s),
        ..Default::default()
    };
    let point = (0.5, 0.5);
    for (options, expected) in [
        (snapshots(1921, 0), "snapshots.max_side"),
        (snapshots(0, 524_289), "snapshots.max_bytes"),
        (gate(1.5), "motion_gate.threshold"),
        (gate(-0.5), "motion_gate.threshold"),
        (gate(f64::NAN), "motion_gate.threshold"),
        (masks(vec![whole(); 33]), "masks"),
        (
            masks(vec![whole(), whole(), polygon(&[point; 2])]),
            "masks[2].points",
        ),
        (masks(vec![polygon(&[point; 65])]), "masks[0].points"),
        (
            masks(vec![polygon(&[point, point, (f64::NAN, 0.0)])]),
            "masks[0].points[2].x",
        ),
        (
            masks(vec![polygon(&[point, (0.0, 1.5), point])]),
            "masks[0].points[1].y",
        ),
        (min(3600.5), "min_event_duration"),
        (min(-1.0), "min_event_duration"),
        (cooldown(86_400.5), "event_cooldown"),
        (cooldown(-1.0), "event_cooldown"),
    ] {
        let status = send_all(&mut client, vec![opened(options.clone())])
            .await
            .unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{expected}");
        assert_eq!(field(&status), format!("open.options.{expected}"));
        assert!(!status.message().is_empty());
        let watch = proto::WatchRequest {
            source: Some(proto::UriSource {
                uri: "rtsp://camera.example/1".into(),
                ..Default::default()
            }),
            options: Some(options),
            ..Default::default()
        };
        // The refusal may come with the headers or after them.
        let status = match within("watch", client.watch(watch)).await {
            Ok(responses) => {
                let mut responses = responses.into_inner();
                within("status", responses.message()).await.unwrap_err()
            }
            Err(status) => status,
        };
        assert_eq!(status.code(), Code::InvalidArgument, "{expected}");
        assert_eq!(field(&status), format!("options.{expected}"));
    }
    server.is_as_it_was().await;
    server.stop().await;
}

/// Frames that arrive now, as a camera's do.
struct Arriving;

impl OpenMedia for Arriving {
    fn open_upload(
        &self,
        chunks: Box<dyn ChunkSource>,
        cancel: CancellationToken,
    ) -> Result<Box<dyn MediaSource>> {
        Ok(Box::new(ArrivingSource(
            RawMedia.open_upload(chunks, cancel)?,
        )))
    }
}

struct ArrivingSource(Box<dyn MediaSource>);

impl MediaSource for ArrivingSource {
    fn next_event(&mut self) -> Result<Option<MediaEvent>> {
        Ok(self.0.next_event()?.map(|event| match event {
            MediaEvent::Frame(frame) => MediaEvent::Frame(Frame {
                received: Some(SystemTime::now()),
                ..frame
            }),
            other => other,
        }))
    }
}

async fn scrape(address: std::net::SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream
        .write_all(b"GET /metrics HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    within("metrics", stream.read_to_string(&mut answer))
        .await
        .unwrap();
    answer
}

fn value(text: &str, series: &str) -> f64 {
    text.lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))
        .map_or(0.0, |value| value.parse().unwrap())
}

/// The recorder is the process's, so other tests of this file count too; they have no arrival times.
#[tokio::test(flavor = "multi_thread")]
async fn the_delay_of_alerts_is_measured_where_arrivals_are_known() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    exporter::start(address).unwrap();
    let server = TestServer::with("", Arc::new(Arriving)).await;
    let mut client = server.client().await;
    let bytes = flash(3, 3, 0);
    for (options, count) in [
        (DetectOptions::default(), 1.0),
        (
            DetectOptions {
                provisional_events: true,
                ..Default::default()
            },
            2.0,
        ),
        (
            DetectOptions {
                motion_gate: Some(proto::MotionGate::default()),
                min_event_duration: seconds(3.2),
                ..Default::default()
            },
            3.0,
        ),
        // None is told, so there is nothing to measure.
        (
            DetectOptions {
                min_event_duration: seconds(3600.0),
                ..Default::default()
            },
            3.0,
        ),
    ] {
        seen(&mut client, options, &bytes).await;
        let text = scrape(address).await;
        let counted = value(&text, "headhunt_alert_delay_seconds_count");
        assert_eq!(counted, count, "{text}");
    }
    let text = scrape(address).await;
    for bucket in exporter::ALERT_BUCKETS_S {
        let series = format!(r#"headhunt_alert_delay_seconds_bucket{{le="{bucket}"}}"#);
        assert!(text.contains(&series), "{series} in\n{text}");
    }
    let sum = value(&text, "headhunt_alert_delay_seconds_sum");
    assert!(sum > 0.0 && sum < 60.0, "{sum}");
    assert!(value(&text, r#"headhunt_segments_total{outcome="gated"}"#) >= 6.0);
    server.stop().await;
}
