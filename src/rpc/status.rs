//! Errors to gRPC statuses.

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::{
    error::{Error, Kind},
    limits,
};

/// The code of a kind.
pub const fn code(kind: Kind) -> Code {
    match kind {
        Kind::InvalidArgument => Code::InvalidArgument,
        Kind::NotFound => Code::NotFound,
        Kind::FailedPrecondition => Code::FailedPrecondition,
        Kind::ResourceExhausted => Code::ResourceExhausted,
        Kind::AlreadyExists => Code::AlreadyExists,
        Kind::Aborted => Code::Aborted,
        Kind::Cancelled => Code::Cancelled,
        Kind::DeadlineExceeded => Code::DeadlineExceeded,
        Kind::Unimplemented => Code::Unimplemented,
        Kind::Unavailable => Code::Unavailable,
        Kind::DataLoss => Code::DataLoss,
        Kind::Unauthenticated => Code::Unauthenticated,
        Kind::PermissionDenied => Code::PermissionDenied,
        Kind::Internal => Code::Internal,
    }
}

/// The label of a code in metrics and logs.
pub const fn label(code: Code) -> &'static str {
    match code {
        Code::Ok => "ok",
        Code::Cancelled => "cancelled",
        Code::Unknown => "unknown",
        Code::InvalidArgument => "invalid_argument",
        Code::DeadlineExceeded => "deadline_exceeded",
        Code::NotFound => "not_found",
        Code::AlreadyExists => "already_exists",
        Code::PermissionDenied => "permission_denied",
        Code::ResourceExhausted => "resource_exhausted",
        Code::FailedPrecondition => "failed_precondition",
        Code::Aborted => "aborted",
        Code::OutOfRange => "out_of_range",
        Code::Unimplemented => "unimplemented",
        Code::Internal => "internal",
        Code::Unavailable => "unavailable",
        Code::DataLoss => "data_loss",
        Code::Unauthenticated => "unauthenticated",
    }
}

/// What the client is told: the message without its causes, google.rpc.BadRequest where a field was
/// wrong and google.rpc.RetryInfo where trying again may help. What went wrong inside the server
/// stays in its log, under `session`.
pub fn status(error: &Error, session: &str) -> Status {
    let code = code(error.kind());
    let mut details = ErrorDetails::new();
    let message = match error.kind() {
        Kind::Internal | Kind::DataLoss => {
            format!("the server failed; its log has the details under session {session}")
        }
        Kind::ResourceExhausted
        | Kind::Unavailable
        | Kind::InvalidArgument
        | Kind::NotFound
        | Kind::FailedPrecondition
        | Kind::AlreadyExists
        | Kind::Aborted
        | Kind::Cancelled
        | Kind::DeadlineExceeded
        | Kind::Unimplemented
        | Kind::Unauthenticated
        | Kind::PermissionDenied => error.message().to_owned(),
    };
    if error.may_pass() {
        details.set_retry_info(Some(limits::RETRY_DELAY));
    }
    if let Some(field) = error.field() {
        details.add_bad_request_violation(field, message.clone());
    }
    Status::with_error_details(code, message, details)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [Kind; 14] = [
        Kind::InvalidArgument,
        Kind::NotFound,
        Kind::FailedPrecondition,
        Kind::ResourceExhausted,
        Kind::AlreadyExists,
        Kind::Aborted,
        Kind::Cancelled,
        Kind::DeadlineExceeded,
        Kind::Unimplemented,
        Kind::Unavailable,
        Kind::DataLoss,
        Kind::Unauthenticated,
        Kind::PermissionDenied,
        Kind::Internal,
    ];

    #[test]
    fn kinds_and_codes_have_the_same_names() {
        for kind in KINDS {
            assert_eq!(label(code(kind)), kind.as_str());
        }
    }

    #[test]
    fn causes_and_internals_never_reach_the_client() {
        for kind in KINDS {
            let inside = matches!(kind, Kind::Internal | Kind::DataLoss);
            let message = if inside {
                "/srv/models/a"
            } else {
                "profile `a` is unknown"
            };
            let error = Error::new(kind, message).with_source(std::io::Error::other("/etc/secret"));
            let status = status(&error, "5e55");
            let debug = format!("{status:?}");
            assert!(
                !debug.contains("/srv") && !debug.contains("secret"),
                "{debug}"
            );
            assert_eq!(inside, status.message().contains("5e55"), "{debug}");
        }
    }

    #[test]
    fn details_name_the_field_and_the_delay() {
        let wrong = status(&Error::invalid("no `open`").with_field("open"), "s");
        let details = wrong.get_error_details();
        let violation = &details.bad_request().unwrap().field_violations[0];
        assert_eq!(
            (violation.field.as_str(), violation.description.as_str()),
            ("open", "no `open`")
        );
        assert!(details.retry_info().is_none());
        let full = status(&Error::exhausted("16 streams are running"), "s");
        let retry = full.get_error_details().retry_info().cloned().unwrap();
        assert_eq!(retry.retry_delay, Some(limits::RETRY_DELAY));
        let too_large = Error::exhausted("the clip has more than 10 bytes").for_good();
        let too_large = status(&too_large, "s");
        assert_eq!(too_large.code(), Code::ResourceExhausted);
        assert!(too_large.get_error_details().retry_info().is_none());
    }
}
