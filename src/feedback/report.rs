//! A verdict as it is kept: what it speaks of, and what its samples belong to.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    error::{Error, Result},
    head::HeadId,
    media::MediaTime,
    profile::Profile,
    segment::SegmentRule,
    telemetry::metrics::Label,
};

/// Schema of the files that this version writes.
pub(super) const SCHEMA: u32 = 1;

/// Largest number of a report.
const SEQUENCE_MAX: u64 = u64::MAX / 2;

/// What somebody says about a detection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Statement {
    /// The event of this id was one.
    Confirmed(u64),
    /// The event of this id was none.
    FalseAlarm(u64),
    /// There was one in this interval of media time, `start` before `end`.
    Missed {
        /// Its start.
        start: MediaTime,
        /// Its end, exclusive.
        end: MediaTime,
    },
}

/// What a statement judges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// An event, by its id.
    Event(u64),
    /// An interval of media time, nanoseconds.
    Interval(i64, i64),
}

/// How it judges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The event was one: its segments are anomalous.
    Confirmed,
    /// It was none: they are normal.
    FalseAlarm,
    /// One was not found: they are anomalous.
    Missed,
}

impl Verdict {
    /// The label of the samples.
    pub fn is_anomaly(self) -> bool {
        match self {
            Verdict::Confirmed | Verdict::Missed => true,
            Verdict::FalseAlarm => false,
        }
    }
}

impl Label for Verdict {
    const NAME: &'static str = "verdict";
    fn value(self) -> &'static str {
        match self {
            Verdict::Confirmed => "confirmed",
            Verdict::FalseAlarm => "false_alarm",
            Verdict::Missed => "missed",
        }
    }
}

impl Statement {
    /// What it judges.
    pub fn subject(self) -> Subject {
        match self {
            Statement::Confirmed(id) | Statement::FalseAlarm(id) => Subject::Event(id),
            Statement::Missed { start, end } => Subject::Interval(start.as_nanos(), end.as_nanos()),
        }
    }

    /// How it judges.
    pub fn verdict(self) -> Verdict {
        match self {
            Statement::Confirmed(_) => Verdict::Confirmed,
            Statement::FalseAlarm(_) => Verdict::FalseAlarm,
            Statement::Missed { .. } => Verdict::Missed,
        }
    }
}

/// What features belong to. Those of another model, other heads or another prompt are other numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Binding {
    /// Name of the profile that scored.
    pub profile: String,
    /// Its version: SHA-256 of its content, hex.
    pub version: String,
    /// Fingerprint of the model's layers down to the deepest head, hex.
    pub model: String,
    /// Heads, in the order of the features.
    pub heads: Vec<HeadId>,
    /// Numbers per head.
    pub head_dim: usize,
    /// Prompts, in the order of the features.
    pub prompts: Vec<String>,
    /// Frames sampled per segment.
    pub frames_per_segment: usize,
    /// How the video was cut.
    pub segment: SegmentRule,
}

impl Binding {
    /// What features that `profile` scores belong to.
    pub fn of(profile: &Profile) -> Result<Binding> {
        Ok(Binding {
            profile: profile.name.clone(),
            version: profile.checksum()?,
            model: profile.model.fingerprint.clone(),
            heads: profile.heads.clone(),
            head_dim: profile.model.head_dim,
            prompts: profile.scoring_prompts.clone(),
            frames_per_segment: profile.frames_per_segment,
            segment: profile.segment,
        })
    }

    /// Numbers of one segment under one prompt.
    pub fn width(&self) -> usize {
        self.heads.len().saturating_mul(self.head_dim)
    }

    /// Numbers of one segment.
    pub fn numbers(&self) -> usize {
        self.width().saturating_mul(self.prompts.len())
    }
}

/// One segment of a report; its features stand apart.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SampleInfo {
    /// Which of the report's bindings.
    pub binding: usize,
    /// Zero-based count of the detection's segments.
    pub segment: u64,
    /// Index of its first decoded frame.
    pub first_frame: u64,
    /// Index of its last decoded frame, inclusive.
    pub last_frame: u64,
    /// PTS of its first frame, nanoseconds.
    pub start_ns: i64,
    /// PTS + duration of its last frame, nanoseconds.
    pub end_ns: i64,
    /// p that it was scored with.
    pub p: f64,
}

/// One verdict with what it speaks of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Report {
    pub schema: u32,
    /// Reports of a store are numbered in the order of their coming.
    pub sequence: u64,
    pub session: String,
    /// The camera or file; `None` for an upload.
    pub source: Option<String>,
    pub subject: Subject,
    pub verdict: Verdict,
    /// Seconds since 1970.
    pub reported_unix_s: u64,
    /// Profile that is judged, whether or not features are left.
    pub profile: String,
    /// Its version.
    pub version: String,
    /// What the samples belong to: one, or several where the profile changed on the way.
    pub bindings: Vec<Binding>,
    pub samples: Vec<SampleInfo>,
}

impl Report {
    /// Without samples yet.
    pub fn new(
        session: &str,
        source: Option<String>,
        statement: Statement,
        judged: &Binding,
        reported_unix_s: u64,
    ) -> Report {
        Report {
            schema: SCHEMA,
            sequence: 0,
            session: session.to_owned(),
            source,
            subject: statement.subject(),
            verdict: statement.verdict(),
            reported_unix_s,
            profile: judged.profile.clone(),
            version: judged.version.clone(),
            bindings: Vec::new(),
            samples: Vec::new(),
        }
    }

    /// The number of a binding, which is added where it is new.
    pub fn bind(&mut self, binding: &Binding) -> usize {
        // Neighbours mostly share it.
        match self.bindings.iter().rposition(|known| known == binding) {
            Some(number) => number,
            None => {
                self.bindings.push(binding.clone());
                self.bindings.len() - 1
            }
        }
    }

    /// Reports on the same subject of the same detection have the same key, so that a later one
    /// takes the place of the earlier; 32 hex digits.
    pub fn key(&self) -> String {
        let subject = match self.subject {
            Subject::Event(id) => format!("event {id}"),
            Subject::Interval(start, end) => format!("interval {start} {end}"),
        };
        let digest = Sha256::digest(format!("{subject}\n{}", self.session));
        super::file::hex(&digest[..16])
    }

    /// Samples count, and a report without any still takes a place.
    pub fn weight(&self) -> usize {
        self.samples.len().max(1)
    }

    /// Refuses what no writer of ours would write, with `DataLoss`.
    pub fn check(&self, numbers: usize) -> Result<()> {
        let wrong = |what: &str| Err(Error::data_loss(format!("the report {what}")));
        // They count up from 0. One near the end of the range would leave none for the next report.
        if self.sequence > SEQUENCE_MAX {
            return wrong("has a number that no store has come to");
        }
        let mut expected = 0usize;
        for sample in &self.samples {
            let Some(binding) = self.bindings.get(sample.binding) else {
                return wrong("names a binding that it does not have");
            };
            expected = expected.saturating_add(binding.numbers());
        }
        if expected != numbers {
            return Err(Error::data_loss(format!(
                "the report has {numbers} numbers where its samples need {expected}"
            )));
        }
        Ok(())
    }
}
