//! Neither user name nor password nor query shows in failures, logs or debug output.

use std::{
    io,
    sync::{Arc, Mutex},
};

use headhunt::rtsp::{Failure, Transport};

use crate::rtsp_support::{Act, Camera, SDP, Seen, bye, client, end, frame, rtp, tcp, udp, within};

/// A place for log lines.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

const SECRETS: [&str; 4] = ["us3r", "pa55", "qu3ry", "Authorization"];

fn clean(what: &str, text: &str) {
    for secret in SECRETS {
        assert!(!text.contains(secret), "{what} shows {secret}: {text}");
    }
    // Nor what basic makes of them.
    assert!(!text.contains("dXMzcjpwYTU1"), "{what}: {text}");
}

fn checked(failure: &Failure) {
    clean("a failure", &format!("{failure} {failure:?}"));
}

fn challenged(seen: &Seen, challenge: &'static str) -> Option<Vec<Act>> {
    seen.says(
        "401 Unauthorized",
        &format!("WWW-Authenticate: {challenge}\r\n"),
    )
}

#[tokio::test]
async fn nothing_secret_is_shown() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);

    let digest = "Digest realm=\"a\", nonce=\"b\"";
    let asks = move |seen: &Seen, status: Option<&'static str>| {
        if seen.header("authorization").is_none() {
            return challenged(seen, digest);
        }
        let status = status.filter(|_| seen.method == "DESCRIBE")?;
        // A camera that repeats what it was asked.
        seen.says(
            &format!("{status} {}", seen.uri),
            &format!("X: {}\r\n", seen.text.lines().next()?),
        )
    };
    let statuses = [
        None,
        Some("401"),
        Some("403"),
        Some("404"),
        Some("461"),
        Some("500"),
        Some("999"),
    ];
    for status in statuses {
        let camera = Camera::new(move |seen| asks(seen, status)).await;
        for access in [tcp(), udp()] {
            let client = client(20);
            let url = camera.url("us3r:pa55@/live?token=qu3ry");
            clean("a URL", &format!("{url} {url:?} {access:?}"));
            match within(client.open(&url, &access)).await {
                Ok(mut session) => {
                    clean("a session", &format!("{session:?} {session:#?}"));
                    if access.transport == Transport::Tcp {
                        camera.send([frame(0, &rtp(1, 1)), frame(1, &bye())].concat());
                    }
                    checked(&end(&mut session).await);
                    clean("an ended session", &format!("{session:?}"));
                    within(session.close()).await;
                }
                Err(failure) => checked(&failure),
            }
        }
    }

    // Failures before and beside the dialogue.
    let redirect = "Location: http://us3r:pa55@127.0.0.1/?qu3ry\r\n";
    let here = "Location: rtsp://us3r:pa55@127.0.0.1:1/live?qu3ry\r\n";
    let odd = SDP.replace("a=control:video", "a=control:http://us3r:pa55@h/?qu3ry");
    type Answer = Box<dyn Fn(&Seen) -> Option<Vec<Act>> + Send>;
    let answers: [Answer; 7] = [
        Box::new(move |s| s.says("302 Found", redirect)),
        Box::new(move |s| s.says("302 Found", here)),
        Box::new(|s| challenged(s, "Bearer us3r pa55")),
        Box::new(|s| challenged(s, "Digest realm=\"\u{1}\", nonce=\"b\"")),
        Box::new(move |s| {
            (s.method == "DESCRIBE").then(|| vec![Act::Send(s.answer("200 OK", "", &odd))])
        }),
        Box::new(|s| {
            Some(vec![Act::Send(
                format!("HTTP/1.1 400 {}\r\n\r\n", s.uri).into(),
            )])
        }),
        Box::new(|_| Some(vec![Act::Close])),
    ];
    for answer in answers {
        let camera = Camera::new(answer).await;
        let url = camera.url("us3r:pa55@/live?token=qu3ry");
        checked(&within(client(1).open(&url, &tcp())).await.unwrap_err());
    }

    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(
        log.contains("rtsp request") && log.contains("DESCRIBE"),
        "{log}"
    );
    assert!(
        log.contains("rtsp answer") && log.contains("/live"),
        "{log}"
    );
    clean("the log", &log);
}
