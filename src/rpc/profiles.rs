//! The profiles that a request may name, each checked against the resident model. What is current
//! and active may change while detections run: those keep what they have, or follow.
//!
//! Requests read pointers under a lock that is never held for more than a look or a swap. Files are
//! read and written by one change at a time, on threads that may block.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard},
};

use tokio::sync::{Mutex, watch};

use crate::{
    engine::EngineHandle,
    error::{Error, Kind, Result, ResultExt as _},
    profile::{Profile, ProfileEntry, ProfileStore, Scope},
    telemetry::server,
};

/// Profiles by name, one of them active.
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
    active: Ready,
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
    /// Fails with the error of the profile `active` where that one is missing, damaged or made for
    /// another model. Others in that state are logged, and refused when they are named.
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
    /// [`check`](Self::check) otherwise, with the store's active profile.
    pub async fn open(store: ProfileStore, engine: &EngineHandle) -> Result<Profiles> {
        let store = Arc::new(store);
        let active = store.active().ok_or_else(|| {
            Error::precondition("no profile is active: set profiles.active, or activate one")
        })?;
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
        let Some(Entry::Ready(chosen)) = by_name.get(active) else {
            return Err(Error::not_found(format!(
                "the active profile `{active}` is not among the profiles found"
            )));
        };
        server::active_profile(chosen.name(), chosen.version());
        Ok(Profiles {
            engine: engine.clone(),
            store,
            changing: Mutex::new(()),
            shown: RwLock::new(Shown {
                active: chosen.clone(),
                by_name,
                followers: BTreeMap::new(),
            }),
        })
    }

    /// The active profile.
    pub fn active(&self) -> Ready {
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
                "" => shown.active.name().to_owned(),
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

    /// Keeps a new version, and activates it where asked for. The first version of a name becomes
    /// current in any case. One that is there already is not written again.
    ///
    /// Fails with `FailedPrecondition` where it does not fit the model or nothing can be written,
    /// and as [`ProfileStore::put`]; nothing has changed then.
    pub async fn add(self: &Arc<Self>, profile: Profile, activate: bool) -> Result<Ready> {
        let this = self.clone();
        self.change(move |store| async move {
            let profile = Arc::new(profile);
            this.fits(&profile).await?;
            let kept = profile.clone();
            let version = blocking(&store, move |store| store.put(&kept)).await?;
            if activate {
                let (name, version) = (profile.name.clone(), version.clone());
                blocking(&store, move |store| {
                    store.activate(&name, &version, Scope::Active)
                })
                .await?;
            }
            tracing::info!(profile = profile.name, version, activate, "profile added");
            Ok(Ready {
                version: version.into(),
                profile,
            })
        })
        .await
    }

    /// Makes a version current, and its profile active where asked for; an empty version is the
    /// newest.
    ///
    /// Fails as [`get`](Self::get), and with `FailedPrecondition` where nothing can be written;
    /// nothing has changed then.
    pub async fn activate(
        self: &Arc<Self>,
        name: &str,
        version: &str,
        scope: Scope,
    ) -> Result<Ready> {
        let this = self.clone();
        let (name, version) = (name.to_owned(), version.to_owned());
        self.change(move |store| async move {
            let version = match version.as_str() {
                "" => store.newest(&name)?,
                _ => version,
            };
            let ready = this.load(&store, &name, &version).await?;
            tracing::info!(profile = name, version, ?scope, "activating");
            blocking(&store, move |store| store.activate(&name, &version, scope)).await?;
            Ok(ready)
        })
        .await
    }

    /// Goes back to the version of a profile that was current before, or, with an empty name, to
    /// what was active before the last activation.
    ///
    /// Fails with `NotFound`, and with `FailedPrecondition` where nothing is remembered, what is
    /// remembered does not fit the model, or nothing can be written; nothing has changed then.
    pub async fn roll_back(self: &Arc<Self>, name: &str) -> Result<Ready> {
        let this = self.clone();
        let name = name.to_owned();
        self.change(move |store| async move {
            let target = store.roll_back_target(&name)?;
            let ready = this.load(&store, &target.name, &target.version).await?;
            tracing::info!(
                profile = target.name,
                version = target.version,
                "rolling back"
            );
            blocking(&store, move |store| store.roll_back(&name)).await?;
            Ok(ready)
        })
        .await
    }

    /// Deletes a version that is not current. Detections that run with it keep it.
    ///
    /// Fails as [`ProfileStore::delete`].
    pub async fn delete(self: &Arc<Self>, name: &str, version: &str) -> Result<()> {
        let (name, version) = (name.to_owned(), version.to_owned());
        self.change(move |store| async move {
            tracing::info!(profile = name, version, "deleting");
            blocking(&store, move |store| store.delete(&name, &version)).await
        })
        .await
    }

    /// Runs one change of the store and shows its result. It runs to its end although its caller
    /// leaves, so that what is shown is what is stored.
    async fn change<T, F, W>(self: &Arc<Self>, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(Arc<ProfileStore>) -> W + Send + 'static,
        W: Future<Output = Result<T>> + Send + 'static,
    {
        let Some(store) = self.store.clone() else {
            return Err(Error::precondition(
                "this server has one profile, given as a file: profiles can be added and activated where profiles.dir is set",
            ));
        };
        let this = self.clone();
        let task = tokio::spawn(async move {
            let _turn = this.changing.lock().await;
            this.take_over(&store).await?;
            let result = work(store.clone()).await;
            // Also after a failure: half of what was asked for may be there.
            this.show(&store).await?;
            result
        });
        task.await
            .or_kind(Kind::Internal, || "the change of a profile failed".into())?
    }

    /// Where another server had the directory and is gone, this one writes it from now on.
    async fn take_over(&self, store: &Arc<ProfileStore>) -> Result<()> {
        match blocking(store, ProfileStore::take_over).await {
            Err(error) if error.kind() == Kind::FailedPrecondition => {
                tracing::warn!("a change of the profiles was refused: {error:#}");
                Err(Error::precondition(
                    "this server cannot write its profile directory (profiles.dir): another server has it, or it is read-only; the log says which",
                ))
            }
            taken => taken,
        }
    }

    /// Brings what requests see to what the store says.
    async fn show(&self, store: &Arc<ProfileStore>) -> Result<()> {
        let mut by_name = BTreeMap::new();
        for (name, version) in blocking(store, |store| Ok(store.names())).await? {
            let known = self.shown().by_name.get(&name).cloned();
            let entry = match (version, known) {
                (Ok(version), Some(Entry::Ready(ready))) if *ready.version == *version => {
                    Entry::Ready(ready)
                }
                (Ok(version), _) => match self.load(store, &name, &version).await {
                    Ok(ready) => Entry::Ready(ready),
                    Err(error) => Entry::Unusable(told(&name, &error)),
                },
                (Err(error), _) => Entry::Unusable(told(&name, &error)),
            };
            by_name.insert(name, entry);
        }
        let active = store.active();
        let mut shown = self.shown.write().unwrap_or_else(PoisonError::into_inner);
        shown.by_name = by_name;
        // What is activated was checked before: it is there.
        if let Some(Entry::Ready(ready)) = active.and_then(|name| shown.by_name.get(&name)) {
            let ready = ready.clone();
            if ready.version != shown.active.version || ready.name() != shown.active.name() {
                server::active_profile(ready.name(), ready.version());
            }
            shown.active = ready;
        }
        shown.tell_followers();
        Ok(())
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
                active: name == shown.active.name(),
                version,
                profile,
            }
        };
        shown.by_name.iter().map(entry).collect()
    }

    fn shown(&self) -> RwLockReadGuard<'_, Shown> {
        self.shown.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shown {
    fn current(&self, name: &str) -> Result<Ready> {
        if name.is_empty() {
            return Ok(self.active.clone());
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

    fn tell_followers(&mut self) {
        let Shown {
            active,
            by_name,
            followers,
        } = self;
        followers.retain(|name, follower| {
            let now = match (name.as_str(), by_name.get(name)) {
                ("", _) => Some(&*active),
                (_, Some(Entry::Ready(ready))) => Some(ready),
                _ => None,
            };
            if let Some(now) = now {
                follower.send_if_modified(|shown| {
                    let is_new = !Arc::ptr_eq(shown, &now.profile) && **shown != *now.profile;
                    if is_new {
                        *shown = now.profile();
                    }
                    is_new
                });
            }
            follower.receiver_count() > 0
        });
    }
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
