//! A byte-level BPE tokenizer of any size with InternVL3's added tokens at its end, so that any
//! text encodes and the special tokens stand at the ids that the config names.
//!
//! The merges are trained at run time on the product's own prompts, so a prompt is about as long
//! as with the published tokenizer. What training does not fill of a large vocabulary is filled
//! with names that no merge produces.

use std::{collections::HashMap, fmt::Write as _, fs, path::Path};

use serde_json::{Map, Value, json};
use tokenizers::{
    OffsetReferential, OffsetType, PreTokenizer, Trainer,
    models::bpe::{BPE, BpeTrainerBuilder},
    pre_tokenizers::{
        byte_level::ByteLevel,
        sequence::Sequence,
        split::{Split, SplitPattern},
    },
    tokenizer::normalizer::SplitDelimiterBehavior,
    tokenizer::pre_tokenizer::PreTokenizedString,
};

use crate::{
    error::{Error, Kind, Result, ResultExt},
    model::config::Layout,
};

/// A token that stands after the byte-level vocabulary.
pub(super) struct AddedToken {
    pub content: &'static str,
    pub special: bool,
}

const fn special(content: &'static str) -> AddedToken {
    AddedToken {
        content,
        special: true,
    }
}

const fn plain(content: &'static str) -> AddedToken {
    AddedToken {
        content,
        special: false,
    }
}

/// Qwen2.5's added tokens, then InternVL3's, in the order of their ids.
pub(super) const ADDED_TOKENS: [AddedToken; 31] = [
    special("<|endoftext|>"),
    special("<|im_start|>"),
    special("<|im_end|>"),
    special("<|object_ref_start|>"),
    special("<|object_ref_end|>"),
    special("<|box_start|>"),
    special("<|box_end|>"),
    special("<|quad_start|>"),
    special("<|quad_end|>"),
    special("<|vision_start|>"),
    special("<|vision_end|>"),
    special("<|vision_pad|>"),
    special("<|image_pad|>"),
    special("<|video_pad|>"),
    plain("<tool_call>"),
    plain("</tool_call>"),
    plain("<|fim_prefix|>"),
    plain("<|fim_middle|>"),
    plain("<|fim_suffix|>"),
    plain("<|fim_pad|>"),
    plain("<|repo_name|>"),
    plain("<|file_sep|>"),
    special("<img>"),
    special("</img>"),
    special("<IMG_CONTEXT>"),
    special("<quad>"),
    special("</quad>"),
    special("<ref>"),
    special("</ref>"),
    special("<box>"),
    special("</box>"),
];

/// The first 13 special tokens after `<|endoftext|>` are listed as additional ones.
const ADDITIONAL_SPECIAL: std::ops::Range<usize> = 1..14;

/// How Qwen2.5 cuts text before merging.
const SPLIT_PATTERN: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Most merges that are trained; a real vocabulary has 151,387, but none beyond these would occur
/// in the text they are trained on.
const MERGES_MAX: usize = 4096;

const CHAT_TEMPLATE: &str = "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n'}}{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for content in message['content'] %}{% if content['type'] == 'image' %}{{ '<IMG_CONTEXT>\n' }}{% elif content['type'] == 'video' %}{{ '<video>\n' }}{% elif content['type'] == 'text' %}{{ content['text'] }}{% endif %}{% endfor %}{% endif %}{{'<|im_end|>\n'}}{% endfor %}{% if add_generation_prompt %}{{'<|im_start|>assistant\n' }}{% endif %}";

/// A byte-level vocabulary and its merges.
pub(super) struct Vocabulary {
    /// Tokens in the order of their ids, added tokens left out.
    tokens: Vec<String>,
    merges: Vec<(String, String)>,
}

fn bug(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::internal("cannot train the tokenizer").with_source(error)
}

