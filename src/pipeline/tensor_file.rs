//! Writes safetensors files whose tensors arrive piece by piece and may exceed memory: rows go to
//! unnamed temporary files beside the target, which appears whole or not at all.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufWriter, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use serde_json::json;

use crate::{
    error::{Kind, Result, ResultExt},
    files::{begin_output, folder_of, put_output},
};

/// Numbers of one tensor, in their final order, kept on disk until the file is written.
pub struct Spool {
    file: BufWriter<File>,
    numbers: usize,
    target: PathBuf,
}

impl Spool {
    /// An empty spool on the file system of `target`.
    pub fn beside(target: &Path) -> Result<Self> {
        let file = tempfile::tempfile_in(folder_of(target))
            .or_kind(Kind::ResourceExhausted, || cannot_write(target))?;
        Ok(Spool {
            file: BufWriter::with_capacity(1 << 20, file),
            numbers: 0,
            target: target.into(),
        })
    }

    /// Appends numbers.
    pub fn push(&mut self, numbers: &[f32]) -> Result<()> {
        for number in numbers {
            self.file
                .write_all(&number.to_le_bytes())
                .or_kind(Kind::ResourceExhausted, || cannot_write(&self.target))?;
        }
        self.numbers += numbers.len();
        Ok(())
    }

    /// How many numbers were appended.
    pub fn len(&self) -> usize {
        self.numbers
    }

    /// Whether none was.
    pub fn is_empty(&self) -> bool {
        self.numbers == 0
    }
}

/// What a tensor holds.
pub enum Content {
    /// f32, the spools' numbers one after another.
    F32(Vec<Spool>),
    /// i64.
    I64(Vec<i64>),
}

impl Content {
    fn numbers(&self) -> usize {
        match self {
            Content::F32(spools) => spools.iter().map(Spool::len).sum(),
            Content::I64(numbers) => numbers.len(),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Content::F32(_) => self.numbers() * 4,
            Content::I64(_) => self.numbers() * 8,
        }
    }
}

/// A tensor to write.
pub struct Tensor {
    /// Its name in the file.
    pub name: &'static str,
    /// Its shape; the product is the number of numbers.
    pub shape: Vec<usize>,
    /// Its numbers, row-major.
    pub content: Content,
}

/// Writes `out` with these tensors and text metadata, atomically.
pub fn write(out: &Path, tensors: Vec<Tensor>, metadata: &BTreeMap<String, String>) -> Result<()> {
    let failed = || cannot_write(out);
    let mut header = serde_json::Map::new();
    if !metadata.is_empty() {
        header.insert("__metadata__".to_owned(), json!(metadata));
    }
    let mut offset = 0;
    for tensor in &tensors {
        let expected: usize = tensor.shape.iter().product();
        if expected != tensor.content.numbers() {
            return Err(crate::error::Error::internal(format!(
                "tensor `{}` of shape {:?} was given {} numbers",
                tensor.name,
                tensor.shape,
                tensor.content.numbers()
            )));
        }
        let dtype = match tensor.content {
            Content::F32(_) => "F32",
            Content::I64(_) => "I64",
        };
        let end = offset + tensor.content.bytes();
        header.insert(
            tensor.name.to_owned(),
            json!({ "dtype": dtype, "shape": tensor.shape, "data_offsets": [offset, end] }),
        );
        offset = end;
    }
    let mut header = serde_json::to_vec(&header).or_kind(Kind::Internal, failed)?;
    // The format wants the data 8-byte aligned.
    header.resize(header.len().next_multiple_of(8), b' ');

    let mut file = begin_output(out)?;
    {
        let mut to = BufWriter::with_capacity(1 << 20, file.as_file_mut());
        let full = Kind::ResourceExhausted;
        to.write_all(&(header.len() as u64).to_le_bytes())
            .or_kind(full, failed)?;
        to.write_all(&header).or_kind(full, failed)?;
        for tensor in tensors {
            match tensor.content {
                Content::I64(numbers) => {
                    for number in numbers {
                        to.write_all(&number.to_le_bytes()).or_kind(full, failed)?;
                    }
                }
                Content::F32(spools) => {
                    for spool in spools {
                        let mut from = spool
                            .file
                            .into_inner()
                            .map_err(std::io::IntoInnerError::into_error)
                            .or_kind(full, failed)?;
                        from.seek(SeekFrom::Start(0)).or_kind(full, failed)?;
                        std::io::copy(&mut from, &mut to).or_kind(full, failed)?;
                    }
                }
            }
        }
        to.flush().or_kind(full, failed)?;
    }
    put_output(file, out)
}

fn cannot_write(path: &Path) -> String {
    format!(
        "cannot write {}: check that its folder exists, is writable and has room",
        path.display()
    )
}

#[cfg(test)]
mod tests {
    use safetensors::SafeTensors;

    use super::*;

    #[test]
    fn another_reader_finds_what_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("f.safetensors");
        let mut a = Spool::beside(&out).unwrap();
        let mut b = Spool::beside(&out).unwrap();
        a.push(&[1.0, 2.0]).unwrap();
        b.push(&[3.0]).unwrap();
        a.push(&[4.0]).unwrap();
        b.push(&[5.0, 6.0]).unwrap();
        let metadata = BTreeMap::from([("names".to_owned(), "[\"x\"]".to_owned())]);
        let tensors = vec![
            Tensor {
                name: "features",
                shape: vec![2, 3],
                content: Content::F32(vec![a, b]),
            },
            Tensor {
                name: "labels",
                shape: vec![2],
                content: Content::I64(vec![1, -1]),
            },
        ];
        write(&out, tensors, &metadata).unwrap();
        let bytes = std::fs::read(&out).unwrap();
        let read = SafeTensors::deserialize(&bytes).unwrap();
        let features = read.tensor("features").unwrap();
        assert_eq!(features.shape(), [2, 3]);
        let numbers: Vec<f32> = features
            .data()
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
            .collect();
        assert_eq!(numbers, [1.0, 2.0, 4.0, 3.0, 5.0, 6.0]);
        assert_eq!(
            read.tensor("labels").unwrap().data()[8..],
            (-1i64).to_le_bytes()
        );
    }

    #[test]
    fn a_wrong_count_is_refused_and_leaves_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("f.safetensors");
        let tensors = vec![Tensor {
            name: "labels",
            shape: vec![3],
            content: Content::I64(vec![1]),
        }];
        assert!(write(&out, tensors, &BTreeMap::new()).is_err());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
