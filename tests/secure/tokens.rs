//! What a token's holder may do, and token files that change.

use headhunt::{
    access::Role,
    limits::JOB_FOLLOWERS_OF_TOKEN_MAX,
    rpc::proto::{
        self, ClipLabel, GetInfoRequest, ListProfilesRequest, UploadClipRequest, WatchRequest,
        admin_service_client::AdminServiceClient, detection_service_client::DetectionServiceClient,
        upload_clip_request::Message,
    },
};
use tonic::{Code, Status, transport::Channel};
use tonic_types::StatusExt as _;

use super::site::{Site, Way, held, token, with};
use crate::common::{
    admin,
    detect::{chunk, open},
    eventually,
    media::{flash, video},
    server::TestServer,
    within,
};

type Detector = DetectionServiceClient<Way>;

fn detector(channel: &Channel, name: &str) -> Detector {
    DetectionServiceClient::new(with(channel, &token(name)))
}

/// An upload's end.
async fn upload(client: &mut Detector, bytes: &[u8]) -> Result<(), Status> {
    let mut requests = vec![open("")];
    requests.extend(bytes.chunks(1000).map(chunk));
    let call = client.detect(tokio_stream::iter(requests));
    let mut answers = within("upload", call).await?.into_inner();
    while within("answer", answers.message()).await?.is_some() {}
    Ok(())
}

