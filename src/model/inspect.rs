//! What a checkpoint directory holds, what running it would take, and what stands in the way.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
};

use serde::Serialize;

use super::{
    config::{Layout, ModelConfig, TextConfig, VisionConfig},
    fingerprint::fingerprint_cached,
    layout::{TensorSpec, all_tensors, needed_tensors},
    prompt::PromptTokenizer,
    weights::{Checkpoint, StoredDtype},
};
use crate::{
    error::{Error, Result},
    head::{HeadId, HeadSelection},
};

/// What to look at beyond names and shapes.
#[derive(Clone, Debug, Default)]
pub struct InspectOptions {
    /// Also tell what these heads alone would take.
    pub heads: Vec<HeadId>,
    /// Read every tensor and refuse NaN and infinity.
    pub verify: bool,
    /// Compute the fingerprint, which reads every tensor.
    pub fingerprint: bool,
    /// Folder that remembers fingerprints.
    pub cache: Option<PathBuf>,
}

/// One file with tensors.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WeightFile {
    /// Name within the directory.
    pub name: String,
    /// Size, bytes.
    pub bytes: u64,
}

/// The tensors of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Weights {
    /// Which of the known naming schemes: `Hf`, `HfNested`, `Original`.
    pub naming: String,
    /// Files, sorted by name.
    pub files: Vec<WeightFile>,
    /// Size of all files, bytes.
    pub bytes: u64,
    /// Numbers stored per type (`f32`, `f16`, `bf16`).
    pub parameters: BTreeMap<String, u64>,
}

/// What the weights of a selection of heads take in memory, without activations: every number in
/// the device's type, except the token embedding, which stays on the host as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// Which heads: `all`, or `layer:head` separated by spaces.
    pub heads: String,
    /// Decoder layers loaded, from the first.
    pub layers: usize,
    /// Numbers in the loaded tensors.
    pub parameters: u64,
    /// Numbers in the token embedding, which are counted in `parameters` too.
    pub embedding_parameters: u64,
    /// With f32 weights (CPU), bytes, without the embedding.
    pub f32_bytes: u64,
    /// With bf16 weights (GPU), bytes, without the embedding.
    pub bf16_bytes: u64,
}

/// What [`inspect`] found. A part that could not be read is absent, with its reason in `refused`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Inspection {
    /// The directory.
    pub dir: PathBuf,
    /// Name of the architecture that this code runs.
    pub architecture: Option<&'static str>,
    /// Layout of the config and the tensors.
    pub layout: Option<Layout>,
    /// The vision tower.
    pub vision: Option<VisionConfig>,
    /// The language model.
    pub text: Option<TextConfig>,
    /// `<IMG_CONTEXT>` tokens per frame.
    pub tokens_per_frame: Option<usize>,
    /// The tensors.
    pub weights: Option<Weights>,
    /// Memory for all heads, and for those asked for.
    pub memory: Vec<Memory>,
    /// Fingerprint for all layers.
    pub fingerprint: Option<String>,
    /// Why this checkpoint would not run; empty if it would.
    pub refused: Vec<String>,
}

/// Inspects `dir` with its fingerprint and without reading values; see [`inspect_with`].
pub fn inspect(dir: &Path) -> Result<Inspection> {
    inspect_with(
        dir,
        &InspectOptions {
            fingerprint: true,
            ..InspectOptions::default()
        },
    )
}

