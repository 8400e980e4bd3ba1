//! `headhunt extract`: the features of all heads, for hunting elsewhere or for looking at.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use crate::{
    cli::common::{ModelArgs, Progress, cancel_on_signal, check_output, open_video},
    cli::labelled::{read_manifest, samples_note},
    engine::probe::{HeadProbe, ProbeInfo},
    error::{Error, Kind, Result, ResultExt},
    limits::{FRAMES_PER_SEGMENT, SEGMENT_FRAMES},
    model::{pixels::resize_bicubic_into, prompt::DEFAULT_PROMPTS},
    pipeline::{
        labelled::{self, Extraction, LabelledVideo, SamplingUnit},
        offline,
        options::PictureOptions,
        prepare::PrepareOptions,
        tensor_file::{self, Content, Spool, Tensor},
    },
    segment::SegmentRule,
};

/// Arguments of `headhunt extract`.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("input").required(true))]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// One video: writes `heads` [segments, prompts, layers, heads, head_dim] and `segments`
    /// [segments, 2] (first frame, frames)
    #[arg(long, value_name = "V", group = "input")]
    video: Option<PathBuf>,
    /// Labelled videos, CSV video,label,start_frame,end_frame: writes what `headhunt hunt` reads
    #[arg(long, value_name = "M", group = "input")]
    manifest: Option<PathBuf>,
    /// Prompt; may be given several times. Default: with --video the first of the default set,
    /// with --manifest all five
    #[arg(long = "prompt", value_name = "P")]
    prompts: Vec<String>,
    /// Frames per segment
    #[arg(long, value_name = "N", default_value_t = SEGMENT_FRAMES)]
    segment_frames: u32,
    /// Cut by seconds of media time instead of frames
    #[arg(long, value_name = "S", conflicts_with = "segment_frames")]
    segment_seconds: Option<f64>,
    /// Frames sampled per segment
    #[arg(long, value_name = "F", default_value_t = FRAMES_PER_SEGMENT)]
    frames_per_segment: usize,
    /// One sample per video, over all of it
    #[arg(long)]
    whole_video: bool,
    /// File to write
    #[arg(long, value_name = "F.safetensors")]
    out: PathBuf,
}

/// Runs the command.
pub fn run(args: Args) -> Result<()> {
    check_output("--out", &args.out)?;
    let cancel = cancel_on_signal()?;
    let videos = match &args.manifest {
        Some(manifest) => {
            let unit = if args.whole_video {
                SamplingUnit::WholeVideo
            } else {
                SamplingUnit::Auto
            };
            Some(read_manifest(manifest, unit)?)
        }
        None => None,
    };
    let model = args.model.load(None)?;
    let prepare = PrepareOptions {
        rule: match args.segment_seconds {
            Some(seconds) => SegmentRule::Seconds(seconds),
            None => SegmentRule::Frames(args.segment_frames),
        },
        frames_per_segment: args.frames_per_segment,
        image_side: model.info().image_side,
        keep_smaller: false,
        resize: Arc::new(resize_bicubic_into),
        pictures: PictureOptions::default(),
    };
    prepare.rule.validate()?;
    let prompts = match (args.prompts.is_empty(), &videos) {
        (false, _) => args.prompts.clone(),
        (true, Some(_)) => DEFAULT_PROMPTS.map(str::to_owned).to_vec(),
        (true, None) => vec![DEFAULT_PROMPTS[0].to_owned()],
    };
    let job = Job {
        model: &model,
        prepare: &prepare,
        prompts: &prompts,
        args: &args,
    };
    match videos {
        Some(videos) => job.manifest(&videos, &cancel),
        None => job.video(&cancel),
    }
}

struct Job<'a> {
    model: &'a dyn HeadProbe,
    prepare: &'a PrepareOptions,
    prompts: &'a [String],
    args: &'a Args,
}

