//! The vocabulary of attention heads: which heads, and the features taken from them.

use serde::{Deserialize, Serialize};

/// One attention head of the language model, zero-based.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "[usize; 2]", into = "[usize; 2]")]
pub struct HeadId {
    /// Decoder layer.
    pub layer: usize,
    /// Query head in that layer.
    pub head: usize,
}

impl From<[usize; 2]> for HeadId {
    fn from([layer, head]: [usize; 2]) -> Self {
        HeadId { layer, head }
    }
}

impl From<HeadId> for [usize; 2] {
    fn from(id: HeadId) -> Self {
        [id.layer, id.head]
    }
}

/// Which heads a forward pass extracts. It decides how many layers are loaded and run.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HeadSelection {
    /// Every head of every layer, layer-major.
    All,
    /// These, in this order.
    Only(Vec<HeadId>),
}

impl HeadSelection {
    /// The heads in order, for a model of `layers` × `heads`.
    pub fn resolve(&self, layers: usize, heads: usize) -> Vec<HeadId> {
        match self {
            HeadSelection::All => (0..layers)
                .flat_map(|layer| (0..heads).map(move |head| HeadId { layer, head }))
                .collect(),
            HeadSelection::Only(ids) => ids.clone(),
        }
    }

    /// How many layers, from the first, the heads need: the deepest one's index + 1.
    pub fn layers_needed(&self, layers: usize) -> usize {
        match self {
            HeadSelection::All => layers,
            HeadSelection::Only(ids) => ids.iter().map(|id| id.layer + 1).max().unwrap_or(0),
        }
    }
}

/// Features of one clip: f32, row-major `[prompts, heads, head_dim]`, heads in the selection's order.
#[derive(Clone, Debug, PartialEq)]
pub struct HeadFeatures {
    /// Number of prompts.
    pub prompts: usize,
    /// Number of heads.
    pub heads: usize,
    /// Numbers per head.
    pub head_dim: usize,
    /// `prompts * heads * head_dim` numbers.
    pub data: Vec<f32>,
}

impl HeadFeatures {
    /// One prompt's features, `[heads * head_dim]`: the z of the method for a profile's heads.
    pub fn prompt(&self, prompt: usize) -> &[f32] {
        let n = self.heads * self.head_dim;
        &self.data[prompt * n..(prompt + 1) * n]
    }
}
