//! Files to the server: one clip, or all that a manifest names and the server does not have.

use std::{fmt::Write as _, io::Read as _, path::Path};

use sha2::{Digest, Sha256};
use tokio::{io::AsyncReadExt as _, sync::mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use super::{
    clips::{text, wire_intervals},
    connection::{Connection, refused},
};
use crate::{
    cli::common::Progress,
    error::{Error, Kind, Result, ResultExt},
    eval::manifest,
    limits,
    rpc::proto::{self, UploadClipRequest, upload_clip_request::Message},
};

/// Bytes per chunk.
const CHUNK_BYTES: usize = 256 << 10;

/// Chunks that wait to be sent; with the chunk's size 1 MiB in memory.
const WAITING_CHUNKS: usize = 4;

/// What is told of a clip.
pub(super) struct Description {
    pub name: String,
    pub label: i32,
    pub anomalous: Vec<proto::FrameInterval>,
}

/// Uploads a file.
pub(super) async fn upload(
    to: &Connection,
    path: &Path,
    described: Description,
) -> Result<proto::UploadClipResponse> {
    let unreadable = || format!("cannot read {}", path.display());
    let mut file = tokio::fs::File::open(path)
        .await
        .or_kind(Kind::NotFound, unreadable)?;
    let total = file
        .metadata()
        .await
        .or_kind(Kind::InvalidArgument, unreadable)?
        .len();
    let (sender, receiver) = mpsc::channel(WAITING_CHUNKS);
    let progress = Progress::new("upload");
    let shown = path.display().to_string();
    let read = async {
        let mut sent = 0;
        let mut next = Message::Open(proto::upload_clip_request::Open {
            name: described.name,
            label: described.label,
            anomalous: described.anomalous,
        });
        // A closed channel means that the server ended the call: its status tells why.
        while sender
            .send(UploadClipRequest {
                message: Some(next),
            })
            .await
            .is_ok()
        {
            let mut chunk = vec![0; CHUNK_BYTES];
            let n = file
                .read(&mut chunk)
                .await
                .or_kind(Kind::InvalidArgument, unreadable)?;
            if n == 0 {
                break;
            }
            chunk.truncate(n);
            sent += n;
            progress.tell(sent, total as usize, &shown);
            next = Message::Chunk(chunk.into());
        }
        drop(sender);
        Ok::<(), Error>(())
    };
    let mut client = to.client();
    let call = client.upload_clip(ReceiverStream::new(receiver));
    let (read, stored) = tokio::join!(read, call);
    progress.finish();
    // What the server says comes first: it may be why reading ended.
    let stored = stored.map_err(|status| refused(status).context(path.display()))?;
    read?;
    Ok(stored.into_inner())
}

/// Uploads the clips of a manifest that the server does not have yet; gives the ids of all of them,
/// in the manifest's order.
///
/// Fails where the server has a clip with another label: that is to be decided, not overwritten.
pub(super) async fn upload_manifest(to: &Connection, path: &Path) -> Result<Vec<String>> {
    let csv = text(path, limits::MANIFEST_MAX_BYTES)?;
    let videos = manifest::group(&manifest::parse(&csv)?)?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut client = to.client();
    let mut ids = Vec::with_capacity(videos.len());
    for video in videos {
        let file = folder.join(&video.video);
        let at = |error: Error| error.context(format!("{}, line {}", path.display(), video.line));
        let label = if video.anomaly {
            proto::ClipLabel::Anomaly
        } else {
            proto::ClipLabel::Normal
        };
        let described = Description {
            name: video.name(),
            label: label.into(),
            anomalous: wire_intervals(&video.intervals),
        };
        let id = sha256(&file).map_err(at)?;
        let known = client
            .get_clip(proto::GetClipRequest { id: id.clone() })
            .await;
        match known {
            Ok(response) => {
                let clip = response.into_inner().clip.unwrap_or_default();
                if clip.label != described.label || clip.anomalous != described.anomalous {
                    return Err(at(Error::already_exists(format!(
                        "the server has {} as clip {id} with another label or other intervals: \
                         relabel it there, or change the manifest",
                        file.display()
                    ))));
                }
            }
            Err(status) if status.code() == Code::NotFound => {
                upload(to, &file, described).await.map_err(at)?;
            }
            Err(status) => return Err(refused(status)),
        }
        ids.push(id);
    }
    Ok(ids)
}

fn sha256(path: &Path) -> Result<String> {
    let unreadable = || format!("cannot read {}", path.display());
    let mut file = std::fs::File::open(path).or_kind(Kind::NotFound, unreadable)?;
    let mut hash = Sha256::new();
    let mut piece = vec![0; limits::CLIP_COPY_BYTES];
    loop {
        let n = file
            .read(&mut piece)
            .or_kind(Kind::InvalidArgument, unreadable)?;
        match piece.get(..n) {
            Some(bytes) if n > 0 => hash.update(bytes),
            _ => break,
        }
    }
    Ok(hash.finalize().iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    }))
}
