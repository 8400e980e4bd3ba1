//! Segments, scorer and locator against the reference's values.

// Helpers of tests fail by panicking.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{fs, path::PathBuf};

use headhunt::{
    hunt::{
        calibrate::{CalibrationVideo, calibrate_locator, sigmas, thresholds},
        normality,
    },
    media::MediaTime,
    profile::{Edge, LocatorParams},
    score::{
        locate::{SegmentSpan, locate},
        logistic::{FitOptions, Logistic},
        normality::Normality,
        smooth::{radius, smooth},
        svm::LinearSvm,
    },
    segment::{sample_indices, whole_video_indices},
};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

fn golden(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn json(name: &str) -> Value {
    serde_json::from_slice(&golden(name)).unwrap()
}

struct Tensors(Vec<u8>);

impl Tensors {
    fn load(name: &str) -> Tensors {
        Tensors(golden(name))
    }

    fn bytes<const N: usize>(&self, name: &str, dtype: Dtype) -> Vec<[u8; N]> {
        let file = SafeTensors::deserialize(&self.0).unwrap();
        let tensor = file.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(tensor.dtype(), dtype, "{name}");
        tensor
            .data()
            .chunks_exact(N)
            .map(|c| c.try_into().unwrap())
            .collect()
    }

    fn f64(&self, name: &str) -> Vec<f64> {
        let bytes = self.bytes(name, Dtype::F64);
        bytes.into_iter().map(f64::from_le_bytes).collect()
    }

    fn f32(&self, name: &str) -> Vec<f32> {
        let bytes = self.bytes(name, Dtype::F32);
        bytes.into_iter().map(f32::from_le_bytes).collect()
    }

    fn i64(&self, name: &str) -> Vec<i64> {
        let bytes = self.bytes(name, Dtype::I64);
        bytes.into_iter().map(i64::from_le_bytes).collect()
    }
}

fn close(got: &[f64], want: &[f64], tolerance: f64, what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        assert!(
            (got - want).abs() <= tolerance,
            "{what}[{i}]: {got}, reference {want}"
        );
    }
}

/// The reference's cases in which we differ by design: it steps (n − 1)/16 over whole videos and
/// over the last segment. (frames of the video, fps × 1000, segment or −1 for the whole video)
const OTHER_BY_DESIGN: [(u64, u64, i64); 13] = [
    (480, 30_000, -1),
    (480, 30_000, 9),
    (1000, 25_000, -1),
    (1000, 25_000, 18),
    (1000, 25_000, 19),
    (700, 23_976, -1),
    (48, 30_000, -1),
    (48, 30_000, 0),
    (47, 30_000, -1),
    (47, 30_000, 0),
    (20, 30_000, -1),
    (20, 30_000, 0),
    (333, 23_976, -1),
];

#[test]
fn sampled_frames_are_the_references_but_for_the_cases_that_differ_by_design() {
    let mut differ = Vec::new();
    for case in json("frame_indices.json").as_array().unwrap() {
        let total = case["total"].as_u64().unwrap();
        if total == 0 {
            // The reference names frame 0 of a video without frames; there is none.
            assert!(whole_video_indices(0, 16).is_empty());
            continue;
        }
        let fps = (case["fps"].as_f64().unwrap() * 1000.0).round() as u64;
        let reference: Vec<u64> = serde_json::from_value(case["idx"].clone()).unwrap();
        let (segment, ours) = match case["seg"].as_i64() {
            None => (-1, whole_video_indices(total, 16)),
            Some(segment) => {
                let first = 48 * segment as u64;
                let frames = 48.min(total - first);
                let offsets = sample_indices(frames, 16);
                (segment, offsets.iter().map(|o| first + o).collect())
            }
        };
        if ours != reference {
            differ.push((total, fps, segment));
            // By design, and by little: never more than one frame.
            for (ours, theirs) in ours.iter().zip(&reference) {
                assert!(ours.abs_diff(*theirs) <= 1, "{case}: {ours}");
            }
        }
    }
    assert_eq!(differ, OTHER_BY_DESIGN);
    // What the rule gives where the reference differs.
    assert_eq!(
        sample_indices(20, 16),
        [0, 1, 3, 4, 5, 6, 8, 9, 10, 11, 13, 14, 15, 16, 18, 19]
    );
}

fn rows(features: &[f32], dim: usize) -> Vec<&[f32]> {
    features.chunks_exact(dim).collect()
}

/// LinearSVC's objective is ours: squared hinge, the intercept penalised.
#[test]
fn the_support_vector_machine_is_scikit_learns() {
    for (name, dim) in [("small_n40_d16", 80), ("wide_n40_d128", 640)] {
        let file = Tensors::load(&format!("scorer_{name}.safetensors"));
        let features = file.f32("features");
        let labels: Vec<bool> = file.i64("labels").iter().map(|l| *l == 1).collect();
        let fitted = LinearSvm::fit(&rows(&features, dim), &labels, 1.0).unwrap();
        let golden = &json("svm.json")[name];
        let coef: Vec<f64> = serde_json::from_value(golden["coef"].clone()).unwrap();
        close(&fitted.weights, &coef, 1e-6, name);
        let intercept = golden["intercept"].as_f64().unwrap();
        close(&[fitted.intercept], &[intercept], 1e-6, name);
    }
}

