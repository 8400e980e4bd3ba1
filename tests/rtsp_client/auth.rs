//! User names and passwords.

use std::collections::HashMap;

use headhunt::rtsp::{FailureKind, Session};
use sha2::{Digest as _, Sha256};

use crate::rtsp_support::{
    Act, Camera, Seen, client, frame, packet, patient, rtp, tcp, until, within,
};

const USER: &str = "admin";
const PASSWORD: &str = "s3 cret:/@";
/// The same in a URL.
const ESCAPED: &str = "admin:s3%20cret:%2F%40@/live";

fn sha(text: &str) -> String {
    Sha256::digest(text)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect()
}

/// The parts of an Authorization header.
fn parts(header: &str) -> HashMap<String, String> {
    let list = header.strip_prefix("Digest ").expect("a digest");
    list.split(", ")
        .map(|p| p.split_once('=').unwrap())
        .map(|(n, v)| (n.to_owned(), v.trim_matches('"').to_owned()))
        .collect()
}

/// Whether a request proves the password for this nonce; computed here from RFC 7616.
fn proves(seen: &Seen, nonce: &str) -> bool {
    let Some(header) = seen.header("authorization") else {
        return false;
    };
    let p = parts(header);
    assert_eq!(p["username"], USER);
    assert_eq!(p["uri"], seen.uri);
    let a1 = sha(&format!("{USER}:{}:{PASSWORD}", p["realm"]));
    let a2 = sha(&format!("{}:{}", seen.method, seen.uri));
    let wanted = sha(&format!(
        "{a1}:{nonce}:{}:{}:auth:{a2}",
        p["nc"], p["cnonce"]
    ));
    p["nonce"] == nonce && p["response"] == wanted
}

fn challenge(nonce: &str, more: &str) -> String {
    format!(
        "WWW-Authenticate: Basic realm=\"cam\"\r\n\
         WWW-Authenticate: Digest realm=\"cam\", nonce=\"{nonce}\", qop=\"auth\", algorithm=SHA-256{more}\r\n"
    )
}

async fn opened(camera: &Camera, path: &str) -> Result<Session, headhunt::rtsp::Failure> {
    within(patient().open(&camera.url(path), &tcp())).await
}

#[tokio::test]
async fn a_digest_is_answered_on_every_request_after_the_challenge() {
    let camera = Camera::new(|seen| {
        (!proves(seen, "n1")).then(|| seen.says("401 Unauthorized", &challenge("n1", "")))?
    })
    .await;
    let session = opened(&camera, ESCAPED).await.unwrap();
    within(session.close()).await;
    assert_eq!(
        camera.methods(),
        [
            "OPTIONS", "OPTIONS", "DESCRIBE", "SETUP", "PLAY", "TEARDOWN"
        ]
    );
    let counts: Vec<String> = camera.seen()[1..]
        .iter()
        .map(|s| parts(s.header("authorization").unwrap())["nc"].clone())
        .collect();
    assert_eq!(counts[0], "00000001");
    assert_eq!(counts[4], "00000005", "a nonce is counted");
}

#[tokio::test]
async fn basic_is_answered() {
    let camera = Camera::new(|seen| {
        // base64 of the user name, a colon and the password.
        let right = Some("Basic YWRtaW46czMgY3JldDovQA==");
        (seen.header("authorization") != right).then(|| {
            seen.says(
                "401 Unauthorized",
                "WWW-Authenticate: Basic realm=\"a\"\r\n",
            )
        })?
    })
    .await;
    opened(&camera, ESCAPED).await.unwrap();
}

