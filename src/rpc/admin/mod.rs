//! AdminService: each RPC is handed to the part that knows it.

mod answer;
mod book;
mod clips;
mod jobs;
mod options;
mod profiles;

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::{
    OpenMedia, Profiles,
    proto::{self, admin_service_server::AdminService},
};
use crate::{
    access::{Caller, Quota, Shares},
    config::AdminSettings,
    engine::EngineHandle,
    error::{Error, Result},
    feedback::Feedback,
    jobs::{Jobs, JobsParts},
    library::{Library, LibraryLimits},
    limits,
    telemetry::server::RpcRunning,
};
use answer::{answered, failed};

/// The service.
pub(super) struct Admin {
    /// Versions of profiles.
    profiles: Arc<Profiles>,
    /// Clips and kept features; `None` without `admin.dir`.
    library: Option<Arc<Library>>,
    /// Jobs; `None` without `admin.dir`.
    jobs: Option<Arc<Jobs>>,
    /// Callers that may follow jobs or read reports at the same time.
    followers: Arc<Semaphore>,
    /// And those of each token.
    followers_of: Shares,
    /// Fires when the shutdown begins.
    closing: CancellationToken,
}

/// What the service works with.
pub(super) struct AdminParts {
    pub settings: AdminSettings,
    pub engine: EngineHandle,
    pub profiles: Arc<Profiles>,
    pub media: Arc<dyn OpenMedia>,
    pub feedback: Option<Arc<Feedback>>,
    pub closing: CancellationToken,
}

impl Admin {
    /// Opens clips and jobs where `admin.dir` is set; jobs of a former run go on.
    ///
    /// Fails with `FailedPrecondition` where the directory cannot be used.
    pub async fn open(parts: AdminParts) -> Result<Admin> {
        let (library, jobs) = match parts.settings.dir.clone() {
            None => (None, None),
            Some(dir) => {
                let limits = LibraryLimits {
                    quota_bytes: parts.settings.quota_bytes,
                    clip_max_bytes: parts.settings.clip_max_bytes,
                    import_roots: parts.settings.import_roots.clone(),
                };
                let library = blocking(move || Library::open(dir, limits)).await?;
                let media = parts.media;
                let jobs = Jobs::start(JobsParts {
                    engine: parts.engine,
                    library: library.clone(),
                    open: Arc::new(move |path, cancel| media.open_file(path, cancel)),
                    book: Arc::new(book::Book::new(parts.profiles.clone(), parts.feedback)),
                    kept: parts.settings.jobs_kept,
                })?;
                (Some(library), Some(Arc::new(jobs)))
            }
        };
        Ok(Admin {
            profiles: parts.profiles,
            library,
            jobs,
            followers: Arc::new(Semaphore::new(limits::JOB_FOLLOWERS_MAX)),
            followers_of: Shares::default(),
            closing: parts.closing,
        })
    }

    /// The shutdown begins: the job that runs stops soon, and goes on at the next start.
    pub fn close(&self) {
        if let Some(jobs) = &self.jobs {
            jobs.close();
        }
    }

    /// Waits, not forever, for the job that runs to stop.
    pub async fn stop(&self) {
        if let Some(jobs) = &self.jobs {
            jobs.stop().await;
        }
    }

    fn library(&self) -> Result<Arc<Library>> {
        self.library.clone().ok_or_else(without_directory)
    }

    fn jobs(&self) -> Result<Arc<Jobs>> {
        self.jobs.clone().ok_or_else(without_directory)
    }
}

fn without_directory() -> Error {
    Error::precondition(
        "this server keeps no clips and runs no jobs: have the operator set admin.dir",
    )
}

fn going_down() -> Error {
    Error::unavailable("the server is shutting down; ask again later")
}

/// Runs what blocks on the disk.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(Error::internal("a task failed").with_source(error)))
}

/// Whose request it is, where tokens are asked for.
fn caller<T>(request: &Request<T>) -> Option<Arc<Caller>> {
    request.extensions().get().cloned()
}

/// Nanoseconds since 1970 on the wire.
fn timestamp(unix_ns: u64) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: (unix_ns / 1_000_000_000) as i64,
        nanos: (unix_ns % 1_000_000_000) as i32,
    }
}

#[tonic::async_trait]
impl AdminService for Admin {
    async fn upload_clip(
        &self,
        request: Request<Streaming<proto::UploadClipRequest>>,
    ) -> Result<Response<proto::UploadClipResponse>, Status> {
        let quota = Quota::of(caller(&request).as_deref());
        answered("UploadClip", self.clips_upload(request.into_inner(), quota)).await
    }