impl Vocabulary {
    /// Trains merges on `corpus` until the vocabulary has `size` tokens or there is nothing left
    /// to merge, then fills it up to `size`.
    pub fn train(corpus: &str, size: usize) -> Result<Self> {
        let split = Split::new(
            SplitPattern::Regex(SPLIT_PATTERN.into()),
            SplitDelimiterBehavior::Isolated,
            false,
        )
        .map_err(bug)?;
        let cut = Sequence::new(vec![
            split.into(),
            ByteLevel::new(false, true, false).into(),
        ]);
        let alphabet: std::collections::HashSet<char> = ByteLevel::alphabet().into_iter().collect();
        let bytes = alphabet.len();
        if size < bytes {
            return Err(Error::internal(format!(
                "a byte-level vocabulary needs {bytes} tokens, not {size}"
            )));
        }
        let mut trainer = BpeTrainerBuilder::new()
            .show_progress(false)
            .min_frequency(1)
            .vocab_size(size.min(bytes + MERGES_MAX))
            .initial_alphabet(alphabet)
            .build();
        trainer
            .feed(corpus.lines().map(|line| format!("{line}\n")), |line| {
                let mut text = PreTokenizedString::from(line);
                cut.pre_tokenize(&mut text)?;
                Ok(text
                    .get_splits(OffsetReferential::Original, OffsetType::Byte)
                    .into_iter()
                    .map(|(word, _, _)| word.to_owned())
                    .collect())
            })
            .map_err(bug)?;
        let mut model = BPE::default();
        trainer.train(&mut model).map_err(bug)?;

        let mut tokens: Vec<(u32, String)> = model
            .get_vocab()
            .into_iter()
            .map(|(t, id)| (id, t))
            .collect();
        tokens.sort_unstable();
        let mut tokens: Vec<String> = tokens.into_iter().map(|(_, token)| token).collect();
        // Every token past the alphabet is the product of one merge, in the order of training.
        let merges = merges_of(&model)?;
        // A space never stands inside a byte-level token, so no text becomes one of these.
        for id in tokens.len()..size {
            tokens.push(format!("unused {id}"));
        }
        Ok(Vocabulary { tokens, merges })
    }

    fn vocab_json(&self) -> Value {
        let map: Map<String, Value> = self
            .tokens
            .iter()
            .enumerate()
            .map(|(id, token)| (token.clone(), json!(id)))
            .collect();
        Value::Object(map)
    }

    fn added(&self) -> impl Iterator<Item = (usize, &'static AddedToken)> {
        (self.tokens.len()..).zip(&ADDED_TOKENS)
    }

    fn tokenizer_json(&self) -> Value {
        let added: Vec<Value> = self
            .added()
            .map(|(id, token)| {
                json!({
                    "id": id,
                    "content": token.content,
                    "single_word": false,
                    "lstrip": false,
                    "rstrip": false,
                    "normalized": false,
                    "special": token.special,
                })
            })
            .collect();
        let byte_level = |prefix: bool, regex: bool| {
            json!({
                "type": "ByteLevel",
                "add_prefix_space": prefix,
                "trim_offsets": true,
                "use_regex": regex,
            })
        };
        json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": added,
            "normalizer": { "type": "NFC" },
            "pre_tokenizer": { "type": "Sequence", "pretokenizers": [
                {
                    "type": "Split",
                    "pattern": { "Regex": SPLIT_PATTERN },
                    "behavior": "Isolated",
                    "invert": false,
                },
                byte_level(false, false),
            ]},
            "post_processor": null,
            "decoder": byte_level(true, true),
            "model": {
                "type": "BPE",
                "dropout": null,
                "unk_token": null,
                "continuing_subword_prefix": null,
                "end_of_word_suffix": null,
                "fuse_unk": false,
                "byte_fallback": false,
                "ignore_merges": false,
                "vocab": self.vocab_json(),
                "merges": self.merges,
            },
        })
    }

    fn tokenizer_config_json(&self, layout: Layout) -> Value {
        let decoder: Map<String, Value> = self
            .added()
            .map(|(id, token)| {
                let entry = json!({
                    "content": token.content,
                    "lstrip": false,
                    "normalized": false,
                    "rstrip": false,
                    "single_word": false,
                    "special": token.special,
                });
                (id.to_string(), entry)
            })
            .collect();
        let mut config = json!({
            "add_bos_token": false,
            "add_prefix_space": false,
            "added_tokens_decoder": decoder,
            "additional_special_tokens": additional_special(),
            "bos_token": null,
            "clean_up_tokenization_spaces": false,
            "eos_token": "<|im_end|>",
            "errors": "replace",
            "model_max_length": 12_288,
            "pad_token": "<|endoftext|>",
            "split_special_tokens": false,
            "tokenizer_class": "Qwen2Tokenizer",
            "unk_token": null,
        });
        if layout == Layout::Hf {
            let names = json!({
                "context_image_token": "<IMG_CONTEXT>",
                "end_image_token": "</img>",
                "start_image_token": "<img>",
                "video_token": "<video>",
            });
            if let (Some(config), Some(names)) = (config.as_object_mut(), names.as_object()) {
                config.extend(names.clone());
                config.insert("extra_special_tokens".into(), json!(names));
                config.insert("chat_template".into(), json!(CHAT_TEMPLATE));
                config.insert("processor_class".into(), json!("InternVLProcessor"));
            }
        }
        config
    }

    /// Writes the tokenizer's files as checkpoints of `layout` have them: vocab.json, merges.txt,
    /// added_tokens.json, tokenizer_config.json and special_tokens_map.json, and for the hf layout
    /// tokenizer.json too.
    pub fn write(&self, dir: &Path, layout: Layout) -> Result<()> {
        let mut merges = "#version: 0.2\n".to_owned();
        for (left, right) in &self.merges {
            let _ = writeln!(merges, "{left} {right}");
        }
        let added: HashMap<&str, usize> = self
            .added()
            .map(|(id, token)| (token.content, id))
            .collect();
        let path = dir.join("merges.txt");
        fs::write(&path, merges).or_kind(Kind::Internal, || {
            format!("cannot write {}", path.display())
        })?;
        super::write_json(dir, "vocab.json", &self.vocab_json())?;
        super::write_json(dir, "added_tokens.json", &json!(added))?;
        super::write_json(
            dir,
            "tokenizer_config.json",
            &self.tokenizer_config_json(layout),
        )?;
        super::write_json(
            dir,
            "special_tokens_map.json",
            &json!({
                "additional_special_tokens": additional_special(),
                "eos_token": "<|im_end|>",
                "pad_token": "<|endoftext|>",
            }),
        )?;
        if layout == Layout::Hf {
            super::write_json(dir, "tokenizer.json", &self.tokenizer_json())?;
        }
        Ok(())
    }
}

