//! Hub ids, against a hub that this test runs on the loopback interface.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    sync::{Arc, Mutex},
};

use headhunt::{
    error::Kind,
    model::{
        hub::{HubOptions, resolve},
        inspect::inspect,
        synthesize::{Dtype, Layout, Preset, Synthesis},
    },
};
use sha2::{Digest, Sha256};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What the hub does wrong.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    None,
    /// Sends a file whose size is not the announced one.
    ShortFile,
    /// Names a blob that lies outside the cache.
    Etag,
    /// Asks for a token.
    Gated,
}

struct Hub {
    url: String,
    requests: Arc<Mutex<Vec<String>>>,
}

/// Serves `files` as the model `acme/tiny`, one request per connection.
fn hub(files: BTreeMap<String, Vec<u8>>, fault: Fault) -> Hub {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let requests = Arc::new(Mutex::new(vec![]));
    let log = requests.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = answer(stream.unwrap(), &files, fault, &log);
        }
    });
    Hub { url, requests }
}

fn answer(
    mut stream: TcpStream,
    files: &BTreeMap<String, Vec<u8>>,
    fault: Fault,
    log: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut from = 0;
    let mut to = None;
    let mut authorised = false;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        let header = header.trim().to_ascii_lowercase();
        if header.is_empty() {
            break;
        }
        if let Some(range) = header.strip_prefix("range: bytes=") {
            let (a, b) = range.split_once('-').unwrap();
            from = a.parse().unwrap();
            to = b.parse::<usize>().ok();
        }
        authorised |= header == "authorization: bearer secret";
    }
    log.lock().unwrap().push(path.clone());
    let mut send = |status: &str, headers: &str, body: &[u8]| {
        write!(
            stream,
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n{headers}\r\n",
            body.len()
        )?;
        stream.write_all(body)
    };
    if fault == Fault::Gated && !authorised {
        return send("401 Unauthorized", "", b"");
    }
    if path == "/api/models/acme/tiny/revision/main" {
        let siblings: Vec<_> = files
            .keys()
            .map(|name| serde_json::json!({ "rfilename": name }))
            .collect();
        let body = serde_json::json!({ "sha": COMMIT, "siblings": siblings }).to_string();
        return send(
            "200 OK",
            "Content-Type: application/json\r\n",
            body.as_bytes(),
        );
    }
    let prefix = format!("/acme/tiny/resolve/{COMMIT}/");
    let Some((_, body)) = path
        .strip_prefix(&prefix)
        .and_then(|name| files.get_key_value(name))
    else {
        return send("404 Not Found", "", b"");
    };
    let total = body.len();
    if from >= total {
        return send("416 Range Not Satisfiable", "", b"");
    }
    let mut end = to.map_or(total, |to| (to + 1).min(total));
    if fault == Fault::ShortFile && to.is_none() {
        end -= 1;
    }
    let etag = match fault {
        Fault::Etag => "../../../stolen".to_owned(),
        _ => format!("{:x}", Sha256::digest(body)),
    };
    let headers = format!(
        "ETag: \"{etag}\"\r\nX-Repo-Commit: {COMMIT}\r\nContent-Range: bytes {from}-{}/{total}\r\n",
        end - 1
    );
    send("206 Partial Content", &headers, &body[from..end])
}

/// A sharded tiny checkpoint, and files that nobody needs.
fn checkpoint() -> BTreeMap<String, Vec<u8>> {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("m");
    Synthesis {
        preset: Preset::Tiny,
        seed: 0,
        layout: Layout::Hf,
        dtype: Dtype::Bf16,
        shard_max_bytes: 500_000,
        progress: &mut |_, _| {},
    }
    .write(&out)
    .unwrap();
    let mut files: BTreeMap<String, Vec<u8>> = fs::read_dir(&out)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, fs::read(path).unwrap())
        })
        .collect();
    files.insert("README.md".into(), b"# tiny".to_vec());
    files.insert("pytorch_model.bin".into(), vec![0; 1000]);
    files.insert("onnx/model.onnx".into(), vec![0; 1000]);
    files
}

