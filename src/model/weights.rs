//! The files of a checkpoint: safetensors, single or sharded, memory-mapped, in every naming.
//!
//! Opening checks names and shapes against config.json: a tensor that the model needs and the
//! files lack, one of another shape or type, and one that the files have and the model would not
//! read are errors that name it. Values are checked (NaN, infinity) as they are read.

mod embedding;
mod values;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs::File,
    path::{Component, Path, PathBuf},
};

use candle_core::{Device, Tensor};
use memmap2::Mmap;
use safetensors::SafeTensors;
use serde::Deserialize;

use values::{has_non_finite, to_bf16, to_f32};

pub use embedding::EmbeddingTable;
pub(super) use values::number;
pub use values::{RawTensor, StoredDtype};

use super::{
    config::{Layout, ModelConfig, read_bounded},
    layout::{Naming, StoredSpec, TensorSpec, all_tensors, needed_tensors, stored},
    linear::bare,
};
use crate::{
    error::{Error, Kind, Result, ResultExt},
    limits::{MODEL_INDEX_MAX_BYTES, MODEL_SHARDS_MAX},
};

/// One safetensors file.
struct Shard {
    path: PathBuf,
    map: Mmap,
}

/// Where a stored tensor lies.
struct Entry {
    shard: usize,
    dtype: safetensors::Dtype,
    shape: Vec<usize>,
    /// Bytes of the file.
    start: usize,
    end: usize,
}

/// An opened checkpoint directory.
pub struct Checkpoint {
    dir: PathBuf,
    config: ModelConfig,
    naming: Naming,
    shards: Vec<Shard>,
    entries: HashMap<String, Entry>,
}

impl Checkpoint {
    /// Opens `dir`: config.json and model.safetensors, or model.safetensors.index.json and what
    /// it lists. Reads the headers only.
    ///
    /// Fails as [`ModelConfig::load`] does; with `NotFound` without weights; with `DataLoss` for a
    /// damaged file and for a tensor that the model has no place for.
    pub fn open(dir: &Path) -> Result<Self> {
        let (config, layout) = ModelConfig::load_with_layout(dir)?;
        let single = dir.join("model.safetensors");
        let index = dir.join("model.safetensors.index.json");
        let (files, listed) = if single.exists() {
            (vec![single], None)
        } else if index.exists() {
            let listed = read_index(&index)?;
            let names: HashSet<&String> = listed.values().collect();
            let mut names: Vec<_> = names.into_iter().map(|f| dir.join(f)).collect();
            names.sort();
            (names, Some(listed))
        } else {
            return Err(Error::not_found(format!(
                "{} has neither model.safetensors nor model.safetensors.index.json",
                dir.display()
            )));
        };
        let mut shards = Vec::with_capacity(files.len());
        let mut entries: HashMap<String, Entry> = HashMap::new();
        for path in files {
            let number = shards.len();
            let (map, found) = open_shard(&path, number)?;
            for (name, entry) in found {
                if entries.insert(name.clone(), entry).is_some() {
                    return Err(Error::data_loss(format!(
                        "tensor {name} is stored twice; the second time in {}",
                        path.display()
                    )));
                }
            }
            shards.push(Shard { path, map });
        }
        if let Some(listed) = listed {
            check_index(dir, &listed, &shards, &entries)?;
        }
        let naming = match layout {
            Layout::Original => Naming::Original,
            Layout::Hf if entries.keys().any(|n| n.starts_with("model.")) => Naming::HfNested,
            Layout::Hf => Naming::Hf,
        };
        let checkpoint = Checkpoint {
            dir: dir.to_owned(),
            config,
            naming,
            shards,
            entries,
        };
        checkpoint.refuse_unread()?;
        Ok(checkpoint)
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What config.json says.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// How the files name their tensors.
    pub fn naming(&self) -> Naming {
        self.naming
    }

    /// The safetensors files, sorted by name.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.shards.iter().map(|s| s.path.as_path())
    }

    /// Numbers stored in all of the files, by type.
    pub fn parameters(&self) -> Result<BTreeMap<StoredDtype, u64>> {
        let mut count = BTreeMap::new();
        for (name, entry) in &self.entries {
            let numbers: usize = entry.shape.iter().product();
            *count.entry(dtype_of(name, entry)?).or_insert(0) += numbers as u64;
        }
        Ok(count)
    }

