//! The administration's command line against the real binary, model and decoder: the profile of a
//! job equals the command line's, a server that is killed again and again goes on, and what is refused
//! is said.

#![cfg(feature = "video")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test may

#[allow(dead_code)] // it serves another test file too
#[path = "cli_job/site.rs"]
mod site;

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;
use site::{MODEL, clip, succeeds, text};

/// Longest wait for a start or an end; far above what it takes.
const PATIENCE: Duration = Duration::from_secs(60);

const PROMPTS: [&str; 2] = ["Is this normal?", "Report anything unusual."];

struct Server {
    child: Child,
    address: String,
}

impl Server {
    /// On this directory, without a profile. Files that it writes may have at most so many blocks of
    /// 512 bytes; 0: no limit.
    fn start(dir: &Path, address: Option<String>, blocks: u32) -> Server {
        let address = address.unwrap_or_else(|| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            listener.local_addr().unwrap().to_string()
        });
        // An ignored SIGXFSZ makes a write past the limit an error, as on a full disk.
        let limit = match blocks {
            0 => String::new(),
            _ => format!("trap \"\" XFSZ; ulimit -f {blocks}; "),
        };
        let child = Command::new("sh")
            .args(["-c", &format!("{limit}exec \"$@\""), "sh"])
            .arg(env!("CARGO_BIN_EXE_headhunt"))
            .args(["serve", "--device", "cpu", "--model", MODEL])
            .args(["--listen", &address])
            .env("HEADHUNT__SERVER__METRICS_LISTEN", "")
            .env("HEADHUNT__LOG__LEVEL", "warn")
            .env("HEADHUNT__PROFILES__DIR", dir.join("profiles"))
            .env("HEADHUNT__ADMIN__DIR", dir.join("admin"))
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let mut server = Server { child, address };
        let begun = Instant::now();
        while TcpStream::connect(&server.address).is_err() {
            assert!(server.child.try_wait().unwrap().is_none(), "it ended");
            assert!(begun.elapsed() < PATIENCE, "the server does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        server
    }

    /// As by a power cut of the process.
    fn kill(mut self) -> String {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.address.clone()
    }

    fn admin(&self, args: &[&str]) -> Output {
        admin(&self.address, args)
    }

    /// The JSON that a command prints in its last line.
    fn json(&self, args: &[&str]) -> Value {
        let output = self.admin(&[args, &["--json"]].concat());
        last_json(&output)
    }

    fn fails(&self, args: &[&str]) -> String {
        let output = self.admin(args);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {output:?}");
        String::from_utf8(output.stderr).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn admin(address: &str, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_headhunt"))
        .args(["admin", "--server", &format!("http://{address}")])
        .args(args)
        .output()
        .unwrap()
}

fn last_json(output: &Output) -> Value {
    assert!(output.status.success(), "{output:?}");
    let out = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(out.trim_end().lines().last().unwrap()).unwrap()
}

/// Three short labelled clips and their manifest.
fn footage(dir: &Path) -> PathBuf {
    clip(&dir.join("a.mp4"), 150, (48, 96), 40);
    clip(&dir.join("b.mp4"), 100, (50, 100), 60);
    clip(&dir.join("c.mp4"), 120, (0, 0), 50);
    let manifest = dir.join("clips.csv");
    fs::write(
        &manifest,
        "video,label,start_frame,end_frame\na.mp4,anomaly,48,96\nb.mp4,anomaly,50,100\nc.mp4,normal,,\n",
    )
    .unwrap();
    manifest
}

/// Options of both command lines.
fn options() -> Vec<&'static str> {
    let mut options = vec!["--top-k", "3", "--seed", "7"];
    for prompt in PROMPTS {
        options.extend(["--prompt", prompt]);
    }
    options
}

/// The one profile of this name below a folder, without what differs from run to run.
fn profile(folder: &Path, name: &str) -> Value {
    fn walk(folder: &Path, found: &mut Vec<Value>, name: &str) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found, name);
            } else if let Ok(text) = fs::read_to_string(&path)
                && let Ok(value) = serde_json::from_str::<Value>(&text)
                && value["profile"]["name"] == name
            {
                found.push(value["profile"].clone());
            }
        }
    }
    let mut found = Vec::new();
    walk(folder, &mut found, name);
    // A store keeps the current version twice: for older binaries too.
    found.dedup();
    assert_eq!(found.len(), 1, "{found:?}");
    let mut profile = found.remove(0);
    profile["created_unix_s"] = Value::Null;
    profile
}

