//! `headhunt score` and `headhunt merge-scores`, as scripts call them, on the tiny checkpoint.

#![cfg(feature = "video")]
// Helpers of tests fail by panicking.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code)]

#[path = "cli_job/site.rs"]
mod site;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use site::{MODEL, OTHER, fails, headhunt, site, succeeds, text};

struct Site {
    dir: tempfile::TempDir,
    manifest: PathBuf,
    profile: PathBuf,
    counts: PathBuf,
}

fn made() -> Site {
    let dir = tempfile::tempdir().unwrap();
    let manifest = site(dir.path());
    let profile = dir.path().join("site.json");
    let prompt = "Identify any abnormal events in this video.";
    succeeds(&[
        "calibrate",
        "--model",
        MODEL,
        "--manifest",
        text(&manifest),
        "--prompt",
        prompt,
        "--out",
        text(&profile),
    ]);
    let counts = dir.path().join("counts.csv");
    fs::write(&counts, "video,frames\na,200\nb,170\nc,150\nd,100\n").unwrap();
    Site {
        manifest,
        profile,
        counts,
        dir,
    }
}

impl Site {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The arguments of a run over the folder.
    fn args<'a>(&'a self, out: &'a Path, more: &[&'a str]) -> Vec<&'a str> {
        let mut args = vec![
            "score",
            "--model",
            MODEL,
            "--profile",
            text(&self.profile),
            "--videos",
            text(self.dir.path()),
            "--frame-counts",
            text(&self.counts),
            "--out",
            text(out),
        ];
        args.extend(more);
        args
    }
}

#[test]
fn shards_merge_to_what_one_run_and_detection_give_and_evaluate() {
    let site = made();
    let (whole, all) = (site.path("whole.jsonl"), site.path("all.jsonl"));
    let parts = [site.path("p0.jsonl"), site.path("p1.jsonl")];
    succeeds(&site.args(&whole, &[]));
    for (part, shard) in parts.iter().zip(["0/2", "1/2"]) {
        let printed = succeeds(&site.args(part, &["--shard", shard]));
        assert!(printed.contains("scored     2"), "{printed}");
    }
    succeeds(&[
        "merge-scores",
        "--out",
        text(&all),
        text(&parts[1]),
        text(&parts[0]),
    ]);
    let lines = fs::read_to_string(&whole).unwrap();
    assert_eq!(fs::read_to_string(&all).unwrap(), lines);

    // The manifest lists the same videos.
    let listed = site.path("listed.jsonl");
    succeeds(&[
        "score",
        "--model",
        MODEL,
        "--profile",
        text(&site.profile),
        "--manifest",
        text(&site.manifest),
        "--out",
        text(&listed),
    ]);
    assert_eq!(fs::read_to_string(&listed).unwrap(), lines);

    let video = site.path("a.mp4");
    let detected = succeeds(&[
        "detect",
        text(&video),
        "--model",
        MODEL,
        "--profile",
        text(&site.profile),
        "--json",
    ]);
    let detected: serde_json::Value = serde_json::from_str(&detected).unwrap();
    let smoothed: Vec<f64> = detected["segments"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| s["smoothed"].as_f64().unwrap())
        .collect();
    let first: serde_json::Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    let scores: Vec<f64> = serde_json::from_value(first["scores"].clone()).unwrap();
    assert_eq!(
        (&first["video"], &first["stride"]),
        (&"a".into(), &48.into())
    );
    assert!((first["fps"].as_f64().unwrap() - 30.0).abs() < 0.01);
    assert_eq!(scores, smoothed);

    let printed = succeeds(&[
        "evaluate",
        "--dataset",
        "manifest",
        "--annotations",
        text(&site.manifest),
        "--frame-counts",
        text(&site.counts),
        "--scores",
        text(&all),
        "--json",
    ]);
    let json: serde_json::Value = serde_json::from_str(&printed).unwrap();
    assert_eq!((&json["videos"], &json["frames"]), (&4.into(), &620.into()));
    assert!(json["assumed_fps"].is_null());
}

