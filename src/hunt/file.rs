//! The files around a hunt: features and labels in (safetensors), the result out (JSON).

use std::{collections::HashMap, fs::File, path::Path};

use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde::Serialize;

use super::{Features, HuntOptions, HuntResult, features::check_shape};
use crate::{
    error::{Error, Kind, Result, ResultExt},
    files::write_output,
    head::HeadId,
};

/// Metadata key of the sample names, a JSON array of strings.
const SAMPLE_NAMES: &str = "sample_names";

/// Metadata key of the prompts' texts, a JSON array of strings.
const PROMPTS: &str = "prompts";

/// Labelled features as a file holds them.
#[derive(Clone, Debug, PartialEq)]
pub struct LabelledFeatures {
    /// Head features of all samples.
    pub features: Features,
    /// True for anomalous samples.
    pub labels: Vec<bool>,
    /// A name per sample, if the file has them.
    pub sample_names: Option<Vec<String>>,
    /// The prompts' texts, if the file has them.
    pub prompts: Option<Vec<String>>,
}

/// Reads tensors `features` \[prompts, samples, layers, heads, head_dim\] (f32, f16, bf16 or f64,
/// kept as f32) and `labels` i64 \[samples\] (1 = anomaly, 0 = normal), and the names in the metadata.
///
/// # Errors
/// `NotFound` if there is no such file; `InvalidArgument` if it is no safetensors file or a tensor is
/// missing, of another type or shape, or holds another label; the message names the tensor.
pub fn read_features(path: &Path) -> Result<LabelledFeatures> {
    read(path).map_err(|e| e.context(path.display()))
}

fn read(path: &Path) -> Result<LabelledFeatures> {
    let file = File::open(path).map_err(|e| {
        let kind = match e.kind() {
            std::io::ErrorKind::NotFound => Kind::NotFound,
            _ => Kind::InvalidArgument,
        };
        Error::new(kind, "cannot open the features file").with_source(e)
    })?;
    let invalid = |what: &'static str| move || what.to_owned();
    // SAFETY: the map is read-only and lives in this function. A process that shortens the file
    // meanwhile would stop us with SIGBUS, as for every mapped file; writers here replace files
    // whole (`write_features`).
    let map = unsafe { Mmap::map(&file) }.or_kind(
        Kind::InvalidArgument,
        invalid("cannot map the features file; it must be a regular file that is not empty"),
    )?;
    const NOT_SAFETENSORS: &str = "not a whole safetensors file; make it with `headhunt extract`";
    let (_, header) = SafeTensors::read_metadata(&map)
        .or_kind(Kind::InvalidArgument, invalid(NOT_SAFETENSORS))?;
    let tensors =
        SafeTensors::deserialize(&map).or_kind(Kind::InvalidArgument, invalid(NOT_SAFETENSORS))?;
    let features = features(&tensor(&tensors, "features")?)?;
    let labels = labels(&tensor(&tensors, "labels")?, features.samples)?;
    let names = |key: &str, count: usize| -> Result<Option<Vec<String>>> {
        let Some(text) = header.metadata().as_ref().and_then(|m| m.get(key)) else {
            return Ok(None);
        };
        let names: Vec<String> = serde_json::from_str(text)
            .or_kind(Kind::InvalidArgument, || {
                format!("metadata `{key}` is not a JSON array of strings")
            })?;
        if names.len() == count {
            Ok(Some(names))
        } else {
            Err(Error::invalid(format!(
                "metadata `{key}` has {} entries; the features have {count}",
                names.len()
            )))
        }
    };
    Ok(LabelledFeatures {
        sample_names: names(SAMPLE_NAMES, features.samples)?,
        prompts: names(PROMPTS, features.prompts)?,
        features,
        labels,
    })
}

fn tensor<'a>(tensors: &SafeTensors<'a>, name: &str) -> Result<TensorView<'a>> {
    tensors.tensor(name).map_err(|_| {
        let mut present = tensors.names();
        present.sort_unstable();
        present.truncate(10);
        Error::invalid(format!(
            "no tensor `{name}`; it has {}",
            if present.is_empty() {
                "none".to_owned()
            } else {
                present.join(", ")
            }
        ))
    })
}

