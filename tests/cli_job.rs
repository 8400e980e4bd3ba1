//! The command line as a user runs it, from clips to events: extract, hunt, calibrate, detect on the
//! tiny checkpoint and clips made here.

#![cfg(feature = "video")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test may

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use headhunt::video::encode::Mp4Writer;
use safetensors::SafeTensors;
use serde_json::Value;

const MODEL: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/golden/checkpoints/tiny/hf"
);
const OTHER: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/golden/checkpoints/tinywide/hf"
);

fn headhunt(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_headhunt"))
        .args(args)
        .output()
        .unwrap()
}

fn succeeds(args: &[&str]) -> String {
    let output = headhunt(args);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{args:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// What the command said on standard error; its exit code must be 1.
fn fails(args: &[&str]) -> String {
    let output = headhunt(args);
    assert_eq!(output.status.code(), Some(1), "{args:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A grey clip whose frames in `bright` flash white and red.
fn clip(path: &Path, frames: u64, bright: (u64, u64), shade: u8) {
    let mut writer = Mp4Writer::create(path, 64, 48, 30).unwrap();
    for i in 0..frames {
        let wave = (i % 7) as u8;
        let pixel = |k: usize| match (bright.0..bright.1).contains(&i) {
            true => [255, (k % 64) as u8 * 3, 10 * wave],
            false => [shade + wave, shade + (k % 48) as u8, shade],
        };
        writer.push((0..64 * 48).flat_map(pixel).collect()).unwrap();
    }
    writer.finish().unwrap();
}

/// Four labelled clips and their manifest.
fn site(dir: &Path) -> PathBuf {
    clip(&dir.join("a.mp4"), 200, (48, 144), 40);
    clip(&dir.join("b.mp4"), 170, (60, 130), 60);
    clip(&dir.join("c.mp4"), 150, (0, 0), 50);
    clip(&dir.join("d.mp4"), 100, (0, 0), 70);
    let manifest = dir.join("clips.csv");
    fs::write(
        &manifest,
        "video,label,start_frame,end_frame\na.mp4,anomaly,48,144\nb.mp4,anomaly,60,130\n\
         c.mp4,normal,,\nd.mp4,normal,,\n",
    )
    .unwrap();
    manifest
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

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
    assert!(fails(&["model", "inspect", text(dir.path())]).contains("config.json"));
    let usage = headhunt(&["detect", "x.mp4"]);
    assert_eq!(
        usage.status.code(),
        Some(2),
        "a missing argument is a usage error"
    );
    assert!(!out.exists());
}
