//! Everything at the last token of a prompt: all heads, the hidden state after each layer, and how
//! the model would begin its answer. For comparing the method with others; detection needs none of it.

use candle_core::{Tensor, bail};

use super::{InternVl, shared_prefix};
use crate::{
    engine::probe::Clip,
    error::{Error, Result},
    head::{HeadFeatures, HeadSelection},
    model::{
        language::{LanguageModel, Prefix, Tail, Whole},
        layout::TensorSpec,
        linear::{Loader, failed},
        weights::Checkpoint,
    },
};

/// The part of the model behind its heads, loaded on demand: the rest of the last layer, the final
/// norm, and of the output head the rows of a few tokens.
pub struct OutputHead {
    tail: Tail,
    tokens: Vec<u32>,
}

impl OutputHead {
    /// The tokens whose logits it gives.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }
}

/// What one clip yields. All numbers are finite.
#[derive(Clone, Debug, PartialEq)]
pub struct WholeFeatures {
    /// All heads under every prompt, equal to the bit to those of
    /// [`HeadProbe::probe`](crate::engine::probe::HeadProbe::probe) for this clip alone.
    pub heads: HeadFeatures,
    /// Hidden state of the last token after each layer, before the final norm: f32, row-major
    /// `[prompts, layers, hidden]`.
    pub hidden: Vec<f32>,
    /// Logits of the output head's tokens as the first token of the answer to each prompt, f32
    /// `[prompts, tokens]`.
    pub logits: Vec<f32>,
    /// The same for the question `[tokens]`; empty where none was asked.
    pub answer: Vec<f32>,
}

impl InternVl {
    /// Loads what is behind the heads, with the rows of `tokens` (not empty) of the output head. That
    /// head is `lm_head` where the files hold one, else the token embedding where config.json ties
    /// the two.
    ///
    /// Fails with `FailedPrecondition` where not all layers are resident, with `InvalidArgument` for
    /// a token outside of the vocabulary, and with `DataLoss`, naming the tensor, where one is
    /// missing or not finite.
    pub fn output_head(&self, tokens: &[u32]) -> Result<OutputHead> {
        let text = &self.config.text;
        if self.info.resident_layers != text.layers {
            return Err(Error::precondition(format!(
                "the output head needs all {} layers, and {} are loaded; load all",
                text.layers, self.info.resident_layers
            )));
        }
        if tokens.is_empty() {
            return Err(Error::invalid("no tokens to compute logits of"));
        }
        self.loaded.check(&self.dir)?;
        let checkpoint = Checkpoint::open(&self.dir)?;
        let named = |name: &str| TensorSpec {
            name: name.into(),
            shape: vec![text.vocab, text.hidden],
        };
        let own = named("text.lm_head.weight");
        let spec = if text.tied_embeddings && !checkpoint.holds(&own) {
            named("text.embed.weight")
        } else {
            own
        };
        let rows = checkpoint.rows(&spec, tokens)?;
        let place = &self.place;
        let rows = Tensor::from_vec(rows, (tokens.len(), text.hidden), &place.device)
            .and_then(|rows| rows.to_dtype(place.hidden()))
            .map_err(failed("loading the output head"))?;
        let from = Loader {
            checkpoint: &checkpoint,
            place,
        };
        Ok(OutputHead {
            tail: self.pool.run(|| LanguageModel::tail(&from, text, rows))?,
            tokens: tokens.to_vec(),
        })
    }

    /// The first tokens of `yes` and `no` as answers.
    ///
    /// `FailedPrecondition` where the tokenizer begins both with the same token, so that it cannot
    /// tell one from the other.
    pub fn answer_tokens(&self, yes: &str, no: &str) -> Result<[u32; 2]> {
        let first = |text: &str| {
            let ids = self.tokenizer.encode(text)?;
            ids.first()
                .copied()
                .ok_or_else(|| Error::invalid("an answer is empty"))
        };
        let (yes_id, no_id) = (first(yes)?, first(no)?);
        if yes_id == no_id {
            return Err(Error::precondition(format!(
                "the tokenizer begins {yes:?} and {no:?} with the same token, so its first token \
                 tells nothing"
            )));
        }
        Ok([yes_id, no_id])
    }

    /// Runs one clip with every prompt and, where there is one, the question. The visual part that
    /// the prompts and the question share is run once.
    ///
    /// Fails as [`HeadProbe::probe`](crate::engine::probe::HeadProbe::probe) does.
    pub fn probe_whole(
        &self,
        output: &OutputHead,
        clip: &Clip,
        prompts: &[String],
        question: Option<&str>,
    ) -> Result<WholeFeatures> {
        self.pool
            .run(|| self.pass_whole(output, clip, prompts, question))
    }

