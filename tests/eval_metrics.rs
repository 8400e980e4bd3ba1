//! Areas under curves against scikit-learn's, and against their definitions.

// Helpers of tests fail by panicking.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use headhunt::eval::metrics::{Tally, areas, average_precision, pr_auc_trapezoid, roc_auc};
use proptest::prelude::*;

#[test]
fn areas_are_scikit_learns() {
    let text = include_str!("golden/metrics.json");
    let golden: serde_json::Value = serde_json::from_str(text).unwrap();
    let cases = golden["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 10);
    for case in cases {
        let scores: Vec<f64> = serde_json::from_value(case["scores"].clone()).unwrap();
        let labels: Vec<u8> = serde_json::from_value(case["labels"].clone()).unwrap();
        let labels: Vec<bool> = labels.iter().map(|l| *l == 1).collect();
        for (name, ours) in [
            ("roc_auc", roc_auc(&scores, &labels)),
            ("average_precision", average_precision(&scores, &labels)),
            ("pr_auc_trapezoid", pr_auc_trapezoid(&scores, &labels)),
        ] {
            let ours = ours.unwrap();
            let theirs = case[name].as_f64().unwrap();
            assert!(
                (ours - theirs).abs() < 1e-12,
                "{name} of {}: {ours}, scikit-learn {theirs}",
                case["name"]
            );
        }
    }
}

#[test]
fn the_two_areas_under_the_pr_curve_differ_where_scores_are_tied() {
    let scores = [0.5; 10];
    let labels = [
        true, false, false, false, false, false, false, false, false, false,
    ];
    assert_eq!(roc_auc(&scores, &labels).unwrap(), 0.5);
    assert_eq!(average_precision(&scores, &labels).unwrap(), 0.1);
    assert_eq!(pr_auc_trapezoid(&scores, &labels).unwrap(), 0.55);
}

#[test]
fn zero_and_minus_zero_are_one_score_and_infinities_are_scores() {
    assert_eq!(roc_auc(&[0.0, -0.0], &[true, false]).unwrap(), 0.5);
    assert_eq!(
        roc_auc(&[f64::INFINITY, f64::NEG_INFINITY], &[true, false]).unwrap(),
        1.0
    );
}

#[test]
fn what_has_no_area_is_refused() {
    let message = |scores: &[f64], labels: &[bool]| {
        let error = roc_auc(scores, labels).unwrap_err().to_string();
        assert_eq!(
            average_precision(scores, labels).unwrap_err().to_string(),
            error
        );
        assert_eq!(
            pr_auc_trapezoid(scores, labels).unwrap_err().to_string(),
            error
        );
        error
    };
    assert!(message(&[], &[]).contains("need both"));
    assert!(message(&[0.1, 0.2], &[true, true]).contains("2 anomalous and 0 normal"));
    assert!(message(&[0.1, f64::NAN], &[true, false]).contains("score 1 is NaN"));
    assert!(message(&[0.1], &[true, false]).contains("1 scores but 2 labels"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn tallies_equal_their_frames_and_the_definitions(
        frames in prop::collection::vec((0..12_u8, any::<bool>()), 2..80),
    ) {
        let scores: Vec<f64> = frames.iter().map(|(s, _)| f64::from(*s) / 7.0).collect();
        let labels: Vec<bool> = frames.iter().map(|(_, l)| *l).collect();
        let positives = labels.iter().filter(|l| **l).count();
        prop_assume!(positives > 0 && positives < labels.len());

        // ROC-AUC: the chance of the right order.
        let mut pairs = 0.0;
        for (a, _) in scores.iter().zip(&labels).filter(|(_, l)| **l) {
            for (b, _) in scores.iter().zip(&labels).filter(|(_, l)| !**l) {
                pairs += if a > b { 1.0 } else if a == b { 0.5 } else { 0.0 };
            }
        }
        let auc = pairs / (positives * (labels.len() - positives)) as f64;
        prop_assert!((roc_auc(&scores, &labels).unwrap() - auc).abs() < 1e-12);

        // The same frames, those of one score at once.
        let tallies: Vec<Tally> = (0..12_u8).map(|s| {
            let of = |label: bool| frames.iter().filter(|f| **f == (s, label)).count() as u64;
            Tally { score: f64::from(s) / 7.0, positive: of(true), negative: of(false) }
        }).collect();
        let areas = areas(tallies).unwrap();
        prop_assert_eq!(areas.roc_auc, roc_auc(&scores, &labels).unwrap());
        prop_assert_eq!(areas.average_precision, average_precision(&scores, &labels).unwrap());
        prop_assert_eq!(areas.pr_auc_trapezoid, pr_auc_trapezoid(&scores, &labels).unwrap());
    }
}
