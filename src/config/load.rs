//! Layers of settings, laid over one another and checked.

use std::{
    collections::{HashMap, HashSet},
    fs,
    net::SocketAddr,
    path::Path,
};

use config::{Config, ConfigError, File, FileFormat, Value, ValueKind};

use super::{Environment, Settings, print};
use crate::error::{Error, Kind, Result, ResultExt as _};

/// The built-in settings with their documentation, `config/default.toml`.
pub const DEFAULTS: &str = include_str!("../../config/default.toml");

/// Prefix of the environment variables, with [`SEPARATOR`] between it, section and key.
const PREFIX: &str = "HEADHUNT";
const SEPARATOR: &str = "__";

/// Largest configuration file, bytes; the defaults with all their text take 5 KB.
const FILE_MAX_BYTES: u64 = 1 << 20;

/// Flags of `serve`: they win over file and environment.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// `server.listen`.
    pub listen: Option<SocketAddr>,
    /// `server.metrics_listen`.
    pub metrics_listen: Option<SocketAddr>,
    /// `model.path`.
    pub model: Option<String>,
    /// `model.device`.
    pub device: Option<String>,
    /// `model.dtype`.
    pub dtype: Option<String>,
    /// `profiles.file`; a directory of profiles set elsewhere is then not used.
    pub profile: Option<String>,
}

impl Settings {
    /// The settings of file (where one is given), process environment and no flags.
    pub fn load(file: Option<&Path>) -> Result<Settings> {
        Settings::load_from(file, &Environment::of_process(), &Overrides::default())
    }

    /// The settings of the three layers over [`DEFAULTS`].
    ///
    /// Fails with `InvalidArgument`, naming the key and the layer it came from, for an unknown key,
    /// a wrong type or a value out of range, and with `NotFound` for a missing file.
    pub fn load_from(
        file: Option<&Path>,
        environment: &Environment,
        overrides: &Overrides,
    ) -> Result<Settings> {
        let text = file.map(read).transpose()?;
        let origin = file.map_or_else(String::new, |path| path.display().to_string());
        Settings::from_layers(
            text.as_deref().map(|text| (text, origin.as_str())),
            environment,
            overrides,
        )
    }

    /// As [`load_from`](Self::load_from) with the file's text and its name for messages.
    pub fn from_layers(
        file: Option<(&str, &str)>,
        environment: &Environment,
        overrides: &Overrides,
    ) -> Result<Settings> {
        layered(file, environment, overrides).map(|layered| layered.settings)
    }

    /// The settings as a TOML document that loads to the same again: every key in the order of
    /// [`DEFAULTS`], with where its value came from in a comment where that is not the default. User
    /// names and passwords in addresses are left out.
    ///
    /// Fails as [`load_from`](Self::load_from).
    pub fn print(
        file: Option<&Path>,
        environment: &Environment,
        overrides: &Overrides,
    ) -> Result<String> {
        let text = file.map(read).transpose()?;
        let origin = file.map_or_else(String::new, |path| path.display().to_string());
        let file = text.as_deref().map(|text| (text, origin.as_str()));
        let layered = layered(file, environment, overrides)?;
        Ok(print::document(&layered.root, &layered.origins))
    }
}

/// Settings and how they came about.
pub(super) struct Layered {
    pub settings: Settings,
    /// All layers laid over one another.
    pub root: Value,
    /// For each key that is not as in [`DEFAULTS`], the layer that it came from.
    pub origins: HashMap<String, String>,
}

/// Lays the layers over one another and checks the outcome; `file` is its text and its name.
pub(super) fn layered(
    file: Option<(&str, &str)>,
    environment: &Environment,
    overrides: &Overrides,
) -> Result<Layered> {
    let known = known_keys()?;
    let mut origins = HashMap::new();
    let mut builder = Config::builder().add_source(File::from_str(DEFAULTS, FileFormat::Toml));
    if let Some((text, origin)) = file {
        let parsed = parse(text, origin)?;
        check_keys(&parsed, origin, &known)?;
        leaves(&parsed, "", &mut |key, _| {
            origins.insert(key.to_owned(), origin.to_owned());
            Ok(())
        })?;
        builder = builder.add_source(File::from_str(text, FileFormat::Toml));
    }
    for (name, value) in environment.variables() {
        let Some(key) = variable_key(name) else {
            continue;
        };
        if !known.contains(&key) {
            return Err(unknown(&key, &format!("environment variable {name}")));
        }
        builder = set(builder, &key, value.clone())?;
        origins.insert(key, name.clone());
    }
    for (key, value) in overrides.entries() {
        builder = set(builder, key, value)?;
        origins.insert(key.to_owned(), "command line".to_owned());
    }
    let config = builder.build().map_err(refused)?;
    let root = config.cache.clone();
    let settings: Settings = config.try_deserialize().map_err(refused)?;
    settings.check()?;
    Ok(Layered {
        settings,
        root,
        origins,
    })
}

