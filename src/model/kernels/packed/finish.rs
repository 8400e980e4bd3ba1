//! What becomes of a block of sums on its way to memory: bias, activation, residual, rounding.

use half::bf16;

use super::run::BLOCK_COLUMNS;
use crate::model::kernels::math;

/// Sums of some rows and columns of a product.
pub struct Block<'a> {
    /// Row-major, rows `stride` apart; finishing may overwrite them.
    pub sums: &'a mut [f32],
    pub stride: usize,
    pub rows: usize,
    /// The product's column that the block begins with.
    pub column: usize,
    pub columns: usize,
}

/// The last step of a product.
pub trait Finish: Sync {
    /// A number of the result.
    type Out: Send + Sync;

    /// Writes the block's results; `out` is whole rows of the result, the block's first.
    fn finish(&self, block: Block<'_>, out: &mut [Self::Out]);
}

/// Calls `write` with each row's sums and its part of the result: `count` numbers from `first` of
/// a row of `width`.
fn each_row<T>(
    block: Block<'_>,
    (width, first, count): (usize, usize, usize),
    out: &mut [T],
    mut write: impl FnMut(&mut [f32], &mut [T]),
) {
    let rows = block.sums.chunks_mut(block.stride).take(block.rows);
    for (sums, out) in rows.zip(out.chunks_mut(width)) {
        if let (Some(sums), Some(out)) = (
            sums.get_mut(..block.columns),
            out.get_mut(first..first + count),
        ) {
            write(sums, out);
        }
    }
}

/// The columns of a row-shaped operand that a block has.
fn part<'a>(of: &'a [f32], block: &Block<'_>) -> &'a [f32] {
    of.get(block.column..block.column + block.columns)
        .unwrap_or_default()
}

/// A number type that results are rounded to.
pub trait Stored: Copy + Default + Send + Sync + 'static {
    /// Both of one length.
    fn store(sums: &[f32], out: &mut [Self]);
}

impl Stored for f32 {
    fn store(sums: &[f32], out: &mut [f32]) {
        out.copy_from_slice(sums);
    }
}

impl Stored for bf16 {
    fn store(sums: &[f32], out: &mut [bf16]) {
        math::round(sums, out);
    }
}

/// `x Wᵀ + bias`.
pub struct Affine<'a, T> {
    pub bias: Option<&'a [f32]>,
    /// Numbers of a result's row.
    pub width: usize,
    pub stored: std::marker::PhantomData<T>,
}

impl<T: Stored> Finish for Affine<'_, T> {
    type Out = T;

    fn finish(&self, block: Block<'_>, out: &mut [T]) {
        let bias = self.bias.map(|bias| part(bias, &block));
        let place = (self.width, block.column, block.columns);
        each_row(block, place, out, |sums, out| {
            if let Some(bias) = bias {
                math::add(sums, bias);
            }
            T::store(sums, out);
        });
    }
}

/// `gelu(x Wᵀ + bias)` as bf16.
pub struct Gelu<'a> {
    pub bias: &'a [f32],
}

impl Finish for Gelu<'_> {
    type Out = bf16;

    fn finish(&self, block: Block<'_>, out: &mut [bf16]) {
        let bias = part(self.bias, &block);
        let place = (self.bias.len(), block.column, block.columns);
        each_row(block, place, out, |sums, out| {
            math::gelu_bias(sums, bias);
            math::round(sums, out);
        });
    }
}

/// `silu(gate) * up` as bf16, where each block holds [`GATED`] columns of the gate and then the same
/// ones of `up`.
pub struct Gated {
    /// Numbers of a result's row.
    pub width: usize,
}

/// Columns of the gate in a block.
pub const GATED: usize = BLOCK_COLUMNS / 2;

impl Finish for Gated {
    type Out = bf16;

    fn finish(&self, block: Block<'_>, out: &mut [bf16]) {
        let first = block.column / 2;
        let count = GATED.min(self.width.saturating_sub(first));
        each_row(block, (self.width, first, count), out, |sums, out| {
            if let Some((gate, up)) = sums.split_at_mut_checked(GATED) {
                math::silu_mul(gate, up);
                math::round(&gate[..count], out);
            }
        });
    }
}

/// `x + scale * (y Wᵀ + bias)` into x.
pub struct AddScaled<'a> {
    pub scale: &'a [f32],
    pub bias: &'a [f32],
}

impl Finish for AddScaled<'_> {
    type Out = f32;

    fn finish(&self, block: Block<'_>, out: &mut [f32]) {
        let (scale, bias) = (part(self.scale, &block), part(self.bias, &block));
        let place = (self.scale.len(), block.column, block.columns);
        each_row(block, place, out, |sums, out| {
            math::add_scaled(out, sums, scale, bias);
        });
    }
}

/// `x + y Wᵀ` into x.
pub struct Add {
    /// Numbers of a row of x.
    pub width: usize,
}

impl Finish for Add {
    type Out = f32;

    fn finish(&self, block: Block<'_>, out: &mut [f32]) {
        let place = (self.width, block.column, block.columns);
        each_row(block, place, out, |sums, out| math::add(out, sums));
    }
}