fn features(tensor: &TensorView) -> Result<Features> {
    let shape: [usize; 5] = tensor.shape().try_into().map_err(|_| {
        Error::invalid(format!(
            "tensor `features` has shape {:?}; it needs five dimensions: prompts, samples, layers, heads, head_dim",
            tensor.shape()
        ))
    })?;
    let len = check_shape(shape)?;
    let bytes = tensor.data();
    let data: Vec<f32> = match tensor.dtype() {
        Dtype::F32 => numbers(bytes, f32::from_le_bytes),
        Dtype::F16 => numbers(bytes, |b| half::f16::from_le_bytes(b).to_f32()),
        Dtype::BF16 => numbers(bytes, |b| half::bf16::from_le_bytes(b).to_f32()),
        Dtype::F64 => numbers(bytes, |b| f64::from_le_bytes(b) as f32),
        other => {
            return Err(Error::invalid(format!(
                "tensor `features` is {other:?}; it must be F32, F16, BF16 or F64"
            )));
        }
    };
    if data.len() != len {
        return Err(Error::invalid(format!(
            "tensor `features` of shape {shape:?} holds {} numbers",
            data.len()
        )));
    }
    let [prompts, samples, layers, heads, head_dim] = shape;
    if tensor.dtype() == Dtype::F64 {
        let given = bytes
            .as_chunks::<8>()
            .0
            .iter()
            .map(|b| f64::from_le_bytes(*b));
        if let Some((_, given)) = data
            .iter()
            .zip(given)
            .find(|(v, given)| v.is_infinite() && given.is_finite())
        {
            return Err(Error::invalid(format!(
                "tensor `features` has {given:e}, which F32 cannot hold; hunting keeps features in F32"
            )));
        }
    }
    Ok(Features {
        prompts,
        samples,
        layers,
        heads,
        head_dim,
        data,
    })
}

fn labels(tensor: &TensorView, samples: usize) -> Result<Vec<bool>> {
    if tensor.dtype() != Dtype::I64 || tensor.shape() != [samples] {
        return Err(Error::invalid(format!(
            "tensor `labels` is {:?} {:?}; it must be I64 [{samples}], one per sample",
            tensor.dtype(),
            tensor.shape()
        )));
    }
    numbers(tensor.data(), i64::from_le_bytes)
        .into_iter()
        .enumerate()
        .map(|(i, label)| match label {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(Error::invalid(format!(
                "tensor `labels` holds {other} for sample {i}; it must be 1 (anomaly) or 0 (normal)"
            ))),
        })
        .collect()
}

/// Little-endian numbers of `N` bytes.
fn numbers<const N: usize, X>(bytes: &[u8], read: impl Fn([u8; N]) -> X) -> Vec<X> {
    bytes.as_chunks::<N>().0.iter().map(|b| read(*b)).collect()
}

/// Writes what [`read_features`] reads, in f32. The file appears whole or not at all.
///
/// # Errors
/// `InvalidArgument` if counts do not agree; `ResourceExhausted` if it cannot be written.
pub fn write_features(path: &Path, labelled: &LabelledFeatures) -> Result<()> {
    let LabelledFeatures {
        features,
        labels,
        sample_names,
        prompts,
    } = labelled;
    let len = check_shape(features.shape())?;
    for (what, count, wanted) in [
        ("numbers", Some(features.data.len()), len),
        ("labels", Some(labels.len()), features.samples),
        (
            "sample names",
            sample_names.as_ref().map(Vec::len),
            features.samples,
        ),
        ("prompts", prompts.as_ref().map(Vec::len), features.prompts),
    ] {
        if count.is_some_and(|c| c != wanted) {
            return Err(Error::invalid(format!(
                "features of shape {:?} need {wanted} {what}",
                features.shape()
            )));
        }
    }
    let data: Vec<u8> = features.data.iter().flat_map(|x| x.to_le_bytes()).collect();
    let labels: Vec<u8> = labels
        .iter()
        .flat_map(|&l| i64::from(l).to_le_bytes())
        .collect();
    let internal = || "cannot lay out the features file".to_owned();
    let view = |dtype, shape: &[usize], bytes| {
        TensorView::new(dtype, shape.to_vec(), bytes).or_kind(Kind::Internal, internal)
    };
    let tensors = [
        ("features", view(Dtype::F32, &features.shape(), &data)?),
        ("labels", view(Dtype::I64, &[features.samples], &labels)?),
    ];
    let mut metadata = HashMap::new();
    for (key, names) in [(SAMPLE_NAMES, sample_names), (PROMPTS, prompts)] {
        if let Some(names) = names {
            let json = serde_json::to_string(names).or_kind(Kind::Internal, internal)?;
            metadata.insert(key.to_owned(), json);
        }
    }
    let bytes =
        safetensors::serialize(tensors, Some(metadata)).or_kind(Kind::Internal, internal)?;
    write_output(path, |out| out.write_all(&bytes))
}

