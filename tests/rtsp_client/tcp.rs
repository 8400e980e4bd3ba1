//! Sessions over TCP: the dialogue, interleaved packets, signs of life, the end.

use std::{sync::atomic::Ordering, time::Duration};

use headhunt::rtsp::{Codec, FailureKind, Session};

use crate::rtsp_support::{
    Act, Camera, SDP, bye, client, end, failure, frame, packet, patient, playing, rtp, rtp_of, tcp,
    told, until, within,
};

#[tokio::test]
async fn an_ordinary_camera_plays() {
    let camera = Camera::ordinary().await;
    let mut session = playing(&camera, &patient(), &tcp()).await;
    assert_eq!(session.track().codec, Codec::H264);
    assert_eq!(
        session.track().parameters[1],
        (
            "sprop-parameter-sets".to_owned(),
            "Z2QAKK0=,aO48sA==".to_owned()
        )
    );
    camera.send([frame(0, &rtp(7, 1000)), frame(0, &rtp(8, 4600))].concat());
    let first = within(session.next()).await.unwrap();
    assert_eq!(told(&first), (7, 1000, 0));
    assert_eq!(&first.data[..], rtp(7, 1000), "header and all");
    assert_eq!(packet(&mut session).await, (8, 4600, 0));
    within(session.close()).await;

    assert_eq!(
        camera.methods(),
        ["OPTIONS", "DESCRIBE", "SETUP", "PLAY", "TEARDOWN"]
    );
    let seen = camera.seen();
    for (number, request) in seen.iter().enumerate() {
        assert_eq!(request.header("cseq"), Some(&*(number + 1).to_string()));
        assert!(request.text.contains("RTSP/1.0\r\n"));
        assert!(
            request
                .header("user-agent")
                .unwrap()
                .starts_with("headhunt/")
        );
        assert_eq!(request.header("session"), (number >= 3).then_some("4711"));
    }
    let live = camera.text("/live");
    assert_eq!(seen[0].uri, live);
    assert_eq!(seen[1].uri, live);
    assert_eq!(seen[1].header("accept"), Some("application/sdp"));
    assert_eq!(seen[2].uri, format!("{live}/video"), "the video alone");
    assert_eq!(seen[3].uri, format!("{live}/"));
    assert_eq!(seen[4].uri, format!("{live}/"));
}

#[tokio::test]
async fn what_is_not_in_the_url_is_not_asked_for_and_the_rest_is() {
    let camera = Camera::ordinary().await;
    let url = camera.url("user:pass@/cam?channel=1&subtype=0");
    let session = within(patient().open(&url, &tcp())).await.unwrap();
    drop(session);
    let seen = camera.seen();
    assert_eq!(seen[0].uri, camera.text("/cam?channel=1&subtype=0"));
    assert_eq!(seen[2].uri, camera.text("/cam?channel=1&subtype=0/video"));
    for request in seen {
        assert!(!request.text.contains("pass"), "nobody asked for it");
    }
}

#[tokio::test]
async fn base_urls_come_from_the_headers() {
    for (headers, track, aggregate) in [
        (
            "Content-Location: rtsp://10.0.0.7/a\r\n",
            "rtsp://10.0.0.7/a/video",
            "rtsp://10.0.0.7/a",
        ),
        (
            "Content-Base: rtsp://u:p@10.0.0.7/b/\r\nContent-Location: rtsp://10.0.0.7/a\r\n",
            "rtsp://10.0.0.7/b/video",
            "rtsp://10.0.0.7/b/",
        ),
    ] {
        let camera = Camera::new(move |seen| {
            (seen.method == "DESCRIBE")
                .then(|| vec![Act::Send(seen.answer("200 OK", headers, SDP))])
        })
        .await;
        drop(playing(&camera, &patient(), &tcp()).await);
        let seen = camera.seen();
        assert_eq!(seen[2].uri, track);
        assert_eq!(seen[3].uri, aggregate);
    }
    // Without any it is the request's. A session's own URL stands for itself, and for what its tracks are below.
    let camera = Camera::new(|seen| {
        let sdp = SDP.replace("a=control:*", "a=control:rtsp://10.0.0.7/all");
        (seen.method == "DESCRIBE").then(|| vec![Act::Send(seen.answer("200 OK", "", &sdp))])
    })
    .await;
    drop(playing(&camera, &patient(), &tcp()).await);
    assert_eq!(camera.seen()[2].uri, "rtsp://10.0.0.7/all/video");
    assert_eq!(camera.seen()[3].uri, "rtsp://10.0.0.7/all");
}

