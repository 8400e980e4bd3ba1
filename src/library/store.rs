//! The library: its index, and what changes it.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicUsize},
    time::{SystemTime, UNIX_EPOCH},
};

use super::{Clip, Labelled, Stored, Upload, clip::is_id, disk, features::Features, quota::Quota};
use crate::{
    error::{Error, Kind, Result, ResultExt},
    limits,
};

/// Bounds of a library.
#[derive(Clone, Debug)]
pub struct LibraryLimits {
    /// Bytes of clips, features and uploads under way.
    pub quota_bytes: u64,
    /// Bytes of one clip.
    pub clip_max_bytes: u64,
    /// Folders below which manifests may be imported.
    pub import_roots: Vec<PathBuf>,
}

/// Labelled clips and kept features in a directory. All of its methods may block on the disk.
#[derive(Debug)]
pub struct Library {
    directory: PathBuf,
    limits: LibraryLimits,
    quota: Arc<Quota>,
    uploads: Arc<AtomicUsize>,
    state: Mutex<State>,
    /// Held for as long as the library is open.
    _lock: File,
}

/// A clip's place in the order of a list.
type Place = (u64, String);

#[derive(Debug, Default)]
struct State {
    clips: BTreeMap<Place, Clip>,
    created: HashMap<String, u64>,
    /// Jobs that read a clip.
    pins: HashMap<String, usize>,
    features: Features,
}

/// Some clips of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The clips, oldest first, each with the number of feature sets kept of it.
    pub clips: Vec<(Clip, usize)>,
    /// For the next page; `None`: these were the last.
    pub next: Option<String>,
}

/// Clips that a job reads: while it lives, they and their features stay on disk.
#[derive(Debug)]
pub struct Pin {
    library: Arc<Library>,
    ids: Vec<String>,
}

/// Kept features give way to the quota, not to a disk that is full before.
fn warn_of_a_small_disk(directory: &Path, used: u64, quota_bytes: u64) {
    let Ok(disk) = rustix::fs::statvfs(directory) else {
        return;
    };
    let room = used.saturating_add(disk.f_bavail.saturating_mul(disk.f_frsize));
    if room < quota_bytes {
        tracing::warn!(
            quota_bytes,
            room,
            "the disk under admin.dir has less room than admin.quota_bytes: it may fill up, and then neither profiles nor feedback can be written; set a lower quota"
        );
    }
}