impl Job<'_> {
    fn info(&self) -> &ProbeInfo {
        self.model.info()
    }

    /// Written beside the tensors, so that a file tells what it is.
    fn metadata(&self) -> Result<BTreeMap<String, String>> {
        let prompts = serde_json::to_string(self.prompts)
            .or_kind(Kind::Internal, || "cannot write the prompts".to_owned())?;
        Ok(BTreeMap::from([
            ("model".to_owned(), self.info().name.clone()),
            ("prompts".to_owned(), prompts),
        ]))
    }

    fn video(&self, cancel: &tokio_util::sync::CancellationToken) -> Result<()> {
        let Some(path) = &self.args.video else {
            return Err(Error::invalid("give --video or --manifest"));
        };
        let progress = Progress::new("extract");
        let mut spool = Spool::beside(&self.args.out)?;
        let mut segments: Vec<i64> = Vec::new();
        let name = path.display().to_string();
        let mut take = |span: (u64, u64), clip| -> Result<()> {
            let features = labelled::one(self.model, clip, self.prompts)?;
            spool.push(&features.data)?;
            for number in [span.0, span.1] {
                segments.push(i64::try_from(number).or_kind(Kind::Internal, || name.clone())?);
            }
            progress.tell(segments.len() / 2, segments.len() / 2, "segments");
            Ok(())
        };
        let done = if self.args.whole_video {
            offline::whole_video(open_video, path, self.prepare, cancel)
                .and_then(|(clip, frames)| take((0, frames), clip))
        } else {
            offline::each_segment(open_video, path, self.prepare, cancel, &mut |segment| {
                let first = segment.frames.first().map_or(0, |f| f.index);
                take((first, segment.frames.len() as u64), segment.clip)
            })
            .map(drop)
        };
        done.map_err(|e| e.context(&name))?;
        progress.finish();
        let n = segments.len() / 2;
        let i = self.info();
        let tensors = vec![
            Tensor {
                name: "heads",
                shape: vec![n, self.prompts.len(), i.layers, i.heads, i.head_dim],
                content: Content::F32(vec![spool]),
            },
            Tensor {
                name: "segments",
                shape: vec![n, 2],
                content: Content::I64(segments),
            },
        ];
        tensor_file::write(&self.args.out, tensors, &self.metadata()?)?;
        say!(
            "{}: {n} segments, {} heads each",
            self.args.out.display(),
            i.layers * i.heads
        );
        Ok(())
    }

    fn manifest(
        &self,
        videos: &[LabelledVideo],
        cancel: &tokio_util::sync::CancellationToken,
    ) -> Result<()> {
        let progress = Progress::new("extract");
        let mut spools = Vec::new();
        for _ in self.prompts {
            spools.push(Spool::beside(&self.args.out)?);
        }
        let mut labels = Vec::new();
        let mut names = Vec::new();
        Extraction {
            probe: self.model,
            open: open_video,
            prepare: self.prepare,
            prompts: self.prompts,
            cancel,
        }
        .run(
            videos,
            &|e| {
                progress.tell(
                    e.videos.0,
                    e.videos.1,
                    &format!("videos, {} samples", e.samples),
                )
            },
            &mut |sample, features| {
                for (prompt, spool) in spools.iter_mut().enumerate() {
                    spool.push(features.prompt(prompt))?;
                }
                labels.push(i64::from(sample.anomaly));
                names.push(sample.name);
                Ok(())
            },
        )?;
        progress.finish();
        let n = labels.len();
        let i = self.info();
        let mut metadata = self.metadata()?;
        let list = serde_json::to_string(&names).or_kind(Kind::Internal, || {
            "cannot write the samples' names".to_owned()
        })?;
        metadata.insert("sample_names".to_owned(), list);
        let note = samples_note(&labels.iter().map(|&l| l == 1).collect::<Vec<_>>());
        let tensors = vec![
            Tensor {
                name: "features",
                shape: vec![self.prompts.len(), n, i.layers, i.heads, i.head_dim],
                content: Content::F32(spools),
            },
            Tensor {
                name: "labels",
                shape: vec![n],
                content: Content::I64(labels),
            },
        ];
        tensor_file::write(&self.args.out, tensors, &metadata)?;
        say!("{}: {note}", self.args.out.display());
        Ok(())
    }
}
