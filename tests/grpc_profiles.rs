//! Versions of profiles through the wire: administration, good and bad, and detections that keep a
//! version, name one or follow.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test may

mod common;

use std::{path::Path, sync::Arc, time::Duration};

use common::{
    detect::{Call, Seen, chunk, detect, open, send_all},
    media::{RawMedia, video},
    server::{TestServer, profile},
    within,
};
use headhunt::{
    error::{Error, Result},
    media::{ChunkEvent, ChunkSource, MediaSource},
    profile::{Profile, Scorer},
    rpc::{
        OpenMedia, UriSource,
        proto::{
            self, ScoreStage, admin_service_client::AdminServiceClient,
            detect_request::Message as Ask, detect_response::Message as Told,
            watch_response::Message as Watched,
        },
    },
};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, transport::Channel};
use tonic_types::StatusExt as _;

type Admin = AdminServiceClient<Channel>;

/// Frames of a segment.
const N: usize = 48;

/// The profile in variant `n`: each gives other probabilities.
fn variant(name: &str, n: u32) -> Profile {
    let mut profile = profile(name);
    profile.created_unix_s += u64::from(n);
    let Scorer::Logistic(scorer) = &mut profile.scorer else {
        panic!("a logistic scorer");
    };
    scorer.intercept -= 0.25 * f64::from(n);
    profile
}

fn version(name: &str, n: u32) -> String {
    variant(name, n).checksum().unwrap()
}

fn put(directory: &Path, profile: &Profile) {
    let path = directory.join(format!("{}.json", profile.name));
    profile.save(path).unwrap();
}

/// A directory with `cam`, `door` and one for another model.
fn directory() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    put(directory.path(), &variant("cam", 0));
    put(directory.path(), &variant("door", 0));
    let mut foreign = variant("foreign", 0);
    foreign.model.fingerprint = "0".repeat(64);
    put(directory.path(), &foreign);
    directory
}

async fn start(directory: &Path) -> (TestServer, Admin) {
    let server = TestServer::in_directory("", Arc::new(RawMedia), directory).await;
    let admin = Admin::new(server.channel().await);
    (server, admin)
}

async fn list(admin: &mut Admin) -> Vec<proto::Profile> {
    let listed = within("list", admin.list_profiles(proto::ListProfilesRequest {}));
    listed.await.unwrap().into_inner().profiles
}

async fn get(admin: &mut Admin, name: &str, version: &str) -> Result<proto::Profile, Status> {
    let request = proto::GetProfileRequest {
        name: name.into(),
        version: version.into(),
    };
    let response = within("get", admin.get_profile(request))
        .await?
        .into_inner();
    let listed = response.profile.unwrap();
    // What is given is a whole profile file.
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("profile.json");
    std::fs::write(&file, &response.json).unwrap();
    let profile = Profile::load(file).unwrap();
    assert_eq!(profile.checksum().unwrap(), listed.version);
    assert_eq!(profile.name, listed.name);
    Ok(listed)
}

async fn activate(
    admin: &mut Admin,
    name: &str,
    version: &str,
    current_only: bool,
) -> Result<proto::Profile, Status> {
    let request = proto::ActivateProfileRequest {
        name: name.into(),
        version: version.into(),
        current_only,
    };
    let response = within("activate", admin.activate_profile(request)).await?;
    Ok(response.into_inner().profile.unwrap())
}

async fn roll_back(admin: &mut Admin, name: &str) -> Result<proto::Profile, Status> {
    let request = proto::RollBackProfileRequest { name: name.into() };
    let response = within("roll back", admin.roll_back_profile(request)).await?;
    Ok(response.into_inner().profile.unwrap())
}

async fn delete(admin: &mut Admin, name: &str, version: &str) -> Result<(), Status> {
    let request = proto::DeleteProfileRequest {
        name: name.into(),
        version: version.into(),
    };
    within("delete", admin.delete_profile(request))
        .await
        .map(drop)
}

