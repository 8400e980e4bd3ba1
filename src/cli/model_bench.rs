//! `headhunt model bench`: how many segments a second a machine scores with a model.

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::{
    cli::common::ModelArgs,
    engine::probe::{Clip, HeadProbe, PassTimes},
    error::{Error, Kind, Result, ResultExt},
    head::{HeadId, HeadSelection},
    limits::{
        FRAME_MAX_SIDE, FRAMES_PER_SEGMENT, FRAMES_PER_SEGMENT_MAX, PROBE_MAX_CLIPS, SEGMENT_FRAMES,
    },
    media::{SharedImage, rgb_bytes},
    model::{
        InternVl, LoadOptions,
        prompt::DEFAULT_PROMPTS,
        work::{Work, matmul_peak},
    },
};

/// Most passes of one measurement.
const REPEATS_MAX: usize = 100_000;
/// Frames per second that cameras are counted at.
const CAMERA_RATE: f64 = 30.0;

/// Arguments of `headhunt model bench`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Segments of one pass; several are measured one after the other
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "1")]
    batch: Vec<usize>,
    /// Decoder layers, from the first; the deepest expert head is in the last of them. Default: all
    #[arg(long, value_name = "N")]
    layers: Option<usize>,
    /// Prompts of a segment, from the default set
    #[arg(long, value_name = "M", default_value_t = 1,
          value_parser = clap::value_parser!(u8).range(1..=DEFAULT_PROMPTS.len() as i64))]
    prompts: u8,
    /// Frames of a segment
    #[arg(long, value_name = "F", default_value_t = FRAMES_PER_SEGMENT)]
    frames: usize,
    /// Width and height of the pictures in pixels, e.g. 320x240: smaller ones, which the GPU resizes. Default:
    /// the model's
    #[arg(long, value_name = "WxH", value_parser = size)]
    picture: Option<(u32, u32)>,
    /// Passes that are timed
    #[arg(long, value_name = "N", default_value_t = 5)]
    repeats: usize,
    /// Passes before them
    #[arg(long, value_name = "N", default_value_t = 2)]
    warm_up: usize,
    /// One JSON object per batch size
    #[arg(long)]
    json: bool,
}

/// One row of the result.
#[derive(Debug, Serialize)]
struct Measured {
    model: String,
    device: String,
    dtype: String,
    /// Decoder layers that ran; of the deepest only keys, values and the last token's queries.
    layers: usize,
    batch: usize,
    prompts: u8,
    frames: usize,
    /// Width and height of the pictures, pixels.
    picture: [u32; 2],
    /// Tokens of the first prompt.
    tokens: usize,
    repeats: usize,
    /// Median of a pass, seconds: pictures to features, upload and normalising included.
    pass_s: f64,
    vision_s: f64,
    language_s: f64,
    slowest_s: f64,
    segments_per_s: f64,
    /// Cameras at 30 frames/s that this would carry, a segment every 48 frames.
    cameras: f64,
    /// Operations of a segment with one prompt, by arithmetic.
    tflop_per_segment: f64,
    work: Work,
    /// By that arithmetic: what further prompts cost does not count.
    tflops: f64,
    /// Of a large bf16 product on the same GPU, in the same run.
    #[serde(skip_serializing_if = "Option::is_none")]
    peak_tflops: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    share_of_peak: Option<f64>,
    /// Used memory of the GPU after the first and after the last timed pass, bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    device_bytes: Option<[u64; 2]>,
}

/// Runs the command.
pub fn run(args: Args) -> Result<()> {
    let most = *args.batch.iter().max().unwrap_or(&0);
    if args.batch.contains(&0) || most > PROBE_MAX_CLIPS {
        return Err(Error::invalid(format!(
            "--batch takes 1 to {PROBE_MAX_CLIPS} segments"
        )));
    }
    if !(1..=REPEATS_MAX).contains(&args.repeats) || args.warm_up > REPEATS_MAX {
        return Err(Error::invalid(format!(
            "--repeats takes 1 to {REPEATS_MAX} passes, --warm-up at most as many"
        )));
    }
    if !(1..=FRAMES_PER_SEGMENT_MAX).contains(&args.frames) {
        return Err(Error::invalid(format!(
            "--frames takes 1 to {FRAMES_PER_SEGMENT_MAX} frames"
        )));
    }
    let model = args.model.load_with(LoadOptions {
        resident_layers: args.layers,
        resize_on_device: args.picture.is_some(),
        ..LoadOptions::default()
    })?;
    let peak = matmul_peak(model.place())?;
    if !args.json {
        say!(
            "{} on {} in {}, {} of {} layers{}",
            model.info().name,
            model.info().device,
            model.info().dtype,
            model.info().resident_layers,
            model.info().layers,
            peak.map_or_else(String::new, |peak| format!(
                "; a large product runs at {:.0} TFLOP/s",
                peak / 1e12
            )),
        );
    }
    for &batch in &args.batch {
        let measured = measure(&model, &args, batch, peak)?;
        if args.json {
            let text = serde_json::to_string(&measured)
                .or_kind(Kind::Internal, || "cannot write JSON".into())?;
            say!("{text}");
        } else {
            say!("{}", measured.line());
        }
    }
    Ok(())
}