#[tokio::test]
async fn a_camera_that_knows_no_options_plays() {
    for status in [
        "405 Method Not Allowed",
        "501 Not Implemented",
        "404 Not Found",
    ] {
        let camera = Camera::new(move |seen| match seen.method.as_str() {
            "OPTIONS" => seen.says(status, ""),
            _ => None,
        })
        .await;
        drop(playing(&camera, &patient(), &tcp()).await);
    }
}

#[tokio::test]
async fn packets_before_the_answer_to_play_are_kept() {
    let camera = Camera::new(|seen| {
        (seen.method == "PLAY").then(|| {
            let early = [
                frame(0, &rtp(65_535, 5)),
                frame(1, &bye()),
                frame(0, &rtp(0, 10)),
            ];
            vec![
                Act::Send(early.concat()),
                Act::Pause(Duration::from_millis(20)),
                Act::Send(seen.ordinary()),
                Act::Send(frame(0, &rtp(1, 15))),
            ]
        })
    })
    .await;
    let mut session = playing(&camera, &patient(), &tcp()).await;
    for wanted in [(65_535, 5, 0), (0, 10, 0), (1, 15, 0)] {
        assert_eq!(packet(&mut session).await, wanted);
    }
}

#[tokio::test]
async fn channels_are_the_cameras_and_unknown_ones_are_dropped() {
    let camera = Camera::new(|seen| match seen.method.as_str() {
        "SETUP" => seen.says(
            "200 OK",
            "Session: 1\r\nTransport: RTP/AVP/TCP;unicast;interleaved=6-9\r\n",
        ),
        _ => None,
    })
    .await;
    let mut session = playing(&camera, &patient(), &tcp()).await;
    let foreign = [
        frame(0, &rtp(1, 1)),
        frame(1, &bye()),
        frame(7, &bye()),
        frame(200, b""),
    ];
    camera.send([foreign.concat(), frame(6, &rtp(2, 2))].concat());
    assert_eq!(packet(&mut session).await, (2, 2, 0));
    camera.send(frame(9, &bye()));
    assert_eq!(end(&mut session).await.kind, FailureKind::Ended);
}

#[tokio::test]
async fn segments_may_be_split_anywhere_and_messages_stand_between_packets() {
    let camera = Camera::new(|seen| Some(vec![Act::Bytewise(seen.ordinary())])).await;
    let mut session = playing(&camera, &patient(), &tcp()).await;
    let stream = [
        frame(0, &rtp(1, 1)),
        b"OPTIONS rtsp://cam/ RTSP/1.0\r\nCSeq: 77\r\n\r\n".to_vec(),
        frame(0, &rtp(2, 2)),
        b"\r\nRTSP/1.0 200 OK\r\nCSeq: 99999\r\nContent-Length: 3\r\n\r\n$\0\0".to_vec(),
        b"SET_PARAMETER rtsp://cam/ RTSP/1.0\nCSeq: 78\nContent-Length: 2\n\nhi".to_vec(),
        b"RECORD rtsp://cam/ RTSP/1.0\r\nCSeq: 79\r\n\r\n".to_vec(),
        frame(0, &rtp(3, 3)),
    ]
    .concat();
    camera.act(Act::Bytewise(stream.clone()));
    for n in 1..=3 {
        assert_eq!(packet(&mut session).await, (n, i64::from(n), 0));
    }
    // All at once: the same numbers again are duplicates, the next is not.
    camera.send([stream, frame(0, &rtp(4, 4))].concat());
    assert_eq!(packet(&mut session).await, (4, 4, 0));
    // The answers are sent while the next packet is awaited.
    camera.send(frame(0, &rtp(5, 5)));
    assert_eq!(packet(&mut session).await, (5, 5, 0));
    let answers: Vec<String> = camera
        .seen()
        .iter()
        .filter(|s| s.method == "RTSP/1.0")
        .map(|s| format!("{} {}", s.uri, s.header("cseq").unwrap()))
        .collect();
    assert_eq!(answers[..3], ["200 77", "200 78", "501 79"]);
}