#[tokio::test]
async fn a_nonce_that_grew_old_is_replaced_once() {
    // Each request but the first of its kind is asked to use a fresh nonce.
    let mut nonces = 0;
    let camera = Camera::new(move |seen| {
        if proves(seen, &format!("n{nonces}")) && seen.method != "PLAY" {
            nonces += 1;
            return None;
        }
        if seen.method == "PLAY" {
            nonces += 1;
        }
        seen.says(
            "401 Unauthorized",
            &challenge(&format!("n{nonces}"), ", stale=true"),
        )
    })
    .await;
    let failure = opened(&camera, ESCAPED).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Unauthorized);
    until("given back", || camera.methods().len() == 9).await;
    assert_eq!(
        camera.methods(),
        [
            "OPTIONS", "OPTIONS", "DESCRIBE", "DESCRIBE", "SETUP", "SETUP", "PLAY", "PLAY",
            "TEARDOWN"
        ],
        "PLAY never succeeds and is repeated once"
    );
}

#[tokio::test]
async fn a_second_refusal_is_final() {
    let camera = Camera::new(|seen| seen.says("401 Unauthorized", &challenge("n1", ""))).await;
    let failure = opened(&camera, "admin:wrong@/live").await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Unauthorized);
    assert_eq!(camera.methods(), ["OPTIONS", "OPTIONS"]);
    assert!(
        camera.seen()[1]
            .header("authorization")
            .unwrap()
            .starts_with("Digest ")
    );
}

#[tokio::test]
async fn without_credentials_there_is_one_attempt() {
    let camera = Camera::new(|seen| seen.says("401 Unauthorized", &challenge("n1", ""))).await;
    let failure = opened(&camera, "/live").await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Unauthorized);
    assert_eq!(camera.methods(), ["OPTIONS"]);
}

#[tokio::test]
async fn a_challenge_that_nobody_can_answer_is_final() {
    for challenge in [
        "",
        "WWW-Authenticate: Bearer realm=\"a\"\r\n",
        "WWW-Authenticate: \"\r\n",
    ] {
        let camera = Camera::new(move |seen| seen.says("401 Unauthorized", challenge)).await;
        let failure = opened(&camera, ESCAPED).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Unauthorized);
    }
}

/// A sign of life that is refused for its nonce is repeated with a fresh one, and the stream goes on.
#[tokio::test]
async fn signs_of_life_renew_their_nonce() {
    let camera = Camera::new(move |seen| {
        if seen.method == "GET_PARAMETER" && !proves(seen, "n2") {
            return seen.says("401 Unauthorized", &challenge("n2", ", stale=true"));
        }
        if seen.method == "GET_PARAMETER" {
            return Some(vec![
                Act::Send(seen.ordinary()),
                Act::Send(frame(0, &rtp(1, 1))),
            ]);
        }
        (!proves(seen, "n1")).then(|| seen.says("401 Unauthorized", &challenge("n1", "")))?
    })
    .await;
    let mut client = client(100);
    client.response_timeout = std::time::Duration::from_secs(3000);
    client.silence_timeout = client.response_timeout;
    let url = camera.url(ESCAPED);
    let mut session = within(client.open(&url, &tcp())).await.unwrap();
    assert_eq!(packet(&mut session).await, (1, 1, 0));
}

#[tokio::test]
async fn signs_of_life_that_are_refused_become_others_and_end_nothing() {
    let camera = Camera::new(|seen| {
        if seen.method == "GET_PARAMETER" || !proves(seen, "n1") {
            return seen.says("401 Unauthorized", &challenge("n1", ""));
        }
        (seen.method == "OPTIONS" && seen.header("session").is_some())
            .then(|| vec![Act::Send(seen.ordinary()), Act::Send(frame(0, &rtp(1, 1)))])
    })
    .await;
    let mut client = client(100);
    client.response_timeout = std::time::Duration::from_secs(3000);
    client.silence_timeout = client.response_timeout;
    let url = camera.url(ESCAPED);
    let mut session = within(client.open(&url, &tcp())).await.unwrap();
    assert_eq!(packet(&mut session).await, (1, 1, 0));
    let asked = camera
        .methods()
        .iter()
        .filter(|m| *m == "GET_PARAMETER")
        .count();
    assert_eq!(asked, 2);
}
