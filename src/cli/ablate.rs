//! `headhunt ablate`: the paper's ablations on labelled clips.

use std::{path::PathBuf, sync::Arc};

use crate::{
    cli::{
        common::{ModelArgs, Progress, cancel_on_signal, check_output, open_video},
        labelled::{read_manifest, samples_note},
    },
    engine::probe::HeadProbe,
    error::Result,
    files::write_output,
    hunt::HuntOptions,
    limits::{FRAMES_PER_SEGMENT, SEGMENT_FRAMES},
    model::{pixels::resize_bicubic_into, prompt::DEFAULT_PROMPTS},
    pipeline::{
        ablate::{AblateOptions, QUESTION, Recorder, ablate, extract, split},
        labelled::{Extraction, SamplingUnit},
        options::PictureOptions,
        prepare::PrepareOptions,
    },
    profile::Edge,
    score::logistic::FitOptions,
    segment::SegmentRule,
};

/// Arguments of `headhunt ablate`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Labelled videos to fit on: CSV video,label,start_frame,end_frame, as for `calibrate`
    #[arg(long, value_name = "M")]
    manifest: PathBuf,
    /// Labelled videos to measure on, with intervals; without it a part of the manifest's videos is
    /// kept from fitting
    #[arg(long, value_name = "T", conflicts_with = "validation")]
    test_manifest: Option<PathBuf>,
    /// Part of the manifest's videos, of each class, to measure on
    #[arg(long, value_name = "PART", default_value_t = 0.3)]
    validation: f64,
    /// Prompt to rank heads over; may be given several times, the first is the scoring prompt and
    /// the one of the single-prompt row. Default: five prompts
    #[arg(long = "prompt", value_name = "P")]
    prompts: Vec<String>,
    /// What the text way asks, to be answered with Yes or No
    #[arg(long, value_name = "Q", default_value = QUESTION)]
    question: String,
    /// Number of expert heads, and of random ones
    #[arg(long, value_name = "K", default_value_t = 5)]
    top_k: usize,
    /// Weight of a head's spread over prompts in its robust score
    #[arg(long, value_name = "L", default_value_t = 0.5)]
    lambda: f64,
    /// Inverse strength of the scorers' penalty
    #[arg(long, value_name = "C", default_value_t = 1.0)]
    c: f64,
    /// Seed of the split, folds, random heads, network and bootstrap
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Draws of the bootstrap over test videos; 0: no intervals
    #[arg(long, value_name = "B", default_value_t = 1000)]
    bootstrap: usize,
    /// Frames per segment
    #[arg(long, value_name = "N", default_value_t = SEGMENT_FRAMES)]
    segment_frames: u32,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// File to write the same JSON object to
    #[arg(long, value_name = "JSON")]
    out: Option<PathBuf>,
}

/// Runs the command.
pub fn run(args: Args) -> Result<()> {
    if let Some(out) = &args.out {
        check_output("--out", out)?;
    }
    let rule = SegmentRule::Frames(args.segment_frames);
    rule.validate()?;
    let options = AblateOptions {
        prompts: if args.prompts.is_empty() {
            DEFAULT_PROMPTS.map(str::to_owned).to_vec()
        } else {
            args.prompts
        },
        question: args.question,
        hunt: HuntOptions {
            top_k: args.top_k,
            lambda: args.lambda,
        },
        fit: FitOptions {
            c: args.c,
            ..FitOptions::default()
        },
        seed: args.seed,
        bootstrap: args.bootstrap,
        edge: Edge::Renormalize,
    };
    let videos = read_manifest(&args.manifest, SamplingUnit::Auto)?;
    let (train, test) = match &args.test_manifest {
        Some(path) => (videos, read_manifest(path, SamplingUnit::Auto)?),
        None => split(videos, args.validation, args.seed)?,
    };
    let cancel = cancel_on_signal()?;
    let model = args.model.load(None)?;
    options.check(model.info(), &train, &test)?;
    let prepare = PrepareOptions {
        rule,
        frames_per_segment: FRAMES_PER_SEGMENT,
        image_side: model.info().image_side,
        keep_smaller: false,
        resize: Arc::new(resize_bicubic_into),
        pictures: PictureOptions::default(),
    };
    let recorder = Recorder::new(model, options.question.clone())?;
    let extraction = Extraction {
        probe: &recorder,
        open: open_video,
        prepare: &prepare,
        prompts: &options.prompts,
        cancel: &cancel,
    };
    let progress = Progress::new("extract");
    let (train, test) = extract(&recorder, &extraction, train, test, &|e| {
        progress.tell(
            e.videos.0,
            e.videos.1,
            &format!("videos, {} samples", e.samples),
        );
    })?;
    progress.finish();
    remark!(
        "fit on {}; measure on {}",
        samples_note(&train.set.labels()),
        samples_note(&test.set.labels())
    );
    let progress = Progress::new("rows");
    let info = recorder.info();
    let ablation = ablate(&train, &test, info, &options, &cancel, &|done, all| {
        progress.tell(done, all, "rows");
    })?;
    progress.finish();
    let json = ablation.json()?;
    // Printed first: hours of passes are worth more than the file.
    if args.json {
        say!("{json}");
    } else {
        say!("{}", ablation.table());
    }
    match &args.out {
        Some(out) => write_output(out, |out| writeln!(out, "{json}")),
        None => Ok(()),
    }
}