#[test]
fn the_scorer_is_the_exact_optimum() {
    for (name, dim) in [("small_n40_d16", 80), ("wide_n40_d128", 640)] {
        let file = Tensors::load(&format!("scorer_{name}.safetensors"));
        let features = file.f32("features");
        let rows = rows(&features, dim);
        let labels: Vec<bool> = file.i64("labels").iter().map(|l| *l == 1).collect();
        let all: Vec<usize> = (0..rows.len()).collect();
        let train: Vec<usize> = file.i64("train_idx").iter().map(|i| *i as usize).collect();
        for (set, chosen) in [("all", all), ("train", train)] {
            let x: Vec<&[f32]> = chosen.iter().map(|i| rows[*i]).collect();
            let y: Vec<bool> = chosen.iter().map(|i| labels[*i]).collect();
            let fitted = Logistic::fit(&x, &y, &FitOptions::default()).unwrap();
            let what = format!("{name} {set}");
            close(
                &fitted.weights,
                &file.f64(&format!("opt_coef_{set}")),
                1e-6,
                &what,
            );
            close(
                &[fitted.intercept],
                &file.f64(&format!("opt_intercept_{set}")),
                1e-6,
                &what,
            );
            let p: Vec<f64> = rows
                .iter()
                .map(|z| fitted.probability(z).unwrap())
                .collect();
            close(&p, &file.f64(&format!("opt_proba_{set}")), 1e-6, &what);
            // liblinear stops early: near, not equal.
            close(
                &fitted.weights,
                &file.f64(&format!("coef_{set}")),
                1e-3,
                &what,
            );
        }
    }
}

#[test]
fn a_free_intercept_is_the_exact_optimum_too() {
    let golden = json("scorer_free_intercept.json");
    for (name, dim) in [("small_n40_d16", 80), ("wide_n40_d128", 640)] {
        let file = Tensors::load(&format!("scorer_{name}.safetensors"));
        let features = file.f32("features");
        let labels: Vec<bool> = file.i64("labels").iter().map(|l| *l == 1).collect();
        let options = FitOptions {
            penalize_intercept: false,
            ..FitOptions::default()
        };
        let fitted = Logistic::fit(&rows(&features, dim), &labels, &options).unwrap();
        let coef: Vec<f64> = serde_json::from_value(golden[name]["coef"].clone()).unwrap();
        close(&fitted.weights, &coef, 1e-6, name);
        let intercept = golden[name]["intercept"].as_f64().unwrap();
        close(&[fitted.intercept], &[intercept], 1e-6, name);
    }
}

#[test]
fn distances_from_normal_footage_are_ledoit_wolfs() {
    for case in json("normality.json")["cases"].as_array().unwrap() {
        let name = case["file"].as_str().unwrap();
        let columns = case["columns"].as_u64().unwrap() as usize;
        let file = Tensors::load(&format!("scorer_{name}.safetensors"));
        let features = file.f32("features");
        let labels = file.i64("labels");
        let rows: Vec<&[f32]> = rows(&features, features.len() / labels.len())
            .into_iter()
            .map(|row| &row[..columns])
            .collect();
        let normal: Vec<&[f32]> = (0..rows.len())
            .filter(|i| labels[*i] == 0)
            .map(|i| rows[i])
            .collect();
        let scorer = Normality::from(&normality::fit(&normal).unwrap());
        let want = case["distances"].as_array().unwrap();
        assert_eq!(want.len(), rows.len());
        for (row, want) in rows.iter().zip(want) {
            let (got, want) = (
                scorer.squared_distance(row).unwrap(),
                want.as_f64().unwrap(),
            );
            assert!(
                (got / want - 1.0).abs() < 1e-6,
                "{name} {columns}: {got} {want}"
            );
        }
    }
}

#[test]
fn zero_edge_smoothing_is_the_references_where_the_sequence_is_long_enough() {
    let file = Tensors::load("temporal.safetensors");
    let mut compared = 0;
    for case in json("temporal.json")["smooth"].as_array().unwrap() {
        let n = case["n"].as_u64().unwrap() as usize;
        let sigma = case["sigma"].as_f64().unwrap();
        let p = file.f64(&format!("scores_{n}"));
        let ours = smooth(&p, sigma, Edge::Zero);
        assert_eq!(ours.len(), n);
        if n > 2 * radius(sigma) {
            let key = case["key"].as_str().unwrap();
            close(&ours, &file.f64(key), 1e-12, key);
            compared += 1;
        }
    }
    assert_eq!(compared, 48);
}

