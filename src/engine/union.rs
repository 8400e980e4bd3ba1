//! One pass for jobs that want different heads: it extracts the union of their selections, and each
//! job gets its own heads out of it, in its own order.
//!
//! The union has at most as many heads as the model. A selection that is shallower than the union
//! pays time alone: the features of a head do not depend on which other heads a pass extracts.

use std::collections::BTreeSet;

use crate::{
    error::{Error, Result},
    head::{HeadFeatures, HeadId, HeadSelection},
};

use super::probe::ProbeInfo;

/// Every head that any of these wants, once: sorted by layer and head. One that wants all makes it
/// all.
pub(super) fn union<'a>(selections: impl Iterator<Item = &'a HeadSelection>) -> HeadSelection {
    let mut heads = BTreeSet::new();
    for selection in selections {
        match selection {
            HeadSelection::All => return HeadSelection::All,
            HeadSelection::Only(ids) => heads.extend(ids.iter().copied()),
        }
    }
    HeadSelection::Only(heads.into_iter().collect())
}

/// The features of `own` out of those of a [`union`] that has every head of it.
///
/// Fails with `Internal` where a head is missing from the union.
pub(super) fn gather(
    features: HeadFeatures,
    union: &HeadSelection,
    own: &HeadSelection,
    info: &ProbeInfo,
) -> Result<HeadFeatures> {
    if own == union {
        return Ok(features);
    }
    let places = own
        .resolve(info.layers, info.heads)
        .into_iter()
        .map(|id| {
            place(union, id, info).ok_or_else(|| {
                Error::internal(format!(
                    "head ({}, {}) is not in the pass that was to extract it",
                    id.layer, id.head
                ))
            })
        })
        .collect::<Result<Vec<_>>>()?;
    let dim = features.head_dim;
    let mut data = Vec::with_capacity(features.prompts * places.len() * dim);
    for prompt in 0..features.prompts {
        let row = features.prompt(prompt);
        for place in &places {
            data.extend_from_slice(&row[place * dim..(place + 1) * dim]);
        }
    }
    Ok(HeadFeatures {
        prompts: features.prompts,
        heads: places.len(),
        head_dim: dim,
        data,
    })
}

/// Where a head stands in a union.
fn place(union: &HeadSelection, id: HeadId, info: &ProbeInfo) -> Option<usize> {
    match union {
        HeadSelection::All => (id.layer < info.layers && id.head < info.heads)
            .then(|| id.layer * info.heads + id.head),
        HeadSelection::Only(ids) => ids.binary_search(&id).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info() -> ProbeInfo {
        ProbeInfo {
            name: "fake".into(),
            device: "cpu".into(),
            dtype: "f32".into(),
            layers: 3,
            heads: 2,
            head_dim: 2,
            resident_layers: 3,
            image_side: 2,
            resizes: false,
        }
    }

    fn only(heads: &[[usize; 2]]) -> HeadSelection {
        HeadSelection::Only(heads.iter().copied().map(HeadId::from).collect())
    }

    /// Two prompts; each number tells its prompt, layer, head and place.
    fn features(selection: &HeadSelection) -> HeadFeatures {
        let info = info();
        let heads = selection.resolve(info.layers, info.heads);
        let mut data = Vec::new();
        for prompt in 0..2 {
            for id in &heads {
                for d in 0..info.head_dim {
                    data.push((prompt * 1000 + id.layer * 100 + id.head * 10 + d) as f32);
                }
            }
        }
        HeadFeatures {
            prompts: 2,
            heads: heads.len(),
            head_dim: info.head_dim,
            data,
        }
    }

    #[test]
    fn each_gets_its_own_heads_in_its_own_order() {
        let selections = [
            only(&[[2, 0], [0, 1]]),
            only(&[[0, 1]]),
            // A head named twice is given twice.
            only(&[[1, 1], [2, 0], [1, 1]]),
        ];
        let all = union(selections.iter());
        assert_eq!(all, only(&[[0, 1], [1, 1], [2, 0]]));
        for own in &selections {
            let gathered = gather(features(&all), &all, own, &info()).unwrap();
            assert_eq!(gathered, features(own));
        }
    }

    #[test]
    fn all_absorbs_the_others() {
        let selections = [only(&[[2, 1], [0, 0]]), HeadSelection::All];
        let all = union(selections.iter());
        assert_eq!(all, HeadSelection::All);
        for own in &selections {
            let gathered = gather(features(&all), &all, own, &info()).unwrap();
            assert_eq!(gathered, features(own));
        }
    }

    #[test]
    fn a_head_outside_of_the_pass_is_an_error() {
        let pass = only(&[[0, 0]]);
        for (pass, own) in [
            (pass, only(&[[0, 1]])),
            (HeadSelection::All, only(&[[3, 0]])),
            (HeadSelection::All, only(&[[0, 2]])),
        ] {
            let error = gather(features(&pass), &pass, &own, &info()).unwrap_err();
            assert_eq!(error.kind(), crate::error::Kind::Internal);
        }
    }
}
