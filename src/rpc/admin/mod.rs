//! AdminService: each RPC is handed to the part that knows it.

mod answer;
mod clips;
mod jobs;
mod profiles;

use std::sync::Arc;

use tokio_stream::Empty;
use tonic::{Code, Request, Response, Status, Streaming};

use super::{
    profiles::Profiles,
    proto::{self, admin_service_server::AdminService},
    status::label,
};
use crate::telemetry::server::rpc_ended;

/// The service.
pub(super) struct Admin {
    pub profiles: Arc<Profiles>,
}

fn unimplemented<T>(method: &'static str, instead: &str) -> Result<Response<T>, Status> {
    rpc_ended(method, label(Code::Unimplemented));
    Err(Status::unimplemented(format!(
        "AdminService.{method} is not part of this version: {instead}"
    )))
}

#[tonic::async_trait]
impl AdminService for Admin {
    async fn upload_clip(
        &self,
        request: Request<Streaming<proto::UploadClipRequest>>,
    ) -> Result<Response<proto::UploadClipResponse>, Status> {
        self.clips_upload(request).await
    }

    async fn import_clips(
        &self,
        request: Request<proto::ImportClipsRequest>,
    ) -> Result<Response<proto::ImportClipsResponse>, Status> {
        self.clips_import(request).await
    }

    async fn list_clips(
        &self,
        request: Request<proto::ListClipsRequest>,
    ) -> Result<Response<proto::ListClipsResponse>, Status> {
        self.clips_list(request).await
    }

    async fn get_clip(
        &self,
        request: Request<proto::GetClipRequest>,
    ) -> Result<Response<proto::GetClipResponse>, Status> {
        self.clips_get(request).await
    }

    async fn relabel_clip(
        &self,
        request: Request<proto::RelabelClipRequest>,
    ) -> Result<Response<proto::RelabelClipResponse>, Status> {
        self.clips_relabel(request).await
    }

    async fn delete_clip(
        &self,
        request: Request<proto::DeleteClipRequest>,
    ) -> Result<Response<proto::DeleteClipResponse>, Status> {
        self.clips_delete(request).await
    }

    async fn hunt_heads(
        &self,
        request: Request<proto::HuntHeadsRequest>,
    ) -> Result<Response<proto::HuntHeadsResponse>, Status> {
        self.jobs_hunt(request).await
    }

    async fn calibrate(
        &self,
        request: Request<proto::CalibrateRequest>,
    ) -> Result<Response<proto::CalibrateResponse>, Status> {
        self.jobs_calibrate(request).await
    }

    async fn evaluate(
        &self,
        request: Request<proto::EvaluateRequest>,
    ) -> Result<Response<proto::EvaluateResponse>, Status> {
        self.jobs_evaluate(request).await
    }

    async fn list_jobs(
        &self,
        request: Request<proto::ListJobsRequest>,
    ) -> Result<Response<proto::ListJobsResponse>, Status> {
        self.jobs_list(request).await
    }

    type FollowJobStream = Empty<Result<proto::FollowJobResponse, Status>>;

    async fn follow_job(
        &self,
        request: Request<proto::FollowJobRequest>,
    ) -> Result<Response<Self::FollowJobStream>, Status> {
        self.jobs_follow(request).await
    }

    async fn cancel_job(
        &self,
        request: Request<proto::CancelJobRequest>,
    ) -> Result<Response<proto::CancelJobResponse>, Status> {
        self.jobs_cancel(request).await
    }

    type GetReportStream = Empty<Result<proto::GetReportResponse, Status>>;

    async fn get_report(
        &self,
        request: Request<proto::GetReportRequest>,
    ) -> Result<Response<Self::GetReportStream>, Status> {
        self.jobs_report(request).await
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
