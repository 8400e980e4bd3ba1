//! How an administration RPC ends: counted, and its failure told.

use tonic::{Code, Response, Status};

use super::super::{
    session::SessionId,
    status::{code, label, status},
};
use crate::{
    error::{Error, Kind, Result},
    telemetry::server::rpc_ended,
};

/// The response of an RPC that ended.
pub(super) fn answered<T>(method: &'static str, result: Result<T>) -> Result<Response<T>, Status> {
    match result {
        Ok(response) => {
            rpc_ended(method, label(Code::Ok));
            Ok(Response::new(response))
        }
        Err(error) => Err(failed(method, &error)),
    }
}

/// The status of an RPC that failed. What went wrong inside the server is in its log, under a name
/// that the client is told.
pub(super) fn failed(method: &'static str, error: &Error) -> Status {
    rpc_ended(method, label(code(error.kind())));
    let id = SessionId::random();
    if matches!(error.kind(), Kind::Internal | Kind::DataLoss) {
        tracing::error!(method, session = %id, "{error:#}");
    } else {
        tracing::info!(method, kind = error.kind().as_str(), "{error:#}");
    }
    status(error, id.as_str())
}
