//! The profiles that a request may name, checked against the resident model.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
};

use crate::{
    engine::EngineHandle,
    error::{Error, Kind, Result},
    profile::{Profile, ProfileStore},
};

/// Profiles by name, of which one may be active.
pub struct Profiles {
    state: RwLock<State>,
    engine: EngineHandle,
    /// Where new ones are written.
    directory: Option<PathBuf>,
}

struct State {
    active: Option<Ready>,
    by_name: BTreeMap<String, Entry>,
}

/// A profile that fits the resident model.
#[derive(Clone)]
pub struct Ready {
    profile: Arc<Profile>,
    version: String,
}

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
    /// Checks every profile against the model of `engine`; waits for its warm-up pass.
    ///
    /// An empty `active` is none. Fails with the error of the profile `active` where that one is
    /// missing, damaged or made for another model. Others in that state are logged, and refused when they are named.
    pub async fn check(
        active: &str,
        found: Vec<(String, Result<Arc<Profile>>)>,
        engine: &EngineHandle,
    ) -> Result<Profiles> {
        let mut by_name = BTreeMap::new();
        let mut chosen = None;
        for (name, profile) in found {
            let checked = match profile {
                Ok(profile) => fits(profile, engine).await,
                Err(error) => Err(error),
            };
            let entry = match checked {
                Ok(ready) => {
                    if name == active {
                        chosen = Some(ready.clone());
                    }
                    Entry::Ready(ready)
                }
                Err(error) if name == active => {
                    return Err(error.context(format_args!("active profile `{name}`")));
                }
                Err(error) => {
                    tracing::warn!(profile = name, "profile cannot be used: {error:#}");
                    Entry::Unusable(told(&name, &error))
                }
            };
            by_name.insert(name, entry);
        }
        if chosen.is_none() && !active.is_empty() {
            return Err(Error::not_found(format!(
                "the active profile `{active}` is not among the profiles found"
            )));
        }
        Ok(Profiles {
            state: RwLock::new(State {
                active: chosen,
                by_name,
            }),
            engine: engine.clone(),
            directory: None,
        })
    }

    /// The same, with a directory in which new profiles are written.
    #[must_use]
    pub fn with_directory(mut self, directory: Option<PathBuf>) -> Profiles {
        self.directory = directory;
        self
    }

    /// Whether profiles can be added.
    ///
    /// Fails with `FailedPrecondition`, naming the key, where there is no directory for them.
    pub fn writable(&self) -> Result<()> {
        self.directory.as_ref().map(drop).ok_or_else(|| {
            Error::precondition(
                "this server writes no profiles: have the operator set profiles.dir",
            )
        })
    }

    /// The active profile.
    pub fn active(&self) -> Option<Ready> {
        self.read().active.clone()
    }

    /// The profile that a request names; an empty name is the active one, an empty version the
    /// current one.
    ///
    /// Fails with `NotFound`, or with `FailedPrecondition` for one that does not fit the model and
    /// where none is active.
    pub fn get(&self, name: &str, version: &str) -> Result<Ready> {
        const FIELD: &str = "open.profile";
        let state = self.read();
        let ready = if name.is_empty() {
            state.active.clone().ok_or_else(|| {
                Error::precondition(
                    "no profile is active: name one, or calibrate one with `activate`",
                )
                .with_field(FIELD)
            })?
        } else {
            match state.by_name.get(name) {
                Some(Entry::Ready(ready)) => ready.clone(),
                Some(Entry::Unusable(why)) => {
                    return Err(Error::precondition(why).with_field(FIELD));
                }
                None => {
                    return Err(Error::not_found(format!(
                        "no profile `{}` on this server",
                        name.escape_debug()
                    ))
                    .with_field(FIELD));
                }
            }
        };
        if !version.is_empty() && version != ready.version {
            return Err(Error::not_found(format!(
                "profile `{}` has no version {}",
                ready.name(),
                version.escape_debug()
            ))
            .with_field("profile_version"));
        }
        Ok(ready)
    }

    /// Writes a profile, checks it against the model, and makes it the active one if asked.
    ///
    /// Fails with `FailedPrecondition` where no directory is configured or the profile does not fit
    /// the model, and as [`ProfileStore::put`].
    pub async fn add(&self, profile: Profile, activate: bool) -> Result<Ready> {
        self.writable()?;
        let ready = fits(Arc::new(profile), &self.engine).await?;
        if let Some(directory) = &self.directory {
            ProfileStore::open(directory, None)?.put(&ready.profile)?;
        }
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let name = ready.name().to_owned();
        state.by_name.insert(name, Entry::Ready(ready.clone()));
        if activate {
            state.active = Some(ready.clone());
        }
        Ok(ready)
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn fits(profile: Arc<Profile>, engine: &EngineHandle) -> Result<Ready> {
    let fingerprint = engine.fingerprint(profile.layers_needed()).await?;
    for warning in profile.check_model(engine.info(), &fingerprint)? {
        tracing::warn!("{warning}");
    }
    Ok(Ready {
        version: profile.checksum()?,
        profile,
    })
}

fn told(name: &str, error: &Error) -> String {
    match error.kind() {
        Kind::FailedPrecondition => format!("profile `{name}`: {}", error.message()),
        _ => format!("profile `{name}` cannot be read by this server; its log says why"),
    }
}
