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
        let first: Vec<&String> = json.as_object().unwrap().keys().collect();
        assert_eq!(first.len(), 9);
        assert_eq!(json["assumed_fps"], 30.0);
        assert_eq!(json["events"]["threshold"], 0.65);
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

    // Frames a second that a script could not compute are none that could be assumed.
    let scores = write(
        "fps.jsonl",
        "{\"video\": \"a\", \"stride\": 10, \"scores\": [1, 2, 3], \"fps\": NaN}\n",
    );
    let out = evaluate("manifest", &manifest, &counts, &scores, &["--json"]);
    let message = String::from_utf8(out.stderr).unwrap();
    assert!(
        !out.status.success() && message.contains("frames a second of video a are not a finite"),
        "{message}"
    );

    // What could not be printed was not done.
    let full = std::fs::File::options()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let scores = dir.path().join("s.jsonl");
    let status = Command::new(env!("CARGO_BIN_EXE_headhunt"))
        .args(["evaluate", "--dataset", "manifest", "--annotations"])
        .arg(&manifest)
        .arg("--frame-counts")
        .arg(&counts)
        .arg("--scores")
        .arg(&scores)
        .stdout(full)
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(1));
}

#[test]
fn threshold_and_frame_rate_are_the_callers() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let manifest = write(
        "m.csv",
        "video,label,start_frame,end_frame\na.mp4,anomaly,0,10\nb.mp4,normal,,\n",
    );
    let counts = write("c.csv", "video,frames\na.mp4,30\nb.mp4,3580\n");
    let scores = write(
        "s.jsonl",
        "{\"video\": \"a\", \"stride\": 10, \"scores\": [0.4, 0.1, 0.2]}\n\
         {\"video\": \"b\", \"stride\": 3580, \"scores\": [0.3], \"fps\": 10}\n",
    );
    let json = |more: &[&str]| -> serde_json::Value {
        let out = evaluate("manifest", &manifest, &counts, &scores, more);
        let errors = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(out.status.success(), "{errors}");
        serde_json::from_slice(&out.stdout).unwrap()
    };
    // 20 normal frames at 1 fps and 3,580 at 10.
    let high = json(&["--json", "--fps", "1", "--threshold", "0.35"]);
    assert_eq!(high["assumed_fps"], 1.0);
    assert_eq!(high["events"]["normal_hours"], (20.0 + 358.0) / 3600.0);
    assert_eq!(high["events"]["predicted"], 1);
    assert_eq!(high["events"]["scores"][2]["f1"], 1.0);
    assert_eq!(high["events"]["false_alarms"], 0);
    let low = json(&["--json", "--threshold", "0.25"]);
    assert_eq!(low["events"]["predicted"], 2);
    assert_eq!(low["events"]["false_alarms"], 1);
    assert_eq!(low["events"]["scores"][2]["f1"], 2.0 / 3.0);
    // The areas do not depend on them.
    assert_eq!(low["roc_auc"], high["roc_auc"]);
    for bad in [["--fps", "0"], ["--threshold", "NaN"]] {
        let out = evaluate("manifest", &manifest, &counts, &scores, &bad);
        assert_eq!(out.status.code(), Some(1));
    }
}
