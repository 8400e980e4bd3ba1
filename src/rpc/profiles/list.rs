//! The profiles as they are listed, those that cannot be used among them.

use std::sync::Arc;

use super::{Entry, Profiles, blocking, told};
use crate::{
    error::{Error, Kind, Result},
    profile::{Profile, ProfileEntry},
};

/// A version as it is listed.
pub struct Listed {
    /// Name.
    pub name: String,
    /// SHA-256 of its content, hex; empty for a file that cannot be read.
    pub version: String,
    /// The name alone selects it.
    pub current: bool,
    /// An empty name selects it.
    pub active: bool,
    /// The profile, where it can be read.
    pub profile: Option<Arc<Profile>>,
    /// Why it cannot be used; empty: it can.
    pub unusable: String,
}

impl Profiles {
    /// Every version, by name, newest first. Reads files.
    ///
    /// Fails with `Internal` alone.
    pub async fn list(&self) -> Result<Vec<Listed>> {
        let entries = match &self.store {
            Some(store) => blocking(store, |store| Ok(store.list())).await?,
            None => self.fixed(),
        };
        let mut listed = Vec::with_capacity(entries.len());
        for entry in entries {
            listed.push(self.listed(entry).await);
        }
        Ok(listed)
    }

    /// One version as [`list`](Self::list) has it; an empty version is the current one.
    ///
    /// Fails as [`get`](Self::get), but not for a version that does not fit the model; and with
    /// `FailedPrecondition` for a damaged one.
    pub async fn look(&self, name: &str, version: &str) -> Result<Listed> {
        let entry = match &self.store {
            Some(store) => {
                let (of, at) = (name.to_owned(), version.to_owned());
                blocking(store, move |store| store.entry(&of, &at)).await
            }
            None => {
                let fits = |entry: &ProfileEntry| {
                    entry.name == name && (version.is_empty() || entry.version == version)
                };
                match self.fixed().into_iter().find(fits) {
                    Some(entry) => Ok(entry),
                    None => {
                        // Says which of the two is missing.
                        self.get(name, version).await?;
                        Err(Error::internal("a profile is there and is not"))
                    }
                }
            }
        };
        match entry {
            Ok(entry) => Ok(self.listed(entry).await),
            Err(error) if error.kind() == Kind::DataLoss => {
                tracing::warn!(profile = name, version, "{error:#}");
                let field = if version.is_empty() {
                    "name"
                } else {
                    "version"
                };
                Err(Error::precondition(told(name, &error)).with_field(field))
            }
            Err(error) => Err(error),
        }
    }

    async fn listed(&self, entry: ProfileEntry) -> Listed {
        let (profile, checked) = match entry.profile {
            Ok(profile) => (Some(profile.clone()), self.fits(&profile).await),
            Err(error) => (None, Err(error)),
        };
        let unusable = match (&self.store, checked) {
            (_, Ok(())) => String::new(),
            (Some(_), Err(error)) => {
                if error.kind() != Kind::FailedPrecondition {
                    tracing::warn!(profile = entry.name, version = entry.version, "{error:#}");
                }
                told(&entry.name, &error)
            }
            // What is told already.
            (None, Err(error)) => error.message().to_owned(),
        };
        Listed {
            name: entry.name,
            version: entry.version,
            current: entry.current,
            active: entry.active,
            profile,
            unusable,
        }
    }

    /// The profiles that the server was started with.
    fn fixed(&self) -> Vec<ProfileEntry> {
        let shown = self.shown();
        let entry = |(name, entry): (&String, &Entry)| {
            let (version, profile) = match entry {
                Entry::Ready(ready) => (ready.version().to_owned(), Ok(ready.profile())),
                Entry::Unusable(why) => (String::new(), Err(Error::precondition(why.clone()))),
            };
            ProfileEntry {
                name: name.clone(),
                current: profile.is_ok(),
                active: shown
                    .active
                    .as_ref()
                    .is_some_and(|active| active.name() == name),
                version,
                profile,
            }
        };
        shown.by_name.iter().map(entry).collect()
    }
}
