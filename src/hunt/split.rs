//! Keeps some videos from hunting and fitting, for validation.

use std::collections::BTreeMap;

use rand::{SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

use crate::{
    error::{Error, Result},
    limits::VALIDATION_FRACTION_MAX,
};

/// Which samples are for validation, from about `fraction` of the videos (`groups` names each
/// sample's), drawn from `seed`. No video is divided.
///
/// Stratified: of the videos with anomalous samples alone, those with both classes and those with
/// normal samples alone, each gives its rounded part; where a part then lacks a class, one video of
/// that class changes sides. Fraction 0 keeps nothing.
///
/// `InvalidArgument` for a fraction outside 0 to 0.9, and where fewer than two videos have a class, so
/// that one of the parts must lack it.
pub fn validation(
    labels: &[bool],
    groups: &[usize],
    fraction: f64,
    seed: u64,
) -> Result<Vec<bool>> {
    check_fraction(fraction)?;
    if labels.len() != groups.len() {
        return Err(Error::internal(format!(
            "{} labels but {} video numbers",
            labels.len(),
            groups.len()
        )));
    }
    if fraction == 0.0 {
        return Ok(vec![false; labels.len()]);
    }
    // Whether a video has normal and anomalous samples.
    let mut videos: BTreeMap<usize, [bool; 2]> = BTreeMap::new();
    for (&label, &group) in labels.iter().zip(groups) {
        videos.entry(group).or_default()[usize::from(label)] = true;
    }
    for (class, name) in [(1, "anomalous"), (0, "normal")] {
        let having = videos.values().filter(|has| has[class]).count();
        if having < 2 {
            return Err(Error::invalid(format!(
                "{having} of {} videos have {name} samples: to keep some videos for validation, at least 2 must, one for each part; label more, or keep none",
                videos.len()
            ))
            .with_field("validation_fraction"));
        }
    }
    let mut order: Vec<(usize, [bool; 2])> = videos.into_iter().collect();
    order.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    // Stable: the drawn order stays within each kind.
    order.sort_by_key(|(_, has)| *has);
    let mut kept: Vec<bool> = Vec::with_capacity(order.len());
    for kind in order.chunk_by(|a, b| a.1 == b.1) {
        let count = (fraction * kind.len() as f64).round() as usize;
        kept.extend((0..kind.len()).map(|i| i < count));
    }
    // Each class in each part. A video with both classes could leave the other part without the
    // second class, so one with the lacking class alone goes first; with two videos of each class
    // at least, one round per class and part settles it.
    for class in [1, 0] {
        for part in [true, false] {
            if (0..order.len()).any(|i| kept[i] == part && order[i].1[class]) {
                continue;
            }
            let other = 1 - class;
            let spare = |i: &usize| {
                let elsewhere = |c: usize| {
                    (0..order.len()).any(|j| j != *i && kept[j] != part && order[j].1[c])
                };
                elsewhere(class) && (!order[*i].1[other] || elsewhere(other))
            };
            let candidates = || (0..order.len()).filter(|i| kept[*i] != part && order[*i].1[class]);
            let moved = candidates()
                .filter(|i| !order[*i].1[other])
                .find(|i| spare(i))
                .or_else(|| candidates().find(|i| spare(i)))
                .ok_or_else(|| {
                    Error::invalid(
                        "the videos cannot be divided so that both parts have both classes: label more, or keep none for validation",
                    )
                    .with_field("validation_fraction")
                })?;
            kept[moved] = part;
        }
    }
    let kept: BTreeMap<usize, bool> = order.iter().map(|(group, _)| *group).zip(kept).collect();
    Ok(groups
        .iter()
        .map(|group| kept.get(group).copied().unwrap_or_default())
        .collect())
}

/// Refuses a fraction that is not 0 to [`VALIDATION_FRACTION_MAX`].
pub fn check_fraction(fraction: f64) -> Result<()> {
    if (0.0..=VALIDATION_FRACTION_MAX).contains(&fraction) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "validation_fraction is {fraction}: give 0 to {VALIDATION_FRACTION_MAX}"
    ))
    .with_field("validation_fraction"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Per video: normal, anomalous samples.
    fn samples(videos: &[[usize; 2]]) -> (Vec<bool>, Vec<usize>) {
        let (mut labels, mut groups) = (Vec::new(), Vec::new());
        for (group, counts) in videos.iter().enumerate() {
            for (class, &count) in counts.iter().enumerate() {
                labels.extend(vec![class == 1; count]);
                groups.extend(vec![group; count]);
            }
        }
        (labels, groups)
    }

    #[test]
    fn both_parts_have_both_classes_and_no_video_is_divided() {
        let mut kinds = vec![vec![[3, 0], [3, 0], [0, 2], [0, 2]], vec![[3, 2], [2, 1]]];
        kinds.push([vec![[4, 0]; 9], vec![[2, 2]; 2]].concat());
        kinds.push([vec![[4, 0]; 12], vec![[0, 1]; 5], vec![[3, 1]; 3]].concat());
        for videos in &kinds {
            let (labels, groups) = samples(videos);
            for seed in 0..40 {
                for fraction in [0.01, 0.2, 0.5, 0.9] {
                    let kept = validation(&labels, &groups, fraction, seed).unwrap();
                    for part in [true, false] {
                        for class in [true, false] {
                            assert!(
                                (0..labels.len()).any(|i| kept[i] == part && labels[i] == class),
                                "{videos:?} {seed} {fraction}"
                            );
                        }
                    }
                    for (group, part) in groups.iter().zip(&kept) {
                        let first = groups.iter().position(|g| g == group).unwrap();
                        assert_eq!(kept[first], *part);
                    }
                }
            }
        }
        let (labels, groups) = samples(&kinds[3]);
        let draw = |seed| validation(&labels, &groups, 0.4, seed).unwrap();
        assert_eq!(draw(1), draw(1));
        assert!((2..9).any(|seed| draw(seed) != draw(1)), "the seed decides");
        // 0.4 of 12, 5 and 3 videos: 5, 2 and 1.
        let mut videos: Vec<usize> = (0..groups.len())
            .filter(|i| draw(1)[*i])
            .map(|i| groups[i])
            .collect();
        videos.dedup();
        assert_eq!(videos.len(), 8);
    }

    #[test]
    fn what_cannot_be_divided_is_refused() {
        let (labels, groups) = samples(&[[3, 0], [3, 2]]);
        let error = validation(&labels, &groups, 0.3, 0).unwrap_err();
        assert!(
            error
                .message()
                .starts_with("1 of 2 videos have anomalous samples")
        );
        assert_eq!(error.field(), Some("validation_fraction"));
        assert!(validation(&labels, &groups, 0.95, 0).is_err());
        assert!(validation(&labels, &groups, f64::NAN, 0).is_err());
        assert_eq!(validation(&labels, &groups, 0.0, 0).unwrap(), [false; 8]);
    }
}