/// Inspects the checkpoint in `dir`. What would keep it from running is not an error here but an
/// entry of [`Inspection::refused`].
///
/// # Errors
/// `NotFound` where there is no such directory, `InvalidArgument` for a head that the model does
/// not have.
pub fn inspect_with(dir: &Path, options: &InspectOptions) -> Result<Inspection> {
    if !dir.is_dir() {
        return Err(Error::not_found(format!(
            "there is no directory {}",
            dir.display()
        )));
    }
    let mut found = Inspection {
        dir: dir.to_path_buf(),
        architecture: None,
        layout: None,
        vision: None,
        text: None,
        tokens_per_frame: None,
        weights: None,
        memory: vec![],
        fingerprint: None,
        refused: vec![],
    };
    let config = match ModelConfig::load_with_layout(dir) {
        Ok((config, layout)) => {
            found.architecture = Some(match layout {
                Layout::Hf => "InternVLForConditionalGeneration",
                Layout::Original => "InternVLChatModel",
            });
            found.layout = Some(layout);
            found.vision = Some(config.vision.clone());
            found.text = Some(config.text.clone());
            found.tokens_per_frame = Some(config.tokens_per_frame());
            found.memory = memory(&config, &options.heads)?;
            Some(config)
        }
        Err(error) => {
            found.refuse(&error);
            None
        }
    };
    match PromptTokenizer::load(dir) {
        Ok(tokenizer) => {
            if let Some(config) = &config {
                found.check_tokenizer(&tokenizer, config);
            }
        }
        Err(error) => found.refuse(&error),
    }
    // Without a config there is nothing to hold the tensors against.
    if let Some(config) = config {
        match Checkpoint::open(dir) {
            Ok(checkpoint) => found.look_at(&checkpoint, &config, options),
            Err(error) => found.refuse(&error),
        }
    }
    if options.fingerprint && found.refused.is_empty() {
        let layers = found.text.as_ref().map_or(0, |text| text.layers);
        match fingerprint_cached(dir, layers, options.cache.as_deref()) {
            Ok(fingerprint) => found.fingerprint = Some(fingerprint),
            Err(error) => found.refuse(&error),
        }
    }
    Ok(found)
}

impl Inspection {
    fn refuse(&mut self, error: &Error) {
        self.refused.push(format!("{error:#}"));
    }

    fn check_tokenizer(&mut self, tokenizer: &PromptTokenizer, config: &ModelConfig) {
        let (ids, rows) = (tokenizer.vocab_size(), config.text.vocab);
        if ids > rows {
            self.refused.push(format!(
                "the tokenizer has {ids} tokens, the embedding table only {rows} rows"
            ));
        }
        let image = tokenizer.img_context_id();
        if config.image_token_id.is_some_and(|id| id != image) {
            self.refused.push(format!(
                "image_token_id in config.json is {}, the tokenizer's <IMG_CONTEXT> is {image}",
                config.image_token_id.unwrap_or_default()
            ));
        }
    }

    fn look_at(&mut self, checkpoint: &Checkpoint, config: &ModelConfig, options: &InspectOptions) {
        let files: Vec<WeightFile> = checkpoint
            .files()
            .map(|path| WeightFile {
                name: path
                    .file_name()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned(),
                bytes: std::fs::metadata(path).map_or(0, |meta| meta.len()),
            })
            .collect();
        match checkpoint.parameters() {
            Ok(parameters) => {
                self.weights = Some(Weights {
                    naming: format!("{:?}", checkpoint.naming()),
                    bytes: files.iter().map(|file| file.bytes).sum(),
                    files,
                    parameters: parameters
                        .into_iter()
                        .map(|(dtype, count)| (StoredDtype::as_str(dtype).to_owned(), count))
                        .collect(),
                });
            }
            Err(error) => self.refuse(&error),
        }
        // Every fault, not only the first one: a damaged file has many.
        for spec in needed_tensors(config, config.text.layers) {
            let checked = if options.verify {
                checkpoint.finite(&spec)
            } else {
                checkpoint.raw(&spec)
            };
            if let Err(error) = checked {
                self.refuse(&error);
            }
        }
    }
}

fn values(specs: &[TensorSpec]) -> u64 {
    specs
        .iter()
        .map(|spec| spec.shape.iter().map(|n| *n as u64).product::<u64>())
        .sum()
}

