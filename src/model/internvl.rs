//! The whole model: sampled frames and prompts to attention-head features.

mod pictures;
mod whole;

use std::{
    ops::Range,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use candle_core::Tensor;

use super::{
    config::ModelConfig,
    device::{DeviceSpec, Place, Precision},
    fingerprint::{Loaded, fingerprint_cached},
    language::LanguageModel,
    linear::{Loader, failed},
    pool::Pool,
    projector::Projector,
    prompt::PromptTokenizer,
    vision::VisionTower,
    weights::Checkpoint,
};
use crate::{
    engine::probe::{Clip, HeadProbe, PassTimes, ProbeInfo},
    error::{Error, Kind, Result},
    head::{HeadFeatures, HeadId, HeadSelection},
    limits::{LANGUAGE_ROWS_PER_PASS, LANGUAGE_ROWS_PER_PASS_GPU, PROBE_MAX_CLIPS, PROMPTS_MAX},
    telemetry::{
        metrics::{self, Stage},
        process,
    },
};

pub use pictures::VisionStages;
pub use whole::{OutputHead, WholeFeatures};

/// How to load a model.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// Where it runs.
    pub device: DeviceSpec,
    /// What it computes in.
    pub precision: Precision,
    /// Threads of the CPU side; 0 for [`threads`](super::pool::threads).
    pub threads: usize,
    /// Decoder layers to load, from the first; `None` for all. A head beyond them cannot be
    /// asked for.
    pub resident_layers: Option<usize>,
    /// Take pictures of other sizes too, if they have no more pixels than the model's, and resize them on
    /// the device, which must be a GPU: fewer bytes wait and travel.
    pub resize_on_device: bool,
}

/// Token ids of each prompt.
type Tokens = Vec<Vec<u32>>;

/// A resident InternVL3.
pub struct InternVl {
    dir: PathBuf,
    loaded: Loaded,
    fingerprint_cache: Option<PathBuf>,
    config: ModelConfig,
    info: ProbeInfo,
    place: Place,
    pool: Pool,
    tokenizer: PromptTokenizer,
    vision: VisionTower,
    projector: Projector,
    language: LanguageModel,
    frames_encoded: AtomicU64,
}

impl InternVl {
    /// Loads the checkpoint in `dir`; see [`Checkpoint::open`] and [`Place::open`] for the errors.
    pub fn load(dir: &Path, options: &LoadOptions) -> Result<Self> {
        let checkpoint = Checkpoint::open(dir)?;
        let loaded = Loaded::of(&checkpoint);
        let config = checkpoint.config().clone();
        let resident = options.resident_layers.unwrap_or(config.text.layers);
        if resident == 0 || resident > config.text.layers {
            return Err(Error::invalid(format!(
                "{resident} resident layers were asked for; the model has {}",
                config.text.layers
            )));
        }
        checkpoint.needed(resident)?;
        let tokenizer = PromptTokenizer::load(dir)?;
        check_tokenizer(&tokenizer, &config)?;
        let place = Place::open(options.device, options.precision)?;
        if options.resize_on_device && place.device.is_cpu() {
            return Err(Error::precondition(format!(
                "pictures are resized on a GPU only, and the model runs on {}: leave it to decoding",
                place.name
            )));
        }
        let pool = Pool::new(options.threads)?;
        let from = Loader {
            checkpoint: &checkpoint,
            place: &place,
        };
        let (vision, projector, language) = pool.run(|| -> Result<_> {
            Ok((
                VisionTower::load(&from, &config.vision)?,
                Projector::load(&from, &config)?,
                LanguageModel::load(&from, &config.text, resident)?,
            ))
        })?;
        let name = dir
            .canonicalize()
            .ok()
            .and_then(|d| d.file_name().map(|n| n.to_string_lossy().into_owned()))
            .unwrap_or_else(|| dir.display().to_string());
        Ok(InternVl {
            info: ProbeInfo {
                name,
                device: place.name.clone(),
                dtype: place.dtype_name().to_owned(),
                layers: config.text.layers,
                heads: config.text.heads,
                head_dim: config.text.head_dim,
                resident_layers: resident,
                image_side: config.vision.image,
                resizes: options.resize_on_device,
            },
            dir: dir.to_owned(),
            loaded,
            fingerprint_cache: None,
            config,
            place,
            pool,
            tokenizer,
            vision,
            projector,
            language,
            frames_encoded: AtomicU64::new(0),
        })
    }

