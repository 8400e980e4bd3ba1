//! `/metrics` over HTTP, in a process of its own: the recorder is the process's.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test may

mod common;

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use common::{
    detect::{Call, chunk, detect, open, send_all},
    eventually,
    media::{RawMedia, flash, video},
    server::TestServer,
    within,
};
use headhunt::{
    error::{Error, Result},
    media::{
        ChunkSource, Frame, FrameStamp, Gap, GapReason, MediaEvent, MediaInfo, MediaSource,
        MediaTime, Picture, RgbImage, SourceState,
    },
    rpc::{
        OpenMedia, UriSource,
        proto::{self, watch_response::Message as Watched},
    },
    telemetry::exporter,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_util::sync::CancellationToken;

/// The whole answer.
async fn http(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let text = format!("{request} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = String::new();
    within("answer", stream.read_to_string(&mut answer))
        .await
        .unwrap();
    answer
}

async fn scrape(address: SocketAddr) -> String {
    let answer = http(address, "GET /metrics").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    answer
}

/// The value of the series that begins with these words.
fn value(text: &str, series: &str) -> Option<f64> {
    text.lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))
        .map(|value| value.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_have_the_series_with_the_stated_buckets() {
    // The exporter binds by itself: a port that was free a moment ago.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    exporter::start(address).unwrap();
    assert!(exporter::start(address).is_err());
    let dir = tempfile::tempdir().unwrap();
    let toml = format!("feedback.dir = '{}'", dir.path().display());
    let server = TestServer::start(&toml).await;
    let mut client = server.client().await;

    let bytes = flash(2, 2, 5);
    let seen = detect(&mut client, open(""), &bytes, 33).await.unwrap();
    send_all(&mut client, vec![chunk(b"x")]).await.unwrap_err();
    send_all(&mut client, vec![open("nobody")])
        .await
        .unwrap_err();
    eventually("idle", || server.is_idle()).await;

    let text = scrape(address).await;
    let is = |series: &str, expected: f64| {
        assert_eq!(value(&text, series), Some(expected), "{series} in\n{text}");
    };
    is(r#"headhunt_rpcs_total{method="Detect",code="ok"}"#, 1.0);
    is(
        r#"headhunt_rpcs_total{method="Detect",code="invalid_argument"}"#,
        1.0,
    );
    is(
        r#"headhunt_rpcs_total{method="Detect",code="not_found"}"#,
        1.0,
    );
    for state in ["opening", "scoring", "interrupted"] {
        is(&format!(r#"headhunt_streams{{state="{state}"}}"#), 0.0);
    }
    is("headhunt_streams_limit", 64.0);
    is("headhunt_serving", 1.0);
    is("headhunt_live_segments_per_second", 0.0);
    is(r#"headhunt_jobs{state="queued"}"#, 0.0);
    is(r#"headhunt_jobs{state="running"}"#, 0.0);
    let build = format!(
        r#"headhunt_build_info{{version="{}",revision="unknown",cuda="false"}}"#,
        env!("CARGO_PKG_VERSION")
    );
    is(&build, 1.0);
    for (series, at_least) in [
        ("headhunt_process_resident_memory_bytes", 1e6),
        ("headhunt_process_open_fds", 4.0),
        ("headhunt_process_threads", 2.0),
        ("headhunt_process_start_time_seconds", 1.6e9),
        (r#"headhunt_device_memory_bytes{kind="used"}"#, 1e6),
        (r#"headhunt_device_memory_bytes{kind="total"}"#, 1e8),
    ] {
        let found = value(&text, series).unwrap_or_default();
        assert!(found >= at_least, "{series} is {found} in\n{text}");
    }
    let version = server.profiles.active().unwrap().version().to_owned();
    is(
        &format!(r#"headhunt_profile_info{{profile="cam",version="{version}"}}"#),
        1.0,
    );
    is("headhunt_upload_bytes_total", bytes.len() as f64);
    is("headhunt_stream_duration_seconds_count", 3.0);
    // 7 of the upload; the warm-up pass is no segment.
    is(r#"headhunt_segments_total{outcome="scored"}"#, 7.0);
    is(r#"headhunt_queue_depth_segments{lane="upload"}"#, 0.0);
    is(r#"headhunt_queue_wait_seconds_count{lane="upload"}"#, 7.0);
    for bucket in exporter::WAIT_BUCKETS_S {
        let series =
            format!(r#"headhunt_queue_wait_seconds_bucket{{lane="upload",le="{bucket}"}}"#);
        assert!(value(&text, &series).is_some(), "{series} in\n{text}");
    }
    is(
        r#"headhunt_queue_wait_seconds_bucket{lane="upload",le="+Inf"}"#,
        7.0,
    );
    for stage in ["decode", "preprocess", "pass", "score"] {
        for bucket in exporter::STAGE_BUCKETS_S {
            let series =
                format!(r#"headhunt_stage_seconds_bucket{{stage="{stage}",le="{bucket}"}}"#);
            assert!(value(&text, &series).is_some(), "{series} in\n{text}");
        }
    }
    for (series, kind) in [
        ("headhunt_segments_total", "counter"),
        ("headhunt_streams", "gauge"),
        ("headhunt_queue_wait_seconds", "histogram"),
        ("headhunt_stage_seconds", "histogram"),
        ("headhunt_stream_duration_seconds", "histogram"),
    ] {
        assert!(
            text.contains(&format!("# HELP {series} ")),
            "{series} in\n{text}"
        );
        assert!(
            text.contains(&format!("# TYPE {series} {kind}\n")),
            "{series} in\n{text}"
        );
    }
    // Every series is ours.
    let strange = text.split_once("\r\n\r\n").unwrap().1.lines().find(|line| {
        line.contains('{') && !line.starts_with("headhunt_") && !line.starts_with('#')
    });
    assert_eq!(strange, None);

    // Verdicts: an event that was one after all, an interval, and one on nothing.
    let mut verdict = proto::ReportFeedbackRequest {
        session_id: seen.opened().session_id.clone(),
        event_id: "0".into(),
        ..Default::default()
    };
    for judged in [
        proto::FeedbackVerdict::FalseAlarm,
        proto::FeedbackVerdict::Confirmed,
    ] {
        verdict.verdict = judged.into();
        let report = client.report_feedback(verdict.clone());
        within("ReportFeedback", report).await.unwrap();
    }
    verdict.event_id = "9".into();
    let report = client.report_feedback(verdict);
    within("ReportFeedback", report).await.unwrap_err();
    let store = server.feedback.as_ref().unwrap().store();
    store.samples_for("another model", &[], "", 16).unwrap();
    let text = scrape(address).await;
    let is = |series: &str, expected: f64| {
        assert_eq!(value(&text, series), Some(expected), "{series} in\n{text}");
    };
    is(
        r#"headhunt_rpcs_total{method="ReportFeedback",code="ok"}"#,
        2.0,
    );
    is(
        r#"headhunt_rpcs_total{method="ReportFeedback",code="not_found"}"#,
        1.0,
    );
    is(r#"headhunt_feedback_total{verdict="confirmed"}"#, 1.0);
    is(r#"headhunt_feedback_total{verdict="false_alarm"}"#, 1.0);
    is(
        r#"headhunt_feedback_segments_total{features="stored"}"#,
        4.0,
    );
    is(
        r#"headhunt_feedback_segments_total{features="missing"}"#,
        0.0,
    );
    is("headhunt_feedback_samples", 2.0);
    is("headhunt_feedback_samples_unusable", 2.0);
    is(r#"headhunt_feedback_precision_ratio{profile="cam"}"#, 1.0);

    // A running stream shows, and its end too. The model is held, so that it cannot end well.
    server.probe.hold();
    let mut call = Call::begin(&mut client).await.unwrap();
    call.send(open("")).await;
    call.send(chunk(&video(&[9; 100]))).await;
    call.next().await.unwrap();
    let scoring = r#"headhunt_streams{state="scoring"}"#;
    eventually("it shows", || async {
        value(&scrape(address).await, scoring) == Some(1.0)
    })
    .await;
    drop(call);
    eventually("the gauge is 0 again", || async {
        value(&scrape(address).await, scoring) == Some(0.0)
    })
    .await;
    let text = scrape(address).await;
    let cancelled = r#"headhunt_rpcs_total{method="Detect",code="cancelled"}"#;
    assert_eq!(value(&text, cancelled), Some(1.0), "{text}");

    let ready = http(address, "GET /ready").await;
    assert!(ready.starts_with("HTTP/1.1 200"), "{ready}");
    server.stop().await;
    for (request, expected) in [
        ("GET /ready", "503"),
        ("GET /health", "200"),
        ("HEAD /metrics", "200"),
        ("POST /metrics", "405"),
        ("GET /other", "404"),
    ] {
        let answer = http(address, request).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {expected}")),
            "{request}: {answer}"
        );
    }
    of_cameras(address).await;
}

/// Cameras show by name, up to the configured number, while they are watched.
async fn of_cameras(address: SocketAddr) {
    let server = TestServer::with("cameras.series_max = 1", Arc::new(Cameras)).await;
    let mut client = server.client().await;
    let watch = |uri: &str| proto::WatchRequest {
        source: Some(proto::UriSource {
            uri: uri.into(),
            ..Default::default()
        }),
        profile: "live".into(),
        ..Default::default()
    };
    let one = client.watch(watch("rtsp://ann:secret@yard/1?token=x"));
    let mut one = within("Watch", one).await.unwrap().into_inner();
    let named = |name: &str| format!(r#"headhunt_camera_{name}{{camera="rtsp://yard:554/1"}}"#);
    let shows = |series: String, expected: f64| async move {
        eventually(&series, || async {
            value(&scrape(address).await, &series) == Some(expected)
        })
        .await;
    };
    // Three segments, an interruption with two failed attempts, and three more.
    let mut scored = 0;
    while scored < 6 {
        let told = within("a message", one.message()).await.unwrap().unwrap();
        if matches!(told.message, Some(Watched::FrameScores(_))) {
            scored += 1;
        }
    }
    shows(named("connected"), 1.0).await;
    shows(named("interruptions_total"), 1.0).await;
    shows(named("gap_seconds_total"), 2.0).await;
    let text = scrape(address).await;
    let lag = value(&text, &named("frame_lag_seconds")).unwrap();
    assert!(lag > 0.0 && lag < 60.0, "{lag}");
    assert!(value(&text, &named("last_score_timestamp_seconds")).unwrap() > 1.6e9);
    assert!(
        !text.contains("secret") && !text.contains("token=x"),
        "{text}"
    );
    let lost = r#"{reason="connection_lost"}"#;
    for (series, expected) in [
        (format!("headhunt_source_interruptions_total{lost}"), 1.0),
        (format!("headhunt_source_attempts_failed_total{lost}"), 1.0),
        ("headhunt_source_reconnects_total".to_owned(), 1.0),
        (format!("headhunt_gaps_total{lost}"), 1.0),
        (format!("headhunt_gap_seconds_total{lost}"), 2.0),
        ("headhunt_live_segments_per_second".to_owned(), 0.625),
        ("headhunt_cameras_unnamed".to_owned(), 0.0),
    ] {
        assert_eq!(value(&text, &series), Some(expected), "{series} in\n{text}");
    }
    assert!(value(&text, "headhunt_frame_lag_seconds_count").unwrap() >= 6.0);
    for bucket in exporter::LAG_BUCKETS_S {
        let series = format!(r#"headhunt_frame_lag_seconds_bucket{{le="{bucket}"}}"#);
        assert!(value(&text, &series).is_some(), "{series} in\n{text}");
    }

    let two = client.watch(watch("rtsp://yard/2"));
    let mut two = within("Watch", two).await.unwrap().into_inner();
    within("a message", two.message()).await.unwrap();
    shows("headhunt_cameras_unnamed".to_owned(), 1.0).await;
    assert!(!scrape(address).await.contains("rtsp://yard:554/2"));
    drop((one, two));
    eventually("departed cameras", || async {
        !scrape(address).await.contains("camera=")
    })
    .await;
    shows("headhunt_cameras_unnamed".to_owned(), 0.0).await;
    server.stop().await;
}

/// A camera of 10 frames per second of media time that are there 50 times as fast. After 48 frames it is
/// away for 2 s.
struct Cameras;

impl OpenMedia for Cameras {
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
        stop: CancellationToken,
        cancel: CancellationToken,
    ) -> Result<Box<dyn MediaSource>> {
        Ok(Box::new(Camera {
            stop,
            cancel,
            events: 0,
        }))
    }
}

struct Camera {
    stop: CancellationToken,
    cancel: CancellationToken,
    events: u64,
}

impl MediaSource for Camera {
    fn next_event(&mut self) -> Result<Option<MediaEvent>> {
        const FRAME: Duration = Duration::from_millis(100);
        const BEFORE: u64 = 48;
        if self.cancel.is_cancelled() {
            return Err(Error::cancelled("cancelled"));
        }
        if self.stop.is_cancelled() {
            return Ok(None);
        }
        self.events += 1;
        let at = |index: u64| MediaTime::ZERO.saturating_add(FRAME * index as u32);
        let away = |attempts| {
            MediaEvent::Source(SourceState::Interrupted {
                reason: GapReason::ConnectionLost,
                detail: "the cable was pulled".into(),
                attempts,
                retry_in: Duration::from_millis(500),
            })
        };
        // What the n-th event is, from 0.
        let frame = match self.events - 1 {
            0 => return Ok(Some(MediaEvent::Opened(MediaInfo::default()))),
            n if n <= BEFORE => n - 1,
            n if n == BEFORE + 1 => return Ok(Some(away(1))),
            n if n == BEFORE + 2 => return Ok(Some(away(2))),
            n if n == BEFORE + 3 => return Ok(Some(MediaEvent::Source(SourceState::Connected))),
            n if n == BEFORE + 4 => {
                return Ok(Some(MediaEvent::Gap(Gap {
                    from: at(BEFORE),
                    to: at(BEFORE + 20),
                    reason: GapReason::ConnectionLost,
                    frames_lost: 20,
                    detail: "the cable was pulled".into(),
                })));
            }
            n => n - 5,
        };
        std::thread::sleep(FRAME / 50);
        let away = if frame < BEFORE { 0 } else { 20 };
        Ok(Some(MediaEvent::Frame(Frame {
            stamp: FrameStamp {
                index: frame,
                pts: at(frame + away),
                duration: FRAME,
            },
            picture: Arc::new(Grey),
            received: Some(SystemTime::now()),
        })))
    }
}

struct Grey;

impl Picture for Grey {
    fn to_rgb(&self) -> Result<RgbImage> {
        Ok(RgbImage {
            width: 16,
            height: 16,
            data: vec![90; self.size_bytes()],
        })
    }

    fn size_bytes(&self) -> usize {
        16 * 16 * 3
    }
}
