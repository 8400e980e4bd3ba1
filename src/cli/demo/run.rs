//! `headhunt demo`: the main job from nothing, over the real code path.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;

use super::{
    baseline::{FrameScores, frame_scores, probabilities, random_heads},
    client::{self, Detection},
    clips::{self, Clip, ClipSets},
    report::{self, ClipCurve, Figures},
    scene::FPS,
};
use crate::{
    cli::common::{Progress, cancel_on_signal, open_video},
    engine::probe::HeadProbe,
    error::{Error, Kind, Result, ResultExt},
    hunt::HuntOptions,
    limits::{FRAMES_PER_SEGMENT, SEGMENT_FRAMES},
    model::{
        InternVl, LoadOptions,
        device::DeviceSpec,
        pixels::resize_bicubic_into,
        prompt::DEFAULT_PROMPTS,
        synthesize::{Dtype, Layout, Preset, synthesize},
    },
    pipeline::{
        calibrate::{CalibrateOptions, Calibration, calibrate},
        labelled::{Extraction, LabelledVideo},
        options::PictureOptions,
        prepare::PrepareOptions,
        samples::{SampleSet, SampleSetBuilder},
    },
    profile::Edge,
    score::logistic::FitOptions,
    segment::SegmentRule,
};

/// Draws of random heads that the hunted ones are held against.
const DRAWS: u64 = 10;

/// Longest wait for the server's warm-up.
const WARM_UP: Duration = Duration::from_secs(120);

/// Arguments of `headhunt demo`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Directory for the checkpoint, clips, profile and report; made where it is missing
    #[arg(long, value_name = "DIR", default_value = "demo-out")]
    out: PathBuf,
    /// Seed of weights, clips and folds. Random weights differ in how much their heads can tell; the
    /// default was chosen among three on held-out training clips
    #[arg(long, value_name = "N", default_value_t = 2)]
    seed: u64,
    /// Labelled clips to hunt and calibrate on
    #[arg(long, value_name = "N", default_value_t = 24)]
    labelled: usize,
    /// Clips to stream that nothing was fitted on
    #[arg(long, value_name = "N", default_value_t = 12)]
    unseen: usize,
}

/// Runs the command.
pub fn run(args: Args) -> Result<()> {
    let begun = Instant::now();
    let cancel = cancel_on_signal()?;
    fs::create_dir_all(&args.out).or_kind(Kind::InvalidArgument, || {
        format!("cannot make {}", args.out.display())
    })?;
    say!(
        "HeadHunt demo: random weights, synthetic clips, the real code path.\n\
         What it shows: everything from video bytes to events works together.\n\
         What it does not show: accuracy on real footage; a real InternVL3 checkpoint brings what\n\
         the model has learnt about the world, these random weights know nothing.\n"
    );
    let model_dir = step("checkpoint", || checkpoint(&args))?;
    let clip_dir = args.out.join("clips");
    let ClipSets { train, unseen, .. } = step("clips", || {
        clips::render_sets(&clip_dir, args.seed, args.labelled, args.unseen)
    })?;
    let model = InternVl::load(
        &model_dir,
        &LoadOptions {
            device: DeviceSpec::Cpu,
            ..LoadOptions::default()
        },
    )?;
    let options = options(args.seed);
    let train_videos = labelled_videos(&clip_dir, &train);
    let unseen_videos = labelled_videos(&clip_dir, &unseen);
    let train_set = features(
        "labelled clips",
        &model,
        &train_videos,
        &options.prompts,
        &cancel,
    )?;
    let calibration = step("hunt and calibrate", || {
        calibrate(
            &train_set,
            &train_videos,
            model.info(),
            |layers| model.fingerprint(layers),
            &options,
            &cancel,
            &|_, _, _| (),
        )
    })?;
    let profile_path = args.out.join("demo.json");
    calibration.profile.save(&profile_path)?;
    tell(&calibration);

    let detections = step("serve and stream", || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .or_kind(Kind::Internal, || "cannot start the client".to_owned())?;
        runtime.block_on(stream(&model_dir, &profile_path, &unseen_videos, &cancel))
    })?;

    let truth: Vec<_> = unseen.iter().map(|clip| clip.intervals.clone()).collect();
    // The yardstick: the same unseen clips with all heads, in this process.
    let unseen_set = features(
        "unseen clips",
        &model,
        &unseen_videos,
        &options.prompts[..1],
        &cancel,
    )?;
    let p = probabilities(&train_set, &unseen_set, &calibration.profile.heads)?;
    let offline = frame_scores(&unseen_set, &p, &truth, &calibration.profile.locator)?;
    let random = random_heads(
        &train_set,
        &unseen_set,
        &truth,
        &calibration.profile.locator,
        calibration.profile.heads.len(),
        DRAWS,
    )?;
    let streamed = streamed_scores(&unseen, &detections);
    table(&unseen, &detections);
    summary(
        &args,
        &calibration,
        &unseen,
        &detections,
        &streamed,
        &offline,
        random,
    )?;
    say!("the whole demo took {:.0} s", begun.elapsed().as_secs_f64());
    Ok(())
}