    /// Remembers fingerprints below `cache` for as long as no file of the checkpoint changes: hashing
    /// an 8B checkpoint takes some ten seconds.
    #[must_use]
    pub fn with_fingerprint_cache(mut self, cache: Option<PathBuf>) -> Self {
        self.fingerprint_cache = cache;
        self
    }

    /// Frames that went through the vision tower in [`HeadProbe::probe`] so far.
    pub fn frames_encoded(&self) -> u64 {
        self.frames_encoded.load(Relaxed)
    }

    /// Where it runs.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Tokens of a prompt with this many frames before it, theirs included.
    pub fn prompt_tokens(&self, frames: usize, prompt: &str) -> Result<usize> {
        let per_frame = self.config.tokens_per_frame();
        Ok((self.tokenizer.encode_prompt(frames, per_frame, prompt)?).len())
    }

    /// What config.json says.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The directory that the model was loaded from.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// [`HeadProbe::probe`] for tokens and pixels instead of prompts and pictures: each clip's
    /// normalised pixels `[frames, 3, side, side]`, each prompt's whole token ids.
    pub fn probe_tokens(
        &self,
        clips: &[&[f32]],
        prompts: &[Vec<u32>],
        heads: &HeadSelection,
    ) -> Result<Vec<HeadFeatures>> {
        let heads = self.wanted(heads)?;
        self.pool.run(|| {
            let visions = clips
                .iter()
                .map(|pixels| Ok(self.encode(pixels)?.2))
                .collect::<Result<Vec<_>>>()?;
            self.features(&visions, prompts, &heads)
        })
    }

    /// The heads in order, each checked to exist and to be resident.
    fn wanted(&self, heads: &HeadSelection) -> Result<Vec<HeadId>> {
        let text = &self.config.text;
        let wanted = heads.resolve(text.layers, text.heads);
        if wanted.is_empty() {
            return Err(Error::invalid("no heads were asked for"));
        }
        for HeadId { layer, head } in &wanted {
            if *layer >= text.layers || *head >= text.heads {
                return Err(Error::invalid(format!(
                    "head ({layer}, {head}) does not exist; the model has {} layers of {} heads",
                    text.layers, text.heads
                )));
            }
            if *layer >= self.info.resident_layers {
                return Err(Error::precondition(format!(
                    "head ({layer}, {head}) lies beyond the {} resident layers; load more layers",
                    self.info.resident_layers
                )));
            }
        }
        Ok(wanted)
    }

    /// Features of every clip's vision tokens `[frames, tokens, hidden]` with every prompt.
    fn features(
        &self,
        visions: &[Tensor],
        prompts: &[Vec<u32>],
        heads: &[HeadId],
    ) -> Result<Vec<HeadFeatures>> {
        let longest = prompts.iter().map(Vec::len).max().unwrap_or(0);
        if prompts.iter().any(Vec::is_empty) || longest == 0 {
            return Err(Error::invalid("no prompt, or an empty one"));
        }
        self.check_length(longest)?;
        let context = self.tokenizer.img_context_id();
        for (i, vision) in visions.iter().enumerate() {
            let tokens = vision.elem_count() / self.config.text.hidden;
            for prompt in prompts {
                let found = prompt.iter().filter(|&&t| t == context).count();
                if found != tokens {
                    return Err(Error::invalid(format!(
                        "the prompt has {found} picture tokens, but the frames of clip {i} make \
                         {tokens}"
                    )));
                }
            }
        }
        let rows_per_pass = match self.place.device.is_cpu() {
            true => LANGUAGE_ROWS_PER_PASS,
            false => LANGUAGE_ROWS_PER_PASS_GPU,
        };
        let clips_per_pass = (rows_per_pass / longest).max(1);
        let mut all = Vec::with_capacity(visions.len());
        for visions in visions.chunks(clips_per_pass) {
            let width = heads.len() * self.config.text.head_dim;
            let mut batch = vec![Vec::with_capacity(prompts.len() * width); visions.len()];
            let shared = shared_prefix(prompts);
            let prefix = match prompts.first() {
                Some(first) if shared > 0 => {
                    let x = self.hidden(visions, first, 0..shared)?;
                    let depth = heads.iter().map(|h| h.layer + 1).max().unwrap_or(0);
                    Some(
                        self.language
                            .prefix(x, depth)
                            .map_err(failed("running the shared part of the prompts"))?,
                    )
                }
                _ => None,
            };
            for prompt in prompts {
                let x = self.hidden(visions, prompt, shared..prompt.len())?;
                let features: Vec<Vec<f32>> = self
                    .language
                    .features(x, prefix.as_ref(), heads)
                    .and_then(|t| t.flatten_from(1)?.to_vec2())
                    .map_err(failed("running a prompt"))?;
                for (clip, features) in batch.iter_mut().zip(features) {
                    clip.extend(features);
                }
            }
            all.extend(batch.into_iter().map(|data| HeadFeatures {
                prompts: prompts.len(),
                heads: heads.len(),
                head_dim: self.config.text.head_dim,
                data,
            }));
        }
        for features in &all {
            self.finite(features, heads)?;
        }
        Ok(all)
    }

