//! The features of labelled samples, collected one after another and then held in the order in
//! which hunting reads them.

use crate::{
    engine::probe::ProbeInfo,
    error::{Error, Result},
    head::{HeadFeatures, HeadId},
    hunt::Features,
    limits::HUNT_SAMPLES_MAX,
    score::locate::SegmentSpan,
};

/// One labelled sample: a segment, or a whole clip whose label is known for the video only.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// For messages: the video's name and the sample's first frame.
    pub name: String,
    /// Which of the labelled videos it is from.
    pub video: usize,
    /// Whether it is anomalous.
    pub anomaly: bool,
    /// Where it stands in the video; `None` for a whole-video sample.
    pub span: Option<SegmentSpan>,
}

/// All heads' features of labelled samples.
#[derive(Clone, Debug)]
pub struct SampleSet {
    /// One entry a sample.
    pub samples: Vec<Sample>,
    /// f32 `[prompts, samples, layers, heads, head_dim]`.
    pub features: Features,
}

impl SampleSet {
    /// Labels, true = anomaly.
    pub fn labels(&self) -> Vec<bool> {
        self.samples.iter().map(|s| s.anomaly).collect()
    }

    /// Refuses a set that was extracted from a model of another shape.
    ///
    /// # Errors
    /// `FailedPrecondition` that names both shapes.
    pub fn check_model(&self, info: &ProbeInfo) -> Result<()> {
        let f = &self.features;
        let (has, needs) = (
            [f.layers, f.heads, f.head_dim],
            [info.layers, info.heads, info.head_dim],
        );
        if has != needs {
            return Err(Error::precondition(format!(
                "the samples have features of {has:?} layers, heads and numbers per head, and {} has {needs:?}: extract them again",
                info.name
            )));
        }
        Ok(())
    }

    /// Names, for messages.
    pub fn names(&self) -> Vec<String> {
        self.samples.iter().map(|s| s.name.clone()).collect()
    }

    /// The expert-head feature z of every sample under one prompt: rows of
    /// `heads.len() * head_dim` numbers.
    pub fn gather(&self, prompt: usize, heads: &[HeadId]) -> Result<Vec<Vec<f32>>> {
        let f = &self.features;
        (0..f.samples)
            .map(|sample| {
                let mut z = Vec::with_capacity(heads.len() * f.head_dim);
                for id in heads {
                    let row = (prompt * f.samples + sample) * f.layers + id.layer;
                    let at = (row * f.heads + id.head) * f.head_dim;
                    let inside = prompt < f.prompts && id.layer < f.layers && id.head < f.heads;
                    let slice = f.data.get(at..at + f.head_dim).filter(|_| inside);
                    z.extend_from_slice(slice.ok_or_else(|| {
                        Error::internal(format!(
                            "no features of head ({}, {}) under prompt {prompt}",
                            id.layer, id.head
                        ))
                    })?);
                }
                Ok(z)
            })
            .collect()
    }
}

/// Most numbers a sample set may hold: 16 GiB of f32, some 8,000 samples of an 8B model under one
/// prompt or 1,700 under five.
const MAX_NUMBERS: usize = (16 << 30) / 4;

/// Collects samples as they are extracted.
pub struct SampleSetBuilder {
    samples: Vec<Sample>,
    per_prompt: Vec<Vec<f32>>,
    shape: [usize; 3],
    /// Samples.
    most: usize,
}

impl SampleSetBuilder {
    /// Nothing yet, for all heads of a model of this shape under so many prompts.
    pub fn new(info: &ProbeInfo, prompts: usize) -> Self {
        SampleSetBuilder {
            samples: Vec::new(),
            per_prompt: vec![Vec::new(); prompts],
            shape: [info.layers, info.heads, info.head_dim],
            most: usize::MAX,
        }
    }

    /// Refuses the first sample that a hunt over all of them would refuse.
    #[must_use]
    pub fn for_a_hunt(self) -> Self {
        SampleSetBuilder {
            most: HUNT_SAMPLES_MAX,
            ..self
        }
    }

    /// Appends a sample with the features of all heads under every prompt.
    pub fn push(&mut self, sample: Sample, features: &HeadFeatures) -> Result<()> {
        let expected = self.per_prompt.len() * self.shape.iter().product::<usize>();
        if features.data.len() != expected {
            return Err(Error::internal(format!(
                "sample {} has {} numbers instead of {expected}",
                sample.name,
                features.data.len(),
            )));
        }
        if self.samples.len() >= self.most {
            return Err(Error::exhausted(format!(
                "these clips give more than {} samples, which hunting takes at most: use fewer or shorter clips",
                self.most
            ))
            .for_good());
        }
        if (self.samples.len() + 1).saturating_mul(expected) > MAX_NUMBERS {
            return Err(Error::exhausted(format!(
                "the features of more than {} samples exceed 16 GiB: use fewer or shorter clips, \
                 or fewer prompts",
                self.samples.len()
            ))
            .for_good());
        }
        for (prompt, rows) in self.per_prompt.iter_mut().enumerate() {
            rows.extend_from_slice(features.prompt(prompt));
        }
        self.samples.push(sample);
        Ok(())
    }

    /// The set, in hunting's order.
    pub fn finish(mut self) -> SampleSet {
        let [layers, heads, head_dim] = self.shape;
        let prompts = self.per_prompt.len();
        let mut data = std::mem::take(&mut self.per_prompt).into_iter();
        let mut all = data.next().unwrap_or_default();
        // At once, so that no prompt's rows are there twice for long.
        all.reserve_exact(data.as_slice().iter().map(Vec::len).sum());
        for rows in data {
            all.extend_from_slice(&rows);
        }
        SampleSet {
            features: Features {
                prompts,
                samples: self.samples.len(),
                layers,
                heads,
                head_dim,
                data: all,
            },
            samples: self.samples,
        }
    }
}