fn measure(model: &InternVl, args: &Args, batch: usize, peak: Option<f64>) -> Result<Measured> {
    let info = model.info().clone();
    let layers = info.resident_layers;
    let own = u32::try_from(info.image_side).unwrap_or(u32::MAX);
    let picture = args.picture.unwrap_or((own, own));
    let prompts: Vec<String> = DEFAULT_PROMPTS
        .iter()
        .take(usize::from(args.prompts))
        .map(|&prompt| prompt.to_owned())
        .collect();
    // As many heads as the product takes, the deepest in the last layer.
    let heads = HeadSelection::Only(
        (0..5.min(info.heads))
            .map(|head| HeadId {
                layer: layers - 1,
                head,
            })
            .collect(),
    );
    let pass = |number: usize| -> Result<(Duration, PassTimes)> {
        // Other pictures every time: nothing may be remembered from the last pass.
        let clips: Vec<Clip> = (0..batch)
            .map(|clip| noise(picture, args.frames, number * batch + clip))
            .collect();
        let started = Instant::now();
        let (_, times) = model.probe_timed(&clips, &prompts, &heads)?;
        let times = times.ok_or_else(|| Error::internal("a pass was not timed"))?;
        Ok((started.elapsed(), times))
    };
    for number in 0..args.warm_up {
        pass(number)?;
    }
    let memory = || model.place().memory().map(|(used, _)| used);
    let mut times = Vec::with_capacity(args.repeats);
    let mut first = None;
    for number in 0..args.repeats {
        times.push(pass(args.warm_up + number)?);
        if number == 0 {
            first = memory();
        }
    }
    let median = |of: fn(&(Duration, PassTimes)) -> f64| {
        let mut all: Vec<f64> = times.iter().map(of).collect();
        all.sort_by(f64::total_cmp);
        all.get(all.len() / 2).copied().unwrap_or(0.0)
    };
    let whole = |(pass, _): &(Duration, PassTimes)| pass.as_secs_f64();
    let pass_s = median(whole);
    let tokens = model.prompt_tokens(args.frames, &prompts[0])?;
    let work = Work::of_segment(model.config(), args.frames, tokens, layers);
    let flops = work.total() * batch as f64 / pass_s;
    Ok(Measured {
        model: info.name,
        device: info.device,
        dtype: info.dtype,
        layers,
        batch,
        prompts: args.prompts,
        frames: args.frames,
        picture: picture.into(),
        tokens,
        repeats: args.repeats,
        pass_s,
        vision_s: median(|(_, t)| t.vision.as_secs_f64()),
        language_s: median(|(_, t)| t.language.as_secs_f64()),
        slowest_s: times.iter().map(whole).fold(0.0, f64::max),
        segments_per_s: batch as f64 / pass_s,
        cameras: batch as f64 / pass_s * f64::from(SEGMENT_FRAMES) / CAMERA_RATE,
        tflop_per_segment: work.total() / 1e12,
        work,
        tflops: flops / 1e12,
        peak_tflops: peak.map(|peak| peak / 1e12),
        share_of_peak: peak.map(|peak| flops / peak),
        device_bytes: first.zip(memory()).map(|(first, last)| [first, last]),
    })
}

impl Measured {
    fn line(&self) -> String {
        let share = self.share_of_peak.map_or_else(String::new, |share| {
            format!(", {:.0}% of that product", 100.0 * share)
        });
        let memory = self.device_bytes.map_or_else(String::new, |[_, last]| {
            format!(", {:.1} GB of the GPU used", last as f64 / 1e9)
        });
        format!(
            "batch {}: {:.1} ms a pass (vision {:.1}, language {:.1}), {:.2} segments/s, {:.1} cameras \
             of {CAMERA_RATE:.0} frames/s, {:.0} TFLOP/s{share}{memory}",
            self.batch,
            1e3 * self.pass_s,
            1e3 * self.vision_s,
            1e3 * self.language_s,
            self.segments_per_s,
            self.cameras,
            self.tflops,
        )
    }
}

/// `WIDTHxHEIGHT`, pixels.
fn size(text: &str) -> std::result::Result<(u32, u32), String> {
    let side = |text: &str| {
        text.parse()
            .ok()
            .filter(|side| (1..=FRAME_MAX_SIDE).contains(side))
    };
    text.split_once('x')
        .and_then(|(width, height)| side(width).zip(side(height)))
        .ok_or_else(|| format!("give WIDTHxHEIGHT, each 1 to {FRAME_MAX_SIDE}, e.g. 320x240"))
}

/// Pictures of noise, none like another.
fn noise((width, height): (u32, u32), frames: usize, seed: usize) -> Clip {
    let frame = |number: usize| {
        let mut state = ((seed * frames + number) as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut bytes = vec![0u8; rgb_bytes((width, height))];
        for eight in bytes.chunks_mut(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let random = state.to_le_bytes();
            eight.copy_from_slice(&random[..eight.len()]);
        }
        SharedImage {
            width,
            height,
            data: bytes.into(),
        }
    };
    Clip {
        frames: (0..frames).map(frame).collect(),
    }
}
