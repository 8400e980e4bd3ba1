//! A store as one would write it down, in memory.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::OnceLock,
};

use headhunt::{
    error::Result,
    profile::{Profile, ProfileStore, Scope},
};

use super::doubles;

pub const NAMES: [&str; 3] = ["cam", "door", "gate"];

/// Variants of each profile.
pub const VERSIONS: usize = 5;

/// One of the variants of a profile.
pub fn profile(name: &str, n: usize) -> Profile {
    let mut profile = doubles::profile();
    profile.name = name.into();
    profile.locator.threshold = 0.5 + n as f64 / 100.0;
    profile
}

/// Its version.
pub fn version(name: &str, n: usize) -> String {
    static KNOWN: OnceLock<BTreeMap<(String, usize), String>> = OnceLock::new();
    let known = KNOWN.get_or_init(|| {
        let names = NAMES.into_iter().chain(["new"]);
        names
            .flat_map(|name| (0..VERSIONS).map(move |n| (name, n)))
            .map(|(name, n)| {
                let version = profile(name, n).checksum().unwrap();
                ((name.to_owned(), n), version)
            })
            .collect()
    });
    known[&(name.to_owned(), n)].clone()
}

/// What can be done: names by their place in [`NAMES`], versions by variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    Put(usize, usize),
    /// With the profile made active, or not.
    Activate(usize, usize, bool),
    RollBack(Option<usize>),
    Delete(usize, usize),
    Reopen,
}

impl Op {
    pub fn run(self, store: &ProfileStore) -> Result<()> {
        match self {
            Op::Put(name, n) => store.put(&profile(NAMES[name], n)).map(drop),
            Op::Activate(name, n, active) => {
                let scope = if active {
                    Scope::Active
                } else {
                    Scope::Current
                };
                store.activate(NAMES[name], &version(NAMES[name], n), scope)
            }
            Op::RollBack(name) => store
                .roll_back(name.map_or("", |name| NAMES[name]))
                .map(drop),
            Op::Delete(name, n) => store.delete(NAMES[name], &version(NAMES[name], n)),
            Op::Reopen => Ok(()),
        }
    }

    /// A line without spaces inside its words.
    pub fn line(self) -> String {
        match self {
            Op::Put(name, n) => format!("put {name} {n}"),
            Op::Activate(name, n, active) => format!("activate {name} {n} {}", active as u8),
            Op::RollBack(None) => "back".into(),
            Op::RollBack(Some(name)) => format!("back {name}"),
            Op::Delete(name, n) => format!("delete {name} {n}"),
            Op::Reopen => "reopen".into(),
        }
    }

    pub fn of_line(line: &str) -> Op {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |at: usize| words[at].parse::<usize>().unwrap();
        match (words[0], words.len()) {
            ("put", 3) => Op::Put(number(1), number(2)),
            ("activate", 4) => Op::Activate(number(1), number(2), number(3) == 1),
            ("back", 1) => Op::RollBack(None),
            ("back", 2) => Op::RollBack(Some(number(1))),
            ("delete", 3) => Op::Delete(number(1), number(2)),
            _ => panic!("{line:?}"),
        }
    }
}

/// What everybody may see of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    pub active: Option<String>,
    pub current: BTreeMap<String, String>,
    pub versions: BTreeMap<String, BTreeSet<String>>,
}

impl View {
    /// Every version must be whole.
    pub fn of(store: &ProfileStore) -> View {
        let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let mut marked = BTreeMap::new();
        for entry in store.list() {
            let profile = entry.profile.unwrap();
            assert_eq!(profile.checksum().unwrap(), entry.version);
            assert_eq!(profile.name, entry.name);
            if entry.current {
                marked.insert(entry.name.clone(), entry.version.clone());
            }
            versions
                .entry(entry.name)
                .or_default()
                .insert(entry.version);
        }
        let current = store
            .names()
            .into_iter()
            .map(|(name, version)| (name, version.unwrap()))
            .collect();
        assert_eq!(marked, current);
        View {
            active: store.active(),
            current,
            versions,
        }
    }
}

type At = (usize, usize);

/// The store.
#[derive(Clone, Debug)]
pub struct Model {
    versions: BTreeSet<At>,
    current: BTreeMap<usize, usize>,
    active: usize,
    /// What became current, what was before, and what was active before if that changed.
    log: Vec<(At, Option<usize>, Option<At>)>,
}

impl Model {
    /// With one version, which is active.
    pub fn new(name: &str, n: usize) -> Model {
        let name = NAMES.iter().position(|known| *known == name).unwrap();
        Model {
            versions: [(name, n)].into(),
            current: [(name, n)].into(),
            active: name,
            log: Vec::new(),
        }
    }

    fn selected(&self) -> At {
        (self.active, self.current[&self.active])
    }

    /// Whether it can be done; if so it is.
    pub fn apply(&mut self, op: Op) -> bool {
        match op {
            Op::Put(name, n) => {
                self.versions.insert((name, n));
                self.current.entry(name).or_insert(n);
                true
            }
            Op::Activate(name, n, active) => {
                if !self.versions.contains(&(name, n)) {
                    return false;
                }
                let selected = self.selected();
                let before = self.current.insert(name, n).filter(|before| *before != n);
                if active {
                    self.active = name;
                }
                let was = (self.selected() != selected).then_some(selected);
                if before.is_some() || was.is_some() {
                    self.log.push(((name, n), before, was));
                }
                true
            }
            Op::RollBack(Some(name)) => {
                let mut next = self.clone();
                for at in (0..next.log.len()).rev() {
                    let ((of, _), before, _) = &mut next.log[at];
                    if *of != name {
                        continue;
                    }
                    let Some(n) = before.take() else { continue };
                    if next.current.insert(name, n) != Some(n) {
                        next.tidy();
                        *self = next;
                        return true;
                    }
                }
                false
            }
            Op::RollBack(None) => {
                let mut next = self.clone();
                while let Some(at) = next.log.iter().rposition(|(_, _, was)| was.is_some()) {
                    let ((name, n), before, was) = next.log.remove(at);
                    let was = was.unwrap();
                    if was == next.selected() {
                        continue;
                    }
                    if let Some(before) = before
                        && next.current[&name] == n
                    {
                        next.current.insert(name, before);
                    }
                    next.active = was.0;
                    next.current.insert(was.0, was.1);
                    *self = next;
                    return true;
                }
                false
            }
            Op::Delete(name, n) => {
                if self.current.get(&name) == Some(&n) || !self.versions.remove(&(name, n)) {
                    return false;
                }
                let versions = &self.versions;
                for ((of, _), before, was) in &mut self.log {
                    before.take_if(|before| !versions.contains(&(*of, *before)));
                    was.take_if(|was| !versions.contains(was));
                }
                self.tidy();
                true
            }
            Op::Reopen => true,
        }
    }

    fn tidy(&mut self) {
        self.log
            .retain(|(_, before, was)| before.is_some() || was.is_some());
    }

    pub fn view(&self) -> View {
        let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for &(name, n) in &self.versions {
            let name = NAMES[name];
            versions
                .entry(name.into())
                .or_default()
                .insert(version(name, n));
        }
        View {
            active: Some(NAMES[self.active].into()),
            current: self
                .current
                .iter()
                .map(|(&name, &n)| (NAMES[name].into(), version(NAMES[name], n)))
                .collect(),
            versions,
        }
    }
}