async fn watch(client: &mut Detector, uri: &str) -> Status {
    let request = WatchRequest {
        source: Some(proto::UriSource {
            uri: uri.into(),
            ..Default::default()
        }),
        profile: "live".into(),
        ..Default::default()
    };
    match within("watch", client.watch(request)).await {
        Err(status) => status,
        Ok(answers) => within("its end", answers.into_inner().message())
            .await
            .unwrap_err(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_runs_so_many_streams_and_uploads_so_many_bytes() {
    let site = Site::new();
    let limited =
        held("small", &[Role::Detect], false) + "max_streams = 1\nmax_upload_bytes = 600\n";
    site.write_tokens(&(limited + &held("large", &[Role::Detect], false)));
    let server = TestServer::start(&site.toml(false, true, false)).await;
    let channel = server.channel().await;
    let mut small = detector(&channel, "small");
    let mut large = detector(&channel, "large");

    // One that runs: its scores wait for the model.
    server.probe.hold();
    let (requests, received) = tokio::sync::mpsc::channel(4);
    let received = tokio_stream::wrappers::ReceiverStream::new(received);
    let mut running = within("begin", small.detect(received))
        .await
        .unwrap()
        .into_inner();
    requests.send(open("")).await.unwrap();
    requests.send(chunk(&video(&[10; 48 * 2]))).await.unwrap();
    assert!(within("opened", running.message()).await.unwrap().is_some());
    let status = upload(&mut small, &video(&[10; 48])).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().contains("max_streams = 1"), "{status:?}");
    assert!(status.get_error_details().retry_info().is_some());
    server.probe.let_go();
    // Another token's streams are its own matter.
    upload(&mut large, &video(&[10; 48])).await.unwrap();
    drop(requests);
    while within("its end", running.message())
        .await
        .unwrap()
        .is_some()
    {}
    drop(running);
    eventually("the place is free", || {
        let mut small = small.clone();
        async move { upload(&mut small, &video(&[10; 48])).await.is_ok() }
    })
    .await;

    let long = flash(8, 8, 0);
    assert!(long.len() > 600);
    let status = upload(&mut small, &long).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    assert!(
        status.message().contains("max_upload_bytes = 600"),
        "{status:?}"
    );
    upload(&mut large, &long).await.unwrap();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_follows_jobs_without_end_does_not_keep_the_others_out() {
    let site = Site::new();
    let tokens = held("ann", &[Role::Admin], false) + &held("board", &[Role::Observe], false);
    site.write_tokens(&tokens);
    let (server, _) = admin::start(site.dir.path(), &site.toml(false, true, false)).await;
    let channel = server.channel().await;
    let mut ann = AdminServiceClient::new(with(&channel, &token("ann")));
    let mut board = AdminServiceClient::new(with(&channel, &token("board")));
    for (name, label, anomalous, bytes) in [
        ("calm", ClipLabel::Normal, vec![], flash(4, 0, 0)),
        ("still", ClipLabel::Normal, vec![], flash(5, 0, 0)),
        ("loud", ClipLabel::Anomaly, vec![(96, 144)], flash(2, 1, 0)),
        ("late", ClipLabel::Anomaly, vec![(144, 192)], flash(3, 1, 0)),
    ] {
        let requests = [admin::open(name, label, &anomalous), admin::chunk(&bytes)];
        let call = ann.upload_clip(tokio_stream::iter(requests));
        within("clip", call).await.unwrap();
    }
    // A job that lasts.
    server.probe.hold();
    let request = proto::HuntHeadsRequest {
        options: Some(admin::options()),
        ..Default::default()
    };
    let job_id = ann.hunt_heads(request).await.unwrap().into_inner().job_id;
    let follow = proto::FollowJobRequest { job_id };
    let mut followed = Vec::new();
    for _ in 0..JOB_FOLLOWERS_OF_TOKEN_MAX {
        // As many connections as it likes.
        let mut board = AdminServiceClient::new(with(&server.channel().await, &token("board")));
        let call = board.follow_job(follow.clone());
        followed.push(within("follow", call).await.unwrap().into_inner());
    }
    let status = board.follow_job(follow.clone()).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    assert!(status.message().contains("64 jobs"), "{status:?}");
    let mut others = ann.follow_job(follow.clone()).await.unwrap().into_inner();
    assert!(within("state", others.message()).await.unwrap().is_some());
    followed.pop();
    eventually("its place is free", || {
        let (mut board, follow) = (board.clone(), follow.clone());
        async move { board.follow_job(follow).await.is_ok() }
    })
    .await;
    server.probe.let_go();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clips_count_against_the_bytes_of_an_upload_too() {
    let site = Site::new();
    site.write_tokens(&(held("ann", &[Role::Admin], false) + "max_upload_bytes = 100\n"));
    let toml =
        site.toml(false, true, false) + &format!("admin.dir = '{}'", site.path("admin").display());
    let server = TestServer::start(&toml).await;
    let mut client = AdminServiceClient::new(with(&server.channel().await, &token("ann")));
    let said = |message| UploadClipRequest {
        message: Some(message),
    };
    let requests = [
        said(Message::Open(proto::upload_clip_request::Open {
            name: "a".into(),
            label: proto::ClipLabel::Normal.into(),
            anomalous: vec![],
        })),
        said(Message::Chunk(vec![0; 60].into())),
        said(Message::Chunk(vec![0; 60].into())),
    ];
    let call = client.upload_clip(tokio_stream::iter(requests));
    let status = within("upload", call).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    assert!(
        status.message().contains("max_upload_bytes = 100"),
        "{status:?}"
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_names_its_own_sources_alone() {
    let site = Site::new();
    let sources = "sources = ['*.cams.example', '10.1.0.0/16:554', 'file://']\n";
    site.write_tokens(
        &(held("gate", &[Role::Detect], false)
            + sources
            + &held("none", &[Role::Detect], false)
            + "sources = []\n"
            + &held("all", &[Role::Detect], false)),
    );
    let toml = site.toml(false, true, false)
        + &format!(
            "[sources]\nschemes = ['rtsp', 'http', 'file']\nfile_roots = ['{}']",
            site.dir.path().display()
        );
    let server = TestServer::start(&toml).await;
    let channel = server.channel().await;
    let (mut gate, mut none, mut all) = (
        detector(&channel, "gate"),
        detector(&channel, "none"),
        detector(&channel, "all"),
    );
    // The decoder of this server opens no URIs: UNIMPLEMENTED comes from behind the check.
    for uri in [
        "rtsp://a.cams.example/1",
        "rtsp://ann:pw@a.CAMS.example.:99/1",
        "rtsp://10.1.2.3/1",
        "http://a.cams.example/x.mp4",
        "file:///a.mp4",
        // Judged once its address is known: see the tests of reach.
        "rtsp://elsewhere.example/1",
    ] {
        assert_eq!(
            watch(&mut gate, uri).await.code(),
            Code::Unimplemented,
            "{uri}"
        );
        assert_eq!(
            watch(&mut all, uri).await.code(),
            Code::Unimplemented,
            "{uri}"
        );
        let status = watch(&mut none, uri).await;
        assert_eq!(status.code(), Code::PermissionDenied, "{uri}");
    }
    for uri in [
        "rtsp://10.2.2.3/1",
        "rtsp://10.1.2.3:555/1",
        "rtsp://a.cams.example@10.2.2.3/1",
        "http://10.1.2.3/x.mp4",
        "http://elsewhere.example/x.mp4",
    ] {
        let status = watch(&mut gate, uri).await;
        assert_eq!(status.code(), Code::PermissionDenied, "{uri}: {status:?}");
        assert!(
            status.message().contains("sources of this token"),
            "{status:?}"
        );
        let details = status.get_error_details();
        let violations = &details.bad_request().unwrap().field_violations;
        assert_eq!(violations[0].field, "source.uri");
        assert_eq!(
            watch(&mut all, uri).await.code(),
            Code::Unimplemented,
            "{uri}"
        );
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_come_and_go_without_a_restart_and_a_broken_file_changes_nothing() {
    let site = Site::new();
    site.write_tokens(&held("old", &[Role::Detect], false));
    let server = TestServer::start(&site.toml(false, true, false)).await;
    let channel = server.channel().await;
    let info = |name: &'static str| {
        let mut client = detector(&channel, name);
        async move {
            let call = client.get_info(GetInfoRequest {}).await;
            call.map(drop).map_err(|status| status.code())
        }
    };
    assert_eq!(info("old").await, Ok(()));
    assert_eq!(info("new").await, Err(Code::Unauthenticated));

    site.write_tokens("[[token]]\nname = 'half");
    tokio::time::sleep(std::time::Duration::from_millis(400)).await;
    assert_eq!(info("old").await, Ok(()));

    site.write_tokens(&held("new", &[Role::Observe], false));
    eventually("the new token", || async { info("new").await.is_ok() }).await;
    assert_eq!(info("old").await, Err(Code::Unauthenticated));
    let mut admin = AdminServiceClient::new(with(&channel, &token("new")));
    let listed = within("list", admin.list_profiles(ListProfilesRequest::default())).await;
    assert!(listed.is_ok());
    server.stop().await;
}

/// A detection that waits for the model, and what its answers end with.
async fn ends(client: &mut Detector, meanwhile: impl FnOnce()) -> Status {
    let (requests, received) = tokio::sync::mpsc::channel(4);
    let received = tokio_stream::wrappers::ReceiverStream::new(received);
    let begun = within("begin", client.detect(received)).await;
    let mut answers = begun.unwrap().into_inner();
    requests.send(open("")).await.unwrap();
    requests.send(chunk(&video(&[10; 48 * 2]))).await.unwrap();
    assert!(within("opened", answers.message()).await.unwrap().is_some());
    meanwhile();
    within("its end", async {
        loop {
            if let Err(status) = answers.message().await {
                return status;
            }
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_detection_ends_when_its_token_does() {
    let site = Site::new();
    let soon = std::time::SystemTime::now() + std::time::Duration::from_millis(1500);
    let soon = prost_types::Timestamp::from(soon).to_string();
    let short = headhunt::access::entry("short", &token("short"), &[Role::Detect], Some(&soon));
    let other = held("other", &[Role::Detect], false);
    site.write_tokens(&(held("gone", &[Role::Detect], false) + &other + &short));
    let server = TestServer::start(&site.toml(false, true, false)).await;
    server.probe.hold();
    let channel = server.channel().await;
    let (mut short, mut gone) = (detector(&channel, "short"), detector(&channel, "gone"));
    let status = ends(&mut short, || {}).await;
    assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
    let taken_away = || site.write_tokens(&other);
    let status = ends(&mut gone, taken_away).await;
    assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
    // The places are free, and another's token is no worse for it.
    server.probe.let_go();
    let mut other = detector(&channel, "other");
    upload(&mut other, &video(&[10; 48])).await.unwrap();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_taken_away_while_the_server_drains_ends_its_detection() {
    let site = Site::new();
    let other = held("other", &[Role::Detect], false);
    site.write_tokens(&(held("gone", &[Role::Detect], false) + &other));
    let server = TestServer::start(&site.toml(false, true, false)).await;
    server.probe.hold();
    let mut gone = detector(&server.channel().await, "gone");
    let status = ends(&mut gone, || {
        server.shutdown.cancel();
        site.write_tokens(&other);
    })
    .await;
    assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
    server.probe.let_go();
    server.stop().await;
}