/// The result file: arrays nested as their dimensions say.
#[derive(Serialize)]
struct ResultFile<'a> {
    heads: &'a [HeadId],
    options: Options,
    lda: Nested<'a>,
    kl: Nested<'a>,
    mmd: Nested<'a>,
    nmi: Nested<'a>,
    saliency: Nested<'a>,
    rss: Vec<&'a [f64]>,
    mean: Vec<&'a [f64]>,
    std: Vec<&'a [f64]>,
    notes: &'a [String],
}

#[derive(Serialize)]
struct Options {
    top_k: usize,
    lambda: f64,
}

/// `[prompts][layers][heads]`.
type Nested<'a> = Vec<Vec<&'a [f64]>>;

/// Writes a hunt's result as JSON: `heads` [[layer, head], …], `lda`, `kl`, `mmd`, `nmi`, `saliency`
/// \[prompts\]\[layers\]\[heads\], `rss`, `mean`, `std` \[layers\]\[heads\], `options`, `notes`. The
/// file appears whole or not at all.
///
/// # Errors
/// `ResourceExhausted` if it cannot be written.
pub fn write_result(path: &Path, result: &HuntResult, options: &HuntOptions) -> Result<()> {
    let layers = |flat| <[f64]>::chunks(flat, result.heads).collect::<Vec<_>>();
    let prompts = |flat| -> Nested {
        <[f64]>::chunks(flat, result.layers * result.heads)
            .map(layers)
            .collect()
    };
    let file = ResultFile {
        heads: &result.expert_heads,
        options: Options {
            top_k: options.top_k,
            lambda: options.lambda,
        },
        lda: prompts(&result.lda),
        kl: prompts(&result.kl),
        mmd: prompts(&result.mmd),
        nmi: prompts(&result.nmi),
        saliency: prompts(&result.saliency),
        rss: layers(&result.rss),
        mean: layers(&result.mean),
        std: layers(&result.std),
        notes: &result.notes,
    };
    write_output(path, |out| {
        serde_json::to_writer(&mut *out, &file)?;
        out.write_all(b"\n")
    })
}

#[cfg(test)]
mod tests {
    use safetensors::serialize_to_file;

    use super::*;

    fn labelled() -> LabelledFeatures {
        LabelledFeatures {
            features: Features {
                prompts: 2,
                samples: 3,
                layers: 1,
                heads: 2,
                head_dim: 2,
                data: (0..24).map(|i| i as f32 * 0.25 - 2.0).collect(),
            },
            labels: vec![true, false, true],
            sample_names: Some(["a \"b\".mp4", "ü", "c"].map(String::from).to_vec()),
            prompts: None,
        }
    }

    fn write(
        path: &Path,
        features: (Dtype, &[usize], &[u8]),
        labels: Option<(Dtype, &[usize], &[u8])>,
    ) {
        let view = |(dtype, shape, data): (Dtype, &[usize], _)| {
            TensorView::new(dtype, shape.to_vec(), data).unwrap()
        };
        let mut tensors = vec![("features", view(features))];
        tensors.extend(labels.map(|l| ("labels", view(l))));
        serialize_to_file(tensors, None, path).unwrap();
    }

