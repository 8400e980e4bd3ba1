//! The binary itself: `headhunt serve` with a real (tiny) checkpoint and a profile file.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread::JoinHandle,
};

use headhunt::{
    head::HeadId,
    model::{config::ModelConfig, fingerprint::fingerprint},
    profile::Profile,
};
use tonic::transport::Channel;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::{
    collector::{Collector, hex, named},
    common::{
        clips,
        detect::{detect, open},
        eventually,
        server::{Client, profile},
        within,
    },
};

fn checkpoint() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/checkpoints/tiny/hf")
}

/// A profile for the tiny checkpoint; its scores mean nothing.
fn fitting() -> Profile {
    let dir = checkpoint();
    let config = ModelConfig::load(&dir).unwrap();
    let mut profile = profile("tiny");
    profile.heads = vec![HeadId { layer: 0, head: 1 }, HeadId { layer: 1, head: 0 }];
    profile.model.fingerprint = fingerprint(&dir, profile.layers_needed()).unwrap();
    profile.model.head_dim = config.text.head_dim;
    profile.scorer.logistic_mut().unwrap().weights =
        vec![0.1; profile.heads.len() * config.text.head_dim];
    profile
}

fn headhunt(profile: &Profile, dir: &Path) -> Command {
    listening(profile, dir, "127.0.0.1:0")
}

fn listening(profile: &Profile, dir: &Path, listen: &str) -> Command {
    let file = dir.join("tiny.json");
    profile.save(&file).unwrap();
    let mut command = serving(listen);
    command.arg("--profile").arg(file);
    command
}

fn serving(listen: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_headhunt"));
    command
        .args(["serve", "--device", "cpu", "--listen", listen])
        .arg("--model")
        .arg(checkpoint())
        .env("HEADHUNT__SERVER__METRICS_LISTEN", "")
        .env("HEADHUNT__LOG__FORMAT", "json")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts it and waits until it serves: the process, a way to it, and its log at its end.
async fn begin(command: &mut Command) -> (Running, Channel, JoinHandle<String>) {
    let mut child = command.spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let running = Running(child);
    let address = loop {
        let mut line = String::new();
        assert!(
            log.read_line(&mut line).unwrap() > 0,
            "it ended before it listened"
        );
        let entry: serde_json::Value = serde_json::from_str(&line).unwrap();
        let fields = &entry["fields"];
        if fields["message"].as_str().unwrap().starts_with("listening") {
            break fields["address"].as_str().unwrap().to_owned();
        }
    };
    let rest = std::thread::spawn(move || {
        let mut text = String::new();
        log.read_to_string(&mut text).unwrap();
        text
    });
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{address}"))
        .unwrap()
        .connect_lazy();
    let health = HealthClient::new(channel.clone());
    eventually("serving", || {
        let mut health = health.clone();
        async move {
            let response = health.check(HealthCheckRequest::default()).await;
            response.is_ok_and(|r| r.into_inner().status() == ServingStatus::Serving)
        }
    })
    .await;
    (running, channel, rest)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_binary_serves_a_real_model_and_ends_on_sigterm() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start().await;
    let mut command = headhunt(&fitting(), dir.path());
    let endpoint = format!("http://{}", collector.address);
    command.env("HEADHUNT__TRACES__ENDPOINT", endpoint);
    let (mut running, channel, rest) = begin(&mut command).await;
    let mut health = HealthClient::new(channel.clone());
    let mut client = Client::new(channel);
    let bytes = clips::h264(110, 160, 120, "mp4mux");
    let seen = detect(&mut client, open("tiny"), &bytes, 50_000)
        .await
        .unwrap();
    seen.check_frames(110);
    let info = within(
        "info",
        client.get_info(headhunt::rpc::proto::GetInfoRequest {}),
    )
    .await
    .unwrap()
    .into_inner();
    let model = info.model.unwrap();
    assert_eq!(
        (model.device.as_str(), model.dtype.as_str()),
        ("cpu", "f32")
    );
    assert_eq!(model.resident_layers, 2);
    assert_eq!(info.active_profile, "tiny");

    let pid = running.0.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-TERM", &pid])
            .status()
            .unwrap()
            .success()
    );
    let ended = tokio::task::spawn_blocking(move || running.0.wait().unwrap());
    let status = within("the end", ended).await.unwrap();
    let log = rest.join().unwrap();
    assert!(status.success(), "{status}: {log}");
    assert!(log.contains("SIGTERM"), "{log}");
    // What waited was handed over before the end: three segments with every stage of a real model.
    let spans = collector.spans();
    for (name, count) in [("segment", 3), ("vision", 3), ("language", 3), ("score", 3)] {
        assert_eq!(named(&spans, name).len(), count, "{name} in {spans:?}");
    }
    let root = named(&spans, "headhunt.v1.DetectionService/Detect")[0];
    assert!(log.contains(&hex(&root.trace_id)), "{log}");
    drop(
        health
            .check(HealthCheckRequest::default())
            .await
            .unwrap_err(),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_activation_outlives_a_killed_server() {
    use headhunt::rpc::proto::{
        self, GetInfoRequest, admin_service_client::AdminServiceClient as Admin,
    };
    let dir = tempfile::tempdir().unwrap();
    let mut other = fitting();
    other.name = "other".into();
    for profile in [&fitting(), &other] {
        let file = dir.path().join(format!("{}.json", profile.name));
        profile.save(file).unwrap();
    }
    let in_directory = || {
        let mut command = serving("127.0.0.1:0");
        command
            .env("HEADHUNT__PROFILES__DIR", dir.path())
            .env("HEADHUNT__PROFILES__ACTIVE", "tiny");
        command
    };
    let (mut running, channel, _log) = begin(&mut in_directory()).await;
    let mut admin = Admin::new(channel);
    let request = proto::ActivateProfileRequest {
        name: "other".into(),
        ..Default::default()
    };
    let activated = within("activate", admin.activate_profile(request)).await;
    let version = activated.unwrap().into_inner().profile.unwrap().version;
    assert_eq!(version, other.checksum().unwrap());
    running.0.kill().unwrap(); // SIGKILL
    running.0.wait().unwrap();

    // `profiles.active` was the choice until then.
    let (_running, channel, _log) = begin(&mut in_directory()).await;
    let mut client = Client::new(channel);
    let info = within("info", client.get_info(GetInfoRequest {})).await;
    let info = info.unwrap().into_inner();
    assert_eq!(info.active_profile, "other");
    assert_eq!(info.active_profile_version, version);
}

/// Runs it to its end.
fn refused(command: &mut Command) -> String {
    let Output { status, stderr, .. } = command.output().unwrap();
    let text = String::from_utf8(stderr).unwrap();
    assert!(!status.success(), "{text}");
    text
}

#[test]
fn what_cannot_be_served_ends_the_binary_with_a_reason() {
    let dir = tempfile::tempdir().unwrap();
    let mut other = fitting();
    other.model.fingerprint = "0".repeat(64);
    let text = refused(&mut headhunt(&other, dir.path()));
    assert!(
        text.contains("active profile `tiny`") && text.contains("fingerprint"),
        "{text}"
    );

    let mut command = headhunt(&fitting(), dir.path());
    let text = refused(command.env("HEADHUNT__ENGINE__MAX_BACH", "2"));
    assert!(text.contains("`engine.max_bach`"), "{text}");

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let text = refused(&mut listening(&fitting(), dir.path(), &address));
    assert!(text.contains(&address), "{text}");
}
