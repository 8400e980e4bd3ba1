//! Each row: p of every test sample by one way of scoring, and its figures.

use super::{AblateOptions, Figure, Paper, Part, Row, test_set::TestSet};
use crate::{
    engine::probe::ProbeInfo,
    error::{Error, Kind, Result},
    eval::{
        bootstrap::{Draws, Ranked},
        metrics,
    },
    head::HeadId,
    hunt::{
        self, Features,
        calibrate::{CalibrationVideo, calibrate_locator},
        folds::out_of_fold,
        random::{mean_and_deviation, random_heads},
    },
    score::{logistic::Logistic, mlp::Mlp, standard::Standard, svm::LinearSvm},
};

/// Features of samples, one row each.
type Rows = Vec<Vec<f32>>;

/// Draws of random heads.
const RANDOM_SEEDS: u64 = 10;

/// The threshold of the row that is about it.
const HALF: f64 = 0.5;

/// Ways of scoring, in the order of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Full,
    WholeLayers,
    BestLayer,
    RandomHeads,
    SinglePrompt,
    NoSmoothing,
    Half,
    Mlp,
    Svm,
    Text,
}

/// Every row.
pub(super) const ROWS: [Way; 10] = [
    Way::Full,
    Way::WholeLayers,
    Way::BestLayer,
    Way::RandomHeads,
    Way::SinglePrompt,
    Way::NoSmoothing,
    Way::Half,
    Way::Mlp,
    Way::Svm,
    Way::Text,
];

impl Way {
    fn key(self) -> &'static str {
        match self {
            Way::Full => "full",
            Way::WholeLayers => "whole_layers",
            Way::BestLayer => "best_layer",
            Way::RandomHeads => "random_heads",
            Way::SinglePrompt => "single_prompt",
            Way::NoSmoothing => "no_smoothing",
            Way::Half => "threshold_half",
            Way::Mlp => "mlp",
            Way::Svm => "svm",
            Way::Text => "text",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Way::Full => "full method",
            Way::WholeLayers => "whole layers",
            Way::BestLayer => "best layer's hidden state",
            Way::RandomHeads => "random heads",
            Way::SinglePrompt => "single prompt",
            Way::NoSmoothing => "no smoothing",
            Way::Half => "threshold 0.5",
            Way::Mlp => "MLP scorer",
            Way::Svm => "linear SVM scorer",
            Way::Text => "text answer Yes or No",
        }
    }

    fn paper(self) -> Option<Paper> {
        let (auc, ap) = match self {
            Way::Full => (0.8703, Some(0.8263)),
            Way::WholeLayers => (0.8015, Some(0.7210)),
            Way::RandomHeads => (0.6665, Some(0.4533)),
            Way::SinglePrompt => (0.8186, Some(0.7452)),
            Way::NoSmoothing => (0.8244, Some(0.7588)),
            Way::Half => (0.8032, Some(0.7149)),
            Way::Svm => (0.8495, None),
            Way::Mlp => (0.8725, None),
            Way::BestLayer | Way::Text => return None,
        };
        Some(Paper {
            ucf_crime_roc_auc: auc,
            xd_violence_average_precision: ap,
        })
    }
}

/// The full method as fitted on the training part, which the other rows start from.
pub(super) struct Full {
    labels: Vec<bool>,
    groups: Vec<usize>,
    pub heads: Vec<HeadId>,
    pub sigma: f64,
    pub threshold: f64,
    pub warnings: Vec<String>,
}

impl Full {
    pub fn new(train: &Part, options: &AblateOptions) -> Result<Full> {
        let labels = train.set.labels();
        let names = train.set.names();
        let hunted = hunt::hunt(
            &train.set.features,
            &labels,
            Some(&names),
            &options.hunt,
            &|_, _| (),
        )?;
        let groups: Vec<usize> = train.set.samples.iter().map(|s| s.video).collect();
        let z = train.set.gather(0, &hunted.expert_heads)?;
        let p = out_of_fold(&slices(&z), &labels, &groups, options.seed, &options.fit)?;
        let locator = calibrate_locator(&validation_videos(train, &p), options.edge)?;
        let mut warnings = hunted.notes;
        warnings.extend(locator.warnings);
        Ok(Full {
            labels,
            groups,
            heads: hunted.expert_heads,
            sigma: locator.sigma,
            threshold: locator.threshold,
            warnings,
        })
    }
}

/// Training videos with the out-of-fold p of their segments.
fn validation_videos(train: &Part, p: &[f64]) -> Vec<CalibrationVideo> {
    let mut videos: Vec<CalibrationVideo> = train
        .videos
        .iter()
        .map(|video| CalibrationVideo {
            name: video.name.clone(),
            spans: Vec::new(),
            p: Vec::new(),
            truth: video.anomalous.clone(),
            has_intervals: video.intervals_known,
        })
        .collect();
    for (sample, &p) in train.set.samples.iter().zip(p) {
        if let (Some(span), Some(video)) = (sample.span, videos.get_mut(sample.video)) {
            video.spans.push(span);
            video.p.push(p);
        }
    }
    videos.retain(|video| !video.spans.is_empty());
    videos
}