    /// [`probe_whole`](Self::probe_whole) on the threads of the model.
    fn pass_whole(
        &self,
        output: &OutputHead,
        clip: &Clip,
        prompts: &[String],
        question: Option<&str>,
    ) -> Result<WholeFeatures> {
        let clips = std::slice::from_ref(clip);
        let mut asked = prompts.to_vec();
        asked.extend(question.map(str::to_owned));
        let (_, mut tokens) = self.checked(clips, &asked)?;
        let mut tokens = tokens.pop().unwrap_or_default();
        let question = question.and_then(|_| tokens.pop());
        if tokens.is_empty() {
            return Err(Error::invalid("no prompt"));
        }
        let visions = self.encode_clips(clips)?;
        let passes = self.whole_passes(output, &visions, &tokens, question.as_deref())?;

        let text = &self.config.text;
        let every = HeadSelection::All.resolve(text.layers, text.heads);
        let mut features = WholeFeatures {
            heads: HeadFeatures {
                prompts: tokens.len(),
                heads: every.len(),
                head_dim: text.head_dim,
                data: Vec::new(),
            },
            hidden: Vec::new(),
            logits: Vec::new(),
            answer: Vec::new(),
        };
        let flat = |rows: &[Vec<f32>]| rows.concat();
        for (number, pass) in passes.iter().enumerate() {
            if number < tokens.len() {
                features.heads.data.extend(flat(&pass.heads));
                let layers = pass.hidden.iter();
                features.hidden.extend(layers.flat_map(|rows| flat(rows)));
                features.logits.extend(flat(&pass.logits));
            } else {
                features.answer = flat(&pass.logits);
            }
        }
        self.finite(&features.heads, &every)?;
        let others = features.hidden.iter().chain(&features.logits);
        if others.chain(&features.answer).any(|v| !v.is_finite()) {
            return Err(Error::data_loss(format!(
                "a hidden state or logit is not finite; the checkpoint's numbers do not fit {}",
                self.info.dtype
            )));
        }
        Ok(features)
    }

    /// One pass per prompt, and one for the question after them.
    fn whole_passes(
        &self,
        output: &OutputHead,
        visions: &[Tensor],
        prompts: &[Vec<u32>],
        question: Option<&[u32]>,
    ) -> Result<Vec<Whole>> {
        let layers = self.config.text.layers;
        // As for the heads alone, so that they come out the same to the bit: the question must not
        // change what the prompts share.
        let shared = shared_prefix(prompts);
        let prefix = match prompts.first() {
            Some(first) if shared > 0 => {
                let x = self.hidden(visions, first, 0..shared)?;
                let run = self.language.prefix(x, layers);
                Some(run.map_err(failed("running the shared part of the prompts"))?)
            }
            _ => None,
        };
        let keep = question.is_some() && prefix.is_none();
        let mut passes = Vec::with_capacity(prompts.len() + 1);
        for prompt in prompts {
            let x = self.hidden(visions, prompt, shared..prompt.len())?;
            let run = self.language.whole(x, prefix.as_ref(), &output.tail, keep);
            passes.push(run.map_err(failed("running a prompt"))?);
        }
        if let (Some(question), Some(first)) = (question, prompts.first()) {
            let start = match (&prefix, passes.first().and_then(|pass| pass.kept.as_ref())) {
                (Some(prefix), _) | (None, Some(prefix)) => prefix,
                (None, None) => return Err(Error::internal("a pass kept no keys and values")),
            };
            let pass = self.question(output, visions, (first, start), question)?;
            passes.push(pass);
        }
        Ok(passes)
    }

    /// The question after the part that it shares with a prompt whose keys and values `start` holds.
    fn question(
        &self,
        output: &OutputHead,
        visions: &[Tensor],
        (prompt, start): (&[u32], &Prefix),
        question: &[u32],
    ) -> Result<Whole> {
        let common = prompt.iter().zip(question).take_while(|(a, b)| a == b);
        let common = common
            .count()
            .min(start.len())
            .min(question.len().saturating_sub(1));
        let x = self.hidden(visions, question, common..question.len())?;
        let run = || {
            if common == 0 {
                bail!("the question shares nothing with the prompt")
            }
            let start = start.start(common)?;
            self.language.whole(x, Some(&start), &output.tail, false)
        };
        run().map_err(failed("running the question"))
    }
}