/// Runs a step and says how long it took.
fn step<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let begun = Instant::now();
    let made = work().map_err(|e| e.context(what))?;
    say!("{what:20} {:6.1} s", begun.elapsed().as_secs_f64());
    Ok(made)
}

/// What says that a directory's checkpoint is the demo's, and may be replaced.
const MARK: &str = ".headhunt-demo";

fn checkpoint(args: &Args) -> Result<PathBuf> {
    let dir = args.out.join("model");
    let mark = args.out.join(MARK);
    if !dir.exists() {
        fs::create_dir_all(&args.out)
            .and_then(|()| fs::write(&mark, "model here is made by `headhunt demo`\n"))
            .or_kind(Kind::FailedPrecondition, || {
                format!("cannot write to {}", args.out.display())
            })?;
    } else if !mark.exists() {
        return Err(Error::invalid(format!(
            "{} is there, and this demo did not make it: remove it, or give another --out",
            dir.display()
        )));
    } else {
        fs::remove_dir_all(&dir).or_kind(Kind::InvalidArgument, || {
            format!("cannot replace {}", dir.display())
        })?;
    }
    synthesize(Preset::Demo, args.seed, Layout::Hf, Dtype::F32, &dir)?;
    Ok(dir)
}

fn options(seed: u64) -> CalibrateOptions {
    CalibrateOptions {
        name: "demo".to_owned(),
        prompts: DEFAULT_PROMPTS.map(str::to_owned).to_vec(),
        rule: SegmentRule::Frames(SEGMENT_FRAMES),
        frames_per_segment: FRAMES_PER_SEGMENT,
        hunt: HuntOptions {
            top_k: 5,
            lambda: 0.5,
        },
        auto_top_k: false,
        validation_fraction: 0.0,
        fit: FitOptions::default(),
        seed,
        edge: Edge::Renormalize,
    }
}

fn labelled_videos(dir: &Path, clips: &[Clip]) -> Vec<LabelledVideo> {
    clips
        .iter()
        .map(|clip| LabelledVideo {
            path: dir.join(&clip.file),
            name: clip.file.clone(),
            anomaly: !clip.intervals.is_empty(),
            anomalous: clip.intervals.clone(),
            intervals_known: true,
        })
        .collect()
}

