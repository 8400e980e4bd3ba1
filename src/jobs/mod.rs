//! JOBS: hunts, calibrations and evaluations on the library's clips, one after another.
//!
//! ```text
//! submit ─▶ checked, journaled ─▶ queue ─▶ the jobs' thread ─▶ kept features, or decode ─▶ engine (offline lane)
//!                                                    └▶ hunt | calibrate | evaluate ─▶ result, report, profile
//! ```
//!
//! A job is written down before its id is told, and at each change of its state; one that had not
//! ended when the server stopped is taken up again by the next. What it does again then costs little:
//! each sample's features are on disk as soon as they are known.

mod calibrate;
mod counts;
mod extract;
mod journal;
mod progress;
mod queue;
mod record;
mod registry;
mod request;
mod submit;
mod work;

use std::{path::Path, sync::Arc};

use tokio_util::sync::CancellationToken;

use crate::{error::Result, feedback::FeedbackSamples, media::MediaSource, profile::Profile};

pub use journal::ReportFormat;
pub use progress::{Progress, State};
pub use record::{Kind, Summary};
pub use registry::{Jobs, JobsParts};
pub use request::{CalibrateRequest, HuntSettings, NormalOnly, Request};

/// Opens a stored clip as a source of frames that ends when the token fires.
pub type OpenClip =
    Arc<dyn Fn(&Path, CancellationToken) -> Result<Box<dyn MediaSource>> + Send + Sync>;

/// The profiles that jobs read and write; called on the jobs' thread, may block.
pub trait ProfileBook: Send + Sync + 'static {
    /// Whether a version of this profile can be added; fails with `FailedPrecondition` and what to configure, or
    /// `ResourceExhausted` where there are as many as are kept.
    fn writable(&self, profile: &str) -> Result<()>;

    /// Stores a profile as a new version of its name, makes it the active one if asked, and gives
    /// its version.
    fn add(&self, profile: Profile, activate: bool) -> Result<String>;

    /// The profile that evaluation scores with, and its version. An empty name is the active
    /// profile, an empty version the current one.
    ///
    /// Fails with `NotFound`, and with `FailedPrecondition` where it does not fit the model.
    fn get(&self, name: &str, version: &str) -> Result<(Arc<Profile>, String)>;

    /// The samples that people's verdicts made of a profile's heads and scoring prompt.
    ///
    /// Fails with `FailedPrecondition`, naming the key, where the server keeps no feedback.
    fn feedback(&self, of: &Profile) -> Result<FeedbackSamples>;
}
