//! Jobs through the wire: their results against the pipeline's on the same data, progress,
//! cancelling, restarts that repeat no pass, and everything that is refused.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test may

mod common;

use std::{fs, path::Path, sync::Arc};

use common::{
    admin::{
        Admin, SITE_SEGMENTS, ended, hunt, options, result, site, start, start_with, told, upload,
        wire,
    },
    eventually,
    media::video,
    probe::{BrightnessProbe, Control, HEADS},
    server::TestServer,
    within,
};
use headhunt::rpc::proto::{
    self, ClipLabel, JobKind, JobState, detection_service_client::DetectionServiceClient,
};
use serde_json::Value;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// Passes before any job: the warm-up.
const WARM_UP: usize = headhunt::limits::WARM_UP_PASSES as usize;

fn passes(server: &TestServer) -> usize {
    server.probe.passed() - WARM_UP
}

fn refused(status: &Status, code: Code, field: &str) {
    assert_eq!(status.code(), code, "{status:?}");
    let details = status.get_error_details();
    let violation = &details.bad_request().unwrap().field_violations[0];
    assert_eq!(violation.field, field, "{status:?}");
}

fn calibration(profile: &str) -> proto::CalibrateRequest {
    proto::CalibrateRequest {
        profile: profile.into(),
        options: Some(options()),
        activate: true,
        ..Default::default()
    }
}

async fn calibrate(client: &mut Admin, request: proto::CalibrateRequest) -> String {
    client.calibrate(request).await.unwrap().into_inner().job_id
}

async fn report(client: &mut Admin, job_id: &str, format: proto::ReportFormat) -> Vec<u8> {
    let request = proto::GetReportRequest {
        job_id: job_id.into(),
        format: format.into(),
    };
    let mut stream = client.get_report(request).await.unwrap().into_inner();
    let mut bytes = Vec::new();
    while let Some(response) = within("report", stream.message()).await.unwrap() {
        assert!(response.chunk.len() <= 1 << 20);
        bytes.extend(response.chunk);
    }
    bytes
}

