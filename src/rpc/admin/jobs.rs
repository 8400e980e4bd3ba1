//! RPCs on jobs.

use tokio_stream::Empty;
use tonic::{Request, Response, Status};

use super::{super::proto, Admin, unimplemented};

const INSTEAD: &str = "hunting, calibration and evaluation run from the command line";

impl Admin {
    pub(super) async fn jobs_hunt(
        &self,
        _: Request<proto::HuntHeadsRequest>,
    ) -> Result<Response<proto::HuntHeadsResponse>, Status> {
        unimplemented("HuntHeads", INSTEAD)
    }

    pub(super) async fn jobs_calibrate(
        &self,
        _: Request<proto::CalibrateRequest>,
    ) -> Result<Response<proto::CalibrateResponse>, Status> {
        unimplemented("Calibrate", INSTEAD)
    }

    pub(super) async fn jobs_evaluate(
        &self,
        _: Request<proto::EvaluateRequest>,
    ) -> Result<Response<proto::EvaluateResponse>, Status> {
        unimplemented("Evaluate", INSTEAD)
    }

    pub(super) async fn jobs_list(
        &self,
        _: Request<proto::ListJobsRequest>,
    ) -> Result<Response<proto::ListJobsResponse>, Status> {
        unimplemented("ListJobs", INSTEAD)
    }

    pub(super) async fn jobs_follow(
        &self,
        _: Request<proto::FollowJobRequest>,
    ) -> Result<Response<Empty<Result<proto::FollowJobResponse, Status>>>, Status> {
        unimplemented("FollowJob", INSTEAD)
    }

    pub(super) async fn jobs_cancel(
        &self,
        _: Request<proto::CancelJobRequest>,
    ) -> Result<Response<proto::CancelJobResponse>, Status> {
        unimplemented("CancelJob", INSTEAD)
    }

    pub(super) async fn jobs_report(
        &self,
        _: Request<proto::GetReportRequest>,
    ) -> Result<Response<Empty<Result<proto::GetReportResponse, Status>>>, Status> {
        unimplemented("GetReport", INSTEAD)
    }
}
