//! Each failure has its kind, and nothing that a peer sends does harm.

use std::{sync::Arc, time::Duration};

use headhunt::rtsp::{Access, FailureKind, Url};
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::rtsp_support::{
    Act, Camera, SDP, Seen, bye, client, end, failure, frame, now, packet, patient, playing, rtp,
    tcp, udp, within,
};

/// A camera that does this for one method.
async fn does(method: &'static str, acts: Vec<Act>) -> Camera {
    Camera::new(move |seen| (seen.method == method).then(|| acts.clone())).await
}

async fn says(method: &'static str, status: &'static str) -> Camera {
    Camera::new(move |seen| (seen.method == method).then(|| seen.says(status, ""))?).await
}

#[tokio::test]
async fn a_name_without_an_address_is_dns() {
    let url = Url::parse("rtsp://camera.invalid/live").unwrap();
    let failure = within(patient().open(&url, &tcp())).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Dns, "{failure}");
    assert!(failure.message.contains("camera.invalid"));
}

#[tokio::test]
async fn a_closed_port_is_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("rtsp://{}/live", listener.local_addr().unwrap());
    drop(listener);
    let url = Url::parse(&url).unwrap();
    let failure = within(patient().open(&url, &tcp())).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Refused, "{failure}");
}

/// A listener whose queue is full answers no further handshake.
#[tokio::test]
async fn a_connection_that_is_not_made_in_time_is_a_timeout() {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut waiting = Vec::new();
    while let Ok(connected) =
        tokio::time::timeout(Duration::from_millis(300), TcpStream::connect(address)).await
    {
        waiting.push(connected.unwrap());
        assert!(waiting.len() < 100);
    }
    let client = client(100);
    let begin = now(&*client.clock);
    let url = Url::parse(&format!("rtsp://{address}/live")).unwrap();
    let failure = within(client.open(&url, &tcp())).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Timeout, "{failure}");
    assert!(now(&*client.clock) - begin >= 10.0);
}

#[tokio::test]
async fn an_answer_that_does_not_come_is_a_timeout() {
    for method in ["OPTIONS", "DESCRIBE", "SETUP", "PLAY"] {
        let camera = does(method, vec![]).await;
        let client = client(100);
        let begin = now(&*client.clock);
        let failure = failure(&camera, &client, &tcp()).await;
        assert_eq!(failure.kind, FailureKind::Timeout, "{failure}");
        assert!(failure.message.contains(method));
        assert!(now(&*client.clock) - begin >= 10.0);
    }
}

#[tokio::test]
async fn half_an_answer_and_chatter_without_one_are_timeouts() {
    let half = does(
        "DESCRIBE",
        vec![Act::Send(b"RTSP/1.0 200 OK\r\nCSe".to_vec())],
    )
    .await;
    assert_eq!(
        failure(&half, &client(100), &tcp()).await.kind,
        FailureKind::Timeout
    );
    let provisional =
        b"RTSP/1.0 100 Continue\r\nCSeq: 2\r\n\r\nRTSP/1.0 200 OK\r\nCSeq: 77\r\n\r\n";
    let other = does("DESCRIBE", vec![Act::Send(provisional.to_vec())]).await;
    assert_eq!(
        failure(&other, &client(100), &tcp()).await.kind,
        FailureKind::Timeout
    );
    // Someone who never stops talking.
    let flood = vec![Act::Send(frame(9, &[0; 100]).repeat(600)); 2000];
    let flood = does("DESCRIBE", flood).await;
    assert_eq!(
        failure(&flood, &client(100), &tcp()).await.kind,
        FailureKind::Timeout
    );
}

#[tokio::test]
async fn a_connection_that_ends_during_the_set_up_is_reset() {
    for method in ["OPTIONS", "DESCRIBE", "SETUP", "PLAY"] {
        for act in [Act::Close, Act::Reset] {
            let camera = does(method, vec![act]).await;
            let failure = failure(&camera, &patient(), &tcp()).await;
            assert_eq!(failure.kind, FailureKind::Reset, "{failure}");
        }
    }
}

#[tokio::test]
async fn statuses_have_their_kinds() {
    for (method, status, kind) in [
        ("DESCRIBE", "403 Forbidden", FailureKind::Unauthorized),
        ("DESCRIBE", "404 Not Found", FailureKind::NotFound),
        ("SETUP", "410 Gone", FailureKind::NotFound),
        ("SETUP", "453 Not Enough Bandwidth", FailureKind::Busy),
        ("DESCRIBE", "500 Internal Server Error", FailureKind::Busy),
        ("PLAY", "503 Service Unavailable", FailureKind::Busy),
        ("PLAY", "454 Session Not Found", FailureKind::Ended),
        ("DESCRIBE", "406 Not Acceptable", FailureKind::Protocol),
    ] {
        let camera = says(method, status).await;
        let failure = failure(&camera, &patient(), &tcp()).await;
        assert_eq!(failure.kind, kind, "{failure}");
        assert!(failure.message.contains(&status[..3]) && failure.message.contains(method));
    }
}

