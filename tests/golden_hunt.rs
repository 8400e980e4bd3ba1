//! Hunting against NumPy and scikit-learn in f64, number by number.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use headhunt::{
    head::HeadId,
    hunt::{self, HuntOptions, file},
};
use safetensors::SafeTensors;

/// Largest relative difference of the metrics and scores.
const TOLERANCE: f64 = 1e-6;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name)
}

fn f64s(tensors: &SafeTensors, name: &str) -> Vec<f64> {
    let data = tensors.tensor(name).unwrap();
    assert_eq!(data.dtype(), safetensors::Dtype::F64, "{name}");
    data.data()
        .as_chunks()
        .0
        .iter()
        .map(|b| f64::from_le_bytes(*b))
        .collect()
}

fn i64s(tensors: &SafeTensors, name: &str) -> Vec<i64> {
    let data = tensors.tensor(name).unwrap();
    assert_eq!(data.dtype(), safetensors::Dtype::I64, "{name}");
    data.data()
        .as_chunks()
        .0
        .iter()
        .map(|b| i64::from_le_bytes(*b))
        .collect()
}

fn assert_near(what: &str, got: &[f64], want: &[f64], tolerance: f64) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        let difference = (g - w).abs();
        assert!(
            difference <= tolerance * w.abs() || difference <= f64::EPSILON,
            "{what}[{i}]: {g}, reference {w}"
        );
    }
}

fn matches_the_reference(name: &str) {
    let path = golden(name);
    let bytes = std::fs::read(&path).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let labelled = file::read_features(&path).unwrap();
    let (features, labels) = (&labelled.features, &labelled.labels);
    let result = hunt::hunt(features, labels, None, &HuntOptions::default(), &|_, _| ()).unwrap();
    for (metric, got) in [
        ("lda", &result.lda),
        ("kl", &result.kl),
        ("mmd", &result.mmd),
        ("saliency", &result.saliency),
        ("mean", &result.mean),
        ("std", &result.std),
        ("rss", &result.rss),
    ] {
        let want = f64s(&tensors, &format!("{metric}_f64"));
        assert_near(metric, got, &want, TOLERANCE);
    }
    assert_near("nmi", &result.nmi, &f64s(&tensors, "nmi_f64"), 1e-12);
    let top: Vec<i64> = result
        .expert_heads
        .iter()
        .flat_map(|id| [id.layer as i64, id.head as i64])
        .collect();
    assert_eq!(top, i64s(&tensors, "top_f64"));

    // k-means: order of the samples, first centres, clusters; all exactly.
    let order = i64s(&tensors, "km_order");
    let start = i64s(&tensors, "km_init");
    let clusters = i64s(&tensors, "km_labels");
    let heads = features.layers * features.heads;
    for index in 0..features.prompts * heads {
        let id = HeadId {
            layer: index % heads / features.heads,
            head: index % features.heads,
        };
        let got = hunt::clusters(features, labels, index / heads, id).unwrap();
        let as_i64 = |v: &[usize]| -> Vec<i64> { v.iter().map(|&x| x as i64).collect() };
        assert_eq!(as_i64(&got.order), order);
        assert_eq!(as_i64(&got.start), start[index * 2..][..2], "{index}");
        let got: Vec<i64> = got.labels.iter().map(|&c| i64::from(c)).collect();
        let n = features.samples;
        assert_eq!(got, clusters[index * n..][..n], "{index}");
    }
}

#[test]
fn more_samples_than_numbers_per_head() {
    matches_the_reference("rhi_small_n40_d16.safetensors");
}

#[test]
fn fewer_samples_than_numbers_per_head() {
    matches_the_reference("rhi_wide_n40_d128.safetensors");
}
