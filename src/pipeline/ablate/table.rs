//! What an ablation found, with the paper's figures beside it.

use serde::Serialize;

use crate::{
    error::{Kind, Result, ResultExt},
    head::HeadId,
};

/// Videos and samples of a part.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PartCounts {
    /// Videos.
    pub videos: usize,
    /// Samples.
    pub samples: usize,
    /// Anomalous ones.
    pub anomalous_samples: usize,
}

/// The paper's figures of a row, as parts of 1: InternVL3-8B, 1 % of the training videos.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Paper {
    /// Frame ROC-AUC on UCF-Crime.
    pub ucf_crime_roc_auc: f64,
    /// Frame average precision on XD-Violence; none where the paper has no such figure.
    pub xd_violence_average_precision: Option<f64>,
}

/// A measured figure.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Figure {
    /// The value; of several seeds their mean.
    pub value: f64,
    /// 95 % interval by bootstrap over the test videos; none where it cannot be had.
    pub interval: Option<(f64, f64)>,
    /// Standard deviation over seeds, where there are several.
    pub deviation: Option<f64>,
}

/// One way of scoring.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// Stable name for scripts.
    pub key: &'static str,
    /// Name for people.
    pub name: &'static str,
    /// Frame ROC-AUC; none where the row is missing, as are the others.
    pub roc_auc: Option<Figure>,
    /// Frame average precision.
    pub average_precision: Option<Figure>,
    /// Frame F1 at the threshold of the row, for the rows that have one.
    pub f1: Option<f64>,
    /// That threshold.
    pub threshold: Option<f64>,
    /// What the paper has.
    pub paper: Option<Paper>,
    /// What a reader should know of this row.
    pub note: Option<String>,
    /// Why there is no figure.
    pub missing: Option<String>,
}

/// A whole ablation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Ablation {
    /// The model's name.
    pub model: String,
    /// What was fitted on.
    pub train: PartCounts,
    /// What was measured on.
    pub test: PartCounts,
    /// Frames that were measured.
    pub test_frames: u64,
    /// Anomalous ones.
    pub test_positives: u64,
    /// Prompts that heads were ranked over; the first is the scoring prompt.
    pub prompts: Vec<String>,
    /// What the text way asked.
    pub question: String,
    /// K.
    pub top_k: usize,
    /// λ.
    pub lambda: f64,
    /// C.
    pub c: f64,
    /// Seed of folds, random heads, network and bootstrap.
    pub seed: u64,
    /// Draws of the bootstrap.
    pub bootstrap: usize,
    /// The full method's heads.
    pub heads: Vec<HeadId>,
    /// σ_g that the rows are smoothed with, calibrated for the full method.
    pub sigma: f64,
    /// τ of the full method.
    pub threshold: f64,
    /// The rows, in the paper's order.
    pub rows: Vec<Row>,
    /// Things to know of the whole.
    pub warnings: Vec<String>,
}

impl Ablation {
    /// As JSON, indented.
    pub fn json(&self) -> Result<String> {
        serde_json::to_string_pretty(self)
            .or_kind(Kind::Internal, || "cannot write the ablation".into())
    }

    /// The paper's table beside the measured one, in per cent, for a terminal.
    pub fn table(&self) -> String {
        let mut lines = vec![
            format!(
                "{} trained on {} videos ({} samples), measured on {} videos ({} frames, {} \
                 anomalous)",
                self.model,
                self.train.videos,
                self.train.samples,
                self.test.videos,
                self.test_frames,
                self.test_positives
            ),
            format!(
                "K {}  lambda {}  C {}  seed {}  sigma {}  threshold {}  bootstrap {}",
                self.top_k,
                self.lambda,
                self.c,
                self.seed,
                self.sigma,
                self.threshold,
                self.bootstrap
            ),
            String::new(),
            format!(
                "{:<26}{:<26}{:<26}{:>7}   {:>7}{:>8}",
                "", "AUC [95 %]", "AP [95 %]", "F1", "UCF AUC", "XD AP"
            ),
        ];
        for row in &self.rows {
            let paper = |value: Option<f64>| value.map_or("-".to_owned(), percent);
            let (auc, ap) = (
                paper(row.paper.map(|p| p.ucf_crime_roc_auc)),
                paper(row.paper.and_then(|p| p.xd_violence_average_precision)),
            );
            let measured = match &row.missing {
                Some(_) => format!("{:<52}{:>7}", "missing, see below", ""),
                None => format!(
                    "{:<26}{:<26}{:>7}",
                    cell(row.roc_auc.as_ref()),
                    cell(row.average_precision.as_ref()),
                    row.f1.map_or(String::new(), percent)
                ),
            };
            lines.push(format!("{:<26}{measured}   {auc:>7}{ap:>8}", row.name));
        }
        lines.push(String::new());
        lines.push(
            "The two columns on the right are the paper's: InternVL3-8B, 1 % of the training \
             videos, UCF-Crime and XD-Violence."
                .to_owned(),
        );
        for row in &self.rows {
            if let Some(reason) = &row.missing {
                lines.push(format!("missing: {}: {reason}", row.name));
            }
            if let Some(note) = &row.note {
                lines.push(format!("{}: {note}", row.name));
            }
        }
        lines.extend(self.warnings.iter().map(|w| format!("warning: {w}")));
        lines.join("\n")
    }
}

fn percent(value: f64) -> String {
    format!("{:.2}", 100.0 * value)
}

fn cell(figure: Option<&Figure>) -> String {
    let Some(figure) = figure else {
        return "-".to_owned();
    };
    let mut text = percent(figure.value);
    if let Some(deviation) = figure.deviation {
        text.push_str(&format!("±{}", percent(deviation)));
    }
    if let Some((low, high)) = figure.interval {
        text.push_str(&format!(" [{}, {}]", percent(low), percent(high)));
    }
    text
}