fn memory(config: &ModelConfig, heads: &[HeadId]) -> Result<Vec<Memory>> {
    let text = &config.text;
    let row = |name: String, layers: usize| {
        let parameters = values(&needed_tensors(config, layers));
        let embedding_parameters = text.vocab as u64 * text.hidden as u64;
        let on_device = parameters - embedding_parameters;
        Memory {
            heads: name,
            layers,
            parameters,
            embedding_parameters,
            f32_bytes: on_device * 4,
            bf16_bytes: on_device * 2,
        }
    };
    let mut rows = vec![row("all".to_owned(), text.layers)];
    if heads.is_empty() {
        return Ok(rows);
    }
    for id in heads {
        if id.layer >= text.layers || id.head >= text.heads {
            return Err(Error::invalid(format!(
                "there is no head {}:{}; the model has {} layers of {} heads",
                id.layer, id.head, text.layers, text.heads
            )));
        }
    }
    let names: Vec<String> = heads
        .iter()
        .map(|id| format!("{}:{}", id.layer, id.head))
        .collect();
    let layers = HeadSelection::Only(heads.to_vec()).layers_needed(text.layers);
    rows.push(row(names.join(" "), layers));
    Ok(rows)
}

/// Numbers of parameters of a complete checkpoint with this config.
pub fn parameters(config: &ModelConfig) -> u64 {
    values(&all_tensors(config))
}

fn gigabytes(bytes: u64) -> String {
    if bytes < 10_000_000 {
        format!("{:.2} MB", bytes as f64 / 1e6)
    } else {
        format!("{:.2} GB", bytes as f64 / 1e9)
    }
}

impl fmt::Display for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.dir.display())?;
        if let (Some(architecture), Some(layout)) = (self.architecture, self.layout) {
            writeln!(f, "  architecture  {architecture} ({layout} layout)")?;
        }
        if let Some(v) = &self.vision {
            writeln!(
                f,
                "  vision        {} layers, width {}, {} heads, picture {}, patch {}, {:?}{}",
                v.layers,
                v.hidden,
                v.heads,
                v.image,
                v.patch,
                v.norm,
                if v.qk_norm { ", q/k norm" } else { "" }
            )?;
        }
        if let Some(t) = &self.text {
            writeln!(
                f,
                "  language      {} layers x {} heads x {} numbers ({} key/value heads), width {}, vocabulary {}",
                t.layers, t.heads, t.head_dim, t.kv_heads, t.hidden, t.vocab
            )?;
        }
        if let Some(tokens) = self.tokens_per_frame {
            writeln!(f, "  frame         {tokens} tokens")?;
        }
        if let Some(w) = &self.weights {
            let types: Vec<String> = w
                .parameters
                .iter()
                .map(|(dtype, count)| format!("{count} {dtype}"))
                .collect();
            writeln!(
                f,
                "  weights       {} in {} file(s), {} numbers, naming {}",
                gigabytes(w.bytes),
                w.files.len(),
                types.join(" + "),
                w.naming
            )?;
            for file in &w.files {
                writeln!(f, "                {} {}", file.name, gigabytes(file.bytes))?;
            }
        }
        for m in &self.memory {
            writeln!(
                f,
                "  memory        heads {}: {} layers, {} as f32 (CPU) or {} as bf16 (GPU), beside the embedding's {:.1} M numbers; without activations",
                m.heads,
                m.layers,
                gigabytes(m.f32_bytes),
                gigabytes(m.bf16_bytes),
                m.embedding_parameters as f64 / 1e6
            )?;
        }
        if let Some(fingerprint) = &self.fingerprint {
            writeln!(f, "  fingerprint   {fingerprint} (all layers)")?;
        }
        for reason in &self.refused {
            writeln!(f, "  refused       {reason}")?;
        }
        if self.refused.is_empty() {
            writeln!(f, "  runs here     yes")?;
        }
        Ok(())
    }
}
