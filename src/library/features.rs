//! Which features are kept, and of what.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    time::SystemTime,
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{clip::is_id, disk};
use crate::{
    engine::probe::ProbeInfo,
    error::{Kind, Result, ResultExt},
    limits,
    segment::SegmentRule,
};

/// A finished set.
pub(super) const WHOLE: &str = ".safetensors";
/// The numbers of a set under way.
pub(super) const PART: &str = ".part";
/// What is known of each of its samples.
pub(super) const JOURNAL: &str = ".journal";

/// What one sample of a clip is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// All of it.
    WholeVideo,
    /// Its segments.
    Segments(SegmentRule),
}

/// What features depend on besides the clip's bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeatureKey {
    /// The model's over all of its layers.
    pub fingerprint: String,
    /// The type it computes in: features of f32 and of bf16 are not to be mixed in one hunt.
    pub dtype: String,
    /// Layers, heads per layer, numbers per head.
    pub shape: [usize; 3],
    /// What every sample was asked.
    pub prompts: Vec<String>,
    /// What a sample is.
    pub unit: Unit,
    /// Frames sampled per sample.
    pub frames_per_sample: usize,
}

impl FeatureKey {
    /// The key of all heads of this model.
    pub fn new(
        info: &ProbeInfo,
        fingerprint: String,
        prompts: Vec<String>,
        unit: Unit,
        frames_per_sample: usize,
    ) -> FeatureKey {
        FeatureKey {
            fingerprint,
            dtype: info.dtype.clone(),
            shape: [info.layers, info.heads, info.head_dim],
            prompts,
            unit,
            frames_per_sample,
        }
    }

    /// Numbers of one sample.
    pub fn numbers(&self) -> usize {
        self.prompts.len() * self.shape.iter().product::<usize>()
    }

    pub(super) fn json(&self) -> Result<String> {
        serde_json::to_string(self).or_kind(Kind::Internal, || "a key of features".to_owned())
    }

    /// The name of a clip's set, without what follows.
    pub(super) fn stem(&self, clip: &str) -> Result<String> {
        let digest = Sha256::digest(self.json()?.as_bytes());
        let hex = digest.iter().take(12).fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        });
        Ok(format!("{clip}.{hex}"))
    }
}

/// A set on disk.
#[derive(Clone, Debug)]
struct Entry {
    clip: String,
    bytes: u64,
    used: SystemTime,
    whole: bool,
}

/// The sets of a folder, by stem.
#[derive(Debug, Default)]
pub(super) struct Features {
    folder: PathBuf,
    sets: BTreeMap<String, Entry>,
    /// Sets that a running job has read or made: they stay, or it would have to make them again
    /// after a restart.
    in_use: HashMap<String, usize>,
}

impl Features {
    /// Reads a folder. Sets of clips that are not there, and halves of sets, are removed.
    pub fn scan(folder: PathBuf, is_clip: &dyn Fn(&str) -> bool) -> std::io::Result<Features> {
        let mut files: HashMap<String, Vec<(String, u64, SystemTime)>> = HashMap::new();
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            let data = entry.metadata()?;
            let used = data.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            let ending = [WHOLE, PART, JOURNAL]
                .into_iter()
                .find_map(|ending| Some((name.strip_suffix(ending)?, ending)));
            match ending {
                Some((stem, ending)) => {
                    let set = files.entry(stem.to_owned()).or_default();
                    set.push((ending.to_owned(), data.len(), used));
                }
                None => disk::remove(&entry.path()),
            }
        }
        let mut sets = BTreeMap::new();
        for (stem, found) in files {
            let has = |ending: &str| found.iter().find(|(e, ..)| e == ending);
            let clip = stem.split('.').next().unwrap_or_default();
            let known = is_id(clip) && is_clip(clip);
            let drop = |ending: &str| disk::remove(&folder.join(format!("{stem}{ending}")));
            let (kept, whole) = match (has(WHOLE), has(PART), has(JOURNAL)) {
                (Some(whole), ..) if known => {
                    // The crash came between the rename and the journal's removal.
                    drop(PART);
                    drop(JOURNAL);
                    (whole, true)
                }
                (None, Some(part), Some(_)) if known => (part, false),
                _ => {
                    for ending in [WHOLE, PART, JOURNAL] {
                        drop(ending);
                    }
                    continue;
                }
            };
            let entry = Entry {
                clip: clip.to_owned(),
                bytes: kept.1,
                used: kept.2,
                whole,
            };
            sets.insert(stem, entry);
        }
        Ok(Features {
            folder,
            sets,
            in_use: HashMap::new(),
        })
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Of all sets.
    pub fn bytes(&self) -> u64 {
        self.sets.values().map(|set| set.bytes).sum()
    }

