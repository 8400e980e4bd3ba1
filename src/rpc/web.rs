//! A file of a web server's as chunks for the decoder, which pulls them: who does not ask holds the
//! server back through TCP. Where the connection breaks, what came before it is decoded to its end
//! first; then the failure is told.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::{runtime::Handle, time};
use tokio_util::sync::CancellationToken;

use super::source::WebMedia;
use crate::{
    error::{Error, Result},
    media::{ChunkEvent, ChunkSource, MediaEvent, MediaSource},
    net::Trust,
    web::{Body, Url},
};

/// The decoder's end of a request; to be used outside of async code.
pub(super) struct WebFile {
    body: Body,
    runtime: Handle,
    stop: CancellationToken,
    cancel: CancellationToken,
    failure: Failure,
}

/// Why the file has no proper end.
type Failure = Arc<OnceLock<Error>>;

/// The frames of a file.
struct Frames {
    decoded: Box<dyn MediaSource>,
    failure: Failure,
}

/// Opens the file with `decode`; blocks until the head of the answer is there and its media are known.
///
/// Fails as [`crate::web::Client::get`], with `Cancelled`, and as `decode`.
pub(super) fn open(
    media: &WebMedia,
    url: &Url,
    trust: &Trust,
    stop: CancellationToken,
    cancel: &CancellationToken,
    decode: impl FnOnce(Box<dyn ChunkSource>) -> Result<Box<dyn MediaSource>>,
) -> Result<Box<dyn MediaSource>> {
    let file = fetch(media, url, trust, stop, cancel)?;
    let failure = file.failure.clone();
    match decode(Box::new(file)) {
        Ok(decoded) => Ok(Box::new(Frames { decoded, failure })),
        Err(error) => Err(told(&failure).unwrap_or(error)),
    }
}

impl MediaSource for Frames {
    fn next_event(&mut self) -> Result<Option<MediaEvent>> {
        match self.decoded.next_event() {
            // What the decoder says of a file that was cut off is not what went wrong.
            Ok(None) => told(&self.failure).map_or(Ok(None), Err),
            Err(error) => Err(told(&self.failure).unwrap_or(error)),
            event => event,
        }
    }
}

fn told(failure: &Failure) -> Option<Error> {
    let error = failure.get()?;
    Some(Error::new(error.kind(), error.message().to_owned()))
}

fn fetch(
    media: &WebMedia,
    url: &Url,
    trust: &Trust,
    stop: CancellationToken,
    cancel: &CancellationToken,
) -> Result<WebFile> {
    let body = media.runtime.block_on(async {
        tokio::select! {
            biased;
            () = cancel.cancelled() => Err(cancelled()),
            body = media.client.get(url, trust) => body,
        }
    })?;
    Ok(WebFile {
        body,
        runtime: media.runtime.clone(),
        stop,
        cancel: cancel.clone(),
        failure: Failure::default(),
    })
}

fn cancelled() -> Error {
    Error::cancelled("the detection was cancelled")
}

impl ChunkSource for WebFile {
    /// A `stop` ends the file where it stands.
    fn next_chunk(&mut self, timeout: Duration) -> Result<ChunkEvent> {
        self.runtime.block_on(async {
            tokio::select! {
                biased;
                () = self.cancel.cancelled() => Err(cancelled()),
                () = self.stop.cancelled() => Ok(ChunkEvent::End),
                chunk = time::timeout(timeout, self.body.next()) => match chunk {
                    Ok(Ok(Some(bytes))) => Ok(ChunkEvent::Bytes(bytes)),
                    Ok(Ok(None)) => Ok(ChunkEvent::End),
                    Ok(Err(error)) => {
                        let _ = self.failure.set(error);
                        Ok(ChunkEvent::End)
                    }
                    Err(_elapsed) => Ok(ChunkEvent::Pending),
                },
            }
        })
    }
}
