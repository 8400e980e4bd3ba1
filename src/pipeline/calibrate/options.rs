//! What a calibration may be asked, and what can be told to be wrong with it before long work.

use crate::{
    engine::probe::ProbeInfo,
    error::{Error, Result},
    hunt::{HuntOptions, split},
    pipeline::labelled::LabelledVideo,
    profile::Edge,
    score::logistic::FitOptions,
    segment::SegmentRule,
};

/// What a calibration is to do.
#[derive(Clone, Debug)]
pub struct CalibrateOptions {
    /// Name of the profile.
    pub name: String,
    /// Prompts that heads are ranked over; the first is the scoring prompt.
    pub prompts: Vec<String>,
    /// How videos are cut.
    pub rule: SegmentRule,
    /// Frames sampled per segment.
    pub frames_per_segment: usize,
    /// K and λ.
    pub hunt: HuntOptions,
    /// Choose K by cross-validation instead of `hunt.top_k`; see
    /// [`hunt::choose_k`](crate::hunt::choose_k).
    pub auto_top_k: bool,
    /// Part of the videos kept from hunting and fitting for validation, 0 to 0.9; 0: none, out of
    /// fold.
    pub validation_fraction: f64,
    /// Scorer.
    pub fit: FitOptions,
    /// Seed of folds and splits.
    pub seed: u64,
    /// Ends of the smoothed sequence.
    pub edge: Edge,
}

/// What a calibration is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CalibrateStage {
    /// Measuring heads; counts heads, once per prompt.
    Hunt,
    /// Choosing K; counts folds.
    ChooseK,
    /// Fitting scorers.
    Fit,
    /// Placing σ and τ.
    Locate,
    /// Writing the report.
    Report,
}

impl CalibrateStage {
    /// Stable name, for progress messages.
    pub fn as_str(self) -> &'static str {
        match self {
            CalibrateStage::Hunt => "hunt",
            CalibrateStage::ChooseK => "choose-k",
            CalibrateStage::Fit => "fit",
            CalibrateStage::Locate => "locate",
            CalibrateStage::Report => "report",
        }
    }
}

/// Is told (stage, done, total); from several threads, so that calls of one stage may overtake each
/// other.
pub type ProgressFn<'a> = dyn Fn(CalibrateStage, usize, usize) + Sync + 'a;

impl CalibrateOptions {
    /// What can be told to be wrong before the long work of extraction: K, λ, C, the split, and
    /// labels that cannot give both classes on both sides of it or of a fold.
    ///
    /// # Errors
    /// `InvalidArgument`, with the field where it is an option.
    pub fn check(&self, info: &ProbeInfo, videos: &[LabelledVideo]) -> Result<()> {
        self.check_numbers(info)?;
        if !videos.iter().any(|video| video.anomaly) {
            return Err(Error::invalid(
                "no clip is anomalous: label some, with the frames where something happens, or \
                 calibrate on normal footage alone (normal_only; --normal-only)",
            ));
        }
        let normal = |video: &&LabelledVideo| !video.anomaly || video.intervals_known;
        if !videos.iter().any(|video| normal(&video)) {
            return Err(Error::invalid(
                "every clip is anomalous as a whole: add normal clips, or the frames where something happens",
            ));
        }
        for (class, count) in [
            ("anomalous", videos.iter().filter(|v| v.anomaly).count()),
            ("normal", videos.iter().filter(normal).count()),
        ] {
            if count < 2 {
                return Err(Error::invalid(format!(
                    "{count} of {} clips can have {class} samples: the locator is calibrated on \
                     clips that the fit has not seen, so at least 2 are needed",
                    videos.len()
                )));
            }
        }
        Ok(())
    }

    /// Options alone; errors as [`check`](Self::check).
    pub fn check_numbers(&self, info: &ProbeInfo) -> Result<()> {
        let heads = info.layers * info.heads;
        if !self.auto_top_k && (self.hunt.top_k == 0 || self.hunt.top_k > heads) {
            return Err(Error::invalid(format!(
                "top_k is {}; the model has {heads} heads, so give 1 to {heads}",
                self.hunt.top_k
            ))
            .with_field("top_k"));
        }
        if !(self.hunt.lambda >= 0.0 && self.hunt.lambda.is_finite()) {
            return Err(Error::invalid(format!(
                "lambda is {}; give a number of at least 0",
                self.hunt.lambda
            ))
            .with_field("lambda"));
        }
        if !(self.fit.c > 0.0 && self.fit.c.is_finite()) {
            return Err(
                Error::invalid(format!("C is {}; give a number above 0", self.fit.c))
                    .with_field("c"),
            );
        }
        split::check_fraction(self.validation_fraction)
    }
}
