//! The ways of calibrating through the wire: K chosen, videos kept back, heads kept, people's verdicts
//! added, normal footage alone.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test may

mod common;

use std::{path::Path, sync::Arc};

use common::{
    admin::{Admin, SITE_SEGMENTS, options, result, site, start, start_with, upload},
    detect::{detect, open},
    media::{flash, video},
    probe::{BrightnessProbe, Control},
    server::TestServer,
    within,
};
use headhunt::rpc::proto::{
    self, CalibrateRequest, ClipLabel, FeedbackVerdict, HuntOptions, JobState, NormalOnly,
};
use serde_json::Value;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

fn calibration(profile: &str) -> CalibrateRequest {
    CalibrateRequest {
        profile: profile.into(),
        options: Some(options()),
        activate: true,
        ..Default::default()
    }
}

async fn submit(client: &mut Admin, request: CalibrateRequest) -> Result<String, Status> {
    let response = within("Calibrate", client.calibrate(request)).await?;
    Ok(response.into_inner().job_id)
}

async fn calibrated(client: &mut Admin, request: CalibrateRequest) -> Value {
    let job = submit(client, request).await.unwrap();
    result(client, &job).await.0
}

async fn profile(client: &mut Admin, name: &str) -> Value {
    let request = proto::GetProfileRequest {
        name: name.into(),
        ..Default::default()
    };
    let response = client.get_profile(request).await.unwrap().into_inner();
    let json: Value = serde_json::from_str(&response.json).unwrap();
    json["profile"].clone()
}

fn field(status: &Status) -> String {
    let details = status.get_error_details();
    let violations = details.bad_request().map(|b| b.field_violations.clone());
    let first = violations.unwrap_or_default().into_iter().next();
    first.map(|v| v.field).unwrap_or_default()
}

/// The warm-up passes are none of a job.
fn passes(server: &TestServer) -> usize {
    server.probe.passed() - headhunt::limits::WARM_UP_PASSES as usize
}