    /// The different numbers of frames of the clips, ascending, and for each of them the tokens of
    /// every prompt; or what is wrong with clips and prompts.
    fn checked(&self, clips: &[Clip], prompts: &[String]) -> Result<(Vec<usize>, Vec<Tokens>)> {
        if clips.len() > PROBE_MAX_CLIPS || prompts.is_empty() || prompts.len() > PROMPTS_MAX {
            return Err(Error::invalid(format!(
                "{} clips and {} prompts; at most {PROBE_MAX_CLIPS} clips and 1..={PROMPTS_MAX} \
                 prompts go into one pass",
                clips.len(),
                prompts.len()
            )));
        }
        for frame in clips.iter().flat_map(|clip| &clip.frames) {
            self.info.check_picture(frame)?;
        }
        // Clips of one length go through together.
        let mut lengths: Vec<usize> = clips.iter().map(|clip| clip.frames.len()).collect();
        lengths.sort_unstable();
        lengths.dedup();
        if lengths.first() == Some(&0) {
            return Err(Error::invalid("a clip has no frames"));
        }
        let tokens = lengths
            .iter()
            .map(|&frames| {
                prompts
                    .iter()
                    .map(|prompt| {
                        self.tokenizer
                            .encode_prompt(frames, self.config.tokens_per_frame(), prompt)
                    })
                    .collect::<Result<Vec<_>>>()
            })
            .collect::<Result<Vec<_>>>()?;
        for prompt in tokens.iter().flatten() {
            self.check_length(prompt.len())?;
        }
        Ok((lengths, tokens))
    }

    fn check_length(&self, tokens: usize) -> Result<()> {
        let most = self.config.text.max_positions;
        if tokens > most {
            return Err(Error::invalid(format!(
                "the prompt has {tokens} tokens with its frames; the model takes {most}"
            )));
        }
        Ok(())
    }

    /// Embeddings `[clips, range, hidden]` of a part of the prompt, each clip's vision tokens in
    /// the places of the picture tokens.
    fn hidden(&self, visions: &[Tensor], prompt: &[u32], range: Range<usize>) -> Result<Tensor> {
        let context = self.tokenizer.img_context_id();
        let (before, part) = (
            prompt.get(..range.start).unwrap_or_default(),
            prompt.get(range).unwrap_or_default(),
        );
        let seen = before.iter().filter(|&&t| t == context).count();
        let runs: Vec<&[u32]> = part
            .chunk_by(|a, b| (*a == context) == (*b == context))
            .collect();
        let texts = runs
            .iter()
            .map(|run| match run.first() {
                Some(token) if *token != context => self.language.embed(run).map(Some),
                _ => Ok(None),
            })
            .collect::<Result<Vec<_>>>()?;
        let rows = visions
            .iter()
            .map(|vision| {
                let vision = vision.flatten(0, 1)?.unsqueeze(0)?;
                let mut at = seen;
                let mut pieces = Vec::with_capacity(runs.len());
                for (run, text) in runs.iter().zip(&texts) {
                    match text {
                        Some(text) => pieces.push(text.clone()),
                        None => {
                            pieces.push(vision.narrow(1, at, run.len())?);
                            at += run.len();
                        }
                    }
                }
                Tensor::cat(&pieces, 1)
            })
            .collect::<candle_core::Result<Vec<_>>>();
        rows.and_then(|rows| match rows.as_slice() {
            // The pass overwrites it, so it must not be a view of the vision tokens.
            [one] => one.copy(),
            _ => Tensor::cat(&rows, 0),
        })
        .map_err(failed("putting the prompt together"))
    }

    fn finite(&self, features: &HeadFeatures, heads: &[HeadId]) -> Result<()> {
        let Some(bad) = features.data.iter().position(|v| !v.is_finite()) else {
            return Ok(());
        };
        let slice = bad / self.config.text.head_dim;
        let name = heads
            .get(slice % heads.len())
            .map_or_else(String::new, |h| format!(" ({}, {})", h.layer, h.head));
        Err(Error::data_loss(format!(
            "the feature of head{name} with prompt {} is not finite; the checkpoint's numbers do \
             not fit {}",
            slice / heads.len(),
            self.info.dtype
        )))
    }
}

