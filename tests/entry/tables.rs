//! Text that operators and researchers hand over, and what this program wrote itself and reads again.
//! The first byte says what the rest is.

use std::{
    fs,
    path::{Path, PathBuf},
    str::FromStr as _,
    sync::LazyLock,
    time::SystemTime,
};

use headhunt::{
    access::{self, Book},
    config::{Environment, Overrides, Settings},
    eval::{self, Dataset, counts::FrameCounts, manifest, scores, ucf_crime, xd_violence},
    net::Rule,
    pipeline::scoring::{self, VideoList},
    profile::{Profile, ProfileStore},
    rtsp,
    score::Scorer,
    web,
};

/// Frame counts that annotations, manifests and scores of the corpus are about.
const COUNTS: &str = "video,frames\nAbuse028_x264.mp4,1412\nNormal_Videos_003_x264.mp4,2850\n\
    v=A__#1_label_B1-0-0,240\nw__#0_label_A,100\na.mp4,48\nb.mp4,30\n";

/// The same for annotations that must name every video.
const XD_COUNTS: &str = "v=A__#1_label_B1-0-0,240\nw__#0_label_A,100\n";

/// Between the parts of an input that stands for two files.
const BETWEEN: &[u8] = b"\n====\n";

static FOLDER: LazyLock<tempfile::TempDir> = LazyLock::new(|| tempfile::tempdir().unwrap());

pub fn run(bytes: &[u8]) -> Result<(), String> {
    let Some((kind, rest)) = bytes.split_first() else {
        return Err("nothing".into());
    };
    let text = String::from_utf8_lossy(rest);
    let counts = || FrameCounts::parse(COUNTS).unwrap();
    let refused = |error: headhunt::error::Error| format!("{error:#}");
    match kind {
        b'm' => manifest(&text, &counts()).map_err(refused),
        b'c' => FrameCounts::parse(&text).map(drop).map_err(refused),
        b'u' => ucf_crime::parse(&text, &counts())
            .map(drop)
            .map_err(refused),
        b'x' => FrameCounts::parse(XD_COUNTS)
            .and_then(|counts| xd_violence::parse(&text, &counts))
            .map(drop)
            .map_err(refused),
        b's' => score_file(rest).map_err(refused),
        b'y' => scored_shard(rest).map_err(refused),
        b'p' => profile(rest).map_err(refused),
        b'd' => store(rest).map_err(refused),
        b't' => tokens(rest).map_err(refused),
        b'g' => Settings::from_layers(
            Some((&text, "corpus")),
            &Environment::default(),
            &Overrides::default(),
        )
        .map(drop)
        .map_err(refused),
        b'e' => environment(&text).map_err(refused),
        b'r' => rule(&text),
        b'l' => address(&text).map_err(refused),
        b'n' => name_and_moment(&text),
        _ => Err("no such kind".into()),
    }
}

/// A file of this content, and where it lies.
fn file(name: &str, bytes: &[u8]) -> PathBuf {
    let path = FOLDER.path().join(name);
    fs::write(&path, bytes).unwrap();
    path
}

fn manifest(text: &str, counts: &FrameCounts) -> headhunt::error::Result<()> {
    let rows = manifest::parse(text)?;
    manifest::group(&rows)?;
    VideoList::of_manifest(text, Path::new("/nowhere"))?;
    manifest::dataset(text, counts).map(drop)
}

fn truth() -> Dataset {
    let counts = FrameCounts::parse("a.mp4,48\nb.mp4,30\n").unwrap();
    manifest::dataset("a.mp4,anomaly,3,20\nb.mp4,normal\n", &counts).unwrap()
}

fn score_file(bytes: &[u8]) -> headhunt::error::Result<()> {
    for line in scores::read(bytes) {
        line?.to_line()?;
    }
    eval::evaluate(&truth(), bytes).map(drop)
}