fn kept_files(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir.join("admin/features"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn from_clips_to_a_profile_that_detects_without_a_shell_on_the_server() {
    let dir = tempfile::tempdir().unwrap();
    let (server, mut client) = start(dir.path(), "").await;
    // No profile yet: the server runs, detection says what is missing.
    let mut detection = server.client().await;
    let flash = common::media::flash(2, 2, 7);
    let status = common::detect::detect(&mut detection, common::detect::open(""), &flash, 100)
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
    assert!(status.message().contains("no profile is active"));
    assert_eq!(server.info().await.active_profile, "");

    let ids = site(&mut client).await;
    let job = hunt(&mut client, options()).await.unwrap();
    let (found, end) = result(&mut client, &job).await;
    let heads: Vec<[usize; 2]> = serde_json::from_value(found["heads"].clone()).unwrap();
    let mut wanted = HEADS.map(<[usize; 2]>::from);
    wanted.sort();
    let mut sorted = heads.clone();
    sorted.sort();
    assert_eq!(sorted, wanted, "the heads that tell brightness");
    assert_eq!(found["rss"].as_array().unwrap().len(), 4);
    assert_eq!(end.samples_reused, 0);
    assert_eq!(passes(&server), SITE_SEGMENTS);
    assert_eq!(kept_files(dir.path()).len(), 4);

    // Again, with other labels and other options: no pass.
    client
        .relabel_clip(proto::RelabelClipRequest {
            id: ids[1].clone(),
            label: ClipLabel::Anomaly.into(),
            anomalous: wire(&[(48, 97)]),
        })
        .await
        .unwrap();
    let job = calibrate(&mut client, calibration("yard")).await;
    let (made, end) = result(&mut client, &job).await;
    assert_eq!(passes(&server), SITE_SEGMENTS);
    assert_eq!(end.samples_reused as usize, SITE_SEGMENTS);
    assert_eq!(made["profile"], "yard");
    assert_eq!(made["samples"], SITE_SEGMENTS);
    assert_eq!(made["anomalous_samples"], 3);
    let info = server.info().await;
    assert_eq!(info.active_profile, "yard");
    assert_eq!(made["version"], info.active_profile_version.as_str());
    let clip = client
        .get_clip(proto::GetClipRequest { id: ids[0].clone() })
        .await
        .unwrap()
        .into_inner()
        .clip
        .unwrap();
    assert_eq!((clip.frames, clip.kept_features), (240, 1));

    let seen = common::detect::detect(&mut detection, common::detect::open(""), &flash, 100)
        .await
        .unwrap();
    assert_eq!(seen.opened().profile, "yard");
    assert_eq!(seen.ended_events().len(), 1);

    // Evaluation scores with the profile: the features are there.
    let before = server.probe.passed();
    let request = proto::EvaluateRequest::default();
    let job = client.evaluate(request).await.unwrap().into_inner().job_id;
    let (figures, end) = result(&mut client, &job).await;
    assert_eq!(server.probe.passed(), before);
    assert_eq!(end.samples_reused as usize, SITE_SEGMENTS);
    assert_eq!(figures["frames"], 48 * SITE_SEGMENTS);
    assert_eq!(figures["positives"], 96 + 49);
    assert_eq!(figures["profile"], "yard");
    assert!(figures["roc_auc"].as_f64().unwrap() > 0.9, "{figures}");

    let jobs = client
        .list_jobs(proto::ListJobsRequest {})
        .await
        .unwrap()
        .into_inner()
        .jobs;
    let kinds: Vec<JobKind> = jobs.iter().map(|job| job.kind()).collect();
    assert_eq!(
        kinds,
        [JobKind::Evaluate, JobKind::Calibrate, JobKind::HuntHeads]
    );
    assert!(jobs.iter().all(|job| job.ended_at.is_some()));
    assert_eq!(jobs[1].profile, "yard");
    for job in &jobs {
        let page = report(&mut client, &job.id, proto::ReportFormat::Unspecified).await;
        let page = String::from_utf8(page).unwrap();
        assert!(page.starts_with("<!doctype html>") && !page.contains("<script"));
        let numbers = report(&mut client, &job.id, proto::ReportFormat::Json).await;
        serde_json::from_slice::<Value>(&numbers).unwrap();
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_goes_on_without_repeating_a_pass() {
    let dir = tempfile::tempdir().unwrap();
    let (server, mut client) = start(dir.path(), "").await;
    site(&mut client).await;
    // The model stops in the middle of the second clip; the seventh pass never ends.
    server.probe.hold_after(6);
    let job = hunt(&mut client, options()).await.unwrap();
    let second = calibrate(&mut client, calibration("yard")).await;
    eventually("the seventh pass", || async {
        server.probe.entered() == WARM_UP + 7
    })
    .await;
    eventually("six samples on disk", || async {
        kept_files(dir.path()).len() == 3 // a whole set; a part and its journal
    })
    .await;
    let request = proto::FollowJobRequest {
        job_id: job.clone(),
    };
    let mut follower = client.follow_job(request).await.unwrap().into_inner();
    let first = within("state", follower.message()).await.unwrap().unwrap();
    assert_eq!(first.progress.unwrap().state(), JobState::Running);
    server.shutdown.cancel();
    let status = loop {
        match within("end", follower.message()).await {
            Ok(message) => assert!(message.is_some(), "the job did not end"),
            Err(status) => break status,
        }
    };
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    drop((client, follower));
    assert_eq!(passes(&server), 6);
    server.stop().await;

    let (server, mut client) = start(dir.path(), "").await;
    let (found, end) = result(&mut client, &job).await;
    assert_eq!(passes(&server), SITE_SEGMENTS - 6);
    assert_eq!(end.samples_reused, 6);
    let (_, end) = result(&mut client, &second).await;
    assert_eq!(end.samples_reused as usize, SITE_SEGMENTS);
    server.stop().await;

    // The same as without any interruption.
    let fresh = tempfile::tempdir().unwrap();
    let (server, mut client) = start(fresh.path(), "").await;
    site(&mut client).await;
    let job = hunt(&mut client, options()).await.unwrap();
    assert_eq!(result(&mut client, &job).await.0, found);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_done_is_not_done_again_where_the_disk_refused_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let (server, mut client) = start(dir.path(), "").await;
    site(&mut client).await;
    let first = calibrate(&mut client, calibration("yard")).await;
    result(&mut client, &first).await;
    let second = calibrate(&mut client, calibration("gate")).await;
    let (after, _) = result(&mut client, &second).await;
    assert_eq!(server.info().await.active_profile, "gate");
    client
        .roll_back_profile(proto::RollBackProfileRequest::default())
        .await
        .unwrap();
    drop(client);
    server.stop().await;
    let path = dir.path().join(format!("admin/jobs/{second}.json"));
    let mut record: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    assert_eq!(record["state"], "succeeded");
    record["state"] = "running".into();
    record["ended_unix_ns"] = Value::Null;
    fs::write(&path, record.to_string()).unwrap();

    let (server, mut client) = start(dir.path(), "").await;
    let (again, _) = result(&mut client, &second).await;
    assert_eq!(again, after);
    let active = server.info().await.active_profile;
    assert_eq!(active, "yard", "what was rolled back is active again");
    let record: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    assert_eq!(record["state"], "succeeded");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_features_are_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let (server, mut client) = start(dir.path(), "").await;
    site(&mut client).await;
    let job = hunt(&mut client, options()).await.unwrap();
    let (found, _) = result(&mut client, &job).await;
    server.stop().await;
    for (number, name) in kept_files(dir.path()).into_iter().enumerate() {
        let path = dir.path().join("admin/features").join(name);
        let mut bytes = fs::read(&path).unwrap();
        assert!(safetensors::SafeTensors::deserialize(&bytes).is_ok());
        let last = bytes.len() - 1;
        match number {
            0 => bytes[last - 200] ^= 1, // a digest or a number
            1 => bytes.truncate(last),
            2 => bytes[20] = b'{', // the head
            _ => continue,
        }
        fs::write(&path, bytes).unwrap();
    }
    let (server, mut client) = start(dir.path(), "").await;
    let job = hunt(&mut client, options()).await.unwrap();
    let (again, end) = result(&mut client, &job).await;
    assert_eq!(again, found);
    assert!((3..=5).contains(&end.samples_reused), "one clip's: {end:?}");
    assert_eq!(passes(&server) + end.samples_reused as usize, SITE_SEGMENTS);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_model_uses_no_kept_features_and_ends_the_jobs_of_the_one_before() {
    let dir = tempfile::tempdir().unwrap();
    let (server, mut client) = start(dir.path(), "").await;
    site(&mut client).await;
    server.probe.hold_after(2);
    let job = hunt(&mut client, options()).await.unwrap();
    eventually("the third pass", || async {
        server.probe.entered() == WARM_UP + 3
    })
    .await;
    drop(client);
    server.stop().await;

    let probe = Arc::new(Control::default());
    let model = BrightnessProbe::other(probe.clone());
    let (server, mut client) = start_with(dir.path(), "", probe, model, "").await;
    let end = ended(&mut client, &job).await;
    assert_eq!(end.state(), JobState::Failed);
    assert!(end.error.contains("another model"), "{end:?}");
    let job = hunt(&mut client, options()).await.unwrap();
    let (_, end) = result(&mut client, &job).await;
    assert_eq!((end.samples_reused, passes(&server)), (0, SITE_SEGMENTS));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_are_cancelled_within_a_pass_and_followed_by_many() {
    let dir = tempfile::tempdir().unwrap();
    let (server, mut client) = start(dir.path(), "").await;
    site(&mut client).await;
    server.probe.hold_after(3);
    let job = hunt(&mut client, options()).await.unwrap();
    let waiting = calibrate(&mut client, calibration("yard")).await;
    eventually("a pass that does not end", || async {
        server.probe.entered() == WARM_UP + 4
    })
    .await;

    // One writer per profile.
    let status = client.calibrate(calibration("yard")).await.unwrap_err();
    refused(&status, Code::Aborted, "profile");
    assert!(status.message().contains(&waiting), "{status:?}");

    let followers: Vec<_> = (0..3)
        .map(|_| {
            let (mut client, job) = (client.clone(), job.clone());
            tokio::spawn(async move { told(&mut client, &job).await })
        })
        .collect();
    let mut stream = client
        .follow_job(proto::FollowJobRequest {
            job_id: job.clone(),
        })
        .await
        .unwrap()
        .into_inner();
    let first = within("state", stream.message()).await.unwrap().unwrap();
    let first = first.progress.unwrap();
    assert_eq!(first.state(), JobState::Running);
    assert_eq!((first.stage.as_str(), first.done), ("extract", 3));
    drop(stream);

    let cancel = |id: &str| proto::CancelJobRequest { job_id: id.into() };
    let progress = client.cancel_job(cancel(&waiting)).await.unwrap();
    let progress = progress.into_inner().progress.unwrap();
    assert_eq!(progress.state(), JobState::Cancelled, "it had not begun");
    client.cancel_job(cancel(&job)).await.unwrap();
    // The model is still held: its pass is not waited for.
    for follower in followers {
        let told = within("follower", follower).await.unwrap();
        assert_eq!(told.last().unwrap().state(), JobState::Cancelled);
    }
    server.probe.let_go();
    // An ended job stays as it is, and its name is free.
    let again = client.cancel_job(cancel(&job)).await.unwrap().into_inner();
    assert_eq!(again.progress.unwrap().state(), JobState::Cancelled);
    let job = calibrate(&mut client, calibration("yard")).await;
    let (_, end) = result(&mut client, &job).await;
    assert_eq!(end.samples_reused, 3, "what was finished is kept");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_clip_stays_for_the_job_that_reads_it() {
    let dir = tempfile::tempdir().unwrap();
    let (server, mut client) = start(dir.path(), "").await;
    let ids = site(&mut client).await;
    server.probe.hold_after(1);
    let job = hunt(&mut client, options()).await.unwrap();
    eventually("the second pass", || async {
        server.probe.entered() == WARM_UP + 2
    })
    .await;
    let id = ids[3].clone();
    client
        .delete_clip(proto::DeleteClipRequest { id: id.clone() })
        .await
        .unwrap();
    let status = client
        .get_clip(proto::GetClipRequest { id: id.clone() })
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    let path = dir.path().join("admin/clips").join(&id);
    assert!(path.exists());
    server.probe.let_go();
    result(&mut client, &job).await;
    assert_eq!(passes(&server), SITE_SEGMENTS);
    assert!(!path.exists(), "gone when the job ends");
    assert!(!kept_files(dir.path()).iter().any(|f| f.starts_with(&id)));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_clip_fails_the_job_and_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let (server, mut client) = start(dir.path(), "").await;
    site(&mut client).await;
    let id = upload(&mut client, "broken", ClipLabel::Normal, &[], b"no video").await;
    let job = hunt(&mut client, options()).await.unwrap();
    let end = ended(&mut client, &job).await;
    assert_eq!(end.state(), JobState::Failed);
    assert!(
        end.error.contains("broken") && end.error.contains(&id),
        "{end:?}"
    );
    assert!(!end.error.contains(dir.path().to_str().unwrap()));
    let request = proto::GetReportRequest {
        job_id: job,
        format: 0,
    };
    let status = client.get_report(request).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_done_is_refused_before_any_pass() {
    let dir = tempfile::tempdir().unwrap();
    let (server, mut client) = start(dir.path(), "").await;
    let status = hunt(&mut client, options()).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "no clips");
    let normal = upload(&mut client, "n", ClipLabel::Normal, &[], &video(&[9; 50])).await;
    let status = hunt(&mut client, options()).await.unwrap_err();
    refused(&status, Code::InvalidArgument, "clip_ids");
    let whole = upload(
        &mut client,
        "w",
        ClipLabel::Anomaly,
        &[],
        &video(&[250; 50]),
    )
    .await;
    let status = hunt(&mut client, options()).await.unwrap_err();
    refused(&status, Code::InvalidArgument, "clip_ids");
    assert!(status.message().contains("at least 2"), "{status:?}");
    site(&mut client).await;

    let edit = |change: fn(&mut proto::HuntOptions)| {
        let mut options = options();
        change(&mut options);
        options
    };
    for (options, code, field) in [
        (
            edit(|o| o.top_k = 9),
            Code::InvalidArgument,
            "options.top_k",
        ),
        (
            edit(|o| o.lambda = Some(f64::NAN)),
            Code::InvalidArgument,
            "options.lambda",
        ),
        (
            edit(|o| o.c = Some(0.0)),
            Code::InvalidArgument,
            "options.c",
        ),
        (
            edit(|o| o.prompts.push(String::new())),
            Code::InvalidArgument,
            "options.prompts[2]",
        ),
        (
            edit(|o| {
                o.segment = Some(proto::SegmentRule {
                    rule: Some(proto::segment_rule::Rule::Seconds(0.0)),
                });
            }),
            Code::InvalidArgument,
            "options.segment.seconds",
        ),
        (
            edit(|o| o.validation_fraction = 0.95),
            Code::InvalidArgument,
            "options.validation_fraction",
        ),
    ] {
        let status = hunt(&mut client, options).await.unwrap_err();
        refused(&status, code, field);
    }
    let mut ids = async |clip_ids: Vec<String>| {
        let request = proto::HuntHeadsRequest {
            clip_ids,
            options: None,
        };
        client.hunt_heads(request).await.unwrap_err()
    };
    let status = ids(vec![normal.clone(), "00".repeat(32)]).await;
    refused(&status, Code::NotFound, "clip_ids[1]");
    let status = ids(vec![normal.clone(), normal.clone()]).await;
    refused(&status, Code::InvalidArgument, "clip_ids[1]");

    let status = client.calibrate(calibration("Not A Name")).await;
    refused(&status.unwrap_err(), Code::InvalidArgument, "profile");
    let status = client
        .calibrate(proto::CalibrateRequest {
            include_feedback: true,
            ..calibration("yard")
        })
        .await;
    refused(
        &status.unwrap_err(),
        Code::InvalidArgument,
        "include_feedback",
    );
    let evaluate = |profile: &str, clip_ids: Vec<String>| proto::EvaluateRequest {
        profile: profile.into(),
        clip_ids,
        ..Default::default()
    };
    let status = client.evaluate(evaluate("", vec![])).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "none is active");
    let status = client.evaluate(evaluate("none", vec![])).await.unwrap_err();
    refused(&status, Code::NotFound, "profile");
    let job = calibrate(&mut client, calibration("yard")).await;
    result(&mut client, &job).await;
    let status = client
        .evaluate(evaluate("yard", vec![whole]))
        .await
        .unwrap_err();
    refused(&status, Code::InvalidArgument, "clip_ids[0]");
    let status = client
        .evaluate(evaluate("yard", vec![normal]))
        .await
        .unwrap_err();
    refused(&status, Code::InvalidArgument, "clip_ids");

    let unknown = "00".repeat(16);
    for status in [
        client
            .follow_job(proto::FollowJobRequest {
                job_id: unknown.clone(),
            })
            .await
            .unwrap_err(),
        client
            .cancel_job(proto::CancelJobRequest {
                job_id: unknown.clone(),
            })
            .await
            .unwrap_err(),
        client
            .get_report(proto::GetReportRequest {
                job_id: unknown,
                format: 0,
            })
            .await
            .unwrap_err(),
    ] {
        refused(&status, Code::NotFound, "job_id");
    }
    let request = proto::GetReportRequest {
        job_id: job,
        format: 7,
    };
    refused(
        &client.get_report(request).await.unwrap_err(),
        Code::InvalidArgument,
        "format",
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn too_few_segments_of_a_class_end_a_job_before_any_pass() {
    let dir = tempfile::tempdir().unwrap();
    let (server, mut client) = start(dir.path(), "").await;
    // Four segments that are anomalous, and one that is not.
    let all = upload(
        &mut client,
        "a",
        ClipLabel::Anomaly,
        &[(0, 96)],
        &video(&[9; 96]),
    )
    .await;
    let most = video(&[8; 144]);
    upload(&mut client, "b", ClipLabel::Anomaly, &[(0, 96)], &most).await;
    let job = hunt(&mut client, options()).await.unwrap();
    let end = ended(&mut client, &job).await;
    assert_eq!(end.state(), JobState::Failed);
    assert!(
        end.error
            .contains("2 normal samples, and all clips together give 1"),
        "{end:?}"
    );
    assert_eq!(passes(&server), 0);
    // Labels that give two of each suffice, however few the clips.
    let request = proto::DeleteClipRequest { id: all };
    client.delete_clip(request).await.unwrap();
    let half = video(&[7; 96]);
    upload(&mut client, "c", ClipLabel::Anomaly, &[(0, 48)], &half).await;
    let job = hunt(&mut client, options()).await.unwrap();
    let end = ended(&mut client, &job).await;
    assert_eq!(end.state(), JobState::Succeeded, "{end:?}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ended_jobs_are_kept_up_to_a_number_and_waiting_ones_are_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let (server, mut client) = start(dir.path(), "admin.jobs_kept = 2").await;
    site(&mut client).await;
    let mut jobs = Vec::new();
    for _ in 0..3 {
        let job = hunt(&mut client, options()).await.unwrap();
        result(&mut client, &job).await;
        jobs.push(job);
    }
    let listed = client
        .list_jobs(proto::ListJobsRequest {})
        .await
        .unwrap()
        .into_inner();
    let listed: Vec<String> = listed.jobs.into_iter().map(|job| job.id).collect();
    assert_eq!(listed, [jobs[2].clone(), jobs[1].clone()]);
    let left = fs::read_dir(dir.path().join("admin/jobs")).unwrap().count();
    assert_eq!(left, 2 * 4, "record, result and two reports each");

    server.probe.hold();
    let mut more = options();
    more.prompts.push("And now?".into());
    hunt(&mut client, more.clone()).await.unwrap();
    eventually("a job that runs", || async {
        server.probe.entered() > WARM_UP + SITE_SEGMENTS
    })
    .await;
    for _ in 0..headhunt::limits::JOBS_WAITING_MAX {
        hunt(&mut client, more.clone()).await.unwrap();
    }
    let status = hunt(&mut client, more).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn features_make_room_for_clips_and_a_full_quota_ends_a_job() {
    let dir = tempfile::tempdir().unwrap();
    let (server, mut client) = start(dir.path(), "admin.quota_bytes = 30000").await;
    site(&mut client).await;
    let job = hunt(&mut client, options()).await.unwrap();
    result(&mut client, &job).await;
    let stored = |response: proto::ListClipsResponse| response.stored_bytes;
    let list = proto::ListClipsRequest::default;
    let before = stored(client.list_clips(list()).await.unwrap().into_inner());
    assert!(before > 6000, "{before}");
    // More than is left: the features go, the clips stay.
    upload(
        &mut client,
        "long",
        ClipLabel::Normal,
        &[],
        &video(&vec![5; 28_000]),
    )
    .await;
    let after = stored(client.list_clips(list()).await.unwrap().into_inner());
    assert!(after <= 30_000, "{after}");
    assert!(kept_files(dir.path()).len() < 4);
    // 584 segments of 256 bytes do not fit.
    let job = hunt(&mut client, options()).await.unwrap();
    let end = ended(&mut client, &job).await;
    assert_eq!(end.state(), JobState::Failed);
    assert!(end.error.contains("admin.quota_bytes"), "{end:?}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_with_some_layers_alone_takes_no_jobs_and_two_servers_share_no_directory() {
    let dir = tempfile::tempdir().unwrap();
    let probe = Arc::new(Control::default());
    let model = BrightnessProbe::new(probe.clone());
    let (server, mut client) = start_with(dir.path(), "", probe, model, "cam").await;
    let status = hunt(&mut client, options()).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("3 of 4 layers"), "{status:?}");
    let limits = headhunt::library::LibraryLimits {
        quota_bytes: 1,
        clip_max_bytes: 1,
        import_roots: vec![],
    };
    let error = headhunt::library::Library::open(dir.path().join("admin"), limits).unwrap_err();
    assert_eq!(error.kind(), headhunt::error::Kind::FailedPrecondition);
    // Detection is as before.
    let mut client = DetectionServiceClient::new(server.channel().await);
    let flash = common::media::flash(1, 1, 0);
    common::detect::detect(&mut client, common::detect::open(""), &flash, 100)
        .await
        .unwrap();
    server.stop().await;
}
