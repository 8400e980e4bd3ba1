//! The server's profiles and feedback as jobs see them.

use std::sync::Arc;

use tokio::runtime::Handle;

use super::super::Profiles;
use crate::{
    error::{Error, Result},
    feedback::{Feedback, FeedbackSamples},
    jobs::ProfileBook,
    profile::Profile,
};

pub(super) struct Book {
    profiles: Arc<Profiles>,
    feedback: Option<Arc<Feedback>>,
    runtime: Handle,
}

impl Book {
    /// Must be called inside a runtime.
    pub fn new(profiles: Arc<Profiles>, feedback: Option<Arc<Feedback>>) -> Book {
        Book {
            profiles,
            feedback,
            runtime: Handle::current(),
        }
    }
}

impl ProfileBook for Book {
    fn writable(&self, profile: &str) -> Result<()> {
        self.runtime.block_on(self.profiles.writable(profile))
    }

    fn add(&self, profile: Profile, activate: bool) -> Result<String> {
        let ready = self
            .runtime
            .block_on(self.profiles.add(profile, activate))?;
        Ok(ready.version().to_owned())
    }

    fn get(&self, name: &str, version: &str) -> Result<(Arc<Profile>, String)> {
        let found = self.runtime.block_on(self.profiles.get(name, version));
        let found = found.map_err(|error| {
            let field = match error.field() {
                Some("version") => "profile_version",
                _ => "profile",
            };
            error.with_field(field)
        })?;
        Ok((found.profile(), found.version().to_owned()))
    }

    fn feedback(&self, of: &Profile) -> Result<FeedbackSamples> {
        let feedback = self.feedback.as_ref().ok_or_else(|| {
            Error::precondition("this server keeps no feedback: have the operator set feedback.dir")
                .with_field("include_feedback")
        })?;
        let prompt = of.scoring_prompts.first().map_or("", String::as_str);
        feedback.store().samples_for(
            &of.model.fingerprint,
            &of.heads,
            prompt,
            of.frames_per_segment,
        )
    }
}
