//! `headhunt evaluate`, as scripts call it.

// Helpers of tests fail by panicking.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden/datasets")
        .join(name)
}

fn evaluate(
    dataset: &str,
    annotations: &Path,
    counts: &Path,
    scores: &Path,
    more: &[&str],
) -> Output {
    Command::new(env!("CARGO_BIN_EXE_headhunt"))
        .args(["evaluate", "--dataset", dataset, "--annotations"])
        .arg(annotations)
        .arg("--frame-counts")
        .arg(counts)
        .arg("--scores")
        .arg(scores)
        .args(more)
        .output()
        .unwrap()
}

/// Scores that count up within each video, one for 24 frames.
fn rising_scores(counts: &Path, out: &Path) {
    let text = std::fs::read_to_string(counts).unwrap();
    let lines: Vec<String> = text
        .lines()
        .skip(1)
        .map(|line| {
            let (video, frames) = line.rsplit_once(',').unwrap();
            let n = frames.parse::<u64>().unwrap().div_ceil(24);
            let scores: Vec<f64> = (0..n).map(|i| i as f64 / n as f64).collect();
            serde_json::json!({"video": video, "stride": 24, "scores": scores}).to_string()
        })
        .collect();
    std::fs::write(out, lines.join("\n")).unwrap();
}

#[test]
fn prints_the_totals_and_areas_of_both_public_sets() {
    let dir = tempfile::tempdir().unwrap();
    for (name, folder, file, videos, frames, positives) in [
        (
            "ucf-crime",
            "ucf_crime",
            "Temporal_Anomaly_Annotation_for_Testing_Videos.txt",
            290,
            1_111_808,
            84_331,
        ),
        (
            "xd-violence",
            "xd_violence",
            "annotations.txt",
            800,
            2_335_801,
            539_562,
        ),
    ] {
        let (annotations, counts) = (
            golden(folder).join(file),
            golden(folder).join("frame_counts.csv"),
        );
        let scores = dir.path().join("scores.jsonl");
        rising_scores(&counts, &scores);
        let out = evaluate(name, &annotations, &counts, &scores, &["--json"]);
        assert!(
            out.status.success(),
            "{}",
            String::from_utf8_lossy(&out.stderr)
        );
        let json: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
        assert_eq!(json["videos"], videos);
        assert_eq!(json["frames"], frames);
        assert_eq!(json["positives"], positives);
        let keys: Vec<&String> = json.as_object().unwrap().keys().collect();
        assert_eq!(keys.len(), 6);
        for key in ["roc_auc", "average_precision", "pr_auc_trapezoid"] {
            let area = json[key].as_f64().unwrap();
            assert!(area > 0.0 && area < 1.0, "{key} {area}");
        }
        let out = evaluate(name, &annotations, &counts, &scores, &[]);
        let table = String::from_utf8(out.stdout).unwrap();
        assert!(table.starts_with("videos "), "{table}");
        assert!(table.contains(&format!(" {frames}\n")), "{table}");
        let auc = format!("{:.6}", json["roc_auc"].as_f64().unwrap());
        assert!(table.contains(&auc), "{table}");
    }
}

#[test]
fn says_what_is_wrong_and_fails() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let manifest = write(
        "m.csv",
        "video,label,start_frame,end_frame\na.mp4,anomaly,10,20\n",
    );
    let counts = write("c.csv", "video,frames\na.mp4,30\n");
    let scores = write(
        "s.jsonl",
        "{\"video\": \"a\", \"stride\": 10, \"scores\": [1, NaN, 3]}\n",
    );
    let out = evaluate("manifest", &manifest, &counts, &scores, &["--json"]);
    assert!(!out.status.success());
    assert!(out.stdout.is_empty());
    let message = String::from_utf8(out.stderr).unwrap();
    assert!(
        message.contains("s.jsonl: scores, line 1: score 1 of video a is not a finite number"),
        "{message}"
    );
    let out = evaluate(
        "manifest",
        &manifest,
        &dir.path().join("none.csv"),
        &scores,
        &[],
    );
    let message = String::from_utf8(out.stderr).unwrap();
    assert!(
        !out.status.success() && message.contains("none.csv"),
        "{message}"
    );

    let scores = write(
        "s.jsonl",
        "{\"video\": \"a\", \"stride\": 10, \"scores\": [1, 2, 3]}\n",
    );
    let out = evaluate("manifest", &manifest, &counts, &scores, &["--json"]);
    let json: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(json["roc_auc"], 0.5);
}