#[tokio::test]
async fn an_unsupported_transport_is_named() {
    let camera = says("SETUP", "461 Unsupported Transport").await;
    for (access, name) in [
        (tcp(), "over TCP; try UDP"),
        (udp(), "over UDP; try TCP"),
        (Access::default(), "neither over TCP nor over UDP"),
    ] {
        let failure = failure(&camera, &patient(), &access).await;
        assert_eq!(failure.kind, FailureKind::Protocol);
        assert!(failure.message.contains(name), "{failure}");
    }
}

#[tokio::test]
async fn a_camera_that_does_not_send_over_tcp_is_asked_for_datagrams_where_nothing_is_said_of_it() {
    let camera = Camera::new(|seen| {
        let transport = seen.header("transport")?.to_owned();
        if transport.contains("TCP") {
            return seen.says("461 Unsupported Transport", "");
        }
        let granted = format!("Session: 1\r\nTransport: {transport};server_port=9-10\r\n");
        seen.says("200 OK", &granted)
    })
    .await;
    let session = playing(&camera, &patient(), &Access::default()).await;
    let methods = camera.methods();
    assert_eq!(
        methods.iter().filter(|m| *m == "SETUP").count(),
        2,
        "{methods:?}"
    );
    session.close().await;
    let failure = failure(&camera, &patient(), &tcp()).await;
    assert!(failure.message.contains("try UDP"), "{failure}");
}

fn describes(sdp: String) -> impl FnMut(&Seen) -> Option<Vec<Act>> + Send + 'static {
    move |seen| {
        (seen.method == "DESCRIBE").then(|| vec![Act::Send(seen.answer("200 OK", "", &sdp))])
    }
}

#[tokio::test]
async fn a_foreign_codec_is_named() {
    let camera = Camera::new(describes(SDP.replace("H264", "VP8"))).await;
    let failure = failure(&camera, &patient(), &tcp()).await;
    assert_eq!(failure.kind, FailureKind::UnsupportedCodec);
    assert!(failure.message.contains("video VP8"), "{failure}");
}

#[tokio::test]
async fn what_is_no_rtsp_is_a_protocol_failure() {
    for bytes in [
        &b"\x16\x03\x01garbage"[..],
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"RTSP/1.0 200 OK\r\nContent-Length: 300000\r\n\r\n",
        &[b'A'; 20_000],
    ] {
        let camera = does("OPTIONS", vec![Act::Send(bytes.to_vec())]).await;
        let failure = failure(&camera, &patient(), &tcp()).await;
        assert_eq!(failure.kind, FailureKind::Protocol, "{failure}");
    }
    let camera = Camera::new(describes("no description".to_owned())).await;
    assert_eq!(
        failure(&camera, &patient(), &tcp()).await.kind,
        FailureKind::Protocol
    );
    let camera = Camera::new(describes(
        SDP.replace("a=control:video", "a=control:http://x/"),
    ))
    .await;
    assert_eq!(
        failure(&camera, &patient(), &tcp()).await.kind,
        FailureKind::Protocol
    );
}

#[tokio::test]
async fn the_end_of_a_stream_has_its_kinds() {
    let requests = [
        ("TEARDOWN", ""),
        ("REDIRECT", "Location: rtsp://elsewhere.example/?s3cret\r\n"),
    ]
    .map(|(method, headers)| {
        format!("{method} rtsp://cam/ RTSP/1.0\r\nCSeq: 5\r\n{headers}\r\n").into_bytes()
    });
    let [teardown, redirect] = requests;
    for (act, kind) in [
        (Act::Close, FailureKind::Ended),
        (Act::Reset, FailureKind::Reset),
        (Act::Send(frame(1, &bye())), FailureKind::Ended),
        (Act::Send(frame(0, &bye())), FailureKind::Ended),
        (Act::Send(teardown), FailureKind::Ended),
        (Act::Send(redirect), FailureKind::Ended),
        (Act::Send(b"\0garbage".to_vec()), FailureKind::Protocol),
    ] {
        let camera = Camera::ordinary().await;
        let mut session = playing(&camera, &patient(), &tcp()).await;
        camera.act(act.clone());
        let failure = end(&mut session).await;
        assert_eq!(failure.kind, kind, "{act:?}: {failure}");
        assert!(!failure.message.contains("s3cret"));
    }
}

#[tokio::test]
async fn a_session_that_the_camera_forgot_is_over() {
    let camera = Camera::new(|seen| {
        (seen.method == "GET_PARAMETER").then(|| seen.says("454 Session Not Found", ""))?
    })
    .await;
    let mut client = client(100);
    client.response_timeout = Duration::from_secs(3000);
    client.silence_timeout = client.response_timeout;
    let mut session = playing(&camera, &client, &tcp()).await;
    assert_eq!(end(&mut session).await.kind, FailureKind::Ended);
}

