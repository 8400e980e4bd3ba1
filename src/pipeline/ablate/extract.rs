//! One pass per sample for all rows: every head under every prompt, the hidden state after each layer
//! under the first, and the answer to a question.

use std::sync::{Mutex, PoisonError};

use crate::{
    engine::probe::{Clip, HeadProbe, ProbeInfo},
    error::{Error, Result},
    head::{HeadFeatures, HeadSelection},
    model::{
        InternVl,
        internvl::{OutputHead, WholeFeatures},
    },
    pipeline::{
        labelled::{Extracted, Extraction, LabelledVideo},
        samples::{Sample, SampleSet, SampleSetBuilder},
    },
    score::logistic::sigmoid,
};

/// The answers whose first tokens are compared.
const ANSWERS: [&str; 2] = ["Yes", "No"];

/// Labelled videos with all that the rows need of their samples.
pub struct Part {
    /// The videos.
    pub videos: Vec<LabelledVideo>,
    /// All heads under every prompt.
    pub set: SampleSet,
    /// Hidden state of each sample's last token under the first prompt, f32 `[layers, hidden]`.
    pub hidden: Vec<Vec<f32>>,
    /// P(Yes) / (P(Yes) + P(No)) as the first token of the answer to the question, per sample.
    pub yes: Vec<f64>,
}

/// What a sample has beside its heads.
struct Beside {
    hidden: Vec<f32>,
    yes: f64,
}

/// The model behind the seam that extraction knows; what does not fit through it waits at its side.
pub struct Recorder {
    model: InternVl,
    output: OutputHead,
    question: String,
    beside: Mutex<Vec<Beside>>,
}

impl Recorder {
    /// Loads what is behind the heads of `model`, which must have all layers resident. `question` is
    /// to be answered with Yes or No.
    ///
    /// Errors as [`InternVl::output_head`] and [`InternVl::answer_tokens`].
    pub fn new(model: InternVl, question: String) -> Result<Recorder> {
        let [yes, no] = ANSWERS;
        let output = model.output_head(&model.answer_tokens(yes, no)?)?;
        Ok(Recorder {
            model,
            output,
            question,
            beside: Mutex::new(Vec::new()),
        })
    }

    fn take(&self) -> Option<Beside> {
        let mut beside = self.beside.lock().unwrap_or_else(PoisonError::into_inner);
        beside.pop()
    }
}

impl HeadProbe for Recorder {
    fn info(&self) -> &ProbeInfo {
        self.model.info()
    }

    fn probe(
        &self,
        clips: &[Clip],
        prompts: &[String],
        heads: &HeadSelection,
    ) -> Result<Vec<HeadFeatures>> {
        if *heads != HeadSelection::All {
            return Err(Error::internal("a whole pass yields all heads"));
        }
        clips
            .iter()
            .map(|clip| {
                let WholeFeatures {
                    heads,
                    mut hidden,
                    answer,
                    ..
                } = self
                    .model
                    .probe_whole(&self.output, clip, prompts, Some(&self.question))?;
                let [yes, no] = answer.as_slice() else {
                    return Err(Error::internal("a question has not two answers"));
                };
                hidden.truncate(hidden.len() / prompts.len().max(1));
                let mut beside = self.beside.lock().unwrap_or_else(PoisonError::into_inner);
                beside.push(Beside {
                    hidden,
                    // The softmax over these two alone.
                    yes: sigmoid(f64::from(*yes) - f64::from(*no)),
                });
                Ok(heads)
            })
            .collect()
    }

    fn fingerprint(&self, layers: usize) -> Result<String> {
        self.model.fingerprint(layers)
    }
}

/// Extracts the training videos' samples and then the test videos'. `extraction` must run on
/// `recorder`.
pub fn extract(
    recorder: &Recorder,
    extraction: &Extraction<'_>,
    train: Vec<LabelledVideo>,
    test: Vec<LabelledVideo>,
    progress: &dyn Fn(Extracted),
) -> Result<(Part, Part)> {
    let all: Vec<LabelledVideo> = train.iter().chain(&test).cloned().collect();
    let builder = || SampleSetBuilder::new(recorder.info(), extraction.prompts.len());
    let part = |videos: Vec<LabelledVideo>, builder: SampleSetBuilder| Collecting {
        builder,
        videos,
        hidden: Vec::new(),
        yes: Vec::new(),
    };
    let first_test = train.len();
    let mut train = part(train, builder().for_a_hunt());
    let mut test = part(test, builder());
    extraction.run(&all, progress, &mut |mut sample, features| {
        let beside = recorder
            .take()
            .ok_or_else(|| Error::internal("a sample was not recorded"))?;
        let part = if sample.video < first_test {
            &mut train
        } else {
            sample.video -= first_test;
            &mut test
        };
        part.push(sample, &features, beside)
    })?;
    Ok((train.finish(), test.finish()))
}

struct Collecting {
    videos: Vec<LabelledVideo>,
    builder: SampleSetBuilder,
    hidden: Vec<Vec<f32>>,
    yes: Vec<f64>,
}

impl Collecting {
    fn push(&mut self, sample: Sample, features: &HeadFeatures, beside: Beside) -> Result<()> {
        self.builder.push(sample, features)?;
        self.hidden.push(beside.hidden);
        self.yes.push(beside.yes);
        Ok(())
    }

    fn finish(self) -> Part {
        Part {
            videos: self.videos,
            set: self.builder.finish(),
            hidden: self.hidden,
            yes: self.yes,
        }
    }
}
