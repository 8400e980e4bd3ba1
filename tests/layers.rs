//! The house's order, read from the source: which room may use which, and which crate belongs to
//! one room alone. See ARCHITECTURE.md.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test may

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Words that every room may use.
const SHARED: [&str; 8] = [
    "clock",
    "error",
    "files",
    "limits",
    "media",
    "head",
    "intervals",
    "places",
];

/// For each room, the other rooms it may use.
fn allowed() -> BTreeMap<&'static str, &'static [&'static str]> {
    BTreeMap::from([
        ("clock", &[][..]),
        ("error", &[]),
        ("files", &[]),
        ("limits", &[]),
        ("media", &[]),
        ("head", &[]),
        ("intervals", &[]),
        ("places", &[]),
        ("memory", &[]),
        ("telemetry", &[]),
        ("config", &["engine", "net", "video"]),
        ("net", &[]),
        ("access", &["net", "telemetry"]),
        ("rtsp", &["net", "telemetry"]),
        ("web", &["net"]),
        ("video", &["rtsp", "telemetry"]),
        ("segment", &[]),
        ("engine", &["telemetry"]),
        ("model", &["engine", "telemetry"]),
        ("score", &["profile"]),
        ("profile", &["segment", "engine"]),
        ("hunt", &["score", "profile", "eval"]),
        ("eval", &[]),
        ("report", &["eval"]),
        ("feedback", &["profile", "segment", "score", "telemetry"]),
        (
            "pipeline",
            &[
                "feedback",
                "video",
                "segment",
                "model",
                "engine",
                "score",
                "profile",
                "hunt",
                "eval",
                "report",
                "telemetry",
            ],
        ),
        ("library", &["engine", "eval", "score", "segment"]),
        (
            "jobs",
            &[
                "library",
                "pipeline",
                "model",
                "engine",
                "feedback",
                "hunt",
                "profile",
                "score",
                "segment",
                "telemetry",
            ],
        ),
        (
            "rpc",
            &[
                "access",
                "jobs",
                "library",
                "pipeline",
                "feedback",
                "config",
                "telemetry",
                "engine",
                "profile",
                "score",
                "video",
                "net",
                "rtsp",
                "web",
                "segment",
            ],
        ),
        (
            "cli",
            &[
                "access",
                "config",
                "feedback",
                "memory",
                "telemetry",
                "video",
                "segment",
                "model",
                "engine",
                "score",
                "profile",
                "hunt",
                "eval",
                "library",
                "pipeline",
                "rpc",
                "net",
                "rtsp",
                "web",
            ],
        ),
        ("lib", &[]),
        ("main", &["cli"]),
    ])
}

/// Crates that one room alone, or one module of it, may name.
const OWNED_CRATES: [(&str, &[&str]); 22] = [
    ("gstreamer", &["video"]),
    ("gstreamer_app", &["video"]),
    ("gstreamer_video", &["video"]),
    ("gstreamer_rtsp_server", &["video"]),
    ("rtsp_types", &["rtsp"]),
    ("sdp_types", &["rtsp"]),
    ("http_auth", &["rtsp", "web"]),
    ("tokio_rustls", &["net"]),
    ("url", &["net", "rtsp"]),
    ("rustls", &["net"]),
    ("ipnet", &["net"]),
    ("subtle", &["access"]),
    ("tower", &["rpc"]),
    ("rustls_native_certs", &["net"]),
    ("candle_core", &["model"]),
    ("candle_nn", &["model"]),
    ("hyper", &["web", "telemetry"]),
    ("jpeg_encoder", &["pipeline"]),
    ("libc", &["memory", "video"]),
    ("seccompiler", &["video"]),
    // Of telemetry the client alone that hands traces over.
    ("tonic", &["rpc", "cli", "telemetry/traces"]),
    ("opentelemetry_proto", &["telemetry/traces"]),
];

