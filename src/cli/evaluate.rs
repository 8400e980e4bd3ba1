//! `headhunt evaluate`: metrics of a scores file against a data set's annotations.

use std::{
    fs::File,
    io::{BufReader, Read},
    path::{Path, PathBuf},
};

use crate::{
    error::{Error, Kind, Result, ResultExt},
    eval::{
        Dataset, EvaluateOptions, Evaluation, counts::FrameCounts, evaluate_with, manifest,
        ucf_crime, xd_violence,
    },
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

/// Compute ROC-AUC and average precision of frames, per class too, F1 of events and false alarms per
/// hour of scores against annotations
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
    /// A frame belongs to an event where its score is above this; scores are taken as smoothed
    /// already
    #[arg(long, value_name = "T", default_value_t = EvaluateOptions::default().threshold)]
    pub threshold: f64,
    /// Frames a second of videos whose line in the scores has no "fps"; for false alarms per hour
    #[arg(long, value_name = "FPS", default_value_t = EvaluateOptions::default().fps)]
    pub fps: f64,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Runs the command.
pub fn run(args: Args) -> Result<()> {
    let dataset = dataset(args.dataset, &args.annotations, &args.frame_counts)?;
    let options = EvaluateOptions {
        threshold: args.threshold,
        fps: args.fps,
    };
    let evaluation = evaluate_with(&dataset, &options, BufReader::new(open(&args.scores)?))
        .map_err(|e| e.context(args.scores.display()))?;
    let out = if args.json {
        serde_json::to_string(&evaluation).or_kind(Kind::Internal, || "cannot write JSON".into())?
    } else {
        table(&evaluation)
    };
    say!("{out}");
    Ok(())
}

/// Annotations with the frame counts of their videos.
fn dataset(kind: DatasetKind, annotations: &Path, frame_counts: &Path) -> Result<Dataset> {
    let counts =
        FrameCounts::parse(&text(frame_counts)?).map_err(|e| e.context(frame_counts.display()))?;
    let shown = annotations.display();
    let annotations = text(annotations)?;
    match kind {
        DatasetKind::UcfCrime => ucf_crime::parse(&annotations, &counts),
        DatasetKind::XdViolence => xd_violence::parse(&annotations, &counts),
        DatasetKind::Manifest => manifest::dataset(&annotations, &counts),
    }
    .map_err(|e| e.context(shown))
}

fn table(e: &Evaluation) -> String {
    let row = |name: &str, value: String| format!("{name:<24}{value:>12}");
    let mut lines = vec![
        row("videos", e.videos.to_string()),
        row("frames", e.frames.to_string()),
        row("positives", e.positives.to_string()),
        row("roc_auc", format!("{:.6}", e.roc_auc)),
        row("average_precision", format!("{:.6}", e.average_precision)),
        row("pr_auc_trapezoid", format!("{:.6}", e.pr_auc_trapezoid)),
    ];
    for class in &e.per_class {
        let auc = class
            .roc_auc
            .map_or_else(|| "none".to_owned(), |auc| format!("{auc:.6}"));
        lines.push(row(&format!("roc_auc {}", class.class), auc));
    }
    let events = &e.events;
    lines.push(row("threshold", events.threshold.to_string()));
    lines.push(row("annotated events", events.annotated.to_string()));
    lines.push(row("predicted events", events.predicted.to_string()));
    for score in &events.scores {
        lines.push(row(
            &format!("event F1 at IoU {:.1}", score.iou),
            format!("{:.6}", score.f1),
        ));
    }
    lines.push(row("false alarms", events.false_alarms.to_string()));
    let rate = events
        .false_alarms_per_hour
        .map_or_else(|| "none".to_owned(), |rate| format!("{rate:.3}"));
    lines.push(row("false alarms per hour", rate));
    let mut hours = format!("{:.2} hours of normal frames", events.normal_hours);
    if let Some(fps) = e.assumed_fps {
        hours.push_str(&format!(
            "; {fps} frames a second where the scores do not say"
        ));
    }
    lines.push(hours);
    lines.join("\n")
}

pub(super) fn open(path: &Path) -> Result<File> {
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
pub(super) fn text(path: &Path) -> Result<String> {
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
