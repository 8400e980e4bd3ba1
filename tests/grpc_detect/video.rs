//! The same with real video and the real decoder.

use std::{path::PathBuf, sync::Arc, time::Duration};

use headhunt::{
    limits,
    rpc::{
        VideoMedia,
        proto::{ScoreStage, detect_response::Message as Told},
    },
    video::VideoLimits,
};
use tonic::Code;

use crate::common::{
    clips,
    detect::{Call, chunk, detect, open},
    eventually,
    server::TestServer,
};

async fn start(toml: &str, adjust: impl FnOnce(&mut VideoLimits)) -> TestServer {
    let mut limits = VideoLimits {
        stall_timeout: Duration::from_secs(20),
        ..VideoLimits::default()
    };
    adjust(&mut limits);
    TestServer::with(
        toml,
        Arc::new(VideoMedia {
            limits,
            live: None,
            web: None,
        }),
    )
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_container_gives_every_frame_one_final_score() {
    let server = start("", |_| {}).await;
    let mut client = server.client().await;
    for (muxer, container) in [
        ("mp4mux", "mp4"),
        ("mp4mux fragment-duration=400", "mp4"),
        ("mp4mux faststart=true", "mp4"),
        ("matroskamux", "matroska"),
        ("mpegtsmux", "mpegts"),
        ("avimux", "avi"),
    ] {
        let bytes = clips::h264(130, 160, 120, muxer);
        let mut first: Option<Vec<_>> = None;
        for size in [997, limits::CHUNK_MAX_BYTES] {
            let seen = detect(&mut client, open(""), &bytes, size)
                .await
                .unwrap_or_else(|status| panic!("{muxer} in chunks of {size}: {status:?}"));
            seen.check_frames(130);
            let media = seen.opened().media.clone().unwrap();
            assert_eq!(media.container, container);
            assert_eq!((media.width, media.height), (160, 120));
            assert_eq!(media.codec, "h264");
            let scores: Vec<_> = seen
                .scores(ScoreStage::Final)
                .into_iter()
                .cloned()
                .collect();
            assert_eq!(
                *first.get_or_insert_with(|| scores.clone()),
                scores,
                "{muxer}"
            );
        }
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_of_one_byte_do() {
    let server = start("", |_| {}).await;
    let mut client = server.client().await;
    for muxer in ["matroskamux", "mp4mux"] {
        let bytes = clips::h264(20, 64, 48, muxer);
        let seen = detect(&mut client, open(""), &bytes, 1).await.unwrap();
        seen.check_frames(20);
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn scores_come_while_the_upload_goes_on_where_the_container_allows_it() {
    let server = start("", |_| {}).await;
    for muxer in ["matroskamux", "mpegtsmux", "mp4mux fragment-duration=400"] {
        let bytes = clips::h264(48 * 8, 160, 120, muxer);
        let (most, rest) = bytes.split_at(bytes.len() * 7 / 8);
        let mut client = server.client().await;
        let mut call = Call::begin(&mut client).await.unwrap();
        call.send(open("")).await;
        for part in most.chunks(10_000) {
            call.send(chunk(part)).await;
        }
        assert!(matches!(call.next().await.unwrap(), Some(Told::Opened(_))));
        match call.next().await.unwrap() {
            Some(Told::FrameScores(scores)) => assert_eq!(scores.segment, 0, "{muxer}"),
            other => panic!("{muxer}: {other:?}"),
        }
        call.send(chunk(rest)).await;
        let seen = call.finish().await.unwrap();
        assert_eq!(seen.summary().frames, 48 * 8, "{muxer}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_usable_video_is_named_and_leaves_the_server_as_it_was() {
    let server = start("", |limits| limits.max_pixels = 320 * 240).await;
    let mut client = server.client().await;
    let whole = clips::h264(60, 160, 120, "mp4mux");
    let (half, _) = whole.split_at(whole.len() / 2);
    let text = "It is a truth universally acknowledged. "
        .repeat(400)
        .into_bytes();
    let fragmented = clips::h264(60, 160, 120, "mp4mux fragment-duration=400");
    let first = fragmented
        .windows(4)
        .position(|word| word == b"moof")
        .unwrap();
    let no_frames = fragmented[..first - 4].to_vec();
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("a track of zero frames", no_frames, "no playable streams"),
        ("no bytes", Vec::new(), "empty"),
        ("a text file", text, "text"),
        ("a short text file", b"Dear Ann,".to_vec(), "not a video"),
        ("a truncated MP4", half.to_vec(), "moov"),
        ("audio alone", clips::audio_only(), "no video track"),
        (
            "too many pixels",
            clips::h264(5, 640, 480, "matroskamux"),
            "640x480",
        ),
        (
            "a side that is too long",
            clips::h264(2, 8200, 16, "matroskamux"),
            "8200",
        ),
    ];
    for (what, bytes, word) in cases {
        let status = detect(&mut client, open(""), &bytes, 5000)
            .await
            .err()
            .unwrap_or_else(|| panic!("{what} was scored"));
        assert_eq!(status.code(), Code::InvalidArgument, "{what}: {status:?}");
        assert!(status.message().contains(word), "{what}: {status:?}");
        eventually("idle server", || server.is_idle()).await;
        let seen = detect(&mut client, open(""), &whole, 5000).await.unwrap();
        seen.check_frames(60);
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_in_the_middle_is_reported_and_decoding_goes_on() {
    let server = start("", |_| {}).await;
    let mut client = server.client().await;
    let mut bytes = clips::h264(200, 160, 120, "mpegtsmux");
    let at = bytes.len() / 2;
    bytes[at..at + 20_000].fill(0x55);
    let seen = detect(&mut client, open(""), &bytes, 5000).await.unwrap();
    let summary = *seen.summary();
    assert!((100..200).contains(&summary.frames), "{summary:?}");
    assert!(summary.gaps > 0, "{summary:?}");
    seen.check_frames(summary.frames);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_spool_is_capped_and_its_place_is_not_told() {
    let bytes = clips::h264(100, 320, 240, "mp4mux");
    assert!(bytes.len() > 1 << 20, "{} bytes", bytes.len());
    let server = start("", |limits| limits.spool_max_bytes = 1 << 20).await;
    let mut client = server.client().await;
    let status = detect(&mut client, open(""), &bytes, 60_000)
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    assert!(status.message().contains("1048576"), "{status:?}");
    eventually("idle server", || server.is_idle()).await;
    server.stop().await;

    let dir = "/nowhere/spool";
    let server = start("", |limits| limits.spool_dir = PathBuf::from(dir)).await;
    let mut client = server.client().await;
    let status = detect(&mut client, open(""), &bytes, 60_000)
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
    assert!(!status.message().contains(dir), "{status:?}");
    assert!(status.message().contains("spool folder"), "{status:?}");
    // What needs no spool is still scored.
    let bytes = clips::h264(20, 160, 120, "matroskamux");
    let seen = detect(&mut client, open(""), &bytes, 5000).await.unwrap();
    seen.check_frames(20);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_frees_decoder_and_slot() {
    let server = start("streams.max_streams = 1", |_| {}).await;
    let bytes = clips::h264(48 * 6, 160, 120, "matroskamux");
    for size in [bytes.len() / 2, bytes.len()] {
        server.probe.hold();
        let mut client = server.client().await;
        let mut call = Call::begin(&mut client).await.unwrap();
        call.send(open("")).await;
        call.send(chunk(&bytes[..size])).await;
        assert!(matches!(call.next().await.unwrap(), Some(Told::Opened(_))));
        assert_eq!(server.load().await.streams, 1);
        drop(call);
        eventually("slot and queue are free", || server.is_idle()).await;
        server.probe.let_go();
    }
    let mut client = server.client().await;
    let seen = detect(&mut client, open(""), &bytes, 5000).await.unwrap();
    seen.check_frames(48 * 6);
    server.stop().await;
}
