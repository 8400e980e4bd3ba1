//! Live sources through the wire, with a camera that is a double: who may open one, what ends it,
//! and how the server closes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test may

mod common;

use std::{
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use common::{
    detect::{Call, ask, chunk},
    eventually,
    media::{RawMedia, flash},
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
        proto::{
            self, DetectRequest, SourceStatus, detect_request::Message as Ask,
            detect_response::Message as Told, open::Source, watch_response,
        },
    },
};
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tonic_types::StatusExt as _;

/// A camera of 10 frames per second of media time that are there 50 times as fast. The path of its
/// URL says what it does.
struct Cameras(Mutex<Vec<String>>);

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
        source: UriSource,
        stop: CancellationToken,
        cancel: CancellationToken,
    ) -> Result<Box<dyn MediaSource>> {
        let UriSource::Camera { url, .. } = source else {
            return Err(Error::internal("not a camera"));
        };
        self.0.lock().unwrap().push(url.to_string());
        Ok(Box::new(Camera {
            broken: url.to_string().ends_with("/broken"),
            stop,
            cancel,
            index: 0,
            opened: false,
            ended: false,
            told: 0,
        }))
    }
}

struct Camera {
    broken: bool,
    stop: CancellationToken,
    cancel: CancellationToken,
    index: u64,
    opened: bool,
    ended: bool,
    told: u32,
}

const FRAME: Duration = Duration::from_millis(100);

impl MediaSource for Camera {
    fn next_event(&mut self) -> Result<Option<MediaEvent>> {
        if self.cancel.is_cancelled() {
            return Err(Error::cancelled("cancelled"));
        }
        if self.stop.is_cancelled() {
            self.ended = true;
        }
        if self.ended {
            return Ok(None);
        }
        if !self.opened {
            self.opened = true;
            return Ok(Some(MediaEvent::Opened(MediaInfo {
                container: "rtsp".into(),
                codec: "double".into(),
                width: 16,
                height: 16,
                declared_fps: None,
            })));
        }
        // In the middle of the third segment the connection is lost for two seconds.
        if self.broken && self.index == 40 && self.told < 3 {
            self.told += 1;
            let pts = MediaTime::ZERO.saturating_add(FRAME * 40);
            return Ok(Some(match self.told {
                1 => MediaEvent::Source(SourceState::Interrupted {
                    reason: GapReason::ConnectionLost,
                    detail: "the cable was pulled".into(),
                    attempts: 1,
                    retry_in: Duration::from_millis(1500),
                }),
                2 => MediaEvent::Source(SourceState::Connected),
                _ => MediaEvent::Gap(Gap {
                    from: pts,
                    to: pts.saturating_add(FRAME * 20),
                    reason: GapReason::ConnectionLost,
                    frames_lost: 20,
                    detail: "the cable was pulled".into(),
                }),
            }));
        }
        std::thread::sleep(FRAME / 50);
        let shift = if self.told == 3 { 20 } else { 0 };
        let frame = Frame {
            stamp: FrameStamp {
                index: self.index,
                pts: MediaTime::ZERO.saturating_add(FRAME * (self.index as u32 + shift)),
                duration: FRAME,
            },
            picture: Arc::new(Grey),
            received: Some(SystemTime::now()),
        };
        self.index += 1;
        Ok(Some(MediaEvent::Frame(frame)))
    }
}

struct Grey;

impl Picture for Grey {
    fn to_rgb(&self) -> Result<RgbImage> {
        Ok(RgbImage {
            width: 16,
            height: 16,
            data: vec![90; 16 * 16 * 3],
        })
    }

    fn size_bytes(&self) -> usize {
        768
    }
}

async fn server(toml: &str) -> TestServer {
    TestServer::with(toml, Arc::new(Cameras(Mutex::default()))).await
}

fn camera(uri: &str, profile: &str) -> DetectRequest {
    ask(Ask::Open(proto::Open {
        source: Some(Source::Uri(source(uri))),
        profile: profile.into(),
        options: None,
        ..Default::default()
    }))
}

fn source(uri: &str) -> proto::UriSource {
    proto::UriSource {
        uri: uri.into(),
        ..Default::default()
    }
}

