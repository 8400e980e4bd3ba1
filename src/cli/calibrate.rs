//! `headhunt calibrate`: labelled clips to a profile.

use std::{path::PathBuf, sync::Arc};

use crate::{
    cli::{
        common::{ModelArgs, Progress, cancel_on_signal, check_output, check_report, open_video},
        labelled::{read_manifest, samples_note},
    },
    engine::probe::HeadProbe,
    error::{Error, Result},
    files::write_output,
    hunt::HuntOptions,
    limits::{FRAMES_PER_SEGMENT, PROFILE_HEADS_MAX, SEGMENT_FRAMES},
    model::{pixels::resize_bicubic_into, prompt::DEFAULT_PROMPTS},
    pipeline::{
        calibrate::{
            CalibrateOptions, CalibrateStage, Calibration, NormalFit, NormalOptions, calibrate,
            calibrate_normal, cut_normal_clips,
        },
        enough::{enough_footage, enough_samples},
        labelled::{Extraction, SamplingUnit},
        options::PictureOptions,
        prepare::PrepareOptions,
        samples::SampleSetBuilder,
    },
    profile::{Edge, check_name},
    score::logistic::FitOptions,
    segment::SegmentRule,
};

/// Arguments of `headhunt calibrate`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Labelled videos: CSV video,label,start_frame,end_frame; one row an interval, end exclusive,
    /// empty for the whole video; paths relative to the file
    #[arg(long, value_name = "M")]
    manifest: PathBuf,
    /// Prompt to rank heads over; may be given several times, the first is the one that detection
    /// runs with. Default: five prompts
    #[arg(long = "prompt", value_name = "P")]
    prompts: Vec<String>,
    /// Number of expert heads, or auto: the smallest in 1..32 whose cross-validated average precision
    /// is within one standard error of the best
    #[arg(long, value_name = "K", default_value = "5", value_parser = parse_top_k)]
    top_k: TopK,
    /// Weight of a head's spread over prompts in its robust score
    #[arg(long, value_name = "L", default_value_t = 0.5)]
    lambda: f64,
    /// Part of the videos that is kept from hunting and fitting for validation, 0 to 0.9; 0: none, the
    /// locator is calibrated out of fold on all
    #[arg(long, value_name = "F", default_value_t = 0.0)]
    validation: f64,
    /// What one sample is: auto (segments where the frames of any clip are known, else whole videos),
    /// segment or whole-video
    #[arg(long, value_name = "UNIT", default_value = "auto", value_parser = ["auto", "segment", "whole-video"])]
    sampling: String,
    /// Seed of folds and splits
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Inverse strength of the scorer's penalty
    #[arg(long, value_name = "C", default_value_t = 1.0)]
    c: f64,
    /// Leave the intercept out of the penalty (liblinear, the reference, penalises it)
    #[arg(long)]
    free_intercept: bool,
    /// Ends of a smoothed sequence: renormalize, or zero as in the reference
    #[arg(long, value_name = "EDGE", default_value = "renormalize", value_parser = ["renormalize", "zero"])]
    edge: String,
    /// Frames per segment
    #[arg(long, value_name = "N", default_value_t = SEGMENT_FRAMES)]
    segment_frames: u32,
    /// Cut by seconds of media time instead of frames: for profiles that cameras will use (1.6)
    #[arg(long, value_name = "S", conflicts_with = "segment_frames")]
    segment_seconds: Option<f64>,
    /// Profile to write; its file name without .json is the profile's name
    #[arg(long, value_name = "PROFILE.json")]
    out: PathBuf,
    /// Calibrate on normal clips alone: the score is the distance from normal footage, the threshold is
    /// placed by a rate of false alarms
    #[arg(long, requires = "false_alarms_per_day")]
    normal_only: bool,
    /// False alarms per camera and day to aim at, with --normal-only; less than 3/R days of normal
    /// footage cannot show it and is refused
    #[arg(long, value_name = "R", requires = "normal_only")]
    false_alarms_per_day: Option<f64>,
    /// With less footage, take the threshold that lies above all of it and tell the upper bound
    #[arg(long, requires = "normal_only")]
    accept_upper_bound: bool,
    /// Where to put a page with pictures (HTML, self-contained)
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

/// K as asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TopK {
    /// By cross-validation.
    Auto,
    /// This many.
    Of(usize),
}

fn parse_top_k(text: &str) -> std::result::Result<TopK, String> {
    match text {
        "auto" => Ok(TopK::Auto),
        _ => text
            .parse()
            .map(TopK::Of)
            .map_err(|_| "give a number, or auto".to_owned()),
    }
}

