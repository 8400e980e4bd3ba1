//! Changes of a store, each decided by one rename or removal: see the [store](super).

use super::{
    Inner, Kept, ProfileStore,
    disk::{self, Access},
    no_profile,
    open::{self, Todo, find, next_number},
    state::{Scope, Selected, State, check_version},
};
use crate::{
    error::{Error, Result},
    limits,
    profile::{Profile, check_name},
};

/// The newest schema that the release before this one reads.
const ROLLBACK_SCHEMA: u32 = 1;

impl ProfileStore {
    /// Keeps a profile as a version, and gives that. The first one of a name becomes current. One
    /// that is there already stays as it is.
    ///
    /// Fails with `InvalidArgument` for what [`Profile::validate`] refuses, `ResourceExhausted` where
    /// the store is full, and `FailedPrecondition` where it cannot be written.
    pub fn put(&self, profile: &Profile) -> Result<String> {
        self.may_write()?;
        profile.validate()?;
        let version = profile.checksum()?;
        let mut inner = self.inner();
        let name = &profile.name;
        match find(&inner.kept, name, &version) {
            Some(_) if self.load(&inner, name, &version).is_ok() => {}
            // Damaged since: this mends it.
            Some(kept) => self.write_version(profile, kept)?,
            None => {
                inner.room(name)?;
                let kept = Kept {
                    number: next_number(&inner.kept, name),
                    version: version.clone(),
                };
                self.write_version(profile, &kept)?;
                inner.kept.entry(name.clone()).or_default().push(kept);
            }
        }
        let is_first = inner.state.name(name).is_none() && !inner.refused.contains_key(name);
        if is_first {
            let name = name.clone();
            let to = Selected {
                name,
                version: version.clone(),
            };
            self.select(&mut inner, profile.name.as_str(), |state| {
                state.activate(to, Scope::Current);
            })?;
        }
        Ok(version)
    }

    /// Makes a version current, and its profile active where asked for. Detections that run are not
    /// touched.
    ///
    /// Fails with `NotFound`, with `FailedPrecondition` where the store cannot be written, and as
    /// [`Profile::load`] where the version is damaged; nothing has changed then.
    pub fn activate(&self, name: &str, version: &str, scope: Scope) -> Result<()> {
        self.may_write()?;
        check_name(name).map_err(|error| error.with_field("name"))?;
        check_version(version)?;
        let mut inner = self.inner();
        self.load(&inner, name, version)?;
        let to = Selected {
            name: name.to_owned(),
            version: version.to_owned(),
        };
        self.select(&mut inner, name, |state| state.activate(to, scope))
    }

    /// What [`roll_back`](Self::roll_back) would go back to.
    ///
    /// Fails with `NotFound` for an unknown name, and `FailedPrecondition` where there is nothing.
    pub fn roll_back_target(&self, name: &str) -> Result<Selected> {
        let inner = self.inner();
        inner.roll_back(name).map(|(_, target)| target)
    }

    /// Goes back: to the version of `name` that was current before, or, with an empty name, to what
    /// was active before the last change of that; then whatever that activation changed is undone.
    ///
    /// Fails as [`roll_back_target`](Self::roll_back_target), with `FailedPrecondition` where the
    /// store cannot be written, and as [`Profile::load`] where the version is damaged; nothing has
    /// changed then.
    pub fn roll_back(&self, name: &str) -> Result<Selected> {
        self.may_write()?;
        let mut inner = self.inner();
        let (state, target) = inner.roll_back(name)?;
        self.load(&inner, &target.name, &target.version)?;
        self.select(&mut inner, &target.name, |current| *current = state)?;
        Ok(target)
    }

    /// Deletes a version, and `NAME.json` where that holds it.
    ///
    /// Fails with `NotFound`, and with `FailedPrecondition` where it is current (an active one is) or
    /// the store cannot be written.
    pub fn delete(&self, name: &str, version: &str) -> Result<()> {
        self.may_write()?;
        check_name(name).map_err(|error| error.with_field("name"))?;
        check_version(version)?;
        let mut inner = self.inner();
        let Some(kept) = find(&inner.kept, name, version).cloned() else {
            return Err(inner.no_version(name, version));
        };
        if inner.state.current(name) == Some(version) {
            return Err(Error::precondition(format!(
                "version {version} of {name} is current: activate another one first"
            ))
            .with_field("version"));
        }
        if inner.state.name(name).and_then(|of| of.copy.as_deref()) == Some(version) {
            // The current version is of a schema that is not copied. Left there it would be taken for one that
            // somebody added; and one that somebody did add is kept.
            self.rescue(&mut inner, name);
            disk::remove(&self.layout.copy(name))?;
            inner.state.copied(name, None);
            self.save(&inner)?;
        }
        let directory = self.layout.versions_of(name);
        disk::remove(&directory.join(kept.file_name()))?;
        let Inner {
            state, kept: all, ..
        } = &mut *inner;
        if let Some(versions) = all.get_mut(name) {
            versions.retain(|kept| kept.version != version);
            if versions.is_empty() {
                all.remove(name);
                // Empty, or not ours to remove.
                let _ = std::fs::remove_dir(&directory);
            }
        }
        state.keep(
            |name, version| find(all, name, version).is_some(),
            |name| all.contains_key(name),
        );
        self.save(&inner)
    }

