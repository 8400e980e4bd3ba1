//! How an administration RPC ends: counted, and its failure told.

use tonic::{Code, Response, Status};

use super::super::{
    session::SessionId,
    status::{code, label, status},
};
use crate::{
    error::{Error, Kind, Result},
    telemetry::server::RpcRunning,
};

/// The response of an RPC. One whose client leaves meanwhile is dropped, and counts as cancelled.
pub(super) async fn answered<T>(
    method: &'static str,
    call: impl Future<Output = Result<T>>,
) -> Result<Response<T>, Status> {
    let counted = RpcRunning::begin(method);
    match call.await {
        Ok(response) => {
            counted.ended(label(Code::Ok));
            Ok(Response::new(response))
        }
        Err(error) => Err(failed(counted, &error)),
    }
}

/// The status of an RPC that failed. What went wrong inside the server is in its log, under a name
/// that the client is told.
pub(super) fn failed(counted: RpcRunning, error: &Error) -> Status {
    let method = counted.method();
    counted.ended(label(code(error.kind())));
    let id = SessionId::random();
    if matches!(error.kind(), Kind::Internal | Kind::DataLoss) {
        tracing::error!(method, session = %id, "{error:#}");
    } else {
        tracing::info!(method, kind = error.kind().as_str(), "{error:#}");
    }
    status(error, id.as_str())
}
