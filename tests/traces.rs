//! Traces through the wire: a collector of the test's own gets what detections and calls leave behind.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test may

mod collector;
mod common;

use std::{collections::BTreeMap, sync::LazyLock, time::Duration};

use collector::{Collector, hex, named, of, said};
use common::{
    PATIENCE,
    detect::{Call, Seen, chunk, detect, open, read},
    eventually,
    media::{flash, video},
    server::{Client, TestServer},
    within,
};
use headhunt::{
    error::Result as OurResult,
    rpc::proto::{self, admin_service_client::AdminServiceClient, detect_request::Message as Ask},
    telemetry::{
        exporter::Metrics,
        traces::{self, Exporter, Headers, Options, Traces},
    },
};
use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind};
use tokio::net::TcpListener;
use tonic::{Request, Status};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";
const DETECT: &str = "headhunt.v1.DetectionService/Detect";
const GET_INFO: &str = "headhunt.v1.DetectionService/GetInfo";

/// Stages of a scored segment, in order.
const STAGES: [&str; 6] = [
    "decode",
    "preprocess",
    "queue",
    "vision",
    "language",
    "score",
];

fn metrics() -> String {
    static METRICS: LazyLock<Metrics> = LazyLock::new(|| Metrics::install().unwrap());
    METRICS.render()
}

/// Spans with this outcome, of all tests of this file: one alone drops any.
fn counted(outcome: &str) -> usize {
    let series = format!("headhunt_spans_total{{outcome=\"{outcome}\"}} ");
    let text = metrics();
    let value = text.lines().find_map(|line| line.strip_prefix(&series));
    value.unwrap().parse().unwrap()
}

fn only<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    let found = named(spans, name);
    assert_eq!(found.len(), 1, "{name} in {spans:?}");
    found[0]
}

/// Segments by number, each with its children.
fn segments(spans: &[Span]) -> BTreeMap<u64, (&Span, Vec<&Span>)> {
    named(spans, "segment")
        .into_iter()
        .map(|segment| {
            let number = of(segment, "headhunt.segment.number").unwrap();
            let children = spans.iter().filter(|s| s.parent_span_id == segment.span_id);
            (number.parse().unwrap(), (segment, children.collect()))
        })
        .collect()
}

fn names(spans: &[&Span]) -> Vec<String> {
    spans.iter().map(|span| span.name.clone()).collect()
}

/// A caller's headers.
fn with_parent<T>(message: T, traceparent: &str) -> Request<T> {
    let mut request = Request::new(message);
    let metadata = request.metadata_mut();
    metadata.insert("traceparent", traceparent.parse().unwrap());
    metadata.insert("tracestate", "vendor=1".parse().unwrap());
    request
}

fn sampled() -> String {
    format!("00-{TRACE}-{CALLER}-01")
}

async fn detect_in_trace(client: &mut Client, bytes: &[u8]) -> Result<Seen, Status> {
    detect_as(client, open(""), bytes).await
}

async fn detect_as(
    client: &mut Client,
    open: proto::DetectRequest,
    bytes: &[u8],
) -> Result<Seen, Status> {
    let requests = tokio_stream::iter([open, chunk(bytes)]);
    let call = client.detect(with_parent(requests, &sampled()));
    let mut responses = within("headers", call).await?.into_inner();
    read(&mut responses).await
}

