//! The one error of the crate. Its kinds are named like gRPC status codes, so that the `rpc` room
//! converts them without judgement and no other room needs tonic.

use std::{error::Error as StdError, fmt};

use serde::{Deserialize, Serialize};

/// What sort of failure it was; one kind per gRPC status code that we use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// The input (a video, a file, an option) cannot be used as it is.
    InvalidArgument,
    /// Something named does not exist.
    NotFound,
    /// The input is fine, but not with the present model, profile or state.
    FailedPrecondition,
    /// A limit, a quota, memory or disk space is used up.
    ResourceExhausted,
    /// It is there already, and differs from what was given.
    AlreadyExists,
    /// Another writer is at work on the same thing, or a process that did the work is gone.
    Aborted,
    /// The caller left or asked to stop.
    Cancelled,
    /// A time limit passed.
    DeadlineExceeded,
    /// A known feature that this version does not have.
    Unimplemented,
    /// Shutting down, or not yet able to serve; trying again later may help.
    Unavailable,
    /// Damaged stored data: a checkpoint, a profile.
    DataLoss,
    /// No valid credentials.
    Unauthenticated,
    /// Valid credentials without this right.
    PermissionDenied,
    /// A bug in this program or in a library under it.
    Internal,
}

impl Kind {
    /// Stable name for logs and metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Kind::InvalidArgument => "invalid_argument",
            Kind::NotFound => "not_found",
            Kind::FailedPrecondition => "failed_precondition",
            Kind::ResourceExhausted => "resource_exhausted",
            Kind::AlreadyExists => "already_exists",
            Kind::Aborted => "aborted",
            Kind::Cancelled => "cancelled",
            Kind::DeadlineExceeded => "deadline_exceeded",
            Kind::Unimplemented => "unimplemented",
            Kind::Unavailable => "unavailable",
            Kind::DataLoss => "data_loss",
            Kind::Unauthenticated => "unauthenticated",
            Kind::PermissionDenied => "permission_denied",
            Kind::Internal => "internal",
        }
    }
}

/// What was wrong and what to do about it.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    message: String,
    /// The request field that was wrong, e.g. `open.profile`.
    field: Option<String>,
    /// Whether the same request may do better later where its kind says so.
    for_good: bool,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// A result whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

macro_rules! constructors {
    ($($name:ident => $kind:ident),+ $(,)?) => {$(
        #[doc = concat!("An error of [`Kind::", stringify!($kind), "`].")]
        pub fn $name(message: impl Into<String>) -> Self {
            Error::new(Kind::$kind, message)
        }
    )+};
}

impl Error {
    /// An error of `kind`; the message names what was wrong and what to do.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Error {
            kind,
            message: message.into(),
            field: None,
            for_good: false,
            source: None,
        }
    }

    constructors! {
        invalid => InvalidArgument,
        not_found => NotFound,
        precondition => FailedPrecondition,
        exhausted => ResourceExhausted,
        already_exists => AlreadyExists,
        aborted => Aborted,
        cancelled => Cancelled,
        deadline => DeadlineExceeded,
        unimplemented => Unimplemented,
        unavailable => Unavailable,
        data_loss => DataLoss,
        internal => Internal,
    }

    /// Keeps the cause; it is shown after the message by `{:#}` and in logs.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Names the request field that was wrong.
    #[must_use]
    pub fn with_field(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }

    /// Says that the same request will not do better later: what it asks for is too much, or someone has to
    /// make room first.
    #[must_use]
    pub fn for_good(mut self) -> Self {
        self.for_good = true;
        self
    }

    /// Whether trying the same again may help.
    pub fn may_pass(&self) -> bool {
        !self.for_good && matches!(self.kind, Kind::ResourceExhausted | Kind::Unavailable)
    }

    /// Puts `context: ` before the message; the kind stays.
    #[must_use]
    pub fn context(mut self, context: impl fmt::Display) -> Self {
        self.message = format!("{context}: {}", self.message);
        self
    }

    /// What sort of failure it was.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The message without its causes.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The request field that was wrong, if one was.
    pub fn field(&self) -> Option<&str> {
        self.field.as_deref()
    }
}

impl fmt::Display for Error {
    /// The message; with `{:#}` the chain of causes after it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if f.alternate() {
            let mut cause = self.source();
            while let Some(error) = cause {
                write!(f, ": {error}")?;
                cause = error.source();
            }
        }
        Ok(())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source
            .as_deref()
            .map(|e| e as &(dyn StdError + 'static))
    }
}

/// Adds what was being done to any error on its way up.
pub trait ResultExt<T> {
    /// Turns a foreign error into one of `kind` with this message; the cause is kept.
    fn or_kind(self, kind: Kind, message: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<Box<dyn StdError + Send + Sync>>> ResultExt<T> for std::result::Result<T, E> {
    fn or_kind(self, kind: Kind, message: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|e| Error::new(kind, message()).with_source(e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alternate_form_shows_the_causes_and_plain_form_does_not() {
        let io = std::io::Error::other("disk on fire");
        let e = Error::data_loss("cannot read a.json")
            .with_source(io)
            .context("profile cam1");
        assert_eq!(e.to_string(), "profile cam1: cannot read a.json");
        assert_eq!(
            format!("{e:#}"),
            "profile cam1: cannot read a.json: disk on fire"
        );
        assert_eq!(e.kind(), Kind::DataLoss);
    }
}
