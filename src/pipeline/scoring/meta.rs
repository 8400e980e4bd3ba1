//! What a scores file belongs to: `FILE.meta.json` beside it.

use std::{
    fs::File,
    io::{Read, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{Shard, VideoList};
use crate::{
    engine::probe::ProbeInfo,
    error::{Error, Kind, Result, ResultExt},
    files::NewFile,
    limits::SCORES_META_MAX_BYTES,
    profile::Profile,
};

/// Version of the form.
const FORMAT: u32 = 1;

/// What a scores file was made with and which part of which list it holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Meta {
    /// Version of this form.
    format: u32,
    /// Name of the profile.
    profile: String,
    /// SHA-256 of its content.
    profile_version: String,
    /// Fingerprint of the model's layers that it needs.
    model_fingerprint: String,
    /// Number type of the model: bf16 and f32 do not give quite the same scores.
    dtype: String,
    /// Which shard, from 0.
    shard: usize,
    /// Of how many.
    shards: usize,
    /// SHA-256 of the list of all shards.
    list: String,
    /// Videos of all shards.
    list_videos: usize,
    /// This shard's videos, in the list's order.
    videos: Vec<String>,
}

impl Meta {
    /// Of a run with this profile, whose model has this fingerprint, over a shard of a list.
    pub fn new(
        profile: &Profile,
        info: &ProbeInfo,
        list: &VideoList,
        shard: Shard,
    ) -> Result<Meta> {
        Ok(Meta {
            format: FORMAT,
            profile: profile.name.clone(),
            profile_version: profile.checksum()?,
            model_fingerprint: profile.model.fingerprint.clone(),
            dtype: info.dtype.clone(),
            shard: shard.index,
            shards: shard.of,
            list: list.digest(),
            list_videos: list.len(),
            videos: list.shard(shard).into_iter().map(|v| v.name).collect(),
        })
    }

    /// Which part of the list.
    pub fn shard(&self) -> Shard {
        Shard {
            index: self.shard,
            of: self.shards,
        }
    }

    /// The part's videos, in the list's order.
    pub fn videos(&self) -> &[String] {
        &self.videos
    }

    /// Videos of all parts.
    pub fn list_videos(&self) -> usize {
        self.list_videos
    }

    /// Where it lies for the scores file `scores`.
    pub fn path(scores: &Path) -> PathBuf {
        let mut name = scores.as_os_str().to_owned();
        name.push(".meta.json");
        PathBuf::from(name)
    }

    /// The first thing in which two files differ that must not, the shard apart: what differs, here
    /// and there.
    pub fn difference(&self, other: &Meta) -> Option<String> {
        let facts = |m: &Meta| {
            [
                ("profile", format!("{} {}", m.profile, m.profile_version)),
                ("model", m.model_fingerprint.clone()),
                ("number type", m.dtype.clone()),
                ("number of shards", m.shards.to_string()),
                ("list of videos", format!("{} {}", m.list_videos, m.list)),
            ]
        };
        facts(self)
            .into_iter()
            .zip(facts(other))
            .find(|(a, b)| a != b)
            .map(|((what, here), (_, there))| format!("its {what} is {here}, not {there}"))
    }

    /// The same for the file that holds all parts.
    pub fn merged(&self, videos: Vec<String>) -> Meta {
        Meta {
            shard: 0,
            shards: 1,
            videos,
            ..self.clone()
        }
    }

    /// Reads the one beside `scores`.
    ///
    /// `NotFound` where there is none, `DataLoss` where it cannot be read as one.
    pub fn read(scores: &Path) -> Result<Meta> {
        let path = Meta::path(scores);
        let file = File::open(&path).or_kind(Kind::NotFound, || {
            format!(
                "cannot open {}, which says what {} was made with",
                path.display(),
                scores.display()
            )
        })?;
        let mut text = String::new();
        file.take(SCORES_META_MAX_BYTES + 1)
            .read_to_string(&mut text)
            .or_kind(Kind::DataLoss, || format!("cannot read {}", path.display()))?;
        if text.len() as u64 > SCORES_META_MAX_BYTES {
            return Err(Error::data_loss(format!(
                "{} is larger than {SCORES_META_MAX_BYTES} bytes",
                path.display()
            )));
        }
        let meta: Meta = serde_json::from_str(&text)
            .or_kind(Kind::DataLoss, || format!("cannot read {}", path.display()))?;
        if meta.format != FORMAT {
            return Err(Error::precondition(format!(
                "{} has format {}, and this version reads {FORMAT}",
                path.display(),
                meta.format
            )));
        }
        Ok(meta)
    }

    /// Writes it beside `scores`, whole or not at all.
    pub fn write(&self, scores: &Path) -> Result<()> {
        let path = Meta::path(scores);
        let json = serde_json::to_vec(self)
            .or_kind(Kind::Internal, || "cannot write the scores' origin".into())?;
        if json.len() as u64 > SCORES_META_MAX_BYTES {
            return Err(Error::exhausted(format!(
                "the names of the videos exceed {SCORES_META_MAX_BYTES} bytes: score them in more \
                 shards"
            )));
        }
        write_whole(&path, |file| file.write_all(&json))
    }
}

/// Writes a file that is whole or not there.
pub(super) fn write_whole(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
) -> Result<()> {
    let new = NewFile {
        prefix: ".scores-",
        mode: 0o644,
    };
    new.write(path, write)
        .or_kind(Kind::FailedPrecondition, || {
            format!("cannot write {}", path.display())
        })
}