#[tokio::test]
async fn a_camera_that_says_nothing_is_silent() {
    let camera = Camera::ordinary().await;
    let mut client = client(50);
    client.response_timeout = Duration::from_secs(1500);
    for access in [tcp(), udp()] {
        let mut session = playing(&camera, &client, &access).await;
        let begin = now(&*client.clock);
        let failure = end(&mut session).await;
        assert_eq!(failure.kind, FailureKind::Silence, "{failure}");
        let took = now(&*client.clock) - begin;
        assert!(took >= 9.0, "{took}");
        assert!(failure.message.contains("10 s"), "{failure}");
    }
}

/// Packets of other tracks, messages and foreign channels are no sign of the video.
#[tokio::test]
async fn a_camera_that_talks_of_other_things_is_silent_too() {
    let camera = Camera::ordinary().await;
    let mut client = client(50);
    client.response_timeout = Duration::from_secs(1500);
    let mut session = playing(&camera, &client, &tcp()).await;
    let junk = [
        frame(7, &rtp(1, 1)),
        frame(0, b"junk"),
        b"RTSP/1.0 200 OK\r\nCSeq: 1000000\r\n\r\n".to_vec(),
    ]
    .concat();
    let flood = tokio::spawn(async move {
        loop {
            camera.send(junk.repeat(200));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    assert_eq!(end(&mut session).await.kind, FailureKind::Silence);
    flood.abort();
}

/// Who does not ask for packets for a while finds them all the same, although the time for silence
/// has passed when the sockets are looked at again.
#[tokio::test]
async fn a_pause_of_the_consumer_is_no_silence() {
    let camera = Camera::ordinary().await;
    let mut client = client(100);
    client.response_timeout = Duration::from_secs(3000);
    let mut session = playing(&camera, &client, &udp()).await;
    let (port, _) = camera.client_ports();
    let ours = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    for n in 0..12 {
        // The wait for silence has begun.
        tokio::select! {
            _ = session.next() => panic!("nothing was sent"),
            () = tokio::time::sleep(Duration::from_millis(2)) => {}
        }
        // This is the runtime's only thread: 15 s on the client's clock, and nobody looks.
        std::thread::sleep(Duration::from_millis(150));
        ours.send_to(&rtp(n, n.into()), ("127.0.0.1", port))
            .unwrap();
        assert_eq!(packet(&mut session).await, (n, n.into(), 0));
    }
}

#[derive(Clone, Debug)]
enum Reply {
    Ordinary,
    Arbitrary(Vec<u8>),
    /// An ordinary answer with one byte changed.
    Changed(usize, u8),
    /// A head of an ordinary answer with a body of anything.
    Body(Vec<u8>),
}

fn reply() -> impl Strategy<Value = Reply> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..200);
    prop_oneof![
        3 => Just(Reply::Ordinary),
        1 => bytes().prop_map(Reply::Arbitrary),
        2 => (any::<prop::sample::Index>(), any::<u8>())
            .prop_map(|(at, byte)| Reply::Changed(at.index(1000), byte)),
        1 => bytes().prop_map(Reply::Body),
    ]
}

/// Answers and streams of anything: no panic, and an end within the timeouts.
#[test]
fn arbitrary_answers_do_no_harm() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let config = Config {
        cases: 200,
        failure_persistence: None,
        ..Config::default()
    };
    let replies = prop::collection::vec(reply(), 4);
    let stream = prop::collection::vec(any::<u8>(), 0..300);
    let strategy = (replies, stream, any::<bool>(), any::<bool>());
    let plays = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let outcome = TestRunner::new(config).run(&strategy, |(replies, stream, framed, datagrams)| {
        let plays = plays.clone();
        runtime.block_on(async move {
            let mut replies = replies.into_iter();
            let camera = Camera::new(move |seen| {
                let mut answer = seen.ordinary();
                match replies.next().unwrap_or(Reply::Ordinary) {
                    Reply::Ordinary => {}
                    Reply::Arbitrary(bytes) => answer = bytes,
                    Reply::Changed(at, byte) => {
                        let at = at % answer.len();
                        answer[at] = byte;
                    }
                    Reply::Body(body) => {
                        let end = answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
                        let head =
                            String::from_utf8_lossy(&answer[..end]).replace("Content-Length", "X");
                        answer = format!("{head}\r\nContent-Length: {}\r\n\r\n", body.len())
                            .into_bytes();
                        answer.extend_from_slice(&body);
                    }
                }
                Some(vec![Act::Send(answer)])
            })
            .await;
            let client = client(500);
            let access = if datagrams { udp() } else { tcp() };
            if let Ok(mut session) = within(client.open(&camera.url("/live"), &access)).await {
                plays.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                camera.send(if framed { frame(0, &stream) } else { stream });
                camera.act(Act::Close);
                end(&mut session).await;
                within(session.close()).await;
            }
        });
        Ok(())
    });
    outcome.unwrap();
    assert!(
        plays.load(std::sync::atomic::Ordering::SeqCst) > 5,
        "hardly any session played"
    );
}
