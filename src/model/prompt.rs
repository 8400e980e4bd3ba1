//! The prompt, token for token: InternVL3's chat template around the frames and the question.
//!
//! A prompt is put together from ids, not from one long text: the template's special tokens are
//! placed by this code and nothing else, so the number of image tokens cannot depend on what a user
//! wrote. A question that contains one of these tokens as text is refused.

mod load;

use std::path::Path;

use tokenizers::Tokenizer;

use crate::{
    error::{Error, Kind, Result, ResultExt},
    limits::{PROMPT_MAX_BYTES, SEQUENCE_MAX_TOKENS},
};

/// The five questions that heads are hunted with by default: the three of the method's published
/// configuration and two of our own.
pub const DEFAULT_PROMPTS: [&str; 5] = [
    "Identify any abnormal events or safety hazards in this video.",
    "Analyze the video for anomalies. Describe any violent activities, accidents, or deviations \
     from normal patterns in detail.",
    "Identify any abnormal events in this video.",
    "Is anything unusual, dangerous or illegal happening in this video?",
    "You are watching a surveillance camera. Report any event that deviates from normal activity.",
];

/// The system message that InternVL3 was trained with.
pub const SYSTEM_MESSAGE: &str = "你是书生·万象，英文名是InternVL，是由上海人工智能实验室、清华大学及多家合作单位联合开发的多模态大语言模型。";

const IM_START: &str = "<|im_start|>";
const IM_END: &str = "<|im_end|>";
const END_OF_TEXT: &str = "<|endoftext|>";
const IMG: &str = "<img>";
const IMG_END: &str = "</img>";
const IMG_CONTEXT: &str = "<IMG_CONTEXT>";

/// The tokens that give a prompt its structure.
const STRUCTURE: [&str; 6] = [IM_START, IM_END, END_OF_TEXT, IMG, IMG_END, IMG_CONTEXT];

/// A checkpoint's tokenizer, with the template's fixed parts already encoded.
pub struct PromptTokenizer {
    tokenizer: Tokenizer,
    im_start: u32,
    im_end: u32,
    img: u32,
    img_end: u32,
    img_context: u32,
    /// Ids of [`STRUCTURE`], in its order.
    structure: [u32; STRUCTURE.len()],
    /// `system\n…`
    system: Vec<u32>,
    /// `assistant\n`
    assistant: Vec<u32>,
    /// `\n`
    newline: Vec<u32>,
}

impl PromptTokenizer {
    /// Reads the tokenizer of the checkpoint in `dir`: `tokenizer.json`, or without it `vocab.json`,
    /// `merges.txt` and `added_tokens.json`.
    ///
    /// # Errors
    /// `NotFound` naming the files that are missing, `DataLoss` where one cannot be read as a
    /// tokenizer or lacks a token of the template, `ResourceExhausted` where one is too large.
    pub fn load(dir: &Path) -> Result<Self> {
        let tokenizer = load::tokenizer(dir)?;
        let id = |token: &str| {
            let id = tokenizer.token_to_id(token).filter(|id| {
                // It must stand apart from the text around it, as the template's tokens do.
                let encoded = tokenizer.encode_fast(format!("a{token}b"), false);
                encoded.is_ok_and(|e| e.get_ids().iter().filter(|&i| i == id).count() == 1)
            });
            id.ok_or_else(|| {
                Error::data_loss(format!(
                    "the tokenizer in {} has no added token {token}, which InternVL3's prompt \
                     needs; take the tokenizer files that belong to the checkpoint",
                    dir.display()
                ))
            })
        };
        let mut structure = [0; STRUCTURE.len()];
        for (slot, token) in structure.iter_mut().zip(STRUCTURE) {
            *slot = id(token)?;
        }
        let [im_start, im_end, _, img, img_end, img_context] = structure;
        let mut prompt = PromptTokenizer {
            tokenizer,
            im_start,
            im_end,
            img,
            img_end,
            img_context,
            structure,
            system: Vec::new(),
            assistant: Vec::new(),
            newline: Vec::new(),
        };
        prompt.system = prompt.encode(&format!("system\n{SYSTEM_MESSAGE}"))?;
        prompt.assistant = prompt.encode("assistant\n")?;
        prompt.newline = prompt.encode("\n")?;
        Ok(prompt)
    }

