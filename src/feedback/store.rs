//! The verdicts on disk: one file a report, named by what it is about, so that a later verdict takes
//! the place of the earlier one in one rename.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::{
    error::{Error, Kind, Result, ResultExt as _},
    head::HeadId,
    limits,
    telemetry::feedback as counted,
};

use super::{
    file::{self, Stored},
    report::{Report, Verdict},
};

const EXTENSION: &str = "safetensors";
const LOCK: &str = ".lock";

/// A directory of reports, the oldest of which give way once there are more samples than may be. One
/// process at a time owns it.
pub struct FeedbackStore {
    directory: PathBuf,
    max_samples: usize,
    state: Mutex<State>,
    /// Let go of when it is closed.
    _lock: File,
}

#[derive(Default)]
struct State {
    /// In the order of their coming.
    reports: BTreeMap<u64, Known>,
    by_key: HashMap<String, u64>,
    /// Samples, a report without any counting as one.
    weight: usize,
    samples: usize,
    /// Profiles whose precision is exported.
    labelled: BTreeSet<String>,
}

/// What is known of a report without reading it.
struct Known {
    key: String,
    verdict: Verdict,
    profile: String,
    version: String,
    weight: usize,
    samples: usize,
}

/// One labelled segment.
#[derive(Clone, Debug, PartialEq)]
pub struct FeedbackSample {
    /// Stable and unique within the store: session and segment.
    pub id: String,
    /// f32 `[heads * head_dim]`, heads in the order that was asked for.
    pub z: Vec<f32>,
    /// Its label.
    pub anomaly: bool,
    /// What belongs together when samples are split: the camera or file, for an upload the session.
    pub group: String,
}

/// The samples of a store that belong to what was asked for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FeedbackSamples {
    /// These, in the order of their coming.
    pub usable: Vec<FeedbackSample>,
    /// How many others there are: of another model, other heads, another prompt or sampling.
    pub unusable: usize,
}

impl FeedbackStore {
    /// Opens a directory, which is made where it is missing, and reads what is there. Files that
    /// cannot be read are logged, counted and left alone. Blocks.
    ///
    /// Fails with `FailedPrecondition` where the directory cannot be used or another process owns
    /// it, and with `InvalidArgument` where no sample may be stored.
    pub fn open(directory: &Path, max_samples: usize) -> Result<FeedbackStore> {
        if !(1..=limits::FEEDBACK_SAMPLES_MAX).contains(&max_samples) {
            return Err(Error::invalid(format!(
                "feedback.max_samples is {max_samples}; it must be 1 to {}",
                limits::FEEDBACK_SAMPLES_MAX
            ))
            .with_field("feedback.max_samples"));
        }
        let cannot = || format!("feedback.dir = {} cannot be used", directory.display());
        fs::create_dir_all(directory).or_kind(Kind::FailedPrecondition, cannot)?;
        let lock = File::create(directory.join(LOCK)).or_kind(Kind::FailedPrecondition, cannot)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::precondition(format!(
                    "feedback.dir = {} belongs to another process: give each server its own",
                    directory.display()
                )));
            }
            Err(TryLockError::Error(error)) => {
                return Err(Error::new(Kind::FailedPrecondition, cannot()).with_source(error));
            }
        }
        let mut state = State::default();
        let mut damaged = 0;
        for entry in fs::read_dir(directory).or_kind(Kind::FailedPrecondition, cannot)? {
            let path = entry.or_kind(Kind::FailedPrecondition, cannot)?.path();
            let name = path.file_name().map(|name| name.to_string_lossy());
            if name.is_some_and(|name| name.starts_with(file::UNFINISHED)) {
                file::remove(&path)?;
            } else if path.extension().is_some_and(|ext| ext == EXTENSION) {
                match read_own(&path) {
                    Ok(report) => state.add(&report),
                    Err(error) => {
                        damaged += 1;
                        tracing::error!("{error:#}");
                    }
                }
            }
        }
        counted::damaged(damaged);
        let store = FeedbackStore {
            directory: directory.to_owned(),
            max_samples,
            state: Mutex::new(state),
            _lock: lock,
        };
        let mut state = store.lock();
        store.shrink(&mut state)?;
        for profile in state.profiles() {
            state.tell_precision(&profile);
        }
        drop(state);
        Ok(store)
    }

    /// Most samples that are kept.
    pub fn max_samples(&self) -> usize {
        self.max_samples
    }

    /// Samples that are there.
    pub fn len(&self) -> usize {
        self.lock().samples
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The samples of this model, these heads in this order, this prompt and sampling. A segment with
    /// several verdicts has the label of the latest. Reads files: blocks.
    ///
    /// `model` is the fingerprint of the layers that the heads need. Fails with `DataLoss` for a file
    /// that was damaged since it was written.
    pub fn samples_for(
        &self,
        model: &str,
        heads: &[HeadId],
        prompt: &str,
        frames_per_segment: usize,
    ) -> Result<FeedbackSamples> {
        let state = self.lock();
        let mut seen = HashSet::new();
        let mut found = FeedbackSamples::default();
        for known in state
            .reports
            .values()
            .rev()
            .filter(|known| known.samples > 0)
        {
            let Stored { report, z } = file::read(&self.path(&known.key))?;
            // Backwards, so that all of it is in order in the end.
            let mut end = z.len();
            for sample in report.samples.iter().rev() {
                let Some(binding) = report.bindings.get(sample.binding) else {
                    continue; // refused when it was read
                };
                let numbers = &z[end - binding.numbers()..end];
                end -= binding.numbers();
                if !seen.insert((report.session.clone(), sample.segment)) {
                    continue;
                }
                let place = binding.prompts.iter().position(|known| known == prompt);
                let belongs = binding.model == model
                    && binding.heads == heads
                    && binding.frames_per_segment == frames_per_segment;
                match place.filter(|_| belongs) {
                    Some(place) => found.usable.push(FeedbackSample {
                        id: format!("{}/{}", report.session, sample.segment),
                        z: numbers[place * binding.width()..][..binding.width()].to_vec(),
                        anomaly: report.verdict.is_anomaly(),
                        group: report.source.clone().unwrap_or(report.session.clone()),
                    }),
                    None => found.unusable += 1,
                }
            }
        }
        drop(state);
        found.usable.reverse();
        counted::unusable(found.unusable);
        Ok(found)
    }

    /// Writes a report and its features over an earlier one on the same subject, then lets the oldest
    /// go where there are too many. Blocks.
    pub(super) fn put(&self, mut report: Report, z: &[f32]) -> Result<()> {
        report.check(z.len())?;
        let mut state = self.lock();
        report.sequence = state.next();
        file::write(&self.path(&report.key()), &report, z)?;
        state.add(&report);
        self.shrink(&mut state)?;
        state.tell_precision(&report.profile);
        Ok(())
    }

    fn path(&self, key: &str) -> PathBuf {
        self.directory.join(format!("{key}.{EXTENSION}"))
    }

    /// Nothing that runs under the lock leaves the index half-way, so a poisoned one is still sound.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the oldest reports go while there is too much. The newest always stays.
    fn shrink(&self, state: &mut State) -> Result<()> {
        let mut gone = 0;
        while state.weight > self.max_samples
            && state.reports.len() > 1
            && let Some((sequence, known)) = state.reports.pop_first()
        {
            let removed = file::remove(&self.path(&known.key));
            if let Err(error) = removed {
                state.reports.insert(sequence, known);
                return Err(error);
            }
            gone += known.samples;
            state.forget(&known);
        }
        if gone > 0 {
            file::sync(&self.directory)?;
            counted::dropped(gone);
        }
        counted::samples(state.samples);
        Ok(())
    }
}