#[tokio::test(flavor = "multi_thread")]
async fn k_is_chosen_and_videos_are_kept_for_validation() {
    let dir = tempfile::tempdir().unwrap();
    let (server, mut client) = start(dir.path(), "").await;
    site(&mut client).await;
    // Without any one of its clips a fold must still have two samples of each class.
    let levels = [15u8, 250, 245, 240, 20, 35];
    let frames: Vec<u8> = levels.iter().flat_map(|level| [*level; 48]).collect();
    let (label, bytes) = (ClipLabel::Anomaly, video(&frames));
    upload(&mut client, "e", label, &[(48, 192)], &bytes).await;
    let mut request = calibration("yard");
    request.options = Some(HuntOptions {
        top_k: 0,
        auto_top_k: true,
        ..options()
    });
    let made = calibrated(&mut client, request.clone()).await;
    let k = made["heads"].as_array().unwrap().len();
    // The model has 8 heads.
    assert!((1..=8).contains(&k), "{made}");
    request.options = Some(HuntOptions {
        validation_fraction: 0.3,
        ..options()
    });
    let made = calibrated(&mut client, request).await;
    assert_eq!(made["heads"].as_array().unwrap().len(), 2);
    assert_eq!(
        profile(&mut client, "yard").await["notes"]["validation_fraction"],
        0.3
    );
    assert_eq!(
        passes(&server),
        SITE_SEGMENTS + levels.len(),
        "features are kept"
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refit_keeps_the_heads_and_costs_no_pass() {
    let dir = tempfile::tempdir().unwrap();
    let (server, mut client) = start(dir.path(), "").await;
    site(&mut client).await;
    let refit = CalibrateRequest {
        keep_heads: true,
        ..calibration("yard")
    };
    let status = submit(&mut client, refit.clone()).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound, "{status:?}");
    assert_eq!(field(&status), "profile");

    calibrated(&mut client, calibration("yard")).await;
    let first = profile(&mut client, "yard").await;
    assert_eq!(passes(&server), SITE_SEGMENTS);
    let made = calibrated(&mut client, refit.clone()).await;
    assert_eq!(passes(&server), SITE_SEGMENTS);
    let second = profile(&mut client, "yard").await;
    // The same samples and the same C: the same scorer and locator.
    for key in ["heads", "scorer", "locator", "segment", "scoring_prompts"] {
        assert_eq!(first[key], second[key], "{key}");
    }
    assert_eq!(made["samples"], SITE_SEGMENTS);
    // With another C another scorer, of the same heads.
    let other = CalibrateRequest {
        options: Some(HuntOptions {
            c: Some(0.1),
            top_k: 5,
            ..options()
        }),
        ..refit
    };
    calibrated(&mut client, other).await;
    let third = profile(&mut client, "yard").await;
    assert_eq!(first["heads"], third["heads"]);
    assert_ne!(first["scorer"], third["scorer"]);
    server.stop().await;
}

async fn with_feedback(dir: &Path) -> (TestServer, Admin) {
    let feedback = dir.join("feedback");
    std::fs::create_dir_all(&feedback).unwrap();
    let toml = format!("feedback.dir = '{}'", feedback.display());
    start(dir, &toml).await
}

#[tokio::test(flavor = "multi_thread")]
async fn verdicts_enter_a_refit_without_a_pass_and_never_another_hunts() {
    let dir = tempfile::tempdir().unwrap();
    let (server, mut client) = with_feedback(dir.path()).await;
    site(&mut client).await;
    calibrated(&mut client, calibration("yard")).await;
    let before = profile(&mut client, "yard").await;

    // A bright truck is called an event, and people say it is none.
    let mut detection = server.client().await;
    let seen = detect(&mut detection, open(""), &flash(3, 2, 0), 64)
        .await
        .unwrap();
    let event = seen.ended_events()[0].event.clone().unwrap();
    let report = proto::ReportFeedbackRequest {
        session_id: seen.opened().session_id.clone(),
        event_id: event.id,
        verdict: FeedbackVerdict::FalseAlarm.into(),
        ..Default::default()
    };
    let stored = detection
        .report_feedback(report)
        .await
        .unwrap()
        .into_inner();
    assert!(stored.segments_stored >= 2 && stored.segments_missing == 0);
    let passed = passes(&server);

    let request = CalibrateRequest {
        keep_heads: true,
        include_feedback: true,
        ..calibration("yard")
    };
    let made = calibrated(&mut client, request.clone()).await;
    assert_eq!(passes(&server), passed, "a refit costs no pass");
    assert_eq!(made["feedback_samples"], stored.segments_stored);
    assert_eq!(made["feedback_unusable"], 0);
    let n = SITE_SEGMENTS + stored.segments_stored as usize;
    assert_eq!(made["samples"], n);
    let after = profile(&mut client, "yard").await;
    assert_eq!(before["heads"], after["heads"]);
    assert_ne!(before["scorer"], after["scorer"]);
    // The truck scores lower than it did.
    let again = detect(&mut detection, open(""), &flash(3, 2, 0), 64)
        .await
        .unwrap();
    let peak = |seen: &common::detect::Seen| {
        let finals = seen.scores(proto::ScoreStage::Final);
        let p = finals.iter().map(|scores| scores.frames[0].probability);
        p.fold(0.0, f64::max)
    };
    assert!(
        peak(&again) < peak(&seen),
        "{} {}",
        peak(&again),
        peak(&seen)
    );

    // Other heads: what was stored belongs to the old ones.
    let mut other = calibration("yard");
    other.options = Some(HuntOptions {
        top_k: 3,
        ..options()
    });
    calibrated(&mut client, other).await;
    let made = calibrated(&mut client, request).await;
    assert_eq!(made["feedback_samples"], 0);
    assert_eq!(made["feedback_unusable"], stored.segments_stored);
    assert_eq!(made["samples"], SITE_SEGMENTS);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn feedback_is_refused_where_it_cannot_be_used() {
    let dir = tempfile::tempdir().unwrap();
    let (server, mut client) = start(dir.path(), "").await;
    site(&mut client).await;
    let request = CalibrateRequest {
        include_feedback: true,
        ..calibration("yard")
    };
    let status = submit(&mut client, request.clone()).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    assert_eq!(field(&status), "include_feedback");
    calibrated(&mut client, calibration("yard")).await;
    let request = CalibrateRequest {
        keep_heads: true,
        ..request
    };
    let status = submit(&mut client, request).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
    assert!(status.message().contains("feedback.dir"), "{status:?}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_fills_half_of_no_segment_is_told_by_its_clip() {
    let dir = tempfile::tempdir().unwrap();
    let (server, mut client) = start(dir.path(), "").await;
    site(&mut client).await;
    let told = |made: &Value| made["warnings"].to_string().contains("half of no segment");
    let made = calibrated(&mut client, calibration("yard")).await;
    assert!(!told(&made), "{made}");
    let bytes = video(&[25; 96]);
    upload(
        &mut client,
        "blink",
        ClipLabel::Anomaly,
        &[(40, 56)],
        &bytes,
    )
    .await;
    let made = calibrated(&mut client, calibration("yard")).await;
    assert!(told(&made), "{made}");
    assert!(made["warnings"].to_string().contains("blink"), "{made}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn normal_footage_alone_makes_a_profile_that_finds_what_is_not_normal() {
    let dir = tempfile::tempdir().unwrap();
    let probe = Arc::new(Control::default());
    let model = BrightnessProbe::whole(probe.clone());
    let (server, mut client) = start_with(dir.path(), "", probe, model, "").await;
    // Four quiet cameras of ten segments each.
    for clip in 0..4u8 {
        let levels: Vec<u8> = (0..10u8).map(|n| 20 + (n * 7 + clip * 3) % 25).collect();
        let frames: Vec<u8> = levels.iter().flat_map(|level| [*level; 48]).collect();
        upload(
            &mut client,
            &format!("quiet {clip}"),
            ClipLabel::Normal,
            &[],
            &video(&frames),
        )
        .await;
    }
    let mut request = calibration("quiet");
    let status = submit(&mut client, request.clone()).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("normal_only"), "{status:?}");

    request.normal_only = Some(NormalOnly {
        false_alarms_per_day: 1.0,
        accept_upper_bound: false,
    });
    let job = submit(&mut client, request.clone()).await.unwrap();
    let end = common::admin::ended(&mut client, &job).await;
    assert_eq!(end.state(), JobState::Failed);
    assert!(end.error.contains("footage"), "{}", end.error);
    assert_eq!(passes(&server), 0, "that could be told without a pass");

    request.normal_only = Some(NormalOnly {
        false_alarms_per_day: 1.0,
        accept_upper_bound: true,
    });
    let made = calibrated(&mut client, request).await;
    assert_eq!(made["normal_only"], true);
    assert_eq!(made["anomalous_samples"], 0);
    let stored = profile(&mut client, "quiet").await;
    assert_eq!(stored["schema"], 2);
    let mut detection = server.client().await;
    let seen = detect(&mut detection, open("quiet"), &flash(4, 3, 0), 64)
        .await
        .unwrap();
    let finals = seen.scores(proto::ScoreStage::Final);
    let p = |n: usize| finals[n].frames[0].probability;
    assert!(p(5) > 0.99 && p(5) > p(0), "{} {}", p(5), p(0));
    server.stop().await;
}