fn options(hub: &Hub, cache: &Path) -> HubOptions {
    HubOptions {
        endpoint: Some(hub.url.clone()),
        cache_dir: Some(cache.to_path_buf()),
        ..HubOptions::default()
    }
}

#[test]
fn a_hub_id_is_fetched_once_with_only_the_needed_files() {
    let cache = tempfile::tempdir().unwrap();
    let hub = hub(checkpoint(), Fault::None);
    let options = options(&hub, cache.path());
    let dir = resolve("acme/tiny", &options).unwrap();
    assert!(dir.starts_with(cache.path()) && dir.ends_with(COMMIT));
    let found = inspect(&dir).unwrap();
    assert_eq!(found.refused, Vec::<String>::new());
    assert!(found.weights.unwrap().files.len() > 1);
    let requests = hub.requests.lock().unwrap().clone();
    let fetched = |name: &str| requests.iter().any(|path| path.ends_with(name));
    assert!(fetched("tokenizer.json"));
    assert!(!fetched("README.md") && !fetched(".bin") && !fetched(".onnx"));

    // Again: only the list of files is asked for.
    assert_eq!(resolve("acme/tiny@main", &options).unwrap(), dir);
    assert_eq!(hub.requests.lock().unwrap().len(), requests.len() + 1);
    // Offline: nothing.
    let offline = HubOptions {
        offline: true,
        ..options.clone()
    };
    assert_eq!(resolve("acme/tiny", &offline).unwrap(), dir);
    assert_eq!(hub.requests.lock().unwrap().len(), requests.len() + 1);
    // The hub is gone: the cached copy serves.
    let gone = HubOptions {
        endpoint: Some("http://127.0.0.1:1".into()),
        ..options
    };
    assert_eq!(resolve("acme/tiny", &gone).unwrap(), dir);
    // So it does where the hub has other words for it, as for a token that has expired.
    for fault in [Fault::Gated, Fault::None] {
        let files = match fault {
            Fault::None => BTreeMap::new(),
            _ => checkpoint(),
        };
        let refusing = crate::hub(files, fault);
        let options = crate::options(&refusing, cache.path());
        assert_eq!(resolve("acme/tiny", &options).unwrap(), dir);
    }
}

#[test]
fn what_the_cache_has_is_not_fetched_again_and_what_a_crash_left_is() {
    let cache = tempfile::tempdir().unwrap();
    let hub = hub(checkpoint(), Fault::None);
    let options = options(&hub, cache.path());
    let dir = resolve("acme/tiny", &options).unwrap();
    let whole = |name: &str| assert_eq!(fs::read(dir.join(name)).unwrap(), checkpoint()[name]);
    let weights = checkpoint().into_keys();
    let weights = weights.filter(|name| name.ends_with(".safetensors"));
    let weights: Vec<String> = weights.collect();

    // A later commit with the same files: their blobs are there, under their etags.
    let model = dir.ancestors().nth(2).unwrap();
    fs::remove_dir_all(model.join("snapshots")).unwrap();
    let before = hub.requests.lock().unwrap().len();
    assert_eq!(resolve("acme/tiny", &options).unwrap(), dir);
    for name in &weights {
        let requests = hub.requests.lock().unwrap();
        let of_it = requests[before..]
            .iter()
            .filter(|path| path.ends_with(name));
        assert_eq!(of_it.count(), 1, "{name}: what it is, and not the file");
        drop(requests);
        whole(name);
        let link = fs::read_link(dir.join(name)).unwrap();
        assert!(link.is_relative(), "a cache may be moved: {link:?}");
    }

    // A file that lost its content, and a download that was all but done.
    let of = |name: &str| fs::canonicalize(dir.join(name)).unwrap();
    fs::write(of("config.json"), b"").unwrap();
    let blob = of(&weights[0]);
    fs::remove_file(dir.join(&weights[0])).unwrap();
    fs::rename(&blob, blob.with_extension("part")).unwrap();
    assert_eq!(resolve("acme/tiny", &options).unwrap(), dir);
    whole("config.json");
    whole(&weights[0]);
}

