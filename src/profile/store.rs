//! A directory of profiles in versions.
//!
//! ```text
//! DIR/NAME.json                                  the current version, for people and for older servers
//! DIR/store/versions/NAME/NUMBER-VERSION.json    every version; NUMBER counts up in the order of adding
//! DIR/store/state.json                           what is current and active, and what was before
//! DIR/store/lock                                 flock of the process that may write
//! ```
//!
//! A version is the SHA-256 of a profile's content, and is never written again. An older server knows
//! `DIR/NAME.json` alone, and people put such files there by hand.
//!
//! **Crashes.** Every file is written beside its place, synced, renamed over it, and its directory
//! synced, so each is the old or the new one; what a killed writer left beside it is removed on
//! opening. One rename (or removal) decides each operation:
//!
//! - *Adding* is the rename of the version's file. The first version of a name becomes current with
//!   it: a name with versions that the state does not know was killed in between, and opening finishes it.
//! - *Activating and rolling back* are the rename of `state.json`. Then `NAME.json` is written, then
//!   `state.json` again, to say so. It always says which version `NAME.json` was last known to hold:
//!   where the file still holds that one and another is current, the writer was killed in between, and
//!   opening writes it. Where it holds neither, somebody else replaced it (by hand, or with an older
//!   version of this program): it is kept as a new version and becomes current.
//! - *Deleting* is the removal of the version's file (before it of `NAME.json`, where that holds it). The state may then go back to a version that is
//!   no longer there; opening forgets that.
//!
//! A state file that is damaged is an error, never a guess. A `NAME.json` that is damaged makes its
//! name unusable, until the file is whole, or gone and a version activated. Removing the `NAME.json` of
//! a profile withdraws the name: its versions stay, none is current. That of the active profile is
//! written again. A current version of a schema that the release before cannot read is not copied:
//! `NAME.json` stays what it was.
//!
//! One process writes. Others read the store as it was when they opened it, and may take over when that
//! one is gone.

mod disk;
mod open;
mod state;
mod write;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

pub use state::{Scope, Selected};

use self::{
    disk::{Layout, Lock},
    open::find,
    state::{State, check_version},
};
use super::{Profile, check_name};
use crate::error::{Error, Kind, Result};

/// A directory of profiles, each in versions, one profile active. Its methods read and write files:
/// they block.
#[derive(Debug)]
pub struct ProfileStore {
    layout: Layout,
    /// `None`: this process may not write.
    writer: Mutex<Option<Lock>>,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    state: State,
    /// By name, oldest first.
    kept: BTreeMap<String, Vec<Kept>>,
    /// Versions that are not in the store yet, since this process may not write.
    loose: BTreeMap<(String, String), Arc<Profile>>,
    /// Names whose `NAME.json` cannot be used, and why.
    refused: BTreeMap<String, (Kind, String)>,
}

/// A version in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Kept {
    number: u64,
    version: String,
}

/// One version in a store, or a name that cannot be used.
#[derive(Debug)]
pub struct ProfileEntry {
    /// Name.
    pub name: String,
    /// SHA-256 of the content, hex; empty for a `NAME.json` that cannot be read.
    pub version: String,
    /// The name alone selects it.
    pub current: bool,
    /// An empty name selects it.
    pub active: bool,
    /// The profile, or why it cannot be used.
    pub profile: Result<Arc<Profile>>,
}

impl ProfileStore {
    /// Opens a directory to read and write. `choice` is the active profile as long as no activation
    /// has been recorded; it need not exist.
    ///
    /// Fails with `NotFound` where there is no directory, `FailedPrecondition` where another process
    /// writes it, this one may not, or a later version of this program did, `ResourceExhausted` where
    /// it holds more than it may, and `DataLoss` where its state file is damaged.
    pub fn open(directory: impl Into<PathBuf>, choice: Option<&str>) -> Result<ProfileStore> {
        let store = ProfileStore {
            layout: Layout::new(directory.into())?,
            writer: Mutex::new(None),
            inner: Mutex::new(Inner::new(choice)),
        };
        store.take_over()?;
        Ok(store)
    }

