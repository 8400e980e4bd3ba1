//! The server's life through the wire: limits, clients that leave, vanish or do not read, health,
//! reflection, gRPC-Web, shutdown.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test may

#[cfg(feature = "video")]
#[path = "grpc_server/binary.rs"]
mod binary;
mod collector;
mod common;

use std::time::Duration;

use common::{
    PATIENCE,
    detect::{Call, chunk, open, read},
    eventually,
    media::video,
    server::{Client, TestServer},
    within,
};
use headhunt::rpc::proto::{
    self, admin_service_client::AdminServiceClient, detect_response::Message as Told,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Status};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_types::StatusExt as _;

/// An upload that has begun and holds a slot: its scores wait for the model.
async fn running(client: &mut Client) -> Call {
    let mut call = Call::begin(client).await.unwrap();
    call.send(open("")).await;
    call.send(chunk(&video(&[10; 48 * 8]))).await;
    assert!(matches!(call.next().await.unwrap(), Some(Told::Opened(_))));
    call
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_frees_its_slot_and_its_place_in_the_queue() {
    let server = TestServer::start("streams.max_streams = 1").await;
    server.probe.hold();
    let mut client = server.client().await;
    let call = running(&mut client).await;
    eventually("segments in the queue", || async {
        server.load().await.queued_segments > 0
    })
    .await;
    assert_eq!(server.load().await.streams, 1);
    drop(call);
    // The model is still held: nothing of it is needed to free the rest.
    eventually("slot and queue are free", || server.is_idle()).await;
    server.probe.let_go();
    server.is_as_it_was().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_stream_too_many_is_refused_with_advice_and_the_running_ones_go_on() {
    let server = TestServer::start("streams.max_streams = 2").await;
    let mut client = server.client().await;
    let first = running(&mut client).await;
    let second = running(&mut client).await;
    let status = Call::begin(&mut client).await.err().unwrap();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().contains('2'), "{status:?}");
    let retry = status.get_error_details().retry_info().cloned().unwrap();
    assert!(retry.retry_delay.unwrap() > Duration::ZERO);
    assert_eq!(first.finish().await.unwrap().summary().frames, 48 * 8);
    assert_eq!(second.finish().await.unwrap().summary().frames, 48 * 8);
    server.is_as_it_was().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_is_ended_and_its_work_freed() {
    let server =
        TestServer::start("[streams]\nslow_reader_timeout_s = 0.5\nresponse_queue_messages = 1")
            .await;
    let channel = server
        .endpoint()
        .initial_stream_window_size(65_535)
        .connect()
        .await
        .unwrap();
    let mut client = Client::new(channel);
    // Some 9 MB of responses: more than every buffer on the way.
    let bytes = video(&vec![10; 300_000]);
    let mut call = Call::begin(&mut client).await.unwrap();
    call.send(open("long")).await;
    let requests = call.requests.clone();
    let upload = tokio::spawn(async move {
        for part in bytes.chunks(1 << 16) {
            if requests.send(chunk(part)).await.is_err() {
                return;
            }
        }
    });
    assert!(matches!(call.next().await.unwrap(), Some(Told::Opened(_))));
    eventually("the server gives up", || server.is_idle()).await;
    // Now it reads: what was on its way, then why it ended.
    let status = read(&mut call.responses).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    assert!(status.message().contains("read no response"), "{status:?}");
    drop(call);
    within("upload task", upload).await.unwrap();
    server.is_as_it_was().await;
    server.stop().await;
}

/// Passes bytes on between client and server until told to stop; then it keeps both connections
/// open and silent, as when a cable is pulled.
async fn proxy(server: std::net::SocketAddr, cut: CancellationToken) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.unwrap();
        let mut server = TcpStream::connect(server).await.unwrap();
        tokio::select! {
            _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
            () = cut.cancelled() => std::future::pending::<()>().await,
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_vanishes_is_found_by_pings() {
    let server = TestServer::start(
        "[http2]\nkeepalive_interval_s = 0.3\nkeepalive_timeout_s = 0.3\n[video]\nstall_timeout_s = 3600",
    )
    .await;
    let cut = CancellationToken::new();
    let address = proxy(server.address, cut.clone()).await;
    let mut client = Client::connect(format!("http://{address}")).await.unwrap();
    let call = running(&mut client).await;
    assert_eq!(server.load().await.streams, 1);
    // Longer than interval and timeout: a client that answers pings is left alone.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(server.load().await.streams, 1);
    cut.cancel();
    eventually("the vanished client's work is freed", || server.is_idle()).await;
    drop(call);
    server.is_as_it_was().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_opener_and_a_passed_deadline_are_ended() {
    let server = TestServer::start("streams.open_timeout_s = 0.3").await;
    let mut client = server.client().await;
    let mut call = Call::begin(&mut client).await.unwrap();
    let status = call.next().await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(status.message().contains("`open`"), "{status:?}");
    server.is_as_it_was().await;

    server.probe.hold();
    let (requests, received) = tokio::sync::mpsc::channel(4);
    let mut request = Request::new(tokio_stream::wrappers::ReceiverStream::new(received));
    // Set by hand, so that only the server acts on it.
    request
        .metadata_mut()
        .insert("grpc-timeout", "700m".parse().unwrap());
    let mut responses = client.detect(request).await.unwrap().into_inner();
    requests.send(open("")).await.unwrap();
    requests.send(chunk(&video(&[10; 500]))).await.unwrap();
    let status = read(&mut responses).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    eventually("the work is freed", || server.is_idle()).await;
    server.probe.let_go();
    server.is_as_it_was().await;
    server.stop().await;
}

async fn health(server: &TestServer, service: &str) -> Result<ServingStatus, Status> {
    let mut client = HealthClient::new(server.channel().await);
    let request = HealthCheckRequest {
        service: service.into(),
    };
    let response = within("health", client.check(request)).await?.into_inner();
    Ok(response.status())
}

#[tokio::test(flavor = "multi_thread")]
async fn health_follows_the_models_thread_and_the_shutdown() {
    let server = TestServer::start("engine.heartbeat_timeout_s = 2").await;
    for service in [
        "",
        "headhunt.v1.DetectionService",
        "headhunt.v1.AdminService",
    ] {
        eventually("serving after warm-up", || async {
            health(&server, service).await.unwrap() == ServingStatus::Serving
        })
        .await;
    }
    let unknown = health(&server, "headhunt.v1.Nothing").await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);

    server.probe.hold();
    let mut client = server.client().await;
    let call = running(&mut client).await;
    eventually("not serving without a heartbeat", || async {
        health(&server, "").await.unwrap() == ServingStatus::NotServing
    })
    .await;
    server.probe.let_go();
    eventually("serving again", || async {
        health(&server, "").await.unwrap() == ServingStatus::Serving
    })
    .await;
    call.finish().await.unwrap();

    // A watcher is told of the shutdown.
    let mut client = HealthClient::new(server.channel().await);
    let mut watch = client
        .watch(HealthCheckRequest::default())
        .await
        .unwrap()
        .into_inner();
    let first = within("watch", watch.message()).await.unwrap().unwrap();
    assert_eq!(first.status(), ServingStatus::Serving);
    server.shutdown.cancel();
    let last = within("watch", watch.message()).await.unwrap().unwrap();
    assert_eq!(last.status(), ServingStatus::NotServing);
    drop((watch, client));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_lets_short_streams_end_and_refuses_new_ones() {
    let server = TestServer::start("shutdown.grace_s = 60").await;
    let mut client = server.client().await;
    let call = running(&mut client).await;
    server.shutdown.cancel();
    eventually("new connections are refused", || async {
        TcpStream::connect(server.address).await.is_err()
    })
    .await;
    // On the old connection the server says GOAWAY, and the client makes its own status of it.
    assert!(Call::begin(&mut client).await.is_err());
    // The running one goes on to its end.
    call.send(chunk(&[10; 48])).await;
    assert_eq!(call.finish().await.unwrap().summary().frames, 48 * 9);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_grace_running_streams_end_with_unavailable() {
    let server = TestServer::start("shutdown.grace_s = 0.3").await;
    let mut client = server.client().await;
    let mut call = running(&mut client).await;
    server.shutdown.cancel();
    let status = read(&mut call.responses).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    assert!(status.message().contains("shutting down"), "{status:?}");
    drop(call);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_hold_no_more_memory_than_a_name_takes() {
    let server = TestServer::start("").await;
    let mut client = HealthClient::new(server.channel().await);
    let mut check = async |bytes: usize| {
        let service = "x".repeat(bytes);
        let answer = client.check(HealthCheckRequest { service }).await;
        answer.map(|_| ()).map_err(|status| status.code())
    };
    assert_eq!(check(0).await, Ok(()));
    assert_eq!(check(1000).await, Err(Code::NotFound));
    // Refused by its length, before it is read.
    assert_eq!(check(64 << 10).await, Err(Code::OutOfRange));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_reflections_list_every_service() {
    use tonic_reflection::pb::{v1, v1alpha};
    let server = TestServer::start("").await;
    let expected = [
        "grpc.health.v1.Health",
        "headhunt.v1.AdminService",
        "headhunt.v1.DetectionService",
    ];
    let request = v1::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(v1::server_reflection_request::MessageRequest::ListServices(
            String::new(),
        )),
    };
    let mut client =
        v1::server_reflection_client::ServerReflectionClient::new(server.channel().await);
    let mut stream = client
        .server_reflection_info(tokio_stream::iter([request]))
        .await
        .unwrap()
        .into_inner();
    let response = within("v1", stream.message()).await.unwrap().unwrap();
    let Some(v1::server_reflection_response::MessageResponse::ListServicesResponse(list)) =
        response.message_response
    else {
        panic!("{response:?}");
    };
    let names: Vec<_> = list.service.into_iter().map(|s| s.name).collect();
    assert!(
        expected.iter().all(|e| names.iter().any(|n| n == e)),
        "{names:?}"
    );

    let request = v1alpha::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(
            v1alpha::server_reflection_request::MessageRequest::FileContainingSymbol(
                "headhunt.v1.DetectionService".into(),
            ),
        ),
    };
    let mut client =
        v1alpha::server_reflection_client::ServerReflectionClient::new(server.channel().await);
    let mut stream = client
        .server_reflection_info(tokio_stream::iter([request]))
        .await
        .unwrap()
        .into_inner();
    let response = within("v1alpha", stream.message()).await.unwrap().unwrap();
    assert!(matches!(
        response.message_response,
        Some(v1alpha::server_reflection_response::MessageResponse::FileDescriptorResponse(f))
            if !f.file_descriptor_proto.is_empty()
    ));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_web_over_http_1_answers() {
    let server = TestServer::start("").await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let head = "POST /headhunt.v1.DetectionService/GetInfo HTTP/1.1\r\nhost: test\r\n\
        content-type: application/grpc-web+proto\r\ncontent-length: 5\r\nconnection: close\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&[0; 5]).await.unwrap();
    let mut answer = Vec::new();
    within("answer", stream.read_to_end(&mut answer))
        .await
        .unwrap();
    let text = String::from_utf8_lossy(&answer).to_lowercase();
    assert!(text.starts_with("http/1.1 200"), "{text}");
    assert!(
        text.contains("content-type: application/grpc-web+proto"),
        "{text}"
    );
    assert!(text.contains("brightness"), "{text}");
    assert!(text.contains("grpc-status:0"), "{text}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rpcs_on_clips_and_jobs_need_a_directory_and_say_which_key() {
    let server = TestServer::start("").await;
    let mut client = AdminServiceClient::new(server.channel().await);
    let mut answers: Vec<(&str, Status)> = vec![(
        "UploadClip",
        client
            .upload_clip(tokio_stream::iter([proto::UploadClipRequest::default()]))
            .await
            .unwrap_err(),
    )];
    macro_rules! call {
        ($($name:literal $method:ident $request:ident),+ $(,)?) => {$(
            answers.push(($name, client.$method(proto::$request::default()).await.unwrap_err()));
        )+};
    }
    call! {
        "ImportClips" import_clips ImportClipsRequest,
        "ListClips" list_clips ListClipsRequest,
        "GetClip" get_clip GetClipRequest,
        "RelabelClip" relabel_clip RelabelClipRequest,
        "DeleteClip" delete_clip DeleteClipRequest,
        "HuntHeads" hunt_heads HuntHeadsRequest,
        "Calibrate" calibrate CalibrateRequest,
        "Evaluate" evaluate EvaluateRequest,
        "ListJobs" list_jobs ListJobsRequest,
        "FollowJob" follow_job FollowJobRequest,
        "CancelJob" cancel_job CancelJobRequest,
        "GetReport" get_report GetReportRequest,
    }
    assert_eq!(answers.len(), 13);
    for (name, status) in answers {
        assert_eq!(
            status.code(),
            Code::FailedPrecondition,
            "{name}: {status:?}"
        );
        assert!(status.message().contains("admin.dir"), "{name}: {status:?}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_clients_at_once_get_their_own_frames() {
    let server = TestServer::start("").await;
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..8u64 {
        let mut client = server.client().await;
        tasks.spawn(async move {
            let frames = 48 * (2 + n) + n;
            let bytes = video(&vec![(n * 20) as u8; frames as usize]);
            let seen = common::detect::detect(&mut client, open(""), &bytes, 61)
                .await
                .unwrap();
            seen.check_frames(frames);
            seen.opened().session_id.clone()
        });
    }
    let mut sessions = Vec::new();
    while let Some(session) = tokio::time::timeout(PATIENCE, tasks.join_next())
        .await
        .unwrap()
    {
        sessions.push(session.unwrap());
    }
    sessions.sort();
    sessions.dedup();
    assert_eq!(sessions.len(), 8);
    server.is_as_it_was().await;
    server.stop().await;
}
