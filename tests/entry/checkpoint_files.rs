//! Files of a checkpoint, one of them hostile and the others whole, and other safetensors files. The first
//! byte says what the rest is.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::LazyLock,
};

use headhunt::{
    error::{Error, Result},
    feedback::FeedbackStore,
    hunt::file::read_features,
    model::{
        DeviceSpec, InternVl, LoadOptions, Precision, config::ModelConfig, inspect::inspect,
        prompt::PromptTokenizer, weights::Checkpoint,
    },
};

/// Whole checkpoints, small ones.
pub fn golden(name: &str) -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    // The fuzz targets are a package below this one.
    let root = here
        .ancestors()
        .find(|dir| dir.join("tests/golden").exists());
    root.unwrap().join("tests/golden/checkpoints").join(name)
}

/// Copies of checkpoints in which one file is written over.
static FOLDER: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    for (name, of) in [
        ("config", "tiny6b/orig"),
        ("weights", "tiny6b/orig"),
        ("index", "tinywide/orig"),
        ("whole", "tiny6b/hf"),
        ("parts", "tiny6b/orig"),
    ] {
        let copy = folder.path().join(name);
        fs::create_dir(&copy).unwrap();
        for file in fs::read_dir(golden(of)).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), copy.join(file.file_name())).unwrap();
        }
    }
    folder
});

pub fn run(bytes: &[u8]) -> std::result::Result<(), String> {
    let Some((kind, rest)) = bytes.split_first() else {
        return Err("nothing".into());
    };
    let in_copy = |copy: &str, file: &str, read: fn(&Path) -> Result<()>| {
        let dir = FOLDER.path().join(copy);
        let path = dir.join(file);
        // A file that is mapped may not shrink: the place of the name is taken by a new one.
        let _ = fs::remove_file(&path);
        fs::write(path, rest).unwrap();
        read(&dir)
    };
    let outcome = match kind {
        b'c' => in_copy("config", "config.json", configured),
        b's' => in_copy("weights", "model.safetensors", weights),
        b'h' => header(rest),
        b'i' => in_copy("index", "model.safetensors.index.json", weights),
        b't' => in_copy("whole", "tokenizer.json", prompts),
        b'v' => part("vocab.json", rest),
        b'm' => part("merges.txt", rest),
        b'a' => part("added_tokens.json", rest),
        b'f' => {
            let path = FOLDER.path().join("features.safetensors");
            let _ = fs::remove_file(&path);
            fs::write(&path, rest).unwrap();
            read_features(&path).map(drop)
        }
        b'k' => feedback(rest),
        _ => Err(Error::invalid("no such kind")),
    };
    outcome.map_err(|error| format!("{error:#}"))
}

/// The whole model behind a config.json.
fn configured(dir: &Path) -> Result<()> {
    ModelConfig::load_with_layout(dir)?;
    inspect(dir)?;
    let options = LoadOptions {
        device: DeviceSpec::Cpu,
        precision: Precision::F32,
        threads: 1,
        ..LoadOptions::default()
    };
    InternVl::load(dir, &options).map(drop)
}

/// Everything that is read of weights, short of a model.
fn weights(dir: &Path) -> Result<()> {
    let checkpoint = Checkpoint::open(dir)?;
    for spec in checkpoint.needed(checkpoint.config().text.layers)? {
        checkpoint.finite(&spec)?;
    }
    checkpoint.parameters()?;
    inspect(dir).map(drop)
}

/// The JSON head of a safetensors file, before the data of a whole one.
fn header(json: &[u8]) -> Result<()> {
    static DATA: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let whole = fs::read(golden("tiny6b/orig").join("model.safetensors")).unwrap();
        let head = u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
        whole[8 + head..].to_vec()
    });
    let bytes = [&(json.len() as u64).to_le_bytes(), json, &DATA].concat();
    let dir = FOLDER.path().join("weights");
    let path = dir.join("model.safetensors");
    let _ = fs::remove_file(&path);
    fs::write(path, bytes).unwrap();
    weights(&dir)
}

fn prompts(dir: &Path) -> Result<()> {
    let tokenizer = PromptTokenizer::load(dir)?;
    for text in [
        "Is there an anomaly?",
        "<|im_start|>\u{0}é 1.5\r\n\u{1F600}",
    ] {
        for id in tokenizer.encode(text)? {
            assert!((id as usize) < 1 << 24, "token {id}");
        }
    }
    Ok(())
}

/// One of the three files that a tokenizer may be made of.
fn part(name: &str, bytes: &[u8]) -> Result<()> {
    let dir = FOLDER.path().join("parts");
    let path = dir.join(name);
    fs::write(&path, bytes).unwrap();
    let read = prompts(&dir);
    fs::copy(golden("tiny6b/orig").join(name), path).unwrap();
    read
}

/// A report in a store of verdicts, which passes over what it cannot read; before it a line with the name
/// of its file.
fn feedback(bytes: &[u8]) -> Result<()> {
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(0);
    let (name, bytes) = bytes.split_at(end);
    let is_name = (1..=64).contains(&name.len()) && name.iter().all(u8::is_ascii_hexdigit);
    let name = if is_name {
        String::from_utf8_lossy(name)
    } else {
        "0".into()
    };
    let dir = FOLDER.path().join("feedback");
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir(&dir).unwrap();
    fs::write(
        dir.join(format!("{name}.safetensors")),
        bytes.get(1..).unwrap_or_default(),
    )
    .unwrap();
    let store = FeedbackStore::open(&dir, 100)?;
    if store.is_empty() {
        return Err(Error::data_loss("it has no sample that can be read"));
    }
    Ok(())
}
