//! Opening a store: what lies on disk is brought together with what the state says.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
};

use super::{
    Inner, Kept,
    disk::{self, Layout},
    state::{Scope, Selected, State, check_version},
};
use crate::{
    error::{Error, Kind, Result},
    limits,
    profile::{Profile, check_name, file},
};

/// What a writer has to do on disk, so that it says what memory says.
#[derive(Default)]
pub(super) struct Todo {
    /// Versions that lie only as `NAME.json`.
    pub keep: Vec<Arc<Profile>>,
    /// Names whose `NAME.json` is to be written.
    pub copy: Vec<String>,
}

/// Reads the directory. Writes nothing.
pub(super) fn read(layout: &Layout, choice: Option<&str>) -> Result<(Inner, Todo)> {
    let choice = choice.filter(|name| !name.is_empty()).map(str::to_owned);
    let path = layout.state();
    let known = match disk::read(&path, limits::PROFILE_STATE_MAX_BYTES)? {
        Some(text) => Some(State::from_text(&text).map_err(|error| {
            let what_to_do = match error.kind() {
                Kind::FailedPrecondition => "",
                _ => {
                    ". Put it back from a backup, or remove it: then every NAME.json is current, profiles.active is active, and the versions in the store can be activated"
                }
            };
            Error::new(
                error.kind(),
                format!("{}: {}{what_to_do}", path.display(), error.message()),
            )
            .with_source(error)
        })?),
        None => None,
    };
    let is_new = known.is_none();
    let mut state = known.unwrap_or_else(|| State::new(None));
    state.choice = choice;
    let mut inner = Inner {
        state,
        kept: kept(layout)?,
        loose: BTreeMap::new(),
        refused: BTreeMap::new(),
    };
    let mut todo = Todo::default();
    let copies = copies(layout)?;
    let named: BTreeSet<String> = copies.keys().cloned().collect();
    for (name, copy) in copies {
        match copy {
            Ok((profile, version)) => inner.found(Arc::new(profile), version, &mut todo),
            Err(error) => inner.refuse(&name, &error),
        }
    }
    inner.missing(&named, is_new, &mut todo);
    let kept = &inner.kept;
    inner.state.keep(
        |name, version| find(kept, name, version).is_some(),
        |name| kept.contains_key(name),
    );
    if inner.kept.len() > limits::PROFILES_MAX {
        return Err(too_many(layout));
    }
    Ok((inner, todo))
}

impl Inner {
    /// `NAME.json` holds this whole profile.
    fn found(&mut self, profile: Arc<Profile>, version: String, todo: &mut Todo) {
        let name = profile.name.clone();
        if find(&self.kept, &name, &version).is_none() {
            if let Err(error) = self.room(&name) {
                self.refuse(&name, &error);
                return;
            }
            let number = next_number(&self.kept, &name);
            let kept = Kept {
                number,
                version: version.clone(),
            };
            self.kept.entry(name.clone()).or_default().push(kept);
            self.loose
                .insert((name.clone(), version.clone()), profile.clone());
            todo.keep.push(profile);
        }
        let entry = self.state.name(&name).cloned().unwrap_or_default();
        if entry.current.is_some()
            && entry.current.as_ref() != Some(&version)
            && entry.copy.as_ref() == Some(&version)
        {
            // Nobody touched it since the store wrote it: an activation was interrupted before it
            // did, or the current version is of a schema that is not copied.
            todo.copy.push(name);
            return;
        }
        if entry.current.as_ref() != Some(&version) {
            if entry.current.is_some() {
                tracing::warn!(
                    profile = name,
                    version,
                    "NAME.json was replaced since this store last wrote it: it is a new version, and current"
                );
            }
            let to = Selected {
                name: name.clone(),
                version: version.clone(),
            };
            self.state.activate(to, Scope::Current);
        }
        self.state.copied(&name, Some(&version));
    }

