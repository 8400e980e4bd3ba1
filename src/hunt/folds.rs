//! Out-of-fold probabilities: each sample is scored by a fit that has not seen its video.

use std::collections::BTreeMap;

use rand::{SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

use crate::{
    error::{Error, Result},
    score::logistic::{FitOptions, Logistic},
};

/// Folds where there are videos enough.
const FOLDS: usize = 5;

/// Below so many videos each is a fold of its own.
const LEAVE_ONE_OUT_BELOW: usize = 10;

/// The fold of each sample: 5 folds of whole videos (`groups` names each sample's), or one per
/// video where there are fewer than 10.
///
/// Videos are dealt in an order drawn from `seed`: those with anomalous samples alone, those with
/// both classes, those with normal samples alone. Videos that have a class are thus dealt one after
/// another, so that two of them never share a fold while another is empty, and no training part
/// lacks a class that at least two videos have.
///
/// `InvalidArgument` where a single video has all the samples of a class: what remains without it
/// cannot be fitted.
pub fn assign(labels: &[bool], groups: &[usize], seed: u64) -> Result<Vec<usize>> {
    if labels.len() != groups.len() {
        return Err(Error::invalid(format!(
            "{} labels but {} video numbers",
            labels.len(),
            groups.len()
        )));
    }
    // (has normal, has anomalous) samples of each video, ascending.
    let mut videos: BTreeMap<usize, (bool, bool)> = BTreeMap::new();
    for (&label, &group) in labels.iter().zip(groups) {
        let has = videos.entry(group).or_default();
        if label {
            has.1 = true;
        } else {
            has.0 = true;
        }
    }
    for (class, videos_with) in [
        ("anomalous", videos.values().filter(|has| has.1).count()),
        ("normal", videos.values().filter(|has| has.0).count()),
    ] {
        if videos_with < 2 {
            return Err(Error::invalid(format!(
                "{videos_with} of {} videos have {class} samples: the locator is calibrated on \
                 probabilities from fits without the sample's own video, so at least 2 are needed",
                videos.len()
            )));
        }
    }
    let folds = if videos.len() < LEAVE_ONE_OUT_BELOW {
        videos.len()
    } else {
        FOLDS
    };
    let mut order: Vec<(usize, (bool, bool))> = videos.into_iter().collect();
    order.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    // Stable: the drawn order stays within each kind.
    order.sort_by_key(|(_, has)| match has {
        (false, _) => 0,
        (true, true) => 1,
        (true, false) => 2,
    });
    let fold_of: BTreeMap<usize, usize> = order
        .into_iter()
        .enumerate()
        .map(|(i, (group, _))| (group, i % folds))
        .collect();
    Ok(groups
        .iter()
        .map(|group| fold_of.get(group).copied().unwrap_or_default())
        .collect())
}

/// p of each row by a scorer fitted to the rows of the other folds; see [`assign`].
///
/// `InvalidArgument` where a fold's training part cannot be fitted.
pub fn out_of_fold(
    rows: &[&[f32]],
    labels: &[bool],
    groups: &[usize],
    seed: u64,
    fit: &FitOptions,
) -> Result<Vec<f64>> {
    if rows.len() != labels.len() {
        return Err(Error::invalid(format!(
            "{} samples but {} labels",
            rows.len(),
            labels.len()
        )));
    }
    let fold_of = assign(labels, groups, seed)?;
    let folds = fold_of.iter().max().map_or(0, |last| last + 1);
    let mut p = vec![0.0; rows.len()];
    for fold in 0..folds {
        let (x, y): (Vec<&[f32]>, Vec<bool>) = rows
            .iter()
            .zip(labels)
            .zip(&fold_of)
            .filter(|(_, of)| **of != fold)
            .map(|((row, label), _)| (*row, *label))
            .unzip();
        let scorer = Logistic::fit(&x, &y, fit)
            .map_err(|e| e.context(format!("fit without fold {} of {folds}", fold + 1)))?;
        for ((p, row), _) in p
            .iter_mut()
            .zip(rows)
            .zip(&fold_of)
            .filter(|(_, of)| **of == fold)
        {
            *p = scorer.probability(row)?;
        }
    }
    Ok(p)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_training_part_has_both_classes_and_no_video_is_split() {
        for seed in 0..50 {
            for videos in 3..40_usize {
                // Two videos with anomalies, everything else normal; and the other way round.
                for minority in [true, false] {
                    let groups: Vec<usize> = (0..videos * 3).map(|i| 1000 - i / 3).collect();
                    let labels: Vec<bool> = groups
                        .iter()
                        .enumerate()
                        .map(|(i, g)| (*g >= 999 && (*g == 1000 || i % 3 == 1)) == minority)
                        .collect();
                    let fold_of = assign(&labels, &groups, seed).unwrap();
                    let folds = fold_of.iter().max().unwrap() + 1;
                    assert_eq!(folds, if videos < 10 { videos } else { 5 });
                    for fold in 0..folds {
                        let classes = |inside: bool| {
                            (0..labels.len())
                                .filter(|i| (fold_of[*i] == fold) == inside)
                                .map(|i| labels[i])
                                .collect::<std::collections::BTreeSet<bool>>()
                        };
                        assert!(!classes(true).is_empty());
                        assert_eq!(classes(false).len(), 2, "seed {seed}, {videos} videos");
                    }
                    for (group, fold) in groups.iter().zip(&fold_of) {
                        let first = groups.iter().position(|g| g == group).unwrap();
                        assert_eq!(fold_of[first], *fold);
                    }
                }
            }
        }
    }

    #[test]
    fn the_seed_decides() {
        let groups: Vec<usize> = (0..40).collect();
        let labels: Vec<bool> = groups.iter().map(|g| g % 2 == 0).collect();
        let folds = |seed| assign(&labels, &groups, seed).unwrap();
        assert_eq!(folds(1), folds(1));
        assert_ne!(folds(1), folds(2));
    }

    #[test]
    fn a_sample_is_scored_by_a_fit_without_its_video() {
        // Four videos of two samples; feature k marks video k alone, so a fit without it leaves
        // that weight at 0 and p is the intercept's.
        let mut data = Vec::new();
        let (mut labels, mut groups) = (Vec::new(), Vec::new());
        for i in 0..8 {
            let mut row = [0.0_f32; 4];
            row[i / 2] = 3.0;
            data.push(row);
            labels.push(i / 2 % 2 == 0);
            groups.push(i / 2);
        }
        let rows: Vec<&[f32]> = data.iter().map(|r| r.as_slice()).collect();
        let options = FitOptions::default();
        let p = out_of_fold(&rows, &labels, &groups, 3, &options).unwrap();
        for video in 0..4 {
            let keep: Vec<usize> = (0..8).filter(|i| groups[*i] != video).collect();
            let x: Vec<&[f32]> = keep.iter().map(|i| rows[*i]).collect();
            let y: Vec<bool> = keep.iter().map(|i| labels[*i]).collect();
            let scorer = Logistic::fit(&x, &y, &options).unwrap();
            assert_eq!(scorer.weights[video], 0.0);
            for i in [2 * video, 2 * video + 1] {
                assert_eq!(p[i], scorer.probability(rows[i]).unwrap());
            }
        }
    }

    #[test]
    fn one_video_with_a_class_is_refused() {
        let rows: [&[f32]; 3] = [&[1.0], &[2.0], &[3.0]];
        let error = out_of_fold(
            &rows,
            &[true, false, false],
            &[0, 1, 2],
            1,
            &FitOptions::default(),
        )
        .unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("1 of 3 videos have anomalous samples")
        );
        assert!(assign(&[true], &[], 0).is_err());
    }
}
