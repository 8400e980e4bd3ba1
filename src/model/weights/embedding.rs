//! The token embedding, which stays in host memory.

use super::{Checkpoint, StoredDtype, values::number};
use crate::{
    error::{Error, Result},
    model::layout::TensorSpec,
};

/// A token embedding table in its stored type, in host memory: a pass reads few of its rows.
pub struct EmbeddingTable {
    dtype: StoredDtype,
    width: usize,
    bytes: Vec<u8>,
}

impl EmbeddingTable {
    /// Reads the table; NaN and infinity are an error.
    pub fn load(checkpoint: &Checkpoint) -> Result<Self> {
        let text = &checkpoint.config().text;
        let spec = TensorSpec {
            name: "text.embed.weight".into(),
            shape: vec![text.vocab, text.hidden],
        };
        let raw = checkpoint.finite(&spec)?;
        let table = EmbeddingTable {
            dtype: raw.dtype,
            width: text.hidden,
            bytes: raw.bytes.to_vec(),
        };
        checkpoint.forget(&spec);
        Ok(table)
    }

    /// Appends the row of `token` to `out`.
    pub fn push_row(&self, token: u32, out: &mut Vec<f32>) -> Result<()> {
        let row = self.width * self.dtype.size();
        let start = row * token as usize;
        let bytes = self.bytes.get(start..start + row).ok_or_else(|| {
            Error::invalid(format!(
                "token {token} lies outside the vocabulary of {}; tokenizer and config.json do \
                 not belong together",
                self.bytes.len() / row.max(1)
            ))
        })?;
        let dtype = self.dtype;
        out.extend(bytes.chunks_exact(dtype.size()).map(|b| number(dtype, b)));
        Ok(())
    }
}
