//! The first message of a detection, checked.

use std::time::Duration;

use tokio::time;
use tonic::Streaming;

use super::{
    options,
    proto::{self, DetectRequest, detect_request::Message, open::Source},
};
use crate::{
    error::{Error, Kind, Result},
    limits,
    pipeline::options::DetectOptions,
};

/// What a detection was opened with.
#[derive(Debug, PartialEq)]
pub(super) struct Opening {
    /// The upload's label.
    pub name: String,
    /// Empty: the active profile.
    pub profile: String,
    /// What is wanted.
    pub options: DetectOptions,
}

/// Waits for the first message and checks it.
pub(super) async fn opening(
    requests: &mut Streaming<DetectRequest>,
    timeout: Duration,
) -> Result<Opening> {
    let first = time::timeout(timeout, requests.message())
        .await
        .map_err(|_| {
            Error::deadline(format!(
                "no `open` message came within {} s",
                timeout.as_secs_f64()
            ))
        })?
        .map_err(|status| read_failed(&status))?;
    check(first)
}

/// A message could not be read: the client left, or sent what is no message of ours.
pub(super) fn read_failed(status: &tonic::Status) -> Error {
    use tonic::Code;
    let message = status.message();
    match status.code() {
        Code::OutOfRange | Code::ResourceExhausted => Error::invalid(format!(
            "a request message is larger than {} bytes: send chunks of at most {} bytes",
            limits::MESSAGE_MAX_BYTES,
            limits::CHUNK_MAX_BYTES
        ))
        .with_field("chunk"),
        Code::Internal if message.contains("decode") => {
            Error::invalid("a request message is no headhunt.v1.DetectRequest")
        }
        Code::Unimplemented => Error::unimplemented(
            "requests in a compressed encoding: send them as they are, video does not shrink",
        ),
        Code::DeadlineExceeded => Error::deadline("the client's deadline passed"),
        _ => Error::new(Kind::Cancelled, "the client left"),
    }
}

fn check(first: Option<DetectRequest>) -> Result<Opening> {
    let Some(first) = first else {
        return Err(wrong(
            "open",
            "the request stream is empty: the first message must be `open`",
        ));
    };
    let open = match first.message {
        Some(Message::Open(open)) => open,
        Some(Message::Chunk(_)) => {
            return Err(wrong(
                "open",
                "a `chunk` came first: the first message must be `open`",
            ));
        }
        Some(Message::Stop(_)) => {
            return Err(wrong(
                "open",
                "a `stop` came first: the first message must be `open`",
            ));
        }
        None => {
            return Err(wrong(
                "open",
                "the first message has no content that this version knows: it must be `open`",
            ));
        }
    };
    let name = match open.source {
        Some(Source::Upload(upload)) => upload.name,
        Some(Source::Uri(uri)) => return Err(uri_source("open.uri.uri", &uri.uri)),
        None => {
            return Err(wrong(
                "open.source",
                "`open` names no source: set `upload` and send the file in `chunk` messages",
            ));
        }
    };
    at_most("open.upload.name", &name, limits::UPLOAD_NAME_MAX_BYTES)?;
    at_most(
        "open.profile",
        &open.profile,
        limits::PROFILE_NAME_MAX_BYTES,
    )?;
    Ok(Opening {
        name,
        profile: open.profile,
        options: options::parse("open.options", open.options)?,
    })
}

/// Why a URI cannot be a source in this version. The URI itself, which may hold credentials, is
/// not repeated.
pub(super) fn uri_source(field: &str, uri: &str) -> Error {
    if let Err(error) = at_most(field, uri, limits::URI_MAX_BYTES) {
        return error;
    }
    match uri.split_once("://").map(|(scheme, _)| scheme) {
        Some(scheme @ ("rtsp" | "rtsps" | "http" | "https" | "file")) => {
            Error::unimplemented(format!(
                "sources of scheme {scheme}:// are not part of this version: upload the video with `open.upload`"
            ))
        }
        _ => wrong(
            field,
            "not a URI with one of the schemes rtsp, rtsps, http, https and file",
        ),
    }
}

/// The response to a message after the first that is no chunk; `None` for chunks.
pub(super) fn chunk(request: DetectRequest) -> Result<prost::bytes::Bytes> {
    match request.message {
        Some(Message::Chunk(bytes)) if bytes.len() > limits::CHUNK_MAX_BYTES => Err(wrong(
            "chunk",
            &format!(
                "a chunk has {} bytes; at most {} are taken",
                bytes.len(),
                limits::CHUNK_MAX_BYTES
            ),
        )),
        Some(Message::Chunk(bytes)) => Ok(bytes),
        Some(Message::Open(_)) => Err(wrong("open", "a second `open` came: it must be sent once")),
        Some(Message::Stop(proto::Stop {})) => Err(wrong(
            "stop",
            "`stop` is for URI sources: an upload ends with the request stream",
        )),
        None => Err(wrong(
            "chunk",
            "a message has no content that this version knows: `chunk` must follow `open`",
        )),
    }
}

fn at_most(field: &str, text: &str, most: usize) -> Result<()> {
    if text.len() > most {
        let len = text.len();
        return Err(wrong(
            field,
            &format!("{field} has {len} bytes; at most {most} are taken"),
        ));
    }
    Ok(())
}

fn wrong(field: &str, message: &str) -> Error {
    Error::invalid(message).with_field(field)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upload(name: &str, profile: &str) -> Option<DetectRequest> {
        let open = proto::Open {
            source: Some(Source::Upload(proto::UploadSource { name: name.into() })),
            profile: profile.into(),
            options: Some(proto::DetectOptions {
                provisional: true,
                ..Default::default()
            }),
        };
        Some(DetectRequest {
            message: Some(Message::Open(open)),
        })
    }

    #[test]
    fn an_upload_opens() {
        let opening = check(upload("a.mp4", "cam")).unwrap();
        assert_eq!(
            opening,
            Opening {
                name: "a.mp4".into(),
                profile: "cam".into(),
                options: DetectOptions {
                    provisional: true,
                    ..DetectOptions::default()
                },
            }
        );
    }

    #[test]
    fn names_have_bounds() {
        let error = check(upload(&"a".repeat(257), "")).unwrap_err();
        assert_eq!(error.field(), Some("open.upload.name"));
        let error = check(upload("", &"p".repeat(65))).unwrap_err();
        assert_eq!(error.field(), Some("open.profile"));
    }

    #[test]
    fn known_schemes_are_unimplemented_by_name_and_credentials_are_not_repeated() {
        for scheme in ["rtsp", "rtsps", "http", "https", "file"] {
            let error = uri_source("open.uri.uri", &format!("{scheme}://ann:secret@cam/1"));
            assert_eq!(error.kind(), Kind::Unimplemented);
            assert!(error.message().contains(scheme) && !error.message().contains("secret"));
        }
        for uri in ["", "camera", "gopher://x", &"r".repeat(2049)] {
            assert_eq!(uri_source("source.uri", uri).kind(), Kind::InvalidArgument);
        }
    }
}
