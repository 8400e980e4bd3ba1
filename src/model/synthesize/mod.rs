//! Whole checkpoint directories with random weights: what tests, benchmarks and the demo run on
//! where no published weights can be had.
//!
//! A checkpoint is written tensor by tensor, so memory stays bounded (about 64 MiB) whatever its
//! size. Every logical tensor's values depend on the seed and its name alone: both layouts hold
//! the same model, and bf16 is f32 rounded.

mod fill;
mod init;
mod preset;
mod vocabulary;
mod write;

use std::{
    fs,
    path::{Path, PathBuf},
    str::FromStr,
};

use serde_json::Value;

pub use super::config::Layout;
pub use preset::Preset;

use crate::{
    error::{Error, Kind, Result, ResultExt},
    limits::{SHARD_MAX_BYTES, SYNTHESIZE_SPARE_BYTES},
};

/// Number format of the written tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dtype {
    /// 32-bit floats.
    F32,
    /// bfloat16.
    Bf16,
}

impl Dtype {
    /// The name used on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Dtype::F32 => "f32",
            Dtype::Bf16 => "bf16",
        }
    }

    /// Bytes per value.
    pub const fn bytes(self) -> usize {
        match self {
            Dtype::F32 => 4,
            Dtype::Bf16 => 2,
        }
    }

    const fn torch_name(self) -> &'static str {
        match self {
            Dtype::F32 => "float32",
            Dtype::Bf16 => "bfloat16",
        }
    }

    const fn safetensors_name(self) -> &'static str {
        match self {
            Dtype::F32 => "F32",
            Dtype::Bf16 => "BF16",
        }
    }
}

impl FromStr for Dtype {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "f32" => Ok(Dtype::F32),
            "bf16" => Ok(Dtype::Bf16),
            _ => Err(Error::invalid(format!(
                "no dtype {name:?}; there are f32 and bf16"
            ))),
        }
    }
}

/// What to synthesize, and the seams that tests and the command line use.
pub struct Synthesis<'a> {
    /// The shape.
    pub preset: Preset,
    /// Seed of every tensor.
    pub seed: u64,
    /// Names and packing of the tensors, and the form of the config.
    pub layout: Layout,
    /// Number format of the tensors.
    pub dtype: Dtype,
    /// Most bytes of tensors per file; a larger tensor gets a file of its own.
    pub shard_max_bytes: u64,
    /// Told of (bytes written, bytes in all) after every piece.
    pub progress: &'a mut dyn FnMut(u64, u64),
}

/// Writes a checkpoint of `preset` with random weights to the directory `out`, which must not
/// exist or be empty.
///
/// Fails with `FailedPrecondition` if `out` has contents, and with `ResourceExhausted`, naming the
/// bytes needed, if the file system has too little space. Whatever fails or interrupts it, `out`
/// holds either nothing or the whole checkpoint.
pub fn synthesize(
    preset: Preset,
    seed: u64,
    layout: Layout,
    dtype: Dtype,
    out: &Path,
) -> Result<()> {
    Synthesis {
        preset,
        seed,
        layout,
        dtype,
        shard_max_bytes: SHARD_MAX_BYTES,
        progress: &mut |_, _| {},
    }
    .write(out)
}