    async fn import_clips(
        &self,
        request: Request<proto::ImportClipsRequest>,
    ) -> Result<Response<proto::ImportClipsResponse>, Status> {
        answered("ImportClips", self.clips_import(request.into_inner())).await
    }

    async fn list_clips(
        &self,
        request: Request<proto::ListClipsRequest>,
    ) -> Result<Response<proto::ListClipsResponse>, Status> {
        answered("ListClips", self.clips_list(request.into_inner())).await
    }

    async fn get_clip(
        &self,
        request: Request<proto::GetClipRequest>,
    ) -> Result<Response<proto::GetClipResponse>, Status> {
        answered("GetClip", self.clips_get(request.into_inner())).await
    }

    async fn relabel_clip(
        &self,
        request: Request<proto::RelabelClipRequest>,
    ) -> Result<Response<proto::RelabelClipResponse>, Status> {
        answered("RelabelClip", self.clips_relabel(request.into_inner())).await
    }

    async fn delete_clip(
        &self,
        request: Request<proto::DeleteClipRequest>,
    ) -> Result<Response<proto::DeleteClipResponse>, Status> {
        answered("DeleteClip", self.clips_delete(request.into_inner())).await
    }

    async fn hunt_heads(
        &self,
        request: Request<proto::HuntHeadsRequest>,
    ) -> Result<Response<proto::HuntHeadsResponse>, Status> {
        answered("HuntHeads", self.jobs_hunt(request.into_inner())).await
    }

    async fn calibrate(
        &self,
        request: Request<proto::CalibrateRequest>,
    ) -> Result<Response<proto::CalibrateResponse>, Status> {
        answered("Calibrate", self.jobs_calibrate(request.into_inner())).await
    }

    async fn evaluate(
        &self,
        request: Request<proto::EvaluateRequest>,
    ) -> Result<Response<proto::EvaluateResponse>, Status> {
        answered("Evaluate", self.jobs_evaluate(request.into_inner())).await
    }

    async fn list_jobs(
        &self,
        _: Request<proto::ListJobsRequest>,
    ) -> Result<Response<proto::ListJobsResponse>, Status> {
        answered("ListJobs", self.jobs_list()).await
    }

    type FollowJobStream = ReceiverStream<Result<proto::FollowJobResponse, Status>>;

    async fn follow_job(
        &self,
        request: Request<proto::FollowJobRequest>,
    ) -> Result<Response<Self::FollowJobStream>, Status> {
        let counted = RpcRunning::begin("FollowJob");
        let caller = caller(&request);
        match self
            .jobs_follow(request.into_inner(), caller.as_deref())
            .await
        {
            Ok((follower, told)) => {
                tokio::spawn(follower.run(counted));
                Ok(Response::new(ReceiverStream::new(told)))
            }
            Err(error) => Err(failed(counted, &error)),
        }
    }

    async fn cancel_job(
        &self,
        request: Request<proto::CancelJobRequest>,
    ) -> Result<Response<proto::CancelJobResponse>, Status> {
        answered("CancelJob", self.jobs_cancel(request.into_inner())).await
    }

    type GetReportStream = ReceiverStream<Result<proto::GetReportResponse, Status>>;

    async fn get_report(
        &self,
        request: Request<proto::GetReportRequest>,
    ) -> Result<Response<Self::GetReportStream>, Status> {
        let counted = RpcRunning::begin("GetReport");
        let caller = caller(&request);
        match self
            .jobs_report(request.into_inner(), caller.as_deref())
            .await
        {
            Ok((reader, chunks)) => {
                tokio::spawn(reader.run(counted));
                Ok(Response::new(ReceiverStream::new(chunks)))
            }
            Err(error) => Err(failed(counted, &error)),
        }
    }

    async fn list_profiles(
        &self,
        request: Request<proto::ListProfilesRequest>,
    ) -> Result<Response<proto::ListProfilesResponse>, Status> {
        self.profiles_list(request).await
    }

    async fn get_profile(
        &self,
        request: Request<proto::GetProfileRequest>,
    ) -> Result<Response<proto::GetProfileResponse>, Status> {
        self.profiles_get(request).await
    }

    async fn activate_profile(
        &self,
        request: Request<proto::ActivateProfileRequest>,
    ) -> Result<Response<proto::ActivateProfileResponse>, Status> {
        self.profiles_activate(request).await
    }

    async fn roll_back_profile(
        &self,
        request: Request<proto::RollBackProfileRequest>,
    ) -> Result<Response<proto::RollBackProfileResponse>, Status> {
        self.profiles_roll_back(request).await
    }

    async fn delete_profile(
        &self,
        request: Request<proto::DeleteProfileRequest>,
    ) -> Result<Response<proto::DeleteProfileResponse>, Status> {
        self.profiles_delete(request).await
    }
}
