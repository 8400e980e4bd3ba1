//! Which instructions the tiles use.

use std::fmt;

/// A variant of the tile product. All give the same sums up to the order of their roundings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    /// AVX-512 with products of bf16 pairs.
    Avx512Bf16,
    /// AVX-512: bf16 widened to f32, fused multiply-add.
    Avx512,
    /// AVX2 and FMA, the same way.
    Avx2,
    /// Whatever the target has.
    Plain,
}

impl Isa {
    /// All of them, the fastest first.
    pub const ALL: [Isa; 4] = [Isa::Avx512Bf16, Isa::Avx512, Isa::Avx2, Isa::Plain];

    /// Whether this CPU can run it.
    pub fn available(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        match self {
            Isa::Avx512Bf16 => {
                is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bf16")
            }
            Isa::Avx512 => is_x86_feature_detected!("avx512f"),
            Isa::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            Isa::Plain => true,
        }
        #[cfg(not(target_arch = "x86_64"))]
        matches!(self, Isa::Plain)
    }

    /// The fastest that this CPU can run.
    pub fn best() -> Isa {
        Isa::ALL
            .into_iter()
            .find(|isa| isa.available())
            .unwrap_or(Isa::Plain)
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Isa::Avx512Bf16 => "avx512bf16",
            Isa::Avx512 => "avx512f",
            Isa::Avx2 => "avx2",
            Isa::Plain => "plain",
        })
    }
}
