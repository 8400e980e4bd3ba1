//! Words of OTLP.

use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, KeyValue, any_value::Value},
    trace::v1::{SpanFlags, Status, status::StatusCode},
};

use crate::limits::TRACE_MESSAGE_MAX_BYTES;

/// The W3C flag of a trace that is recorded.
const SAMPLED: u32 = 1;

/// A value of an attribute.
pub(super) struct Attribute(Value);

impl From<String> for Attribute {
    fn from(text: String) -> Self {
        Attribute(Value::StringValue(text))
    }
}

impl From<u64> for Attribute {
    fn from(number: u64) -> Self {
        Attribute(Value::IntValue(i64::try_from(number).unwrap_or(i64::MAX)))
    }
}

impl From<usize> for Attribute {
    fn from(number: usize) -> Self {
        Attribute(Value::IntValue(i64::try_from(number).unwrap_or(i64::MAX)))
    }
}

impl From<f64> for Attribute {
    fn from(number: f64) -> Self {
        Attribute(Value::DoubleValue(number))
    }
}

pub(super) fn attribute(key: &str, value: impl Into<Attribute>) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue {
            value: Some(value.into().0),
        }),
        ..KeyValue::default()
    }
}

/// The status of a span that failed.
pub(super) fn failed(message: &str) -> Status {
    let end = message.floor_char_boundary(TRACE_MESSAGE_MAX_BYTES);
    Status {
        message: message[..end].to_owned(),
        code: StatusCode::Error.into(),
    }
}

/// Flags of a span of a recorded trace, and whether its parent is another process's.
pub(super) fn flags(remote_parent: bool) -> u32 {
    let mut flags = SAMPLED | SpanFlags::ContextHasIsRemoteMask as u32;
    if remote_parent {
        flags |= SpanFlags::ContextIsRemoteMask as u32;
    }
    flags
}
