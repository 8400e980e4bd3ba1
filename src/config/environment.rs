//! The process's environment, read in one place and replaceable by a map.

use std::{collections::HashMap, path::PathBuf};

use crate::error::{Error, Result};

/// Variables for decoder processes, beside GStreamer's own.
const FOR_DECODERS: [&str; 8] = [
    "HOME",
    "LANG",
    "LD_LIBRARY_PATH",
    "PATH",
    "RUST_BACKTRACE",
    "TMPDIR",
    "XDG_CACHE_HOME",
    "XDG_DATA_HOME",
];

/// Environment variables that mean something to this program.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    variables: HashMap<String, String>,
}

/// Where checkpoints come from and where they are kept.
#[derive(Clone, PartialEq, Eq)]
pub struct HubSettings {
    /// Base address of the hub, without a slash at its end.
    pub endpoint: String,
    /// Bearer token for gated checkpoints.
    pub token: Option<String>,
    /// Directory of the checkpoints that were fetched; `None` where the environment names none.
    pub models_dir: Option<PathBuf>,
    /// Directory under which fingerprints are kept; `None` where the environment names none.
    pub cache_dir: Option<PathBuf>,
}

impl std::fmt::Debug for HubSettings {
    /// Without the token.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HubSettings")
            .field("endpoint", &self.endpoint)
            .field("token", &self.token.as_ref().map(|_| "…"))
            .field("models_dir", &self.models_dir)
            .field("cache_dir", &self.cache_dir)
            .finish()
    }
}

impl Environment {
    /// The process's own environment. Bytes that are no Unicode are replaced, so that such a value of
    /// ours is refused like any other nonsense.
    pub fn of_process() -> Self {
        Environment {
            variables: std::env::vars_os()
                .filter_map(|(name, value)| {
                    Some((
                        name.into_string().ok()?,
                        value.to_string_lossy().into_owned(),
                    ))
                })
                .collect(),
        }
    }

    /// The same from a map, for tests.
    pub fn of(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        Environment {
            variables: variables.into_iter().collect(),
        }
    }

    /// What decoder processes get of it: where libraries and GStreamer's plugins are and where files of a
    /// moment go. The rest may hold secrets.
    pub fn for_decoders(&self) -> Vec<(String, String)> {
        let kept = |name: &str| FOR_DECODERS.contains(&name) || name.starts_with("GST_");
        let mut kept: Vec<_> = self
            .variables
            .iter()
            .filter(|(name, _)| kept(name))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        kept.sort();
        kept
    }

    pub(super) fn variables(&self) -> &HashMap<String, String> {
        &self.variables
    }

    /// A variable's value; an empty one counts as not set.
    fn get(&self, name: &str) -> Option<&str> {
        self.variables
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    /// `HF_ENDPOINT`, `HF_TOKEN`; the directory of checkpoints as the hub's own tools have it: `$HF_HUB_CACHE`,
    /// `$HF_HOME/hub`, `huggingface/hub` below `$XDG_CACHE_HOME` or `$HOME/.cache`; and the cache directory,
    /// `headhunt` below one of these two.
    ///
    /// Fails with `InvalidArgument` for an endpoint that is not http(s).
    pub fn hub(&self) -> Result<HubSettings> {
        let endpoint = self.get("HF_ENDPOINT").unwrap_or("https://huggingface.co");
        if !endpoint.starts_with("https://") && !endpoint.starts_with("http://") {
            return Err(Error::invalid(
                "HF_ENDPOINT must begin with https:// or http://",
            ));
        }
        let path = |name: &str| self.get(name).map(PathBuf::from);
        let caches = path("XDG_CACHE_HOME").or_else(|| Some(path("HOME")?.join(".cache")));
        let of_hub = path("HF_HOME").or_else(|| Some(caches.as_ref()?.join("huggingface")));
        Ok(HubSettings {
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            token: self.get("HF_TOKEN").map(str::to_owned),
            models_dir: path("HF_HUB_CACHE").or_else(|| Some(of_hub?.join("hub"))),
            cache_dir: caches.map(|dir| dir.join("headhunt")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decoders_get_no_secrets() {
        let all = environment(&[
            ("HF_TOKEN", "hf_secret"),
            ("HEADHUNT__SERVER__LISTEN", "0.0.0.0:1"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
            ("GST_REGISTRY", "/tmp/registry"),
            ("TMPDIR", "/spool"),
        ]);
        let kept = all.for_decoders();
        let names: Vec<_> = kept.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["GST_REGISTRY", "TMPDIR"]);
    }

    fn environment(variables: &[(&str, &str)]) -> Environment {
        Environment::of(
            variables
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned())),
        )
    }

    #[test]
    fn hub_settings_follow_the_variables_and_hide_the_token() {
        let hub = environment(&[
            ("HF_ENDPOINT", "http://127.0.0.1:8080/"),
            ("HF_TOKEN", "hf_secret"),
            ("HOME", "/home/ann"),
        ])
        .hub()
        .unwrap();
        assert_eq!(hub.endpoint, "http://127.0.0.1:8080");
        assert_eq!(hub.token.as_deref(), Some("hf_secret"));
        assert_eq!(
            hub.cache_dir,
            Some(PathBuf::from("/home/ann/.cache/headhunt"))
        );
        assert!(!format!("{hub:?}").contains("hf_secret"));
    }

    #[test]
    fn checkpoints_are_where_the_hubs_tools_have_them() {
        for (variables, dir) in [
            (&[("HOME", "/h")][..], "/h/.cache/huggingface/hub"),
            (&[("HOME", "/h"), ("HF_HOME", "/data/hub")], "/data/hub/hub"),
            (&[("HF_HOME", "/a"), ("HF_HUB_CACHE", "/b")], "/b"),
        ] {
            let hub = environment(variables).hub().unwrap();
            assert_eq!(hub.models_dir, Some(PathBuf::from(dir)));
        }
    }

    #[test]
    fn xdg_cache_home_wins_over_home_and_empty_means_unset() {
        let hub = environment(&[("XDG_CACHE_HOME", "/cache"), ("HOME", "/home/ann")])
            .hub()
            .unwrap();
        assert_eq!(hub.cache_dir, Some(PathBuf::from("/cache/headhunt")));
        assert_eq!(
            hub.models_dir,
            Some(PathBuf::from("/cache/huggingface/hub"))
        );
        assert_eq!(hub.endpoint, "https://huggingface.co");
        assert_eq!(hub.token, None);
        assert_eq!(environment(&[("HOME", "")]).hub().unwrap().cache_dir, None);
        assert!(
            environment(&[("HOME", "/h"), ("HF_ENDPOINT", "ftp://x")])
                .hub()
                .is_err()
        );
    }
}
