//! `/metrics` over HTTP, in a process of its own: the recorder is the process's.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test may

mod common;

use std::net::SocketAddr;

use common::{
    detect::{Call, chunk, detect, open, send_all},
    eventually,
    media::{flash, video},
    server::TestServer,
    within,
};
use headhunt::{rpc::proto, telemetry::exporter};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

async fn scrape(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream
        .write_all(b"GET /metrics HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    within("metrics", stream.read_to_string(&mut answer))
        .await
        .unwrap();
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
    is("headhunt_streams", 0.0);
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
    assert_eq!(value(&scrape(address).await, "headhunt_streams"), Some(1.0));
    drop(call);
    eventually("the gauge is 0 again", || async {
        value(&scrape(address).await, "headhunt_streams") == Some(0.0)
    })
    .await;
    let text = scrape(address).await;
    let cancelled = r#"headhunt_rpcs_total{method="Detect",code="cancelled"}"#;
    assert_eq!(value(&text, cancelled), Some(1.0), "{text}");
    server.stop().await;
}
