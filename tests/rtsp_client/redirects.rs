//! Where connections may go: the policy and redirects.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use headhunt::rtsp::{Client, FailureKind, Url, Vet};

use crate::rtsp_support::{Act, Camera, failure, patient, playing, tcp, within};

/// Remembers whom it was asked for, and refuses some.
#[derive(Default)]
struct Policy {
    asked: Mutex<Vec<(String, SocketAddr)>>,
    refused: Vec<SocketAddr>,
    ipv6: bool,
}

impl Vet for Policy {
    fn vet(&self, host: &str, address: SocketAddr) -> Result<(), String> {
        self.asked.lock().unwrap().push((host.to_owned(), address));
        if self.refused.contains(&address) || (address.is_ipv6() && !self.ipv6) {
            Err(format!("{} is out of bounds", address.ip()))
        } else {
            Ok(())
        }
    }
}

fn client(policy: &Arc<Policy>) -> Client {
    Client {
        vet: policy.clone(),
        ..patient()
    }
}

fn to(location: &str) -> String {
    format!("Location: {location}\r\n")
}

/// A camera that sends away everyone who asks with this method.
async fn elsewhere(method: &'static str, status: &'static str, location: String) -> Camera {
    Camera::new(move |seen| (seen.method == method).then(|| seen.says(status, &to(&location)))?)
        .await
}

#[tokio::test]
async fn the_policy_is_asked_for_the_address_that_is_used() {
    let camera = Camera::ordinary().await;
    let policy = Arc::new(Policy::default());
    drop(playing(&camera, &client(&policy), &tcp()).await);
    let asked = policy.asked.lock().unwrap().clone();
    assert_eq!(asked, [("127.0.0.1".to_owned(), camera.address)]);
}

#[tokio::test]
async fn a_refused_address_is_never_connected_to() {
    let camera = Camera::ordinary().await;
    let policy = Arc::new(Policy {
        refused: vec![camera.address],
        ..Policy::default()
    });
    let failure = failure(&camera, &client(&policy), &tcp()).await;
    assert_eq!(failure.kind, FailureKind::Forbidden);
    assert!(
        failure.message.contains("127.0.0.1 is out of bounds"),
        "{failure}"
    );
    assert_eq!(camera.seen().len(), 0);
    assert_eq!(camera.open.load(std::sync::atomic::Ordering::SeqCst), 0);
}

/// `localhost` has one address or two; the refused one is passed over.
#[tokio::test]
async fn of_several_addresses_the_allowed_ones_are_tried() {
    let camera = Camera::ordinary().await;
    let policy = Arc::new(Policy::default());
    let url = format!("rtsp://localhost:{}/live", camera.address.port());
    let url = Url::parse(&url).unwrap();
    drop(within(client(&policy).open(&url, &tcp())).await.unwrap());
    let asked = policy.asked.lock().unwrap().clone();
    assert!(
        asked.contains(&("localhost".to_owned(), camera.address)),
        "{asked:?}"
    );
    // And where the first does not answer, the next is tried.
    let policy = Arc::new(Policy {
        ipv6: true,
        ..Policy::default()
    });
    drop(within(client(&policy).open(&url, &tcp())).await.unwrap());
}

#[tokio::test]
async fn redirects_are_followed_with_every_method_and_status() {
    for (method, status) in [
        ("OPTIONS", "302 Found"),
        ("DESCRIBE", "301 Moved Permanently"),
        ("DESCRIBE", "303 See Other"),
        ("SETUP", "305 Use Proxy"),
        ("PLAY", "307 Temporary Redirect"),
    ] {
        let target = Camera::ordinary().await;
        let first = elsewhere(method, status, target.text("/other?x=1")).await;
        let policy = Arc::new(Policy::default());
        drop(playing(&first, &client(&policy), &tcp()).await);
        assert_eq!(target.seen()[0].uri, target.text("/other?x=1"));
        let asked: Vec<_> = policy.asked.lock().unwrap().iter().map(|a| a.1).collect();
        assert_eq!(asked, [first.address, target.address]);
    }
}