    /// The tensors that the first `layers` decoder layers' features depend on, in canonical
    /// order, each checked to be there with its shape and type. See
    /// [`needed_tensors`].
    pub fn needed(&self, layers: usize) -> Result<Vec<TensorSpec>> {
        if layers > self.config.text.layers {
            return Err(Error::invalid(format!(
                "{layers} layers were asked for; the model has {}",
                self.config.text.layers
            )));
        }
        let specs = needed_tensors(&self.config, layers);
        for spec in &specs {
            self.raw(spec)?;
        }
        Ok(specs)
    }

    /// The bytes of a tensor, after a check of its presence, shape and type.
    pub fn raw(&self, spec: &TensorSpec) -> Result<RawTensor<'_>> {
        let StoredSpec {
            name,
            shape,
            first_row,
        } = stored(spec, self.naming);
        let entry = self.entries.get(&name).ok_or_else(|| {
            Error::data_loss(format!(
                "tensor {name} is missing from the checkpoint {}",
                self.dir.display()
            ))
        })?;
        if entry.shape != shape {
            return Err(Error::data_loss(format!(
                "tensor {name} has the shape {:?}; config.json makes it {shape:?}",
                entry.shape
            )));
        }
        let dtype = dtype_of(&name, entry)?;
        let row: usize = spec.shape.iter().skip(1).product::<usize>() * dtype.size();
        let length = row * spec.shape.first().copied().unwrap_or(1);
        let start = entry.start + first_row * row;
        let bytes = self
            .shards
            .get(entry.shard)
            .and_then(|shard| shard.map.get(start..start + length))
            .filter(|_| start + length <= entry.end)
            .ok_or_else(|| Error::data_loss(format!("tensor {name} reaches past its file")))?;
        Ok(RawTensor { dtype, bytes })
    }

    /// The tensor as f32 on the CPU, or as bf16 on a CUDA device.
    ///
    /// Fails with `DataLoss` naming the tensor where it is missing, misshapen, or has a NaN or an
    /// infinity.
    pub fn tensor(&self, spec: &TensorSpec, device: &Device) -> Result<Tensor> {
        let raw = self.finite(spec)?;
        let tensor = match device {
            Device::Cpu => Tensor::from_vec(to_f32(raw), spec.shape.as_slice(), device),
            _ => Tensor::from_vec(to_bf16(raw), spec.shape.as_slice(), device),
        };
        tensor.map_err(bare).or_kind(Kind::ResourceExhausted, || {
            format!(
                "the device has no room for tensor {}: free what others hold of it (nvidia-smi lists them), load \
                 fewer layers or a smaller model",
                spec.name
            )
        })
    }

    /// [`raw`](Self::raw), after a check that every number is finite.
    pub fn finite(&self, spec: &TensorSpec) -> Result<RawTensor<'_>> {
        let raw = self.raw(spec)?;
        if has_non_finite(raw) {
            return Err(Error::data_loss(format!(
                "tensor {} holds NaN or infinite numbers",
                stored(spec, self.naming).name
            )));
        }
        Ok(raw)
    }

    /// Lets the system take back the memory of the tensor's part of its file, which was copied and is
    /// not read again. It stays readable: what is read comes from the disk or its cache anew.
    pub fn forget(&self, spec: &TensorSpec) {
        #[cfg(unix)]
        {
            let stored = stored(spec, self.naming);
            let Some(entry) = self.entries.get(&stored.name) else {
                return;
            };
            let Some(shard) = self.shards.get(entry.shard) else {
                return;
            };
            // Advice: where it is not taken, only memory is lost.
            // SAFETY: the map is of a file and read-only, so a page that is dropped comes back with
            // the same bytes.
            let _ = unsafe {
                shard.map.unchecked_advise_range(
                    memmap2::UncheckedAdvice::DontNeed,
                    entry.start,
                    entry.end - entry.start,
                )
            };
        }
    }

    /// Whether the files hold the tensor, whatever its shape.
    pub fn holds(&self, spec: &TensorSpec) -> bool {
        self.entries.contains_key(&stored(spec, self.naming).name)
    }

    /// Some rows of a matrix, `[rows, width]` row-major in f32; no other row is read.
    ///
    /// Fails as [`tensor`](Self::tensor) does, and with `InvalidArgument` for a row that there is not.
    pub fn rows(&self, spec: &TensorSpec, rows: &[u32]) -> Result<Vec<f32>> {
        let raw = self.raw(spec)?;
        let width: usize = spec.shape.iter().skip(1).product();
        let bytes = width * raw.dtype.size();
        let mut out = Vec::with_capacity(rows.len() * width);
        for &row in rows {
            let start = row as usize * bytes;
            let row = raw
                .bytes
                .get(start..start + bytes)
                .ok_or_else(|| Error::invalid(format!("tensor {} has no row {row}", spec.name)))?;
            let numbers = row.chunks_exact(raw.dtype.size());
            out.extend(numbers.map(|b| number(raw.dtype, b)));
        }
        if out.iter().any(|v| !v.is_finite()) {
            return Err(Error::data_loss(format!(
                "tensor {} holds NaN or infinite numbers",
                stored(spec, self.naming).name
            )));
        }
        Ok(out)
    }

    /// A stored tensor without a place in the model would change its results if it were read (a
    /// bias, a norm, more layers), so ignoring it would hide that config.json is wrong.
    fn refuse_unread(&self) -> Result<()> {
        let known: HashSet<String> = all_tensors(&self.config)
            .iter()
            .map(|spec| stored(spec, self.naming).name)
            .collect();
        let mut unread: Vec<&String> = self
            .entries
            .keys()
            .filter(|name| !known.contains(*name) && !name.ends_with("rotary_emb.inv_freq"))
            .collect();
        unread.sort();
        match unread.first() {
            None => Ok(()),
            Some(first) => Err(Error::data_loss(format!(
                "the checkpoint holds tensor {first}, for which its config.json has no place \
                 ({} such tensors)",
                unread.len()
            ))),
        }
    }
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// Tensor name to file name. A file elsewhere than in the directory itself is refused.
pub(super) fn read_index(path: &Path) -> Result<BTreeMap<String, String>> {
    let text = read_bounded(path, MODEL_INDEX_MAX_BYTES)?;
    let index: Index = serde_json::from_str(&text).or_kind(Kind::DataLoss, || {
        format!("{} is not an index of tensors", path.display())
    })?;
    let files: HashSet<&str> = index.weight_map.values().map(String::as_str).collect();
    if files.is_empty() || files.len() > MODEL_SHARDS_MAX {
        return Err(Error::data_loss(format!(
            "{} lists {} files; it must be 1..={MODEL_SHARDS_MAX}",
            path.display(),
            files.len()
        )));
    }
    for file in files {
        let mut parts = Path::new(file).components();
        let plain = matches!(
            (parts.next(), parts.next()),
            (Some(Component::Normal(name)), None) if name == file
        );
        if !plain || !file.ends_with(".safetensors") {
            return Err(Error::data_loss(format!(
                "{} lists the file {file:?}; only safetensors files in the same directory are \
                 read",
                path.display()
            )));
        }
    }
    Ok(index.weight_map)
}

