//! `Detect` through the wire: what a good upload gets, and what each bad one gets.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test may

mod common;
#[cfg(feature = "video")]
#[path = "grpc_detect/video.rs"]
mod real_video;

use common::{
    detect::{Call, ask, chunk, detect, open, send_all},
    media::{DAMAGE, flash, video},
    server::TestServer,
};
use headhunt::{
    limits,
    rpc::proto::{
        self, DetectRequest, EventEndReason, GapReason, ScoreStage, detect_request::Message as Ask,
        detect_response::Message as Told, open::Source,
    },
};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

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
async fn every_frame_gets_one_final_score_whatever_the_chunking() {
    let server = TestServer::start("").await;
    let mut client = server.client().await;
    let bytes = flash(4, 3, 11);
    let mut first = None;
    for size in [1, 7, 100, bytes.len()] {
        let seen = detect(&mut client, open(""), &bytes, size).await.unwrap();
        seen.check_frames(11 * 48 + 11);
        let opened = seen.opened();
        assert_eq!(opened.profile, "cam");
        assert_eq!(opened.profile_version.len(), 64);
        assert_eq!(opened.media.as_ref().unwrap().container, "raw");
        assert_eq!(opened.media.as_ref().unwrap().declared_fps, 30.0);
        assert!(seen.scores(ScoreStage::Provisional).is_empty());
        let scores: Vec<_> = seen
            .scores(ScoreStage::Final)
            .into_iter()
            .cloned()
            .collect();
        let events: Vec<_> = seen.ended_events().into_iter().cloned().collect();
        assert_eq!(events.len(), 1);
        assert_eq!(events[0].reason(), EventEndReason::BelowThreshold);
        let event = events[0].event.as_ref().unwrap();
        assert_eq!((event.first_frame, event.last_frame), (4 * 48, 7 * 48 - 1));
        // The chunking changes nothing.
        let all = (scores, events);
        assert_eq!(first.get_or_insert_with(|| all.clone()), &all);
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn scores_come_while_the_upload_goes_on() {
    let server = TestServer::start("").await;
    let mut client = server.client().await;
    let mut call = Call::begin(&mut client).await.unwrap();
    call.send(open("")).await;
    call.send(chunk(&video(&[20; 48 * 8]))).await;
    assert!(matches!(call.next().await.unwrap(), Some(Told::Opened(_))));
    // Seven segments stand; with σ = 0.5 a segment is final once two more are known.
    for expected in 0..4 {
        match call.next().await.unwrap() {
            Some(Told::FrameScores(scores)) => assert_eq!(scores.segment, expected),
            other => panic!("{other:?}"),
        }
    }
    let rest = call.finish().await.unwrap();
    assert_eq!(rest.summary().frames, 48 * 8);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn provisional_scores_come_where_asked_for_and_before_the_final_ones() {
    let server = TestServer::start("").await;
    let mut client = server.client().await;
    let mut first = open("cam");
    if let Some(Ask::Open(open)) = &mut first.message {
        open.options = Some(proto::DetectOptions {
            provisional: true,
            ..Default::default()
        });
    }
    let seen = detect(&mut client, first, &flash(3, 2, 5), 50)
        .await
        .unwrap();
    seen.check_frames(8 * 48 + 5);
    let provisional = seen.scores(ScoreStage::Provisional);
    assert_eq!(provisional.len(), 9);
    for (number, scores) in provisional.iter().enumerate() {
        let place = |stage: ScoreStage| {
            seen.messages.iter().position(|message| {
                matches!(message, Told::FrameScores(s)
                    if s.stage() == stage && s.segment == number as u64)
            })
        };
        assert!(place(ScoreStage::Provisional) < place(ScoreStage::Final));
        let last = seen.scores(ScoreStage::Final)[number];
        assert_eq!(scores.frames.len(), last.frames.len());
        assert_eq!(scores.frames[0].probability, last.frames[0].probability);
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_is_a_gap_and_the_rest_is_scored() {
    let server = TestServer::start("").await;
    let mut client = server.client().await;
    let mut frames = vec![10u8; 100];
    frames[60] = DAMAGE;
    let seen = detect(&mut client, open(""), &video(&frames), 9)
        .await
        .unwrap();
    seen.check_frames(99);
    let gap = seen
        .messages
        .iter()
        .find_map(|message| match message {
            Told::Gap(gap) => Some(gap),
            _ => None,
        })
        .unwrap();
    assert_eq!(gap.reason(), GapReason::DecodeError);
    assert_eq!(gap.frames_lost, 1);
    assert_eq!(seen.summary().gaps, 1);
    // 48, then 12 before the gap, then 39 after it.
    let lengths: Vec<_> = seen
        .scores(ScoreStage::Final)
        .iter()
        .map(|scores| scores.frames.len())
        .collect();
    assert_eq!(lengths, [48, 12, 39]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_of_4_mib_fits_and_a_larger_one_does_not() {
    let server = TestServer::start("").await;
    let mut client = server.client().await;
    let mut bytes = video(&[10; 100]);
    bytes.resize(limits::CHUNK_MAX_BYTES, 10);
    let frames = (bytes.len() - 4) as u64;
    // 4 MiB of frames is much work for a test: the decoder sees all, the client leaves early.
    let mut call = Call::begin(&mut client).await.unwrap();
    call.send(open("long")).await;
    call.send(chunk(&bytes)).await;
    assert!(matches!(call.next().await.unwrap(), Some(Told::Opened(_))));
    match call.next().await.unwrap() {
        Some(Told::FrameScores(scores)) => assert_eq!(scores.frames.len(), 1000),
        other => panic!("{other:?} of {frames} frames"),
    }
    drop(call);

    bytes.push(10);
    let status = send_all(&mut client, vec![open(""), chunk(&bytes)])
        .await
        .unwrap_err();
    assert_eq!(
        (status.code(), field(&status).as_str()),
        (Code::InvalidArgument, "chunk")
    );
    assert!(status.message().contains("4194305"), "{status:?}");
    server.is_as_it_was().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_over_the_limit_is_refused_by_its_size() {
    let server = TestServer::start("").await;
    let mut client = server.client().await;
    let bytes = vec![10; limits::MESSAGE_MAX_BYTES + 1];
    let status = send_all(&mut client, vec![open(""), chunk(&bytes)])
        .await
        .unwrap_err();
    assert_eq!(
        (status.code(), field(&status).as_str()),
        (Code::InvalidArgument, "chunk")
    );
    assert!(status.message().contains("4194304"), "{status:?}");
    // The same as first message.
    let status = send_all(&mut client, vec![chunk(&bytes)])
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    server.is_as_it_was().await;
    server.stop().await;
}

/// Requests, the code and the field they get, and a word of the message.
fn bad_requests() -> Vec<(
    &'static str,
    Vec<DetectRequest>,
    Code,
    &'static str,
    &'static str,
)> {
    let good = || chunk(&flash(1, 1, 0));
    let stop = || ask(Ask::Stop(proto::Stop {}));
    let uri = |uri: &str| {
        ask(Ask::Open(proto::Open {
            source: Some(Source::Uri(proto::UriSource {
                uri: uri.into(),
                ..Default::default()
            })),
            ..proto::Open::default()
        }))
    };
    let nothing = || DetectRequest { message: None };
    let no_source = ask(Ask::Open(proto::Open::default()));
    use Code::{FailedPrecondition, InvalidArgument, NotFound, PermissionDenied};
    vec![
        ("empty stream", vec![], InvalidArgument, "open", "empty"),
        (
            "chunk first",
            vec![good(), open("")],
            InvalidArgument,
            "open",
            "`chunk` came first",
        ),
        (
            "stop first",
            vec![stop()],
            InvalidArgument,
            "open",
            "`stop` came first",
        ),
        (
            "empty message first",
            vec![nothing()],
            InvalidArgument,
            "open",
            "no content",
        ),
        (
            "empty message",
            vec![open(""), nothing()],
            InvalidArgument,
            "chunk",
            "no content",
        ),
        (
            "two opens",
            vec![open(""), open("")],
            InvalidArgument,
            "open",
            "second `open`",
        ),
        (
            "open after a chunk",
            vec![open(""), good(), open("")],
            InvalidArgument,
            "open",
            "second `open`",
        ),
        (
            "stop on an upload",
            vec![open(""), good(), stop()],
            InvalidArgument,
            "stop",
            "`stop`",
        ),
        (
            "no source",
            vec![no_source],
            InvalidArgument,
            "open.source",
            "`upload`",
        ),
        ("no bytes", vec![open("")], InvalidArgument, "", "no video"),
        (
            "empty chunk alone",
            vec![open(""), chunk(b"")],
            InvalidArgument,
            "",
            "no video",
        ),
        (
            "a text file",
            vec![open(""), chunk(b"Dear sir or madam, this is no video.")],
            InvalidArgument,
            "",
            "no video",
        ),
        (
            "a cut magic",
            vec![open(""), chunk(b"RA")],
            InvalidArgument,
            "",
            "no video",
        ),
        (
            "zero frames",
            vec![open(""), chunk(b"RAWV")],
            InvalidArgument,
            "",
            "frame",
        ),
        (
            "unknown profile",
            vec![open("nobody"), good()],
            NotFound,
            "open.profile",
            "`nobody`",
        ),
        (
            "a path as profile",
            vec![open("../../etc/passwd")],
            NotFound,
            "open.profile",
            "no profile",
        ),
        (
            "profile of another model",
            vec![open("other-model"), good()],
            FailedPrecondition,
            "open.profile",
            "fingerprint",
        ),
        (
            "damaged profile",
            vec![open("damaged"), good()],
            FailedPrecondition,
            "open.profile",
            "`damaged`",
        ),
        (
            "camera with a profile that cuts by frames",
            vec![uri("rtsp://ann:pw@cam/1")],
            FailedPrecondition,
            "",
            "--segment-seconds",
        ),
        (
            "http source",
            vec![uri("http://ann:pw@cam/1")],
            PermissionDenied,
            "open.uri.uri",
            "sources.schemes",
        ),
        (
            "file source",
            vec![uri("file:///etc/passwd")],
            PermissionDenied,
            "open.uri.uri",
            "sources.schemes",
        ),
        (
            "no uri",
            vec![uri("camera 1")],
            InvalidArgument,
            "open.uri.uri",
            "schemes",
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_get_a_status_that_names_the_fault_and_leave_the_server_as_it_was() {
    let server = TestServer::start("").await;
    let mut client = server.client().await;
    for (what, requests, code, field_name, word) in bad_requests() {
        let status = match send_all(&mut client, requests).await {
            Err(status) => status,
            Ok(seen) => panic!("{what}: {seen:?}"),
        };
        assert_eq!(status.code(), code, "{what}: {status:?}");
        assert_eq!(field(&status), field_name, "{what}: {status:?}");
        assert!(status.message().contains(word), "{what}: {status:?}");
        for inside in ["/srv", "passwd", "ann:", "src/"] {
            let told = format!("{status:?}").replace("no profile `../../etc/passwd`", "");
            assert!(
                !status.message().contains(inside) || !told.contains(inside),
                "{what}: {told}"
            );
        }
        server.is_as_it_was().await;
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_message_are_refused() {
    use prost::Message as _;
    let server = TestServer::start("").await;
    // A `WatchRequest` with a field that `DetectRequest` has as a message, of another wire type.
    let mut grpc = tonic::client::Grpc::new(server.channel().await);
    grpc.ready().await.unwrap();
    let path = "/headhunt.v1.DetectionService/Detect".parse().unwrap();
    // Field 1 (`open`) must be a message: these bytes are a broken one.
    let broken = proto::UploadSource {
        name: "\u{1}\u{2}\u{3}".into(),
    };
    assert!(proto::Open::decode(&b"\x01\x02\x03"[..]).is_err());
    let codec: tonic_prost::ProstCodec<proto::UploadSource, proto::DetectResponse> =
        tonic_prost::ProstCodec::default();
    let request = tonic::Request::new(tokio_stream::iter([broken]));
    let mut responses = grpc
        .streaming(request, path, codec)
        .await
        .unwrap()
        .into_inner();
    let status = common::within("status", responses.message())
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    assert!(status.message().contains("DetectRequest"), "{status:?}");
    server.is_as_it_was().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn info_tells_model_profile_and_capacity() {
    let server =
        TestServer::start("streams.max_streams = 5\nengine.queue_capacity_segments = 9").await;
    let info = server.info().await;
    assert_eq!(info.version, env!("CARGO_PKG_VERSION"));
    let model = info.model.unwrap();
    assert_eq!(
        (model.name.as_str(), model.device.as_str()),
        ("brightness", "cpu")
    );
    assert_eq!(
        (model.layers, model.heads, model.resident_layers),
        (4, 2, 3)
    );
    assert_eq!(model.fingerprint, common::probe::fingerprint(3));
    assert_eq!(info.active_profile, "cam");
    assert_eq!(info.active_profile_version.len(), 64);
    assert!(info.started_at.unwrap().seconds > 1_700_000_000);
    let load = info.load.unwrap();
    assert_eq!((load.streams, load.max_streams), (0, 5));
    assert_eq!((load.queued_segments, load.queue_capacity), (0, 9));
    assert!(load.segments_per_second > 0.0);
    server.stop().await;
}
