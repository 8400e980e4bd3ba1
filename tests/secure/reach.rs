//! Where the server may be led: every known way around a list of hosts, through the wire.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use headhunt::{
    access::Role,
    clock::SystemClock,
    net::{Dialer, FailureKind, Reach, Resolve, Resolving, SystemResolver, Target, Trust},
    rpc::{
        LiveMedia, VideoMedia, WebMedia,
        proto::{self, WatchRequest, detection_service_client::DetectionServiceClient},
    },
    rtsp,
    video::VideoLimits,
    web,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    runtime::Handle,
};
use tonic::{
    Code, Status,
    codegen::{Body, Bytes, StdError},
};

use super::site::{Site, held, token, with};
use crate::common::{server::TestServer, within};

/// Names with answers of their own; the rest is the machine's.
#[derive(Debug, Default)]
struct Names {
    known: Vec<(&'static str, Vec<SocketAddr>)>,
    asked: AtomicUsize,
    /// Answers in turn for the name `turns`.
    turns: Mutex<Vec<SocketAddr>>,
}

impl Resolve for Names {
    fn resolve(&self, host: &str, port: u16) -> Resolving {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let answer = if host == "turns" {
            Some(vec![self.turns.lock().unwrap().remove(0)])
        } else {
            let known = self.known.iter().find(|(name, _)| *name == host);
            known.map(|(_, addresses)| addresses.clone())
        };
        match answer {
            Some(addresses) => Box::pin(async move { Ok(addresses) }),
            None => SystemResolver.resolve(host, port),
        }
    }
}

fn reach(allow: &[String], deny: &[&str]) -> Reach {
    Reach {
        allow: allow.iter().map(|text| text.parse().unwrap()).collect(),
        deny: deny.iter().map(|text| text.parse().unwrap()).collect(),
    }
}

async fn server(reach: Reach, names: Names, toml: &str) -> TestServer {
    let dialer = Dialer {
        clock: SystemClock::shared(),
        resolver: Arc::new(names),
        vet: Arc::new(reach),
        connect_timeout: Duration::from_secs(2),
    };
    let media = VideoMedia {
        limits: VideoLimits::default(),
        live: Some(LiveMedia {
            client: rtsp::Client {
                clock: dialer.clock.clone(),
                resolver: dialer.resolver.clone(),
                vet: dialer.vet.clone(),
                connect_timeout: dialer.connect_timeout,
                response_timeout: Duration::from_secs(2),
                silence_timeout: Duration::from_secs(2),
            },
            picture_timeout: Duration::from_secs(5),
            runtime: Handle::current(),
        }),
        web: Some(WebMedia {
            client: web::Client {
                dialer,
                response_timeout: Duration::from_secs(2),
                silence_timeout: Duration::from_secs(2),
            },
            runtime: Handle::current(),
        }),
    };
    let toml = format!("sources.schemes = ['rtsp', 'rtsps', 'http', 'https']\n{toml}");
    TestServer::with(&toml, Arc::new(media)).await
}

/// How watching this ends.
async fn watch<T>(client: &mut DetectionServiceClient<T>, uri: &str) -> Status
where
    T: tonic::client::GrpcService<tonic::body::Body>,
    T::ResponseBody: Body<Data = Bytes> + Send + 'static,
    <T::ResponseBody as Body>::Error: Into<StdError> + Send,
{
    let request = WatchRequest {
        source: Some(proto::UriSource {
            uri: uri.into(),
            ..Default::default()
        }),
        profile: "live".into(),
        ..Default::default()
    };
    let watched = async {
        let mut answers = client.watch(request).await?.into_inner();
        while answers.message().await?.is_some() {}
        Ok(())
    };
    match within(uri, watched).await {
        Err(status) => status,
        Ok(()) => panic!("{uri} was played"),
    }
}

/// A port of this machine that nothing may connect to.
struct Tripwire {
    listener: TcpListener,
    port: u16,
}

impl Tripwire {
    async fn new() -> Tripwire {
        let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        Tripwire { listener, port }
    }