/// A report that lies under its own name: under another one it would not be found again.
fn read_own(path: &Path) -> Result<Report> {
    let Stored { report, .. } = file::read(path)?;
    let key = report.key();
    if path.file_stem().is_none_or(|stem| stem != key.as_str()) {
        return Err(Error::data_loss(format!(
            "feedback report {} belongs under the name {key}.{EXTENSION}: it was renamed or copied",
            path.display()
        )));
    }
    Ok(report)
}

impl State {
    fn next(&self) -> u64 {
        self.reports
            .last_key_value()
            .map_or(0, |(newest, _)| newest.saturating_add(1))
    }

    fn add(&mut self, report: &Report) {
        let known = Known {
            key: report.key(),
            verdict: report.verdict,
            profile: report.profile.clone(),
            version: report.version.clone(),
            weight: report.weight(),
            samples: report.samples.len(),
        };
        if let Some(earlier) = self.by_key.get(&known.key).copied()
            && let Some(earlier) = self.reports.remove(&earlier)
        {
            self.forget(&earlier);
        }
        // Two files with one number: somebody has copied one. The next number is as good.
        let mut sequence = report.sequence;
        while self.reports.contains_key(&sequence) {
            sequence = sequence.saturating_add(1);
        }
        self.weight += known.weight;
        self.samples += known.samples;
        self.by_key.insert(known.key.clone(), sequence);
        self.reports.insert(sequence, known);
    }

    fn forget(&mut self, known: &Known) {
        self.by_key.remove(&known.key);
        self.weight -= known.weight;
        self.samples -= known.samples;
    }

    fn profiles(&self) -> BTreeSet<String> {
        let names = self.reports.values().map(|known| known.profile.clone());
        names.collect()
    }

    /// Confirmed events in parts of the judged ones, of the version that the latest of these verdicts
    /// is about: what was said of an older one says nothing of it.
    fn precision(&self, profile: &str) -> Option<f64> {
        let judged = || {
            let reports = self.reports.values();
            reports.filter(|known| known.profile == profile && known.verdict != Verdict::Missed)
        };
        let version = &judged().next_back()?.version;
        let (mut confirmed, mut all) = (0.0, 0.0);
        for known in judged().filter(|known| known.version == *version) {
            all += 1.0;
            confirmed += f64::from(u8::from(known.verdict == Verdict::Confirmed));
        }
        Some(confirmed / all)
    }

    fn tell_precision(&mut self, profile: &str) {
        if !self.labelled.contains(profile) {
            if self.labelled.len() >= limits::FEEDBACK_PROFILES_LABELLED_MAX {
                return;
            }
            self.labelled.insert(profile.to_owned());
        }
        if let Some(precision) = self.precision(profile) {
            counted::precision(profile, precision);
        }
    }
}

#[cfg(test)]
mod tests;
