//! Which version of which profile a detection asks for.

use std::sync::Arc;

use tokio::sync::watch;

use super::profiles::{Profiles, Ready};
use crate::{
    error::{Error, Result},
    limits,
    profile::Profile,
};

/// What a request says of its profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Choice {
    /// Empty: the active one.
    name: String,
    /// Empty: the current one.
    version: String,
    /// Moves to versions that are activated later.
    follow: bool,
    /// What comes before the names of the request's fields.
    prefix: &'static str,
}

impl Choice {
    /// Checks the fields `profile`, `profile_version` and `follow_profile` after this prefix.
    pub fn new(
        prefix: &'static str,
        name: String,
        version: String,
        follow: bool,
    ) -> Result<Choice> {
        let wrong = |field: &str, message: String| {
            Err(Error::invalid(message).with_field(format!("{prefix}{field}")))
        };
        if name.len() > limits::PROFILE_NAME_MAX_BYTES {
            let message = format!(
                "{prefix}profile has {} bytes; at most {} are taken",
                name.len(),
                limits::PROFILE_NAME_MAX_BYTES
            );
            return wrong("profile", message);
        }
        if !version.is_empty() && name.is_empty() {
            let message = "a version is named without its profile: name both, or neither";
            return wrong("profile_version", message.into());
        }
        if !version.is_empty() && version.len() != 64 {
            let message = format!(
                "{prefix}profile_version has {} characters: a version has 64 hex digits",
                version.len()
            );
            return wrong("profile_version", message);
        }
        if !version.is_empty() && follow {
            let message = "a named version stays: leave out profile_version to follow its profile";
            return wrong("follow_profile", message.into());
        }
        Ok(Choice {
            name,
            version,
            follow,
            prefix,
        })
    }

    /// The version to begin with, and where asked for those to move to.
    ///
    /// Fails as [`Profiles::get`], with the request's own field.
    pub async fn find(
        &self,
        profiles: &Profiles,
    ) -> Result<(Ready, Option<watch::Receiver<Arc<Profile>>>)> {
        let found = if self.follow {
            profiles
                .subscribe(&self.name)
                .map(|(ready, versions)| (ready, Some(versions)))
        } else {
            let ready = profiles.get(&self.name, &self.version).await;
            ready.map(|ready| (ready, None))
        };
        found.map_err(|error| {
            let field = match error.field() {
                Some("version") => "profile_version",
                _ => "profile",
            };
            error.with_field(format!("{}{field}", self.prefix))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_contradicts_itself_is_refused_by_field() {
        let version = "a".repeat(64);
        let wrong = |name: &str, version: &str, follow| {
            let error = Choice::new("open.", name.into(), version.into(), follow).unwrap_err();
            error.field().unwrap().to_owned()
        };
        assert_eq!(wrong("", &version, false), "open.profile_version");
        assert_eq!(wrong("cam", "abc", false), "open.profile_version");
        assert_eq!(wrong("cam", &version, true), "open.follow_profile");
        assert_eq!(wrong(&"p".repeat(65), "", false), "open.profile");
        for (name, version, follow) in [
            ("", "", false),
            ("", "", true),
            ("cam", "", true),
            ("cam", version.as_str(), false),
        ] {
            Choice::new("", name.into(), version.into(), follow).unwrap();
        }
    }
}
