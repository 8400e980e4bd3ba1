//! `headhunt admin hunt | calibrate | evaluate | jobs`.

use std::{io::Write as _, path::PathBuf};

use serde_json::json;

use super::{
    connection::{Connection, refused, seconds},
    follow::{begun, follow, state_name, told},
    upload::upload_manifest,
};
use crate::{
    cli::common::check_output,
    error::{Kind, Result, ResultExt},
    files::{begin_output, put_output},
    rpc::proto::{self, segment_rule::Rule},
};

/// Which clips a job reads.
#[derive(Debug, clap::Args)]
pub struct ClipArgs {
    /// A stored clip's id; may be given several times. Default: every stored clip, of an evaluation those whose frames are
    /// all labelled
    #[arg(long = "clip", value_name = "ID")]
    clips: Vec<String>,
    /// A manifest here, CSV video,label,start_frame,end_frame: uploads what the server does not
    /// have, and reads these clips
    #[arg(long, value_name = "M", conflicts_with = "clips")]
    manifest: Option<PathBuf>,
    /// Print the job's id and leave it running
    #[arg(long)]
    no_wait: bool,
}

impl ClipArgs {
    async fn ids(&self, to: &Connection) -> Result<Vec<String>> {
        match &self.manifest {
            Some(manifest) => upload_manifest(to, manifest).await,
            None => Ok(self.clips.clone()),
        }
    }
}

/// How heads are hunted.
#[derive(Debug, clap::Args)]
pub struct HuntArgs {
    /// Prompt to rank heads over; may be given several times, the first is the one that detection
    /// runs with. Default: five prompts
    #[arg(long = "prompt", value_name = "P")]
    prompts: Vec<String>,
    /// Number of expert heads, or auto. Default: 5
    #[arg(long, value_name = "K")]
    top_k: Option<String>,
    /// Weight of a head's spread over prompts in its robust score. Default: 0.5
    #[arg(long, value_name = "L", allow_negative_numbers = true)]
    lambda: Option<f64>,
    /// Seed of folds and splits
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Inverse strength of the scorer's penalty. Default: 1
    #[arg(long, value_name = "C")]
    c: Option<f64>,
    /// Part of the videos kept from hunting and fitting for validation
    #[arg(long = "validation", value_name = "F", default_value_t = 0.0)]
    validation_fraction: f64,
    /// What one sample is; auto: segments where any clip has intervals
    #[arg(long = "sampling", value_enum, default_value_t = Unit::Auto)]
    sampling_unit: Unit,
    /// Frames per segment. Default: 48
    #[arg(long, value_name = "N")]
    segment_frames: Option<u32>,
    /// Cut by seconds of media time instead of frames: for profiles that cameras will use (1.6)
    #[arg(long, value_name = "S", conflicts_with = "segment_frames")]
    segment_seconds: Option<f64>,
}

/// What one sample is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Unit {
    /// Segments where any clip has intervals, else whole videos
    Auto,
    /// Segments
    Segment,
    /// Whole videos
    WholeVideo,
}

impl HuntArgs {
    fn wire(self) -> Result<proto::HuntOptions> {
        let (top_k, auto_top_k) = match self.top_k.as_deref() {
            None => (0, false),
            Some("auto") => (0, true),
            Some(text) => {
                let k = text.parse::<u32>().ok().filter(|k| *k > 0);
                let k = k.ok_or_else(|| {
                    crate::error::Error::invalid(format!(
                        "--top-k {text}: give a number of at least 1, or auto"
                    ))
                })?;
                (k, false)
            }
        };
        let unit = match self.sampling_unit {
            Unit::Auto => proto::SamplingUnit::Unspecified,
            Unit::Segment => proto::SamplingUnit::Segment,
            Unit::WholeVideo => proto::SamplingUnit::WholeVideo,
        };
        let rule = match (self.segment_frames, self.segment_seconds) {
            (_, Some(seconds)) => Some(Rule::Seconds(seconds)),
            (Some(frames), None) => Some(Rule::Frames(frames)),
            (None, None) => None,
        };
        Ok(proto::HuntOptions {
            prompts: self.prompts,
            top_k,
            lambda: self.lambda,
            seed: self.seed,
            auto_top_k,
            c: self.c,
            validation_fraction: self.validation_fraction,
            sampling_unit: unit.into(),
            segment: rule.map(|rule| proto::SegmentRule { rule: Some(rule) }),
        })
    }
}

/// Rank attention heads over labelled clips
#[derive(Debug, clap::Args)]
pub struct Hunt {
    #[command(flatten)]
    clips: ClipArgs,
    #[command(flatten)]
    options: HuntArgs,
}

impl Hunt {
    pub(super) async fn run(self, to: &mut Connection) -> Result<()> {
        let request = proto::HuntHeadsRequest {
            clip_ids: self.clips.ids(to).await?,
            options: Some(self.options.wire()?),
        };
        let job = to.client().hunt_heads(request).await.map_err(refused)?;
        begun(to, &job.into_inner().job_id, !self.clips.no_wait).await
    }
}

