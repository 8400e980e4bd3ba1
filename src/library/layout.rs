//! Bytes of kept features: head, samples, spans and digests.

use std::{fs::File, io, os::unix::fs::FileExt};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::FeatureKey;
use crate::{
    error::{Error, Kind, Result, ResultExt},
    head::HeadFeatures,
    limits,
    media::MediaTime,
    score::locate::SegmentSpan,
};

/// A digest.
pub(super) type Sha = [u8; 32];

/// Numbers of a span.
pub(super) const SPAN: usize = 5;
/// Bytes of a journal's entry: span and digest.
pub(super) const ENTRY: usize = SPAN * 8 + 32;
/// Room of the header beyond the key, bytes: tensors, names, the count of frames.
const HEADER_ROOM: usize = 1024;
/// What failed, for messages.
pub(super) const WHAT: &str = "features could not be kept";

/// The head of a file.
pub(super) struct Header {
    pub key: FeatureKey,
    pub frames: u64,
    pub samples: usize,
    /// First byte after it.
    pub data_at: u64,
}

impl Header {
    /// Its bytes, of the same number whatever `done` (samples, frames) is.
    pub fn bytes(key: &FeatureKey, done: Option<(usize, u64)>) -> Result<Vec<u8>> {
        let text = key.json()?;
        let escaped = Value::from(text.as_str()).to_string().len();
        let room = (escaped + HEADER_ROOM).next_multiple_of(8);
        let mut head = serde_json::Map::new();
        let mut metadata = serde_json::Map::new();
        metadata.insert("key".into(), text.into());
        if let Some((samples, frames)) = done {
            metadata.insert("frames".into(), frames.to_string().into());
            let [layers, heads, head_dim] = key.shape;
            let floats = samples * key.numbers() * 4;
            let spans = floats + samples * SPAN * 8;
            let tensor = |dtype: &str, shape: Value, from: usize, to: usize| json!({"dtype": dtype, "shape": shape, "data_offsets": [from, to]});
            let shape = json!([samples, key.prompts.len(), layers, heads, head_dim]);
            head.insert("features".into(), tensor("F32", shape, 0, floats));
            let shape = json!([samples, SPAN]);
            head.insert("spans".into(), tensor("I64", shape, floats, spans));
            let shape = json!([samples, 32]);
            let end = spans + samples * 32;
            head.insert("digests".into(), tensor("U8", shape, spans, end));
        }
        head.insert("__metadata__".into(), metadata.into());
        let mut json = serde_json::to_vec(&head).or_kind(Kind::Internal, || WHAT.to_owned())?;
        if json.len() > room || room as u64 > limits::KEPT_HEADER_MAX_BYTES {
            return Err(Error::internal("the head of kept features is too long"));
        }
        json.resize(room, b' ');
        Ok([&(room as u64).to_le_bytes()[..], &json].concat())
    }

    /// Reads a finished file's; says what is wrong with it.
    pub fn read(file: &File) -> Result<Header, &'static str> {
        let mut length = [0; 8];
        file.read_exact_at(&mut length, 0)
            .map_err(|_| "it has no head")?;
        let length = u64::from_le_bytes(length);
        if length > limits::KEPT_HEADER_MAX_BYTES {
            return Err("its head is too long");
        }
        let mut json = vec![0; length as usize];
        file.read_exact_at(&mut json, 8)
            .map_err(|_| "its head is cut off")?;
        let json: Value = serde_json::from_slice(&json).map_err(|_| "its head is no JSON")?;
        let metadata = |name: &str| json.pointer(&format!("/__metadata__/{name}"))?.as_str();
        let key: FeatureKey = metadata("key")
            .and_then(|text| serde_json::from_str(text).ok())
            .ok_or("it has no key")?;
        let frames = metadata("frames")
            .and_then(|text| text.parse().ok())
            .ok_or("it has no count of frames")?;
        let samples = json
            .pointer("/features/shape/0")
            .and_then(Value::as_u64)
            .filter(|n| (1..=limits::KEPT_SAMPLES_MAX as u64).contains(n))
            .ok_or("it has no samples")? as usize;
        Ok(Header {
            data_at: 8 + length,
            key,
            frames,
            samples,
        })
    }
}

pub(super) fn read_sample(
    file: &File,
    data_at: u64,
    key: &FeatureKey,
    sample: usize,
) -> io::Result<Vec<u8>> {
    let length = key.numbers() * 4;
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, data_at + (sample * length) as u64)?;
    Ok(bytes)
}

pub(super) fn head_features(key: &FeatureKey, bytes: &[u8]) -> HeadFeatures {
    let [layers, heads, head_dim] = key.shape;
    HeadFeatures {
        prompts: key.prompts.len(),
        heads: layers * heads,
        head_dim,
        data: bytes
            .as_chunks::<4>()
            .0
            .iter()
            .map(|number| f32::from_le_bytes(*number))
            .collect(),
    }
}

pub(super) fn digest_of(span: &[u8], numbers: &[u8]) -> Sha {
    Sha256::new()
        .chain_update(span)
        .chain_update(numbers)
        .finalize()
        .into()
}

pub(super) fn span_bytes(span: &SegmentSpan) -> [u8; SPAN * 8] {
    let numbers = [
        span.first_frame as i64,
        span.last_frame as i64,
        span.start.as_nanos(),
        span.end.as_nanos(),
        span.run as i64,
    ];
    let mut bytes = [0; SPAN * 8];
    for (to, number) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(numbers) {
        *to = number.to_le_bytes();
    }
    bytes
}

pub(super) fn span_of(bytes: &[u8; SPAN * 8]) -> SegmentSpan {
    let mut numbers = [0; SPAN];
    for (number, from) in numbers.iter_mut().zip(bytes.as_chunks::<8>().0) {
        *number = i64::from_le_bytes(*from);
    }
    let [first, last, start, end, run] = numbers;
    SegmentSpan {
        first_frame: first as u64,
        last_frame: last as u64,
        start: MediaTime::from_nanos(start),
        end: MediaTime::from_nanos(end),
        run: run as u64,
    }
}
