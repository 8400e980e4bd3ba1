//! RPCs on profiles.

use tonic::{Request, Response, Status};

use super::{super::proto, Admin, unimplemented};

const INSTEAD: &str = "profiles are files in the server's profile directory";

impl Admin {
    pub(super) async fn profiles_list(
        &self,
        _: Request<proto::ListProfilesRequest>,
    ) -> Result<Response<proto::ListProfilesResponse>, Status> {
        unimplemented("ListProfiles", INSTEAD)
    }

    pub(super) async fn profiles_get(
        &self,
        _: Request<proto::GetProfileRequest>,
    ) -> Result<Response<proto::GetProfileResponse>, Status> {
        unimplemented("GetProfile", INSTEAD)
    }

    pub(super) async fn profiles_activate(
        &self,
        _: Request<proto::ActivateProfileRequest>,
    ) -> Result<Response<proto::ActivateProfileResponse>, Status> {
        unimplemented("ActivateProfile", INSTEAD)
    }

    pub(super) async fn profiles_roll_back(
        &self,
        _: Request<proto::RollBackProfileRequest>,
    ) -> Result<Response<proto::RollBackProfileResponse>, Status> {
        unimplemented("RollBackProfile", INSTEAD)
    }

    pub(super) async fn profiles_delete(
        &self,
        _: Request<proto::DeleteProfileRequest>,
    ) -> Result<Response<proto::DeleteProfileResponse>, Status> {
        unimplemented("DeleteProfile", INSTEAD)
    }
}