impl Args {
    fn options(&self) -> Result<CalibrateOptions> {
        let name = self
            .out
            .file_stem()
            .and_then(|stem| stem.to_str())
            .ok_or_else(|| Error::invalid("--out: give a file name in UTF-8, e.g. site.json"))?;
        // Before hours of passes, not when the profile is written.
        check_name(name).map_err(|e| e.context("--out names the profile"))?;
        if let TopK::Of(k) = self.top_k
            && k > PROFILE_HEADS_MAX
        {
            return Err(Error::invalid(format!(
                "--top-k {k}: a profile has at most {PROFILE_HEADS_MAX} heads"
            )));
        }
        let prompts = if self.prompts.is_empty() {
            DEFAULT_PROMPTS.map(str::to_owned).to_vec()
        } else {
            self.prompts.clone()
        };
        let rule = match self.segment_seconds {
            Some(seconds) => SegmentRule::Seconds(seconds),
            None => SegmentRule::Frames(self.segment_frames),
        };
        rule.validate()?;
        Ok(CalibrateOptions {
            name: name.to_owned(),
            prompts,
            rule,
            frames_per_segment: FRAMES_PER_SEGMENT,
            hunt: HuntOptions {
                top_k: match self.top_k {
                    TopK::Of(k) => k,
                    TopK::Auto => HuntOptions::default().top_k,
                },
                lambda: self.lambda,
            },
            auto_top_k: self.top_k == TopK::Auto,
            validation_fraction: self.validation,
            fit: FitOptions {
                c: self.c,
                penalize_intercept: !self.free_intercept,
            },
            seed: self.seed,
            edge: if self.edge == "zero" {
                Edge::Zero
            } else {
                Edge::Renormalize
            },
        })
    }
}

/// Runs the command.
pub fn run(args: Args) -> Result<()> {
    check_output("--out", &args.out)?;
    let options = args.options()?;
    if let Some(report) = &args.report {
        check_report(report, &args.out)?;
    }
    let unit = match args.sampling.as_str() {
        "segment" => SamplingUnit::Segment,
        "whole-video" => SamplingUnit::WholeVideo,
        _ => SamplingUnit::Auto,
    };
    let mut videos = read_manifest(&args.manifest, unit)?;
    let normal = args
        .false_alarms_per_day
        .filter(|_| args.normal_only)
        .map(|rate| NormalOptions {
            calibrate: options.clone(),
            false_alarms_per_day: rate,
            accept_upper_bound: args.accept_upper_bound,
        });
    if normal.is_some() && unit != SamplingUnit::WholeVideo {
        cut_normal_clips(&mut videos);
    }
    let cancel = cancel_on_signal()?;
    let model = args.model.load(None)?;
    let info = model.info();
    match &normal {
        Some(normal) => {
            normal.check(info, &videos)?;
            enough_footage(&videos, open_video, normal, &cancel)?;
        }
        None => {
            options.check(info, &videos)?;
            enough_samples(&videos, open_video, options.rule, &cancel)?;
        }
    }
    let prepare = PrepareOptions {
        rule: options.rule,
        frames_per_segment: options.frames_per_segment,
        image_side: info.image_side,
        keep_smaller: false,
        resize: Arc::new(resize_bicubic_into),
        pictures: PictureOptions::default(),
    };
    let progress = Progress::new("extract");
    let mut builder = SampleSetBuilder::new(info, options.prompts.len());
    if normal.is_none() {
        builder = builder.for_a_hunt();
    }
    Extraction {
        probe: &model,
        open: open_video,
        prepare: &prepare,
        prompts: &options.prompts,
        cancel: &cancel,
    }
    .run(
        &videos,
        &|e| {
            progress.tell(
                e.videos.0,
                e.videos.1,
                &format!("videos, {} samples", e.samples),
            )
        },
        &mut |sample, features| builder.push(sample, &features),
    )?;
    progress.finish();
    let set = builder.finish();
    say!("samples    {}", samples_note(&set.labels()));
    let fingerprint = |layers| model.fingerprint(layers);
    let silent = |_: CalibrateStage, _: usize, _: usize| ();
    let calibration = match &normal {
        Some(normal) => {
            calibrate_normal(&set, &videos, info, fingerprint, normal, &cancel, &silent)?
        }
        None => calibrate(&set, &videos, info, fingerprint, &options, &cancel, &silent)?,
    };
    calibration.profile.save(&args.out)?;
    print(&calibration, &args.out);
    if let Some(path) = &args.report {
        let page = calibration.report.html()?;
        write_output(path, |out| out.write_all(page.as_bytes()))?;
        say!("report     {}", path.display());
    }
    Ok(())
}

fn print(calibration: &Calibration, out: &std::path::Path) {
    let profile = &calibration.profile;
    say!("heads      layer head  robust score");
    let scores = calibration.report.ranking.as_ref();
    for id in &profile.heads {
        let rss = scores.and_then(|ranking| ranking.rss.get(id.layer * ranking.heads + id.head));
        say!(
            "           {:5} {:4}  {:.4}",
            id.layer,
            id.head,
            rss.unwrap_or(&f64::NAN)
        );
    }
    let mut shown = String::new();
    if let Some(locator) = &calibration.locator {
        let on = if calibration.report.samples.validation > 0 {
            "validation clips"
        } else {
            "out of fold"
        };
        shown = format!("(frame F1 {:.3}, {on})", locator.f1);
    }
    if let Some(NormalFit { rate, .. }) = &calibration.normal {
        shown = format!(
            "({} false alarms in {:.2} hours of normal footage: at most {:.1} a day at 95% confidence)",
            rate.events,
            rate.days * 24.0,
            rate.upper_bound_per_day
        );
    }
    say!(
        "locator    sigma {:.2} segments, threshold {:.2} {shown}",
        profile.locator.sigma,
        profile.locator.threshold
    );
    for row in &calibration.report.comparison {
        say!(
            "held out   {}: ROC-AUC {:.4}, average precision {:.4} ({})",
            row.name,
            row.roc_auc,
            row.average_precision,
            row.fitted_on
        );
    }
    for warning in &calibration.warnings {
        say!("warning    {warning}");
    }
    say!("profile    {} ({})", out.display(), profile.name);
}
