use super::Url;
use crate::{error::Kind, limits};

fn parsed(text: &str) -> Url {
    Url::parse(text).unwrap()
}

fn refused(text: &str) -> String {
    let error = Url::parse(text).unwrap_err();
    assert_eq!(error.kind(), Kind::InvalidArgument);
    format!("{error:#} {error:?}")
}

#[test]
fn ports_and_schemes_have_their_defaults() {
    let plain = parsed("rtsp://cam.example/live");
    assert_eq!(
        (plain.host(), plain.port(), plain.is_tls()),
        ("cam.example", 554, false)
    );
    let tls = parsed("RTSPS://Cam.example:8322/live");
    assert_eq!(
        (tls.host(), tls.port(), tls.is_tls()),
        ("Cam.example", 8322, true)
    );
    assert_eq!(parsed("rtsps://cam").port(), 322);
    let six = parsed("rtsp://[fd00::1]:8554/a");
    assert_eq!(six.host(), "fd00::1");
    assert_eq!(six.to_string(), "rtsp://[fd00::1]:8554/a");
}

#[test]
fn credentials_leave_the_request_and_are_decoded() {
    let url = parsed("rtsp://ad%6Din:p%40ss%3a%2F%20w%C3%A4@10.0.0.7/ch1?subtype=0");
    assert_eq!(url.request().as_str(), "rtsp://10.0.0.7/ch1?subtype=0");
    let credentials = url.credentials().unwrap();
    assert_eq!(credentials.username, "admin");
    assert_eq!(credentials.password, "p@ss:/ wä");
    assert!(parsed("rtsp://10.0.0.7/").credentials().is_none());
    assert_eq!(
        parsed("rtsp://me@10.0.0.7/")
            .credentials()
            .unwrap()
            .password,
        ""
    );
    // An at sign that was not escaped belongs to the password.
    assert_eq!(
        parsed("rtsp://a:p@ss@10.0.0.7/")
            .credentials()
            .unwrap()
            .password,
        "p@ss"
    );
    // Nor is a lone percent sign worth a refusal.
    assert_eq!(
        parsed("rtsp://a:5%@10.0.0.7/")
            .credentials()
            .unwrap()
            .password,
        "5%"
    );
}

#[test]
fn nothing_printed_holds_credentials_or_the_query() {
    for text in [
        "rtsp://admin:s3cret@cam:554/live?password=s3cret",
        "rtsp://cam/user=admin&password=s3cret&channel=1.sdp?real",
        "rtsp://s3cret@cam/live",
    ] {
        let url = parsed(text);
        for shown in [
            url.to_string(),
            format!("{url:?}"),
            format!("{:#?}", Some(&url)),
        ] {
            assert!(!shown.contains("s3cret"), "{shown}");
        }
    }
    assert_eq!(
        parsed("rtsp://admin:s3cret@cam/live/1?a=b").to_string(),
        "rtsp://cam:554/live/1"
    );
}

#[test]
fn refusals_do_not_repeat_the_url() {
    for text in [
        "http://u:s3cret@cam/",
        "rtsp://u:s3cret@/live",
        "rtsp:s3cret",
        "s3cret",
        "rtsp://u:s3cret@cam:port/",
        "rtsp://u:s3cret@cam:0/",
        "rtsp://u:s3cret@cam/#fragment",
        "rtsp://u:s3#cret@cam/",
        "rtsp://u:s3cret@ca m/",
        "rtsp://u:s3cret@cam/\r\nX: y",
        " rtsp://u:s3cret@cam/",
        "rtsp://u:s3cret@cam/\u{1}",
        "rtsp://u:s3cret%0d%0a@cam/",
        "rtsp://u:s3cret%ff@cam/",
        "rtsp://u:s3cret@%31%32%37.0.0.1/",
        "rtsp://u:s3cret@cäm/",
        "rtsp://u:s3cret@cam,other/",
        "rtsp://u:s3cret@[::1/",
    ] {
        let message = refused(text);
        assert!(
            !message.contains("s3cret") && !message.contains("s3"),
            "{message}"
        );
    }
    refused(&format!("rtsp://cam/{}", "a".repeat(limits::URI_MAX_BYTES)));
}

#[test]
fn redirects_keep_credentials_on_the_same_host_alone() {
    let from = parsed("rtsp://admin:s3cret@cam/live");
    let same = from.redirected(" rtsp://CAM:8554/other ").unwrap();
    assert_eq!(same.credentials().unwrap().password, "s3cret");
    assert!(
        from.redirected("rtsp://cam2/live")
            .unwrap()
            .credentials()
            .is_none()
    );
    assert!(from.redirected("http://cam/live").is_err());
    assert!(from.redirected("/live").is_err());
    assert!(from.redirected("rtsps://cam/live").is_ok());
    let tls = parsed("rtsps://cam/live");
    assert!(tls.redirected("rtsps://cam/live").is_ok());
    assert!(tls.redirected("rtsp://cam/live").is_err());
}

#[test]
fn only_what_stands_behind_the_scheme_is_an_address() {
    for text in [
        "rtsp:cam/live",
        "rtsp:/cam/live",
        "rtsp:rtsp://ann:secret@cam/live",
        "://cam/live",
        "cam://",
    ] {
        assert!(!refused(text).contains("secret"), "{text}");
    }
}