    /// Of one set; 0 where there is none.
    pub fn bytes_of(&self, stem: &str) -> u64 {
        self.sets.get(stem).map_or(0, |set| set.bytes)
    }

    /// How many finished sets there are of a clip.
    pub fn of(&self, clip: &str) -> usize {
        self.stems(clip).count()
    }

    /// The finished sets of a clip.
    pub fn stems<'a>(&'a self, clip: &'a str) -> impl Iterator<Item = &'a String> {
        // Stems begin with the clip's id.
        self.sets
            .range(clip.to_owned()..)
            .take_while(move |(_, set)| set.clip == clip)
            .filter(|(_, set)| set.whole)
            .map(|(stem, _)| stem)
    }

    /// Notes that a set has so many bytes now, and was used.
    pub fn note(&mut self, clip: &str, stem: &str, bytes: u64, whole: bool) {
        let entry = Entry {
            clip: clip.to_owned(),
            bytes,
            used: SystemTime::now(),
            whole,
        };
        self.sets.insert(stem.to_owned(), entry);
    }

    /// Keeps a set from making room until it is [released](Self::release) as often.
    pub fn hold(&mut self, stem: &str) {
        *self.in_use.entry(stem.to_owned()).or_default() += 1;
        if let Some(set) = self.sets.get_mut(stem) {
            set.used = SystemTime::now();
        }
    }

    pub fn release(&mut self, stem: &str) {
        let left = self.in_use.get(stem).map_or(0, |n| n.saturating_sub(1));
        if left == 0 {
            self.in_use.remove(stem);
        } else {
            self.in_use.insert(stem.to_owned(), left);
        }
    }

    /// Removes a set; gives the bytes it had.
    pub fn drop_one(&mut self, stem: &str) -> u64 {
        for ending in [WHOLE, PART, JOURNAL] {
            disk::remove(&self.folder.join(format!("{stem}{ending}")));
        }
        self.sets.remove(stem).map_or(0, |set| set.bytes)
    }

    /// Removes every set of a clip; gives the bytes they had.
    pub fn drop_all(&mut self, clip: &str) -> u64 {
        let stems: Vec<String> = self
            .sets
            .iter()
            .filter(|(_, set)| set.clip == clip)
            .map(|(stem, _)| stem.clone())
            .collect();
        stems.iter().map(|stem| self.drop_one(stem)).sum()
    }

    /// Removes sets that nothing uses, the longest unused first, until so many bytes are free.
    pub fn drop_oldest(&mut self, bytes: u64) -> u64 {
        let mut idle: Vec<(SystemTime, String)> = self
            .sets
            .iter()
            .filter(|(stem, _)| !self.in_use.contains_key(*stem))
            .map(|(stem, set)| (set.used, stem.clone()))
            .collect();
        idle.sort();
        let mut freed = 0;
        for (_, stem) in idle {
            if freed >= bytes {
                break;
            }
            freed += self.drop_one(&stem);
        }
        freed
    }

    /// Makes room for one more set of a clip; gives the bytes that became free.
    pub fn bound(&mut self, clip: &str) -> u64 {
        let mut freed = 0;
        while self.of(clip) >= limits::KEPT_SETS_MAX {
            let oldest = self
                .stems(clip)
                .filter(|stem| !self.in_use.contains_key(*stem))
                .min_by_key(|stem| self.sets.get(*stem).map(|set| set.used))
                .cloned();
            match oldest {
                Some(stem) => freed += self.drop_one(&stem),
                None => break,
            }
        }
        freed
    }
}