/// Make a new version of a profile from labelled clips
#[derive(Debug, clap::Args)]
pub struct Calibrate {
    /// Name of the profile
    profile: String,
    #[command(flatten)]
    clips: ClipArgs,
    #[command(flatten)]
    options: HuntArgs,
    /// Make the new version the active one
    #[arg(long)]
    activate: bool,
    /// Keep heads and prompts of the current version; fit scorer and locator alone
    #[arg(long)]
    keep_heads: bool,
    /// Add the samples of reported feedback
    #[arg(long, requires = "keep_heads")]
    include_feedback: bool,
    /// Calibrate on normal clips alone
    #[arg(long, requires = "false_alarms_per_day", conflicts_with = "keep_heads")]
    normal_only: bool,
    /// With --normal-only: false alarms per camera and day that the threshold aims at
    #[arg(long, value_name = "R", requires = "normal_only")]
    false_alarms_per_day: Option<f64>,
    /// With --normal-only: where the footage cannot show that rate, write the one it can show
    #[arg(long, requires = "normal_only")]
    accept_upper_bound: bool,
}

impl Calibrate {
    pub(super) async fn run(self, to: &mut Connection) -> Result<()> {
        let request = proto::CalibrateRequest {
            profile: self.profile,
            clip_ids: self.clips.ids(to).await?,
            options: Some(self.options.wire()?),
            activate: self.activate,
            keep_heads: self.keep_heads,
            include_feedback: self.include_feedback,
            normal_only: self.false_alarms_per_day.map(|rate| proto::NormalOnly {
                false_alarms_per_day: rate,
                accept_upper_bound: self.accept_upper_bound,
            }),
        };
        let job = to.client().calibrate(request).await.map_err(refused)?;
        begun(to, &job.into_inner().job_id, !self.clips.no_wait).await
    }
}

/// Score labelled clips with a profile
#[derive(Debug, clap::Args)]
pub struct Evaluate {
    /// Name of the profile. Default: the active one
    #[arg(default_value = "")]
    profile: String,
    /// Its version. Default: the current one
    #[arg(long, value_name = "SHA256", default_value = "")]
    version: String,
    #[command(flatten)]
    clips: ClipArgs,
}

impl Evaluate {
    pub(super) async fn run(self, to: &mut Connection) -> Result<()> {
        let request = proto::EvaluateRequest {
            profile: self.profile,
            clip_ids: self.clips.ids(to).await?,
            profile_version: self.version,
        };
        let job = to.client().evaluate(request).await.map_err(refused)?;
        begun(to, &job.into_inner().job_id, !self.clips.no_wait).await
    }
}

/// Jobs
#[derive(Debug, clap::Subcommand)]
pub enum Jobs {
    /// List jobs, newest first
    List,
    /// Show a job's progress until it ends, and its result
    Follow {
        /// Its id
        id: String,
    },
    /// End a job
    Cancel {
        /// Its id
        id: String,
    },
    /// Fetch the report of a job that succeeded: a page, or with --json the numbers behind it
    Report {
        /// Its id
        id: String,
        /// Where it goes
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
}

impl Jobs {
    pub(super) async fn run(self, to: &mut Connection) -> Result<()> {
        match self {
            Jobs::List => list(to).await,
            Jobs::Follow { id } => follow(to, &id).await,
            Jobs::Cancel { id } => {
                let request = proto::CancelJobRequest { job_id: id.clone() };
                let response = to.client().cancel_job(request).await.map_err(refused)?;
                let progress = response.into_inner().progress.unwrap_or_default();
                to.print(&told(&id, &progress), || match progress.state() {
                    proto::JobState::Running => format!("{id} ends within one segment's pass"),
                    state => format!("{id} {}", state_name(state)),
                });
                Ok(())
            }
            Jobs::Report { id, out } => report(to, id, &out).await,
        }
    }
}

async fn list(to: &Connection) -> Result<()> {
    let response = to
        .client()
        .list_jobs(proto::ListJobsRequest {})
        .await
        .map_err(refused)?;
    for job in response.into_inner().jobs {
        let progress = job.progress.clone().unwrap_or_default();
        let kind = match job.kind() {
            proto::JobKind::HuntHeads => "hunt",
            proto::JobKind::Calibrate => "calibrate",
            proto::JobKind::Evaluate => "evaluate",
            proto::JobKind::Unspecified => "unknown",
        };
        let mut json = told(&job.id, &progress);
        if let serde_json::Value::Object(map) = &mut json {
            map.insert("kind".into(), kind.into());
            map.insert("profile".into(), job.profile.clone().into());
            map.insert("created_unix_s".into(), seconds(job.created_at));
            map.insert("ended_unix_s".into(), seconds(job.ended_at));
        }
        to.print(&json, || {
            format!(
                "{}  {kind:9} {:9} {:8} {}/{} {} {}",
                job.id,
                state_name(progress.state()),
                progress.stage,
                progress.done,
                progress.total,
                job.profile,
                progress.error
            )
        });
    }
    Ok(())
}

async fn report(to: &Connection, id: String, out: &std::path::Path) -> Result<()> {
    check_output("--out", out)?;
    let format = if to.json {
        proto::ReportFormat::Json
    } else {
        proto::ReportFormat::Html
    };
    let request = proto::GetReportRequest {
        job_id: id.clone(),
        format: format.into(),
    };
    let failed = || format!("cannot write {}", out.display());
    let mut stream = to
        .client()
        .get_report(request)
        .await
        .map_err(refused)?
        .into_inner();
    // Whole or not at all.
    let mut file = begin_output(out)?;
    let mut bytes = 0;
    while let Some(response) = stream.message().await.map_err(refused)? {
        bytes += response.chunk.len();
        file.write_all(&response.chunk)
            .or_kind(Kind::ResourceExhausted, failed)?;
    }
    put_output(file, out)?;
    to.print(
        &json!({"job_id": id, "out": out.display().to_string(), "bytes": bytes}),
        || format!("wrote {}", out.display()),
    );
    Ok(())
}