fn rust_files(dir: &Path, out: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, out);
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push(path);
        }
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Every source file with its room and its code, comments removed.
fn sources() -> Vec<(PathBuf, String, String)> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    rust_files(&src, &mut files);
    assert!(files.len() > 20, "the source was not found");
    files
        .into_iter()
        .map(|path| {
            let relative = path.strip_prefix(&src).unwrap();
            let first = relative
                .components()
                .next()
                .unwrap()
                .as_os_str()
                .to_str()
                .unwrap();
            let room = first.trim_end_matches(".rs").to_owned();
            let code = fs::read_to_string(&path)
                .unwrap()
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"))
                .collect::<Vec<_>>()
                .join("\n");
            (relative.to_owned(), room, code)
        })
        .collect()
}

/// Rooms named as `crate::room`, also inside `use crate::{…}`.
fn rooms_used(code: &str) -> BTreeSet<String> {
    let mut used = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        if at > 0 && is_word(code.as_bytes()[at - 1]) {
            continue;
        }
        let rest = &code[at + "crate::".len()..];
        if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 1;
            let mut name = String::new();
            let mut fresh = true;
            for c in group.chars() {
                match c {
                    '{' => depth += 1,
                    '}' => depth -= 1,
                    _ => {}
                }
                if depth == 0 {
                    break;
                }
                if depth == 1 && c == ',' {
                    fresh = true;
                } else if fresh && (c.is_ascii_alphanumeric() || c == '_') {
                    name.push(c);
                    continue;
                } else if c.is_whitespace() && name.is_empty() {
                    continue;
                } else {
                    fresh = false;
                }
                if !name.is_empty() {
                    used.insert(std::mem::take(&mut name));
                    fresh = c == ',';
                }
            }
            if !name.is_empty() {
                used.insert(name);
            }
        } else {
            let name: String = rest
                .chars()
                .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
                .collect();
            used.insert(name);
        }
    }
    used.retain(|name| name.chars().next().is_some_and(char::is_lowercase));
    used
}

#[test]
fn rooms_use_their_neighbours_only() {
    let allowed = allowed();
    let mut wrong = Vec::new();
    for (file, room, code) in sources() {
        let Some(neighbours) = allowed.get(room.as_str()) else {
            wrong.push(format!("{}: unknown room `{room}`", file.display()));
            continue;
        };
        for used in rooms_used(&code) {
            let is_room = allowed.contains_key(used.as_str());
            if is_room
                && used != room
                && !SHARED.contains(&used.as_str())
                && !neighbours.contains(&used.as_str())
            {
                wrong.push(format!("{}: `{room}` may not use `{used}`", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn owned_crates_stay_in_their_room() {
    let mut wrong = Vec::new();
    for (file, room, code) in sources() {
        for (name, owners) in OWNED_CRATES {
            let named = code.match_indices(name).any(|(at, _)| {
                let before = at == 0 || !is_word(code.as_bytes()[at - 1]);
                before && code[at + name.len()..].starts_with("::")
            });
            let is_owner = |owner: &&str| room == **owner || file.starts_with(owner);
            if named && !owners.iter().any(is_owner) {
                wrong.push(format!(
                    "{}: `{name}` belongs to {owners:?}",
                    file.display()
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_pure_rooms_stay_pure() {
    let mut wrong = Vec::new();
    for (file, room, code) in sources() {
        if ["segment", "score", "report"].contains(&room.as_str()) {
            for word in [
                "async ",
                "tokio",
                "std::fs",
                "std::net",
                "std::env",
                "SystemTime",
            ] {
                if code.contains(word) {
                    wrong.push(format!("{}: `{word}` in a pure room", file.display()));
                }
            }
        }
        if !["config", "cli"].contains(&room.as_str()) && code.contains("env::var") {
            wrong.push(format!(
                "{}: only `config` reads the environment",
                file.display()
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_reader_of_imports_sees_groups_and_paths() {
    let code = "use crate::{\n error::{Error, Result},\n media::Frame, score,\n};\nlet x = crate::eval::auc();";
    let found: Vec<_> = rooms_used(code).into_iter().collect();
    assert_eq!(found, ["error", "eval", "media", "score"]);
}