    /// Opens a directory as it is now, to read: nothing is written, and no other process is in the
    /// way.
    ///
    /// Fails as [`open`](Self::open), but for other writers.
    pub fn read_only(directory: impl Into<PathBuf>, choice: Option<&str>) -> Result<ProfileStore> {
        let layout = Layout::new(directory.into())?;
        let (inner, _) = open::read(&layout, choice)?;
        Ok(ProfileStore {
            layout,
            writer: Mutex::new(None),
            inner: Mutex::new(inner),
        })
    }

    /// Opens a directory to read and write, or to read where another process writes it or this one
    /// may not: with a warning in the log.
    ///
    /// Fails as [`read_only`](Self::read_only).
    pub fn open_or_read(
        directory: impl Into<PathBuf>,
        choice: Option<&str>,
    ) -> Result<ProfileStore> {
        let directory = directory.into();
        match ProfileStore::open(&directory, choice) {
            Err(error)
                if matches!(
                    error.kind(),
                    Kind::FailedPrecondition | Kind::ResourceExhausted
                ) =>
            {
                let store = ProfileStore::read_only(directory, choice)?;
                tracing::warn!("profiles cannot be added or activated for now: {error:#}");
                Ok(store)
            }
            opened => opened,
        }
    }

    /// Becomes the process that writes, where it is not yet, and reads anew what is there: another
    /// process that had the directory may have left.
    ///
    /// Fails as [`open`](Self::open); then everything is as it was.
    pub fn take_over(&self) -> Result<()> {
        let mut writer = self.writer();
        if writer.is_some() {
            return Ok(());
        }
        let lock = self.layout.make().and_then(|()| self.layout.take())?;
        self.layout.sweep()?;
        let choice = self.inner().state.choice.clone();
        let (mut inner, todo) = open::read(&self.layout, choice.as_deref())?;
        self.settle(&mut inner, todo)?;
        *self.inner() = inner;
        *writer = Some(lock);
        Ok(())
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        self.layout.root()
    }

    /// Name of the active profile, which need not exist.
    pub fn active(&self) -> Option<String> {
        self.inner().state.active().map(str::to_owned)
    }

    /// Whether an activation chose the active profile; else the configuration did.
    pub fn is_activated(&self) -> bool {
        self.inner().state.is_activated()
    }

    /// Every name with the version that it alone selects, or why there is none.
    pub fn names(&self) -> Vec<(String, Result<String>)> {
        let inner = self.inner();
        let mut names: Vec<&String> = inner.kept.keys().chain(inner.refused.keys()).collect();
        names.sort();
        names.dedup();
        names
            .into_iter()
            .map(|name| (name.clone(), inner.current(name)))
            .collect()
    }

    /// A version of a profile; an empty name is the active one, an empty version the current one.
    ///
    /// Fails with `NotFound` where there is none, `FailedPrecondition` where an empty name finds no
    /// active one or an empty version no current one, `InvalidArgument` for a name or version that
    /// cannot be one, and as [`Profile::load`].
    pub fn get(&self, name: &str, version: &str) -> Result<(Arc<Profile>, String)> {
        let inner = self.inner();
        let name = match (name, inner.state.active()) {
            ("", Some(active)) => active.to_owned(),
            ("", None) => {
                return Err(Error::precondition(
                    "no profile is active: name one, or activate one",
                ));
            }
            (name, _) => name.to_owned(),
        };
        check_name(&name).map_err(|error| error.with_field("name"))?;
        let version = if version.is_empty() {
            inner.current(&name)?
        } else {
            check_version(version)?;
            version.to_owned()
        };
        let profile = self.load(&inner, &name, &version)?;
        Ok((profile, version))
    }

    /// As [`get`](Self::get), with whether it is current and active.
    pub fn entry(&self, name: &str, version: &str) -> Result<ProfileEntry> {
        let (profile, version) = self.get(name, version)?;
        let inner = self.inner();
        let name = profile.name.clone();
        let current = inner.current(&name).is_ok_and(|current| current == version);
        Ok(ProfileEntry {
            active: current && inner.state.active() == Some(&name),
            current,
            profile: Ok(profile),
            name,
            version,
        })
    }