    /// Names without a `NAME.json`.
    fn missing(&mut self, named: &BTreeSet<String>, is_new: bool, todo: &mut Todo) {
        let names: BTreeSet<String> = self
            .state
            .names()
            .chain(self.kept.keys())
            .cloned()
            .collect();
        for name in names.difference(named) {
            match self.state.name(name) {
                Some(entry) if entry.current.is_none() => {}
                // Never written, or an activation was interrupted between removing the copy of the
                // version before and saying so.
                Some(entry) if entry.copy != entry.current => todo.copy.push(name.clone()),
                Some(_) if self.state.active() == Some(name) => {
                    tracing::warn!(
                        profile = name,
                        "NAME.json of the active profile was removed: it is written again"
                    );
                    todo.copy.push(name.clone());
                }
                Some(_) => {
                    tracing::warn!(
                        profile = name,
                        "NAME.json was removed: no version is current until one is activated"
                    );
                    self.state.withdraw(name);
                }
                None if is_new => self.state.withdraw(name),
                // Its first version was being added when the writer was killed.
                None => {
                    let newest = self.kept.get(name).and_then(|kept| kept.last());
                    if let Some(version) = newest.map(|kept| kept.version.clone()) {
                        let to = Selected {
                            name: name.clone(),
                            version,
                        };
                        self.state.activate(to, Scope::Current);
                        todo.copy.push(name.clone());
                    }
                }
            }
        }
    }

    fn refuse(&mut self, name: &str, error: &Error) {
        let kind = error.kind();
        self.refused
            .insert(name.to_owned(), (kind, format!("{error:#}")));
    }
}

/// The versions in the store, by name, oldest first.
fn kept(layout: &Layout) -> Result<BTreeMap<String, Vec<Kept>>> {
    let mut all = BTreeMap::new();
    let mut count = 0;
    for directory in disk::entries(&layout.versions())? {
        let Some(name) = valid_name(&directory) else {
            continue;
        };
        let mut versions: Vec<Kept> = disk::entries(&directory)?
            .iter()
            .filter_map(|path| Kept::of(path))
            .collect();
        versions.sort_by_key(|kept| kept.number);
        count += versions.len();
        if count > limits::PROFILE_VERSIONS_TOTAL_MAX {
            return Err(too_many(layout));
        }
        if !versions.is_empty() {
            all.insert(name.to_owned(), versions);
        }
    }
    Ok(all)
}

type Copies = BTreeMap<String, Result<(Profile, String)>>;

/// Every `NAME.json`. Files with other names are left out.
fn copies(layout: &Layout) -> Result<Copies> {
    let mut all = BTreeMap::new();
    for path in disk::entries(layout.root())? {
        if path.extension().is_some_and(|ext| ext == "json")
            && let Some(name) = path.file_stem().and_then(|stem| stem.to_str())
            && check_name(name).is_ok()
        {
            all.insert(name.to_owned(), load(&path, name));
        }
        if all.len() > limits::PROFILES_MAX {
            return Err(too_many(layout));
        }
    }
    Ok(all)
}

fn too_many(layout: &Layout) -> Error {
    Error::exhausted(format!(
        "{} holds more than {} profiles or {} versions: move some away",
        layout.root().display(),
        limits::PROFILES_MAX,
        limits::PROFILE_VERSIONS_TOTAL_MAX
    ))
}

/// Reads a profile with this name, and its version. What is wrong with it names the file, but not
/// where it lies: clients are told of it.
pub(super) fn load(path: &Path, name: &str) -> Result<(Profile, String)> {
    let file = path.file_name().unwrap_or(path.as_os_str());
    let file = Path::new(file).display();
    let profile = file::read(path)
        .and_then(|text| file::parse(&text))
        .map_err(|error| error.context(format_args!("profile {file}")))?;
    if profile.name != name {
        return Err(Error::data_loss(format!(
            "{file} holds a profile named {:?}: rename the file or calibrate anew",
            profile.name
        )));
    }
    let version = profile.checksum()?;
    Ok((profile, version))
}

fn valid_name(directory: &Path) -> Option<&str> {
    let name = directory.file_name()?.to_str()?;
    check_name(name).ok().map(|()| name)
}

pub(super) fn find<'a>(
    kept: &'a BTreeMap<String, Vec<Kept>>,
    name: &str,
    version: &str,
) -> Option<&'a Kept> {
    kept.get(name)?.iter().find(|kept| kept.version == version)
}

pub(super) fn next_number(kept: &BTreeMap<String, Vec<Kept>>, name: &str) -> u64 {
    let last = kept.get(name).and_then(|kept| kept.last());
    last.map_or(1, |kept| kept.number.saturating_add(1))
}

impl Kept {
    /// From `NUMBER-VERSION.json`; `None` for other files.
    fn of(path: &Path) -> Option<Kept> {
        let stem = path.file_name()?.to_str()?.strip_suffix(".json")?;
        let (number, version) = stem.split_once('-')?;
        check_version(version).ok()?;
        Some(Kept {
            number: number.parse().ok()?,
            version: version.to_owned(),
        })
    }

    /// The name of its file.
    pub fn file_name(&self) -> String {
        format!("{:06}-{}.json", self.number, self.version)
    }
}
