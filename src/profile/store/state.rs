//! What a store remembers beside its versions: which is current, which is active, and what a roll
//! back goes back to. Pure.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt::Write as _,
};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{
    error::{Error, Kind, Result, ResultExt as _},
    limits,
    profile::check_name,
};

/// Schema of the state file that this version writes and reads.
const SCHEMA: u32 = 1;

const CHECKSUM_PREFIX: &str = "sha256:";

/// A version of a profile.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Selected {
    /// The profile's name.
    pub name: String,
    /// SHA-256 of its content, 64 hex digits.
    pub version: String,
}

/// What an activation changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The version becomes its profile's current one, and the profile the active one.
    Active,
    /// The version becomes its profile's current one; another active profile stays active.
    Current,
}

/// The state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct State {
    schema: u32,
    /// Name of the active profile; `None` before the first activation: the operator's choice counts.
    active: Option<String>,
    names: BTreeMap<String, Name>,
    /// Oldest first.
    history: VecDeque<Change>,
    /// What the configuration names; not kept.
    #[serde(skip)]
    pub choice: Option<String>,
}

/// A profile.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Name {
    /// The version that the name alone selects; `None`: it was withdrawn.
    pub current: Option<String>,
    /// The version that `NAME.json` is known to hold.
    pub copy: Option<String>,
}

/// What can be undone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    /// What became current.
    to: Selected,
    /// The version of that profile that was current before; `None`: none, or it has been undone.
    before: Option<String>,
    /// What was active before, where the change changed it.
    active_before: Option<Selected>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    checksum: String,
    state: State,
}

impl State {
    pub fn new(choice: Option<String>) -> State {
        State {
            schema: SCHEMA,
            active: None,
            names: BTreeMap::new(),
            history: VecDeque::new(),
            choice,
        }
    }

    /// Name of the active profile, which may not exist.
    pub fn active(&self) -> Option<&str> {
        self.active.as_deref().or(self.choice.as_deref())
    }

    /// Whether an activation chose the active one.
    pub fn is_activated(&self) -> bool {
        self.active.is_some()
    }

    pub fn current(&self, name: &str) -> Option<&str> {
        self.names.get(name)?.current.as_deref()
    }

    pub fn name(&self, name: &str) -> Option<&Name> {
        self.names.get(name)
    }

    pub fn names(&self) -> impl Iterator<Item = &String> {
        self.names.keys()
    }

    /// The active version.
    pub fn selected(&self) -> Option<Selected> {
        let name = self.active()?;
        Some(Selected {
            name: name.to_owned(),
            version: self.current(name)?.to_owned(),
        })
    }

    /// Makes a version current, and its profile active where asked for.
    pub fn activate(&mut self, to: Selected, scope: Scope) {
        let was_active = self.selected();
        let name = self.names.entry(to.name.clone()).or_default();
        let before = name.current.replace(to.version.clone());
        let before = before.filter(|before| *before != to.version);
        if scope == Scope::Active {
            self.active = Some(to.name.clone());
        }
        let active_before = was_active.filter(|was| self.selected().as_ref() != Some(was));
        if before.is_some() || active_before.is_some() {
            self.history.push_back(Change {
                to,
                before,
                active_before,
            });
        }
        while self.history.len() > limits::PROFILE_HISTORY_MAX {
            self.history.pop_front();
        }
    }

    /// Goes back: to the version of `name` that was current before, or, with an empty name, to what
    /// was active before the last change of that. Gives what is current now; `None`, and nothing has
    /// changed, where nothing is remembered.
    pub fn roll_back(&mut self, name: &str) -> Option<Selected> {
        let mut next = self.clone();
        let found = if name.is_empty() {
            next.roll_back_active()
        } else {
            next.roll_back_name(name)
        }?;
        *self = next;
        Some(found)
    }

    fn roll_back_name(&mut self, name: &str) -> Option<Selected> {
        loop {
            let at = self
                .history
                .iter()
                .rposition(|change| change.to.name == name && change.before.is_some())?;
            let change = self.history.get_mut(at)?;
            let version = change.before.take()?;
            if change.active_before.is_none() {
                self.history.remove(at);
            }
            if self.current(name) != Some(version.as_str()) {
                self.set_current(name, &version);
                let name = name.to_owned();
                return Some(Selected { name, version });
            }
        }
    }

    fn roll_back_active(&mut self) -> Option<Selected> {
        loop {
            let at = self
                .history
                .iter()
                .rposition(|change| change.active_before.is_some())?;
            let change = self.history.remove(at)?;
            let target = change.active_before?;
            if self.selected().as_ref() == Some(&target) {
                continue;
            }
            // The whole activation is undone, unless something later changed its profile again.
            if self.current(&change.to.name) == Some(change.to.version.as_str())
                && let Some(before) = &change.before
            {
                self.set_current(&change.to.name, before);
            }
            self.active = Some(target.name.clone());
            self.set_current(&target.name, &target.version);
            return Some(target);
        }
    }