    #[test]
    fn what_is_written_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f.safetensors");
        write_features(&path, &labelled()).unwrap();
        assert_eq!(read_features(&path).unwrap(), labelled());
        let mut wrong = labelled();
        wrong.labels.pop();
        assert_eq!(
            write_features(&path, &wrong).unwrap_err().kind(),
            Kind::InvalidArgument
        );
        // The folder holds nothing else.
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn other_float_types_are_converted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f.safetensors");
        let want = labelled();
        let shape = want.features.shape();
        let labels: Vec<u8> = [1_i64, 0, 1].iter().flat_map(|x| x.to_le_bytes()).collect();
        let labels = Some((Dtype::I64, &[3_usize][..], &labels[..]));
        let data = &want.features.data;
        let f16: Vec<u8> = data
            .iter()
            .flat_map(|&x| half::f16::from_f32(x).to_le_bytes())
            .collect();
        let bf16: Vec<u8> = data
            .iter()
            .flat_map(|&x| half::bf16::from_f32(x).to_le_bytes())
            .collect();
        let f64: Vec<u8> = data
            .iter()
            .flat_map(|&x| f64::from(x).to_le_bytes())
            .collect();
        for (dtype, bytes) in [(Dtype::F16, f16), (Dtype::BF16, bf16), (Dtype::F64, f64)] {
            write(&path, (dtype, &shape, &bytes), labels);
            let got = read_features(&path).unwrap();
            assert_eq!(got.features, want.features, "{dtype:?}");
            assert_eq!((got.labels, got.sample_names), (want.labels.clone(), None));
        }
    }

    #[test]
    fn bad_files_are_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f.safetensors");
        let message = |kind| {
            let e = read_features(&path).unwrap_err();
            assert_eq!(e.kind(), kind, "{e}");
            assert!(e.message().contains("f.safetensors"), "{e}");
            e.message().to_owned()
        };
        assert!(message(Kind::NotFound).contains("cannot open"));
        for bytes in [&b""[..], b"not a tensor file at all", &[0xff; 64]] {
            std::fs::write(&path, bytes).unwrap();
            message(Kind::InvalidArgument);
        }
        write_features(&path, &labelled()).unwrap();
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 9]).unwrap();
        assert!(message(Kind::InvalidArgument).contains("whole safetensors"));

        let f32s = [0_u8; 96];
        let labels = |label: i64| [label, 0, 1].map(i64::to_le_bytes).concat();
        let good = labels(1);
        let shape = [2_usize, 3, 1, 2, 2];
        write(&path, (Dtype::F32, &shape, &f32s), None);
        assert!(message(Kind::InvalidArgument).contains("no tensor `labels`; it has features"));
        write(
            &path,
            (Dtype::F32, &[2, 3, 4], &f32s),
            Some((Dtype::I64, &[3], &good)),
        );
        assert!(message(Kind::InvalidArgument).contains("`features` has shape [2, 3, 4]"));
        write(
            &path,
            (Dtype::I32, &shape, &f32s),
            Some((Dtype::I64, &[3], &good)),
        );
        assert!(message(Kind::InvalidArgument).contains("`features` is I32"));
        write(
            &path,
            (Dtype::F32, &shape, &f32s),
            Some((Dtype::I64, &[1, 3], &good)),
        );
        assert!(message(Kind::InvalidArgument).contains("`labels` is I64 [1, 3]"));
        write(
            &path,
            (Dtype::F32, &shape, &f32s),
            Some((Dtype::I64, &[3], &labels(2))),
        );
        assert!(message(Kind::InvalidArgument).contains("holds 2 for sample 0"));
        write(
            &path,
            (Dtype::F32, &[0, 3, 1, 2, 2], &[]),
            Some((Dtype::I64, &[3], &good)),
        );
        assert!(message(Kind::InvalidArgument).contains("0 prompts"));
    }

    #[test]
    fn a_missing_folder_is_not_found() {
        let e = write_output(Path::new("/nonexistent/x.json"), |_| Ok(())).unwrap_err();
        assert_eq!(e.kind(), Kind::NotFound);
    }

    #[test]
    fn a_failed_write_leaves_the_old_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.json");
        std::fs::write(&path, "old").unwrap();
        let e = write_output(&path, |out| {
            out.write_all(b"half")?;
            Err(std::io::Error::other("disk full"))
        })
        .unwrap_err();
        assert_eq!(e.kind(), Kind::ResourceExhausted);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "old");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
