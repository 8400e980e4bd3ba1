//! `headhunt evaluate`: frame-level metrics of a scores file against a data set's annotations.

use std::{
    fs::File,
    io::{BufReader, Read, Write},
    path::{Path, PathBuf},
};

use crate::{
    error::{Error, Kind, Result, ResultExt},
    eval::{Evaluation, counts::FrameCounts, evaluate, manifest, ucf_crime, xd_violence},
    limits::ANNOTATIONS_MAX_BYTES,
};

/// Whose annotations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum DatasetKind {
    /// `Temporal_Anomaly_Annotation_for_Testing_Videos.txt`
    UcfCrime,
    /// `annotations.txt`
    XdViolence,
    /// CSV: video,label,start_frame,end_frame (end exclusive; empty = whole video)
    Manifest,
}

/// Compute frame-level ROC-AUC and average precision of scores against annotations
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Whose annotations these are
    #[arg(long, value_enum)]
    pub dataset: DatasetKind,
    /// The annotation file
    #[arg(long, value_name = "FILE")]
    pub annotations: PathBuf,
    /// Frames of each video, CSV: video,frames
    #[arg(long, value_name = "CSV")]
    pub frame_counts: PathBuf,
    /// One JSON object a line: {"video": name, "stride": frames per score, "scores": [...]}, with
    /// exactly ceil(frames / stride) scores for every video of the data set
    #[arg(long, value_name = "JSONL")]
    pub scores: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Runs the command.
pub fn run(args: Args) -> Result<()> {
    let counts = FrameCounts::parse(&text(&args.frame_counts)?)
        .map_err(|e| e.context(args.frame_counts.display()))?;
    let annotations = text(&args.annotations)?;
    let dataset = match args.dataset {
        DatasetKind::UcfCrime => ucf_crime::parse(&annotations, &counts),
        DatasetKind::XdViolence => xd_violence::parse(&annotations, &counts),
        DatasetKind::Manifest => manifest::dataset(&annotations, &counts),
    }
    .map_err(|e| e.context(args.annotations.display()))?;
    let evaluation = evaluate(&dataset, BufReader::new(open(&args.scores)?))
        .map_err(|e| e.context(args.scores.display()))?;
    let out = if args.json {
        serde_json::to_string(&evaluation).or_kind(Kind::Internal, || "cannot write JSON".into())?
    } else {
        table(&evaluation)
    };
    writeln!(std::io::stdout().lock(), "{out}").or_kind(Kind::Unavailable, || {
        "cannot write to the standard output".into()
    })
}

fn table(e: &Evaluation) -> String {
    let rows = [
        ("videos", e.videos.to_string()),
        ("frames", e.frames.to_string()),
        ("positives", e.positives.to_string()),
        ("roc_auc", format!("{:.6}", e.roc_auc)),
        ("average_precision", format!("{:.6}", e.average_precision)),
        ("pr_auc_trapezoid", format!("{:.6}", e.pr_auc_trapezoid)),
    ];
    let lines: Vec<String> = rows
        .iter()
        .map(|(name, value)| format!("{name:<18}{value:>12}"))
        .collect();
    lines.join("\n")
}

fn open(path: &Path) -> Result<File> {
    File::open(path).map_err(|e| {
        let kind = if e.kind() == std::io::ErrorKind::NotFound {
            Kind::NotFound
        } else {
            Kind::InvalidArgument
        };
        Error::new(kind, format!("cannot open {}", path.display())).with_source(e)
    })
}

/// A whole file, which must be text of at most [`ANNOTATIONS_MAX_BYTES`].
fn text(path: &Path) -> Result<String> {
    let mut text = String::new();
    open(path)?
        .take(ANNOTATIONS_MAX_BYTES + 1)
        .read_to_string(&mut text)
        .or_kind(Kind::InvalidArgument, || {
            format!("cannot read {} as text", path.display())
        })?;
    if text.len() as u64 > ANNOTATIONS_MAX_BYTES {
        return Err(Error::exhausted(format!(
            "{} is larger than {ANNOTATIONS_MAX_BYTES} bytes",
            path.display()
        )));
    }
    Ok(text)
}
