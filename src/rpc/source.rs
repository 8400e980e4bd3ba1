//! The seam to whatever turns bytes and addresses into frames.

use std::{fs::File, io::Read as _, path::Path, time::Duration};

use tokio_util::sync::CancellationToken;

use super::uri::UriSource;
use crate::{
    error::{Error, Kind, Result, ResultExt as _},
    limits,
    media::{ChunkEvent, ChunkSource, MediaSource},
};

/// Opens sources of frames; the server calls it on a blocking thread.
///
/// Between the server and the decoder stands nothing else, so that decoding can move into another
/// process, or a test can bring its own frames.
pub trait OpenMedia: Send + Sync + 'static {
    /// Opens an upload: waits for as many bytes as it takes to recognise the media. The source
    /// ends with `Cancelled` soon after `cancel` fires.
    fn open_upload(
        &self,
        chunks: Box<dyn ChunkSource>,
        cancel: CancellationToken,
    ) -> Result<Box<dyn MediaSource>>;

    /// Opens a URI source that the configuration allows. `stop` ends it in an orderly way.
    fn open_uri(
        &self,
        source: UriSource,
        stop: CancellationToken,
        cancel: CancellationToken,
    ) -> Result<Box<dyn MediaSource>> {
        let _ = (stop, cancel);
        Err(Error::unimplemented(format!(
            "{} cannot be opened here: this decoder takes uploads alone",
            source.shown()
        )))
    }

    /// Opens a clip that the server keeps; as [`open_upload`](Self::open_upload), with all of its
    /// bytes at hand.
    fn open_file(&self, path: &Path, cancel: CancellationToken) -> Result<Box<dyn MediaSource>> {
        let file =
            File::open(path).or_kind(Kind::DataLoss, || "the clip's bytes are gone".to_owned())?;
        self.open_upload(Box::new(FileChunks(file)), cancel)
    }
}

/// A file's bytes, for decoders that take uploads alone.
struct FileChunks(File);

impl ChunkSource for FileChunks {
    fn next_chunk(&mut self, _: Duration) -> Result<ChunkEvent> {
        let mut piece = vec![0; limits::UPLOAD_COALESCE_BYTES];
        let n = self
            .0
            .read(&mut piece)
            .or_kind(Kind::DataLoss, || "the clip cannot be read".to_owned())?;
        if n == 0 {
            return Ok(ChunkEvent::End);
        }
        piece.truncate(n);
        Ok(ChunkEvent::Bytes(piece.into()))
    }
}

/// The decoder of the `video` room.
#[cfg(feature = "video")]
pub struct VideoMedia {
    /// What one source may use.
    pub limits: crate::video::VideoLimits,
    /// How cameras are reached; `None`: not at all.
    pub live: Option<LiveMedia>,
    /// How files of web servers are fetched; `None`: not at all.
    pub web: Option<WebMedia>,
}

/// How files of web servers are fetched.
#[cfg(feature = "video")]
pub struct WebMedia {
    /// The client of all of them.
    pub client: crate::web::Client,
    /// Where their connections run.
    pub runtime: tokio::runtime::Handle,
}

/// How cameras are reached.
#[cfg(feature = "video")]
pub struct LiveMedia {
    /// The client of all of them.
    pub client: crate::rtsp::Client,
    /// Packets without a picture for so long are a failure.
    pub picture_timeout: std::time::Duration,
    /// Where their connections run.
    pub runtime: tokio::runtime::Handle,
}

#[cfg(feature = "video")]
impl OpenMedia for VideoMedia {
    fn open_upload(
        &self,
        chunks: Box<dyn ChunkSource>,
        cancel: CancellationToken,
    ) -> Result<Box<dyn MediaSource>> {
        use crate::video::{Input, open};
        open(Input::Upload(chunks), &self.limits, cancel)
    }

    fn open_file(&self, path: &Path, cancel: CancellationToken) -> Result<Box<dyn MediaSource>> {
        use crate::video::{Input, open};
        open(Input::File(path.to_owned()), &self.limits, cancel)
    }

    fn open_uri(
        &self,
        source: UriSource,
        stop: CancellationToken,
        cancel: CancellationToken,
    ) -> Result<Box<dyn MediaSource>> {
        use super::uri::below_roots;
        use crate::video::{Input, live, open};
        match source {
            UriSource::File { path, roots } => {
                let path = below_roots(&path, &roots)?;
                open(Input::File(path), &self.limits, cancel)
            }
            UriSource::Web { url, trust, within } => {
                let Some(web) = &self.web else {
                    return Err(Error::unimplemented("this server fetches no files"));
                };
                let mut client = web.client.clone();
                client.dialer.vet = narrowed(client.dialer.vet, within);
                let web = &WebMedia {
                    client,
                    runtime: web.runtime.clone(),
                };
                let decode = |chunks| open(Input::Upload(chunks), &self.limits, cancel.clone());
                super::web::open(web, &url, &trust, stop, &cancel, decode)
            }
            UriSource::Camera {
                url,
                access,
                within,
            } => {
                let Some(media) = &self.live else {
                    return Err(Error::unimplemented("this server reaches no cameras"));
                };
                let mut client = media.client.clone();
                client.vet = narrowed(client.vet, within);
                let camera = live::Camera {
                    client,
                    url,
                    access,
                };
                let options = live::LiveOptions {
                    limits: self.limits.clone(),
                    clock: media.client.clock.clone(),
                    picture_timeout: media.picture_timeout,
                    runtime: media.runtime.clone(),
                };
                live::open(std::sync::Arc::new(camera), options, stop, cancel)
            }
        }
    }
}

/// Where connections for a caller may go: what the server may reach, and of it what their token allows.
#[cfg(feature = "video")]
fn narrowed(
    server: std::sync::Arc<dyn crate::net::Vet>,
    within: Option<std::sync::Arc<[crate::net::Rule]>>,
) -> std::sync::Arc<dyn crate::net::Vet> {
    match within {
        Some(rules) => std::sync::Arc::new(crate::net::Within { server, rules }),
        None => server,
    }
}
