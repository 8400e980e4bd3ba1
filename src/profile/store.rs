//! A directory of profiles, one of which is active.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use crate::{
    error::{Error, Kind, Result, ResultExt},
    limits,
};

use super::{Profile, check_name};

const EXTENSION: &str = "json";

/// A directory of `NAME.json` files, one of which may be active. What is active stays in memory
/// as it was when it was activated; the others are read when they are asked for.
pub struct ProfileStore {
    directory: PathBuf,
    active: RwLock<Option<Arc<Profile>>>,
}

/// One file of a store.
#[derive(Debug)]
pub struct ProfileEntry {
    /// Name, as `get` takes it.
    pub name: String,
    /// Whether an empty name selects it.
    pub active: bool,
    /// The profile, or why it cannot be used.
    pub profile: Result<Arc<Profile>>,
}

impl ProfileStore {
    /// Opens a directory and activates a profile in it; `None` or an empty name activates none.
    pub fn open(directory: impl Into<PathBuf>, active: Option<&str>) -> Result<ProfileStore> {
        let directory = directory.into();
        let metadata = fs::metadata(&directory).or_kind(Kind::NotFound, || {
            format!("no profile directory {}", directory.display())
        })?;
        if !metadata.is_dir() {
            return Err(Error::precondition(format!(
                "{} is not a directory",
                directory.display()
            )));
        }
        let store = ProfileStore {
            directory,
            active: RwLock::new(None),
        };
        if let Some(name) = active.filter(|name| !name.is_empty()) {
            store.activate(name)?;
        }
        Ok(store)
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The profile of that name; an empty name is the active one. Reads a file: blocks.
    ///
    /// Fails with `NotFound` where there is none, `FailedPrecondition` where an empty name finds
    /// no active one, `InvalidArgument` for a name that cannot be one, and as [`Profile::load`].
    pub fn get(&self, name: &str) -> Result<Arc<Profile>> {
        let active = self.active();
        match active {
            Some(active) if name.is_empty() || active.name == name => Ok(active),
            None if name.is_empty() => Err(Error::precondition(
                "no profile is active: name one, or activate one",
            )),
            _ => self.load(name).map(Arc::new),
        }
    }

    /// The active profile.
    pub fn active(&self) -> Option<Arc<Profile>> {
        self.active
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Reads a profile and makes it the active one. Detections that run keep theirs.
    pub fn activate(&self, name: &str) -> Result<Arc<Profile>> {
        let profile = Arc::new(self.load(name)?);
        *self.active.write().unwrap_or_else(PoisonError::into_inner) = Some(profile.clone());
        Ok(profile)
    }

    /// Writes a profile under its name; one of that name is replaced. The active one stays as it
    /// was until it is activated again.
    pub fn put(&self, profile: &Profile) -> Result<()> {
        profile.save(self.path(&profile.name)?)
    }

    /// Every profile, by name. Files with other names are left out.
    ///
    /// Fails with `ResourceExhausted` where the directory holds more than it may.
    pub fn list(&self) -> Result<Vec<ProfileEntry>> {
        let failed = || format!("cannot list {}", self.directory.display());
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.directory).or_kind(Kind::FailedPrecondition, failed)? {
            let path = entry.or_kind(Kind::FailedPrecondition, failed)?.path();
            let stem = path.file_stem().and_then(|stem| stem.to_str());
            if path.extension().is_some_and(|ext| ext == EXTENSION)
                && let Some(name) = stem.filter(|name| check_name(name).is_ok())
            {
                names.push(name.to_owned());
            }
            if names.len() > limits::PROFILES_MAX {
                return Err(Error::exhausted(format!(
                    "{} holds more than {} profiles: move some away",
                    self.directory.display(),
                    limits::PROFILES_MAX
                )));
            }
        }
        names.sort();
        let active = self.active();
        Ok(names
            .into_iter()
            .map(|name| ProfileEntry {
                active: active.as_ref().is_some_and(|active| active.name == name),
                profile: self.get(&name),
                name,
            })
            .collect())
    }

    fn load(&self, name: &str) -> Result<Profile> {
        let path = self.path(name)?;
        let profile = Profile::load(&path).map_err(|error| match error.kind() {
            Kind::NotFound => {
                Error::not_found(format!("no profile named {name:?}")).with_source(error)
            }
            _ => error,
        })?;
        if profile.name != name {
            return Err(Error::data_loss(format!(
                "{} holds a profile named {:?}: rename the file or calibrate anew",
                path.display(),
                profile.name
            )));
        }
        Ok(profile)
    }

    fn path(&self, name: &str) -> Result<PathBuf> {
        check_name(name)?;
        Ok(self.directory.join(format!("{name}.{EXTENSION}")))
    }
}
