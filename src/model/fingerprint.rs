//! Which model a profile belongs to, as one SHA-256.
//!
//! The fingerprint of the first `layers` decoder layers is the SHA-256 of, in this order:
//! - a version tag;
//! - the numbers of config.json that change features: the whole vision tower's and the projector's,
//!   and of the language model the widths, heads, epsilon, rotary base and vocabulary (not how many
//!   layers the checkpoint has beyond those used), and `layers` itself;
//! - the tokenizer: name, length and bytes of tokenizer.json, or where there is none of vocab.json,
//!   merges.txt and added_tokens.json;
//! - of every tensor that those features need (see [`needed_tensors`]: the tower, the projector,
//!   the token embedding, every layer but the deepest whole, of the deepest the input norm and q, k
//!   and v), in canonical order: name, shape, stored number type and the SHA-256 of its bytes.
//!
//! How tensors are split into files, and the number type that a device computes in, do not matter.
//! The two layouts of one model have different fingerprints where their tokenizer files differ,
//! and so have an f32 and a bf16 checkpoint.
//!
//! [`needed_tensors`]: super::layout::needed_tensors

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{
    config::{ModelConfig, Norm},
    weights::{Checkpoint, RawTensor},
};
use crate::{
    error::{Error, Kind, Result, ResultExt},
    files::{self, NewFile},
    limits::{
        FINGERPRINT_CACHE_ENTRIES_MAX, FINGERPRINT_CACHE_ENTRY_MAX_BYTES, TOKENIZER_FILE_MAX_BYTES,
    },
};

const VERSION: &str = "headhunt fingerprint 1";

/// The fingerprint (64 hex digits) of the checkpoint in `dir` for features of its first `layers`
/// decoder layers.
///
/// Reads every byte of the needed tensors: about a second per 2 GB and core.
///
/// # Errors
/// Those of [`Checkpoint::open`] and [`Checkpoint::needed`].
pub fn fingerprint(dir: &Path, layers: usize) -> Result<String> {
    fingerprint_of(&Checkpoint::open(dir)?, layers)
}

/// [`fingerprint`], remembered in a file below `cache` for as long as no file of the checkpoint
/// changes its size or modification time. A cache that cannot be read or written costs time only.
pub fn fingerprint_cached(dir: &Path, layers: usize, cache: Option<&Path>) -> Result<String> {
    let Some(cache) = cache else {
        return fingerprint(dir, layers);
    };
    let checkpoint = Checkpoint::open(dir)?;
    let Some(before) = Stamp::of(&checkpoint, layers) else {
        return fingerprint_of(&checkpoint, layers);
    };
    let path = before.path(cache);
    if let Some(known) = read_entry(&path).filter(|entry| entry.stamp == before) {
        return Ok(known.fingerprint);
    }
    let fingerprint = fingerprint_of(&checkpoint, layers)?;
    // A file changed while it was read, or so lately that another change would not show in its
    // time stamp, must be read again next time.
    let unchanged = Stamp::of(&checkpoint, layers).is_some_and(|after| after == before);
    if unchanged && before.settled() {
        let entry = Entry {
            stamp: before,
            fingerprint: fingerprint.clone(),
        };
        if let Err(error) = write_entry(cache, &path, &entry) {
            tracing::warn!(error = %format!("{error:#}"), "fingerprint not cached");
        }
    }
    Ok(fingerprint)
}

