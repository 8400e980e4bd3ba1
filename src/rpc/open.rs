//! The first message of a detection, checked.

use std::time::Duration;

use tokio::time;
use tonic::Streaming;

use super::{
    choice::Choice,
    options,
    proto::{self, DetectRequest, detect_request::Message, open::Source},
    uri::{self, UriSource},
};
use crate::{
    config::SourceSettings,
    error::{Error, Kind, Result},
    limits,
    pipeline::options::DetectOptions,
};

/// What a detection was opened with.
#[derive(Debug, PartialEq)]
pub(super) struct Opening {
    /// What is scored.
    pub input: Input,
    /// With which profile.
    pub profile: Choice,
    /// What is wanted.
    pub options: DetectOptions,
}

/// What is scored.
#[derive(Debug, PartialEq)]
pub(super) enum Input {
    /// Chunks follow; the upload's label.
    Upload(String),
    /// A URI.
    Uri(Box<UriSource>),
}

/// Waits for the first message and checks it.
pub(super) async fn opening(
    requests: &mut Streaming<DetectRequest>,
    timeout: Duration,
    allowed: &SourceSettings,
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
    check(first, allowed)
}

/// Checks a request to watch.
pub(super) fn watch(request: proto::WatchRequest, allowed: &SourceSettings) -> Result<Opening> {
    let Some(source) = &request.source else {
        return Err(wrong("source", "the request names no source"));
    };
    let input = Input::Uri(Box::new(uri::parse("source", source, allowed)?));
    let profile = Choice::new(
        "",
        request.profile,
        request.profile_version,
        request.follow_profile,
    )?;
    Ok(Opening {
        input,
        profile,
        options: options::parse("options", request.options)?,
    })
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

fn check(first: Option<DetectRequest>, allowed: &SourceSettings) -> Result<Opening> {
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
    let input = match open.source {
        Some(Source::Upload(upload)) => {
            at_most(
                "open.upload.name",
                &upload.name,
                limits::UPLOAD_NAME_MAX_BYTES,
            )?;
            Input::Upload(upload.name)
        }
        Some(Source::Uri(source)) => {
            Input::Uri(Box::new(uri::parse("open.uri", &source, allowed)?))
        }
        None => {
            return Err(wrong(
                "open.source",
                "`open` names no source: set `upload` and send the file in `chunk` messages",
            ));
        }
    };
    let profile = Choice::new(
        "open.",
        open.profile,
        open.profile_version,
        open.follow_profile,
    )?;
    Ok(Opening {
        input,
        profile,
        options: options::parse("open.options", open.options)?,
    })
}

/// What a message after the first says to a URI source.
pub(super) fn after_uri(request: DetectRequest) -> Result<()> {
    match request.message {
        Some(Message::Stop(proto::Stop {})) => Ok(()),
        Some(Message::Open(_)) => Err(wrong("open", "a second `open` came: it must be sent once")),
        Some(Message::Chunk(_)) => Err(wrong(
            "chunk",
            "a `chunk` came for a URI source: only `stop` may follow `open`",
        )),
        None => Err(wrong(
            "stop",
            "a message has no content that this version knows: only `stop` may follow `open`",
        )),
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

    fn allowed() -> SourceSettings {
        SourceSettings {
            schemes: vec![crate::config::Scheme::Rtsp],
            file_roots: vec![],
            allow: vec![],
            deny: vec![],
            allow_insecure_tls: false,
        }
    }

    fn upload(name: &str, profile: &str) -> Option<DetectRequest> {
        let open = proto::Open {
            source: Some(Source::Upload(proto::UploadSource { name: name.into() })),
            profile: profile.into(),
            options: Some(proto::DetectOptions {
                provisional: true,
                ..Default::default()
            }),
            ..Default::default()
        };
        Some(DetectRequest {
            message: Some(Message::Open(open)),
        })
    }

    #[test]
    fn an_upload_opens() {
        let opening = check(upload("a.mp4", "cam"), &allowed()).unwrap();
        assert_eq!(
            opening,
            Opening {
                input: Input::Upload("a.mp4".into()),
                profile: Choice::new("open.", "cam".into(), String::new(), false).unwrap(),
                options: DetectOptions {
                    provisional: true,
                    ..DetectOptions::default()
                },
            }
        );
    }

    #[test]
    fn names_have_bounds() {
        let error = check(upload(&"a".repeat(257), ""), &allowed()).unwrap_err();
        assert_eq!(error.field(), Some("open.upload.name"));
        let error = check(upload("", &"p".repeat(65)), &allowed()).unwrap_err();
        assert_eq!(error.field(), Some("open.profile"));
    }
}
