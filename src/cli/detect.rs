//! `headhunt detect`: scores video files with a profile.

use std::{
    io::Write,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    cli::common::{ModelArgs, Progress, cancel_on_signal, open_video},
    engine::{Engine, EngineConfig, EngineHandle, Lane},
    error::{Error, Kind, Result, ResultExt},
    media::MediaSource,
    pipeline::{
        detect::{self, DetectOptions, Detection},
        event::DetectEvent,
    },
    profile::Profile,
};

mod report;
#[cfg(test)]
mod tests;

use report::Report;

/// Events that may wait between a detection and its report.
const EVENTS_MAX: usize = 16;

/// After an interruption, longest wait for the pass in progress: it may take minutes, and the
/// process ends anyway.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// A file is the only work of this process, so its segments may wait as long as they must.
const QUEUE_WAIT: Duration = Duration::from_secs(24 * 3600);

/// Arguments of `headhunt detect`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Video files, scored one after the other
    #[arg(required = true, value_name = "VIDEO")]
    videos: Vec<PathBuf>,
    #[command(flatten)]
    model: ModelArgs,
    /// Profile that was calibrated on this model
    #[arg(long, value_name = "FILE")]
    profile: PathBuf,
    /// One JSON object a line and video: video, fps (measured: frames by the time they are shown),
    /// frames, segments, events, and gaps where part of it could not be decoded
    #[arg(long)]
    json: bool,
}

/// Runs `headhunt detect`. Fails unless every video was scored to its end.
pub fn run(args: Args) -> Result<()> {
    let cancel = cancel_on_signal()?;
    let profile = Arc::new(Profile::load(&args.profile)?);
    let model = args
        .model
        .load(Some(profile.layers_needed()))
        .map_err(|error| error.context(format_args!("profile {}", profile.name)))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .or_kind(Kind::Internal, || "cannot start the runtime".into())?;
    let config = EngineConfig::for_device(&crate::engine::probe::HeadProbe::info(&model).device);
    let engine = Engine::start(
        Box::new(model),
        EngineConfig {
            warm_up: false,
            max_queue_wait: QUEUE_WAIT,
            join_timeout: STOP_TIMEOUT,
            ..config
        },
    )?;
    let result = runtime.block_on(detect_videos(
        &args.videos,
        &profile,
        &engine.handle(),
        open_video,
        args.json,
        &mut std::io::stdout().lock(),
        &cancel,
    ));
    // A decode thread that does not stop must not hold the process.
    runtime.shutdown_background();
    result
}

/// Scores videos one after the other and writes each one's report to `out`; a video that fails is
/// told on standard error, and the next one is taken.
///
/// Fails at the end if any video failed, and at once where the profile does not fit the model, the
/// report cannot be written, or `cancel` fires.
async fn detect_videos(
    videos: &[PathBuf],
    profile: &Arc<Profile>,
    engine: &EngineHandle,
    open: fn(&Path, CancellationToken) -> Result<Box<dyn MediaSource>>,
    json: bool,
    out: &mut dyn Write,
    cancel: &CancellationToken,
) -> Result<()> {
    // Once for all videos: with the wrong profile none of them can be scored.
    detect::check_profile(profile, engine, cancel).await?;
    let mut failures = Vec::new();
    for video in videos {
        match detect_video(video, profile, engine, open, cancel).await {
            Ok(report) => report
                .write(json, out)
                .or_kind(Kind::Internal, || "cannot write the report".into())?,
            Err(error) if cancel.is_cancelled() => {
                return Err(error.context(format_args!("{}: interrupted", video.display())));
            }
            Err(error) => {
                remark!("headhunt: {}: {error:#}", video.display());
                failures.push(error.kind());
            }
        }
    }
    match failures.first() {
        None => Ok(()),
        Some(kind) => Err(Error::new(
            *kind,
            format!(
                "{} of {} videos could not be scored",
                failures.len(),
                videos.len()
            ),
        )),
    }
}

async fn detect_video(
    video: &Path,
    profile: &Arc<Profile>,
    engine: &EngineHandle,
    open: fn(&Path, CancellationToken) -> Result<Box<dyn MediaSource>>,
    cancel: &CancellationToken,
) -> Result<Report> {
    let own = cancel.child_token();
    let (path, token) = (video.to_owned(), own.clone());
    let (sender, mut events) = mpsc::channel(EVENTS_MAX);
    let detection = Detection {
        profile: profile.clone(),
        options: DetectOptions::default(),
        lane: Lane::Offline,
        max_delay: None,
        follow: None,
        recorder: None,
        trace: None,
    };
    let running = tokio::spawn(detect::run(
        Box::new(move || open(&path, token)),
        detection,
        engine.clone(),
        sender,
        own,
    ));
    let progress = Progress::new(&video.display().to_string());
    let mut report = Report::new(video);
    while let Some(event) = events.recv().await {
        if let DetectEvent::Scores(scores) = &event {
            let done = usize::try_from(scores.segment + 1).unwrap_or(usize::MAX);
            let at = scores.frames.last().map(|frame| frame.end());
            let remark = format!("segments, up to {}", at.unwrap_or_default());
            progress.tell(done, done, &remark);
        }
        report.take(event);
    }
    progress.finish();
    running
        .await
        .or_kind(Kind::Internal, || "the detection's task failed".into())??;
    Ok(report)
}