    async fn is_untouched(&self) {
        let touched = tokio::time::timeout(Duration::from_millis(50), self.listener.accept()).await;
        assert!(touched.is_err(), "{touched:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_spelling_of_this_machine_or_of_metadata_gets_through() {
    let wire = Tripwire::new().await;
    let p = wire.port;
    let here = SocketAddr::from(([127, 0, 0, 1], p));
    let names = || Names {
        known: vec![
            ("rebound.example", vec![here]),
            ("rebound.example.", vec![here]),
            ("localhost.", vec![here]),
            ("LOCALHOST.", vec![here]),
            ("both.example", vec![here, ([169, 254, 169, 254], p).into()]),
        ],
        ..Names::default()
    };
    let denied = [
        format!("127.0.0.1:{p}"),
        format!("127.8.9.1:{p}"),
        format!("localhost:{p}"),
        format!("LOCALHOST.:{p}"),
        format!("rebound.example:{p}"),
        format!("rebound.example.:{p}"),
        format!("both.example:{p}"),
        // User information that looks like the host.
        format!("cam.example@127.0.0.1:{p}"),
        format!("cam.example:554@127.0.0.1:{p}"),
        format!("cam.example%2F@127.0.0.1:{p}"),
        // The same number in other bases, and shortened.
        format!("2130706433:{p}"),
        format!("0x7f000001:{p}"),
        format!("0x7f.0.0.1:{p}"),
        format!("0177.0.0.1:{p}"),
        format!("017700000001:{p}"),
        format!("127.1:{p}"),
        format!("0:{p}"),
        format!("0.0.0.0:{p}"),
        // IPv4 in IPv6.
        format!("[::1]:{p}"),
        format!("[::]:{p}"),
        format!("[0:0:0:0:0:0:0:1]:{p}"),
        format!("[::ffff:127.0.0.1]:{p}"),
        format!("[::ffff:7f00:1]:{p}"),
        format!("[::127.0.0.1]:{p}"),
        format!("[64:ff9b::127.0.0.1]:{p}"),
        format!("[2002:7f00:1::]:{p}"),
        "169.254.169.254".into(),
        "2852039166".into(),
        "[::ffff:a9fe:a9fe]".into(),
        "[fd00:ec2::254]".into(),
        "[fe80::1]".into(),
        "239.255.255.250".into(),
    ];
    // Nothing is listed; and the names are, which opens none of what they lead to.
    let listed = ["*.example", "10.0.0.0/8"].map(str::to_owned);
    for allow in [&listed[..], &[]] {
        let server = server(reach(allow, &[]), names(), "").await;
        let mut client = server.client().await;
        for host in &denied {
            for scheme in ["rtsp", "http"] {
                let uri = format!("{scheme}://{host}/1");
                let status = watch(&mut client, &uri).await;
                assert_eq!(status.code(), Code::PermissionDenied, "{uri}: {status:?}");
                // As what it is, not as what is not listed.
                assert!(status.message().contains("refused unless"), "{status:?}");
            }
        }
        server.stop().await;
    }
    let server = server(reach(&listed, &[]), names(), "").await;
    let mut client = server.client().await;
    // An address with a dot after it is one for http; for rtsp it is a name, which resolvers may know.
    let status = watch(&mut client, &format!("http://127.0.0.1.:{p}/1")).await;
    assert_eq!(status.code(), Code::PermissionDenied, "{status:?}");
    let code = watch_briefly(&server, &format!("rtsp://127.0.0.1.:{p}/1")).await;
    assert!(
        matches!(code, None | Some(Code::PermissionDenied)),
        "{code:?}"
    );
    // What is read in two ways is not read at all.
    for uri in [
        format!("rtsp://127.0.0.1:{p}\\@cam.example/1"),
        format!("http://cam.example\\@127.0.0.1:{p}/1"),
        format!("http://cam.example:80\\@127.0.0.1:{p}/1"),
        format!("rtsp://%31%32%37.0.0.1:{p}/1"),
        format!("rtsp://127.0.0.1%00.example:{p}/1"),
        format!("rtsp://127.0.0.1\t:{p}/1"),
        format!("rtsp://１２７.0.0.1:{p}/1"),
        format!("rtsp://[::1%25lo]:{p}/1"),
        format!("http://127.0.0.1 @cam.example:{p}/1"),
    ] {
        let status = watch(&mut client, &uri).await;
        assert_eq!(status.code(), Code::InvalidArgument, "{uri}: {status:?}");
    }
    // Escapes and wide digits of http hosts are undone before the host is looked at.
    for uri in [
        format!("http://%31%32%37.0.0.1:{p}/1"),
        format!("http://１２７.0.0.1:{p}/1"),
    ] {
        let status = watch(&mut client, &uri).await;
        assert_eq!(status.code(), Code::PermissionDenied, "{uri}: {status:?}");
    }
    wire.is_untouched().await;
    server.stop().await;
}

/// The code that watching ends with soon, if it does.
async fn watch_briefly(server: &TestServer, uri: &str) -> Option<Code> {
    let mut client = server.client().await;
    let watched = watch(&mut client, uri);
    let ended = tokio::time::timeout(Duration::from_millis(300), watched).await;
    ended.ok().map(|status| status.code())
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_name_hosts_ranges_and_ports_and_the_refusal_names_the_rule() {
    let wire = Tripwire::new().await;
    let p = wire.port;
    let allow = [format!("127.0.0.0/8:{}", p ^ 1), "10.0.0.0/8:554".into()];
    let server = server(reach(&allow, &["10.66.0.0/16"]), Names::default(), "").await;
    let mut client = server.client().await;
    for (uri, word) in [
        (format!("rtsp://127.0.0.1:{p}/1"), "127.0.0.0/8"),
        (
            "http://10.1.2.3/1".into(),
            "not in the server's sources.allow",
        ),
        ("rtsp://10.66.1.1/1".into(), "sources.deny has 10.66.0.0/16"),
        (
            "rtsp://[2002:a42:101::1]/1".into(),
            "sources.deny has 10.66.0.0/16",
        ),
        (
            "rtsp://192.168.1.1/1".into(),
            "not in the server's sources.allow",
        ),
    ] {
        let status = watch(&mut client, &uri).await;
        assert_eq!(status.code(), Code::PermissionDenied, "{uri}: {status:?}");
        assert!(status.message().contains(word), "{uri}: {status:?}");
    }
    wire.is_untouched().await;
    server.stop().await;
}

/// Answers every request with this head, after which `{cseq}` is filled in.
async fn answering(head: String) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let head = head.clone();
            tokio::spawn(async move {
                let mut seen = Vec::new();
                let mut piece = [0; 1024];
                while !seen.ends_with(b"\r\n\r\n") {
                    match socket.read(&mut piece).await {
                        Ok(n) if n > 0 => seen.extend_from_slice(&piece[..n]),
                        _ => return,
                    }
                }
                let text = String::from_utf8_lossy(&seen).to_lowercase();
                let cseq = text.split("cseq:").nth(1).unwrap_or(" 1");
                let cseq = cseq.lines().next().unwrap().trim().to_owned();
                let _ = socket
                    .write_all(head.replace("{cseq}", &cseq).as_bytes())
                    .await;
                let _ = socket.read(&mut piece).await;
            });
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread")]
async fn redirects_are_judged_like_the_first_address() {
    let wire = Tripwire::new().await;
    let p = wire.port;
    for target in [
        format!("127.0.0.1:{p}"),
        format!("2130706433:{p}"),
        format!("ann:pw@localhost:{p}"),
        "169.254.169.254:80".to_owned(),
    ] {
        let camera = answering(format!(
            "RTSP/1.0 302 Moved\r\nCSeq: {{cseq}}\r\nLocation: rtsp://{target}/2\r\n\r\n"
        ));
        let web = answering(format!(
            "HTTP/1.1 302 Found\r\nLocation: http://{target}/2\r\nContent-Length: 0\r\n\r\n"
        ));
        let (camera, web) = (camera.await, web.await);
        let allow = [camera, web].map(|port| format!("127.0.0.1:{port}"));
        let server = server(reach(&allow, &[]), Names::default(), "").await;
        let mut client = server.client().await;
        for uri in [
            format!("rtsp://127.0.0.1:{camera}/1"),
            format!("http://127.0.0.1:{web}/1"),
        ] {
            let status = watch(&mut client, &uri).await;
            assert_eq!(status.code(), Code::PermissionDenied, "{uri}: {status:?}");
            assert!(status.message().contains("sources.allow"), "{status:?}");
            assert!(!status.message().contains("pw"), "{status:?}");
        }
        server.stop().await;
    }
    wire.is_untouched().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_leads_nowhere_else_by_name_or_redirect() {
    let wire = Tripwire::new().await;
    let web = answering(format!(
        "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:{}/2\r\nContent-Length: 0\r\n\r\n",
        wire.port
    ))
    .await;
    let site = Site::new();
    let sources = format!("sources = ['127.0.0.1:{web}', '10.0.0.0/8']\n");
    site.write_tokens(&(held("gate", &[Role::Detect], false) + &sources));
    let names = Names {
        known: vec![("cam.example", vec![([127, 0, 0, 1], wire.port).into()])],
        ..Names::default()
    };
    // The server itself may reach all of this machine.
    let everywhere = reach(&["127.0.0.0/8".to_owned()], &[]);
    let server = server(everywhere, names, &site.toml(false, true, false)).await;
    let channel = server.channel().await;
    let mut client = DetectionServiceClient::new(with(&channel, &token("gate")));
    for uri in [
        format!("http://127.0.0.1:{web}/1"),
        format!("http://cam.example:{}/1", wire.port),
        format!("rtsp://cam.example:{}/1", wire.port),
    ] {
        let status = watch(&mut client, &uri).await;
        assert_eq!(status.code(), Code::PermissionDenied, "{uri}: {status:?}");
        assert!(
            status.message().contains("sources of this token"),
            "{status:?}"
        );
    }
    wire.is_untouched().await;
    server.stop().await;
}

#[tokio::test]
async fn a_name_is_resolved_once_and_what_was_judged_is_connected_to() {
    let camera = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = camera.local_addr().unwrap();
    let wire = TcpListener::bind(("127.0.0.2", address.port()))
        .await
        .unwrap();
    let elsewhere = wire.local_addr().unwrap();
    let names = Arc::new(Names {
        known: vec![("mixed", vec![elsewhere, address])],
        // Allowed when it is judged; what the next question would bring is not.
        turns: Mutex::new(vec![address, elsewhere]),
        ..Names::default()
    });
    let dialer = Dialer {
        clock: SystemClock::shared(),
        resolver: names.clone(),
        vet: Arc::new(reach(&["127.0.0.1".to_owned()], &[])),
        connect_timeout: Duration::from_secs(5),
    };
    let target = |host| Target {
        host,
        port: address.port(),
        tls: false,
        shown: &"the camera",
    };
    let dialed = dialer
        .dial(&target("turns"), &Trust::System)
        .await
        .ok()
        .unwrap();
    assert_eq!(
        (dialed.peer, names.asked.load(Ordering::SeqCst)),
        (address, 1)
    );
    let again = dialer.dial(&target("turns"), &Trust::System).await;
    assert_eq!(again.err().unwrap().kind, FailureKind::Forbidden);
    let mixed = dialer
        .dial(&target("mixed"), &Trust::System)
        .await
        .ok()
        .unwrap();
    assert_eq!(mixed.peer, address);
    let touched = tokio::time::timeout(Duration::from_millis(50), wire.accept()).await;
    assert!(touched.is_err());
}
