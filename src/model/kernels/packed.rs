//! Products with weights that stay in bf16: `x Wᵀ` with f32 sums, on the CPU.
//!
//! The weights are packed once, when the model is loaded, into the order in which the tiles read
//! them; activations are rounded to bf16 and packed block by block, and what follows a product
//! (bias, activation, residual) is done while its sums are still in the cache.

mod finish;
mod isa;
mod layout;
mod ops;
mod run;
#[cfg(test)]
mod tests;
mod tile;

use std::sync::Arc;

use finish::GATED;
use run::BLOCK_PANELS;

use crate::{
    error::{Error, Result},
    model::weights::RawTensor,
};

pub use isa::Isa;
pub(super) use layout::pack_rows;
pub(super) use tile::{COLUMNS, ColumnPair, ROWS, RowPair, tile};

/// The weights of an affine map, `[output, input]` in bf16.
#[derive(Clone)]
pub struct Packed {
    panels: Arc<layout::Panels>,
    input: usize,
    output: usize,
    isa: Isa,
}

/// The weights of a gated MLP's first half: gate and up, both `[output, input]` in bf16.
#[derive(Clone)]
pub struct PackedGate {
    panels: Arc<layout::Panels>,
    input: usize,
    output: usize,
    isa: Isa,
}

/// The bytes of the rows of a matrix `[output, input]`.
fn rows<'a>(raw: RawTensor<'a>, output: usize, input: usize) -> Result<Vec<RawTensor<'a>>> {
    let row = input * raw.dtype.size();
    if row == 0 || raw.bytes.len() != output * row {
        return Err(Error::internal(format!(
            "{} bytes are not {output} rows of {input} numbers",
            raw.bytes.len()
        )));
    }
    Ok(raw
        .bytes
        .chunks_exact(row)
        .map(|bytes| RawTensor { bytes, ..raw })
        .collect())
}

impl Packed {
    /// Packs a matrix `[output, input]`, rounding it to bf16 where it is stored in more.
    pub fn new(raw: RawTensor<'_>, output: usize, input: usize) -> Result<Self> {
        Self::with_isa(raw, output, input, Isa::best())
    }

    fn with_isa(raw: RawTensor<'_>, output: usize, input: usize, isa: Isa) -> Result<Self> {
        let rows = rows(raw, output, input)?;
        let row = |panel: usize, column: usize| rows.get(panel * COLUMNS + column).copied();
        let panels = layout::Panels::of_rows(output.div_ceil(COLUMNS), input.div_ceil(2), row);
        Ok(Packed {
            panels: Arc::new(panels),
            input,
            output,
            isa,
        })
    }

    /// Results of a row.
    pub fn output(&self) -> usize {
        self.output
    }
}

impl PackedGate {
    /// Packs gate and up, `[output, input]` each.
    pub fn new(
        gate: RawTensor<'_>,
        up: RawTensor<'_>,
        output: usize,
        input: usize,
    ) -> Result<Self> {
        Self::with_isa(gate, up, (output, input), Isa::best())
    }

    fn with_isa(
        gate: RawTensor<'_>,
        up: RawTensor<'_>,
        (output, input): (usize, usize),
        isa: Isa,
    ) -> Result<Self> {
        let (gate, up) = (rows(gate, output, input)?, rows(up, output, input)?);
        let row = |panel: usize, column: usize| {
            let column = panel % BLOCK_PANELS * COLUMNS + column;
            let of = if column < GATED { &gate } else { &up };
            of.get(panel / BLOCK_PANELS * GATED + column % GATED)
                .copied()
        };
        let count = output.div_ceil(GATED) * BLOCK_PANELS;
        let panels = layout::Panels::of_rows(count, input.div_ceil(2), row);
        Ok(PackedGate {
            panels: Arc::new(panels),
            input,
            output,
            isa,
        })
    }
}
