//! Changes of the profiles while detections run.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError},
};

use super::{Entry, Profiles, Ready, Shown, blocking, no_directory, told};
use crate::{
    error::{Error, Kind, Result, ResultExt as _},
    profile::{Profile, ProfileStore, Scope},
    telemetry::server,
};

impl Profiles {
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

    /// Whether a version of this profile can be added.
    ///
    /// Fails with `FailedPrecondition` where nothing can be written, and `ResourceExhausted` where there are as
    /// many as are kept.
    pub async fn writable(self: &Arc<Self>, name: &str) -> Result<()> {
        let name = name.to_owned();
        self.change(move |store| async move {
            blocking(&store, move |store| store.has_room(&name)).await
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
                "" => {
                    let name = name.clone();
                    blocking(&store, move |store| store.newest(&name)).await?
                }
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
            let of = name.clone();
            let target = blocking(&store, move |store| store.roll_back_target(&of)).await?;
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
            return Err(no_directory());
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
        let active = blocking(store, |store| Ok(store.active())).await?;
        let mut shown = self.shown.write().unwrap_or_else(PoisonError::into_inner);
        shown.by_name = by_name;
        // What is activated was checked before: it is there.
        if let Some(Entry::Ready(ready)) = active.and_then(|name| shown.by_name.get(&name)) {
            let ready = ready.clone();
            let before = shown.active.replace(ready.clone());
            let is_new = before.is_none_or(|before| {
                ready.version != before.version || ready.name() != before.name()
            });
            if is_new {
                server::active_profile(ready.name(), ready.version());
            }
        }
        shown.tell_followers();
        Ok(())
    }
}

impl Shown {
    fn tell_followers(&mut self) {
        let Shown {
            active,
            by_name,
            followers,
        } = self;
        followers.retain(|name, follower| {
            let now = match (name.as_str(), by_name.get(name)) {
                ("", _) => active.as_ref(),
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
