//! Pictures of events for people: JPEG of a bounded size.

use std::{fmt, sync::Arc};

use jpeg_encoder::{ColorType, Encoder};

use crate::{
    error::{Error, Kind, Result, ResultExt as _},
    limits::{SNAPSHOT_BYTES, SNAPSHOT_QUALITIES, SNAPSHOT_SIDE},
    media::{FrameStamp, RgbImage},
    model::pixels::{fit, resize_to},
};

impl Default for SnapshotRules {
    fn default() -> Self {
        SnapshotRules {
            max_side: SNAPSHOT_SIDE,
            max_bytes: SNAPSHOT_BYTES,
        }
    }
}

pub use crate::media::SnapshotRules;

/// A picture of an event.
#[derive(Clone, PartialEq)]
pub struct Snapshot {
    /// JPEG, upright, masks blacked out.
    pub jpeg: Arc<[u8]>,
    /// Which frame.
    pub frame: FrameStamp,
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Snapshot({} bytes of frame {})",
            self.jpeg.len(),
            self.frame.index
        )
    }
}

/// A JPEG of `picture`, reduced by the rules; `None` where it is too large even at the lowest
/// quality. `upright` is the width and height of the frame, which a picture that was made square for
/// the model gets back here.
pub(super) fn jpeg(
    picture: &RgbImage,
    upright: (u32, u32),
    rules: &SnapshotRules,
) -> Result<Option<Arc<[u8]>>> {
    let most = rules.max_side.min(picture.width.max(picture.height));
    let (width, height) = fit(upright.0, upright.1, most);
    let small = resize_to(picture, width, height)?;
    let side = |side: u32| {
        u16::try_from(side).map_err(|_| Error::internal(format!("a snapshot {side} pixels wide")))
    };
    let (width, height) = (side(width)?, side(height)?);
    for quality in SNAPSHOT_QUALITIES {
        let mut bytes = Vec::new();
        Encoder::new(&mut bytes, quality)
            .encode(&small.data, width, height, ColorType::Rgb)
            .or_kind(Kind::Internal, || {
                format!("cannot make a JPEG of {width}x{height} pixels")
            })?;
        if bytes.len() <= rules.max_bytes {
            return Ok(Some(bytes.into()));
        }
    }
    tracing::debug!(
        width,
        height,
        max_bytes = rules.max_bytes,
        "no snapshot: it is too large at every quality"
    );
    Ok(None)
}
