//! What is written down about a job.

use serde::{Deserialize, Serialize};

use super::{Progress, Request, State};
use crate::{
    library::{Clip, Label},
    pipeline::labelled::LabelledVideo,
};

/// Form that this version writes.
pub(super) const SCHEMA: u32 = 1;

/// What sort of job it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Ranks heads.
    Hunt,
    /// Makes a profile.
    Calibrate,
    /// Scores clips with a profile.
    Evaluate,
}

/// A clip as it was labelled when the job was taken: a label that changes later changes no job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Snapshot {
    pub id: String,
    pub name: String,
    pub label: Label,
    pub anomalous: Vec<(u64, u64)>,
    pub size_bytes: u64,
}

impl Snapshot {
    pub fn of(clip: &Clip) -> Snapshot {
        Snapshot {
            id: clip.id.clone(),
            name: if clip.name.is_empty() {
                clip.id.chars().take(12).collect()
            } else {
                clip.name.clone()
            },
            label: clip.label,
            anomalous: clip.anomalous.clone(),
            size_bytes: clip.size_bytes,
        }
    }

    /// For the pipeline; `intervals_known` says what the labels say.
    pub fn video(&self, path: std::path::PathBuf) -> LabelledVideo {
        LabelledVideo {
            path,
            name: self.name.clone(),
            anomaly: self.label == Label::Anomaly,
            anomalous: self.anomalous.clone(),
            intervals_known: !self.anomalous.is_empty(),
        }
    }
}

/// A job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    pub schema: u32,
    /// 32 hex digits.
    pub id: String,
    pub request: Request,
    pub clips: Vec<Snapshot>,
    /// Of the whole model that it was taken for.
    pub fingerprint: String,
    pub created_unix_ns: u64,
    pub ended_unix_ns: Option<u64>,
    pub state: State,
    pub error: Option<String>,
    pub samples_reused: u64,
    /// Processes of the server that have begun it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub starts: u32,
    /// It is to end; written down at once, so that a server that dies meanwhile does not begin it again.
    #[serde(default, skip_serializing_if = "is_default")]
    pub cancelled: bool,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Record {
    /// What is known of it while it does not run.
    pub fn progress(&self) -> Progress {
        Progress {
            error: self.error.clone(),
            samples_reused: self.samples_reused,
            ..Progress::new(self.state)
        }
    }
}

/// A job in a list.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// 32 hex digits.
    pub id: String,
    /// What sort of job it is.
    pub kind: Kind,
    /// How far it is.
    pub progress: Progress,
    /// Nanoseconds since 1970.
    pub created_unix_ns: u64,
    /// The same; `None`: it has not ended.
    pub ended_unix_ns: Option<u64>,
    /// The profile that it writes or evaluates; empty: none.
    pub profile: String,
}
