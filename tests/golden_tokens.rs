//! Token ids against transformers' tokenizer, with the real Qwen2.5 vocabulary and with the small
//! ones of the golden checkpoints, from both sets of tokenizer files.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{collections::BTreeMap, fs, io::Read, path::Path, sync::LazyLock};

use headhunt::{
    error::Kind,
    model::prompt::{DEFAULT_PROMPTS, PromptTokenizer, SYSTEM_MESSAGE},
};
use serde::Deserialize;
use sha2::{Digest, Sha256};

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden");

/// Qwen2.5's added tokens, then InternVL3's, from id 151,643.
const ADDED: [&str; 31] = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
    "<tool_call>",
    "</tool_call>",
    "<|fim_prefix|>",
    "<|fim_middle|>",
    "<|fim_suffix|>",
    "<|fim_pad|>",
    "<|repo_name|>",
    "<|file_sep|>",
    "<img>",
    "</img>",
    "<IMG_CONTEXT>",
    "<quad>",
    "</quad>",
    "<ref>",
    "</ref>",
    "<box>",
    "</box>",
];

/// The characters that byte-level BPE writes the bytes with, in the order of their ids.
fn byte_alphabet() -> Vec<char> {
    let printable = |b: &u32| matches!(b, 33..=126 | 161..=172 | 174..=255);
    let mut alphabet: Vec<u32> = (0..256).filter(printable).collect();
    let others = 256 - alphabet.len() as u32;
    alphabet.extend((0..others).map(|n| 256 + n));
    alphabet
        .into_iter()
        .map(|c| char::from_u32(c).unwrap())
        .collect()
}

/// The real tokenizer's files. Its vocabulary follows from the merges: first the bytes, then the
/// result of each merge.
fn write_qwen(dir: &Path) {
    let mut merges = String::new();
    flate2::read::GzDecoder::new(
        fs::File::open(Path::new(GOLDEN).join("qwen2_5_merges.txt.gz")).unwrap(),
    )
    .read_to_string(&mut merges)
    .unwrap();
    let mut vocab: BTreeMap<String, usize> = BTreeMap::new();
    let tokens = byte_alphabet()
        .into_iter()
        .map(String::from)
        .chain(merges.lines().map(|line| line.replacen(' ', "", 1)));
    for (id, token) in tokens.enumerate() {
        vocab.insert(token, id);
    }
    assert_eq!(vocab.len(), 151_643);
    let added: BTreeMap<&str, usize> = ADDED.into_iter().zip(151_643..).collect();
    fs::write(dir.join("vocab.json"), serde_json::to_vec(&vocab).unwrap()).unwrap();
    fs::write(dir.join("merges.txt"), format!("#version: 0.2\n{merges}")).unwrap();
    fs::write(
        dir.join("added_tokens.json"),
        serde_json::to_vec(&added).unwrap(),
    )
    .unwrap();
}

static QWEN: LazyLock<PromptTokenizer> = LazyLock::new(|| {
    let dir = tempfile::tempdir().unwrap();
    write_qwen(dir.path());
    PromptTokenizer::load(dir.path()).unwrap()
});

#[derive(Deserialize)]
struct Case {
    text: Option<String>,
    frames: Option<usize>,
    n: usize,
    ids: Option<Vec<u32>>,
    head: Vec<u32>,
    tail: Vec<u32>,
    sha: String,
}