    fn set_current(&mut self, name: &str, version: &str) {
        let entry = self.names.entry(name.to_owned()).or_default();
        entry.current = Some(version.to_owned());
    }

    /// `NAME.json` holds this version now.
    pub fn copied(&mut self, name: &str, version: Option<&str>) {
        let entry = self.names.entry(name.to_owned()).or_default();
        entry.copy = version.map(str::to_owned);
    }

    /// The name alone selects nothing any more.
    pub fn withdraw(&mut self, name: &str) {
        self.names.insert(name.to_owned(), Name::default());
    }

    /// Forgets versions that are not (or no longer) in the store, and names without any.
    pub fn keep(&mut self, exists: impl Fn(&str, &str) -> bool, any: impl Fn(&str) -> bool) {
        for change in &mut self.history {
            let name = &change.to.name;
            change.before.take_if(|before| !exists(name, before));
            change
                .active_before
                .take_if(|active| !exists(&active.name, &active.version));
        }
        self.history
            .retain(|change| change.before.is_some() || change.active_before.is_some());
        self.names.retain(|name, _| any(name));
    }

    /// The state as the content of its file.
    pub fn to_text(&self) -> Result<String> {
        let envelope = Envelope {
            checksum: self.checksum()?,
            state: self.clone(),
        };
        let mut text = serde_json::to_string_pretty(&envelope).or_kind(Kind::Internal, no_json)?;
        text.push('\n');
        Ok(text)
    }

    /// Reads the content of a state file.
    ///
    /// Fails with `DataLoss` where it is damaged, and with `FailedPrecondition` where a later version
    /// of this program wrote it.
    pub fn from_text(text: &str) -> Result<State> {
        let value: serde_json::Value =
            serde_json::from_str(text).or_kind(Kind::DataLoss, || "it is not JSON".into())?;
        let schema = value.pointer("/state/schema").and_then(|s| s.as_u64());
        if let Some(schema) = schema.filter(|schema| *schema > u64::from(SCHEMA)) {
            return Err(Error::precondition(format!(
                "its schema is {schema}, and this version reads {SCHEMA}: use the version that wrote it"
            )));
        }
        let envelope: Envelope = serde_json::from_str(text)
            .map_err(|error| Error::data_loss(format!("it is no state of a store: {error}")))?;
        let state = envelope.state;
        if envelope.checksum != state.checksum()? {
            return Err(Error::data_loss(
                "its checksum is not that of its content: it was damaged or edited by hand",
            ));
        }
        state.check()?;
        Ok(state)
    }

    fn check(&self) -> Result<()> {
        if self.names.len() > limits::PROFILES_MAX
            || self.history.len() > limits::PROFILE_HISTORY_MAX
        {
            return Err(Error::data_loss(format!(
                "it has more than {} profiles or {} changes",
                limits::PROFILES_MAX,
                limits::PROFILE_HISTORY_MAX
            )));
        }
        // They become parts of paths.
        let named = self
            .names
            .iter()
            .flat_map(|(name, entry)| {
                let versions = [&entry.current, &entry.copy].into_iter().flatten();
                versions.map(move |version| (name, version))
            })
            .chain(self.history.iter().flat_map(|change| {
                let active = change.active_before.as_ref();
                [Some((&change.to.name, &change.to.version))]
                    .into_iter()
                    .chain([change.before.as_ref().map(|v| (&change.to.name, v))])
                    .chain([active.map(|active| (&active.name, &active.version))])
                    .flatten()
            }));
        for (name, version) in named {
            check_name(name)
                .and_then(|()| check_version(version))
                .map_err(|error| Error::data_loss(error.message()))?;
        }
        Ok(())
    }

    fn checksum(&self) -> Result<String> {
        // Maps are sorted and fields have their order: the same state is the same text.
        let text = serde_json::to_string(self).or_kind(Kind::Internal, no_json)?;
        let digest = Sha256::digest(text.as_bytes());
        Ok(digest
            .iter()
            .fold(CHECKSUM_PREFIX.to_owned(), |mut hex, byte| {
                let _ = write!(hex, "{byte:02x}");
                hex
            }))
    }
}

fn no_json() -> String {
    "cannot write the state of the profiles as JSON".into()
}

/// Refuses what is not 64 lower-case hex digits.
pub(super) fn check_version(version: &str) -> Result<()> {
    let hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if version.len() == 64 && version.bytes().all(hex) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "version is {:?}: it has 64 of 0-9 a-f",
        version.chars().take(80).collect::<String>()
    ))
    .with_field("version"))
}

#[cfg(test)]
mod tests;
