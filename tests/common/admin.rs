//! A client of AdminService, and a server that keeps clips and runs jobs.

use std::{path::Path, sync::Arc};

use headhunt::rpc::proto::{
    self, ClipLabel, JobProgress, JobState, UploadClipRequest,
    admin_service_client::AdminServiceClient, upload_clip_request::Message,
};
use tonic::{Status, transport::Channel};

use super::{
    media::{RawMedia, flash, video},
    probe::{BrightnessProbe, Control},
    server::TestServer,
    within,
};

pub type Admin = AdminServiceClient<Channel>;

/// A server on this directory, without any profile, and its client.
pub async fn start(dir: &Path, toml: &str) -> (TestServer, Admin) {
    let probe = Arc::new(Control::default());
    let model = BrightnessProbe::whole(probe.clone());
    start_with(dir, toml, probe, model, "").await
}

pub async fn start_with(
    dir: &Path,
    toml: &str,
    probe: Arc<Control>,
    model: BrightnessProbe,
    active: &str,
) -> (TestServer, Admin) {
    let profiles = dir.join("profiles");
    std::fs::create_dir_all(&profiles).unwrap();
    let toml = format!(
        "profiles.dir = '{}'\nadmin.dir = '{}'\n{toml}",
        profiles.display(),
        dir.join("admin").display()
    );
    let server = TestServer::with_model(&toml, Arc::new(RawMedia), probe, model, active).await;
    let client = AdminServiceClient::new(server.channel().await);
    (server, client)
}

pub fn open(name: &str, label: ClipLabel, intervals: &[(u64, u64)]) -> UploadClipRequest {
    UploadClipRequest {
        message: Some(Message::Open(proto::upload_clip_request::Open {
            name: name.into(),
            label: label.into(),
            anomalous: wire(intervals),
        })),
    }
}

pub fn wire(intervals: &[(u64, u64)]) -> Vec<proto::FrameInterval> {
    intervals
        .iter()
        .map(|&(first_frame, end_frame)| proto::FrameInterval {
            first_frame,
            end_frame,
        })
        .collect()
}

pub fn chunk(bytes: &[u8]) -> UploadClipRequest {
    UploadClipRequest {
        message: Some(Message::Chunk(bytes.to_vec().into())),
    }
}

pub async fn send(
    client: &mut Admin,
    requests: Vec<UploadClipRequest>,
) -> Result<proto::UploadClipResponse, Status> {
    let call = client.upload_clip(tokio_stream::iter(requests));
    Ok(within("upload", call).await?.into_inner())
}

/// Uploads in chunks of 64 bytes; gives the clip's id.
pub async fn upload(
    client: &mut Admin,
    name: &str,
    label: ClipLabel,
    intervals: &[(u64, u64)],
    bytes: &[u8],
) -> String {
    let requests = std::iter::once(open(name, label, intervals))
        .chain(bytes.chunks(64).map(chunk))
        .collect();
    let stored = send(client, requests).await.unwrap();
    assert!(!stored.already_stored);
    stored.clip.unwrap().id
}

/// Four clips that can be told apart by their brightness: 5 + 4 + 3 + 3 segments, 2 + 1 anomalous.
pub async fn site(client: &mut Admin) -> Vec<String> {
    let shades = |levels: &[u8]| -> Vec<u8> {
        let frames: Vec<u8> = levels.iter().flat_map(|level| [*level; 48]).collect();
        video(&frames)
    };
    vec![
        upload(
            client,
            "a",
            ClipLabel::Anomaly,
            &[(96, 192)],
            &flash(2, 2, 0)[..4 + 48 * 5],
        )
        .await,
        upload(
            client,
            "b",
            ClipLabel::Anomaly,
            &[(48, 96)],
            &shades(&[20, 230, 30, 25]),
        )
        .await,
        upload(client, "c", ClipLabel::Normal, &[], &shades(&[12, 18, 40])).await,
        upload(client, "d", ClipLabel::Normal, &[], &shades(&[33, 22, 15])).await,
    ]
}

/// Segments of [`site`].
pub const SITE_SEGMENTS: usize = 15;

pub async fn hunt(client: &mut Admin, options: proto::HuntOptions) -> Result<String, Status> {
    let request = proto::HuntHeadsRequest {
        clip_ids: vec![],
        options: Some(options),
    };
    Ok(client.hunt_heads(request).await?.into_inner().job_id)
}

pub fn options() -> proto::HuntOptions {
    proto::HuntOptions {
        prompts: vec!["Is it bright?".into(), "Is it light?".into()],
        top_k: 2,
        ..Default::default()
    }
}

/// Follows a job to its end.
pub async fn ended(client: &mut Admin, job_id: &str) -> JobProgress {
    told(client, job_id).await.pop().unwrap()
}

/// All that a follower is told.
pub async fn told(client: &mut Admin, job_id: &str) -> Vec<JobProgress> {
    let request = proto::FollowJobRequest {
        job_id: job_id.into(),
    };
    let call = client.follow_job(request);
    let mut stream = within("follow", call).await.unwrap().into_inner();
    let mut told = Vec::new();
    while let Some(response) = within("progress", stream.message()).await.unwrap() {
        told.push(response.progress.unwrap());
    }
    let last = told.last().expect("a state at once");
    assert!(
        matches!(
            last.state(),
            JobState::Succeeded | JobState::Failed | JobState::Cancelled
        ),
        "{last:?}"
    );
    told
}

/// A job that succeeds; gives its result and its end.
pub async fn result(client: &mut Admin, job_id: &str) -> (serde_json::Value, JobProgress) {
    let end = ended(client, job_id).await;
    assert_eq!(end.state(), JobState::Succeeded, "{end:?}");
    (serde_json::from_str(&end.result_json).unwrap(), end)
}