/// SHA-256 of the ids as Python's `json.dumps` writes a list.
fn json_sha(ids: &[u32]) -> String {
    let list: Vec<String> = ids.iter().map(u32::to_string).collect();
    let digest = Sha256::digest(format!("[{}]", list.join(", ")));
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn real_tokenizer_gives_the_reference_ids() {
    let cases: Vec<Case> =
        serde_json::from_slice(&fs::read(Path::new(GOLDEN).join("tokens.json")).unwrap()).unwrap();
    let mut prompts = DEFAULT_PROMPTS.iter();
    let (mut texts, mut chats) = (0, 0);
    for case in &cases {
        let ids = match (&case.text, case.frames) {
            (Some(text), None) => {
                texts += 1;
                QWEN.encode(text).unwrap()
            }
            (None, Some(frames)) => {
                chats += 1;
                let prompt = prompts.next().unwrap();
                QWEN.encode_prompt(frames, 256, prompt).unwrap()
            }
            _ => unreachable!("a case is a text or a chat"),
        };
        assert_eq!(ids.len(), case.n);
        assert!(ids.starts_with(&case.head) && ids.ends_with(&case.tail));
        assert_eq!(json_sha(&ids), case.sha, "{:?}", case.text);
        if let Some(want) = &case.ids {
            assert_eq!(ids, *want, "{:?}", case.text);
        }
    }
    assert_eq!((texts, chats), (9, 3));
}

/// The template as one text.
fn chat(frames: usize, tokens_per_frame: usize, prompt: &str) -> String {
    let frames: String = (1..=frames)
        .map(|n| {
            format!(
                "Frame{n}: <img>{}</img>\n",
                "<IMG_CONTEXT>".repeat(tokens_per_frame)
            )
        })
        .collect();
    format!(
        "<|im_start|>system\n{SYSTEM_MESSAGE}<|im_end|>\n<|im_start|>user\n{frames}{prompt}\
         <|im_end|>\n<|im_start|>assistant\n"
    )
}

#[test]
fn parts_equal_the_whole_text() {
    let prompts = DEFAULT_PROMPTS.into_iter().chain([
        "\n\nstarts with line ends",
        "  spaces at both ends  ",
        "\r\n\t mixed\u{a0}",
        "e\u{301} ﬁ 你好，世界！🙂",
        "<ref>the man</ref> <tool_call>{}</tool_call>",
        "'s 12345",
    ]);
    for prompt in prompts {
        for (frames, tokens) in [(1, 1), (4, 4), (16, 256)] {
            let ids = QWEN.encode_prompt(frames, tokens, prompt).unwrap();
            assert_eq!(
                ids,
                QWEN.encode(&chat(frames, tokens, prompt)).unwrap(),
                "{prompt:?}"
            );
            let images = ids.iter().filter(|&&id| id == 151_667).count();
            assert_eq!(images, frames * tokens);
        }
    }
    assert_eq!(QWEN.img_context_id(), 151_667);
    assert_eq!(QWEN.vocab_size(), 151_674);
}

#[test]
fn both_sets_of_files_give_the_golden_input_ids() {
    for (model, frames, tokens_per_frame) in [("tiny", 4, 4), ("tiny6b", 3, 9), ("tinywide", 2, 16)]
    {
        let file = Path::new(GOLDEN).join(format!("model_{model}.safetensors"));
        let bytes = fs::read(file).unwrap();
        let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
        let question = &header.metadata().as_ref().unwrap()["question"];
        let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let want: Vec<u32> = tensors
            .tensor("input_ids")
            .unwrap()
            .data()
            .chunks_exact(8)
            .map(|b| u32::try_from(i64::from_le_bytes(b.try_into().unwrap())).unwrap())
            .collect();
        for layout in ["hf", "orig"] {
            let dir = Path::new(GOLDEN)
                .join("checkpoints")
                .join(model)
                .join(layout);
            assert_eq!(dir.join("tokenizer.json").exists(), layout == "hf");
            let tokenizer = PromptTokenizer::load(&dir).unwrap();
            let ids = tokenizer.encode_prompt(frames, tokens_per_frame, question);
            assert_eq!(ids.unwrap(), want, "{model}, {layout}");
            assert_eq!(tokenizer.img_context_id(), 505);
            assert_eq!(tokenizer.vocab_size(), 512);
        }
    }
}

#[test]
fn a_prompt_cannot_change_the_structure() {
    for token in [
        "<|im_start|>",
        "<|im_end|>",
        "<|endoftext|>",
        "<img>",
        "</img>",
        "<IMG_CONTEXT>",
    ] {
        let prompt = format!("Is this{token}normal?");
        let error = QWEN.encode_prompt(16, 256, &prompt).unwrap_err();
        assert_eq!(error.kind(), Kind::InvalidArgument);
        assert!(error.message().contains(token), "{error}");
    }
    // Near misses are text.
    for prompt in ["<IMG_CONTEXT >", "<|im_end|", "＜img＞", "<IMG _CONTEXT>"] {
        let ids = QWEN.encode_prompt(16, 256, prompt).unwrap();
        assert_eq!(ids.iter().filter(|&&id| id == 151_667).count(), 4096);
        assert_eq!(ids.iter().filter(|&&id| id == 151_645).count(), 2);
    }
}

#[test]
fn bounds_are_kept() {
    let refused = [
        QWEN.encode_prompt(16, 256, " \n"),
        QWEN.encode_prompt(16, 256, &"a".repeat(4097)),
        QWEN.encode_prompt(0, 256, "x"),
        QWEN.encode_prompt(16, 0, "x"),
        QWEN.encode_prompt(usize::MAX, 256, "x"),
        QWEN.encode_prompt(32_768, 1, "x"),
    ];
    for result in refused {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), Kind::InvalidArgument, "{error}");
    }
    assert!(QWEN.encode_prompt(16, 256, &"a ".repeat(2048)).is_ok());
}