#[tokio::test]
async fn a_wait_that_is_dropped_loses_nothing() {
    let camera = Camera::ordinary().await;
    let mut session = playing(&camera, &patient(), &tcp()).await;
    let count = 40_u16;
    let stream: Vec<u8> = (0..count)
        .flat_map(|n| frame(0, &rtp(n, n.into())))
        .collect();
    camera.act(Act::Bytewise(stream));
    let mut got = Vec::new();
    let mut dropped = 0;
    while got.len() < usize::from(count) {
        tokio::select! {
            biased;
            packet = session.next() => got.push(told(&packet.unwrap())),
            () = tokio::task::yield_now() => dropped += 1,
        }
        assert!(dropped < 10_000_000);
    }
    let wanted: Vec<_> = (0..count).map(|n| (n, i64::from(n), 0)).collect();
    assert_eq!(got, wanted);
    assert!(dropped > 10, "{dropped} is too few to show anything");
}

#[tokio::test]
async fn wraps_losses_duplicates_and_new_beginnings() {
    let camera = Camera::ordinary().await;
    let mut session = playing(&camera, &patient(), &tcp()).await;
    let near_wrap = u32::MAX - 10;
    let sent = [
        rtp(65_534, near_wrap),
        rtp(65_535, 9),
        rtp(65_535, 9),
        rtp(0, 3609),
        rtp(4, 7209),
        rtp(5, 3609),
        rtp(20_000, 3609),
        rtp(20_001, 3610),
        rtp(9, 3700),
        rtp_of(99, 50_000, 100),
        rtp_of(99, 50_001, 200),
        vec![0x80, 97, 0, 10, 0, 0, 0, 0, 0, 0, 0, 0],
        b"junk".to_vec(),
        rtp_of(99, 50_002, 300),
    ];
    camera.send(sent.iter().flat_map(|p| frame(0, p)).collect::<Vec<u8>>());
    let line = 1_i64 << 32;
    for wanted in [
        (65_534, i64::from(near_wrap), 0),
        (65_535, line + 9, 0),
        (0, line + 3609, 0),
        (4, line + 7209, 3),
        // A camera whose clock steps back.
        (5, line + 3609, 0),
        // Nobody knows how many are missing before a new beginning: one at least.
        (20_000, line + 3609, 1),
        (20_001, line + 3610, 0),
        (9, line + 3700, 1),
        (50_000, line + 100, 1),
        (50_001, line + 200, 0),
        (50_002, line + 300, 0),
    ] {
        assert_eq!(packet(&mut session).await, wanted);
    }
}

/// Signs of life within 2.5 sessions' timeouts on a fast clock.
async fn signs_of_life(options: &'static str, refuse: bool) -> Vec<String> {
    let camera = Camera::new(move |seen| match seen.method.as_str() {
        "OPTIONS" if seen.header("session").is_none() => seen.says("200 OK", options),
        "SETUP" => {
            let transport = seen.header("transport").unwrap();
            seen.says(
                "200 OK",
                &format!("Session: 8;timeout=20\r\nTransport: {transport}\r\n"),
            )
        }
        "GET_PARAMETER" if refuse => seen.says("451 Parameter Not Understood", ""),
        // Answers are not waited for.
        "GET_PARAMETER" => Some(vec![]),
        _ => None,
    })
    .await;
    let mut client = client(100);
    client.response_timeout = Duration::from_secs(3000);
    client.silence_timeout = Duration::from_secs(3000);
    let mut session = playing(&camera, &client, &tcp()).await;
    let begin = client.clock.now();
    within(async {
        while camera.seen().len() < 4 + 4 {
            tokio::select! {
                _ = session.next() => panic!("nothing was sent"),
                () = tokio::time::sleep(Duration::from_millis(5)) => {}
            }
        }
    })
    .await;
    let took = client.clock.now() - begin;
    assert!(took >= Duration::from_secs(40), "four in {took:?}");
    let seen = camera.seen();
    for request in &seen[4..] {
        assert_eq!(request.header("session"), Some("8"));
        assert_eq!(request.uri, camera.text("/live/"));
    }
    seen[4..8].iter().map(|s| s.method.clone()).collect()
}

#[tokio::test]
async fn signs_of_life_are_get_parameter_where_the_camera_knows_it() {
    let life = signs_of_life("Public: OPTIONS, GET_PARAMETER, PLAY\r\n", false).await;
    assert_eq!(life, ["GET_PARAMETER"; 4]);
}

#[tokio::test]
async fn signs_of_life_are_options_elsewhere() {
    assert_eq!(
        signs_of_life("Public: OPTIONS, PLAY\r\n", false).await,
        ["OPTIONS"; 4]
    );
    let life = signs_of_life("Public: GET_PARAMETER\r\n", true).await;
    assert_eq!(life, ["GET_PARAMETER", "OPTIONS", "OPTIONS", "OPTIONS"]);
}