fn additional_special() -> Vec<&'static str> {
    ADDED_TOKENS[ADDITIONAL_SPECIAL]
        .iter()
        .map(|token| token.content)
        .collect()
}

/// The merges of a trained model in the order of their rank: the library shows them only in the
/// form it serializes.
fn merges_of(model: &BPE) -> Result<Vec<(String, String)>> {
    let value = serde_json::to_value(model).map_err(bug)?;
    let merges = value.get("merges").cloned().unwrap_or(Value::Null);
    serde_json::from_value(merges).map_err(bug)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokenizers::Tokenizer;

    const CORPUS: &str = "Frame1: a camera sees a street\nFrame2: 一台相机\n";

    fn tokenizer(size: usize) -> Tokenizer {
        let vocabulary = Vocabulary::train(CORPUS, size).unwrap();
        Tokenizer::from_bytes(serde_json::to_vec(&vocabulary.tokenizer_json()).unwrap()).unwrap()
    }

    #[test]
    fn any_text_encodes_and_decodes_and_special_tokens_have_their_ids() {
        for size in [256, 280, 481, 3000] {
            let tokenizer = tokenizer(size);
            assert_eq!(tokenizer.get_vocab_size(true), size + 31);
            for (i, token) in ADDED_TOKENS.iter().enumerate() {
                let id = u32::try_from(size + i).unwrap();
                assert_eq!(tokenizer.token_to_id(token.content), Some(id));
            }
            for text in [
                "Frame1: <img><IMG_CONTEXT></img>\n",
                "žluťoučký 🦀 \u{1}\n\n",
                "unused 300",
            ] {
                let ids = tokenizer.encode(text, false).unwrap();
                assert_eq!(tokenizer.decode(ids.get_ids(), false).unwrap(), text);
                let fill = size as u32 > 300 && ids.get_ids().contains(&300) && size == 3000;
                assert!(
                    !(fill && text.starts_with("unused")),
                    "a filler was produced"
                );
            }
        }
    }

    #[test]
    fn merges_shorten_what_they_were_trained_on() {
        let trained = tokenizer(481).encode("Frame2: a camera", false).unwrap();
        let bytes = tokenizer(256).encode("Frame2: a camera", false).unwrap();
        assert_eq!(bytes.len(), 16);
        assert!(trained.len() <= 5, "{:?}", trained.get_tokens());
    }
}