/// What every row is fitted on and measured with.
pub(super) struct Bench<'a> {
    pub train: &'a Part,
    pub test: &'a Part,
    pub measured: &'a TestSet,
    pub draws: &'a Draws,
    pub full: &'a Full,
    pub info: &'a ProbeInfo,
    pub options: &'a AblateOptions,
}

/// A way's ranked test frames (one, or one per seed), a threshold and a remark.
struct Scored {
    rankings: Vec<Ranked>,
    /// What F1 is taken of, where the way has a threshold.
    f1: Option<(f64, f64)>,
    note: Option<String>,
}

impl Bench<'_> {
    /// One row. A fit that fails makes the row a missing one; only cancellation is an error.
    pub fn row(&self, way: Way) -> Result<Row> {
        let mut row = Row {
            key: way.key(),
            name: way.name(),
            roc_auc: None,
            average_precision: None,
            f1: None,
            threshold: None,
            paper: way.paper(),
            note: None,
            missing: None,
        };
        match self
            .scored(way)
            .and_then(|scored| self.measure(scored, &mut row))
        {
            Ok(()) => Ok(row),
            Err(error) if error.kind() == Kind::Cancelled => Err(error),
            Err(error) => {
                row.missing = Some(format!("{error:#}"));
                Ok(row)
            }
        }
    }

    fn measure(&self, scored: Scored, row: &mut Row) -> Result<()> {
        let areas = scored
            .rankings
            .iter()
            .map(Ranked::areas)
            .collect::<Result<Vec<_>>>()?;
        let intervals = self.draws.intervals(&scored.rankings);
        let figure = |values: Vec<f64>, interval| {
            let (value, deviation) = mean_and_deviation(&values);
            Figure {
                value,
                interval,
                deviation: (values.len() > 1).then_some(deviation),
            }
        };
        row.roc_auc = Some(figure(
            areas.iter().map(|a| a.roc_auc).collect(),
            intervals.map(|i| i.roc_auc),
        ));
        row.average_precision = Some(figure(
            areas.iter().map(|a| a.average_precision).collect(),
            intervals.map(|i| i.average_precision),
        ));
        (row.threshold, row.f1) = scored.f1.unzip();
        row.note = scored.note;
        Ok(())
    }

    fn scored(&self, way: Way) -> Result<Scored> {
        match way {
            Way::Full => {
                let ranked = self.smoothed(&self.with_heads(&self.full.heads)?)?;
                let f1 = Some((self.full.threshold, ranked.f1(self.full.threshold)));
                Ok(scored(ranked, f1, None))
            }
            Way::WholeLayers => self.whole_layers(),
            Way::BestLayer => self.best_layer(),
            Way::RandomHeads => self.random_heads(),
            Way::SinglePrompt => self.single_prompt(),
            Way::NoSmoothing => {
                let p = self.with_heads(&self.full.heads)?;
                let ranked = self.measured.rank(&p, None)?;
                let f1 = Some((self.full.threshold, ranked.f1(self.full.threshold)));
                Ok(scored(ranked, f1, None))
            }
            Way::Half => {
                let ranked = self.smoothed(&self.with_heads(&self.full.heads)?)?;
                let f1 = Some((HALF, ranked.f1(HALF)));
                let note = "AUC and AP of the full method do not depend on a threshold; these are \
                            of the binarised p' > 0.5";
                Ok(scored(ranked.binarised(HALF), f1, Some(note.to_owned())))
            }
            Way::Mlp => {
                let (train, test) = self.z(&self.full.heads)?;
                let mlp = Mlp::fit(&slices(&train), &self.full.labels, self.options.seed)?;
                let p = each(&test, |z| mlp.probability(z))?;
                Ok(scored(self.smoothed(&p)?, None, None))
            }
            Way::Svm => {
                let (train, test) = self.z(&self.full.heads)?;
                let fitted =
                    LinearSvm::fit(&slices(&train), &self.full.labels, self.options.fit.c)?;
                let p = each(&test, |z| fitted.squashed(z))?;
                let note = "decision values through the logistic function, so that they can be \
                            smoothed; not calibrated";
                Ok(scored(self.smoothed(&p)?, None, Some(note.to_owned())))
            }
            Way::Text => {
                let note = format!("asked: {}", self.options.question);
                Ok(scored(self.smoothed(&self.test.yes)?, None, Some(note)))
            }
        }
    }

    fn smoothed(&self, p: &[f64]) -> Result<Ranked> {
        self.measured.rank(p, Some(self.full.sigma))
    }

    /// z of the training and of the test samples.
    fn z(&self, heads: &[HeadId]) -> Result<(Rows, Rows)> {
        let of = |part: &Part| part.set.gather(0, heads);
        Ok((of(self.train)?, of(self.test)?))
    }

    /// p of the test samples by the logistic scorer on these heads.
    fn with_heads(&self, heads: &[HeadId]) -> Result<Vec<f64>> {
        let (train, test) = self.z(heads)?;
        let scorer = Logistic::fit(&slices(&train), &self.full.labels, &self.options.fit)?;
        each(&test, |z| scorer.probability(z))
    }

    fn whole_layers(&self) -> Result<Scored> {
        let (train, test) = (
            under_first_prompt(&self.train.set.features),
            under_first_prompt(&self.test.set.features),
        );
        let scorer = Logistic::fit_wide(&train, &self.full.labels, &self.options.fit)?;
        let p = test
            .iter()
            .map(|row| scorer.probability(row))
            .collect::<Result<Vec<f64>>>()?;
        let note = format!(
            "all heads of all layers, {} numbers a sample",
            scorer.weights.len()
        );
        Ok(scored(self.smoothed(&p)?, None, Some(note)))
    }

    /// The layer whose hidden state ranks the training samples best, each scored by a fit without
    /// its own video; of equal ones the lowest.
    fn best_layer(&self) -> Result<Scored> {
        let mut best: Option<(usize, f64)> = None;
        for layer in 0..self.info.layers {
            let (train, _) = self.hidden(layer)?;
            let p = out_of_fold(
                &slices(&train),
                &self.full.labels,
                &self.full.groups,
                self.options.seed,
                &self.options.fit,
            )?;
            let ap = metrics::average_precision(&p, &self.full.labels)?;
            if best.is_none_or(|(_, highest)| ap > highest) {
                best = Some((layer, ap));
            }
        }
        let Some((layer, ap)) = best else {
            return Err(Error::internal("a model without layers"));
        };
        let (train, test) = self.hidden(layer)?;
        let scorer = Logistic::fit(&slices(&train), &self.full.labels, &self.options.fit)?;
        let p = each(&test, |row| scorer.probability(row))?;
        let note = format!(
            "last token's hidden state after layer {layer} (from 0), standardised; the layer has \
             the best AP of the training samples out of fold, {ap:.4}"
        );
        Ok(scored(self.smoothed(&p)?, None, Some(note)))
    }

    /// Hidden states of one layer, standardised by the training samples.
    fn hidden(&self, layer: usize) -> Result<(Rows, Rows)> {
        let of = |part: &Part| -> Result<Vec<Vec<f32>>> {
            part.hidden
                .iter()
                .map(|all| {
                    let width = all.len() / self.info.layers.max(1);
                    all.get(layer * width..(layer + 1) * width)
                        .map(<[f32]>::to_vec)
                        .ok_or_else(|| Error::internal("a sample lacks a layer's hidden state"))
                })
                .collect()
        };
        let (train, test) = (of(self.train)?, of(self.test)?);
        let standard = Standard::fit(&slices(&train));
        let apply = |rows: Vec<Vec<f32>>| -> Vec<Vec<f32>> {
            rows.iter()
                .map(|row| standard.of(row).map(|v| v as f32).collect())
                .collect()
        };
        Ok((apply(train), apply(test)))
    }

    fn random_heads(&self) -> Result<Scored> {
        let (layers, heads) = (self.info.layers, self.info.heads);
        let rankings = (0..RANDOM_SEEDS)
            .map(|n| {
                let seed = self.options.seed.wrapping_add(n);
                let drawn = random_heads(layers, heads, self.options.hunt.top_k, seed)?;
                self.smoothed(&self.with_heads(&drawn)?)
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(Scored {
            rankings,
            f1: None,
            note: Some(format!(
                "mean and standard deviation of {RANDOM_SEEDS} draws; the interval is of the mean"
            )),
        })
    }

    fn single_prompt(&self) -> Result<Scored> {
        let all = &self.train.set.features;
        let (note, heads) = if all.prompts == 1 {
            let note = "one prompt was given, so this is the full method";
            (Some(note.to_owned()), self.full.heads.clone())
        } else {
            let first = Features {
                prompts: 1,
                samples: all.samples,
                layers: all.layers,
                heads: all.heads,
                head_dim: all.head_dim,
                data: under_first_prompt(all).concat(),
            };
            let names = self.train.set.names();
            let hunted = hunt::hunt(
                &first,
                &self.full.labels,
                Some(&names),
                &self.options.hunt,
                &|_, _| (),
            )?;
            (None, hunted.expert_heads)
        };
        let ranked = self.smoothed(&self.with_heads(&heads)?)?;
        Ok(scored(ranked, None, note))
    }
}

fn scored(ranked: Ranked, f1: Option<(f64, f64)>, note: Option<String>) -> Scored {
    Scored {
        rankings: vec![ranked],
        f1,
        note,
    }
}

fn slices(rows: &[Vec<f32>]) -> Vec<&[f32]> {
    rows.iter().map(Vec::as_slice).collect()
}

fn each(rows: &[Vec<f32>], score: impl Fn(&[f32]) -> Result<f64>) -> Result<Vec<f64>> {
    rows.iter().map(|row| score(row)).collect()
}

/// Every sample's features of all heads under the first prompt.
fn under_first_prompt(features: &Features) -> Vec<&[f32]> {
    let width = features.layers * features.heads * features.head_dim;
    features
        .data
        .chunks_exact(width.max(1))
        .take(features.samples)
        .collect()
}