/// [`fingerprint`] of an opened checkpoint.
pub fn fingerprint_of(checkpoint: &Checkpoint, layers: usize) -> Result<String> {
    let mut hash = Sha256::new();
    put(&mut hash, VERSION.as_bytes());
    put(
        &mut hash,
        config_text(checkpoint.config(), layers).as_bytes(),
    );
    for path in tokenizer_files(checkpoint.dir())? {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        put(&mut hash, name.as_bytes());
        put(&mut hash, &read_bounded(&path)?);
    }
    let specs = checkpoint.needed(layers)?;
    let digests = specs
        .par_iter()
        .map(|spec| {
            let RawTensor { dtype, bytes } = checkpoint.raw(spec)?;
            Ok((dtype, Sha256::digest(bytes)))
        })
        .collect::<Result<Vec<_>>>()?;
    for (spec, (dtype, digest)) in specs.iter().zip(digests) {
        put(&mut hash, spec.name.as_bytes());
        put(&mut hash, format!("{:?}", spec.shape).as_bytes());
        put(&mut hash, dtype.as_str().as_bytes());
        put(&mut hash, &digest);
    }
    Ok(format!("{:x}", hash.finalize()))
}

/// Length first, so that no two sequences of fields give the same stream.
fn put(hash: &mut Sha256, field: &[u8]) {
    hash.update((field.len() as u64).to_le_bytes());
    hash.update(field);
}

/// Written out field by field: a new field of the config struct must not change old fingerprints
/// unless it changes features.
fn config_text(config: &ModelConfig, layers: usize) -> String {
    let (v, t) = (&config.vision, &config.text);
    format!(
        "vision layers={} hidden={} heads={} mlp={} patch={} image={} norm={} qk_norm={} \
         qkv_bias={} eps={:e} qk_norm_eps={:e}; projector downsample={:e} eps={:e}; text \
         layers={layers} hidden={} heads={} kv_heads={} head_dim={} intermediate={} eps={:e} \
         rope_theta={:e} vocab={}",
        v.layers,
        v.hidden,
        v.heads,
        v.mlp,
        v.patch,
        v.image,
        match v.norm {
            Norm::LayerNorm => "layer_norm",
            Norm::RmsNorm => "rms_norm",
        },
        v.qk_norm,
        v.qkv_bias,
        v.eps,
        v.qk_norm_eps,
        config.downsample,
        config.projector_eps,
        t.hidden,
        t.heads,
        t.kv_heads,
        t.head_dim,
        t.intermediate,
        t.rms_eps,
        t.rope_theta,
        t.vocab,
    )
}

/// The files that decide what a text's tokens are.
pub(super) fn tokenizer_files(dir: &Path) -> Result<Vec<PathBuf>> {
    let whole = dir.join("tokenizer.json");
    if whole.exists() {
        return Ok(vec![whole]);
    }
    ["vocab.json", "merges.txt", "added_tokens.json"]
        .into_iter()
        .map(|name| {
            let path = dir.join(name);
            if path.exists() {
                Ok(path)
            } else {
                Err(Error::not_found(format!(
                    "{} has neither tokenizer.json nor {name}",
                    dir.display()
                )))
            }
        })
        .collect()
}

fn read_bounded(path: &Path) -> Result<Vec<u8>> {
    let named = || format!("cannot read {}", path.display());
    let file = fs::File::open(path).or_kind(Kind::NotFound, named)?;
    let mut bytes = Vec::new();
    file.take(TOKENIZER_FILE_MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .or_kind(Kind::DataLoss, named)?;
    if bytes.len() as u64 > TOKENIZER_FILE_MAX_BYTES {
        return Err(Error::data_loss(format!(
            "{} is larger than {TOKENIZER_FILE_MAX_BYTES} bytes",
            path.display()
        )));
    }
    Ok(bytes)
}

/// What must be unchanged for a remembered fingerprint to hold.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp {
    version: String,
    dir: PathBuf,
    layers: usize,
    files: Vec<FileStamp>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct FileStamp {
    path: PathBuf,
    bytes: u64,
    /// Modification time since 1970, nanoseconds.
    modified_ns: u128,
}

#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    stamp: Stamp,
    fingerprint: String,
}

/// The files of a checkpoint as they were at a moment. Its folder may be a link that is set to another one, or hold others later,
/// while a process goes on with what it has loaded.
#[derive(Debug)]
pub(super) struct Loaded(Option<Stamp>);

impl Loaded {
    /// As they are now.
    pub fn of(checkpoint: &Checkpoint) -> Self {
        Loaded(Stamp::of(checkpoint, 0))
    }

