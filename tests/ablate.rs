//! `headhunt ablate` on clips made here and the tiny checkpoint.

#![cfg(feature = "video")]
// Helpers of tests fail by panicking.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code)]

#[path = "cli_job/site.rs"]
mod site;

use std::{
    fs,
    path::{Path, PathBuf},
};

use site::{MODEL, clip, fails, succeeds, text};

/// Eight clips, half of them with something bright in the middle.
fn clips(dir: &Path) -> PathBuf {
    let mut rows = "video,label,start_frame,end_frame\n".to_owned();
    for i in 0..8_u8 {
        let name = format!("c{i}.mp4");
        if i % 2 == 0 {
            clip(&dir.join(&name), 120, (48, 96), 40 + 5 * i);
            rows.push_str(&format!("{name},anomaly,48,96\n"));
        } else {
            clip(&dir.join(&name), 96, (0, 0), 40 + 5 * i);
            rows.push_str(&format!("{name},normal,,\n"));
        }
    }
    let manifest = dir.join("clips.csv");
    fs::write(&manifest, rows).unwrap();
    manifest
}

#[test]
fn all_rows_come_from_one_command_and_repeat() {
    let dir = tempfile::tempdir().unwrap();
    let manifest = clips(dir.path());
    let out = dir.path().join("ablation.json");
    let args = |last: &[&'static str]| -> Vec<String> {
        let mut args: Vec<String> = [
            "ablate",
            "--model",
            MODEL,
            "--manifest",
            text(&manifest),
            "--prompt",
            "Identify any abnormal events in this video.",
            "--prompt",
            "Is anything unusual happening?",
            "--validation",
            "0.5",
            "--bootstrap",
            "50",
            "--seed",
            "4",
        ]
        .map(str::to_owned)
        .to_vec();
        args.extend(last.iter().map(|a| (*a).to_owned()));
        args
    };
    let run = |args: Vec<String>| {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        succeeds(&args)
    };
    let mut with_out = args(&["--out"]);
    with_out.push(text(&out).to_owned());
    let table = run(with_out);
    assert!(table.contains("87.03   82.63"), "{table}");
    let printed = run(args(&["--json"]));
    assert_eq!(printed, fs::read_to_string(&out).unwrap());
    let json: serde_json::Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(json["train"]["videos"], 4);
    assert_eq!(json["test"]["videos"], 4);
    assert_eq!(json["test_frames"], 2 * 120 + 2 * 96);
    assert_eq!(json["test_positives"], 2 * 48);
    let rows = json["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 10);
    for row in rows {
        assert!(row["missing"].is_null(), "{row}");
        let auc = row["roc_auc"]["value"].as_f64().unwrap();
        assert!((0.0..=1.0).contains(&auc), "{row}");
        assert!(table.contains(row["name"].as_str().unwrap()), "{table}");
    }
}

#[test]
fn what_is_measured_must_not_be_fitted_on_and_needs_intervals() {
    let dir = tempfile::tempdir().unwrap();
    let manifest = clips(dir.path());
    let test = dir.path().join("test.csv");
    for (from, to) in [("c0.mp4", "w0.mp4"), ("c1.mp4", "w1.mp4")] {
        fs::copy(dir.path().join(from), dir.path().join(to)).unwrap();
    }
    fs::write(&test, "video,label\nw0.mp4,anomaly\nw1.mp4,normal\n").unwrap();
    let args = |more: &[&'static str]| -> Vec<String> {
        let mut args = ["ablate", "--model", MODEL, "--manifest", text(&manifest)]
            .map(str::to_owned)
            .to_vec();
        args.extend(more.iter().map(|a| (*a).to_owned()));
        args
    };
    let refused = |args: Vec<String>| {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        fails(&args)
    };
    let mut with_test = args(&["--test-manifest"]);
    with_test.push(text(&test).to_owned());
    let errors = refused(with_test);
    assert!(
        errors.contains("no test video has annotated intervals"),
        "{errors}"
    );
    fs::write(
        &test,
        "video,label,start_frame,end_frame\nc0.mp4,anomaly,48,96\nw1.mp4,normal,,\n",
    )
    .unwrap();
    let mut with_test = args(&["--test-manifest"]);
    with_test.push(text(&test).to_owned());
    let errors = refused(with_test);
    assert!(errors.contains("c0.mp4 is in both"), "{errors}");
    let errors = refused(args(&["--top-k", "99"]));
    assert!(errors.contains("top_k is 99"), "{errors}");
}
