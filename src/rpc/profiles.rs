//! The profiles that a request may name, checked against the resident model when the server starts.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    engine::EngineHandle,
    error::{Error, Kind, Result},
    profile::Profile,
};

/// Profiles by name, one of them active.
pub struct Profiles {
    active: Ready,
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
    /// Fails with the error of the profile `active` where that one is missing, damaged or made for
    /// another model. Others in that state are logged, and refused when they are named.
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
        let active = chosen.ok_or_else(|| {
            Error::not_found(format!(
                "the active profile `{active}` is not among the profiles found"
            ))
        })?;
        Ok(Profiles { active, by_name })
    }

    /// The active profile.
    pub fn active(&self) -> &Ready {
        &self.active
    }

    /// The profile that a request names; an empty name is the active one.
    ///
    /// Fails with `NotFound`, or with `FailedPrecondition` for one that does not fit the model.
    pub fn get(&self, name: &str) -> Result<Ready> {
        if name.is_empty() {
            return Ok(self.active.clone());
        }
        match self.by_name.get(name) {
            Some(Entry::Ready(ready)) => Ok(ready.clone()),
            Some(Entry::Unusable(why)) => Err(Error::precondition(why).with_field("open.profile")),
            None => Err(Error::not_found(format!(
                "no profile `{}` on this server",
                name.escape_debug()
            ))
            .with_field("open.profile")),
        }
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
