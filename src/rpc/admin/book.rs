//! The server's profiles as jobs see them.

use std::sync::Arc;

use tokio::runtime::Handle;

use super::super::Profiles;
use crate::{error::Result, jobs::ProfileBook, profile::Profile};

pub(super) struct Book {
    profiles: Arc<Profiles>,
    runtime: Handle,
}

impl Book {
    /// Must be called inside a runtime.
    pub fn new(profiles: Arc<Profiles>) -> Book {
        Book {
            profiles,
            runtime: Handle::current(),
        }
    }
}

impl ProfileBook for Book {
    fn writable(&self) -> Result<()> {
        self.profiles.writable()
    }

    fn add(&self, profile: Profile, activate: bool) -> Result<String> {
        let ready = self
            .runtime
            .block_on(self.profiles.add(profile, activate))?;
        Ok(ready.version().to_owned())
    }

    fn get(&self, name: &str, version: &str) -> Result<(Arc<Profile>, String)> {
        let found = self.profiles.get(name, version).map_err(|error| {
            let field = match error.field() {
                Some("open.profile") | None => "profile".to_owned(),
                Some(field) => field.to_owned(),
            };
            error.with_field(field)
        })?;
        Ok((found.profile(), found.version().to_owned()))
    }
}