    /// Id of `<IMG_CONTEXT>`, the token whose embedding a frame's visual token replaces.
    pub fn img_context_id(&self) -> u32 {
        self.img_context
    }

    /// Ids that the tokenizer has: the least size of the embedding table.
    pub fn vocab_size(&self) -> usize {
        self.tokenizer.get_vocab_size(true)
    }

    /// The ids of any text as the tokenizer alone gives them: no template, and special tokens in
    /// the text become their ids.
    ///
    /// # Errors
    /// `Internal` where the tokenizer fails.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        self.tokenizer
            .encode_fast(text, false)
            .or_kind(Kind::Internal, || {
                format!("cannot tokenize {} bytes of text", text.len())
            })
            .map(|encoding| encoding.get_ids().to_vec())
    }

    /// The ids of the whole chat prompt for `frames` frames of `tokens_per_frame` image tokens and
    /// the question `prompt`; the answer's first token would come next. Everything before the
    /// question is the same for every question. It holds exactly `frames * tokens_per_frame` ids
    /// equal to [`img_context_id`](Self::img_context_id).
    ///
    /// # Errors
    /// `InvalidArgument` where `prompt` is blank, longer than [`PROMPT_MAX_BYTES`] or contains a
    /// token of the template as text, where there are no frames or image tokens, or where the whole
    /// is longer than [`SEQUENCE_MAX_TOKENS`].
    pub fn encode_prompt(
        &self,
        frames: usize,
        tokens_per_frame: usize,
        prompt: &str,
    ) -> Result<Vec<u32>> {
        let image_tokens = frames.saturating_mul(tokens_per_frame);
        if image_tokens == 0 || image_tokens > SEQUENCE_MAX_TOKENS || frames > image_tokens {
            return Err(Error::invalid(format!(
                "a prompt of {frames} frames with {tokens_per_frame} image tokens each: both must \
                 be at least 1 and their product at most {SEQUENCE_MAX_TOKENS}"
            )));
        }
        let question = self.question(prompt)?;

        let mut ids = Vec::with_capacity(image_tokens + 16 * frames + question.len() + 64);
        ids.push(self.im_start);
        ids.extend(&self.system);
        ids.push(self.im_end);
        ids.extend(&self.newline);
        ids.push(self.im_start);
        for frame in 1..=frames {
            // What stands between two special tokens is encoded as one text, as the tokenizer would.
            let before = if frame == 1 { "user" } else { "" };
            ids.extend(self.encode(&format!("{before}\nFrame{frame}: "))?);
            ids.push(self.img);
            ids.extend(std::iter::repeat_n(self.img_context, tokens_per_frame));
            ids.push(self.img_end);
        }
        ids.extend(question);
        ids.push(self.im_end);
        ids.extend(&self.newline);
        ids.push(self.im_start);
        ids.extend(&self.assistant);

        if ids.len() > SEQUENCE_MAX_TOKENS {
            return Err(Error::invalid(format!(
                "the prompt has {} tokens, more than the {SEQUENCE_MAX_TOKENS} that the model's \
                 positions were trained for; use fewer frames or a shorter prompt",
                ids.len()
            )));
        }
        Ok(ids)
    }

    /// `\n{prompt}`, which follows the last frame.
    fn question(&self, prompt: &str) -> Result<Vec<u32>> {
        if prompt.trim().is_empty() {
            return Err(Error::invalid(
                "the prompt is empty; ask a question about the video",
            ));
        }
        if prompt.len() > PROMPT_MAX_BYTES {
            return Err(Error::invalid(format!(
                "the prompt has {} bytes, more than {PROMPT_MAX_BYTES}; shorten it",
                prompt.len()
            )));
        }
        let ids = self.encode(&format!("\n{prompt}"))?;
        let found = self.structure.iter().position(|id| ids.contains(id));
        match found.and_then(|at| STRUCTURE.get(at)) {
            Some(token) => Err(Error::invalid(format!(
                "the prompt contains {token}, a control token of the model's chat template; \
                 remove it"
            ))),
            None => Ok(ids),
        }
    }
}

impl std::fmt::Debug for PromptTokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PromptTokenizer({} tokens)", self.vocab_size())
    }
}