/// A copy of the small checkpoint's tokenizer, changed by `change`, and the error it gives.
fn refusal(layout: &str, change: impl FnOnce(&Path)) -> headhunt::error::Error {
    let dir = tempfile::tempdir().unwrap();
    let from = Path::new(GOLDEN).join("checkpoints/tiny").join(layout);
    for name in [
        "tokenizer.json",
        "vocab.json",
        "merges.txt",
        "added_tokens.json",
    ] {
        let whole_only = layout == "hf" && name != "tokenizer.json";
        if from.join(name).exists() && !whole_only {
            fs::copy(from.join(name), dir.path().join(name)).unwrap();
        }
    }
    change(dir.path());
    PromptTokenizer::load(dir.path()).unwrap_err()
}

fn edit(dir: &Path, name: &str, change: impl FnOnce(String) -> String) {
    let text = fs::read_to_string(dir.join(name)).unwrap();
    let changed = change(text.clone());
    assert_ne!(text, changed);
    fs::write(dir.join(name), changed).unwrap();
}

#[test]
fn damaged_tokenizers_are_named() {
    type Change = Box<dyn FnOnce(&Path)>;
    let remove = |name: &'static str| -> Change {
        Box::new(move |dir| fs::remove_file(dir.join(name)).unwrap())
    };
    let replace = |name: &'static str, from: &'static str, to: &'static str| -> Change {
        Box::new(move |dir| edit(dir, name, |text| text.replacen(from, to, 1)))
    };
    let append = |name: &'static str, text: &'static str| -> Change {
        Box::new(move |dir| edit(dir, name, |old| old + text))
    };
    let cases: [(&str, Change, Kind, &str); 12] = [
        ("hf", remove("tokenizer.json"), Kind::NotFound, "vocab.json"),
        ("orig", remove("merges.txt"), Kind::NotFound, "merges.txt"),
        (
            "orig",
            remove("added_tokens.json"),
            Kind::NotFound,
            "added_tokens.json is missing",
        ),
        (
            "hf",
            Box::new(|dir| fs::write(dir.join("tokenizer.json"), "{").unwrap()),
            Kind::DataLoss,
            "tokenizer.json",
        ),
        (
            "hf",
            replace("tokenizer.json", "\"<IMG_CONTEXT>\"", "\"<IMAGE>\""),
            Kind::DataLoss,
            "<IMG_CONTEXT>",
        ),
        (
            "hf",
            replace("tokenizer.json", "{\"id\": 505", "{\"id\": 900"),
            Kind::DataLoss,
            "<IMG_CONTEXT>",
        ),
        (
            "orig",
            replace("added_tokens.json", "505", "777"),
            Kind::DataLoss,
            "do not belong together",
        ),
        (
            "orig",
            replace("added_tokens.json", "\"<img>\"", "\"<imge>\""),
            Kind::DataLoss,
            "<img>",
        ),
        (
            "orig",
            append(
                "merges.txt",
                "F raaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\n",
            ),
            Kind::DataLoss,
            "merge 226",
        ),
        (
            "orig",
            append("merges.txt", "one two three\n"),
            Kind::DataLoss,
            "line 227",
        ),
        (
            "orig",
            replace("vocab.json", "\"!\": 0", "\"!\": \"0\""),
            Kind::DataLoss,
            "vocab.json",
        ),
        (
            "orig",
            replace("vocab.json", "\"!\": 0", "\"!\": -1"),
            Kind::DataLoss,
            "vocab.json",
        ),
    ];
    for (layout, change, kind, word) in cases {
        let error = refusal(layout, change);
        assert_eq!(error.kind(), kind, "{error:#}");
        assert!(error.message().contains(word), "{error:#} lacks {word:?}");
    }
}