impl Overrides {
    fn entries(&self) -> Vec<(&'static str, String)> {
        let mut entries = Vec::new();
        if let Some(address) = self.listen {
            entries.push(("server.listen", address.to_string()));
        }
        if let Some(address) = self.metrics_listen {
            entries.push(("server.metrics_listen", address.to_string()));
        }
        if let Some(model) = &self.model {
            entries.push(("model.path", model.clone()));
        }
        if let Some(device) = &self.device {
            entries.push(("model.device", device.clone()));
        }
        if let Some(dtype) = &self.dtype {
            entries.push(("model.dtype", dtype.clone()));
        }
        if let Some(profile) = &self.profile {
            entries.push(("profiles.file", profile.clone()));
            entries.push(("profiles.dir", String::new()));
            entries.push(("profiles.active", String::new()));
        }
        entries
    }
}

fn read(path: &Path) -> Result<String> {
    let name = path.display();
    let size = fs::metadata(path)
        .or_kind(Kind::NotFound, || {
            format!("cannot read the configuration file {name}")
        })?
        .len();
    if size > FILE_MAX_BYTES {
        return Err(Error::invalid(format!(
            "the configuration file {name} has {size} bytes; at most {FILE_MAX_BYTES} are read"
        )));
    }
    fs::read_to_string(path).or_kind(Kind::InvalidArgument, || {
        format!("cannot read the configuration file {name} as UTF-8 text")
    })
}

/// `section.key` of one of our variables.
fn variable_key(name: &str) -> Option<String> {
    let rest = name.strip_prefix(PREFIX)?.strip_prefix(SEPARATOR)?;
    Some(rest.to_lowercase().replace(SEPARATOR, "."))
}

fn parse(text: &str, origin: &str) -> Result<Value> {
    let config = Config::builder()
        .add_source(File::from_str(text, FileFormat::Toml))
        .build()
        .map_err(|e| refused(e).context(origin))?;
    Ok(config.cache)
}

fn known_keys() -> Result<HashSet<String>> {
    let mut keys = HashSet::new();
    leaves(&parse(DEFAULTS, "built-in defaults")?, "", &mut |key, _| {
        keys.insert(key.to_owned());
        Ok(())
    })?;
    Ok(keys)
}

fn check_keys(root: &Value, origin: &str, known: &HashSet<String>) -> Result<()> {
    leaves(root, "", &mut |key, _| {
        if known.contains(key) {
            Ok(())
        } else {
            Err(unknown(key, origin))
        }
    })
}

/// Calls `visit` with the path of every value that is no table, and of every empty table.
fn leaves(
    value: &Value,
    path: &str,
    visit: &mut dyn FnMut(&str, &Value) -> Result<()>,
) -> Result<()> {
    let ValueKind::Table(table) = &value.kind else {
        return visit(path, value);
    };
    for (key, value) in table {
        let path = if path.is_empty() {
            key.clone()
        } else {
            format!("{path}.{key}")
        };
        leaves(value, &path, visit)?;
    }
    Ok(())
}

fn set(
    builder: config::ConfigBuilder<config::builder::DefaultState>,
    key: &str,
    value: String,
) -> Result<config::ConfigBuilder<config::builder::DefaultState>> {
    builder.set_override(key, value).map_err(refused)
}

fn unknown(key: &str, origin: &str) -> Error {
    Error::invalid(format!(
        "unknown setting `{key}` in {origin}; config/default.toml lists every key"
    ))
    .with_field(key)
}

fn refused(error: ConfigError) -> Error {
    Error::invalid(format!("configuration: {error}"))
}

#[cfg(test)]
mod tests;
