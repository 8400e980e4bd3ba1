//! Failures, and how errors of sockets become them.

use std::io;

use super::{Failure, FailureKind};

impl Failure {
    pub(crate) fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Failure {
            kind,
            message: message.into(),
        }
    }

    pub(crate) fn protocol(message: impl Into<String>) -> Self {
        Failure::new(FailureKind::Protocol, message)
    }
}

/// Why no TCP connection came about.
pub(crate) fn unconnected(error: &io::Error, whom: &impl std::fmt::Display) -> Failure {
    let kind = match error.kind() {
        io::ErrorKind::TimedOut => FailureKind::Timeout,
        io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted => FailureKind::Reset,
        _ => FailureKind::Refused,
    };
    Failure::new(kind, format!("cannot connect to {whom}: {error}"))
}

/// Why an established connection broke.
pub(crate) fn broken(error: &io::Error) -> Failure {
    match tls_error(error) {
        Some(tls) => Failure::new(FailureKind::Tls, format!("TLS failed: {tls}")),
        None => Failure::new(FailureKind::Reset, format!("the connection broke: {error}")),
    }
}

/// The TLS error inside an error of the stream.
pub(crate) fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}