#[tokio::test]
async fn a_request_of_the_camera_redirects_too() {
    let target = Camera::ordinary().await;
    let location = to(&target.text("/live"));
    let first = Camera::new(move |seen| {
        let request = format!(
            "REDIRECT {} RTSP/1.0\r\nCSeq: 1\r\n{location}\r\n",
            seen.uri
        );
        (seen.method == "DESCRIBE").then(|| vec![Act::Send(request.into_bytes())])
    })
    .await;
    drop(playing(&first, &patient(), &tcp()).await);
    assert_eq!(target.methods().last().unwrap(), "PLAY");
}

#[tokio::test]
async fn a_redirect_is_judged_like_the_first_address() {
    let target = Camera::ordinary().await;
    let first = elsewhere("DESCRIBE", "302 Found", target.text("/live")).await;
    let policy = Arc::new(Policy {
        refused: vec![target.address],
        ..Policy::default()
    });
    let failure = failure(&first, &client(&policy), &tcp()).await;
    assert_eq!(failure.kind, FailureKind::Forbidden);
    assert_eq!(target.seen().len(), 0);
}

#[tokio::test]
async fn at_most_three_redirects_are_followed() {
    for (hops, plays) in [(3, true), (4, false)] {
        let mut cameras = vec![Camera::ordinary().await];
        for _ in 0..hops {
            let location = cameras.last().unwrap().text("/live");
            cameras.push(elsewhere("DESCRIBE", "302 Found", location).await);
        }
        let url = cameras.last().unwrap().url("/live");
        let opened = within(patient().open(&url, &tcp())).await;
        match opened {
            Ok(_) => assert!(plays),
            Err(failure) => {
                assert!(!plays, "{failure}");
                assert_eq!(failure.kind, FailureKind::Protocol);
            }
        }
        assert_eq!(cameras[0].seen().is_empty(), !plays);
    }
}

#[tokio::test]
async fn redirects_to_what_is_no_camera_are_refused() {
    for location in [
        "http://127.0.0.1/",
        "/relative",
        "rtsp://",
        "file:///etc/passwd",
        "",
    ] {
        let first = elsewhere("DESCRIBE", "302 Found", location.to_owned()).await;
        let failure = failure(&first, &patient(), &tcp()).await;
        assert_eq!(failure.kind, FailureKind::Protocol, "{location}");
    }
    let first =
        Camera::new(|seen| (seen.method == "DESCRIBE").then(|| seen.says("302 Found", ""))?);
    let failure = failure(&first.await, &patient(), &tcp()).await;
    assert_eq!(failure.kind, FailureKind::Protocol, "no location");
}

/// Credentials go along on the same host, and to no other: there, basic is not even tried.
#[tokio::test]
async fn credentials_stay_with_their_host() {
    let asks_for_basic = |seen: &crate::rtsp_support::Seen| {
        seen.header("authorization").is_none().then(|| {
            seen.says(
                "401 Unauthorized",
                "WWW-Authenticate: Basic realm=\"a\"\r\n",
            )
        })?
    };
    let target = Camera::new(asks_for_basic).await;
    let same = elsewhere("OPTIONS", "302 Found", target.text("/live")).await;
    let url = same.url("admin:s3cret@/live");
    drop(within(patient().open(&url, &tcp())).await.unwrap());
    let url = format!("rtsp://localhost:{}/live", target.address.port());
    let other = elsewhere("OPTIONS", "302 Found", url).await;
    let before = target.seen().len();
    let url = other.url("admin:s3cret@/live");
    let failure = within(patient().open(&url, &tcp())).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Unauthorized);
    for request in &target.seen()[before..] {
        assert_eq!(request.header("authorization"), None);
    }
}
