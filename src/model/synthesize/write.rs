//! Streaming safetensors files: a header known in advance, then tensors in pieces of bounded size.

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::Path,
};

use serde_json::{Map, Value, json};

use super::{
    Dtype,
    fill::{Init, Stream},
};
use crate::{
    error::{Error, Kind, Result, ResultExt},
    files,
};

/// Values filled at a time: 32 MiB of f32.
const PIECE_VALUES: usize = 8 << 20;

/// One tensor of the file: the concatenation of logical tensors.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct TensorPlan {
    pub name: String,
    pub shape: Vec<usize>,
    pub parts: Vec<Part>,
}

/// A logical tensor: the unit of randomness, the same in both layouts.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Part {
    pub name: String,
    pub values: usize,
    pub init: Init,
}

impl TensorPlan {
    pub fn values(&self) -> usize {
        self.shape.iter().product()
    }
}

/// Splits tensors into shards of at most `max_bytes` of tensor data, in order; a larger tensor
/// gets a shard of its own.
pub(super) fn shards(
    tensors: Vec<TensorPlan>,
    dtype: Dtype,
    max_bytes: u64,
) -> Vec<Vec<TensorPlan>> {
    let mut shards = vec![];
    let mut current = vec![];
    let mut filled = 0;
    for tensor in tensors {
        let size = (tensor.values() * dtype.bytes()) as u64;
        if !current.is_empty() && filled + size > max_bytes {
            shards.push(std::mem::take(&mut current));
            filled = 0;
        }
        filled += size;
        current.push(tensor);
    }
    if !current.is_empty() {
        shards.push(current);
    }
    shards
}

/// Name of shard `index` (zero-based) of `count`, as the hub's checkpoints have it.
pub(super) fn shard_name(index: usize, count: usize) -> String {
    if count == 1 {
        "model.safetensors".to_owned()
    } else {
        format!("model-{:05}-of-{count:05}.safetensors", index + 1)
    }
}

/// model.safetensors.index.json.
pub(super) fn index_json(shards: &[Vec<TensorPlan>], dtype: Dtype) -> Value {
    let mut map = Map::new();
    let mut total = 0;
    for (i, shard) in shards.iter().enumerate() {
        for tensor in shard {
            total += tensor.values() * dtype.bytes();
            map.insert(tensor.name.clone(), json!(shard_name(i, shards.len())));
        }
    }
    json!({ "metadata": { "total_size": total }, "weight_map": map })
}

/// Writes one safetensors file and syncs it; `progress` is told of every byte written.
pub(super) fn write_shard(
    path: &Path,
    tensors: &[TensorPlan],
    dtype: Dtype,
    seed: u64,
    progress: &mut dyn FnMut(u64),
) -> Result<()> {
    let failed = |e: std::io::Error| {
        let kind = if files::is_full(&e) {
            Kind::ResourceExhausted
        } else {
            Kind::Internal
        };
        Error::new(kind, format!("cannot write {}", path.display())).with_source(e)
    };
    let mut header = Map::new();
    header.insert("__metadata__".into(), json!({ "format": "pt" }));
    let mut offset = 0;
    for tensor in tensors {
        let end = offset + tensor.values() * dtype.bytes();
        header.insert(
            tensor.name.clone(),
            json!({
                "dtype": dtype.safetensors_name(),
                "shape": tensor.shape,
                "data_offsets": [offset, end],
            }),
        );
        offset = end;
    }
    let mut header = serde_json::to_vec(&header).or_kind(Kind::Internal, || {
        "cannot write a safetensors header".into()
    })?;
    // Tensor data starts at a multiple of 8, so that it can be read in place.
    header.resize(header.len().next_multiple_of(8), b' ');

    let file = File::create(path).map_err(failed)?;
    let mut out = BufWriter::new(file);
    out.write_all(&(header.len() as u64).to_le_bytes())
        .map_err(failed)?;
    out.write_all(&header).map_err(failed)?;
    let mut piece = Vec::new();
    for tensor in tensors {
        for part in &tensor.parts {
            let stream = Stream::new(seed, &part.name, part.init);
            let mut from = 0;
            while from < part.values {
                let count = PIECE_VALUES.min(part.values - from);
                piece.clear();
                stream.bytes(from as u64, count, dtype, &mut piece);
                out.write_all(&piece).map_err(failed)?;
                progress(piece.len() as u64);
                from += count;
            }
        }
    }
    let file = out.into_inner().map_err(|e| failed(e.into_error()))?;
    file.sync_all().map_err(failed)
}