impl InternVl {
    /// [`HeadProbe::probe`] on the threads of the model.
    fn pass(
        &self,
        clips: &[Clip],
        prompts: &[String],
        heads: &HeadSelection,
    ) -> Result<(Vec<HeadFeatures>, PassTimes)> {
        let wanted = self.wanted(heads)?;
        let mut all: Vec<Option<HeadFeatures>> = vec![None; clips.len()];
        let (lengths, tokens) = self.checked(clips, prompts)?;
        let started = self.place.mark()?;
        let visions = self.encode_clips(clips)?;
        let encoded = self.place.mark()?;
        for (frames, tokens) in lengths.into_iter().zip(tokens) {
            let places: Vec<usize> = (0..clips.len())
                .filter(|&i| clips[i].frames.len() == frames)
                .collect();
            let group: Vec<Tensor> = places.iter().map(|&i| visions[i].clone()).collect();
            for (place, features) in places
                .into_iter()
                .zip(self.features(&group, &tokens, &wanted)?)
            {
                all[place] = Some(features);
            }
        }
        let ended = self.place.mark()?;
        let vision = started.until(&encoded)?;
        let language = encoded.until(&ended)?;
        metrics::stage(Stage::Vision, vision);
        metrics::stage(Stage::Language, language);
        if let Some((used, total)) = self.place.memory() {
            process::device_memory(used, total);
        }
        let all = (all.into_iter().collect::<Option<Vec<_>>>())
            .ok_or_else(|| Error::internal("a clip was left out of its pass"))?;
        Ok((all, PassTimes { vision, language }))
    }
}

impl HeadProbe for InternVl {
    fn info(&self) -> &ProbeInfo {
        &self.info
    }

    fn probe(
        &self,
        clips: &[Clip],
        prompts: &[String],
        heads: &HeadSelection,
    ) -> Result<Vec<HeadFeatures>> {
        Ok(self.probe_timed(clips, prompts, heads)?.0)
    }

    fn probe_timed(
        &self,
        clips: &[Clip],
        prompts: &[String],
        heads: &HeadSelection,
    ) -> Result<(Vec<HeadFeatures>, Option<PassTimes>)> {
        let once = || self.pool.run(|| self.pass(clips, prompts, heads));
        let (features, times) = match once() {
            // Of a GPU's memory what is free may lie in pieces, each too small. Seen on a card that others had filled:
            // after a batch that found no room, single clips found none either, which had before.
            Err(e) if e.kind() == Kind::ResourceExhausted && self.place.give_back() => once()?,
            passed => passed?,
        };
        Ok((features, Some(times)))
    }

    fn fingerprint(&self, layers: usize) -> Result<String> {
        let cache = self.fingerprint_cache.as_deref();
        let fingerprint = fingerprint_cached(&self.dir, layers, cache)?;
        // Of what is resident, not of what lies there now.
        self.loaded.check(&self.dir)?;
        Ok(fingerprint)
    }
}
/// Length of the longest common start of all prompts, short of the last token of the shortest,
/// which every prompt must run itself; 0 for a single prompt.
fn shared_prefix(prompts: &[Vec<u32>]) -> usize {
    let Some((first, others)) = prompts.split_first() else {
        return 0;
    };
    if others.is_empty() {
        return 0;
    }
    let shared = others.iter().fold(first.len(), |shared, other| {
        first
            .iter()
            .zip(other)
            .take(shared)
            .take_while(|(a, b)| a == b)
            .count()
    });
    let shortest = prompts.iter().map(Vec::len).min().unwrap_or(0);
    shared.min(shortest.saturating_sub(1))
}

fn check_tokenizer(tokenizer: &PromptTokenizer, config: &ModelConfig) -> Result<()> {
    let context = tokenizer.img_context_id();
    if let Some(id) = config.image_token_id
        && id != context
    {
        return Err(Error::data_loss(format!(
            "config.json says that <IMG_CONTEXT> is token {id}, the tokenizer says {context}"
        )));
    }
    if tokenizer.vocab_size() > config.text.vocab {
        return Err(Error::data_loss(format!(
            "the tokenizer has {} tokens, the embedding {}; they do not belong together",
            tokenizer.vocab_size(),
            config.text.vocab
        )));
    }
    Ok(())
}