#[test]
fn a_job_gives_what_the_command_line_gives_however_often_the_server_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let manifest = footage(dir.path());
    let local = dir.path().join("local");
    fs::create_dir(&local).unwrap();
    let (features, hunted) = (local.join("f.safetensors"), local.join("hunt.json"));
    let with_prompts: Vec<&str> = PROMPTS.iter().flat_map(|p| ["--prompt", p]).collect();
    succeeds(
        &[
            &["extract", "--model", MODEL, "--manifest", text(&manifest)][..],
            &with_prompts,
            &["--out", text(&features)],
        ]
        .concat(),
    );
    succeeds(&[
        "hunt",
        "--features",
        text(&features),
        "--top-k",
        "3",
        "--out",
        text(&hunted),
    ]);
    let yard = local.join("yard.json");
    succeeds(
        &[
            &["calibrate", "--model", MODEL, "--manifest", text(&manifest)][..],
            &options(),
            &["--out", text(&yard)],
        ]
        .concat(),
    );

    let mut server = Server::start(dir.path(), None, 0);
    let calibrate = [
        &["calibrate", "yard", "--manifest", text(&manifest)][..],
        &options(),
        &["--activate", "--no-wait"],
    ]
    .concat();
    let begun = server.json(&calibrate);
    let job = begun["job_id"].as_str().unwrap().to_owned();
    // At moments that differ with the machine's load: before, within and after the passes.
    for millis in [0, 60, 170, 400] {
        std::thread::sleep(Duration::from_millis(millis));
        let address = server.kill();
        server = Server::start(dir.path(), Some(address), 0);
    }
    let end = server.json(&["jobs", "follow", &job]);
    assert_eq!(end["state"], "succeeded", "{end}");
    assert_eq!(
        profile(&dir.path().join("profiles"), "yard"),
        profile(&local, "yard")
    );

    // What the server has is not sent again, and hunting again runs no pass.
    let hunt = [
        &["hunt", "--manifest", text(&manifest)][..],
        &with_prompts,
        &["--top-k", "3"],
    ]
    .concat();
    let end = server.json(&hunt);
    let samples: u64 = 4 + 3 + 3;
    assert_eq!(end["samples_reused"], samples);
    let wanted: Value = serde_json::from_slice(&fs::read(&hunted).unwrap()).unwrap();
    assert_eq!(end["result"], wanted, "the very numbers of `headhunt hunt`");
    let figures = server.json(&["evaluate", "yard", "--manifest", text(&manifest)]);
    assert_eq!(figures["result"]["frames"], 150 + 100 + 120);

    let page = local.join("report.html");
    let out = server.admin(&["jobs", "report", &job, "--out", text(&page)]);
    assert!(out.status.success(), "{out:?}");
    assert!(fs::read_to_string(&page).unwrap().contains("<svg"));
    let listed = server.admin(&["jobs", "list"]);
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert_eq!(listed.lines().count(), 3, "{listed}");

    // A follower outlives the server.
    let address = server.kill();
    let follower = Command::new(env!("CARGO_BIN_EXE_headhunt"))
        .args([
            "admin", "--server", &address, "--json", "jobs", "follow", &job,
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(300));
    let server = Server::start(dir.path(), Some(address), 0);
    let end = last_json(&follower.wait_with_output().unwrap());
    assert_eq!(end["result"]["profile"], "yard");

    // One that is interrupted leaves the job alone, and says how to go on.
    let address = server.kill();
    let mut follower = Command::new(env!("CARGO_BIN_EXE_headhunt"))
        .args(["admin", "--server", &address, "jobs", "follow", &job])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut errors = BufReader::new(follower.stderr.take().unwrap());
    let mut said = String::new();
    errors.read_line(&mut said).unwrap();
    assert!(said.contains("connection was lost"), "{said}");
    Command::new("kill")
        .args(["-INT", &follower.id().to_string()])
        .status()
        .unwrap();
    assert_eq!(follower.wait().unwrap().code(), Some(130));
    errors.read_to_string(&mut said).unwrap();
    assert!(said.contains("jobs cancel"), "{said}");
}

