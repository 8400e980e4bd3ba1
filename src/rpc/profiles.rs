//! The profiles that a request may name, each checked against the resident model. What is current
//! and active may change while detections run: those keep what they have, or follow.
//!
//! Requests read pointers under a lock that is never held for more than a look or a swap. Files are
//! read and written by one change at a time, on threads that may block.

mod change;
mod list;

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard},
};

use tokio::sync::{Mutex, watch};

use crate::{
    engine::EngineHandle,
    error::{Error, Kind, Result, ResultExt as _},
    profile::{Profile, ProfileStore},
    telemetry::server,
};

pub use list::Listed;

/// Profiles by name, of which one may be active.
pub struct Profiles {
    engine: EngineHandle,
    /// Where versions are kept; `None`: there is what the server was started with.
    store: Option<Arc<ProfileStore>>,
    /// One change at a time, so that memory and store go through the same states.
    changing: Mutex<()>,
    shown: RwLock<Shown>,
}

/// What requests see.
struct Shown {
    active: Option<Ready>,
    by_name: BTreeMap<String, Entry>,
    /// By name; the empty one is the active profile.
    followers: BTreeMap<String, watch::Sender<Arc<Profile>>>,
}

/// A profile that fits the resident model.
#[derive(Clone)]
pub struct Ready {
    profile: Arc<Profile>,
    version: Arc<str>,
}

#[derive(Clone)]
enum Entry {
    Ready(Ready),
    /// What a client is told: no paths.
    Unusable(String),
}

impl Ready {
    /// The profile.
    pub fn profile(&self) -> Arc<Profile> {
        self.profile.clone()
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.profile.name
    }

    /// SHA-256 of its content, hex.
    pub fn version(&self) -> &str {
        &self.version
    }
}

impl Profiles {
    /// Profiles that stay as they are: `found` by name, `active` one of them. Checks each against the
    /// model of `engine`; waits for its warm-up pass.
    ///
    /// An empty `active` is none. Fails with the error of the profile `active` where that one is
    /// missing, damaged or made for another model. Others in that state are logged, and refused when they are named.
    pub async fn check(
        active: &str,
        found: Vec<(String, Result<Arc<Profile>>)>,
        engine: &EngineHandle,
    ) -> Result<Profiles> {
        let mut by_name = BTreeMap::new();
        for (name, profile) in found {
            let entry = entry(&name, profile, active, engine).await?;
            by_name.insert(name, entry);
        }
        Profiles::new(active, by_name, None, engine)
    }

    /// The profiles of a store: the current version of each, and others when they are named. As
    /// [`check`](Self::check) otherwise, with the store's active profile, if it has one.
    pub async fn open(store: ProfileStore, engine: &EngineHandle) -> Result<Profiles> {
        let store = Arc::new(store);
        let active = store.active().unwrap_or_default();
        let mut by_name = BTreeMap::new();
        for (name, version) in blocking(&store, |store| Ok(store.names())).await? {
            let profile = match version {
                Ok(version) => {
                    let name = name.clone();
                    blocking(&store, move |store| store.get(&name, &version)).await
                }
                Err(error) => Err(error),
            };
            let profile = profile.map(|(profile, _)| profile);
            let entry = entry(&name, profile, &active, engine).await?;
            by_name.insert(name, entry);
        }
        Profiles::new(&active, by_name, Some(store), engine)
    }

    fn new(
        active: &str,
        by_name: BTreeMap<String, Entry>,
        store: Option<Arc<ProfileStore>>,
        engine: &EngineHandle,
    ) -> Result<Profiles> {
        let chosen = match by_name.get(active) {
            Some(Entry::Ready(chosen)) => Some(chosen.clone()),
            _ if active.is_empty() => None,
            _ => {
                return Err(Error::not_found(format!(
                    "the active profile `{active}` is not among the profiles found"
                )));
            }
        };
        if let Some(chosen) = &chosen {
            server::active_profile(chosen.name(), chosen.version());
        }
        Ok(Profiles {
            engine: engine.clone(),
            store,
            changing: Mutex::new(()),
            shown: RwLock::new(Shown {
                active: chosen,
                by_name,
                followers: BTreeMap::new(),
            }),
        })
    }

    /// The active profile, if there is one.
    pub fn active(&self) -> Option<Ready> {
        self.shown().active.clone()
    }