#[test]
fn a_single_file_checkpoint_needs_no_index() {
    let cache = tempfile::tempdir().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("m");
    headhunt::model::synthesize::synthesize(Preset::Tiny, 0, Layout::Original, Dtype::F32, &out)
        .unwrap();
    let files = fs::read_dir(&out)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, fs::read(path).unwrap())
        })
        .collect();
    let hub = hub(files, Fault::None);
    let dir = resolve("acme/tiny", &options(&hub, cache.path())).unwrap();
    assert_eq!(inspect(&dir).unwrap().refused, Vec::<String>::new());
}

#[test]
fn what_goes_wrong_is_named() {
    let cache = tempfile::tempdir().unwrap();
    let kind = |model: &str, options: &HubOptions| {
        let error = resolve(model, options).unwrap_err();
        assert!(
            error.message().contains(model.split('@').next().unwrap()),
            "{error}"
        );
        (error.kind(), error.message().to_owned())
    };
    let good = hub(checkpoint(), Fault::None);
    let options_good = options(&good, cache.path());
    let (k, text) = kind("acme/unknown", &options_good);
    assert_eq!(k, Kind::NotFound, "{text}");
    assert!(text.contains("404"), "{text}");
    assert_eq!(kind("acme/tiny@nobranch", &options_good).0, Kind::NotFound);
    assert_eq!(kind("no/such/directory", &options_good).0, Kind::NotFound);

    let unreachable = HubOptions {
        endpoint: Some("http://127.0.0.1:1".into()),
        ..options_good.clone()
    };
    let (k, text) = kind("acme/tiny", &unreachable);
    assert_eq!(k, Kind::Unavailable);
    assert!(text.contains("HF_ENDPOINT"), "{text}");
    let offline = HubOptions {
        offline: true,
        ..options_good
    };
    assert_eq!(kind("acme/tiny", &offline).0, Kind::NotFound);

    let mut files = checkpoint();
    files.remove("model-00002-of-00003.safetensors").unwrap();
    let incomplete = hub(files, Fault::None);
    let (k, text) = kind("acme/tiny", &options(&incomplete, cache.path()));
    assert_eq!(k, Kind::NotFound);
    assert!(text.contains("model-00002-of-00003.safetensors"), "{text}");
    // What was fetched is no complete copy.
    assert_eq!(kind("acme/tiny", &offline).0, Kind::NotFound);

    let gated = hub(checkpoint(), Fault::Gated);
    let mut with = options(&gated, cache.path());
    assert_eq!(kind("acme/tiny", &with).0, Kind::Unauthenticated);
    with.token = Some("secret".into());
    resolve("acme/tiny", &with).unwrap();
}

#[test]
fn a_lying_hub_gets_nothing_into_the_cache() {
    let cache = tempfile::tempdir().unwrap();
    let short = hub(checkpoint(), Fault::ShortFile);
    let error = resolve("acme/tiny", &options(&short, cache.path())).unwrap_err();
    assert_eq!(error.kind(), Kind::DataLoss, "{error}");
    assert!(error.message().contains("bytes"), "{error}");
    let outside = hub(checkpoint(), Fault::Etag);
    let error = resolve("acme/tiny", &options(&outside, cache.path())).unwrap_err();
    assert_eq!(error.kind(), Kind::DataLoss, "{error}");
    // The honest hub then fills the same cache.
    let good = hub(checkpoint(), Fault::None);
    let dir = resolve("acme/tiny", &options(&good, cache.path())).unwrap();
    assert!(inspect(&dir).unwrap().refused.is_empty());
}
