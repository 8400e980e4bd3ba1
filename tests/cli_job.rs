//! The command line as a user runs it, from clips to events: extract, hunt, calibrate, detect on the
//! tiny checkpoint and clips made here.

#![cfg(feature = "video")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test may

#[path = "cli_job/serve.rs"]
mod serve;
#[path = "cli_job/site.rs"]
mod site;

use std::{fs, path::Path};

use safetensors::SafeTensors;
use serde_json::Value;
use site::{MODEL, OTHER, fails, headhunt, site, succeeds, text};

#[test]
fn from_labelled_clips_to_events() {
    let dir = tempfile::tempdir().unwrap();
    let manifest = site(dir.path());
    let features = dir.path().join("f.safetensors");
    let prompts = ["Is this normal?", "Report anything unusual."];
    succeeds(&[
        "extract",
        "--model",
        MODEL,
        "--manifest",
        text(&manifest),
        "--prompt",
        prompts[0],
        "--prompt",
        prompts[1],
        "--out",
        text(&features),
    ]);
    let bytes = fs::read(&features).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    // 5 + 4 + 4 + 3 segments of at most 48 frames; 4 layers of 6 heads of 16 numbers.
    assert_eq!(
        tensors.tensor("features").unwrap().shape(),
        [2, 16, 4, 6, 16]
    );
    let labels: Vec<i64> = tensors
        .tensor("labels")
        .unwrap()
        .data()
        .chunks_exact(8)
        .map(|b| i64::from_le_bytes(b.try_into().unwrap()))
        .collect();
    // a: segments 48..144; b: 48..96 (36 of 48) and 96..144 (34 of 48).
    assert_eq!(labels, [0, 1, 1, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0]);

    let hunted = dir.path().join("hunt.json");
    succeeds(&[
        "hunt",
        "--features",
        text(&features),
        "--top-k",
        "3",
        "--out",
        text(&hunted),
    ]);
    let hunted: Value = serde_json::from_slice(&fs::read(hunted).unwrap()).unwrap();

    let profile = dir.path().join("site.json");
    succeeds(&[
        "calibrate",
        "--model",
        MODEL,
        "--manifest",
        text(&manifest),
        "--prompt",
        prompts[0],
        "--prompt",
        prompts[1],
        "--top-k",
        "3",
        "--out",
        text(&profile),
    ]);
    let saved: Value = serde_json::from_slice(&fs::read(&profile).unwrap()).unwrap();
    assert_eq!(
        saved["profile"]["heads"], hunted["heads"],
        "calibrate hunts as hunt does"
    );
    assert_eq!(saved["profile"]["name"], "site");

    let video = dir.path().join("a.mp4");
    let out = succeeds(&[
        "detect",
        text(&video),
        "--model",
        MODEL,
        "--profile",
        text(&profile),
        "--json",
    ]);
    let found: Value = serde_json::from_str(out.trim()).unwrap();
    assert_eq!(found["frames"], 200);
    let segments = found["segments"].as_array().unwrap();
    let mut next = 0;
    for segment in segments {
        assert_eq!(segment["first_frame"], next);
        next += segment["frames"].as_u64().unwrap();
    }
    assert_eq!(next, 200, "every frame is in one segment");
    // Separable clips that the scorer was fitted on: the flashes must stand out.
    let p = |i: usize| segments[i]["probability"].as_f64().unwrap();
    assert!(p(1).min(p(2)) > p(0).max(p(3)), "{segments:?}");

    let refused = fails(&[
        "detect",
        text(&video),
        "--model",
        OTHER,
        "--profile",
        text(&profile),
    ]);
    assert!(refused.contains("site"), "{refused}");
}

