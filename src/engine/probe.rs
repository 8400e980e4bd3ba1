//! The seam between the engine and whatever runs the model.

use std::{sync::Arc, time::Duration};

use crate::{
    error::Result,
    head::{HeadFeatures, HeadSelection},
};

/// The sampled frames of one segment, ready for the model.
#[derive(Clone)]
pub struct Clip {
    /// One picture per sampled frame: `side * side * 3` bytes, RGB u8, already resized. Frames that
    /// repeat share one allocation, so that a probe can encode them once.
    pub frames: Vec<Arc<[u8]>>,
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
