//! Random numbers that depend on the seed and the tensor's name alone: both layouts, both dtypes
//! and any number of threads give the same model.

use half::bf16;
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::Dtype;

/// Distribution of a tensor's values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Init {
    /// The same value everywhere.
    Constant(f32),
    /// Bell-shaped with this mean and standard deviation; no value lies beyond 3.47 deviations.
    Normal { mean: f32, std: f32 },
}

/// Standard deviation of the sum of four independent uniform 16-bit integers:
/// sqrt(4 · (65536² − 1) / 12).
const SUM_STD: f32 = 37_837.2;
/// Its mean: 4 · 65535 / 2.
const SUM_MEAN: i32 = 131_070;

/// The stream of one logical tensor.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stream {
    key: u64,
    init: Init,
}

impl Stream {
    pub fn new(seed: u64, name: &str, init: Init) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"headhunt synthesize 1\0");
        hash.update(seed.to_le_bytes());
        hash.update(name.as_bytes());
        let digest = hash.finalize();
        let mut key = [0; 8];
        key.copy_from_slice(&digest[..8]);
        Stream {
            key: u64::from_le_bytes(key),
            init,
        }
    }

    /// Value `index`. Integer arithmetic up to one final multiplication and addition, so it does
    /// not depend on the platform's mathematics library.
    #[inline]
    fn value(&self, index: u64) -> f32 {
        match self.init {
            Init::Constant(value) => value,
            Init::Normal { mean, std } => {
                let bits = split_mix(self.key, index);
                let sum =
                    (bits & 0xffff) + (bits >> 16 & 0xffff) + (bits >> 32 & 0xffff) + (bits >> 48);
                mean + (sum as i32 - SUM_MEAN) as f32 * (std / SUM_STD)
            }
        }
    }

    /// Appends values `from .. from + count` as little-endian bytes, filled on all cores.
    pub fn bytes(&self, from: u64, count: usize, dtype: Dtype, out: &mut Vec<u8>) {
        /// Values per task: large enough to hide the cost of handing it out.
        const TASK: usize = 1 << 15;
        let width = dtype.bytes();
        let start = out.len();
        out.resize(start + count * width, 0);
        out[start..]
            .par_chunks_mut(TASK * width)
            .enumerate()
            .for_each(|(task, bytes)| {
                let first = from + (task * TASK) as u64;
                match dtype {
                    Dtype::F32 => {
                        for (i, slot) in bytes.chunks_exact_mut(4).enumerate() {
                            slot.copy_from_slice(&self.value(first + i as u64).to_le_bytes());
                        }
                    }
                    Dtype::Bf16 => {
                        for (i, slot) in bytes.chunks_exact_mut(2).enumerate() {
                            let value = bf16::from_f32(self.value(first + i as u64));
                            slot.copy_from_slice(&value.to_le_bytes());
                        }
                    }
                }
            });
    }
}

/// Output `index` of the SplitMix64 generator (Steele, Lea, Flood 2014) started at `key`.
#[inline]
fn split_mix(key: u64, index: u64) -> u64 {
    let mut z = key.wrapping_add(index.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn floats(stream: &Stream, from: u64, count: usize) -> Vec<f32> {
        let mut bytes = Vec::new();
        stream.bytes(from, count, Dtype::F32, &mut bytes);
        bytes
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            .collect()
    }

    #[test]
    fn values_have_the_asked_mean_and_deviation() {
        let init = Init::Normal {
            mean: 1.0,
            std: 0.02,
        };
        let values = floats(&Stream::new(7, "a", init), 0, 200_000);
        let n = values.len() as f64;
        let mean = values.iter().map(|v| f64::from(*v)).sum::<f64>() / n;
        let variance = values
            .iter()
            .map(|v| (f64::from(*v) - mean).powi(2))
            .sum::<f64>()
            / n;
        assert!((mean - 1.0).abs() < 3e-4, "{mean}");
        assert!((variance.sqrt() - 0.02).abs() < 2e-4, "{variance}");
    }

    #[test]
    fn any_split_gives_the_same_values_and_names_and_seeds_differ() {
        let init = Init::Normal {
            mean: 0.0,
            std: 1.0,
        };
        let stream = Stream::new(1, "w", init);
        let whole = floats(&stream, 0, 100_000);
        let mut parts = floats(&stream, 0, 33_333);
        parts.extend(floats(&stream, 33_333, 66_667));
        assert_eq!(whole, parts);
        assert_ne!(whole, floats(&Stream::new(1, "v", init), 0, 100_000));
        assert_ne!(whole, floats(&Stream::new(2, "w", init), 0, 100_000));
    }
}
