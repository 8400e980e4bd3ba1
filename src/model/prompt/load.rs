//! A checkpoint's tokenizer from either set of files.

use std::{
    collections::HashMap,
    fs::File,
    io::{ErrorKind, Read},
    path::Path,
};

use serde::Deserialize;
use serde_json::{Value, json};
use tokenizers::Tokenizer;

use crate::{
    error::{Error, Kind, Result, ResultExt},
    limits::TOKENIZER_FILE_MAX_BYTES,
};

/// How Qwen2 cuts text into words before byte-pair merging: contractions, words with at most one
/// leading mark, single digits, runs of marks, line ends, spaces.
const QWEN2_SPLIT: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

const WHOLE: &str = "tokenizer.json";
const PARTS: [&str; 3] = ["vocab.json", "merges.txt", "added_tokens.json"];

/// From `tokenizer.json` if there is one, else from its parts.
pub(super) fn tokenizer(dir: &Path) -> Result<Tokenizer> {
    let mut tokenizer = match read(dir, WHOLE)? {
        Some(bytes) => parse(&bytes).map_err(|e| e.context(dir.join(WHOLE).display()))?,
        None => parse(&from_parts(dir)?)
            .map_err(|e| e.context(format!("{} in {}", PARTS.join(" + "), dir.display())))?,
    };
    // A tokenizer's file may ask to cut or fill up every text; a prompt must be neither.
    tokenizer.with_padding(None);
    tokenizer
        .with_truncation(None)
        .or_kind(Kind::Internal, || "cannot lift truncation".to_owned())?;
    Ok(tokenizer)
}

/// What is checked of a `tokenizer.json` before the library reads it: a merge without its token
/// makes the library panic, and a token whose id is not its own only makes it warn.
#[derive(Deserialize)]
struct Checked {
    #[serde(default)]
    added_tokens: Vec<Added>,
    model: CheckedModel,
    /// Read to the last escape: the library panics at what it cannot read of these.
    #[serde(default, rename = "decoder")]
    _decoder: Value,
    #[serde(default, rename = "normalizer")]
    _normalizer: Value,
    #[serde(default, rename = "pre_tokenizer")]
    _pre_tokenizer: Value,
    #[serde(default, rename = "post_processor")]
    _post_processor: Value,
}

#[derive(Deserialize)]
struct Added {
    id: u32,
    content: String,
}

#[derive(Deserialize)]
struct CheckedModel {
    vocab: HashMap<String, u32>,
    merges: Vec<Merge>,
}

/// Newer files have pairs, older ones text with a space between.
#[derive(Deserialize)]
#[serde(untagged)]
enum Merge {
    Pair(String, String),
    Text(String),
}

fn parse(json: &[u8]) -> Result<Tokenizer> {
    let not_one = || "this is not a byte-pair tokenizer".to_owned();
    let checked: Checked = serde_json::from_slice(json).or_kind(Kind::DataLoss, not_one)?;
    let vocab = &checked.model.vocab;
    for (number, merge) in checked.model.merges.iter().enumerate() {
        let pair = match merge {
            Merge::Pair(a, b) => Some((a.as_str(), b.as_str())),
            Merge::Text(text) => text.split_once(' '),
        };
        let known = pair.is_some_and(|(a, b)| {
            vocab.contains_key(a) && vocab.contains_key(b) && vocab.contains_key(&[a, b].concat())
        });
        if !known {
            return Err(Error::data_loss(format!(
                "merge {} does not join two tokens of the vocabulary into a third; the files are \
                 damaged or do not belong together",
                number + 1
            )));
        }
    }

    let tokenizer = Tokenizer::from_bytes(json).or_kind(Kind::DataLoss, not_one)?;
    for Added { id, content } in &checked.added_tokens {
        if tokenizer.token_to_id(content) != Some(*id) {
            return Err(Error::data_loss(format!(
                "the added token {content} has the id {id}, but the {} tokens of the vocabulary \
                 and the other added tokens leave it {:?}; the files do not belong together",
                vocab.len(),
                tokenizer.token_to_id(content)
            )));
        }
    }
    Ok(tokenizer)
}