#[tokio::test]
async fn reports_go_out_on_the_control_channel() {
    let camera = Camera::new(|seen| match seen.method.as_str() {
        "SETUP" => seen.says(
            "200 OK",
            "Session: 1\r\nTransport: RTP/AVP/TCP;interleaved=2-3\r\n",
        ),
        _ => None,
    })
    .await;
    let mut client = client(50);
    client.response_timeout = Duration::from_secs(1500);
    client.silence_timeout = Duration::from_secs(1500);
    let mut session = playing(&camera, &client, &tcp()).await;
    camera.send([frame(2, &rtp(10, 0)), frame(2, &rtp(13, 0))].concat());
    assert_eq!(packet(&mut session).await, (10, 0, 0));
    assert_eq!(packet(&mut session).await, (13, 0, 2));
    within(async {
        while camera.frames().len() < 2 {
            tokio::select! {
                _ = session.next() => panic!("nothing was sent"),
                () = tokio::time::sleep(Duration::from_millis(5)) => {}
            }
        }
    })
    .await;
    let (channel, report) = &camera.frames()[0];
    assert_eq!(*channel, 3);
    assert_eq!(report[..4], [0x81, 201, 0, 7]);
    assert_eq!(report[8..12], 0x1234_5678_u32.to_be_bytes());
    assert_eq!(report[12], 128, "2 of 4 are missing");
    assert_eq!(report[16..20], 13_u32.to_be_bytes());
}

#[tokio::test]
async fn a_dropped_session_closes_its_connection_and_says_nothing() {
    let camera = Camera::ordinary().await;
    let session = playing(&camera, &patient(), &tcp()).await;
    assert_eq!(camera.open.load(Ordering::SeqCst), 1);
    drop(session);
    until("closed", || camera.open.load(Ordering::SeqCst) == 0).await;
    assert_eq!(camera.methods().last().unwrap(), "PLAY");
}

#[tokio::test]
async fn a_farewell_is_not_waited_for_for_long() {
    let camera = Camera::new(|seen| (seen.method == "TEARDOWN").then(Vec::new)).await;
    let client = client(100);
    let session = playing(&camera, &client, &tcp()).await;
    let begin = client.clock.now();
    within(session.close()).await;
    let took = client.clock.now() - begin;
    assert!(took >= Duration::from_secs(1), "{took:?}");
    until("a farewell", || {
        camera.methods().contains(&"TEARDOWN".to_owned())
    })
    .await;
    until("closed", || camera.open.load(Ordering::SeqCst) == 0).await;
}

#[tokio::test]
async fn a_session_that_does_not_come_about_is_given_back() {
    let camera = Camera::new(|seen| match seen.method.as_str() {
        "PLAY" => seen.says("453 Not Enough Bandwidth", ""),
        _ => None,
    })
    .await;
    let busy = failure(&camera, &patient(), &tcp()).await;
    assert_eq!(busy.kind, FailureKind::Busy);
    until("given back", || {
        camera.methods().contains(&"TEARDOWN".to_owned())
    })
    .await;
    // Granted, but not as it was asked for.
    let camera = Camera::new(|seen| {
        let headers = "Session: 7\r\nTransport: RTP/AVP;multicast;port=5000-5001\r\n";
        (seen.method == "SETUP").then(|| vec![Act::Send(seen.answer("200 OK", headers, ""))])
    })
    .await;
    let other = failure(&camera, &patient(), &tcp()).await;
    assert_eq!(other.kind, FailureKind::Protocol);
    until("given back", || {
        camera.methods().contains(&"TEARDOWN".to_owned())
    })
    .await;
}

#[tokio::test]
async fn what_arrived_before_the_end_is_given_first_and_the_end_every_time() {
    let camera = Camera::ordinary().await;
    let mut session = playing(&camera, &patient(), &tcp()).await;
    camera.send([frame(0, &rtp(1, 1)), frame(0, &rtp(2, 2)), frame(1, &bye())].concat());
    assert_eq!(packet(&mut session).await, (1, 1, 0));
    assert_eq!(packet(&mut session).await, (2, 2, 0));
    for _ in 0..3 {
        let failure = within(session.next()).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Ended);
    }
}

#[test]
fn sessions_may_move_between_threads() {
    fn movable<T: Send>() {}
    movable::<Session>();
}