impl Library {
    /// Opens a directory, which is made where there is none. Removes what a crash left half done.
    ///
    /// Fails with `FailedPrecondition` where another server uses it or it cannot be read.
    pub fn open(directory: impl Into<PathBuf>, limits: LibraryLimits) -> Result<Arc<Library>> {
        let directory = directory.into();
        let unusable = || format!("admin.dir = {} cannot be used", directory.display());
        for folder in ["clips", "features"] {
            fs::create_dir_all(directory.join(folder))
                .or_kind(Kind::FailedPrecondition, unusable)?;
        }
        let lock =
            File::create(directory.join("lock")).or_kind(Kind::FailedPrecondition, unusable)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::precondition(format!(
                    "admin.dir = {} is in use by another server: give each its own",
                    directory.display()
                ))
                .with_field("admin.dir"));
            }
            Err(TryLockError::Error(error)) => {
                return Err(Error::precondition(unusable()).with_source(error));
            }
        }
        let mut state = State::default();
        let clips =
            read_clips(&directory.join("clips")).or_kind(Kind::FailedPrecondition, unusable)?;
        let mut used = 0;
        for clip in clips {
            used += clip.size_bytes;
            state.created.insert(clip.id.clone(), clip.created_unix_ns);
            state
                .clips
                .insert((clip.created_unix_ns, clip.id.clone()), clip);
        }
        state.features = Features::scan(directory.join("features"), &|id| {
            state.created.contains_key(id)
        })
        .or_kind(Kind::FailedPrecondition, unusable)?;
        used += state.features.bytes();
        warn_of_a_small_disk(&directory, used, limits.quota_bytes);
        Ok(Arc::new(Library {
            quota: Quota::new(used, limits.quota_bytes),
            directory,
            limits,
            uploads: Arc::default(),
            state: Mutex::new(state),
            _lock: lock,
        }))
    }

    /// Bytes of clips, features and uploads under way, and the most that they may have.
    pub fn bytes(&self) -> (u64, u64) {
        (self.quota.used(), self.quota.most())
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    pub(super) fn limits(&self) -> &LibraryLimits {
        &self.limits
    }

    pub(super) fn quota(&self) -> &Arc<Quota> {
        &self.quota
    }

    pub(super) fn clips_dir(&self) -> PathBuf {
        self.directory.join("clips")
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn with_features<T>(&self, use_them: impl FnOnce(&mut Features) -> T) -> T {
        use_them(&mut self.state().features)
    }

    /// Begins to store a clip.
    ///
    /// Fails with `InvalidArgument` for a name that is too long, and with `ResourceExhausted` where
    /// too many uploads run or the disk is full.
    pub fn begin(self: &Arc<Self>, name: String, labelled: Labelled) -> Result<Upload> {
        Upload::begin(self.clone(), self.uploads.clone(), name, labelled)
    }

    /// Takes bytes of the quota; features that no job reads make room, the longest unused first.
    pub(super) fn make_room(&self, bytes: u64) -> Result<()> {
        while let Err(missing) = self.quota.take(bytes) {
            let freed = self.with_features(|features| features.drop_oldest(missing));
            if freed == 0 {
                return Err(self.quota.exhausted());
            }
            self.quota.give_back(freed);
            tracing::info!(bytes = freed, "kept features made room");
        }
        Ok(())
    }

    /// Puts a clip whose bytes `place` moves to the path that it is given. Tells whether the bytes
    /// are new.
    pub(super) fn store(
        &self,
        id: String,
        name: String,
        labelled: Labelled,
        size: u64,
        place: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<(Stored, bool)> {
        const WHAT: &str = "the clip could not be stored";
        let mut state = self.state();
        let known = state
            .created
            .get(&id)
            .copied()
            .and_then(|created| state.clips.get(&(created, id.clone())));
        let again = known.is_some();
        match known {
            Some(clip) if !clip.deleted => {
                if clip.labelled() != labelled {
                    return Err(Error::already_exists(format!(
                        "clip {id} ({}) is stored with another label or other intervals: relabel \
                         it",
                        clip.name
                    )));
                }
                let stored = Stored {
                    clip: clip.clone(),
                    already_stored: true,
                };
                return Ok((stored, false));
            }
            _ => {}
        }
        if !again && state.clips.len() >= limits::LIBRARY_CLIPS_MAX {
            return Err(Error::exhausted(format!(
                "{} clips are stored, and no more are taken: delete some",
                limits::LIBRARY_CLIPS_MAX
            ))
            .for_good());
        }
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_nanos() as u64);
        // The order of a list is the order of storing, also where the clock is set back.
        let last = state.clips.last_key_value().map_or(0, |(place, _)| place.0);
        let clip = Clip::new(id.clone(), name, labelled, size, now.max(last + 1));
        let path = self.clips_dir().join(&id);
        if !again {
            place(&path)?;
        }
        let written = disk::write_json(&record_path(&path), &clip, WHAT);
        if let Err(error) = written {
            if !again {
                disk::remove(&path);
            }
            return Err(error);
        }
        // Deleted and stored again while a job reads it: the same bytes, a new clip.
        if let Some(before) = state.created.insert(id.clone(), clip.created_unix_ns) {
            state.clips.remove(&(before, id.clone()));
        }
        state.clips.insert((clip.created_unix_ns, id), clip.clone());
        let stored = Stored {
            clip,
            already_stored: false,
        };
        Ok((stored, !again))
    }

    /// Clips from the one after `token` on, oldest first.
    ///
    /// Fails with `InvalidArgument` for a token that no list gave.
    pub fn list(&self, most: usize, token: &str) -> Result<Page> {
        let from = if token.is_empty() {
            None
        } else {
            Some(parse_token(token)?)
        };
        let state = self.state();
        let after = from.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        let mut listed = state
            .clips
            .range((after, std::ops::Bound::Unbounded))
            .filter(|(_, clip)| !clip.deleted);
        let clips: Vec<_> = listed
            .by_ref()
            .take(most)
            .map(|(_, clip)| (clip.clone(), state.features.of(&clip.id)))
            .collect();
        let more = listed.next().is_some();
        let next = clips
            .last()
            .filter(|_| more)
            .map(|(clip, _)| format!("{:020}-{}", clip.created_unix_ns, clip.id));
        Ok(Page { clips, next })
    }

    /// Every clip, oldest first.
    pub fn all(&self) -> Vec<Clip> {
        let state = self.state();
        let listed = state.clips.values().filter(|clip| !clip.deleted);
        listed.cloned().collect()
    }

    /// One clip and the number of feature sets kept of it.
    ///
    /// Fails with `NotFound`.
    pub fn get(&self, id: &str) -> Result<(Clip, usize)> {
        let state = self.state();
        let clip = state.get(id)?;
        Ok((clip.clone(), state.features.of(id)))
    }

    /// Replaces label and intervals.
    ///
    /// Fails with `NotFound`, and where the disk refuses.
    pub fn relabel(&self, id: &str, labelled: Labelled) -> Result<(Clip, usize)> {
        let mut state = self.state();
        let mut clip = state.get(id)?.clone();
        clip.relabel(labelled);
        self.rewrite(&mut state, &clip)?;
        Ok((clip, state.features.of(id)))
    }

    /// Notes how many frames a clip was found to have. A clip that is gone needs no note.
    pub fn set_frames(&self, id: &str, frames: u64) -> Result<()> {
        let mut state = self.state();
        let Some(clip) = state.find(id) else {
            return Ok(());
        };
        if clip.frames == frames {
            return Ok(());
        }
        let mut clip = clip.clone();
        clip.frames = frames;
        self.rewrite(&mut state, &clip)
    }

    /// Deletes a clip and its features; at once, or when the job that reads it ends.
    ///
    /// Fails with `NotFound`, and where the disk refuses.
    pub fn delete(&self, id: &str) -> Result<()> {
        let mut state = self.state();
        let mut clip = state.get(id)?.clone();
        // Written first, so that a crash in the middle leaves no clip without its features.
        clip.deleted = true;
        self.rewrite(&mut state, &clip)?;
        self.sweep(&mut state, id);
        Ok(())
    }

    /// Keeps clips on disk until the pin is dropped, deleted ones too.
    ///
    /// Fails with `NotFound` for an id that is not there any more.
    pub fn pin(self: &Arc<Self>, ids: Vec<String>) -> Result<Pin> {
        let mut state = self.state();
        for id in &ids {
            if state.find(id).is_none() {
                return Err(gone(id));
            }
        }
        for id in &ids {
            *state.pins.entry(id.clone()).or_default() += 1;
        }
        Ok(Pin {
            library: self.clone(),
            ids,
        })
    }

    /// Removes deleted clips that nothing reads; once, when the jobs of a former run have pinned
    /// theirs.
    pub fn sweep_deleted(&self) {
        let mut state = self.state();
        let deleted: Vec<String> = state
            .clips
            .values()
            .filter(|clip| clip.deleted)
            .map(|clip| clip.id.clone())
            .collect();
        for id in deleted {
            self.sweep(&mut state, &id);
        }
    }

    /// Where a clip's bytes are.
    pub fn path(&self, id: &str) -> PathBuf {
        self.clips_dir().join(id)
    }

    fn rewrite(&self, state: &mut State, clip: &Clip) -> Result<()> {
        let path = record_path(&self.path(&clip.id));
        disk::write_json(&path, clip, "the clip's record could not be written")?;
        state
            .clips
            .insert((clip.created_unix_ns, clip.id.clone()), clip.clone());
        Ok(())
    }

    /// Removes a clip that is deleted and read by nothing.
    fn sweep(&self, state: &mut State, id: &str) {
        let deleted = state.find(id).is_some_and(|clip| clip.deleted);
        if !deleted || state.pins.contains_key(id) {
            return;
        }
        let path = self.path(id);
        // The record first: bytes without one are no clip.
        disk::remove(&record_path(&path));
        disk::remove(&path);
        let mut freed = state.features.drop_all(id);
        if let Some(created) = state.created.remove(id)
            && let Some(clip) = state.clips.remove(&(created, id.to_owned()))
        {
            freed += clip.size_bytes;
        }
        self.quota.give_back(freed);
    }
}

impl State {
    /// Deleted ones too.
    fn find(&self, id: &str) -> Option<&Clip> {
        let created = self.created.get(id)?;
        self.clips.get(&(*created, id.to_owned()))
    }

    fn get(&self, id: &str) -> Result<&Clip> {
        self.find(id)
            .filter(|clip| !clip.deleted)
            .ok_or_else(|| gone(id))
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut state = self.library.state();
        for id in &self.ids {
            let left = state.pins.get(id).map_or(0, |n| n.saturating_sub(1));
            if left == 0 {
                state.pins.remove(id);
                self.library.sweep(&mut state, id);
            } else {
                state.pins.insert(id.clone(), left);
            }
        }
    }
}

fn gone(id: &str) -> Error {
    let shown: String = id.chars().take(80).collect();
    Error::not_found(format!("there is no clip {}", shown.escape_debug())).with_field("id")
}

fn record_path(clip: &Path) -> PathBuf {
    clip.with_extension("json")
}

fn parse_token(token: &str) -> Result<Place> {
    token
        .split_once('-')
        .filter(|(_, id)| is_id(id))
        .and_then(|(created, id)| Some((created.parse().ok()?, id.to_owned())))
        .ok_or_else(|| Error::invalid("no page_token that a list gave").with_field("page_token"))
}

/// The clips of a folder; what is no whole clip is removed, and said.
fn read_clips(folder: &Path) -> std::io::Result<Vec<Clip>> {
    let mut names = HashSet::new();
    for entry in fs::read_dir(folder)? {
        if let Ok(name) = entry?.file_name().into_string() {
            names.insert(name);
        }
    }
    let mut clips = Vec::new();
    for name in &names {
        let path = folder.join(name);
        if name.starts_with(disk::NEW.prefix) {
            tracing::info!(name, "an upload that did not end is removed");
            disk::remove(&path);
        } else if is_id(name) && !names.contains(&format!("{name}.json")) {
            tracing::info!(name, "a clip without a record is removed");
            disk::remove(&path);
        } else if let Some(id) = name.strip_suffix(".json").filter(|id| is_id(id)) {
            let record: Option<Clip> = disk::read_json(&path, limits::CLIP_RECORD_MAX_BYTES);
            let size = fs::metadata(folder.join(id)).map(|data| data.len()).ok();
            match record {
                Some(clip) if clip.is_sound(id) && size == Some(clip.size_bytes) => {
                    clips.push(clip);
                }
                _ => tracing::error!(
                    path = %path.display(),
                    "a clip's record or bytes are damaged: it is left out; store it again"
                ),
            }
        }
    }
    Ok(clips)
}
