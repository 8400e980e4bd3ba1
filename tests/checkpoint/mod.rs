//! Reading, changing and writing small checkpoints.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{collections::BTreeMap, fs, path::Path};

use half::{bf16, f16};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use tempfile::TempDir;

/// A tensor of a file.
#[derive(Clone, Debug)]
pub struct Stored {
    pub name: String,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub bytes: Vec<u8>,
}

impl Stored {
    /// Its numbers; it must be f32.
    pub fn f32(&self) -> Vec<f32> {
        assert_eq!(self.dtype, Dtype::F32, "{}", self.name);
        self.bytes
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
            .collect()
    }

    /// Rounded to bf16, or to f16.
    pub fn to_half(&self, to_bf16: bool) -> Self {
        let numbers = self.f32();
        let (dtype, bytes) = if to_bf16 {
            let round = |v| bf16::from_f32(v).to_le_bytes();
            (Dtype::BF16, numbers.into_iter().flat_map(round).collect())
        } else {
            let round = |v| f16::from_f32(v).to_le_bytes();
            (Dtype::F16, numbers.into_iter().flat_map(round).collect())
        };
        Stored {
            dtype,
            bytes,
            ..self.clone()
        }
    }
}

/// Every tensor of a file, sorted by name.
pub fn read_tensors(path: &Path) -> Vec<Stored> {
    let bytes = fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut tensors: Vec<Stored> = file
        .iter()
        .map(|(name, view)| Stored {
            name: name.to_owned(),
            dtype: view.dtype(),
            shape: view.shape().to_vec(),
            bytes: view.data().to_vec(),
        })
        .collect();
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    tensors
}

/// Writes tensors to one file.
pub fn write_tensors(path: &Path, tensors: &[&Stored]) {
    let views = tensors.iter().map(|t| {
        let view = TensorView::new(t.dtype, t.shape.clone(), &t.bytes).unwrap();
        (t.name.clone(), view)
    });
    safetensors::serialize_to_file(views, None, path).unwrap();
}

/// A copy of the checkpoint `dir` with these tensors: one file, or `shards` of them with an index.
pub fn write_checkpoint(dir: &Path, tensors: &[Stored], shards: usize) -> TempDir {
    let copy = TempDir::new().unwrap();
    for file in fs::read_dir(dir).unwrap() {
        let file = file.unwrap();
        if !file.file_name().to_string_lossy().ends_with("safetensors") {
            fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
        }
    }
    if shards == 1 {
        let all: Vec<&Stored> = tensors.iter().collect();
        write_tensors(&copy.path().join("model.safetensors"), &all);
        return copy;
    }
    let mut map = BTreeMap::new();
    for shard in 0..shards {
        let name = format!("model-{:05}-of-{shards:05}.safetensors", shard + 1);
        // Neighbours go to different files.
        let part: Vec<&Stored> = tensors.iter().skip(shard).step_by(shards).collect();
        write_tensors(&copy.path().join(&name), &part);
        map.extend(part.iter().map(|t| (t.name.clone(), name.clone())));
    }
    write_index(copy.path(), &map);
    copy
}

/// Writes model.safetensors.index.json.
pub fn write_index(dir: &Path, map: &BTreeMap<String, String>) {
    let index = serde_json::json!({ "metadata": {}, "weight_map": map });
    fs::write(dir.join("model.safetensors.index.json"), index.to_string()).unwrap();
}

/// Changes config.json.
pub fn edit_config(dir: &Path, edit: impl FnOnce(&mut serde_json::Value)) {
    let path = dir.join("config.json");
    let mut config = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    edit(&mut config);
    fs::write(path, config.to_string()).unwrap();
}
