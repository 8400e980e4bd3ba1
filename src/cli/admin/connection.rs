//! The way to the server, what its statuses mean here, and what is printed.

use serde_json::Value;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::{
    cli::remote::{Authorized, Remote},
    error::{Error, Kind, Result},
    limits,
    rpc::proto::admin_service_client::AdminServiceClient,
};

/// The server's address, and how answers are printed.
pub(super) struct Connection {
    /// As given.
    pub server: String,
    /// Whether JSON is printed.
    pub json: bool,
    channel: Authorized,
}

impl Connection {
    /// Connects when the first call is made.
    pub fn new(remote: &Remote, json: bool) -> Result<Connection> {
        Ok(Connection {
            server: remote.server.clone(),
            json,
            channel: remote.channel()?,
        })
    }

    /// A client of the service.
    pub fn client(&self) -> AdminServiceClient<Authorized> {
        AdminServiceClient::new(self.channel.clone())
            .max_decoding_message_size(limits::JOB_RESULT_MAX_BYTES * 2)
    }

    /// Prints JSON, or the lines for people.
    pub fn print(&self, json: &Value, lines: impl FnOnce() -> String) {
        let text = if self.json { json.to_string() } else { lines() };
        if !text.is_empty() {
            say!("{}", text.trim_end());
        }
    }
}

/// A status as an error: the server's message, with the field where it names one.
pub(super) fn refused(status: Status) -> Error {
    let kind = match status.code() {
        Code::InvalidArgument | Code::OutOfRange => Kind::InvalidArgument,
        Code::NotFound => Kind::NotFound,
        Code::FailedPrecondition => Kind::FailedPrecondition,
        Code::ResourceExhausted => Kind::ResourceExhausted,
        Code::AlreadyExists => Kind::AlreadyExists,
        Code::Aborted => Kind::Aborted,
        Code::Cancelled => Kind::Cancelled,
        Code::DeadlineExceeded => Kind::DeadlineExceeded,
        Code::Unimplemented => Kind::Unimplemented,
        Code::Unavailable => Kind::Unavailable,
        Code::DataLoss => Kind::DataLoss,
        Code::Unauthenticated => Kind::Unauthenticated,
        Code::PermissionDenied => Kind::PermissionDenied,
        Code::Ok | Code::Unknown | Code::Internal => Kind::Internal,
    };
    let field = status
        .get_error_details()
        .bad_request()
        .and_then(|bad| bad.field_violations.first())
        .map(|violation| violation.field.clone());
    let message = match &field {
        Some(field) => format!("{field}: {}", status.message()),
        None => status.message().to_owned(),
    };
    let error = Error::new(kind, message);
    let error = match std::error::Error::source(&status).map(ToString::to_string) {
        Some(cause) if status.code() == Code::Unavailable => error.with_source(cause),
        _ => error,
    };
    match field {
        Some(field) => error.with_field(field),
        None => error,
    }
}

/// A time on the wire as seconds since 1970.
pub(super) fn seconds(time: Option<prost_types::Timestamp>) -> Value {
    time.map_or(Value::Null, |time| {
        Value::from(time.seconds as f64 + f64::from(time.nanos) / 1e9)
    })
}