/// One shard of a scoring run: its scores, and what lies beside them.
fn scored_shard(bytes: &[u8]) -> headhunt::error::Result<()> {
    let (lines, meta) = halves(bytes);
    let part = file("part.jsonl", lines);
    file("part.jsonl.meta.json", meta);
    let out = FOLDER.path().join("merged.jsonl");
    for gone in [&out, &FOLDER.path().join("merged.jsonl.meta.json")] {
        let _ = fs::remove_file(gone);
    }
    scoring::merge(&[part], &out).map(drop)
}

fn halves(bytes: &[u8]) -> (&[u8], &[u8]) {
    let at = bytes.windows(BETWEEN.len()).position(|w| w == BETWEEN);
    at.map_or((bytes, &[]), |at| {
        (&bytes[..at], &bytes[at + BETWEEN.len()..])
    })
}

fn profile(bytes: &[u8]) -> headhunt::error::Result<()> {
    let profile = Profile::load(file("profile.json", bytes))?;
    let width = profile.heads.len() * profile.model.head_dim;
    let scorer = Scorer::from(&profile);
    let p = scorer.probability(&vec![0.5; width])?;
    assert!((0.0..=1.0).contains(&p), "p is {p}");
    // What it writes it reads.
    let again = profile.to_text()?;
    assert_eq!(
        Profile::load(file("profile.json", again.as_bytes()))?,
        profile
    );
    Ok(())
}

/// The state file of a profile store, and `cam.json` beside it.
fn store(bytes: &[u8]) -> headhunt::error::Result<()> {
    let (state, cam) = halves(bytes);
    let root = FOLDER.path().join("profiles");
    let _ = fs::remove_dir_all(&root);
    fs::create_dir_all(root.join("store")).unwrap();
    fs::write(root.join("store/state.json"), state).unwrap();
    fs::write(root.join("cam.json"), cam).unwrap();
    ProfileStore::read_only(&root, Some("cam"))?.list();
    let store = ProfileStore::open(&root, Some("cam"))?;
    for (name, version) in store.names() {
        let _ = version.and_then(|version| store.get(&name, &version));
    }
    let _ = store.active().map(|name| store.newest(&name));
    drop(store);
    // What it wrote it reads.
    ProfileStore::open(&root, None).map(drop)
}

fn tokens(bytes: &[u8]) -> headhunt::error::Result<()> {
    let book = Book::parse(bytes)?;
    for token in ["", "abc", "hh_0123456789abcdef"] {
        let _ = book.find(token, SystemTime::UNIX_EPOCH);
    }
    Ok(())
}

/// A variable a line, `NAME=value`.
fn environment(text: &str) -> headhunt::error::Result<()> {
    let variables = text
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
    let environment = Environment::of(variables);
    environment.hub()?;
    Settings::from_layers(None, &environment, &Overrides::default()).map(drop)
}

fn rule(text: &str) -> Result<(), String> {
    let rule = Rule::from_str(text)?;
    rule.could_hold("cam.example.org", 554);
    rule.could_hold("::ffff:10.0.0.1", 0);
    // As it is shown it is read.
    assert_eq!(Rule::from_str(&rule.to_string())?, rule);
    Ok(())
}

/// An address as cameras and web servers have it. What is shown of it names no password.
fn address(text: &str) -> headhunt::error::Result<()> {
    let camera = rtsp::Url::parse(text).map(|url| (url.to_string(), url.host().to_owned()));
    let site = web::Url::parse(text).map(|url| (url.to_string(), url.host().to_owned()));
    let (shown, host) = camera.or(site)?;
    assert!(!host.is_empty() && shown.contains(&host), "{shown}");
    // A path is shown.
    let after = text.split_once("://").map_or(text, |(_, after)| after);
    let path = after.split_once('/').map_or("", |(_, path)| path);
    let path = path.split('?').next().unwrap_or_default();
    assert!(
        path.contains("hunter2") || host.contains("hunter2") || !shown.contains("hunter2"),
        "{shown}"
    );
    Ok(())
}

fn name_and_moment(text: &str) -> Result<(), String> {
    let (name, moment) = text.split_once('\n').unwrap_or((text, ""));
    access::check_name(name)?;
    headhunt::profile::check_name(name).map_err(|error| error.to_string())?;
    access::moment(moment).map(drop)
}
