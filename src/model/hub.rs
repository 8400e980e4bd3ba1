//! From what a user calls a model to a directory on disk: a local checkpoint, or a hub id whose
//! files are fetched into the hub cache.

mod fetch;

use std::path::{Path, PathBuf};

use hf_hub::{Cache, Repo, RepoType};

use crate::{
    error::{Error, Result},
    model::weights::read_index,
};

/// Where and how to fetch.
#[derive(Clone, Debug, Default)]
pub struct HubOptions {
    /// Base URL of the hub, what `HF_ENDPOINT` names; `None`: <https://huggingface.co>.
    pub endpoint: Option<String>,
    /// Cache folder, laid out as the hub's own tools do it; `None`: ~/.cache/huggingface/hub.
    pub cache_dir: Option<PathBuf>,
    /// Access token for private and gated models; `None`: the one that the hub's own tools stored
    /// beside the cache, if any.
    pub token: Option<String>,
    /// Use the cache alone and never the network.
    pub offline: bool,
    /// Show a progress bar per file.
    pub progress: bool,
}

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// The directory of the checkpoint that `model` names: an existing directory, or a hub id
/// `owner/name` or `owner/name@revision`, fetched where the cache does not have it yet.
///
/// Blocks; a request that gets no answer in 30 s, or a download without progress for 60 s, fails.
/// All files come from one commit. If the hub cannot be reached or refuses, a complete copy of that
/// revision in the cache is used, with a warning in the log.
///
/// # Errors
/// `NotFound` for a directory, model, revision or file that does not exist, `Unauthenticated` or
/// `PermissionDenied` where the hub wants a (better) token, `Unavailable` where it cannot be
/// reached, `InvalidArgument` for a malformed id, `DataLoss` for a download of the wrong size.
pub fn resolve(model: &str, options: &HubOptions) -> Result<PathBuf> {
    let id = match Named::parse(model)? {
        Named::Directory(dir) => return Ok(dir),
        Named::Hub(id) => id,
    };
    let cache = match &options.cache_dir {
        Some(dir) => Cache::new(dir.clone()),
        None => Cache::new(default_cache()?),
    };
    if options.offline {
        return id.cached(&cache).ok_or_else(|| {
            Error::not_found(format!(
                "{model} is not (completely) in the hub cache {}, and the network is switched off",
                cache.path().display()
            ))
        });
    }
    match id.fetch(&cache, options) {
        // Whatever the hub or the disk says, what is here can be used: a server must come back at night.
        Err(error) => match id.cached(&cache) {
            Some(dir) => {
                tracing::warn!(model, error = %format!("{error:#}"), "the hub gives no checkpoint, using the cached copy");
                Ok(dir)
            }
            None => Err(error),
        },
        other => other,
    }
}

fn default_cache() -> Result<PathBuf> {
    std::env::home_dir()
        .filter(|home| home.is_absolute())
        .map(|home| home.join(".cache/huggingface/hub"))
        .ok_or_else(|| {
            Error::precondition("there is no home directory for the hub cache; name a cache folder")
        })
}

/// Whether [`resolve`] would have a place to look at: a directory, or a hub id. Asks nobody.
///
/// # Errors
/// `NotFound` and `InvalidArgument` as there.
pub fn check(model: &str) -> Result<()> {
    Named::parse(model).map(|_| ())
}

/// What names a checkpoint.
enum Named {
    Directory(PathBuf),
    Hub(HubId),
}

impl Named {
    fn parse(model: &str) -> Result<Named> {
        let path = Path::new(model);
        if path.is_dir() {
            return Ok(Named::Directory(path.to_path_buf()));
        }
        if path.is_file() {
            return Err(Error::invalid(format!(
                "{model} is a file; give the checkpoint's directory"
            )));
        }
        HubId::parse(model).map(Named::Hub).ok_or_else(|| {
            Error::not_found(format!(
                "no directory {model}, and it is not a hub id (owner/name or owner/name@revision) either"
            ))
        })
    }
}

/// `owner/name[@revision]`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct HubId {
    repo: String,
    revision: String,
}

/// A single path component: what the hub allows in names, and nothing that leaves a folder.
fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 128
        && !text.starts_with('.')
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

impl HubId {
    fn parse(text: &str) -> Option<Self> {
        let (repo, revision) = text.split_once('@').unwrap_or((text, "main"));
        let (owner, name) = repo.split_once('/')?;
        let revision_ok = !revision.is_empty() && revision.split('/').all(is_name);
        (is_name(owner) && is_name(name) && revision_ok).then(|| HubId {
            repo: repo.to_owned(),
            revision: revision.to_owned(),
        })
    }

    fn at(&self, revision: &str) -> Repo {
        Repo::with_revision(self.repo.clone(), RepoType::Model, revision.to_owned())
    }

    /// The snapshot in the cache, if its reference was written, which happens last.
    fn cached(&self, cache: &Cache) -> Option<PathBuf> {
        let config = cache.repo(self.at(&self.revision)).get("config.json")?;
        let dir = config.parent()?.to_path_buf();
        if dir.join(SINGLE).is_file() {
            return Some(dir);
        }
        let names = shards(&dir.join(INDEX)).ok()??;
        names
            .iter()
            .all(|name| dir.join(name).is_file())
            .then_some(dir)
    }
}

impl std::fmt::Display for HubId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}", self.repo, self.revision)
    }
}

/// The shard names of an index file, sorted, each once; `None` if there is no such file.
fn shards(index: &Path) -> Result<Option<Vec<String>>> {
    if !index.exists() {
        return Ok(None);
    }
    let mut names: Vec<String> = read_index(index)?.into_values().collect();
    names.sort_unstable();
    names.dedup();
    Ok(Some(names))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_owner_name_and_revision_and_nothing_that_leaves_the_cache() {
        let id = HubId::parse("OpenGVLab/InternVL3-8B-hf").unwrap();
        assert_eq!(
            (id.repo.as_str(), id.revision.as_str()),
            ("OpenGVLab/InternVL3-8B-hf", "main")
        );
        assert_eq!(HubId::parse("a/b@refs/pr/1").unwrap().revision, "refs/pr/1");
        for bad in [
            "a", "a/b/c", "/a/b", "../b", "a/..", "a/b@", "a/b@../x", "a/b@x//y", "a b/c",
        ] {
            assert_eq!(HubId::parse(bad), None, "{bad}");
        }
    }
}
