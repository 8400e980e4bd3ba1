//! Files that the server reads itself (`file://`, `http://`, `https://`), through the wire with the
//! real decoder, and how each refuses.
#![cfg(feature = "video")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test may

mod common;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use common::{
    clips,
    detect::{Seen, ask, detect, open, send_all},
    server::TestServer,
};
use headhunt::{
    clock::SystemClock,
    net::{Anywhere, Dialer, SystemResolver, Vet},
    rpc::{
        VideoMedia, WebMedia,
        proto::{self, ScoreStage, detect_request::Message as Ask, open::Source, tls_trust::Trust},
    },
    video::VideoLimits,
    web,
};
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use sha2::{Digest as _, Sha256};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpListener,
    runtime::Handle,
};
use tonic::{Code, Status};

const ALLOWED: &str = r#"sources.schemes = ["http", "https"]"#;

async fn start(toml: &str, vet: Arc<dyn Vet>) -> TestServer {
    let client = web::Client {
        dialer: Dialer {
            clock: SystemClock::shared(),
            resolver: Arc::new(SystemResolver),
            vet,
            connect_timeout: Duration::from_secs(5),
        },
        response_timeout: Duration::from_millis(700),
        silence_timeout: Duration::from_millis(700),
    };
    let media = VideoMedia {
        limits: VideoLimits::default(),
        live: None,
        web: Some(WebMedia {
            client,
            runtime: Handle::current(),
        }),
    };
    TestServer::with(toml, Arc::new(media)).await
}

async fn read(server: &TestServer, uri: &str, trust: Option<Trust>) -> Result<Seen, Status> {
    let request = ask(Ask::Open(proto::Open {
        source: Some(Source::Uri(proto::UriSource {
            uri: uri.into(),
            trust: trust.map(|trust| proto::TlsTrust { trust: Some(trust) }),
            ..Default::default()
        })),
        ..Default::default()
    }));
    // Half-closed at once: that does not end a URI source.
    send_all(&mut server.client().await, vec![request]).await
}

/// A web server of a few lines: for each request the answer that `answer` gives for its head.
async fn web(answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let answer = Arc::new(answer);
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            tokio::spawn(serve(socket, answer.clone()));
        }
    });
    address
}

async fn serve<S, F>(mut socket: S, answer: Arc<F>)
where
    S: AsyncRead + AsyncWrite + Unpin,
    F: Fn(&str) -> Vec<u8>,
{
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if !matches!(socket.read(&mut byte).await, Ok(1)) {
            return;
        }
        head.push(byte[0]);
    }
    let answer = answer(std::str::from_utf8(&head).unwrap());
    let stays = answer.ends_with(b"stay");
    let answer = answer.strip_suffix(b"stay").unwrap_or(&answer);
    if socket.write_all(answer).await.is_ok() && stays {
        tokio::time::sleep(Duration::from_secs(30)).await;
    }
    let _ = socket.shutdown().await;
}

fn ok(body: &[u8], announced: usize) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {announced}\r\n\r\n");
    [head.as_bytes(), body].concat()
}

fn only(head: &str) -> Vec<u8> {
    format!("HTTP/1.1 {head}\r\nContent-Length: 0\r\n\r\n").into_bytes()
}

/// Remembers whom it was asked for, and refuses one port.
#[derive(Default)]
struct Policy {
    asked: Mutex<Vec<SocketAddr>>,
    refused: Mutex<Option<u16>>,
}

