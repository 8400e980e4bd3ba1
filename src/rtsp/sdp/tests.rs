use proptest::prelude::*;

use super::*;

const CAMERA: &str = "v=0\r\no=- 1 1 IN IP4 10.0.0.7\r\ns=Media\r\nc=IN IP4 0.0.0.0\r\nt=0 0\r\n\
    a=control:*\r\na=range:npt=0-\r\nm=audio 0 RTP/AVP 0\r\na=control:trackID=1\r\n\
    m=video 0 RTP/AVP 96\r\nb=AS:5000\r\na=rtpmap:96 H264/90000\r\n\
    a=fmtp:96 packetization-mode=1;Profile-Level-ID=640028; sprop-parameter-sets=Z2QAKK0=,aO48sA==\r\n\
    a=control:trackID=2\r\n";

fn text(lines: &str) -> Result<Chosen, Failure> {
    choose(lines.as_bytes(), false)
}

fn offered(lines: &str) -> String {
    let failure = text(lines).unwrap_err();
    assert_eq!(failure.kind, FailureKind::UnsupportedCodec);
    failure.message
}

#[test]
fn the_video_track_is_chosen() {
    let chosen = text(CAMERA).unwrap();
    assert_eq!(chosen.session_control.as_deref(), Some("*"));
    assert_eq!(chosen.track_control.as_deref(), Some("trackID=2"));
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    assert_eq!(
        chosen.track,
        Track {
            codec: Codec::H264,
            payload_type: 96,
            clock_rate: 90_000,
            parameters: vec![
                pair("packetization-mode", "1"),
                pair("profile-level-id", "640028"),
                pair("sprop-parameter-sets", "Z2QAKK0=,aO48sA=="),
            ],
        }
    );
}

#[test]
fn broken_descriptions_give_the_same() {
    let whole = text(CAMERA).unwrap();
    let variants = [
        CAMERA.replace("\r\n", "\n"),
        CAMERA.replace("\r\n", "\r"),
        CAMERA.replace("s=Media\r\n", "").replace("t=0 0\r\n", ""),
        CAMERA.replace("t=0 0", "t=now"),
        CAMERA.replace("o=- 1 1 IN IP4 10.0.0.7", "o=camera"),
        CAMERA.replace("v=0\r\n", ""),
        CAMERA.replace("v=0", "v=1"),
        CAMERA.replace("m=video 0 ", "m=video 70000 "),
        CAMERA.replace("c=IN IP4 0.0.0.0", "c=IN\r\nc=IN"),
        CAMERA.replace("b=AS:5000", "b=garbage"),
        format!("{CAMERA}\0\0garbage\u{fffd}"),
        format!("{CAMERA}\r\n\r\n=?=\r\n"),
    ];
    for variant in variants {
        let chosen = text(&variant).unwrap_or_else(|e| panic!("{e}: {variant:?}"));
        assert_eq!(chosen, whole, "{variant:?}");
    }
    let mut latin = CAMERA.replace("s=Media", "s=K?mera").into_bytes();
    let at = latin.iter().position(|b| *b == b'?').unwrap();
    latin[at] = 0xe4;
    assert_eq!(choose(&latin, false).unwrap(), whole);
}

#[test]
fn other_codecs_and_static_types() {
    let h265 = "v=0\r\nm=video 0 RTP/AVP 98\r\na=rtpmap:98 hevc/90000\r\n";
    assert_eq!(text(h265).unwrap().track.codec, Codec::H265);
    let jpeg = text("v=0\r\nm=video 0 RTP/AVP 26\r\n").unwrap().track;
    assert_eq!(
        (jpeg.codec, jpeg.payload_type, jpeg.clock_rate),
        (Codec::Mjpeg, 26, 90_000)
    );
    let zero = "v=0\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/0\r\n";
    assert_eq!(text(zero).unwrap().track.clock_rate, 90_000);
    // The second format and the second track, where the first cannot be taken.
    let second =
        "v=0\r\nm=video 0 RTP/AVP 97 96\r\na=rtpmap:97 VP8/90000\r\na=rtpmap:96 H264/90000\r\n";
    assert_eq!(text(second).unwrap().track.payload_type, 96);
    let other = "v=0\r\nm=video 0 RTP/AVP 97\r\na=rtpmap:97 VP8/90000\r\na=control:a\r\n\
        m=video 0 RTP/AVP 26\r\na=control:b\r\n";
    assert_eq!(text(other).unwrap().track_control.as_deref(), Some("b"));
}

