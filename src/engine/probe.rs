//! The seam between the engine and whatever runs the model.

use std::time::Duration;

use crate::{
    error::{Error, Result},
    head::{HeadFeatures, HeadSelection},
    limits::FRAME_MAX_SIDE,
    media::SharedImage,
};

/// The sampled frames of one segment, ready for the model.
#[derive(Clone)]
pub struct Clip {
    /// One picture per sampled frame, already resized; or smaller, where the probe resizes. Frames that
    /// repeat share one allocation, so that a probe can encode them once.
    pub frames: Vec<SharedImage>,
}

/// Facts about the resident model.
#[derive(Clone, Debug, PartialEq)]
pub struct ProbeInfo {
    /// Name for people: the directory's name or the hub id.
    pub name: String,
    /// `cpu` or `cuda:0`.
    pub device: String,
    /// `f32` or `bf16`.
    pub dtype: String,
    /// Decoder layers of the checkpoint.
    pub layers: usize,
    /// Query heads per layer.
    pub heads: usize,
    /// Numbers per head.
    pub head_dim: usize,
    /// Layers that are loaded, from the first.
    pub resident_layers: usize,
    /// Width and height of a frame's picture, pixels.
    pub image_side: usize,
    /// Whether it also takes pictures with fewer pixels than that, of any width and height, and resizes
    /// them itself.
    pub resizes: bool,
}

impl ProbeInfo {
    /// Refuses a picture that it does not take.
    ///
    /// # Errors
    /// `InvalidArgument` with the sizes.
    pub fn check_picture(&self, picture: &SharedImage) -> Result<()> {
        let side = self.image_side;
        let own = (picture.width as usize, picture.height as usize) == (side, side);
        let smaller = self.resizes
            && picture.data.len() < side * side * 3
            && picture.width.max(picture.height) <= FRAME_MAX_SIDE;
        if picture.is_whole() && (own || smaller) {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "a frame of {} x {} pixels in {} bytes: the model takes {side} x {side} x 3 = {} bytes{}",
            picture.width,
            picture.height,
            picture.data.len(),
            side * side * 3,
            if self.resizes {
                ", or smaller ones"
            } else {
                ""
            }
        )))
    }
}

/// How long the stages of one pass took, one after the other.
#[derive(Clone, Copy, Debug)]
pub struct PassTimes {
    /// Pictures to projected tokens, upload and normalising included.
    pub vision: Duration,
    /// Prompts to features; the pass ends with it.
    pub language: Duration,
}

/// A frozen model that yields attention-head features.
pub trait HeadProbe: Send + 'static {
    /// Facts about the model.
    fn info(&self) -> &ProbeInfo;

    /// Runs one partial forward pass over every clip with every prompt and returns the features of
    /// `heads`, one per clip, each `[prompts, heads, head_dim]`.
    ///
    /// A batch equals its singles. Fails with `FailedPrecondition` where a head lies beyond the
    /// resident layers, with `InvalidArgument` for a picture of the wrong size, a prompt that is
    /// too long or no frames, and with `DataLoss` where a feature is NaN or infinite.
    fn probe(
        &self,
        clips: &[Clip],
        prompts: &[String],
        heads: &HeadSelection,
    ) -> Result<Vec<HeadFeatures>>;

    /// [`probe`](Self::probe), and how long its stages took where that is measured.
    fn probe_timed(
        &self,
        clips: &[Clip],
        prompts: &[String],
        heads: &HeadSelection,
    ) -> Result<(Vec<HeadFeatures>, Option<PassTimes>)> {
        self.probe(clips, prompts, heads)
            .map(|features| (features, None))
    }

    /// SHA-256 (hex) of what the first `layers` layers' features depend on; see METHOD,
    /// Fingerprint.
    fn fingerprint(&self, layers: usize) -> Result<String>;
}