    /// Whether one more version of this name can be kept.
    ///
    /// Fails with `ResourceExhausted` where there are as many as may be.
    pub fn has_room(&self, name: &str) -> Result<()> {
        self.inner().room(name)
    }

    /// The version that an activation without one means.
    ///
    /// Fails with `NotFound`, and `InvalidArgument` for a name that cannot be one.
    pub fn newest(&self, name: &str) -> Result<String> {
        check_name(name).map_err(|error| error.with_field("name"))?;
        let inner = self.inner();
        let newest = inner.kept.get(name).and_then(|kept| kept.last());
        newest
            .map(|kept| kept.version.clone())
            .ok_or_else(|| no_profile(name))
    }

    /// Every version, by name, newest first.
    pub fn list(&self) -> Vec<ProfileEntry> {
        let mut entries = self.inner().entries();
        for entry in &mut entries {
            if !entry.version.is_empty() {
                // Not under one lock for all of them: others need it between two files.
                entry.profile = self.load(&self.inner(), &entry.name, &entry.version);
            }
        }
        entries
    }

    fn load(&self, inner: &Inner, name: &str, version: &str) -> Result<Arc<Profile>> {
        if let Some(profile) = inner.loose.get(&(name.to_owned(), version.to_owned())) {
            return Ok(profile.clone());
        }
        let Some(kept) = find(&inner.kept, name, version) else {
            return Err(inner.no_version(name, version));
        };
        let path = self.layout.versions_of(name).join(kept.file_name());
        let (profile, found) = open::load(&path, name).map_err(|error| match error.kind() {
            Kind::NotFound => {
                Error::data_loss("a version is gone from the store").with_source(error)
            }
            _ => error,
        })?;
        if found != version {
            return Err(Error::data_loss(format!(
                "the file of {name}'s version {version} holds {found}: it was replaced"
            )));
        }
        Ok(Arc::new(profile))
    }

    fn writer(&self) -> MutexGuard<'_, Option<Lock>> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Nothing, before anything is read.
    fn new(choice: Option<&str>) -> Inner {
        Inner {
            state: State::new(choice.map(str::to_owned)),
            kept: BTreeMap::new(),
            loose: BTreeMap::new(),
            refused: BTreeMap::new(),
        }
    }

    /// What there is, by name, newest first; not yet read.
    fn entries(&self) -> Vec<ProfileEntry> {
        let selected = self.state.selected();
        let refused = self.refused.iter().map(|(name, refused)| ProfileEntry {
            name: name.clone(),
            version: String::new(),
            current: false,
            active: false,
            profile: Err(again(refused)),
        });
        let mut entries: Vec<ProfileEntry> = refused.collect();
        for (name, kept) in &self.kept {
            let usable = !self.refused.contains_key(name);
            let is_active = selected.as_ref().is_some_and(|active| active.name == *name);
            for Kept { version, .. } in kept.iter().rev() {
                let current = usable && self.state.current(name) == Some(version.as_str());
                entries.push(ProfileEntry {
                    name: name.clone(),
                    version: version.clone(),
                    current,
                    active: current && is_active,
                    profile: Err(self.no_version(name, version)),
                });
            }
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name)); // stable
        entries
    }

    /// The version that a name alone selects.
    fn current(&self, name: &str) -> Result<String> {
        if let Some(refused) = self.refused.get(name) {
            return Err(again(refused).with_field("name"));
        }
        if let Some(version) = self.state.current(name) {
            return Ok(version.to_owned());
        }
        if self.kept.contains_key(name) {
            return Err(Error::precondition(format!(
                "the profile {name} has no current version: activate one"
            ))
            .with_field("name"));
        }
        Err(no_profile(name))
    }

    fn no_version(&self, name: &str, version: &str) -> Error {
        if self.kept.contains_key(name) {
            Error::not_found(format!("the profile {name} has no version {version}"))
                .with_field("version")
        } else {
            no_profile(name)
        }
    }
}

fn no_profile(name: &str) -> Error {
    Error::not_found(format!("no profile named {name:?}")).with_field("name")
}

/// An error that is told more than once.
fn again((kind, message): &(Kind, String)) -> Error {
    Error::new(*kind, message.clone())
}