fn features(
    what: &str,
    model: &InternVl,
    videos: &[LabelledVideo],
    prompts: &[String],
    cancel: &CancellationToken,
) -> Result<SampleSet> {
    let begun = Instant::now();
    let prepare = PrepareOptions {
        rule: SegmentRule::Frames(SEGMENT_FRAMES),
        frames_per_segment: FRAMES_PER_SEGMENT,
        image_side: model.info().image_side,
        keep_smaller: false,
        resize: Arc::new(resize_bicubic_into),
        pictures: PictureOptions::default(),
    };
    let progress = Progress::new(what);
    let mut builder = SampleSetBuilder::new(model.info(), prompts.len());
    Extraction {
        probe: model,
        open: open_video,
        prepare: &prepare,
        prompts,
        cancel,
    }
    .run(
        videos,
        &|e| progress.tell(e.videos.0, e.videos.1, "videos"),
        &mut |sample, features| builder.push(sample, &features),
    )?;
    progress.finish();
    let set = builder.finish();
    say!(
        "{what:20} {:6.1} s   {} segments, {} prompts, all heads",
        begun.elapsed().as_secs_f64(),
        set.samples.len(),
        prompts.len()
    );
    Ok(set)
}

/// The server as a child process; it ends with this value.
struct Server(Child);