#[test]
fn clips_by_hand_and_what_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    footage(dir.path());
    let server = Server::start(dir.path(), None, 0);
    let a = dir.path().join("a.mp4");
    let upload = [
        "clips",
        "upload",
        text(&a),
        "--label",
        "anomaly",
        "--interval",
        "48:96",
    ];
    let stored = server.json(&upload);
    assert_eq!(stored["name"], "a.mp4");
    assert_eq!(stored["anomalous"], serde_json::json!([[48, 96]]));
    let id = stored["id"].as_str().unwrap();
    assert_eq!(server.json(&upload)["already_stored"], true);
    let shown = server.admin(&["clips", "show", id]);
    assert!(String::from_utf8(shown.stdout).unwrap().contains("48:96"));
    let said = server.fails(&["clips", "upload", text(&a), "--label", "normal"]);
    assert!(said.contains("another label"), "{said}");
    server.json(&["clips", "relabel", id, "--label", "normal"]);
    let said = server.fails(&["hunt", "--clip", id]);
    assert!(said.contains("clip_ids: no clip is anomalous"), "{said}");
    let said = server.fails(&["calibrate", "Yard"]);
    assert!(said.contains("profile:"), "{said}");
    let said = server.fails(&["clips", "import", "/etc/passwd"]);
    assert!(said.contains("admin.import_roots"), "{said}");
    let said = server.fails(&["jobs", "cancel", "none"]);
    assert!(said.contains("no job none"), "{said}");
    let listed = server.admin(&["clips", "list"]);
    assert!(
        String::from_utf8(listed.stdout)
            .unwrap()
            .contains("1 clips;")
    );
    server.json(&["clips", "delete", id]);
    let said = server.fails(&["clips", "show", id]);
    assert!(said.contains("there is no clip"), "{said}");
    let usage = server.admin(&["clips", "upload", text(&a), "--label", "odd"]);
    assert_eq!(usage.status.code(), Some(2));
    drop(server);

    // 4 KiB: the clip does not fit.
    assert!(fs::metadata(&a).unwrap().len() > 4096);
    let server = Server::start(dir.path(), None, 8);
    let said = server.fails(&["clips", "upload", text(&a), "--label", "normal"]);
    assert!(said.contains("disk under admin.dir is full"), "{said}");
    assert!(!said.contains("/admin"), "{said}");
    let left = fs::read_dir(dir.path().join("admin/clips")).unwrap();
    assert_eq!(left.count(), 0);
}

#[test]
fn a_job_that_kills_its_server_or_was_cancelled_is_not_taken_up_again() {
    let dir = tempfile::tempdir().unwrap();
    let manifest = footage(dir.path());
    for (key, value, state) in [
        ("starts", serde_json::json!(8), "failed"),
        ("cancelled", serde_json::json!(true), "cancelled"),
    ] {
        let server = Server::start(dir.path(), None, 0);
        let calibrate = [
            &["calibrate", "yard", "--manifest", text(&manifest)][..],
            &options(),
            &["--no-wait"],
        ]
        .concat();
        let begun = server.json(&calibrate);
        let job = begun["job_id"].as_str().unwrap().to_owned();
        let address = server.kill();
        let record = dir.path().join(format!("admin/jobs/{job}.json"));
        let mut written: serde_json::Value =
            serde_json::from_slice(&fs::read(&record).unwrap()).unwrap();
        assert!(written["ended_unix_ns"].is_null(), "it had ended before");
        written[key] = value;
        fs::write(&record, written.to_string()).unwrap();
        let server = Server::start(dir.path(), Some(address), 0);
        let output = server.admin(&["jobs", "follow", &job, "--json"]);
        let end: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(end["state"], state, "{end}");
        if state == "failed" {
            let why = end["error"].as_str().unwrap();
            assert!(why.contains("ended without a word 8 times"), "{why}");
        }
        server.kill();
    }
}