    /// That they still are.
    ///
    /// Fails with `FailedPrecondition` where they are not, and as [`Checkpoint::open`].
    pub fn check(&self, dir: &Path) -> Result<()> {
        let now = Stamp::of(&Checkpoint::open(dir)?, 0);
        match (&self.0, now) {
            (Some(then), Some(now)) if *then != now => Err(Error::precondition(format!(
                "the checkpoint in {} has changed since it was loaded: start again",
                dir.display()
            ))),
            _ => Ok(()),
        }
    }
}

impl Stamp {
    /// `None` where a file has no usable time stamp.
    fn of(checkpoint: &Checkpoint, layers: usize) -> Option<Self> {
        let dir = fs::canonicalize(checkpoint.dir()).ok()?;
        let mut paths = vec![dir.join("config.json")];
        paths.extend(tokenizer_files(checkpoint.dir()).ok()?);
        paths.extend(checkpoint.files().map(Path::to_path_buf));
        let index = dir.join("model.safetensors.index.json");
        paths.extend(index.exists().then_some(index));
        let files = paths
            .into_iter()
            .map(|path| {
                // The file itself, not a link to it: hub caches link to blobs.
                let path = fs::canonicalize(path).ok()?;
                let meta = fs::metadata(&path).ok()?;
                let modified = meta.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
                Some(FileStamp {
                    path,
                    bytes: meta.len(),
                    modified_ns: modified.as_nanos(),
                })
            })
            .collect::<Option<Vec<_>>>()?;
        Some(Stamp {
            version: VERSION.to_owned(),
            dir,
            layers,
            files,
        })
    }

    /// Whether every file is older than the coarsest time stamps in use (2 s on FAT).
    fn settled(&self) -> bool {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or(Duration::ZERO)
            .as_nanos();
        self.files
            .iter()
            .all(|file| file.modified_ns + 2_000_000_000 < now)
    }

    fn path(&self, cache: &Path) -> PathBuf {
        let mut hash = Sha256::new();
        put(&mut hash, self.dir.as_os_str().as_encoded_bytes());
        put(&mut hash, &(self.layers as u64).to_le_bytes());
        cache.join(format!("{:x}.json", hash.finalize()))
    }
}

fn read_entry(path: &Path) -> Option<Entry> {
    let file = fs::File::open(path).ok()?;
    let mut text = String::new();
    file.take(FINGERPRINT_CACHE_ENTRY_MAX_BYTES)
        .read_to_string(&mut text)
        .ok()?;
    let entry: Entry = serde_json::from_str(&text).ok()?;
    let digits = entry.fingerprint.bytes();
    (digits.len() == 64 && digits.clone().all(|b| b.is_ascii_hexdigit())).then_some(entry)
}

fn write_entry(cache: &Path, path: &Path, entry: &Entry) -> Result<()> {
    let named = || format!("cannot write {}", path.display());
    fs::create_dir_all(cache).or_kind(Kind::Internal, named)?;
    forget_oldest(cache);
    let text = serde_json::to_vec(entry).or_kind(Kind::Internal, named)?;
    let new = NewFile {
        prefix: ".entry-",
        mode: files::PRIVATE,
    };
    new.write(path, |out| out.write_all(&text))
        .or_kind(Kind::Internal, named)
}

/// Keeps the folder bounded.
fn forget_oldest(cache: &Path) {
    let Ok(entries) = fs::read_dir(cache) else {
        return;
    };
    let mut entries: Vec<(SystemTime, PathBuf)> = entries
        .flatten()
        .filter(|entry| entry.path().extension().is_some_and(|e| e == "json"))
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .collect();
    entries.sort();
    let excess = (entries.len() + 1).saturating_sub(FINGERPRINT_CACHE_ENTRIES_MAX);
    for (_, path) in entries.into_iter().take(excess) {
        let _ = fs::remove_file(path);
    }
}
