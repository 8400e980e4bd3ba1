//! Sessions over UDP.

use std::{net::SocketAddr, time::Duration};

use headhunt::rtsp::{Client, FailureKind, Session};
use tokio::net::UdpSocket;

use crate::rtsp_support::{
    Act, Camera, bye, client, end, failure, packet, patient, playing, rtp, udp, within,
};

/// The camera's end: its two sockets and a session that plays into the client's.
struct Played {
    camera: Camera,
    session: Session,
    rtp: UdpSocket,
    rtcp: UdpSocket,
    to: (SocketAddr, SocketAddr),
}

impl Played {
    async fn send(&self, packet: &[u8]) {
        self.rtp.send_to(packet, self.to.0).await.unwrap();
    }

    async fn control(&self, packet: &[u8]) {
        self.rtcp.send_to(packet, self.to.1).await.unwrap();
    }
}

async fn socket() -> UdpSocket {
    UdpSocket::bind("127.0.0.1:0").await.unwrap()
}

/// `extra` stands in the camera's Transport header; `{ports}` in it is replaced by its ports.
async fn played(client: &Client, extra: &str) -> Played {
    let (rtp, rtcp) = (socket().await, socket().await);
    let port = |s: &UdpSocket| s.local_addr().unwrap().port();
    let extra = extra.replace("{ports}", &format!("{}-{}", port(&rtp), port(&rtcp)));
    let camera = Camera::new(move |seen| {
        let transport = seen.header("transport").map(str::to_owned);
        (seen.method == "SETUP").then(|| {
            let transport = transport.unwrap();
            seen.says(
                "200 OK",
                &format!("Session: 1\r\nTransport: {transport}{extra}\r\n"),
            )
        })?
    })
    .await;
    let session = playing(&camera, client, &udp()).await;
    let (a, b) = camera.client_ports();
    assert_eq!((a % 2, b), (0, a + 1));
    let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
    Played {
        camera,
        session,
        rtp,
        rtcp,
        to: (at(a), at(b)),
    }
}

const WITH_PORTS: &str = ";server_port={ports};source=127.0.0.1";

#[tokio::test]
async fn packets_are_put_in_order_and_counted() {
    let mut p = played(&patient(), WITH_PORTS).await;
    let line = 1_i64 << 32;
    let near_wrap = u32::MAX - 9;
    for (sequence, timestamp) in [
        (65_534, near_wrap),
        (0, 20),
        (65_535, 10),
        (0, 20),
        (2, 40),
        (1, 30),
    ] {
        p.send(&rtp(sequence, timestamp)).await;
    }
    for wanted in [
        (65_534, i64::from(near_wrap), 0),
        (65_535, line + 10, 0),
        (0, line + 20, 0),
        (1, line + 30, 0),
        (2, line + 40, 0),
    ] {
        assert_eq!(packet(&mut p.session).await, wanted);
    }
}

#[tokio::test]
async fn missing_packets_are_waited_for_and_then_counted() {
    let client = patient();
    let mut p = played(&client, WITH_PORTS).await;
    p.send(&rtp(1, 1)).await;
    p.send(&rtp(4, 4)).await;
    p.send(&rtp(5, 5)).await;
    assert_eq!(packet(&mut p.session).await, (1, 1, 0));
    let late = within(p.session.next()).await.unwrap();
    assert_eq!(crate::rtsp_support::told(&late), (4, 4, 2));
    let waited = client.clock.now() - late.arrived;
    assert!(waited >= Duration::from_millis(200), "{waited:?}");
    assert_eq!(packet(&mut p.session).await, (5, 5, 0));
    // Too late now, and no new beginning.
    p.send(&rtp(3, 3)).await;
    p.send(&rtp(6, 6)).await;
    assert_eq!(packet(&mut p.session).await, (6, 6, 0));
}

#[tokio::test]
async fn a_long_hole_is_not_waited_for_by_time() {
    let mut client = client(1);
    client.silence_timeout = Duration::from_secs(1000);
    let mut p = played(&client, WITH_PORTS).await;
    p.send(&rtp(0, 0)).await;
    for n in 2..=66 {
        p.send(&rtp(n, n.into())).await;
    }
    assert_eq!(packet(&mut p.session).await, (0, 0, 0));
    assert_eq!(packet(&mut p.session).await, (2, 2, 1));
    for n in 3..=66 {
        assert_eq!(packet(&mut p.session).await, (n, n.into(), 0));
    }
}

#[tokio::test]
async fn strangers_are_ignored() {
    let mut p = played(&patient(), WITH_PORTS).await;
    // Another address of the same machine, and another port of the camera's.
    let elsewhere = UdpSocket::bind("127.0.0.2:0").await.unwrap();
    let other = socket().await;
    for stranger in [&elsewhere, &other] {
        stranger.send_to(&rtp(1, 1), p.to.0).await.unwrap();
        stranger.send_to(&bye(), p.to.1).await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(20)).await;
    p.send(&rtp(9, 9)).await;
    assert_eq!(packet(&mut p.session).await, (9, 9, 0));
    elsewhere.send_to(&bye(), p.to.1).await.unwrap();
    p.send(&rtp(10, 10)).await;
    assert_eq!(packet(&mut p.session).await, (10, 10, 0));
}