async fn get_info(client: &mut Client, traceparent: Option<&str>) {
    let request = match traceparent {
        Some(header) => with_parent(proto::GetInfoRequest {}, header),
        None => Request::new(proto::GetInfoRequest {}),
    };
    within("GetInfo", client.get_info(request)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_detection_is_a_trace_of_its_caller_with_a_span_per_segment_and_stage() {
    let collector = Collector::start().await;
    let dir = tempfile::tempdir().unwrap();
    let headers = dir.path().join("headers");
    std::fs::write(&headers, "x-tenant: yard\n").unwrap();
    let headers = format!("traces.headers_file = '{}'", headers.display());
    let server = TestServer::start(&(collector.toml() + &headers)).await;
    let mut client = server.client().await;
    let seen = detect_in_trace(&mut client, &flash(1, 1, 5)).await.unwrap();
    server.stop().await;

    let spans = collector.spans();
    for span in &spans {
        assert_eq!(hex(&span.trace_id), TRACE, "{span:?}");
        assert_eq!(span.trace_state, "vendor=1");
        assert!(span.start_time_unix_nano > 1_600_000_000_000_000_000);
        assert!(span.start_time_unix_nano <= span.end_time_unix_nano);
    }
    let root = only(&spans, DETECT);
    assert_eq!(hex(&root.parent_span_id), CALLER);
    assert_eq!(root.kind, SpanKind::Server as i32);
    assert_eq!(root.status, None);
    for (key, value) in [
        ("rpc.system.name", "grpc"),
        ("rpc.method", DETECT),
        ("rpc.response.status_code", "OK"),
        ("headhunt.session.id", &seen.opened().session_id),
        ("headhunt.profile.name", "cam"),
        ("headhunt.profile.version", &seen.opened().profile_version),
    ] {
        assert_eq!(of(root, key).as_deref(), Some(value), "{root:?}");
    }
    let segments = segments(&spans);
    let numbers: Vec<u64> = segments.keys().copied().collect();
    assert_eq!(numbers, [0, 1, 2, 3]);
    assert_eq!(spans.len(), 1 + 4 * 7);
    let scores = seen.scores(proto::ScoreStage::Final);
    for (number, (segment, children)) in &segments {
        assert_eq!(segment.parent_span_id, root.span_id);
        assert!(root.start_time_unix_nano <= segment.start_time_unix_nano);
        assert!(segment.end_time_unix_nano <= root.end_time_unix_nano);
        let score = scores[*number as usize];
        let p = score.frames[0].probability.to_string();
        let (first, last) = (&score.frames[0], score.frames.last().unwrap());
        for (key, value) in [
            ("headhunt.segment.outcome", "scored".to_owned()),
            ("headhunt.segment.p", p),
            ("headhunt.segment.run", "0".to_owned()),
            ("headhunt.segment.first_frame", first.index.to_string()),
            ("headhunt.segment.last_frame", last.index.to_string()),
            ("headhunt.session.id", seen.opened().session_id.clone()),
        ] {
            assert_eq!(of(segment, key), Some(value), "{segment:?}");
        }
        assert_eq!(names(children), STAGES);
        let mut before = segment.start_time_unix_nano;
        for child in children {
            assert!(before <= child.start_time_unix_nano, "{children:?}");
            before = child.end_time_unix_nano;
        }
        assert!(before <= segment.end_time_unix_nano);
    }
    let got = collector.got.lock().unwrap();
    assert_eq!(got.tenants.len(), got.exports);
    let resource = &got.resources[0].attributes;
    assert_eq!(said(resource, "service.name").unwrap(), "headhunt");
    assert!(said(resource, "service.instance.id").is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gated_segment_has_no_stages_of_the_model_and_a_failed_one_says_why() {
    let collector = Collector::start().await;
    let server = TestServer::start(&collector.toml()).await;
    let mut client = server.client().await;
    let mut gated = open("");
    if let Some(Ask::Open(open)) = &mut gated.message {
        open.options = Some(proto::DetectOptions {
            motion_gate: Some(proto::MotionGate { threshold: 0.0 }),
            ..Default::default()
        });
    }
    detect_as(&mut client, gated, &video(&[10; 96]))
        .await
        .unwrap();
    server.probe.fail();
    let status = detect_in_trace(&mut client, &video(&[10; 48]))
        .await
        .unwrap_err();
    assert_eq!(status.code(), tonic::Code::DataLoss);
    server.stop().await;

    let spans = collector.spans();
    let roots = named(&spans, DETECT);
    let below = |root: &Span| -> Vec<Span> {
        let segments = spans.iter().filter(|s| s.parent_span_id == root.span_id);
        let segments: Vec<Span> = segments.cloned().collect();
        let children = spans
            .iter()
            .filter(|span| (segments.iter()).any(|segment| segment.span_id == span.parent_span_id));
        segments.iter().chain(children).cloned().collect()
    };
    let still = below(roots[0]);
    let (second, stages) = &segments(&still)[&1];
    assert_eq!(of(second, "headhunt.segment.outcome").unwrap(), "gated");
    assert_eq!(of(second, "headhunt.segment.repeats").unwrap(), "0");
    assert_eq!(names(stages), ["decode", "preprocess"]);

    let broken = below(roots[1]);
    let (failed, stages) = &segments(&broken)[&0];
    assert_eq!(of(failed, "headhunt.segment.outcome").unwrap(), "error");
    assert_eq!(of(failed, "error.type").unwrap(), "data_loss");
    let status = failed.status.as_ref().unwrap();
    assert_eq!(status.code, 2);
    assert!(status.message.contains("a weight is no number"));
    assert_eq!(names(stages), ["decode", "preprocess", "queue", "pass"]);
    let code = of(roots[1], "rpc.response.status_code").unwrap();
    assert_eq!(code, "DATA_LOSS");
    let status = roots[1].status.as_ref().unwrap();
    assert_eq!(status.code, 2);
    assert!(!status.message.contains("weight"), "{status:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_leaves_a_cancelled_call_and_abandoned_segments() {
    let collector = Collector::start().await;
    let server = TestServer::start(&collector.toml()).await;
    let mut client = server.client().await;
    let before = server.probe.entered();
    server.probe.hold();
    let mut call = Call::begin(&mut client).await.unwrap();
    call.send(open("")).await;
    call.send(chunk(&video(&[10; 100]))).await;
    call.next().await.unwrap();
    eventually("a pass", || async { server.probe.entered() > before }).await;
    drop(call);
    eventually("no stream", || async { server.load().await.streams == 0 }).await;
    server.stop().await;

    let spans = collector.spans();
    let root = only(&spans, DETECT);
    assert_eq!(root.parent_span_id, [0u8; 0]);
    assert_ne!(hex(&root.trace_id), TRACE);
    let code = of(root, "rpc.response.status_code").unwrap();
    assert_eq!(code, "CANCELLED");
    assert_eq!(root.status, None);
    let (segment, stages) = &segments(&spans)[&0];
    let outcome = of(segment, "headhunt.segment.outcome").unwrap();
    assert_eq!(outcome, "abandoned");
    assert_eq!(names(stages), ["decode", "preprocess", "queue"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_calls_are_spans_and_probes_are_not() {
    let collector = Collector::start().await;
    let server = TestServer::start(&collector.toml()).await;
    let mut client = server.client().await;
    get_info(&mut client, Some(&sampled())).await;
    get_info(&mut client, Some(&sampled().to_uppercase())).await;
    get_info(&mut client, Some(&format!("00-{TRACE}-{CALLER}-00"))).await;
    detect(&mut client, open("nobody"), b"RAWV", 9)
        .await
        .unwrap_err();
    let mut admin = AdminServiceClient::new(server.channel().await);
    let profile = proto::GetProfileRequest {
        name: "nobody".into(),
        ..Default::default()
    };
    within("GetProfile", admin.get_profile(profile))
        .await
        .unwrap_err();
    let mut health = tonic_health::pb::health_client::HealthClient::new(server.channel().await);
    let check = tonic_health::pb::HealthCheckRequest::default();
    within("Check", health.check(check)).await.unwrap();
    server.stop().await;

    let spans = collector.spans();
    let mut seen: Vec<(String, String)> = spans
        .iter()
        .map(|span| {
            let code = of(span, "rpc.response.status_code").unwrap();
            assert_eq!(span.status, None);
            let mine = hex(&span.trace_id) == TRACE;
            assert_eq!(mine, hex(&span.parent_span_id) == CALLER);
            (span.name.clone(), format!("{code} {mine}"))
        })
        .collect();
    seen.sort_unstable();
    let told = |method: &str, code: &str| (method.to_owned(), code.to_owned());
    assert_eq!(
        seen,
        [
            told("headhunt.v1.AdminService/GetProfile", "NOT_FOUND false"),
            told(DETECT, "NOT_FOUND false"),
            // The malformed parent begins a trace of its own; the one that its caller does not record is none.
            told(GET_INFO, "OK false"),
            told(GET_INFO, "OK true"),
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_ratio_of_nothing_what_the_caller_records_is_left() {
    let collector = Collector::start().await;
    let toml = collector.toml() + "traces.sample_ratio = 0.0";
    let server = TestServer::start(&toml).await;
    let mut client = server.client().await;
    get_info(&mut client, None).await;
    get_info(&mut client, Some("nonsense")).await;
    get_info(&mut client, Some(&sampled())).await;
    server.stop().await;
    let spans = collector.spans();
    assert_eq!(hex(&only(&spans, GET_INFO).trace_id), TRACE);
    assert_eq!(spans.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_hangs_holds_nobody_up_and_what_finds_no_room_is_counted() {
    metrics();
    let collector = Collector::start().await;
    collector.held.send_replace(true);
    // Detections alone, whose callers record them.
    let toml = "traces.queue_spans = 64\ntraces.timeout_s = 300\ntraces.sample_ratio = 0.0";
    let server = TestServer::start(&(collector.toml() + toml)).await;
    let mut client = server.client().await;
    // Spans of a detection of four segments.
    let each = 1 + 4 * 7;
    let mut given = 0;
    // One batch of 512 hangs, and 64 wait behind it.
    while counted("dropped") == 0 {
        let seen = detect_in_trace(&mut client, &flash(1, 1, 5)).await.unwrap();
        seen.check_frames(3 * 48 + 5);
        given += each;
        assert!(given <= 30 * each, "nothing was dropped");
    }
    assert!(collector.spans().is_empty());
    collector.held.send_replace(false);
    server.stop().await;
    let spans = collector.spans();
    assert_eq!(spans.len() + counted("dropped"), given);
    // Whole segments or none of them.
    for (segment, children) in segments_of(&spans) {
        assert_eq!(children, STAGES.len(), "{segment:?}");
    }
}

fn segments_of(spans: &[Span]) -> Vec<(&Span, usize)> {
    named(spans, "segment")
        .into_iter()
        .map(|segment| {
            let children = spans.iter().filter(|s| s.parent_span_id == segment.span_id);
            (segment, children.count())
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_changes_nothing_and_its_spans_count_as_failed() {
    metrics();
    // A port that nobody listens at.
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let server = TestServer::start(&format!("traces.endpoint = 'http://{address}'")).await;
    let mut client = server.client().await;
    let seen = detect_in_trace(&mut client, &flash(1, 1, 5)).await.unwrap();
    seen.check_frames(3 * 48 + 5);
    server.stop().await;
    assert!(counted("failed") > 4 * 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_batch_is_sent_again() {
    let collector = Collector::start().await;
    *collector.refusals.lock().unwrap() = 1;
    let server = TestServer::start(&collector.toml()).await;
    let mut client = server.client().await;
    get_info(&mut client, Some(&sampled())).await;
    eventually("the span", || async { !collector.spans().is_empty() }).await;
    server.stop().await;
    assert_eq!(collector.got.lock().unwrap().exports, 2);
    only(&collector.spans(), GET_INFO);
}

fn start(endpoint: &str, ca: Option<&str>) -> OurResult<(Traces, Exporter)> {
    traces::start(Options {
        endpoint: endpoint.to_owned(),
        ca: ca.map(|pem| pem.as_bytes().to_vec()),
        sample_ratio: 1.0,
        queue_spans: 64,
        // Longer than the test's patience: nothing here may wait for it.
        timeout: PATIENCE * 10,
        headers: Headers::default(),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flush_takes_no_longer_than_it_may() {
    let collector = Collector::start().await;
    collector.held.send_replace(true);
    let (traces, sending) = start(&format!("http://{}", collector.address), None).unwrap();
    traces.begin(DETECT, None).unwrap().end("OK", None);
    within("flush", sending.flush(Duration::from_millis(50))).await;
    assert!(collector.spans().is_empty());
}

#[tokio::test]
async fn an_endpoint_that_is_no_address_is_refused() {
    for endpoint in ["http://", "http://a b", "collector:4317", "ftp://a"] {
        let error = start(endpoint, None).err().unwrap();
        assert_eq!(error.field(), Some("traces.endpoint"), "{endpoint}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_behind_tls_gets_spans_of_those_who_believe_it() {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let collector = Collector::start_with_tls(&certificate, &key).await;
    let endpoint = format!("https://localhost:{}", collector.address.port());
    let other = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    for (believed, method) in [(other.cert.pem(), GET_INFO), (certificate, DETECT)] {
        let (traces, sending) = start(&endpoint, Some(&believed)).unwrap();
        traces.begin(method, None).unwrap().end("OK", None);
        within("flush", sending.flush(PATIENCE)).await;
    }
    let spans = collector.spans();
    only(&spans, DETECT);
    assert_eq!(spans.len(), 1);
    let error = start(&endpoint, Some("no certificate")).err().unwrap();
    assert_eq!(error.field(), Some("traces.ca_file"));
}