    /// Brings the disk to what opening found.
    pub(super) fn settle(&self, inner: &mut Inner, todo: Todo) -> Result<()> {
        for profile in todo.keep {
            let version = profile.checksum()?;
            if let Some(kept) = find(&inner.kept, &profile.name, &version) {
                self.write_version(&profile, kept)?;
            }
            inner.loose.remove(&(profile.name.clone(), version));
        }
        self.save(inner)?;
        for name in todo.copy {
            if let Err(error) = self.copy(inner, &name) {
                tracing::error!(profile = name, "NAME.json could not be written: {error:#}");
            }
        }
        self.save(inner)
    }

    /// Changes the state, and with it the copies of the names whose current version changed. That of
    /// `chosen` is whole again after it.
    fn select(
        &self,
        inner: &mut Inner,
        chosen: &str,
        change: impl FnOnce(&mut State),
    ) -> Result<()> {
        let before = inner.state.clone();
        change(&mut inner.state);
        if let Err(error) = self.save(inner) {
            inner.state = before;
            return Err(error);
        }
        let mended = inner.refused.remove(chosen).is_some();
        let changed: Vec<String> = inner
            .state
            .names()
            .filter(|name| {
                inner.state.current(name) != before.current(name) || (mended && *name == chosen)
            })
            .cloned()
            .collect();
        // The change is done; a copy that cannot be written is tried again on opening.
        for name in changed {
            if let Err(error) = self.copy(inner, &name) {
                tracing::error!(profile = name, "NAME.json could not be written: {error:#}");
            }
        }
        if let Err(error) = self.save(inner) {
            tracing::error!("the state of the profiles could not be written: {error:#}");
        }
        Ok(())
    }

    /// Writes `NAME.json`, unless an older server could not read it.
    fn copy(&self, inner: &mut Inner, name: &str) -> Result<()> {
        let version = inner.current(name)?;
        let profile = self.load(inner, name, &version)?;
        if profile.schema > ROLLBACK_SCHEMA {
            tracing::warn!(
                profile = name,
                schema = profile.schema,
                "an older server cannot read the current version: NAME.json stays what it was"
            );
            return Ok(());
        }
        self.rescue(inner, name);
        disk::write(
            &self.layout.copy(name),
            &profile.to_text()?,
            Access::Replaced,
        )?;
        inner.state.copied(name, Some(&version));
        Ok(())
    }

    /// Keeps what somebody put in the place of `NAME.json` while this process had the store.
    fn rescue(&self, inner: &mut Inner, name: &str) {
        let Ok((profile, version)) = open::load(&self.layout.copy(name), name) else {
            return;
        };
        if find(&inner.kept, name, &version).is_some() || inner.room(name).is_err() {
            return;
        }
        let kept = Kept {
            number: next_number(&inner.kept, name),
            version: version.clone(),
        };
        match self.write_version(&profile, &kept) {
            Ok(()) => {
                tracing::warn!(
                    profile = name,
                    version,
                    "NAME.json was replaced by hand and is now replaced again: its content is kept as a version"
                );
                inner.kept.entry(name.to_owned()).or_default().push(kept);
            }
            Err(error) => tracing::error!(profile = name, "a version was lost: {error:#}"),
        }
    }

    fn save(&self, inner: &Inner) -> Result<()> {
        let text = inner.state.to_text()?;
        disk::write(&self.layout.state(), &text, Access::Replaced)
    }

    fn write_version(&self, profile: &Profile, kept: &Kept) -> Result<()> {
        let directory = self.layout.versions_of(&profile.name);
        disk::make_directory(&directory)?;
        let path = directory.join(kept.file_name());
        disk::write(&path, &profile.to_text()?, Access::Immutable)
    }

    fn may_write(&self) -> Result<()> {
        if self.writer().is_some() {
            return Ok(());
        }
        Err(Error::precondition(format!(
            "the profiles in {} are open to be read alone",
            self.layout.root().display()
        )))
    }
}

impl Inner {
    fn roll_back(&self, name: &str) -> Result<(State, Selected)> {
        if !name.is_empty() {
            check_name(name).map_err(|error| error.with_field("name"))?;
            if !self.kept.contains_key(name) {
                return Err(no_profile(name));
            }
        }
        let mut state = self.state.clone();
        match state.roll_back(name) {
            Some(target) => Ok((state, target)),
            None if name.is_empty() => Err(Error::precondition(
                "no activation is remembered that could be undone",
            )),
            None => Err(
                Error::precondition(format!("no earlier version of {name} is remembered"))
                    .with_field("name"),
            ),
        }
    }

    /// Whether one more version of this name fits.
    pub(super) fn room(&self, name: &str) -> Result<()> {
        let of_name = self.kept.get(name).map_or(0, Vec::len);
        let all: usize = self.kept.values().map(Vec::len).sum();
        if of_name >= limits::PROFILE_VERSIONS_MAX {
            return Err(Error::exhausted(format!(
                "the profile {name} has {of_name} versions, the most that are kept: delete some"
            ))
            .for_good());
        }
        if all >= limits::PROFILE_VERSIONS_TOTAL_MAX {
            return Err(Error::exhausted(format!(
                "the store has {all} versions, the most that are kept: delete some"
            ))
            .for_good());
        }
        if of_name == 0 && self.kept.len() >= limits::PROFILES_MAX {
            return Err(Error::exhausted(format!(
                "the store has {} profiles, the most that it may: remove some",
                self.kept.len()
            ))
            .for_good());
        }
        Ok(())
    }
}
