//! Detection: a source and a profile in, scores and events out, in media order.
//!
//! ```text
//! decode thread ─▶ Preparation ─▶ engine (a few segments at once, in order) ─▶ scorer ─▶ locator ─▶ out
//! ```
//!
//! Each arrow is bounded, so a receiver that stops reading holds back scoring and decoding. A live
//! stream cannot be held back: what is not scored in time is dropped, oldest first, and told as a gap.

mod session;

use std::{sync::Arc, time::Duration};

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    engine::{EngineHandle, Lane},
    error::{Error, Result},
    feedback::Recorder,
    model::pixels::resize_bicubic_into,
    profile::Profile,
    telemetry::traces::Call,
};

pub use super::options::DetectOptions;
use super::{
    event::{DetectEvent, Summary},
    prepare::{OpenSource, Preparation, PrepareOptions},
};
use session::Session;

/// What a detection runs with.
#[derive(Clone)]
pub struct Detection {
    /// Heads, prompts, scorer and locator.
    pub profile: Arc<Profile>,
    /// What the caller asked for.
    pub options: DetectOptions,
    /// Who waits.
    pub lane: Lane,
    /// For a live source: how old a segment may be when its pass begins; it is dropped then, as it is
    /// when too many wait, and told as a gap. `None`: segments wait, and hold the source back.
    pub max_delay: Option<Duration>,
    /// Versions of the profile to move to, as they are activated: from the next segment on that is
    /// submitted to the model. They must fit it. One that cuts video otherwise is left out, with a
    /// warning in the log. `None`: the profile stays.
    pub follow: Option<watch::Receiver<Arc<Profile>>>,
    /// Keeps what segments were scored from, for verdicts on them.
    pub recorder: Option<Arc<Recorder>>,
    /// The call that it belongs to, where that is traced: its segments become spans.
    pub trace: Option<Call>,
}

/// Runs a detection to its end and returns what its last event, the summary, says.
///
/// Events go to `out` in media order: `Opened`; then scores, events and gaps; then `Summary`. Each
/// decoded frame is in exactly one final score. An input that fails on its way (or a segment that
/// cannot be scored) ends the detection with that error: the segments before it are delivered with
/// final scores first, as if the media had ended there, without a summary.
///
/// `cancel` must be this detection's own, the one that `source` opens its media with: it is fired
/// when the detection ends, however it ends, so that a source that waits for input stops too.
///
/// Fails with `FailedPrecondition` where the profile does not fit the model, `Cancelled` with the
/// token or when nobody receives from `out` any more, and with the source's and engine's errors.
pub async fn run(
    source: OpenSource,
    detection: Detection,
    engine: EngineHandle,
    out: mpsc::Sender<DetectEvent>,
    cancel: CancellationToken,
) -> Result<Summary> {
    let _cancel = cancel.clone().drop_guard();
    check_profile(&detection.profile, &engine, &cancel).await?;
    let options = PrepareOptions {
        rule: detection.profile.segment,
        frames_per_segment: detection.profile.frames_per_segment,
        image_side: engine.info().image_side,
        keep_smaller: engine.info().resizes,
        resize: Arc::new(resize_bicubic_into),
        pictures: detection.options.pictures.clone(),
    };
    let mut preparation = Preparation::start(source, options, cancel.clone())?;
    let result = Session::new(detection, engine, out, cancel)
        .run(&mut preparation)
        .await;
    preparation.stop().await;
    result
}

/// Whether a profile fits the engine's model; [`run`] asks this first. Differences that may shift
/// scores a little are logged as warnings.
///
/// Fails with `FailedPrecondition` where it does not fit, `Cancelled` with the token, and as
/// [`EngineHandle::fingerprint`].
pub async fn check_profile(
    profile: &Profile,
    engine: &EngineHandle,
    cancel: &CancellationToken,
) -> Result<()> {
    profile.check_shape(engine.info())?;
    let fingerprint = tokio::select! {
        biased;
        () = cancel.cancelled() => return Err(cancelled()),
        fingerprint = engine.fingerprint(profile.layers_needed()) => fingerprint?,
    };
    for warning in profile.check_model(engine.info(), &fingerprint)? {
        tracing::warn!(profile = profile.name, "{warning}");
    }
    Ok(())
}

fn cancelled() -> Error {
    Error::cancelled("the detection was cancelled")
}

fn left() -> Error {
    Error::cancelled("nobody receives the results any more")
}
