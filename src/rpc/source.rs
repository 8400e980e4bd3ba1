//! The seam to whatever turns bytes into frames.

use tokio_util::sync::CancellationToken;

use crate::{
    error::Result,
    media::{ChunkSource, MediaSource},
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
}

/// The decoder of the `video` room.
#[cfg(feature = "video")]
pub struct VideoMedia {
    /// What one source may use.
    pub limits: crate::video::VideoLimits,
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
}