#[test]
fn calibrate_chooses_k_reports_and_works_on_normal_footage_alone() {
    let dir = tempfile::tempdir().unwrap();
    let manifest = site(dir.path());
    let (profile, page) = (dir.path().join("site.json"), dir.path().join("site.html"));
    let common = [
        "calibrate",
        "--model",
        MODEL,
        "--manifest",
        text(&manifest),
        "--prompt",
        "Is this normal?",
        "--segment-frames",
        "8",
        "--out",
        text(&profile),
    ];
    let run = |more: &[&str]| succeeds(&[&common[..], more].concat());
    let refused = |more: &[&str]| fails(&[&common[..], more].concat());
    let saved = || -> Value { serde_json::from_slice(&fs::read(&profile).unwrap()).unwrap() };

    let told = run(&["--top-k", "auto", "--report", text(&page)]);
    assert!(told.contains("normal footage only"), "{told}");
    let html = fs::read_to_string(&page).unwrap();
    assert!(html.contains("How many heads") && html.ends_with("</html>\n"));
    assert_eq!(saved()["profile"]["schema"], 1);
    let told = run(&[
        "--top-k",
        "2",
        "--validation",
        "0.5",
        "--sampling",
        "segment",
    ]);
    assert!(told.contains("validation clips"), "{told}");
    assert_eq!(saved()["profile"]["notes"]["validation_fraction"], 0.5);
    let usage = |more: &[&str]| {
        let output = headhunt(&[&common[..], more].concat());
        assert_eq!(output.status.code(), Some(2), "a usage error");
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(usage(&["--top-k", "some"]).contains("auto"));
    assert!(refused(&["--validation", "0.95"]).contains("0 to 0.9"));

    let normal = [
        "--normal-only",
        "--false-alarms-per-day",
        "24",
        "--top-k",
        "2",
    ];
    assert!(refused(&normal).contains("accept the upper bound"));
    assert!(usage(&["--normal-only"]).contains("--false-alarms-per-day"));
    let told = run(&[&normal[..], &["--accept-upper-bound"]].concat());
    assert!(told.contains("at 95% confidence"), "{told}");
    assert_eq!(saved()["profile"]["schema"], 2);
    let video = dir.path().join("a.mp4");
    let out = succeeds(&[
        "detect",
        text(&video),
        "--model",
        MODEL,
        "--profile",
        text(&profile),
        "--json",
    ]);
    let found: Value = serde_json::from_str(out.trim()).unwrap();
    assert_eq!(found["segments"].as_array().unwrap().len(), 25);
}

#[test]
fn one_video_and_whole_videos() {
    let dir = tempfile::tempdir().unwrap();
    let manifest = site(dir.path());
    let out = dir.path().join("h.safetensors");
    let read = |name: &str| {
        let bytes = fs::read(&out).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let tensor = tensors.tensor(name).unwrap();
        (tensor.shape().to_vec(), tensor.data().to_vec())
    };
    let video = dir.path().join("d.mp4");
    succeeds(&[
        "extract",
        "--model",
        MODEL,
        "--video",
        text(&video),
        "--out",
        text(&out),
    ]);
    let (shape, segmented) = read("heads");
    assert_eq!(shape, [3, 1, 4, 6, 16]);
    let segments: Vec<i64> = read("segments")
        .1
        .chunks_exact(8)
        .map(|b| i64::from_le_bytes(b.try_into().unwrap()))
        .collect();
    assert_eq!(segments, [0, 48, 48, 48, 96, 4]);

    // One segment of all its frames is the whole video.
    let one = ["--segment-frames", "100"];
    succeeds(
        &[
            &[
                "extract",
                "--model",
                MODEL,
                "--video",
                text(&video),
                "--out",
                text(&out),
            ],
            &one[..],
        ]
        .concat(),
    );
    let (shape, as_segment) = read("heads");
    assert_eq!(shape[0], 1);
    succeeds(&[
        "extract",
        "--model",
        MODEL,
        "--video",
        text(&video),
        "--whole-video",
        "--out",
        text(&out),
    ]);
    assert_eq!(read("heads").1, as_segment);
    assert_ne!(segmented[..as_segment.len()], as_segment[..]);

    succeeds(&[
        "extract",
        "--model",
        MODEL,
        "--manifest",
        text(&manifest),
        "--whole-video",
        "--prompt",
        "Is this normal?",
        "--out",
        text(&out),
    ]);
    assert_eq!(read("features").0, [1, 4, 4, 6, 16]);
}

#[test]
fn what_is_wrong_is_named_before_long_work() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("p.json");
    let missing = dir.path().join("clips.csv");
    fs::write(&missing, "video,label\nnowhere.mp4,anomaly\n").unwrap();
    let calibrate = |manifest: &Path, out: &Path| {
        fails(&[
            "calibrate",
            "--model",
            MODEL,
            "--manifest",
            text(manifest),
            "--out",
            text(out),
        ])
    };
    assert!(calibrate(&missing, &out).contains("nowhere.mp4"));
    assert!(calibrate(&missing, dir.path()).contains("is a directory"));
    assert!(calibrate(&missing, &dir.path().join("no/p.json")).contains("no directory"));
    fs::write(&missing, "video,label\n\"\",anomaly\n").unwrap();
    assert!(calibrate(&missing, &out).contains("line 2"));
    fs::write(dir.path().join("clip.mp4"), "not opened").unwrap();
    fs::write(&missing, "clip.mp4,normal\n").unwrap();
    assert!(calibrate(&missing, &out).contains("no clip is anomalous"));
    fs::write(&missing, "clip.mp4,anomaly\n").unwrap();
    assert!(calibrate(&missing, &out).contains("add normal clips"));
    assert!(fails(&["model", "inspect", text(dir.path())]).contains("config.json"));
    let usage = headhunt(&["detect", "x.mp4"]);
    assert_eq!(
        usage.status.code(),
        Some(2),
        "a missing argument is a usage error"
    );
    assert!(!out.exists());
}