fn check_index(
    dir: &Path,
    listed: &BTreeMap<String, String>,
    shards: &[Shard],
    entries: &HashMap<String, Entry>,
) -> Result<()> {
    for (name, file) in listed {
        let found = entries
            .get(name)
            .and_then(|entry| shards.get(entry.shard))
            .is_some_and(|shard| shard.path == dir.join(file));
        if !found {
            return Err(Error::data_loss(format!(
                "tensor {name} is missing from {file}, where the index says it is"
            )));
        }
    }
    Ok(())
}

fn open_shard(path: &Path, number: usize) -> Result<(Mmap, Vec<(String, Entry)>)> {
    let file =
        File::open(path).or_kind(Kind::NotFound, || format!("cannot open {}", path.display()))?;
    // SAFETY: the map is only read, as bytes of any value. A checkpoint that another process
    // truncates meanwhile would fault; its files are read-only data by agreement.
    let map = unsafe { Mmap::map(&file) }
        .or_kind(Kind::Internal, || format!("cannot map {}", path.display()))?;
    let (header, metadata) = SafeTensors::read_metadata(&map).or_kind(Kind::DataLoss, || {
        format!("{} is not a whole safetensors file", path.display())
    })?;
    // The data begin after the header and the 8 bytes of its length.
    let data = header + 8;
    let entries = metadata
        .tensors()
        .into_iter()
        .map(|(name, info)| {
            let entry = Entry {
                shard: number,
                dtype: info.dtype,
                shape: info.shape.clone(),
                start: data + info.data_offsets.0,
                end: data + info.data_offsets.1,
            };
            (name, entry)
        })
        .collect();
    Ok((map, entries))
}

fn dtype_of(name: &str, entry: &Entry) -> Result<StoredDtype> {
    match entry.dtype {
        safetensors::Dtype::F32 => Ok(StoredDtype::F32),
        safetensors::Dtype::F16 => Ok(StoredDtype::F16),
        safetensors::Dtype::BF16 => Ok(StoredDtype::Bf16),
        other => Err(Error::unimplemented(format!(
            "tensor {name} is stored as {other:?}, which is not implemented; F32, F16 and BF16 \
             are"
        ))),
    }
}
