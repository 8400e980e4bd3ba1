//! `headhunt score`: p′ of every video of a list into a file for `headhunt evaluate`.

use std::{path::PathBuf, sync::Arc};

use crate::{
    cli::{
        common::{ModelArgs, Progress, cancel_on_signal, check_output, open_video},
        evaluate::text,
    },
    engine::probe::HeadProbe,
    error::Result,
    eval::counts::FrameCounts,
    model::pixels::resize_bicubic_into,
    pipeline::scoring::{Meta, ScoreFile, Scoring, Shard, VideoList},
    profile::Profile,
};

/// Arguments of `headhunt score`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Profile that was calibrated on this model
    #[arg(long, value_name = "FILE")]
    profile: PathBuf,
    #[command(flatten)]
    list: ListArgs,
    /// Score one of n parts of the list, counting from 0: every n-th video
    #[arg(long, value_name = "i/n", default_value_t = Shard::WHOLE)]
    shard: Shard,
    /// Scores file to append to, one line a finished video; FILE.meta.json beside it says what it
    /// was made with
    #[arg(long, value_name = "JSONL")]
    out: PathBuf,
    /// Go on with a file that is there: its finished videos are not scored again
    #[arg(long)]
    resume: bool,
}

/// Which videos.
#[derive(Debug, clap::Args)]
#[group(required = true)]
struct ListArgs {
    /// Folder of the videos that --frame-counts names; folders in it are searched too
    #[arg(
        long,
        value_name = "DIR",
        requires = "frame_counts",
        conflicts_with = "manifest"
    )]
    videos: Option<PathBuf>,
    /// The list with the frames that each video must have, CSV: video,frames
    #[arg(
        long,
        value_name = "CSV",
        requires = "videos",
        conflicts_with = "manifest"
    )]
    frame_counts: Option<PathBuf>,
    /// The list: CSV video,label,start_frame,end_frame; paths relative to the file
    #[arg(long, value_name = "M")]
    manifest: Option<PathBuf>,
}

impl ListArgs {
    fn read(&self) -> Result<VideoList> {
        if let (Some(folder), Some(counts)) = (&self.videos, &self.frame_counts) {
            let counts =
                FrameCounts::parse(&text(counts)?).map_err(|e| e.context(counts.display()))?;
            return VideoList::of_counts(&counts, folder);
        }
        // The arguments' group leaves nothing else.
        let manifest = self.manifest.clone().unwrap_or_default();
        let folder = manifest.parent().map(PathBuf::from).unwrap_or_default();
        VideoList::of_manifest(&text(&manifest)?, &folder)
            .map_err(|e| e.context(manifest.display()))
    }
}

/// Runs the command. Fails unless every video of the shard is in the file at the end.
pub fn run(args: Args) -> Result<()> {
    check_output("--out", &args.out)?;
    let list = args.list.read()?;
    let profile = Profile::load(&args.profile)?;
    let cancel = cancel_on_signal()?;
    let model = args
        .model
        .load(Some(profile.layers_needed()))
        .map_err(|error| error.context(format_args!("profile {}", profile.name)))?;
    let fingerprint = model.fingerprint(profile.layers_needed())?;
    for warning in profile.check_model(model.info(), &fingerprint)? {
        remark!("headhunt: {warning}");
    }
    let meta = Meta::new(&profile, model.info(), &list, args.shard)?;
    let mut file = ScoreFile::open(&args.out, &meta, args.resume)?;
    let videos = list.shard(args.shard);
    let scoring = Scoring {
        probe: &model,
        profile: &profile,
        open: open_video,
        resize: Arc::new(resize_bicubic_into),
        cancel: &cancel,
    };
    let progress = Progress::new("score");
    let outcome = scoring.run(
        &videos,
        &mut file,
        &|done, name| progress.tell(done, videos.len(), name),
        &|name, error| remark!("headhunt: {name}: {error:#}"),
    )?;
    progress.finish();
    say!(
        "shard      {} ({} of {} videos)",
        args.shard,
        videos.len(),
        list.len()
    );
    say!("scored     {}", outcome.scored);
    say!("kept       {}", outcome.kept);
    say!("failed     {}", outcome.failed.len());
    outcome.result()
}