#[tokio::test]
async fn a_camera_that_names_no_ports_or_another_source_is_known_by_its_address() {
    for extra in ["", ";source=10.9.8.7", ";server_port=0-0"] {
        let mut p = played(&patient(), extra).await;
        let elsewhere = UdpSocket::bind("127.0.0.2:0").await.unwrap();
        elsewhere.send_to(&rtp(1, 1), p.to.0).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
        p.send(&rtp(9, 9)).await;
        assert_eq!(packet(&mut p.session).await, (9, 9, 0), "{extra}");
    }
}

#[tokio::test]
async fn the_way_back_is_opened_to_the_camera_whatever_source_it_names() {
    let other = WITH_PORTS.replace("127.0.0.1", "127.0.0.2");
    for extra in [WITH_PORTS, &other] {
        way_back(played(&patient(), extra).await).await;
    }
}

async fn way_back(p: Played) {
    let mut buffer = [0; 100];
    for _ in 0..2 {
        let (length, from) = within(p.rtp.recv_from(&mut buffer)).await.unwrap();
        assert_eq!((length, from), (12, p.to.0));
        let (length, from) = within(p.rtcp.recv_from(&mut buffer)).await.unwrap();
        assert_eq!((length, from), (28, p.to.1));
        assert_eq!(buffer[1], 201);
    }
}

#[tokio::test]
async fn reports_go_to_where_the_camera_reports_from() {
    for extra in [WITH_PORTS, ""] {
        let mut client = client(50);
        client.response_timeout = Duration::from_secs(1500);
        client.silence_timeout = Duration::from_secs(1500);
        let mut p = played(&client, extra).await;
        p.send(&rtp(10, 0)).await;
        assert_eq!(packet(&mut p.session).await, (10, 0, 0));
        let mut report = [0_u8; 28];
        report[..4].copy_from_slice(&[0x80, 200, 0, 6]);
        report[4..8].copy_from_slice(&0x1234_5678_u32.to_be_bytes());
        report[10..14].copy_from_slice(&[1, 2, 3, 4]);
        p.control(&report).await;
        let Played { session, rtcp, .. } = &mut p;
        let heard = async {
            let mut buffer = [0; 100];
            loop {
                let (length, _) = rtcp.recv_from(&mut buffer).await.unwrap();
                // Middle of the sender's time: it was heard.
                if length == 52 && buffer[24..28] == [1, 2, 3, 4] {
                    return buffer;
                }
            }
        };
        let heard = within(async {
            tokio::select! {
                heard = heard => heard,
                failed = session.next() => panic!("{failed:?}"),
            }
        })
        .await;
        assert_eq!(heard[16..20], 10_u32.to_be_bytes());
    }
}

#[tokio::test]
async fn ends_are_told_apart() {
    let mut p = played(&patient(), WITH_PORTS).await;
    p.send(&rtp(1, 1)).await;
    p.send(&rtp(3, 3)).await;
    assert_eq!(packet(&mut p.session).await, (1, 1, 0));
    p.control(&bye()).await;
    // What waits is given before the end.
    assert_eq!(packet(&mut p.session).await, (3, 3, 1));
    assert_eq!(end(&mut p.session).await.kind, FailureKind::Ended);

    let mut p = played(&patient(), WITH_PORTS).await;
    p.camera.act(Act::Close);
    assert_eq!(end(&mut p.session).await.kind, FailureKind::Ended);

    let mut p = played(&patient(), WITH_PORTS).await;
    p.camera.act(Act::Reset);
    assert_eq!(end(&mut p.session).await.kind, FailureKind::Reset);
}

#[tokio::test]
async fn signs_of_life_go_on_beside_the_packets() {
    let mut client = client(100);
    client.response_timeout = Duration::from_secs(3000);
    client.silence_timeout = Duration::from_secs(3000);
    let mut p = played(&client, WITH_PORTS).await;
    let mut sequence = 0;
    within(async {
        while p
            .camera
            .methods()
            .iter()
            .filter(|m| *m == "GET_PARAMETER")
            .count()
            < 2
        {
            p.send(&rtp(sequence, 0)).await;
            assert_eq!(packet(&mut p.session).await, (sequence, 0, 0));
            sequence += 1;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_dropped_session_frees_its_ports() {
    let p = played(&patient(), WITH_PORTS).await;
    let (a, b) = p.to;
    assert!(UdpSocket::bind(a).await.is_err());
    drop(p.session);
    UdpSocket::bind(a).await.unwrap();
    UdpSocket::bind(b).await.unwrap();
}

#[tokio::test]
async fn a_camera_that_grants_something_else_is_told_so() {
    for (transport, word) in [
        ("RTP/AVP/TCP;unicast;interleaved=0-1", "TCP"),
        (
            "RTP/AVP;multicast;destination=224.1.1.1;port=5000-5001",
            "multicast",
        ),
    ] {
        let camera = Camera::new(move |seen| {
            (seen.method == "SETUP").then(|| {
                seen.says(
                    "200 OK",
                    &format!("Session: 1\r\nTransport: {transport}\r\n"),
                )
            })?
        })
        .await;
        let failure = failure(&camera, &patient(), &udp()).await;
        assert_eq!(failure.kind, FailureKind::Protocol);
        assert!(failure.message.contains(word), "{failure}");
    }
}
