//! A profile as a file: `{"checksum": "sha256:…", "profile": {…}}`, indented so that people can
//! read and compare it.
//!
//! The checksum is over the content, not the layout: SHA-256 of the profile as JSON with sorted
//! keys and no spaces, numbers in their shortest form that reads back equal. Indenting a file anew
//! does not break it, changing a number does.

use std::{fmt::Write as _, fs::File, io::Read, path::Path};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::{
    error::{Error, Kind, Result, ResultExt},
    files::{self, NewFile},
    limits,
};

use super::{Profile, SCHEMA, SCHEMA_NEWEST};

const CHECKSUM_PREFIX: &str = "sha256:";

/// A profile is no secret: others may read it.
const FILE: NewFile = NewFile {
    prefix: ".profile-",
    mode: 0o644,
};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope<P> {
    checksum: String,
    profile: P,
}

impl Profile {
    /// SHA-256 of the content, 64 hex digits: the profile's version.
    pub fn checksum(&self) -> Result<String> {
        let value = serde_json::to_value(self)
            .or_kind(Kind::Internal, || "cannot write the profile as JSON".into())?;
        let mut canonical = String::new();
        write_canonical(&value, &mut canonical);
        let digest = Sha256::digest(canonical.as_bytes());
        Ok(digest.iter().fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        }))
    }

    /// Reads and checks a file.
    ///
    /// Fails with `NotFound`, with `FailedPrecondition` for a schema of another version, and with
    /// `DataLoss` for a file that is not JSON, too large, has an unknown key, another checksum than
    /// its content, or values that cannot be.
    pub fn load(path: impl AsRef<Path>) -> Result<Profile> {
        let path = path.as_ref();
        read(path)
            .and_then(|text| parse(&text))
            .map_err(|error| error.context(format_args!("profile {}", path.display())))
    }

    /// Writes a file that is either whole or not there: beside it first, synced, then renamed.
    /// Refuses a profile that [`validate`](Self::validate) refuses.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        self.validate()
            .and_then(|()| self.write(path))
            .map_err(|error| error.context(format_args!("profile {}", path.display())))
    }

    /// The content of its file: indented JSON with the checksum.
    ///
    /// Fails with `InvalidArgument` where the file would be larger than a profile may be.
    pub fn to_text(&self) -> Result<String> {
        let envelope = Envelope {
            checksum: format!("{CHECKSUM_PREFIX}{}", self.checksum()?),
            profile: self,
        };
        let mut json = serde_json::to_string_pretty(&envelope)
            .or_kind(Kind::Internal, || "cannot write it as JSON".into())?;
        json.push('\n');
        if json.len() as u64 > limits::PROFILE_MAX_BYTES {
            return Err(Error::invalid(format!(
                "it would have {} bytes, and {} are possible: shorten its notes",
                json.len(),
                limits::PROFILE_MAX_BYTES
            )));
        }
        Ok(json)
    }

    fn write(&self, path: &Path) -> Result<()> {
        let text = self.to_text()?;
        FILE.write(path, |out| out.write_all(text.as_bytes()))
            .map_err(|error| {
                let kind = match error.kind() {
                    _ if files::is_full(&error) => Kind::ResourceExhausted,
                    std::io::ErrorKind::NotFound => Kind::NotFound,
                    std::io::ErrorKind::PermissionDenied => Kind::FailedPrecondition,
                    _ => Kind::Internal,
                };
                Error::new(kind, "cannot write it").with_source(error)
            })
    }
}

pub(super) fn read(path: &Path) -> Result<String> {
    let file = File::open(path).map_err(|error| {
        let kind = match error.kind() {
            std::io::ErrorKind::NotFound => Kind::NotFound,
            _ => Kind::FailedPrecondition,
        };
        Error::new(kind, "cannot open it").with_source(error)
    })?;
    let mut bytes = Vec::new();
    file.take(limits::PROFILE_MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .or_kind(Kind::FailedPrecondition, || "cannot read it".into())?;
    if bytes.len() as u64 > limits::PROFILE_MAX_BYTES {
        return Err(Error::data_loss(format!(
            "it has more than {} bytes, so it is no profile",
            limits::PROFILE_MAX_BYTES
        )));
    }
    String::from_utf8(bytes).or_kind(Kind::DataLoss, || "it is not UTF-8 text".into())
}

pub(super) fn parse(text: &str) -> Result<Profile> {
    // The schema first: a later one may have keys that this version does not know.
    let value: Value =
        serde_json::from_str(text).or_kind(Kind::DataLoss, || "it is not JSON".into())?;
    let schema = value.pointer("/profile/schema").ok_or_else(|| {
        Error::data_loss("it has no profile.schema, so it is no HeadHunt profile")
    })?;
    let readable = u64::from(SCHEMA)..=u64::from(SCHEMA_NEWEST);
    if !schema.as_u64().is_some_and(|n| readable.contains(&n)) {
        return Err(Error::precondition(format!(
            "its schema is {schema}, and this version reads {SCHEMA} to {SCHEMA_NEWEST}: use the version that wrote it, or calibrate anew"
        )));
    }
    // From the text again, so that the message has line and column and a repeated key is refused.
    let envelope: Envelope<Profile> = serde_json::from_str(text).map_err(|error| {
        Error::data_loss(format!("it does not follow schema {schema}: {error}"))
    })?;
    let profile = envelope.profile;
    profile
        .validate()
        .map_err(|error| Error::data_loss(error.message()))?;
    let expected = format!("{CHECKSUM_PREFIX}{}", profile.checksum()?);
    if envelope.checksum != expected {
        return Err(Error::data_loss(format!(
            "its checksum is {}, and its content's {expected}: it was damaged or edited by hand",
            envelope.checksum
        )));
    }
    Ok(profile)
}

/// JSON with sorted keys and no spaces. Sorted here, because whether serde_json sorts depends on a
/// feature that any dependency may turn on.
fn write_canonical(value: &Value, out: &mut String) {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(key, _)| *key);
            out.push('{');
            for (number, (key, value)) in entries.into_iter().enumerate() {
                if number > 0 {
                    out.push(',');
                }
                let _ = write!(out, "{}:", Value::from(key.as_str()));
                write_canonical(value, out);
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (number, item) in items.iter().enumerate() {
                if number > 0 {
                    out.push(',');
                }
                write_canonical(item, out);
            }
            out.push(']');
        }
        scalar => {
            let _ = write!(out, "{scalar}");
        }
    }
}
