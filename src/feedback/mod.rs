//! FEEDBACK: verdicts of people on events, with the features of the segments that they speak of.
//!
//! ```text
//! detection ─▶ Recorder ─▶ ring (the last minutes, in memory) ─┐
//!                          verdict on an event or an interval ─┴▶ FeedbackStore (on disk) ─▶ refit
//! ```
//!
//! A detection records what each segment was scored from; a verdict turns what is still there into
//! samples with a label, so that a refit needs no forward pass. Features mean something only together
//! with the model, heads and prompt they were taken with: each sample carries these, and whoever asks
//! for samples gets those that belong and the count of the others.

#[cfg(test)]
mod doubles;
mod file;
mod report;
mod ring;
mod sessions;
mod store;

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::{
    clock::Clock,
    error::{Error, Result},
    limits,
    telemetry::feedback as counted,
};

pub use report::{Binding, Statement, Subject, Verdict};
pub use sessions::Recorder;
pub use store::{FeedbackSample, FeedbackSamples, FeedbackStore};

use report::{Report, SampleInfo};
use sessions::{Judged, Sessions};

/// How much is kept, and where.
#[derive(Clone, Debug, PartialEq)]
pub struct FeedbackOptions {
    /// Directory of the store.
    pub dir: PathBuf,
    /// How much media time of a detection stays in memory.
    pub ring: Duration,
    /// For how long after its end.
    pub keep_after_end: Duration,
    /// Samples in the store.
    pub max_samples: usize,
}

/// The features of running and recent detections, and the store of verdicts.
pub struct Feedback {
    sessions: Arc<Sessions>,
    store: Arc<FeedbackStore>,
    clock: Arc<dyn Clock>,
}

/// What became of a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reported {
    /// Segments whose features were stored.
    pub stored: usize,
    /// Segments without features: no longer there, or never computed because nothing moved.
    pub missing: usize,
}

impl Feedback {
    /// Opens the store and keeps nothing yet.
    ///
    /// Fails as [`FeedbackStore::open`].
    pub fn open(options: FeedbackOptions, clock: Arc<dyn Clock>) -> Result<Feedback> {
        let store = FeedbackStore::open(&options.dir, options.max_samples)?;
        Ok(Feedback {
            sessions: Arc::new(Sessions::new(
                options.ring,
                options.keep_after_end,
                clock.clone(),
            )),
            store: Arc::new(store),
            clock,
        })
    }

    /// For a detection that begins; it counts as ended when the recorder is dropped. `session` must
    /// be its own; `source` is the camera or file where it has one, without secrets.
    pub fn recorder(&self, session: &str, source: Option<String>) -> Arc<Recorder> {
        Sessions::begin(&self.sessions, session, source)
    }

    /// Takes a verdict: what is still there of its segments becomes samples. A later verdict on the
    /// same event or interval replaces the earlier one. Writes a file: blocks.
    ///
    /// Fails with `NotFound` for a detection or an event that is unknown or forgotten, with
    /// `InvalidArgument` for an interval without scored segments, and with what writing fails with.
    pub fn report(&self, session: &str, statement: Statement) -> Result<Reported> {
        let Judged { source, entries } = self.sessions.judged(session, statement)?;
        let Some(last) = entries.last() else {
            return Err(Error::internal("a verdict on no segment"));
        };
        let most = limits::FEEDBACK_REPORT_SEGMENTS_MAX.min(self.store.max_samples());
        let mut report = Report::new(
            session,
            source,
            statement,
            &last.binding,
            unix_seconds(self.clock.wall()),
        );
        let mut z = Vec::new();
        let with_features = entries.iter().filter(|entry| entry.z.is_some()).count();
        let held = entries
            .iter()
            .filter_map(|entry| entry.z.as_ref().map(|features| (entry, features)))
            .skip(with_features.saturating_sub(most));
        for (entry, features) in held {
            let binding = report.bind(&entry.binding);
            report.samples.push(SampleInfo {
                binding,
                segment: entry.segment,
                first_frame: entry.span.first_frame,
                last_frame: entry.span.last_frame,
                start_ns: entry.span.start.as_nanos(),
                end_ns: entry.span.end.as_nanos(),
                p: entry.p,
            });
            z.extend_from_slice(features);
        }
        let reported = Reported {
            stored: report.samples.len(),
            missing: entries.len() - report.samples.len(),
        };
        let verdict = report.verdict;
        self.store.put(report, &z)?;
        counted::reported(verdict, reported.stored, reported.missing);
        Ok(reported)
    }

    /// The verdicts so far.
    pub fn store(&self) -> Arc<FeedbackStore> {
        self.store.clone()
    }
}

/// 0 for a clock that stands before 1970.
fn unix_seconds(now: SystemTime) -> u64 {
    now.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