impl Server {
    /// Waits until it has ended by itself.
    async fn ended(&mut self) -> Error {
        loop {
            match self.0.try_wait() {
                Ok(None) => tokio::time::sleep(Duration::from_millis(100)).await,
                Ok(Some(status)) => {
                    return Error::precondition(format!(
                        "the server ended ({status}) before it served; it says why above"
                    ));
                }
                Err(e) => return Error::internal("cannot wait for the server").with_source(e),
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; either way nothing is left to do about it.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start_server(model: &Path, profile: &Path) -> Result<(Server, String)> {
    let free = TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .or_kind(Kind::Unavailable, || "no free port on 127.0.0.1".to_owned())?;
    let program = std::env::current_exe().or_kind(Kind::Internal, || {
        "cannot find this program's file".to_owned()
    })?;
    let child = Command::new(program)
        .arg("serve")
        .args(["--device", "cpu", "--listen", &free.to_string()])
        .arg("--model")
        .arg(model)
        .arg("--profile")
        .arg(profile)
        .env("HEADHUNT__SERVER__METRICS_LISTEN", "")
        .env("HEADHUNT__LOG__LEVEL", "warn")
        .stdin(Stdio::null())
        .spawn()
        .or_kind(Kind::Internal, || {
            "cannot start `headhunt serve`".to_owned()
        })?;
    Ok((Server(child), free.to_string()))
}

async fn stream(
    model: &Path,
    profile: &Path,
    videos: &[LabelledVideo],
    cancel: &CancellationToken,
) -> Result<Vec<Detection>> {
    let (mut server, address) = start_server(model, profile)?;
    let channel = tokio::select! {
        biased;
        () = cancel.cancelled() => return Err(Error::cancelled("stopped")),
        ended = server.ended() => return Err(ended),
        channel = client::wait_until_serving(&address, WARM_UP) => channel?,
    };
    let mut detections = Vec::with_capacity(videos.len());
    for clip in videos {
        tokio::select! {
            detection = client::detect(channel.clone(), &clip.path) => detections.push(detection?),
            () = cancel.cancelled() => return Err(Error::cancelled("stopped")),
        }
    }
    Ok(detections)
}

fn streamed_scores(clips: &[Clip], detections: &[Detection]) -> FrameScores {
    let mut all = FrameScores::default();
    for (clip, detection) in clips.iter().zip(detections) {
        for (frame, &(_, smoothed)) in (0u64..).zip(&detection.frames) {
            all.scores.push(smoothed);
            all.positive
                .push(clip.intervals.iter().any(|&(a, b)| (a..b).contains(&frame)));
        }
    }
    all
}

fn tell(calibration: &Calibration) {
    let profile = &calibration.profile;
    let heads: Vec<String> = profile
        .heads
        .iter()
        .map(|id| format!("({},{})", id.layer, id.head))
        .collect();
    say!(
        "\nexpert heads (layer,head): {}   sigma {:.2}   threshold {:.2}   out-of-fold frame F1 {:.3}",
        heads.join(" "),
        profile.locator.sigma,
        profile.locator.threshold,
        calibration
            .locator
            .as_ref()
            .map_or(f64::NAN, |locator| locator.f1)
    );
    for warning in &calibration.warnings {
        say!("warning: {warning}");
    }
    say!("");
}

fn intervals(all: &[(f64, f64)]) -> String {
    if all.is_empty() {
        return "-".to_owned();
    }
    let texts: Vec<String> = all.iter().map(|(a, b)| format!("{a:.1}-{b:.1}")).collect();
    texts.join(", ")
}

fn truth_seconds(clip: &Clip) -> Vec<(f64, f64)> {
    clip.intervals
        .iter()
        .map(|&(a, b)| (a as f64 / f64::from(FPS), b as f64 / f64::from(FPS)))
        .collect()
}

fn event_seconds(detection: &Detection) -> Vec<[f64; 3]> {
    let seconds = |d: &Option<prost_types::Duration>| {
        d.as_ref()
            .map_or(0.0, |d| d.seconds as f64 + f64::from(d.nanos) / 1e9)
    };
    detection
        .events
        .iter()
        .map(|e| [seconds(&e.start), seconds(&e.end), e.peak])
        .collect()
}

fn table(clips: &[Clip], detections: &[Detection]) {
    say!(
        "\n{:28} {:16} {:>7}  {:18} detected (peak)",
        "clip",
        "shows",
        "seconds",
        "truth, s"
    );
    for (clip, detection) in clips.iter().zip(detections) {
        let events: Vec<String> = event_seconds(detection)
            .iter()
            .map(|[a, b, peak]| format!("{a:.1}-{b:.1} ({peak:.2})"))
            .collect();
        say!(
            "{:28} {:16} {:7.1}  {:18} {}",
            clip.file,
            clip.kind.as_str(),
            detection.frames.len() as f64 / f64::from(FPS),
            intervals(&truth_seconds(clip)),
            if events.is_empty() {
                "-".to_owned()
            } else {
                events.join(", ")
            }
        );
    }
}

fn summary(
    args: &Args,
    calibration: &Calibration,
    clips: &[Clip],
    detections: &[Detection],
    streamed: &FrameScores,
    offline: &FrameScores,
    random: (f64, f64),
) -> Result<()> {
    let (auc, ap) = streamed.figures()?;
    let apart = streamed
        .scores
        .iter()
        .zip(&offline.scores)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f64::max);
    say!(
        "\nover {} unseen frames ({} anomalous)   ROC-AUC   average precision\n\
         hunted heads, streamed over gRPC      {auc:7.3}   {ap:7.3}\n\
         random heads, mean of {DRAWS} draws        {:7.3}   {:7.3}\n\
         server (partial pass) and offline (all heads) p′ differ by at most {apart:.1e}",
        streamed.scores.len(),
        streamed.positive.iter().filter(|&&p| p).count(),
        random.0,
        random.1,
    );
    if auc >= 0.80 && auc > random.0 {
        say!("goal met: AUC at least 0.80 on unseen clips and above the random heads");
    } else {
        say!("GOAL MISSED: AUC at least 0.80 on unseen clips and above the random heads");
    }
    let heads: Vec<String> = calibration
        .profile
        .heads
        .iter()
        .map(|id| format!("({},{})", id.layer, id.head))
        .collect();
    let curves: Vec<ClipCurve> = clips
        .iter()
        .zip(detections)
        .map(|(clip, detection)| ClipCurve {
            name: clip.file.clone(),
            kind: clip.kind.as_str().to_owned(),
            duration_s: detection.frames.len() as f64 / f64::from(FPS),
            segments: detection.segments.clone(),
            truth: truth_seconds(clip),
            events: event_seconds(detection),
        })
        .collect();
    let figures = Figures {
        auc,
        ap,
        random: (random.0, random.1, DRAWS as usize),
        threshold: calibration.profile.locator.threshold,
        heads: heads.join(" "),
    };
    let path = args.out.join("report.html");
    fs::write(&path, report::html(&figures, &curves)).or_kind(Kind::ResourceExhausted, || {
        format!("cannot write {}", path.display())
    })?;
    say!("report: {}", path.display());
    Ok(())
}
