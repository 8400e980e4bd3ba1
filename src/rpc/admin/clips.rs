//! RPCs on labelled clips.

use std::path::PathBuf;

use tokio::time;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, Streaming};

use super::{
    super::proto::{self, upload_clip_request::Message},
    Admin, blocking, going_down, timestamp,
};
use crate::{
    access::Quota,
    error::{Error, Kind, Result},
    library::{Clip, Label, Labelled},
    limits,
    telemetry::server,
};

impl Admin {
    pub(super) async fn clips_upload(
        &self,
        requests: Streaming<proto::UploadClipRequest>,
        quota: Quota,
    ) -> Result<proto::UploadClipResponse> {
        tokio::select! {
            biased;
            () = self.closing.cancelled() => Err(going_down()),
            stored = self.receive(requests, quota) => stored,
        }
    }

    /// A client that leaves drops this, and with it the upload and its temporary file.
    async fn receive(
        &self,
        mut requests: Streaming<proto::UploadClipRequest>,
        mut quota: Quota,
    ) -> Result<proto::UploadClipResponse> {
        let library = self.library()?;
        let Some(Message::Open(open)) = next(&mut requests).await?.and_then(|r| r.message) else {
            return Err(Error::invalid("the first message must be `open`").with_field("open"));
        };
        let labelled = labelled(open.label, &open.anomalous).map_err(|e| below("open", e))?;
        let name = open.name;
        let mut upload =
            blocking(move || library.begin(name, labelled).map_err(|e| below("open", e))).await?;
        while let Some(request) = next(&mut requests).await? {
            let chunk = match request.message {
                Some(Message::Chunk(chunk)) => chunk,
                Some(Message::Open(_)) => {
                    return Err(Error::invalid("a second `open` came: it must be sent once")
                        .with_field("open"));
                }
                None => {
                    return Err(Error::invalid(
                        "a message has no content that this version knows: `chunk` must follow \
                         `open`",
                    )
                    .with_field("chunk"));
                }
            };
            if chunk.len() > limits::CHUNK_MAX_BYTES {
                return Err(Error::invalid(format!(
                    "a chunk has {} bytes; at most {} are taken",
                    chunk.len(),
                    limits::CHUNK_MAX_BYTES
                ))
                .with_field("chunk"));
            }
            server::upload_received(chunk.len());
            quota.take(chunk.len())?;
            upload = blocking(move || {
                upload.write(&chunk)?;
                Ok(upload)
            })
            .await?;
        }
        let stored = blocking(move || upload.finish()).await?;
        Ok(proto::UploadClipResponse {
            already_stored: stored.already_stored,
            clip: Some(self.with_features(stored.clip)?),
        })
    }

    pub(super) async fn clips_import(
        &self,
        request: proto::ImportClipsRequest,
    ) -> Result<proto::ImportClipsResponse> {
        let library = self.library()?;
        if request.manifest.len() > limits::URI_MAX_BYTES {
            return Err(Error::invalid("the manifest's path is too long").with_field("manifest"));
        }
        let left = CancellationToken::new();
        let _left = left.clone().drop_guard();
        let closing = self.closing.clone();
        let stored = blocking(move || {
            library.import(&PathBuf::from(request.manifest), &|| {
                if closing.is_cancelled() {
                    Err(going_down())
                } else if left.is_cancelled() {
                    Err(Error::cancelled("the client left"))
                } else {
                    Ok(())
                }
            })
        })
        .await?;
        Ok(proto::ImportClipsResponse {
            already_stored: stored.iter().filter(|s| s.already_stored).count() as u32,
            clips: stored
                .into_iter()
                .map(|stored| self.with_features(stored.clip))
                .collect::<Result<_>>()?,
        })
    }

    pub(super) async fn clips_list(
        &self,
        request: proto::ListClipsRequest,
    ) -> Result<proto::ListClipsResponse> {
        let library = self.library()?;
        let most = match request.page_size as usize {
            0 => limits::CLIPS_PAGE,
            n if n <= limits::CLIPS_PAGE_MAX => n,
            n => {
                return Err(Error::invalid(format!(
                    "page_size is {n}; at most {} are listed at once",
                    limits::CLIPS_PAGE_MAX
                ))
                .with_field("page_size"));
            }
        };
        blocking(move || {
            let page = library.list(most, &request.page_token)?;
            let (stored_bytes, quota_bytes) = library.bytes();
            Ok(proto::ListClipsResponse {
                clips: page
                    .clips
                    .into_iter()
                    .map(|(clip, n)| message(clip, n))
                    .collect(),
                next_page_token: page.next.unwrap_or_default(),
                stored_bytes,
                quota_bytes,
            })
        })
        .await
    }

