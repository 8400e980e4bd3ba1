//! RPCs on labelled clips.

use tonic::{Request, Response, Status, Streaming};

use super::{super::proto, Admin, unimplemented};

const INSTEAD: &str = "name labelled clips in the manifest of `headhunt calibrate`";

impl Admin {
    pub(super) async fn clips_upload(
        &self,
        _: Request<Streaming<proto::UploadClipRequest>>,
    ) -> Result<Response<proto::UploadClipResponse>, Status> {
        unimplemented("UploadClip", INSTEAD)
    }

    pub(super) async fn clips_import(
        &self,
        _: Request<proto::ImportClipsRequest>,
    ) -> Result<Response<proto::ImportClipsResponse>, Status> {
        unimplemented("ImportClips", INSTEAD)
    }

    pub(super) async fn clips_list(
        &self,
        _: Request<proto::ListClipsRequest>,
    ) -> Result<Response<proto::ListClipsResponse>, Status> {
        unimplemented("ListClips", INSTEAD)
    }

    pub(super) async fn clips_get(
        &self,
        _: Request<proto::GetClipRequest>,
    ) -> Result<Response<proto::GetClipResponse>, Status> {
        unimplemented("GetClip", INSTEAD)
    }

    pub(super) async fn clips_relabel(
        &self,
        _: Request<proto::RelabelClipRequest>,
    ) -> Result<Response<proto::RelabelClipResponse>, Status> {
        unimplemented("RelabelClip", INSTEAD)
    }

    pub(super) async fn clips_delete(
        &self,
        _: Request<proto::DeleteClipRequest>,
    ) -> Result<Response<proto::DeleteClipResponse>, Status> {
        unimplemented("DeleteClip", INSTEAD)
    }
}
