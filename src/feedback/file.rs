//! One report as a safetensors file: tensor `z` f32 `[numbers]`, the samples' features one after
//! another, each `[prompts, heads, head_dim]`; metadata `report` (JSON) and `checksum`, SHA-256 of
//! that text and of the tensor's bytes.

use std::{
    collections::HashMap,
    fmt::Write as _,
    fs::{self, File},
    io::Read as _,
    path::Path,
};

use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use sha2::{Digest, Sha256};

use crate::{
    error::{Error, Kind, Result, ResultExt as _},
    files::{self, NewFile},
    limits,
};

use super::report::{Report, SCHEMA};

const TENSOR: &str = "z";
const REPORT: &str = "report";
const CHECKSUM: &str = "checksum";
const CHECKSUM_PREFIX: &str = "sha256:";

/// Files that were not finished begin like this; a crash may leave one.
pub(super) const UNFINISHED: &str = ".feedback-";

/// A report and the features of its samples, one after another.
pub(super) struct Stored {
    pub report: Report,
    pub z: Vec<f32>,
}

/// Lower-case hex digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// Writes a report that is there whole or not at all, and stays through a power cut.
///
/// Fails with `ResourceExhausted` where there is no room, else with `Internal`.
pub(super) fn write(path: &Path, report: &Report, z: &[f32]) -> Result<()> {
    let internal = || "cannot lay out a feedback report".to_owned();
    let json = serde_json::to_string(report).or_kind(Kind::Internal, internal)?;
    let data: Vec<u8> = z.iter().flat_map(|number| number.to_le_bytes()).collect();
    let metadata = HashMap::from([
        (CHECKSUM.to_owned(), checksum(&json, &data)),
        (REPORT.to_owned(), json),
    ]);
    let view =
        TensorView::new(Dtype::F32, vec![z.len()], &data).or_kind(Kind::Internal, internal)?;
    let bytes = safetensors::serialize([(TENSOR, view)], Some(metadata))
        .or_kind(Kind::Internal, internal)?;
    if bytes.len() as u64 > limits::FEEDBACK_REPORT_MAX_BYTES {
        return Err(Error::exhausted(format!(
            "the report would have {} bytes, and {} are possible",
            bytes.len(),
            limits::FEEDBACK_REPORT_MAX_BYTES
        )));
    }
    let new = NewFile {
        prefix: UNFINISHED,
        mode: files::PRIVATE,
    };
    let written = new.write(path, |out| out.write_all(&bytes));
    written.map_err(|error| {
        let kind = if files::is_full(&error) {
            Kind::ResourceExhausted
        } else {
            Kind::Internal
        };
        let message = match kind {
            Kind::ResourceExhausted => "no room on disk for feedback".to_owned(),
            _ => format!("cannot write {}", path.display()),
        };
        Error::new(kind, message).with_source(error)
    })
}

/// Reads and checks a report.
///
/// Fails with `DataLoss` for a file that is damaged, too large or not of this kind, and with
/// `FailedPrecondition` for one of another schema or one that cannot be read.
pub(super) fn read(path: &Path) -> Result<Stored> {
    bytes_of(path)
        .and_then(|bytes| parse(&bytes))
        .map_err(|error| error.context(format_args!("feedback report {}", path.display())))
}

fn bytes_of(path: &Path) -> Result<Vec<u8>> {
    let cannot = || "it cannot be read".to_owned();
    let file = File::open(path).or_kind(Kind::FailedPrecondition, cannot)?;
    let mut bytes = Vec::new();
    file.take(limits::FEEDBACK_REPORT_MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .or_kind(Kind::FailedPrecondition, cannot)?;
    if bytes.len() as u64 > limits::FEEDBACK_REPORT_MAX_BYTES {
        return Err(Error::data_loss(format!(
            "it has more than {} bytes",
            limits::FEEDBACK_REPORT_MAX_BYTES
        )));
    }
    Ok(bytes)
}

fn parse(bytes: &[u8]) -> Result<Stored> {
    let damaged = || "it is no whole safetensors file".to_owned();
    let (_, header) = SafeTensors::read_metadata(bytes).or_kind(Kind::DataLoss, damaged)?;
    let tensors = SafeTensors::deserialize(bytes).or_kind(Kind::DataLoss, damaged)?;
    let view = tensors.tensor(TENSOR).or_kind(Kind::DataLoss, damaged)?;
    let said = |key: &str| {
        let metadata = header.metadata().as_ref();
        metadata
            .and_then(|metadata| metadata.get(key))
            .ok_or_else(|| Error::data_loss(format!("it has no `{key}`: it is no feedback report")))
    };
    let json = said(REPORT)?;
    let expected = checksum(json, view.data());
    let given = said(CHECKSUM)?;
    if *given != expected {
        return Err(Error::data_loss(format!(
            "its checksum is {given}, and its content's {expected}: it was damaged or edited"
        )));
    }
    if view.dtype() != Dtype::F32 {
        return Err(Error::data_loss("its features are not f32"));
    }
    // The schema first: a later one may have keys that this version does not know.
    let value: serde_json::Value =
        serde_json::from_str(json).or_kind(Kind::DataLoss, || "its report is not JSON".into())?;
    let schema = value.get("schema").and_then(serde_json::Value::as_u64);
    if schema != Some(u64::from(SCHEMA)) {
        return Err(Error::precondition(format!(
            "its schema is {schema:?}, and this version reads {SCHEMA}: use the version that wrote it, or move it away"
        )));
    }
    let report: Report = serde_json::from_value(value).map_err(|error| {
        Error::data_loss(format!("it does not follow schema {SCHEMA}: {error}"))
    })?;
    let z: Vec<f32> = view
        .data()
        .chunks_exact(4)
        .filter_map(|number| number.try_into().ok().map(f32::from_le_bytes))
        .collect();
    report.check(z.len())?;
    Ok(Stored { report, z })
}

fn checksum(json: &str, data: &[u8]) -> String {
    let digest = Sha256::new()
        .chain_update(json.as_bytes())
        // No byte of JSON text: what is before it cannot pass for what is behind.
        .chain_update([0])
        .chain_update(data)
        .finalize();
    format!("{CHECKSUM_PREFIX}{}", hex(&digest))
}

/// Makes a removal last through a power cut.
pub(super) fn sync(directory: &Path) -> Result<()> {
    files::sync_folder(directory).or_kind(Kind::Internal, || {
        format!("cannot write {}", directory.display())
    })
}

/// Removes a file; one that is gone already is fine.
pub(super) fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::internal(format!("cannot remove {}", path.display())).with_source(error))
        }
        _ => Ok(()),
    }
}