#[test]
fn a_run_goes_on_after_a_kill_and_after_a_video_that_fails() {
    let site = made();
    let out = site.path("s.jsonl");
    // One file is no video, one has other frames than the list says.
    fs::write(site.path("b.mp4"), "no video").unwrap();
    fs::write(&site.counts, "a,200\nb,170\nc,151\nd,100\nx,10\n").unwrap();
    let errors = fails(&site.args(&out, &[]));
    for expected in [
        "3 of 5 videos could not be scored: b, c, x",
        "150 frames were decoded, and the frame counts say 151",
        "there is no file of this name",
    ] {
        assert!(errors.contains(expected), "{expected}: {errors}");
    }
    let lines = fs::read_to_string(&out).unwrap();
    assert_eq!(lines.lines().count(), 2);
    assert!(fails(&site.args(&out, &[])).contains("give --resume"));
    // A torn line, as a kill leaves it.
    let torn = &lines[..lines.len() - 20];
    fs::write(&out, torn).unwrap();
    let output = headhunt(&site.args(&out, &["--resume"]));
    let printed = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        printed.contains("scored     1\nkept       1\nfailed     3"),
        "{printed}"
    );
    assert_eq!(fs::read_to_string(&out).unwrap(), lines);
}

#[test]
fn a_run_that_was_killed_ends_as_one_that_was_not() {
    let site = made();
    let (whole, out) = (site.path("whole.jsonl"), site.path("killed.jsonl"));
    succeeds(&site.args(&whole, &[]));
    let expected = fs::read_to_string(&whole).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_headhunt"))
        .args(site.args(&out, &[]))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // SIGKILL as soon as the first video is in the file.
    let until = Instant::now() + Duration::from_secs(60);
    let lines = || fs::read_to_string(&out).map_or(0, |text| text.matches('\n').count());
    while lines() == 0 {
        assert!(Instant::now() < until, "nothing was scored");
        sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let left = fs::read_to_string(&out).unwrap();
    assert!(
        left.len() < expected.len(),
        "it was killed too late for this test to mean anything"
    );
    let printed = succeeds(&site.args(&out, &["--resume"]));
    assert!(!printed.contains("kept       0"), "{printed}");
    assert_eq!(fs::read_to_string(&out).unwrap(), expected);
}

#[test]
fn another_model_and_bad_arguments_are_refused() {
    let site = made();
    let out = site.path("s.jsonl");
    let mut args = site.args(&out, &[]);
    args[2] = OTHER;
    // Whether it lacks a layer or has another fingerprint.
    let errors = fails(&args);
    assert!(errors.contains("profile site"), "{errors}");
    assert!(!out.exists());
    let code = |args: &[&str]| headhunt(args).status.code();
    assert_eq!(code(&site.args(&out, &["--shard", "2/2"])), Some(2));
    // No list, or two.
    assert_eq!(code(&site.args(&out, &["--manifest", "m.csv"])), Some(2));
    let args = ["score", "--model", MODEL, "--profile", "p", "--out", "o"];
    assert_eq!(code(&args), Some(2));
}

/// Containers' arguments in the manifest of the Kubernetes jobs.
fn arguments(yaml: &str) -> Vec<Vec<String>> {
    let mut found: Vec<Vec<String>> = Vec::new();
    let mut indent = None;
    for line in yaml.lines() {
        let trimmed = line.trim_start();
        let depth = line.len() - trimmed.len();
        if trimmed == "args:" {
            indent = Some(depth);
            found.push(Vec::new());
        } else if let (Some(at), Some(item)) = (indent, trimmed.strip_prefix("- "))
            && depth > at
        {
            let item = item.trim_matches('"').to_owned();
            found.last_mut().unwrap().push(item);
        } else if !trimmed.starts_with('#') {
            indent = None;
        }
    }
    found
}

#[test]
fn the_kubernetes_jobs_call_what_there_is() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/evaluate-job.yaml");
    let yaml = fs::read_to_string(path).unwrap();
    let jobs = arguments(&yaml);
    assert_eq!(jobs.len(), 2);
    let completions = yaml
        .lines()
        .find_map(|l| l.trim().strip_prefix("completions: "))
        .unwrap();
    assert_eq!(jobs[0][0], "score");
    assert!(jobs[0].contains(&format!("$(JOB_COMPLETION_INDEX)/{completions}")));
    assert_eq!(jobs[1][0], "merge-scores");
    let parts = jobs[1].iter().filter(|a| a.contains("/part-")).count();
    assert_eq!(parts.to_string(), completions);
    for job in &jobs {
        let args: Vec<String> = job
            .iter()
            .map(|a| a.replace("$(JOB_COMPLETION_INDEX)", "0"))
            .collect();
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        // The arguments are known; what they name is not here.
        let output = headhunt(&args);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{errors}");
        assert!(errors.contains("/scores"), "{errors}");
    }
}
