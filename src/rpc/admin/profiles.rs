//! RPCs on profiles.

use std::time::{Duration, SystemTime};

use tonic::{Request, Response, Status};

use super::{
    super::{profiles::Listed, proto},
    Admin,
    answer::answered,
};
use crate::{
    error::{Error, Result},
    limits,
    profile::Scope,
};

impl Admin {
    pub(super) async fn profiles_list(
        &self,
        _: Request<proto::ListProfilesRequest>,
    ) -> Result<Response<proto::ListProfilesResponse>, Status> {
        answered("ListProfiles", async {
            let listed = self.profiles.list().await?;
            Ok(proto::ListProfilesResponse {
                profiles: listed.into_iter().map(message).collect(),
            })
        })
        .await
    }

    pub(super) async fn profiles_get(
        &self,
        request: Request<proto::GetProfileRequest>,
    ) -> Result<Response<proto::GetProfileResponse>, Status> {
        let proto::GetProfileRequest { name, version } = request.into_inner();
        answered("GetProfile", self.one(&name, &version)).await
    }

    pub(super) async fn profiles_activate(
        &self,
        request: Request<proto::ActivateProfileRequest>,
    ) -> Result<Response<proto::ActivateProfileResponse>, Status> {
        let request = request.into_inner();
        answered("ActivateProfile", async {
            let name = named(&request.name)?;
            let scope = if request.current_only {
                Scope::Current
            } else {
                Scope::Active
            };
            let ready = self
                .profiles
                .activate(name, &request.version, scope)
                .await?;
            let profile = self.shown(ready.name(), ready.version()).await?;
            Ok(proto::ActivateProfileResponse {
                profile: Some(profile),
            })
        })
        .await
    }

    pub(super) async fn profiles_roll_back(
        &self,
        request: Request<proto::RollBackProfileRequest>,
    ) -> Result<Response<proto::RollBackProfileResponse>, Status> {
        let name = request.into_inner().name;
        answered("RollBackProfile", async {
            if !name.is_empty() {
                named(&name)?;
            }
            let ready = self.profiles.roll_back(&name).await?;
            let profile = self.shown(ready.name(), ready.version()).await?;
            Ok(proto::RollBackProfileResponse {
                profile: Some(profile),
            })
        })
        .await
    }

    pub(super) async fn profiles_delete(
        &self,
        request: Request<proto::DeleteProfileRequest>,
    ) -> Result<Response<proto::DeleteProfileResponse>, Status> {
        let proto::DeleteProfileRequest { name, version } = request.into_inner();
        answered("DeleteProfile", async {
            let name = named(&name)?;
            if version.is_empty() {
                return Err(Error::invalid(
                    "no version is named: a version is deleted, not a profile",
                )
                .with_field("version"));
            }
            self.profiles.delete(name, &version).await?;
            Ok(proto::DeleteProfileResponse {})
        })
        .await
    }

    async fn one(&self, name: &str, version: &str) -> Result<proto::GetProfileResponse> {
        let name = named(name)?;
        let listed = self.profiles.look(name, version).await?;
        let Some(profile) = &listed.profile else {
            return Err(Error::precondition(listed.unusable).with_field("name"));
        };
        Ok(proto::GetProfileResponse {
            json: profile.to_text()?,
            profile: Some(message(listed)),
        })
    }

    async fn shown(&self, name: &str, version: &str) -> Result<proto::Profile> {
        self.one(name, version)
            .await
            .map(|found| found.profile.unwrap_or_default())
    }
}

/// The name of a profile, which a request must give.
fn named(name: &str) -> Result<&str> {
    if name.is_empty() {
        return Err(Error::invalid("no profile is named").with_field("name"));
    }
    if name.len() > limits::PROFILE_NAME_MAX_BYTES {
        return Err(Error::invalid(format!(
            "name has {} bytes; at most {} are taken",
            name.len(),
            limits::PROFILE_NAME_MAX_BYTES
        ))
        .with_field("name"));
    }
    Ok(name)
}

fn message(listed: Listed) -> proto::Profile {
    let profile = listed.profile.as_deref();
    proto::Profile {
        active: listed.active,
        current: listed.current,
        model_fingerprint: profile.map_or_else(String::new, |p| p.model.fingerprint.clone()),
        created_at: profile.and_then(|profile| {
            let since = Duration::from_secs(profile.created_unix_s);
            SystemTime::UNIX_EPOCH.checked_add(since).map(Into::into)
        }),
        name: listed.name,
        version: listed.version,
        unusable: listed.unusable,
    }
}