impl Vet for Policy {
    fn vet(&self, _: &str, address: SocketAddr) -> Result<(), String> {
        self.asked.lock().unwrap().push(address);
        if *self.refused.lock().unwrap() == Some(address.port()) {
            return Err("it is not on the list".into());
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_a_web_server_gives_the_scores_of_its_upload() {
    let server = start(ALLOWED, Arc::new(Anywhere)).await;
    for muxer in ["matroskamux", "mp4mux"] {
        let bytes = clips::h264(110, 160, 120, muxer);
        let uploaded = detect(&mut server.client().await, open(""), &bytes, 4096)
            .await
            .unwrap();
        let served = bytes.clone();
        let address = web(move |head| {
            let path = head.split(' ').nth(1).unwrap();
            match path {
                "/first?token=secret" => only("302 Found\r\nLocation: /second"),
                "/second" => only("308 Moved\r\nLocation: clips/a%20b.bin"),
                // Chunked: without a length.
                "/clips/a%20b.bin" => {
                    let mut answer =
                        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
                    for chunk in served.chunks(3000) {
                        answer.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
                        answer.extend_from_slice(chunk);
                        answer.extend_from_slice(b"\r\n");
                    }
                    answer.extend_from_slice(b"0\r\n\r\n");
                    answer
                }
                "/plain"
                    if head.contains("Authorization: Basic YW5uOnAgdw==")
                        || head.contains("authorization: Basic YW5uOnAgdw==") =>
                {
                    ok(&served, served.len())
                }
                "/plain" => only("401 Unauthorized"),
                _ => only("404 Not Found"),
            }
        })
        .await;
        for uri in [
            format!("http://{address}/first?token=secret"),
            format!("http://ann:p%20w@{address}/plain"),
        ] {
            let seen = read(&server, &uri, None).await.unwrap();
            seen.check_frames(110);
            assert_eq!(
                seen.scores(ScoreStage::Final),
                uploaded.scores(ScoreStage::Final),
                "{muxer} {uri}"
            );
        }
        let refused = read(&server, &format!("http://{address}/plain"), None).await;
        let status = refused.unwrap_err();
        assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
        let missing = read(
            &server,
            &format!("http://u:secret@{address}/no?a=secret"),
            None,
        )
        .await;
        let status = missing.unwrap_err();
        assert_eq!(status.code(), Code::NotFound, "{status:?}");
        assert!(!format!("{status:?}").contains("secret"), "{status:?}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_address_is_judged_also_after_a_redirect() {
    let policy = Arc::new(Policy::default());
    let server = start(ALLOWED, policy.clone()).await;
    let reached = Arc::new(Mutex::new(0));
    let count = reached.clone();
    let inner = web(move |_| {
        *count.lock().unwrap() += 1;
        only("404 Not Found")
    })
    .await;
    let outer =
        web(move |_| only(&format!("301 Moved\r\nLocation: http://{inner}/metadata"))).await;
    *policy.refused.lock().unwrap() = Some(inner.port());
    let status = read(&server, &format!("http://{outer}/a.mp4"), None).await;
    let status = status.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied, "{status:?}");
    assert_eq!(*policy.asked.lock().unwrap(), [outer, inner]);
    assert_eq!(*reached.lock().unwrap(), 0);
    // For ever to itself.
    let circle = web(|_| only("302 Found\r\nLocation: /again")).await;
    let status = read(&server, &format!("http://{circle}/a"), None).await;
    assert_eq!(status.unwrap_err().code(), Code::InvalidArgument);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_breaks_off_or_falls_silent_ends_with_the_scores_before_it() {
    let server = start(ALLOWED, Arc::new(Anywhere)).await;
    let bytes = clips::h264(200, 160, 120, "matroskamux");
    let part = bytes[..bytes.len() * 3 / 4].to_vec();
    let whole = bytes.len();
    let address = web(move |head| match head.split(' ').nth(1).unwrap() {
        "/cut" => ok(&part, whole),
        "/silent" => [ok(&part, whole), b"stay".to_vec()].concat(),
        "/mute" => b"stay".to_vec(),
        "/500" => only("500 Internal Server Error"),
        "/gzip" => {
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 0\r\n\r\n".to_vec()
        }
        _ => b"SSH-2.0-OpenSSH\r\n".to_vec(),
    })
    .await;
    for (path, code) in [
        ("cut", Code::Unavailable),
        ("silent", Code::Unavailable),
        ("mute", Code::Unavailable),
        ("500", Code::Unavailable),
        ("ssh", Code::Unavailable),
        ("gzip", Code::InvalidArgument),
    ] {
        let request = ask(Ask::Open(proto::Open {
            source: Some(Source::Uri(proto::UriSource {
                uri: format!("http://{address}/{path}"),
                ..Default::default()
            })),
            ..Default::default()
        }));
        let mut client = server.client().await;
        let mut responses = client
            .detect(tokio_stream::iter([request]))
            .await
            .unwrap()
            .into_inner();
        let mut frames = 0;
        let status = loop {
            match common::within("response", responses.message()).await {
                Ok(Some(response)) => {
                    if let Some(proto::detect_response::Message::FrameScores(scores)) =
                        response.message
                        && scores.stage() == ScoreStage::Final
                    {
                        frames += scores.frames.len();
                    }
                }
                Ok(None) => panic!("{path} ended well"),
                Err(status) => break status,
            }
        };
        assert_eq!(status.code(), code, "{path}: {status:?}");
        let partly = ["cut", "silent"].contains(&path);
        assert_eq!(frames >= 96, partly, "{path}: {frames} frames");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn https_is_checked_and_a_pinned_certificate_is_believed() {
    let server = start(ALLOWED, Arc::new(Anywhere)).await;
    let bytes = clips::h264(50, 160, 120, "matroskamux");
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["localhost".to_owned()])
        .unwrap()
        .self_signed(&key)
        .unwrap();
    let digest = Sha256::digest(certificate.der()).to_vec();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder_with_provider(ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let answer = Arc::new(move |_: &str| ok(&bytes, bytes.len()));
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            if let Ok(stream) = acceptor.accept(socket).await {
                tokio::spawn(serve(stream, answer.clone()));
            }
        }
    });
    let uri = format!("https://localhost:{port}/a.mkv");
    let status = read(&server, &uri, None).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
    let wrong = Trust::CertificateSha256(vec![7; 32]);
    let status = read(&server, &uri, Some(wrong)).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
    let seen = read(&server, &uri, Some(Trust::CertificateSha256(digest))).await;
    seen.unwrap().check_frames(50);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_the_server_are_read_below_the_roots_alone() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("clips");
    std::fs::create_dir(&root).unwrap();
    let bytes = clips::h264(60, 160, 120, "mp4mux");
    std::fs::write(root.join("a.mp4"), &bytes).unwrap();
    std::fs::write(dir.path().join("out.mp4"), &bytes).unwrap();
    std::os::unix::fs::symlink(dir.path().join("out.mp4"), root.join("link.mp4")).unwrap();
    let toml = format!(
        "sources.schemes = [\"file\"]\nsources.file_roots = [\"{}\"]",
        root.display()
    );
    let server = start(&toml, Arc::new(Anywhere)).await;
    let file = |name: &str| format!("file://{}/{name}", root.display());
    let uploaded = detect(&mut server.client().await, open(""), &bytes, 4096)
        .await
        .unwrap();
    let seen = read(&server, &file("a.mp4"), None).await.unwrap();
    seen.check_frames(60);
    assert_eq!(
        seen.scores(ScoreStage::Final),
        uploaded.scores(ScoreStage::Final)
    );
    for name in ["link.mp4", "../out.mp4", "none.mp4", ""] {
        let status = read(&server, &file(name), None).await.unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied, "{name}: {status:?}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_word_in_the_configuration_they_are_refused() {
    let server = start("", Arc::new(Anywhere)).await;
    for uri in [
        "http://127.0.0.1:1/a",
        "https://127.0.0.1:1/a",
        "file:///etc/passwd",
    ] {
        let status = read(&server, uri, None).await.unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied, "{uri}: {status:?}");
    }
    server.stop().await;
}