impl Synthesis<'_> {
    /// See [`synthesize`].
    pub fn write(self, out: &Path) -> Result<()> {
        let shape = self.preset.shape();
        refuse_contents(out)?;
        let (parent, name) = place(out)?;
        fs::create_dir_all(&parent).or_kind(Kind::InvalidArgument, || {
            format!("cannot create {}", parent.display())
        })?;

        let config = preset::config_json(&shape, self.layout, self.dtype);
        let tensors = init::plan(&config, self.preset)?;
        let shards = write::shards(tensors, self.dtype, self.shard_max_bytes);
        let total: u64 = shards
            .iter()
            .flatten()
            .map(|t| (t.values() * self.dtype.bytes()) as u64)
            .sum();
        check_space(&parent, total)?;

        // Beside the target, so that the rename stays within one file system.
        let partial = tempfile::Builder::new()
            .prefix(&format!(".{name}.partial-"))
            .tempdir_in(&parent)
            .or_kind(Kind::Internal, || {
                format!("cannot create a folder in {}", parent.display())
            })?;
        let dir = partial.path();
        vocabulary::Vocabulary::train(init::CORPUS, shape.base_vocab())?.write(dir, self.layout)?;
        write_json(
            dir,
            "preprocessor_config.json",
            &preset::preprocessor_json(&shape, self.layout),
        )?;
        write_json(
            dir,
            "generation_config.json",
            &preset::generation_json(&shape),
        )?;
        if self.layout == Layout::Hf {
            write_json(
                dir,
                "processor_config.json",
                &preset::processor_json(&shape),
            )?;
        }
        let mut written = 0;
        for (i, shard) in shards.iter().enumerate() {
            let path = dir.join(write::shard_name(i, shards.len()));
            let progress = &mut *self.progress;
            write::write_shard(&path, shard, self.dtype, self.seed, &mut |bytes| {
                written += bytes;
                progress(written, total);
            })?;
        }
        if shards.len() > 1 {
            write_json(
                dir,
                "model.safetensors.index.json",
                &write::index_json(&shards, self.dtype),
            )?;
        }
        // Last: without a config nothing loads, not even the partial folder.
        write_json(dir, "config.json", &config)?;
        publish(partial, out)
    }
}

fn publish(partial: tempfile::TempDir, out: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    // A temporary folder is private; a checkpoint is an ordinary folder.
    let named = || format!("cannot put the checkpoint at {}", out.display());
    fs::set_permissions(partial.path(), fs::Permissions::from_mode(0o755))
        .or_kind(Kind::Internal, named)?;
    // Replaces an empty folder, fails on one that has been filled meanwhile.
    fs::rename(partial.path(), out).or_kind(Kind::FailedPrecondition, named)?;
    // Renamed away: there is nothing left to remove.
    let _ = partial.keep();
    Ok(())
}

fn refuse_contents(out: &Path) -> Result<()> {
    match fs::read_dir(out) {
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => Err(Error::precondition(format!(
                "{} is not empty; name a new folder",
                out.display()
            ))),
        },
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(Error::invalid(format!(
            "{} cannot be used as the checkpoint's folder",
            out.display()
        ))
        .with_source(e)),
    }
}

/// Parent folder and own name of `out`.
fn place(out: &Path) -> Result<(PathBuf, String)> {
    let absolute = std::path::absolute(out).or_kind(Kind::InvalidArgument, || {
        format!("{} is no path", out.display())
    })?;
    match (absolute.parent(), absolute.file_name()) {
        (Some(parent), Some(name)) => {
            Ok((parent.to_path_buf(), name.to_string_lossy().into_owned()))
        }
        _ => Err(Error::invalid(format!(
            "{} cannot be the checkpoint's folder; name a folder below it",
            out.display()
        ))),
    }
}

fn check_space(dir: &Path, tensors: u64) -> Result<()> {
    let need = tensors + SYNTHESIZE_SPARE_BYTES;
    let stat = rustix::fs::statvfs(dir).or_kind(Kind::Internal, || {
        format!("cannot ask for the free space of {}", dir.display())
    })?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    if free < need {
        return Err(Error::exhausted(format!(
            "the checkpoint needs {need} bytes ({:.2} GB), and {} has only {free} ({:.2} GB) free",
            need as f64 / 1e9,
            dir.display(),
            free as f64 / 1e9,
        )));
    }
    Ok(())
}

fn write_json(dir: &Path, name: &str, value: &Value) -> Result<()> {
    let path = dir.join(name);
    let mut text = serde_json::to_vec_pretty(value)
        .or_kind(Kind::Internal, || format!("cannot write {name}"))?;
    text.push(b'\n');
    fs::write(&path, text).or_kind(Kind::Internal, || {
        format!("cannot write {}", path.display())
    })
}