/// The `tokenizer.json` that belongs to the parts: byte-level BPE with Qwen2's rules, which the
/// parts do not carry themselves.
fn from_parts(dir: &Path) -> Result<Vec<u8>> {
    let [vocab, merges, added] = PARTS.map(|name| read(dir, name));
    let (Some(vocab), Some(merges), Some(added)) = (&vocab?, &merges?, &added?) else {
        let missing: Vec<&str> = PARTS
            .into_iter()
            .filter(|name| !dir.join(name).exists())
            .collect();
        return Err(Error::not_found(format!(
            "{} has no tokenizer: it needs {WHOLE}, or {}; of these, {} is missing",
            dir.display(),
            PARTS.join(" + "),
            missing.join(", ")
        )));
    };
    let [vocab_path, merges_path, added_path] = PARTS.map(|name| dir.join(name));
    let not_ids = |path: &Path| format!("{} is not a JSON object of token ids", path.display());
    let vocab: HashMap<String, u32> =
        serde_json::from_slice(vocab).or_kind(Kind::DataLoss, || not_ids(&vocab_path))?;
    let added: HashMap<String, u32> =
        serde_json::from_slice(added).or_kind(Kind::DataLoss, || not_ids(&added_path))?;
    let merges = parse_merges(&merges_path, merges)?;

    let mut added: Vec<(&String, &u32)> = added.iter().collect();
    added.sort_by_key(|(_, id)| **id);
    let added: Vec<Value> = added
        .into_iter()
        .map(|(content, id)| {
            json!({"id": id, "content": content, "single_word": false, "lstrip": false,
                   "rstrip": false, "normalized": false, "special": true})
        })
        .collect();
    let whole = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": QWEN2_SPLIT}, "behavior": "Isolated",
             "invert": false},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false,
             "use_regex": false},
        ]},
        "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false,
                    "use_regex": false},
        "model": {"type": "BPE", "dropout": null, "unk_token": null,
                  "continuing_subword_prefix": null, "end_of_word_suffix": null,
                  "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
                  "vocab": vocab, "merges": merges},
    });
    serde_json::to_vec(&whole).or_kind(Kind::Internal, || "cannot write JSON".to_owned())
}

/// One merge a line, two tokens with a space between; a `#version` line may come first.
fn parse_merges<'a>(path: &Path, text: &'a [u8]) -> Result<Vec<(&'a str, &'a str)>> {
    let text = std::str::from_utf8(text).or_kind(Kind::DataLoss, || {
        format!("{} is not UTF-8", path.display())
    })?;
    text.lines()
        .enumerate()
        .filter(|(_, line)| !line.is_empty() && !line.starts_with("#version"))
        .map(|(number, line)| match line.split_once(' ') {
            Some((a, b)) if !a.is_empty() && !b.is_empty() && !b.contains(' ') => Ok((a, b)),
            _ => Err(Error::data_loss(format!(
                "line {} of {} is not a merge of two tokens",
                number + 1,
                path.display()
            ))),
        })
        .collect()
}

/// The whole file, or `None` where it does not exist.
fn read(dir: &Path, name: &str) -> Result<Option<Vec<u8>>> {
    let path = dir.join(name);
    let unreadable = || format!("cannot read {}", path.display());
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::precondition(unreadable()).with_source(e)),
    };
    let mut bytes = Vec::new();
    file.take(TOKENIZER_FILE_MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .or_kind(Kind::DataLoss, unreadable)?;
    if bytes.len() as u64 > TOKENIZER_FILE_MAX_BYTES {
        return Err(Error::exhausted(format!(
            "{} is larger than {TOKENIZER_FILE_MAX_BYTES} bytes; a tokenizer's file is a few \
             megabytes",
            path.display()
        )));
    }
    Ok(Some(bytes))
}
