//! AdminService: agreed in shape, not part of this version; every RPC says so by its name.

use tokio_stream::Empty;
use tonic::{Code, Request, Response, Status, Streaming};

use super::{
    proto::{self, admin_service_server::AdminService},
    status::label,
};
use crate::telemetry::server::rpc_ended;

/// The service.
pub(super) struct Admin;

fn unimplemented<T>(method: &'static str, instead: &str) -> Result<Response<T>, Status> {
    rpc_ended(method, label(Code::Unimplemented));
    Err(Status::unimplemented(format!(
        "AdminService.{method} is not part of this version: {instead}"
    )))
}

const CLIPS: &str = "name labelled clips in the manifest of `headhunt calibrate`";
const JOBS: &str = "hunting, calibration and evaluation run from the command line";
const PROFILES: &str = "profiles are files in the server's profile directory";

#[tonic::async_trait]
impl AdminService for Admin {
    async fn upload_clip(
        &self,
        _: Request<Streaming<proto::UploadClipRequest>>,
    ) -> Result<Response<proto::UploadClipResponse>, Status> {
        unimplemented("UploadClip", CLIPS)
    }

    async fn list_clips(
        &self,
        _: Request<proto::ListClipsRequest>,
    ) -> Result<Response<proto::ListClipsResponse>, Status> {
        unimplemented("ListClips", CLIPS)
    }

    async fn delete_clip(
        &self,
        _: Request<proto::DeleteClipRequest>,
    ) -> Result<Response<proto::DeleteClipResponse>, Status> {
        unimplemented("DeleteClip", CLIPS)
    }

    async fn hunt_heads(
        &self,
        _: Request<proto::HuntHeadsRequest>,
    ) -> Result<Response<proto::HuntHeadsResponse>, Status> {
        unimplemented("HuntHeads", JOBS)
    }

    async fn calibrate(
        &self,
        _: Request<proto::CalibrateRequest>,
    ) -> Result<Response<proto::CalibrateResponse>, Status> {
        unimplemented("Calibrate", JOBS)
    }

    async fn evaluate(
        &self,
        _: Request<proto::EvaluateRequest>,
    ) -> Result<Response<proto::EvaluateResponse>, Status> {
        unimplemented("Evaluate", JOBS)
    }

    type FollowJobStream = Empty<Result<proto::FollowJobResponse, Status>>;

    async fn follow_job(
        &self,
        _: Request<proto::FollowJobRequest>,
    ) -> Result<Response<Self::FollowJobStream>, Status> {
        unimplemented("FollowJob", JOBS)
    }

    async fn cancel_job(
        &self,
        _: Request<proto::CancelJobRequest>,
    ) -> Result<Response<proto::CancelJobResponse>, Status> {
        unimplemented("CancelJob", JOBS)
    }

    async fn list_profiles(
        &self,
        _: Request<proto::ListProfilesRequest>,
    ) -> Result<Response<proto::ListProfilesResponse>, Status> {
        unimplemented("ListProfiles", PROFILES)
    }

    async fn get_profile(
        &self,
        _: Request<proto::GetProfileRequest>,
    ) -> Result<Response<proto::GetProfileResponse>, Status> {
        unimplemented("GetProfile", PROFILES)
    }

    async fn activate_profile(
        &self,
        _: Request<proto::ActivateProfileRequest>,
    ) -> Result<Response<proto::ActivateProfileResponse>, Status> {
        unimplemented("ActivateProfile", PROFILES)
    }

    async fn roll_back_profile(
        &self,
        _: Request<proto::RollBackProfileRequest>,
    ) -> Result<Response<proto::RollBackProfileResponse>, Status> {
        unimplemented("RollBackProfile", PROFILES)
    }

    async fn delete_profile(
        &self,
        _: Request<proto::DeleteProfileRequest>,
    ) -> Result<Response<proto::DeleteProfileResponse>, Status> {
        unimplemented("DeleteProfile", PROFILES)
    }
}
