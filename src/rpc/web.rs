//! A file of a web server's as chunks for the decoder, which pulls them: who does not ask holds the
//! server back through TCP.

use std::time::Duration;

use tokio::{runtime::Handle, time};
use tokio_util::sync::CancellationToken;

use super::source::WebMedia;
use crate::{
    error::{Error, Result},
    media::{ChunkEvent, ChunkSource},
    net::Trust,
    web::{Body, Url},
};

/// The decoder's end of a request; to be used outside of async code.
pub(super) struct WebFile {
    body: Body,
    runtime: Handle,
    stop: CancellationToken,
    cancel: CancellationToken,
}

/// Asks for the file; blocks until the head of the answer is there.
///
/// Fails as [`crate::web::Client::get`], and with `Cancelled`.
pub(super) fn fetch(
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
                    Ok(Err(error)) => Err(error),
                    Err(_elapsed) => Ok(ChunkEvent::Pending),
                },
            }
        })
    }
}