    pub(super) async fn clips_get(
        &self,
        request: proto::GetClipRequest,
    ) -> Result<proto::GetClipResponse> {
        let library = self.library()?;
        let (clip, features) = blocking(move || library.get(&request.id)).await?;
        Ok(proto::GetClipResponse {
            clip: Some(message(clip, features)),
        })
    }

    pub(super) async fn clips_relabel(
        &self,
        request: proto::RelabelClipRequest,
    ) -> Result<proto::RelabelClipResponse> {
        let library = self.library()?;
        let labelled = labelled(request.label, &request.anomalous)?;
        let (clip, features) = blocking(move || library.relabel(&request.id, labelled)).await?;
        Ok(proto::RelabelClipResponse {
            clip: Some(message(clip, features)),
        })
    }

    pub(super) async fn clips_delete(
        &self,
        request: proto::DeleteClipRequest,
    ) -> Result<proto::DeleteClipResponse> {
        let library = self.library()?;
        blocking(move || library.delete(&request.id)).await?;
        Ok(proto::DeleteClipResponse {})
    }

    fn with_features(&self, clip: Clip) -> Result<proto::Clip> {
        // A clip that was deleted this very moment is told as it was.
        let features = self.library()?.get(&clip.id).map_or(0, |(_, n)| n);
        Ok(message(clip, features))
    }
}

async fn next(
    requests: &mut Streaming<proto::UploadClipRequest>,
) -> Result<Option<proto::UploadClipRequest>> {
    let silence = limits::CLIP_UPLOAD_SILENCE;
    time::timeout(silence, requests.message())
        .await
        .map_err(|_| {
            Error::deadline(format!(
                "no message came within {} s: send chunks, or end the stream",
                silence.as_secs()
            ))
        })?
        .map_err(|status| read_failed(&status))
}

fn read_failed(status: &Status) -> Error {
    match status.code() {
        Code::OutOfRange | Code::ResourceExhausted => Error::invalid(format!(
            "a request message is larger than {} bytes: send chunks of at most {} bytes",
            limits::MESSAGE_MAX_BYTES,
            limits::CHUNK_MAX_BYTES
        ))
        .with_field("chunk"),
        Code::Internal if status.message().contains("decode") => {
            Error::invalid("a request message is no headhunt.v1.UploadClipRequest")
        }
        _ => Error::new(Kind::Cancelled, "the client left"),
    }
}

fn labelled(label: i32, anomalous: &[proto::FrameInterval]) -> Result<Labelled> {
    let label = match proto::ClipLabel::try_from(label) {
        Ok(proto::ClipLabel::Normal) => Label::Normal,
        Ok(proto::ClipLabel::Anomaly) => Label::Anomaly,
        Ok(proto::ClipLabel::Unspecified) | Err(_) => {
            return Err(Error::invalid(
                "say what the clip shows: CLIP_LABEL_NORMAL or CLIP_LABEL_ANOMALY",
            )
            .with_field("label"));
        }
    };
    let intervals = anomalous
        .iter()
        .map(|interval| (interval.first_frame, interval.end_frame))
        .collect();
    Labelled::new(label, intervals)
}

/// A field of a message inside the request.
fn below(outer: &str, error: Error) -> Error {
    match error.field() {
        Some(field) => {
            let field = format!("{outer}.{field}");
            error.with_field(field)
        }
        None => error,
    }
}

fn message(clip: Clip, features: usize) -> proto::Clip {
    let label = match clip.label {
        Label::Normal => proto::ClipLabel::Normal,
        Label::Anomaly => proto::ClipLabel::Anomaly,
    };
    proto::Clip {
        label: label.into(),
        anomalous: clip
            .anomalous
            .iter()
            .map(|&(first_frame, end_frame)| proto::FrameInterval {
                first_frame,
                end_frame,
            })
            .collect(),
        created_at: Some(timestamp(clip.created_unix_ns)),
        id: clip.id,
        name: clip.name,
        size_bytes: clip.size_bytes,
        frames: clip.frames,
        kept_features: u32::try_from(features).unwrap_or(u32::MAX),
    }
}