/// Reads until so many segments were scored.
async fn scored(call: &mut Call, segments: usize) {
    let mut seen = 0;
    while seen < segments {
        match call.next().await.unwrap() {
            Some(Told::FrameScores(_)) => seen += 1,
            Some(_) => {}
            None => panic!("it ended after {seen} segments"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_close_does_not_end_a_camera_and_stop_does() {
    let server = server("").await;
    let mut client = server.client().await;
    let mut call = Call::begin(&mut client).await.unwrap();
    call.send(camera("rtsp://ann:pw@cam/1?token=x", "live"))
        .await;
    assert!(matches!(call.next().await.unwrap(), Some(Told::Opened(_))));
    scored(&mut call, 3).await;
    call.send(ask(Ask::Stop(proto::Stop {}))).await;
    let summary = loop {
        match call.next().await.unwrap() {
            Some(Told::Summary(summary)) => break summary,
            Some(_) => {}
            None => panic!("no summary"),
        }
    };
    assert!(summary.frames > 40 && summary.gaps == 0, "{summary:?}");
    assert_eq!(call.next().await.unwrap(), None);

    // Half-closed from the beginning: cancelled by the client in the end.
    let requests = tokio_stream::iter([camera("rtsp://cam/1", "live")]);
    let mut responses = client.detect(requests).await.unwrap().into_inner();
    for _ in 0..6 {
        within("response", responses.message())
            .await
            .unwrap()
            .unwrap();
    }
    drop(responses);
    eventually("idle server", || server.is_idle()).await;
    let load = server.load().await;
    assert_eq!(load.live_segments_per_second, 0.0);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn watch_tells_the_same_and_an_outage_is_a_state_and_a_gap() {
    let server = server("").await;
    let mut client = server.client().await;
    let request = proto::WatchRequest {
        source: Some(source("rtsp://cam/broken")),
        profile: "live".into(),
        options: None,
        ..Default::default()
    };
    let mut responses = client.watch(request).await.unwrap().into_inner();
    let mut states = vec![];
    let (mut segments, mut next_frame) = (0, 0);
    let gap = loop {
        let response = within("response", responses.message())
            .await
            .unwrap()
            .unwrap();
        if !matches!(response.message, Some(watch_response::Message::Opened(_))) {
            let received = SystemTime::try_from(response.received_at.unwrap()).unwrap();
            assert!(received.elapsed().unwrap() < common::PATIENCE);
        }
        match response.message.unwrap() {
            watch_response::Message::SourceState(state) => states.push(state),
            watch_response::Message::Gap(gap) => break gap,
            watch_response::Message::FrameScores(scores) => {
                segments += 1;
                for frame in scores.frames {
                    assert_eq!(frame.index, next_frame);
                    next_frame += 1;
                }
            }
            _ => {}
        }
    };
    // Everything before the outage was final before the source was back.
    assert_eq!((segments, next_frame), (3, 40));
    assert_eq!(states.len(), 2);
    assert_eq!(states[0].status(), SourceStatus::Interrupted);
    assert_eq!(states[0].reason(), proto::GapReason::ConnectionLost);
    assert_eq!(states[0].attempts, 1);
    assert_eq!(states[1].status(), SourceStatus::Connected);
    assert_eq!(gap.frames_lost, 20);
    drop(responses);
    eventually("idle server", || server.is_idle()).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_camera_is_refused_by_name_where_it_cannot_be_served() {
    let server = server("cameras.capacity_share = 0.0\nsources.schemes = ['rtsp']").await;
    let mut client = server.client().await;
    let mut refusal = async |uri: &str, profile: &str| {
        let requests = tokio_stream::iter([camera(uri, profile)]);
        let mut responses = client.detect(requests).await.unwrap().into_inner();
        within("status", responses.message()).await.unwrap_err()
    };
    let status = refusal("rtsp://cam/1", "live").await;
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    assert!(status.get_details_retry_info().is_some());
    assert!(status.message().contains("cameras.capacity_share"));
    let status = refusal("rtsp://cam/1", "cam").await;
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("--segment-seconds"), "{status:?}");
    let status = refusal("rtsps://ann:secret@cam/1", "live").await;
    assert_eq!(status.code(), Code::PermissionDenied);
    assert!(!format!("{status:?}").contains("secret"));
    let status = refusal("file:///etc/passwd", "live").await;
    assert_eq!(status.code(), Code::PermissionDenied);
    let status = client.watch(proto::WatchRequest::default()).await.unwrap();
    let status = within("status", status.into_inner().message())
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    server.is_as_it_was().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_or_a_second_open_ends_a_camera_with_the_field() {
    let server = server("").await;
    let mut client = server.client().await;
    for (second, field) in [
        (chunk(b"x"), "chunk"),
        (camera("rtsp://cam/1", "live"), "open"),
    ] {
        let mut call = Call::begin(&mut client).await.unwrap();
        call.send(camera("rtsp://cam/1", "live")).await;
        scored(&mut call, 1).await;
        call.send(second).await;
        let status = loop {
            match call.next().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("it ended well"),
                Err(status) => break status,
            }
        };
        assert_eq!(status.code(), Code::InvalidArgument);
        let details = status.get_details_bad_request().unwrap();
        assert_eq!(details.field_violations[0].field, field);
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_capacity_that_cameras_need_is_shown() {
    let server = server("").await;
    let mut client = server.client().await;
    let mut calls = vec![];
    for _ in 0..2 {
        let mut call = Call::begin(&mut client).await.unwrap();
        call.send(camera("rtsp://cam/1", "live")).await;
        scored(&mut call, 1).await;
        calls.push(call);
    }
    let load = server.load().await;
    assert_eq!(load.live_segments_per_second, 1.25);
    assert!(load.live_segments_per_second_max > 1.25);
    drop(calls);
    eventually("idle server", || server.is_idle()).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_stops_is_ended_and_the_others_go_on() {
    let server =
        server("streams.slow_reader_timeout_s = 0.3\nstreams.response_queue_messages = 2").await;
    let mut client = server.client().await;
    let mut other = Call::begin(&mut client).await.unwrap();
    other.send(camera("rtsp://cam/2", "live")).await;
    // Its own connection, whose windows a reader that stops soon fills.
    let channel = server
        .endpoint()
        .initial_stream_window_size(65_535)
        .initial_connection_window_size(65_535)
        .connect()
        .await
        .unwrap();
    let mut slow = Call::begin(
        &mut headhunt::rpc::proto::detection_service_client::DetectionServiceClient::new(channel),
    )
    .await
    .unwrap();
    slow.send(camera("rtsp://cam/1", "live")).await;
    eventually("one is left", || async { server.load().await.streams == 1 }).await;
    scored(&mut other, 3).await;
    let status = loop {
        match slow.next().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it ended well"),
            Err(status) => break status,
        }
    };
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    drop(other);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn draining_ends_cameras_with_a_summary_and_lets_uploads_end() {
    let server = server("shutdown.grace_s = 20").await;
    let mut client = server.client().await;
    let mut live = Call::begin(&mut client).await.unwrap();
    live.send(camera("rtsp://cam/1", "live")).await;
    scored(&mut live, 1).await;
    let mut upload = Call::begin(&mut client).await.unwrap();
    upload.send(common::detect::open("cam")).await;
    let video = flash(2, 1, 0);
    upload.send(chunk(&video[..60])).await;
    assert!(matches!(
        upload.next().await.unwrap(),
        Some(Told::Opened(_))
    ));

    server.shutdown.cancel();
    let status = loop {
        match live.next().await {
            Ok(Some(Told::Summary(told))) => {
                assert!(told.frames > 0);
                break live.next().await.unwrap_err();
            }
            Ok(Some(_)) => {}
            other => panic!("{other:?} without a summary"),
        }
    };
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    assert!(status.message().contains("draining"), "{status:?}");

    upload.send(chunk(&video[60..])).await;
    let Call {
        requests,
        responses,
    } = upload;
    drop(requests);
    let mut frames = 0;
    let mut responses = responses;
    while let Some(response) = within("response", responses.message()).await.unwrap() {
        if let Some(Told::Summary(told)) = response.message {
            frames = told.frames;
        }
    }
    assert_eq!(frames, 5 * 48);
    server.stop().await;
}