/// Name, variant, current and active of what is listed, in order.
fn shape(profiles: &[proto::Profile]) -> Vec<(String, u32, bool, bool)> {
    let variant = |p: &proto::Profile| (0..9).find(|n| version(&p.name, *n) == p.version);
    profiles
        .iter()
        .filter(|profile| profile.unusable.is_empty())
        .map(|p| (p.name.clone(), variant(p).unwrap(), p.current, p.active))
        .collect()
}

fn row(name: &str, n: u32, current: bool, active: bool) -> (String, u32, bool, bool) {
    (name.into(), n, current, active)
}

#[track_caller]
fn refused<T: std::fmt::Debug>(
    answer: Result<T, Status>,
    code: Code,
    field: Option<&str>,
    words: &str,
) {
    let status = answer.unwrap_err();
    assert_eq!(status.code(), code, "{status:?}");
    assert!(status.message().contains(words), "{status:?}");
    assert!(!status.message().contains("/tmp"), "no paths: {status:?}");
    let details = status.get_error_details();
    let named = details
        .bad_request()
        .map(|bad| bad.field_violations[0].field.clone());
    assert_eq!(named.as_deref(), field, "{status:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_are_added_activated_rolled_back_and_deleted() {
    let directory = directory();
    let (server, mut admin) = start(directory.path()).await;
    for n in 1..3 {
        let added = server.profiles.add(variant("cam", n), false).await.unwrap();
        assert_eq!(added.version(), version("cam", n));
    }
    assert_eq!(
        shape(&list(&mut admin).await),
        [
            row("cam", 2, false, false),
            row("cam", 1, false, false),
            row("cam", 0, true, true),
            row("door", 0, true, false),
        ]
    );
    let got = get(&mut admin, "cam", "").await.unwrap();
    assert_eq!(got.version, version("cam", 0));
    assert!(got.current && got.active);
    assert_eq!(got.created_at.unwrap().seconds, 1_700_000_000);
    assert_eq!(got.model_fingerprint, profile("cam").model.fingerprint);

    // The newest, where none is named.
    let activated = activate(&mut admin, "cam", "", false).await.unwrap();
    assert_eq!(activated.version, version("cam", 2));
    assert!(activated.current && activated.active);
    assert_eq!(
        server.info().await.active_profile_version,
        version("cam", 2)
    );
    // Another camera's profile, without touching the active one.
    server
        .profiles
        .add(variant("door", 1), false)
        .await
        .unwrap();
    let door = activate(&mut admin, "door", &version("door", 1), true)
        .await
        .unwrap();
    assert!(door.current && !door.active);
    assert_eq!(server.info().await.active_profile, "cam");
    activate(&mut admin, "door", &version("door", 0), false)
        .await
        .unwrap();
    assert_eq!(server.info().await.active_profile, "door");

    let back = roll_back(&mut admin, "").await.unwrap();
    assert_eq!(
        (back.name.as_str(), back.version.clone()),
        ("cam", version("cam", 2))
    );
    assert_eq!(
        get(&mut admin, "door", "").await.unwrap().version,
        version("door", 1),
        "the whole activation was undone"
    );
    let back = roll_back(&mut admin, "cam").await.unwrap();
    assert_eq!(back.version, version("cam", 0));
    assert!(back.active, "it is still the active profile");
    delete(&mut admin, "cam", &version("cam", 2)).await.unwrap();
    refused(
        get(&mut admin, "cam", &version("cam", 2)).await,
        Code::NotFound,
        Some("version"),
        "no version",
    );

    // All of it outlives the server.
    let before = list(&mut admin).await;
    server.stop().await;
    let (server, mut admin) = start(directory.path()).await;
    assert_eq!(list(&mut admin).await, before);
    server.is_as_it_was().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_profile_is_added_and_activated_in_one() {
    let directory = directory();
    let (server, mut admin) = start(directory.path()).await;
    let added = server.profiles.add(variant("gate", 3), true).await.unwrap();
    assert_eq!(
        (added.name(), added.version()),
        ("gate", &*version("gate", 3))
    );
    assert_eq!(server.info().await.active_profile, "gate");
    // Again: nothing new, and no other version.
    server.profiles.add(variant("gate", 3), true).await.unwrap();
    let gates = list(&mut admin).await;
    assert_eq!(gates.iter().filter(|p| p.name == "gate").count(), 1);
    // What does not fit the model is not kept.
    let mut foreign = variant("gate", 4);
    foreign.model.fingerprint = "0".repeat(64);
    let error = server.profiles.add(foreign, true).await.err().unwrap();
    assert_eq!(error.kind(), headhunt::error::Kind::FailedPrecondition);
    assert_eq!(list(&mut admin).await, gates);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_wrong_request_is_refused_by_field_and_changes_nothing() {
    let directory = directory();
    std::fs::write(directory.path().join("broken.json"), "{").unwrap();
    let later = variant("later", 0).to_text().unwrap();
    let later = later.replacen("\"schema\": 1", "\"schema\": 99", 1);
    std::fs::write(directory.path().join("later.json"), later).unwrap();
    let (server, mut admin) = start(directory.path()).await;
    let before = list(&mut admin).await;
    let foreign = before.iter().find(|p| p.name == "foreign").unwrap();
    assert!(foreign.unusable.contains("fingerprint"), "{foreign:?}");
    assert!(foreign.current && !foreign.version.is_empty());
    let broken = before.iter().find(|p| p.name == "broken").unwrap();
    assert!(broken.unusable.contains("cannot be read"), "{broken:?}");
    let later = before.iter().find(|p| p.name == "later").unwrap();
    assert!(later.unusable.contains("its schema is 99"), "{later:?}");
    // It can be looked at, although not used.
    get(&mut admin, "foreign", "").await.unwrap();

    let known = version("cam", 0);
    let name = Some("name");
    let at = Some("version");
    use Code::{FailedPrecondition, InvalidArgument, NotFound};
    refused(
        get(&mut admin, "", "").await,
        InvalidArgument,
        name,
        "no profile",
    );
    refused(
        get(&mut admin, "nobody", "").await,
        NotFound,
        name,
        "nobody",
    );
    refused(
        get(&mut admin, "../cam", "").await,
        InvalidArgument,
        name,
        "../cam",
    );
    refused(
        get(&mut admin, "cam", &version("cam", 5)).await,
        NotFound,
        at,
        "no version",
    );
    refused(
        get(&mut admin, "cam", "latest").await,
        InvalidArgument,
        at,
        "64",
    );
    refused(
        get(&mut admin, "broken", "").await,
        FailedPrecondition,
        name,
        "broken",
    );
    refused(
        get(&mut admin, "later", "").await,
        FailedPrecondition,
        name,
        "its schema is 99",
    );
    let long = "p".repeat(65);
    refused(
        get(&mut admin, &long, "").await,
        InvalidArgument,
        name,
        "at most 64",
    );

    refused(
        activate(&mut admin, "", "", false).await,
        InvalidArgument,
        name,
        "no profile",
    );
    refused(
        activate(&mut admin, "Cam", "", false).await,
        InvalidArgument,
        name,
        "a-z",
    );
    refused(
        activate(&mut admin, "nobody", "", false).await,
        NotFound,
        name,
        "nobody",
    );
    refused(
        activate(&mut admin, "nobody", &known, false).await,
        NotFound,
        name,
        "nobody",
    );
    refused(
        activate(&mut admin, "cam", &version("cam", 5), false).await,
        NotFound,
        at,
        "no version",
    );
    refused(
        activate(&mut admin, "cam", "0", false).await,
        InvalidArgument,
        at,
        "64",
    );
    refused(
        activate(&mut admin, "foreign", "", false).await,
        FailedPrecondition,
        at,
        "fingerprint",
    );

    refused(
        roll_back(&mut admin, "").await,
        FailedPrecondition,
        None,
        "no activation",
    );
    refused(
        roll_back(&mut admin, "cam").await,
        FailedPrecondition,
        name,
        "no earlier",
    );
    refused(
        roll_back(&mut admin, "nobody").await,
        NotFound,
        name,
        "nobody",
    );

    refused(
        delete(&mut admin, "", &known).await,
        InvalidArgument,
        name,
        "no profile",
    );
    refused(
        delete(&mut admin, "cam", "").await,
        InvalidArgument,
        at,
        "no version",
    );
    refused(
        delete(&mut admin, "cam", &known).await,
        FailedPrecondition,
        at,
        "is current",
    );
    refused(
        delete(&mut admin, "cam", "zz").await,
        InvalidArgument,
        at,
        "64",
    );
    refused(
        delete(&mut admin, "nobody", &known).await,
        NotFound,
        name,
        "nobody",
    );
    assert_eq!(list(&mut admin).await, before);
    server.is_as_it_was().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_at_the_same_time_come_one_after_the_other() {
    let directory = directory();
    let (server, mut admin) = start(directory.path()).await;
    let mut tasks = tokio::task::JoinSet::new();
    for n in 1..6 {
        for name in ["cam", "door"] {
            let profiles = server.profiles.clone();
            tasks.spawn(async move { profiles.add(variant(name, n), true).await.map(drop) });
        }
    }
    while let Some(added) = within("changes", tasks.join_next()).await {
        added.unwrap().unwrap();
    }
    let before = list(&mut admin).await;
    assert_eq!(shape(&before).len(), 12);
    assert_eq!(before.iter().filter(|p| p.active).count(), 1);
    // What is shown is what is served, and what is kept.
    let info = server.info().await;
    let active = before.iter().find(|p| p.active).unwrap();
    assert_eq!(
        (&info.active_profile, &info.active_profile_version),
        (&active.name, &active.version)
    );
    server.stop().await;
    let (server, mut admin) = start(directory.path()).await;
    assert_eq!(list(&mut admin).await, before);
    // Each activation can be undone, down to what was there first.
    for _ in 0..10 {
        roll_back(&mut admin, "").await.unwrap();
    }
    let first = row("cam", 0, true, true);
    assert!(shape(&list(&mut admin).await).contains(&first));
    refused(
        roll_back(&mut admin, "").await,
        Code::FailedPrecondition,
        None,
        "no activation",
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_a_directory_shows_its_profiles_and_changes_none() {
    let server = TestServer::start("").await;
    let mut admin = Admin::new(server.channel().await);
    let profiles = list(&mut admin).await;
    let names: Vec<_> = profiles.iter().map(|p| p.name.as_str()).collect();
    assert_eq!(names, ["cam", "damaged", "live", "long", "other-model"]);
    assert!(profiles[0].active && profiles[0].current && profiles[0].unusable.is_empty());
    assert!(profiles[4].unusable.contains("fingerprint"), "{profiles:?}");
    assert!(
        profiles[1].unusable.contains("cannot be read"),
        "{profiles:?}"
    );
    let cam = get(&mut admin, "cam", "").await.unwrap().version;
    for answer in [
        activate(&mut admin, "cam", "", false).await.map(drop),
        roll_back(&mut admin, "").await.map(drop),
        delete(&mut admin, "cam", &cam).await,
    ] {
        refused(answer, Code::FailedPrecondition, None, "profiles.dir");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_server_of_a_directory_serves_and_writes_nothing() {
    let directory = directory();
    let (first, mut admin) = start(directory.path()).await;
    let (second, mut other) = start(directory.path()).await;
    second.is_as_it_was().await;
    refused(
        activate(&mut other, "door", "", false).await,
        Code::FailedPrecondition,
        None,
        "profiles.dir",
    );
    activate(&mut admin, "door", "", false).await.unwrap();
    assert_eq!(second.info().await.active_profile, "cam", "as it began");
    // The first one is gone: the second goes on from what it left.
    first.stop().await;
    common::eventually("the second server takes over", || {
        let mut other = other.clone();
        async move { activate(&mut other, "cam", "", true).await.is_ok() }
    })
    .await;
    assert_eq!(second.info().await.active_profile, "door");
    second.stop().await;
}

fn opening(change: impl FnOnce(&mut proto::Open)) -> proto::DetectRequest {
    let mut first = open("");
    if let Some(Ask::Open(open)) = &mut first.message {
        change(open);
    }
    first
}

fn named(name: &str, at: &str) -> proto::DetectRequest {
    opening(|open| {
        open.profile = name.into();
        open.profile_version = at.into();
    })
}

/// p of each segment, bit by bit.
fn p(seen: &Seen) -> Vec<u64> {
    let finals = seen.scores(ScoreStage::Final);
    finals
        .iter()
        .map(|scores| scores.frames[0].probability.to_bits())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn cameras_use_different_profiles_and_versions_at_once() {
    let directory = directory();
    let (server, mut admin) = start(directory.path()).await;
    server.profiles.add(variant("cam", 1), false).await.unwrap();
    activate(&mut admin, "cam", &version("cam", 1), false)
        .await
        .unwrap();
    put(directory.path(), &variant("door", 7)); // seen when the server starts again
    let bytes = video(&[120; N * 6]);
    let mut tasks = Vec::new();
    for (name, at, is) in [
        ("", "", version("cam", 1)),
        ("cam", "", version("cam", 1)),
        ("cam", &*version("cam", 0), version("cam", 0)),
        ("door", "", version("door", 0)),
    ] {
        let (first, bytes) = (named(name, at), bytes.clone());
        let mut client = server.client().await;
        tasks.push(tokio::spawn(async move {
            let seen = detect(&mut client, first, &bytes, 100).await.unwrap();
            seen.check_frames(6 * N as u64);
            assert_eq!(seen.opened().profile_version, is);
            p(&seen)
        }));
    }
    let mut all = Vec::new();
    for task in tasks {
        all.push(within("detection", task).await.unwrap());
    }
    assert_eq!(all[0], all[1]);
    assert_ne!(all[0], all[2]);
    assert_eq!(all[2], all[3], "the same numbers under another name");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_detection_says_of_its_version_is_checked() {
    let directory = directory();
    let (server, _admin) = start(directory.path()).await;
    let mut client = server.client().await;
    let known = version("cam", 0);
    let follows = |name: &str, at: &str| {
        opening(|open| {
            open.profile = name.into();
            open.profile_version = at.into();
            open.follow_profile = true;
        })
    };
    let unknown = "a".repeat(64);
    let upper = "A".repeat(64);
    for (first, code, field, words) in [
        (
            named("", &known),
            Code::InvalidArgument,
            "open.profile_version",
            "without",
        ),
        (
            named("cam", "1"),
            Code::InvalidArgument,
            "open.profile_version",
            "64",
        ),
        (
            named("cam", &upper),
            Code::InvalidArgument,
            "open.profile_version",
            "a-f",
        ),
        (
            named("cam", &unknown),
            Code::NotFound,
            "open.profile_version",
            "no version",
        ),
        (
            named("nobody", &known),
            Code::NotFound,
            "open.profile",
            "nobody",
        ),
        (
            named("foreign", ""),
            Code::FailedPrecondition,
            "open.profile",
            "fingerprint",
        ),
        (
            follows("cam", &known),
            Code::InvalidArgument,
            "open.follow_profile",
            "stays",
        ),
        (
            follows("nobody", ""),
            Code::NotFound,
            "open.profile",
            "nobody",
        ),
    ] {
        refused(
            send_all(&mut client, vec![first]).await.map(|_| ()),
            code,
            Some(field),
            words,
        );
    }
    let watch = |name: &str, at: &str, follow| proto::WatchRequest {
        source: Some(proto::UriSource {
            uri: "rtsp://127.0.0.1:9/x".into(),
            ..Default::default()
        }),
        profile: name.into(),
        profile_version: at.into(),
        follow_profile: follow,
        ..Default::default()
    };
    for (request, code, field) in [
        (
            watch("", &known, false),
            Code::InvalidArgument,
            "profile_version",
        ),
        (
            watch("cam", &known, true),
            Code::InvalidArgument,
            "follow_profile",
        ),
        (
            watch("cam", &unknown, false),
            Code::NotFound,
            "profile_version",
        ),
        (watch("nobody", "", true), Code::NotFound, "profile"),
    ] {
        let mut responses = within("headers", client.watch(request))
            .await
            .unwrap()
            .into_inner();
        let answer = within("status", responses.message()).await;
        refused(answer, code, Some(field), "");
    }
    server.is_as_it_was().await;
    server.stop().await;
}

/// `opened` and what came after, from a call that sends more after a change.
async fn across_a_change(
    server: &TestServer,
    first: proto::DetectRequest,
    change: impl AsyncFnOnce(),
) -> Seen {
    let mut client = server.client().await;
    server.probe.hold();
    let passes = server.probe.entered();
    let mut call = Call::begin(&mut client).await.unwrap();
    call.send(first).await;
    call.send(chunk(&video(&[120; N * 2]))).await;
    let opened = call.next().await.unwrap().unwrap();
    assert!(matches!(opened, Told::Opened(_)));
    common::eventually("a segment is with the model", || async {
        server.probe.entered() > passes
    })
    .await;
    change().await;
    server.probe.let_go();
    call.send(chunk(&[120; N * 8])).await;
    let mut seen = call.finish().await.unwrap();
    seen.messages.insert(0, opened);
    seen
}

fn changes(seen: &Seen) -> Vec<(usize, proto::ProfileChanged)> {
    let change = |(at, message): (usize, &Told)| match message {
        Told::ProfileChanged(changed) => Some((at, changed.clone())),
        _ => None,
    };
    seen.messages
        .iter()
        .enumerate()
        .filter_map(change)
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_detection_keeps_its_version_or_follows() {
    let directory = directory();
    let (server, mut admin) = start(directory.path()).await;
    server.profiles.add(variant("cam", 1), false).await.unwrap();
    server
        .profiles
        .add(variant("door", 1), false)
        .await
        .unwrap();
    let mut client = server.client().await;
    let bytes = video(&[120; N]);
    let mut alone = Vec::new();
    for n in 0..2 {
        let seen = detect(&mut client, named("cam", &version("cam", n)), &bytes, 99);
        alone.push(p(&seen.await.unwrap())[0]);
    }
    assert_ne!(alone[0], alone[1]);

    // It keeps its version.
    let mut second = admin.clone();
    let kept = across_a_change(&server, open(""), async || {
        activate(&mut second, "cam", "", false).await.unwrap();
    })
    .await;
    kept.check_frames(10 * N as u64);
    assert_eq!(p(&kept), [alone[0]; 10]);
    assert!(changes(&kept).is_empty());
    roll_back(&mut admin, "").await.unwrap();

    // It follows the active profile, also to another name; or the profile that it names.
    let follow = |name: &str| {
        opening(|open| {
            open.profile = name.into();
            open.follow_profile = true;
        })
    };
    for (first, to) in [
        (follow(""), "cam"),
        (follow("cam"), "cam"),
        (follow(""), "door"),
    ] {
        let mut second = admin.clone();
        let followed = across_a_change(&server, first, async || {
            activate(&mut second, to, &version(to, 1), false)
                .await
                .unwrap();
        })
        .await;
        followed.check_frames(10 * N as u64);
        assert_eq!(followed.opened().profile_version, version("cam", 0));
        let [(at, changed)] = &changes(&followed)[..] else {
            panic!("one change: {:?}", changes(&followed));
        };
        assert_eq!(
            (changed.profile.as_str(), &changed.profile_version),
            (to, &version(to, 1))
        );
        let finals = |message: &Told| matches!(message, Told::FrameScores(s) if s.stage() == ScoreStage::Final);
        let before = followed.messages[..*at]
            .iter()
            .filter(|m| finals(m))
            .count();
        assert!((1..10).contains(&before), "{before}");
        let p = p(&followed);
        assert!(p[..before].iter().all(|p| *p == alone[0]), "{p:?}");
        assert!(p[before..].iter().all(|p| *p == alone[1]), "{p:?}");
        roll_back(&mut admin, "").await.unwrap();
    }

    // A profile that it does not name is none of its business.
    let mut second = admin.clone();
    let stayed = across_a_change(&server, follow("cam"), async || {
        activate(&mut second, "door", "", false).await.unwrap();
    })
    .await;
    assert!(changes(&stayed).is_empty());
    server.is_as_it_was().await;
    server.stop().await;
}

/// Opens `file://` URIs, as a video that is long enough for a change while it runs.
struct Files;

struct Endless(usize);

impl ChunkSource for Endless {
    fn next_chunk(&mut self, _: Duration) -> Result<ChunkEvent> {
        if self.0 == 0 {
            return Ok(ChunkEvent::End);
        }
        self.0 -= 1;
        std::thread::sleep(Duration::from_millis(2));
        let bytes = match self.0 {
            n if n == LENGTH - 1 => video(&[120; N]),
            _ => vec![120; N],
        };
        Ok(ChunkEvent::Bytes(bytes.into()))
    }
}

/// Segments of it.
const LENGTH: usize = 2000;

impl OpenMedia for Files {
    fn open_upload(
        &self,
        chunks: Box<dyn ChunkSource>,
        cancel: CancellationToken,
    ) -> Result<Box<dyn MediaSource>> {
        RawMedia.open_upload(chunks, cancel)
    }

    fn open_uri(
        &self,
        source: UriSource,
        _: CancellationToken,
        cancel: CancellationToken,
    ) -> Result<Box<dyn MediaSource>> {
        match source {
            UriSource::File { .. } => self.open_upload(Box::new(Endless(LENGTH)), cancel),
            _ => Err(Error::internal("nothing but files here")),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watched_source_follows_too() {
    let directory = directory();
    let root = directory.path().display();
    let toml = format!("[sources]\nschemes = ['file']\nfile_roots = ['{root}']");
    let server = TestServer::in_directory(&toml, Arc::new(Files), directory.path()).await;
    let mut admin = Admin::new(server.channel().await);
    server.profiles.add(variant("cam", 1), false).await.unwrap();
    let request = proto::WatchRequest {
        source: Some(proto::UriSource {
            uri: format!("file://{root}/cam.json"),
            ..Default::default()
        }),
        follow_profile: true,
        ..Default::default()
    };
    let mut client = server.client().await;
    let mut responses = within("headers", client.watch(request))
        .await
        .unwrap()
        .into_inner();
    let mut seen = 0;
    loop {
        let response = within("response", responses.message()).await.unwrap();
        match response.expect("a change before the end").message.unwrap() {
            Watched::Opened(opened) => {
                assert_eq!(opened.profile_version, version("cam", 0));
                activate(&mut admin, "cam", "", false).await.unwrap();
            }
            Watched::ProfileChanged(changed) => {
                assert_eq!(changed.profile_version, version("cam", 1));
                break;
            }
            Watched::FrameScores(_) => seen += 1,
            _ => {}
        }
    }
    assert!(seen < LENGTH, "within the stream");
    drop(responses);
    server.stop().await;
}
