//! `headhunt admin profiles`.

use serde_json::{Value, json};

use super::connection::{Connection, refused, seconds};
use crate::{
    error::{Error, Kind, Result, ResultExt as _},
    rpc::proto,
};

/// Profiles and their versions
#[derive(Debug, clap::Subcommand)]
pub enum Profiles {
    /// List every version of every profile
    List,
    /// Print one version as JSON
    Get {
        /// Its name
        name: String,
        /// Default: the current one
        #[arg(long, value_name = "SHA256", default_value = "")]
        version: String,
    },
    /// Make a version its profile's current one, and the profile the active one
    Activate {
        /// Its name
        name: String,
        /// Default: the newest
        #[arg(long, value_name = "SHA256", default_value = "")]
        version: String,
        /// Leave the active profile as it is
        #[arg(long)]
        current_only: bool,
    },
    /// Undo the last activation
    RollBack {
        /// A name: its previous version becomes current again. Default: what was active before
        #[arg(default_value = "")]
        name: String,
    },
    /// Delete a version that is not current
    Delete {
        /// Its name
        name: String,
        /// The version
        version: String,
    },
}

impl Profiles {
    pub(super) async fn run(self, to: &mut Connection) -> Result<()> {
        let mut client = to.client();
        match self {
            Profiles::List => {
                let response = client.list_profiles(proto::ListProfilesRequest {}).await;
                for profile in response.map_err(refused)?.into_inner().profiles {
                    to.print(&value(&profile), || line(&profile));
                }
                Ok(())
            }
            Profiles::Get { name, version } => {
                let response = client
                    .get_profile(proto::GetProfileRequest { name, version })
                    .await
                    .map_err(refused)?
                    .into_inner();
                // It is JSON already, indented for people.
                let profile: Value = serde_json::from_str(&response.json)
                    .or_kind(Kind::Internal, || {
                        "the server answered with a profile that is no JSON".into()
                    })?;
                to.print(&profile, || response.json.clone());
                Ok(())
            }
            Profiles::Activate {
                name,
                version,
                current_only,
            } => {
                let request = proto::ActivateProfileRequest {
                    name,
                    version,
                    current_only,
                };
                let response = client.activate_profile(request).await;
                print(to, response.map_err(refused)?.into_inner().profile)
            }
            Profiles::RollBack { name } => {
                let request = proto::RollBackProfileRequest { name };
                let response = client.roll_back_profile(request).await;
                print(to, response.map_err(refused)?.into_inner().profile)
            }
            Profiles::Delete { name, version } => {
                let request = proto::DeleteProfileRequest {
                    name: name.clone(),
                    version: version.clone(),
                };
                client.delete_profile(request).await.map_err(refused)?;
                to.print(&json!({"deleted": name, "version": version}), || {
                    format!("deleted {name} {version}")
                });
                Ok(())
            }
        }
    }
}

fn print(to: &Connection, profile: Option<proto::Profile>) -> Result<()> {
    let profile =
        profile.ok_or_else(|| Error::internal("the server answered without a profile"))?;
    to.print(&value(&profile), || line(&profile));
    Ok(())
}

fn value(profile: &proto::Profile) -> Value {
    json!({
        "name": profile.name,
        "version": profile.version,
        "active": profile.active,
        "current": profile.current,
        "model_fingerprint": profile.model_fingerprint,
        "created_unix_s": seconds(profile.created_at),
        "unusable": profile.unusable,
    })
}

fn line(profile: &proto::Profile) -> String {
    let mut marks = Vec::new();
    if profile.active {
        marks.push("active");
    }
    if profile.current {
        marks.push("current");
    }
    format!(
        "{:20} {}  {} {}",
        profile.name,
        profile.version,
        marks.join(" "),
        profile.unusable
    )
}
