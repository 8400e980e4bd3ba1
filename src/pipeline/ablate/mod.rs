//! The paper's ablations on any labelled set: every row fitted on one set of videos and measured on
//! another, all from one extraction pass.
//!
//! Rows differ from the full method in one thing each. All are smoothed with the σ_g that was
//! calibrated for the full method (except where the row is about smoothing), so that a row does not
//! win by its filter.

mod extract;
mod rows;
mod table;
mod test_set;

pub use extract::{Part, Recorder, extract};
pub use table::{Ablation, Figure, Paper, PartCounts, Row};

use rand::{SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use tokio_util::sync::CancellationToken;

use crate::{
    engine::probe::ProbeInfo,
    error::{Error, Result},
    eval::bootstrap::Draws,
    hunt::HuntOptions,
    limits::BOOTSTRAP_MAX,
    pipeline::labelled::LabelledVideo,
    profile::Edge,
    score::logistic::FitOptions,
};

/// What the text way asks without another question.
pub const QUESTION: &str = "Does anything anomalous happen in this video, such as violence, a crime, \
                            an accident or danger? Answer with one word, Yes or No.";

/// What an ablation is to do.
#[derive(Clone, Debug)]
pub struct AblateOptions {
    /// Prompts that heads are ranked over; the first is the scoring prompt.
    pub prompts: Vec<String>,
    /// What the text way asks.
    pub question: String,
    /// K and λ.
    pub hunt: HuntOptions,
    /// The logistic scorers.
    pub fit: FitOptions,
    /// Seed of folds, random heads, network and bootstrap.
    pub seed: u64,
    /// Draws of the bootstrap; 0: no intervals.
    pub bootstrap: usize,
    /// Ends of the smoothed sequence.
    pub edge: Edge,
}

impl AblateOptions {
    /// What can be told to be wrong before the long work of extraction.
    ///
    /// `InvalidArgument`, naming the field where there is one: K, λ, C or the bootstrap out of range,
    /// fewer than two training videos of a class, a video in both parts, test videos without
    /// intervals.
    pub fn check(
        &self,
        info: &ProbeInfo,
        train: &[LabelledVideo],
        test: &[LabelledVideo],
    ) -> Result<()> {
        let heads = info.layers * info.heads;
        let refused = |field: &str, message: String| Err(Error::invalid(message).with_field(field));
        if self.hunt.top_k == 0 || self.hunt.top_k > heads {
            return refused(
                "top_k",
                format!(
                    "top_k is {}; the model has {heads} heads, so give 1 to {heads}",
                    self.hunt.top_k
                ),
            );
        }
        if !(self.hunt.lambda >= 0.0 && self.hunt.lambda.is_finite()) {
            return refused(
                "lambda",
                format!(
                    "lambda is {}; give a number of at least 0",
                    self.hunt.lambda
                ),
            );
        }
        if !(self.fit.c > 0.0 && self.fit.c.is_finite()) {
            return refused("c", format!("C is {}; give a number above 0", self.fit.c));
        }
        if self.bootstrap > BOOTSTRAP_MAX {
            return refused(
                "bootstrap",
                format!(
                    "a bootstrap of {} draws: give at most {BOOTSTRAP_MAX}",
                    self.bootstrap
                ),
            );
        }
        let anomalous = train.iter().filter(|v| v.anomaly).count();
        let normal = train
            .iter()
            .filter(|v| !v.anomaly || v.intervals_known)
            .count();
        if anomalous < 2 || normal < 2 {
            return Err(Error::invalid(format!(
                "{anomalous} training videos are anomalous and {normal} have normal parts: at least \
                 2 of each are needed, since samples are scored by fits without their own video"
            )));
        }
        if let Some(both) = test.iter().find(|v| train.iter().any(|t| t.path == v.path)) {
            return Err(Error::invalid(format!(
                "{} is in both parts: what is fitted on cannot be measured on",
                both.name
            )));
        }
        if !test.iter().any(|v| v.anomaly && v.intervals_known) {
            return Err(Error::invalid(
                "no test video has annotated intervals: figures are per frame, so say in which \
                 frames something happens",
            ));
        }
        Ok(())
    }
}

/// Parts videos at random into those to fit on and those to measure on: of the anomalous and of the
/// normal ones the `fraction` (rounded, at least one of each) is measured on.
///
/// `InvalidArgument` where the fraction is not within 0..1, or a class has too few videos for both
/// parts.
pub fn split(
    videos: Vec<LabelledVideo>,
    fraction: f64,
    seed: u64,
) -> Result<(Vec<LabelledVideo>, Vec<LabelledVideo>)> {
    if !(fraction > 0.0 && fraction < 1.0) {
        return Err(Error::invalid(format!(
            "a validation part of {fraction}: give a number between 0 and 1"
        ))
        .with_field("validation"));
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut measured = vec![false; videos.len()];
    for (class, anomaly) in [("anomalous", true), ("normal", false)] {
        let mut of_class: Vec<usize> = (0..videos.len())
            .filter(|&at| videos[at].anomaly == anomaly)
            .collect();
        if of_class.len() < 2 {
            return Err(Error::invalid(format!(
                "{} {class} videos: at least 2 are needed to fit on some and measure on others",
                of_class.len()
            )));
        }
        of_class.shuffle(&mut rng);
        let count = (fraction * of_class.len() as f64).round() as usize;
        let count = count.clamp(1, of_class.len() - 1);
        for &at in of_class.iter().take(count) {
            measured[at] = true;
        }
    }
    let (test, train): (Vec<_>, Vec<_>) = videos
        .into_iter()
        .zip(measured)
        .partition(|(_, measured)| *measured);
    let videos = |part: Vec<(LabelledVideo, bool)>| part.into_iter().map(|(v, _)| v).collect();
    Ok((videos(train), videos(test)))
}

/// Fits and measures every row. `progress` is told (rows done, rows in all).
///
/// A row that cannot be had says why; the full method's errors are the ablation's.
/// `Cancelled` between two rows where the token fires.
pub fn ablate(
    train: &Part,
    test: &Part,
    info: &ProbeInfo,
    options: &AblateOptions,
    cancel: &CancellationToken,
    progress: &dyn Fn(usize, usize),
) -> Result<Ablation> {
    let measured = test_set::TestSet::new(test, options.edge)?;
    let full = rows::Full::new(train, options)?;
    let draws = Draws::new(measured.len(), options.bootstrap, options.seed)?;
    let bench = rows::Bench {
        train,
        test,
        measured: &measured,
        draws: &draws,
        full: &full,
        info,
        options,
    };
    let mut found = Vec::with_capacity(rows::ROWS.len());
    for row in rows::ROWS {
        if cancel.is_cancelled() {
            return Err(Error::cancelled("the ablation was cancelled"));
        }
        found.push(bench.row(row)?);
        progress(found.len(), rows::ROWS.len());
    }
    let mut warnings = full.warnings.clone();
    if let Some(first) = measured.left_out.first() {
        warnings.push(format!(
            "{} test videos are anomalous without intervals and are not measured, the first of \
             them {first}",
            measured.left_out.len()
        ));
    }
    let counts = |part: &Part, videos: usize| PartCounts {
        videos,
        samples: part.set.samples.len(),
        anomalous_samples: part.set.samples.iter().filter(|s| s.anomaly).count(),
    };
    Ok(Ablation {
        model: info.name.clone(),
        train: counts(train, train.videos.len()),
        test: counts(test, measured.len()),
        test_frames: measured.frames,
        test_positives: measured.positives,
        prompts: options.prompts.clone(),
        question: options.question.clone(),
        top_k: options.hunt.top_k,
        lambda: options.hunt.lambda,
        c: options.fit.c,
        seed: options.seed,
        bootstrap: options.bootstrap,
        heads: full.heads.clone(),
        sigma: full.sigma,
        threshold: full.threshold,
        rows: found,
        warnings,
    })
}

#[cfg(test)]
mod tests;
