//! Stored numbers: their types, their check, and their conversion to what the device computes in.

use half::{bf16, f16};
use rayon::prelude::*;

/// Number type of a stored tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StoredDtype {
    /// 4 bytes.
    F32,
    /// 2 bytes, 5 exponent bits.
    F16,
    /// 2 bytes, 8 exponent bits.
    Bf16,
}

impl StoredDtype {
    /// Bytes of one number.
    pub fn size(self) -> usize {
        match self {
            StoredDtype::F32 => 4,
            StoredDtype::F16 | StoredDtype::Bf16 => 2,
        }
    }

    /// `f32`, `f16` or `bf16`.
    pub fn as_str(self) -> &'static str {
        match self {
            StoredDtype::F32 => "f32",
            StoredDtype::F16 => "f16",
            StoredDtype::Bf16 => "bf16",
        }
    }

    /// The bits of the exponent within the number, all set for NaN and infinity.
    fn exponent(self) -> u32 {
        match self {
            StoredDtype::F32 => 0x7f80_0000,
            StoredDtype::F16 => 0x7c00,
            StoredDtype::Bf16 => 0x7f80,
        }
    }
}

/// A tensor as it lies in the file.
#[derive(Clone, Copy, Debug)]
pub struct RawTensor<'a> {
    /// Number type.
    pub dtype: StoredDtype,
    /// Little-endian, row-major.
    pub bytes: &'a [u8],
}

/// Bytes that one task converts or checks at a time.
const CHUNK: usize = 1 << 20;

pub fn has_non_finite(raw: RawTensor<'_>) -> bool {
    let mask = raw.dtype.exponent();
    raw.bytes.par_chunks(CHUNK).any(|chunk| match raw.dtype {
        StoredDtype::F32 => chunk.chunks_exact(4).fold(false, |bad, b| {
            bad | (u32::from_le_bytes([b[0], b[1], b[2], b[3]]) & mask == mask)
        }),
        StoredDtype::F16 | StoredDtype::Bf16 => {
            let mask = mask as u16;
            chunk.chunks_exact(2).fold(false, |bad, b| {
                bad | (u16::from_le_bytes([b[0], b[1]]) & mask == mask)
            })
        }
    })
}

/// The number in `b`, which has the size of the type.
pub fn number(dtype: StoredDtype, b: &[u8]) -> f32 {
    match dtype {
        StoredDtype::F32 => f32::from_le_bytes([b[0], b[1], b[2], b[3]]),
        StoredDtype::F16 => f16::from_le_bytes([b[0], b[1]]).to_f32(),
        StoredDtype::Bf16 => bf16::from_le_bytes([b[0], b[1]]).to_f32(),
    }
}

pub fn to_f32(raw: RawTensor<'_>) -> Vec<f32> {
    convert(raw, number)
}

pub fn to_bf16(raw: RawTensor<'_>) -> Vec<bf16> {
    convert(raw, |dtype, b| match dtype {
        StoredDtype::Bf16 => bf16::from_le_bytes([b[0], b[1]]),
        _ => bf16::from_f32(number(dtype, b)),
    })
}

fn convert<T: Copy + Default + Send>(
    raw: RawTensor<'_>,
    one: impl Fn(StoredDtype, &[u8]) -> T + Sync,
) -> Vec<T> {
    let (dtype, size) = (raw.dtype, raw.dtype.size());
    let mut out = vec![T::default(); raw.bytes.len() / size];
    out.par_chunks_mut(CHUNK / size)
        .zip(raw.bytes.par_chunks(CHUNK))
        .for_each(|(out, bytes)| {
            // The type is tested outside the loop, so that each loop compiles to vector code.
            match dtype {
                StoredDtype::F32 => fill(out, bytes, 4, |b| one(StoredDtype::F32, b)),
                StoredDtype::F16 => fill(out, bytes, 2, |b| one(StoredDtype::F16, b)),
                StoredDtype::Bf16 => fill(out, bytes, 2, |b| one(StoredDtype::Bf16, b)),
            }
        });
    out
}

fn fill<T>(out: &mut [T], bytes: &[u8], size: usize, one: impl Fn(&[u8]) -> T) {
    for (out, b) in out.iter_mut().zip(bytes.chunks_exact(size)) {
        *out = one(b);
    }
}
