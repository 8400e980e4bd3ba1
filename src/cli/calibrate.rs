//! `headhunt calibrate`: labelled clips to a profile.

use std::{path::PathBuf, sync::Arc};

use crate::{
    cli::{
        common::{ModelArgs, Progress, cancel_on_signal, check_output, open_video},
        labelled::{read_manifest, samples_note},
    },
    engine::probe::HeadProbe,
    error::{Error, Result},
    hunt::HuntOptions,
    limits::{FRAMES_PER_SEGMENT, SEGMENT_FRAMES},
    model::{pixels::resize_bicubic, prompt::DEFAULT_PROMPTS},
    pipeline::{
        calibrate::{CalibrateOptions, Calibration, calibrate},
        labelled::{Extraction, SamplingUnit},
        options::PictureOptions,
        prepare::PrepareOptions,
        samples::SampleSetBuilder,
    },
    profile::Edge,
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
    /// Number of expert heads
    #[arg(long, value_name = "K", default_value_t = 5)]
    top_k: usize,
    /// Weight of a head's spread over prompts in its robust score
    #[arg(long, value_name = "L", default_value_t = 0.5)]
    lambda: f64,
    /// Seed of the folds that the locator is calibrated on
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
}

impl Args {
    fn options(&self) -> Result<CalibrateOptions> {
        let name = self
            .out
            .file_stem()
            .and_then(|stem| stem.to_str())
            .ok_or_else(|| Error::invalid("--out: give a file name in UTF-8, e.g. site.json"))?;
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
                top_k: self.top_k,
                lambda: self.lambda,
            },
            auto_top_k: false,
            validation_fraction: 0.0,
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
    check_output(&args.out)?;
    let options = args.options()?;
    let videos = read_manifest(&args.manifest, SamplingUnit::Auto)?;
    let cancel = cancel_on_signal()?;
    let model = args.model.load(None)?;
    let info = model.info();
    options.check(info, &videos)?;
    let prepare = PrepareOptions {
        rule: options.rule,
        frames_per_segment: options.frames_per_segment,
        image_side: info.image_side,
        resize: Arc::new(resize_bicubic),
        pictures: PictureOptions::default(),
    };
    let progress = Progress::new("extract");
    let mut builder = SampleSetBuilder::new(info, options.prompts.len());
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
    println!("samples    {}", samples_note(&set.labels()));
    let calibration = calibrate(
        &set,
        &videos,
        info,
        |layers| model.fingerprint(layers),
        &options,
        &cancel,
        &|_, _, _| (),
    )?;
    calibration.profile.save(&args.out)?;
    print(&calibration, &args.out);
    Ok(())
}

fn print(calibration: &Calibration, out: &std::path::Path) {
    let profile = &calibration.profile;
    println!("heads      layer head  robust score");
    for id in &profile.heads {
        let rss = calibration
            .hunt
            .rss
            .get(id.layer * calibration.hunt.heads + id.head);
        println!(
            "           {:5} {:4}  {:.4}",
            id.layer,
            id.head,
            rss.unwrap_or(&f64::NAN)
        );
    }
    println!(
        "locator    sigma {:.2} segments, threshold {:.2} (frame F1 {:.3}, out of fold)",
        profile.locator.sigma, profile.locator.threshold, calibration.locator.f1
    );
    for warning in &calibration.warnings {
        println!("warning    {warning}");
    }
    println!("profile    {} ({})", out.display(), profile.name);
}