    /// The version of a profile that a request names; an empty name is the active one, an empty
    /// version the current one. Reads a file where another version is named.
    ///
    /// Fails with `NotFound`, with `FailedPrecondition` for one that does not fit the model, with
    /// `InvalidArgument` for what is no version, and with `DataLoss` for a damaged one; the field is
    /// `name` or `version`.
    pub async fn get(&self, name: &str, version: &str) -> Result<Ready> {
        if version.is_empty() {
            return self.shown().current(name);
        }
        let (name, known) = {
            let shown = self.shown();
            let name = match name {
                "" => shown.current("")?.name().to_owned(),
                name => name.to_owned(),
            };
            let known = shown.current(&name);
            (name, known)
        };
        match (&self.store, known) {
            (_, Ok(ready)) if ready.version() == version => Ok(ready),
            (Some(store), _) => self.load(store, &name, version).await,
            (None, Err(error)) => Err(error),
            (None, Ok(_)) => Err(Error::not_found(format!(
                "the profile {name} has no version {}",
                version.escape_debug()
            ))
            .with_field("version")),
        }
    }

    /// The current version of a profile, or the active one for an empty name; and every one after
    /// it that is activated and fits the model.
    ///
    /// Fails as [`get`](Self::get).
    pub fn subscribe(&self, name: &str) -> Result<(Ready, watch::Receiver<Arc<Profile>>)> {
        let mut shown = self.shown.write().unwrap_or_else(PoisonError::into_inner);
        let ready = shown.current(name)?;
        let sender = shown
            .followers
            .entry(name.to_owned())
            .or_insert_with(|| watch::Sender::new(ready.profile()));
        Ok((ready, sender.subscribe()))
    }

    async fn load(&self, store: &Arc<ProfileStore>, name: &str, version: &str) -> Result<Ready> {
        let (of, at) = (name.to_owned(), version.to_owned());
        let (profile, version) = blocking(store, move |store| store.get(&of, &at)).await?;
        self.fits(&profile)
            .await
            .map_err(|error| match error.field() {
                Some(_) => error,
                None => error.with_field("version"),
            })?;
        Ok(Ready {
            profile,
            version: version.into(),
        })
    }

    async fn fits(&self, profile: &Profile) -> Result<()> {
        fits(profile, &self.engine).await.map(drop)
    }

    fn shown(&self) -> RwLockReadGuard<'_, Shown> {
        self.shown.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shown {
    fn current(&self, name: &str) -> Result<Ready> {
        if name.is_empty() {
            return self.active.clone().ok_or_else(|| {
                Error::precondition("no profile is active: name one, activate one or calibrate one")
                    .with_field("name")
            });
        }
        match self.by_name.get(name) {
            Some(Entry::Ready(ready)) => Ok(ready.clone()),
            Some(Entry::Unusable(why)) => Err(Error::precondition(why).with_field("name")),
            None => Err(Error::not_found(format!(
                "no profile `{}` on this server",
                name.escape_debug()
            ))
            .with_field("name")),
        }
    }
}

fn no_directory() -> Error {
    Error::precondition(
        "this server has one profile, given as a file: profiles can be added and activated where profiles.dir is set",
    )
}

/// Runs work on a store's files where it may block.
async fn blocking<T: Send + 'static>(
    store: &Arc<ProfileStore>,
    work: impl FnOnce(&ProfileStore) -> Result<T> + Send + 'static,
) -> Result<T> {
    let store = store.clone();
    tokio::task::spawn_blocking(move || work(&store))
        .await
        .or_kind(Kind::Internal, || "work on the profiles failed".into())?
}

/// A profile compared with the model. An error where it is the active one and cannot be used.
async fn entry(
    name: &str,
    profile: Result<Arc<Profile>>,
    active: &str,
    engine: &EngineHandle,
) -> Result<Entry> {
    let checked = match profile {
        Ok(profile) => ready(profile, engine).await,
        Err(error) => Err(error),
    };
    match checked {
        Ok(ready) => Ok(Entry::Ready(ready)),
        Err(error) if name == active => {
            Err(error.context(format_args!("active profile `{active}`")))
        }
        Err(error) => {
            tracing::warn!(profile = name, "profile cannot be used: {error:#}");
            Ok(Entry::Unusable(told(name, &error)))
        }
    }
}

async fn ready(profile: Arc<Profile>, engine: &EngineHandle) -> Result<Ready> {
    for warning in fits(&profile, engine).await? {
        tracing::warn!("{warning}");
    }
    Ok(Ready {
        version: profile.checksum()?.into(),
        profile,
    })
}

/// Whether a profile fits the model; warnings about what may shift scores.
async fn fits(profile: &Profile, engine: &EngineHandle) -> Result<Vec<String>> {
    profile.check_shape(engine.info())?;
    let fingerprint = engine.fingerprint(profile.layers_needed()).await?;
    profile.check_model(engine.info(), &fingerprint)
}

fn told(name: &str, error: &Error) -> String {
    match error.kind() {
        Kind::FailedPrecondition => format!("profile `{name}`: {}", error.message()),
        _ => format!("profile `{name}` cannot be read by this server; its log says why"),
    }
}