#[test]
fn events_are_the_references() {
    let file = Tensors::load("temporal.safetensors");
    let mut found = 0;
    for case in json("temporal.json")["localize"].as_array().unwrap() {
        let n = case["n"].as_u64().unwrap() as usize;
        let sigma = case["sigma"].as_f64().unwrap();
        let smoothing = case["smoothing"].as_bool().unwrap();
        // What we do not do: a least duration, no smoothing, n + 1 values.
        if case["min_duration"].as_f64() != Some(0.0) || !smoothing || n <= 2 * radius(sigma) {
            continue;
        }
        let segment_s = 1.0 / case["fps"].as_f64().unwrap();
        let at = |segment: usize| MediaTime::from_nanos((segment as f64 * segment_s * 1e9) as i64);
        let spans: Vec<SegmentSpan> = (0..n)
            .map(|i| SegmentSpan {
                first_frame: 48 * i as u64,
                last_frame: 48 * i as u64 + 47,
                start: at(i),
                end: at(i + 1),
                run: 0,
            })
            .collect();
        let params = LocatorParams {
            sigma,
            threshold: case["threshold"].as_f64().unwrap(),
            edge: Edge::Zero,
            event_bridge_s: None,
        };
        let p = file.f64(&format!("loc_scores_{n}"));
        let located = locate(&spans, &p, &params, segment_s).unwrap();
        let events: Vec<f64> = located
            .events
            .iter()
            .flat_map(|(e, _)| [e.start.as_secs_f64(), e.end.as_secs_f64()])
            .collect();
        let reference: Vec<[f64; 2]> = serde_json::from_value(case["events"].clone()).unwrap();
        found += reference.len();
        close(&events, &reference.concat(), 1e-6, &case.to_string());
    }
    assert!(found >= 2, "only {found} events compared");
}

/// n segments of one frame each, half a second apart.
fn one_frame_segments(n: usize) -> Vec<SegmentSpan> {
    (0..n)
        .map(|i| SegmentSpan {
            first_frame: i as u64,
            last_frame: i as u64,
            start: MediaTime::from_nanos(i as i64 * 500_000_000),
            end: MediaTime::from_nanos((i as i64 + 1) * 500_000_000),
            run: 0,
        })
        .collect()
}

#[test]
fn the_calibration_grid_is_the_references_where_its_smoothing_keeps_the_length() {
    let file = Tensors::load("temporal.safetensors");
    let cases = json("temporal.json");
    close(
        &sigmas().collect::<Vec<_>>(),
        &file.f64("cal_sigmas"),
        1e-12,
        "sigmas",
    );
    let reference_thresholds = file.f64("cal_thresholds");
    close(
        &thresholds().collect::<Vec<_>>(),
        &reference_thresholds,
        1e-12,
        "thresholds",
    );
    let (mut compared, mut chosen) = (0, 0);
    for case in cases["calibrate"].as_array().unwrap() {
        if case["metric"] != "f1" {
            continue;
        }
        let number = &case["case"];
        let videos: Vec<CalibrationVideo> = (0..case["videos"].as_u64().unwrap())
            .map(|v| {
                let labels = file.i64(&format!("cal{number}_labels_{v}"));
                CalibrationVideo {
                    name: v.to_string(),
                    spans: one_frame_segments(labels.len()),
                    p: file.f64(&format!("cal{number}_scores_{v}")),
                    truth: (0..)
                        .zip(&labels)
                        .filter(|(_, l)| **l == 1)
                        .map(|(i, _)| (i, i + 1))
                        .collect(),
                    has_intervals: true,
                }
            })
            .collect();
        let fit = calibrate_locator(&videos, Edge::Zero).unwrap();
        let grid = file.f64(&format!("cal{number}_f1_grid"));
        assert_eq!(fit.surface.len(), grid.len());
        let shortest = videos.iter().map(|v| v.p.len()).min().unwrap();
        let comparable = |sigma: f64| shortest > 2 * radius(sigma);
        let rows = fit.surface.chunks_exact(81).zip(grid.chunks_exact(81));
        for (ours, reference) in rows.filter(|(ours, _)| comparable(ours[0].0)) {
            let f1: Vec<f64> = ours.iter().map(|(_, _, f1)| *f1).collect();
            close(
                &f1,
                reference,
                1e-12,
                &format!("case {number}, sigma {}", ours[0].0),
            );
            compared += 1;
        }
        if sigmas().all(comparable) {
            close(
                &[fit.sigma],
                &[case["sigma"].as_f64().unwrap()],
                0.0,
                "best sigma",
            );
            close(
                &[fit.threshold],
                &[case["threshold"].as_f64().unwrap()],
                1e-12,
                "best threshold",
            );
            chosen += 1;
        }
    }
    assert_eq!((compared, chosen), (28, 2));
}