#[test]
fn a_refusal_names_what_was_offered() {
    assert!(offered("v=0\r\nm=audio 0 RTP/AVP 0\r\n").ends_with("but audio payload type 0"));
    assert!(
        offered("v=0\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 VP8/90000\r\nm=audio 0 RTP/AVP 8\r\na=rtpmap:8 PCMA/8000\r\n")
            .ends_with("but video VP8, audio PCMA")
    );
    assert!(
        offered("v=0\r\nm=video 0 RTP/SAVP 96\r\na=rtpmap:96 H264/90000\r\n")
            .ends_with("but video H264 over RTP/SAVP")
    );
    assert!(offered("v=0\r\ns=x\r\n").ends_with("but nothing at all"));
    let many = format!("v=0\r\n{}", "m=audio 0 RTP/AVP 0\r\n".repeat(100));
    assert!(offered(&many).len() < 400);
    assert_eq!(text("<html>").unwrap_err().kind, FailureKind::Protocol);
    assert_eq!(text("").unwrap_err().kind, FailureKind::Protocol);
}

#[test]
fn control_urls() {
    let url = |base: &str, control: Option<&str>| {
        control_url(&url::Url::parse(base).unwrap(), control).map(|u| u.to_string())
    };
    let base = "rtsp://cam/live/";
    assert_eq!(url(base, None).unwrap(), base);
    assert_eq!(url(base, Some("*")).unwrap(), base);
    assert_eq!(
        url(base, Some("trackID=1")).unwrap(),
        "rtsp://cam/live/trackID=1"
    );
    assert_eq!(
        url("rtsp://cam/live", Some("a/b")).unwrap(),
        "rtsp://cam/live/a/b"
    );
    assert_eq!(url(base, Some("/other")).unwrap(), "rtsp://cam/other");
    assert_eq!(
        url("rtsp://cam/l?c=1", Some("t=1")).unwrap(),
        "rtsp://cam/l?c=1/t=1"
    );
    assert_eq!(
        url(base, Some("rtsp://a:b@10.0.0.7:554/x/t?q#f")).unwrap(),
        "rtsp://10.0.0.7:554/x/t?q"
    );
    assert!(url(base, Some("http://cam/x")).is_err());
    assert!(url(base, Some(&"x".repeat(3000))).is_err());
}

proptest! {
    #[test]
    fn arbitrary_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = choose(&bytes, true);
    }

    #[test]
    fn arbitrary_lines_do_no_harm(lines in prop::collection::vec("[vmatocsb]=[ -~]{0,40}", 0..20)) {
        let _ = choose(lines.join("\r\n").as_bytes(), false);
        let _ = choose(format!("v=0\r\n{}", lines.join("\n")).as_bytes(), false);
    }
}

#[test]
fn srtp_of_a_server_behind_tls_is_taken_and_given_as_plain_rtp() {
    let lines =
        "v=0\r\nm=video 0 RTP/SAVP 96\r\na=rtpmap:96 H264/90000\r\na=key-mgmt:mikey AQAF\r\n";
    assert_eq!(
        choose(lines.as_bytes(), true).unwrap().track.codec,
        Codec::H264
    );
    let error = choose(lines.as_bytes(), false).unwrap_err();
    assert_eq!(error.kind, FailureKind::UnsupportedCodec);
}

#[test]
fn the_size_of_a_large_jpeg_stands_in_an_attribute_of_its_own() {
    let lines = "v=0\r\nm=video 0 RTP/AVP 26\r\na=x-dimensions: 3840,2160\r\n";
    let track = choose(lines.as_bytes(), false).unwrap().track;
    assert_eq!(
        track.parameters,
        [("x-dimensions".to_owned(), "3840,2160".to_owned())]
    );
}
