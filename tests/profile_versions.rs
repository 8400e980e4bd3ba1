//! The store of versions: against a model in memory, killed at any instant, beside an older server,
//! and with what people do to its files.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests fail like tests

mod doubles;
#[path = "profile_versions/kill.rs"]
mod kill;
#[path = "profile_versions/model.rs"]
mod model;
#[path = "profile_versions/old.rs"]
mod old;

use std::{fs, path::Path};

use headhunt::{
    error::{Error, Kind},
    limits,
    profile::{ProfileStore, Scope, Selected},
};
use model::{Model, NAMES, Op, VERSIONS, View, profile, version};
use proptest::prelude::*;

/// Profile `name` in the variant `n` as a file that somebody put there.
fn by_hand(directory: &Path, name: &str, n: usize) {
    profile(name, n)
        .save(directory.join(format!("{name}.json")))
        .unwrap();
}

fn open(directory: &Path) -> ProfileStore {
    ProfileStore::open(directory, Some("cam")).unwrap()
}

#[track_caller]
fn says(error: &Error, kind: Kind, words: &str) {
    let text = format!("{error:#}");
    assert_eq!(error.kind(), kind, "{text}");
    assert!(text.contains(words), "{text:?} does not say {words:?}");
}

fn current(store: &ProfileStore, name: &str) -> usize {
    let (profile, found) = store.get(name, "").unwrap();
    assert_eq!(profile.name, name);
    (0..VERSIONS)
        .find(|n| version(name, *n) == found)
        .expect("a version of the test's")
}

#[test]
fn a_directory_of_files_is_read_and_each_file_is_a_version() {
    let directory = tempfile::tempdir().unwrap();
    by_hand(directory.path(), "cam", 0);
    by_hand(directory.path(), "door", 1);
    fs::write(directory.path().join("broken.json"), "{").unwrap();
    fs::write(directory.path().join("README.txt"), "no profile").unwrap();
    let store = open(directory.path());
    assert_eq!(store.active().as_deref(), Some("cam"));
    assert!(!store.is_activated());
    let shape: Vec<_> = store
        .list()
        .iter()
        .map(|e| (e.name.clone(), e.current, e.active, e.profile.is_ok()))
        .collect();
    let entry = |name: &str, current, active, is_ok| (name.to_owned(), current, active, is_ok);
    assert_eq!(
        shape,
        [
            entry("broken", false, false, false),
            entry("cam", true, true, true),
            entry("door", true, false, true)
        ]
    );
    says(
        &store.get("broken", "").unwrap_err(),
        Kind::DataLoss,
        "broken.json",
    );
    says(
        &store.get("other", "").unwrap_err(),
        Kind::NotFound,
        "\"other\"",
    );
    let none = ProfileStore::open(directory.path().join("none"), None)
        .err()
        .unwrap();
    assert_eq!(none.kind(), Kind::NotFound);
    assert_eq!(
        fs::read_to_string(directory.path().join("broken.json")).unwrap(),
        "{",
        "what cannot be read is left alone"
    );
}

#[test]
fn an_older_server_reads_what_is_current_after_a_rollback_of_the_binary() {
    let directory = tempfile::tempdir().unwrap();
    by_hand(directory.path(), "cam", 0);
    by_hand(directory.path(), "door", 0);
    assert_eq!(old::read(directory.path(), "cam"), Ok(version("cam", 0)));
    let store = open(directory.path());
    for n in 1..4 {
        store.put(&profile("cam", n)).unwrap();
    }
    assert_eq!(old::read(directory.path(), "cam"), Ok(version("cam", 0)));
    store
        .activate("cam", &version("cam", 3), Scope::Active)
        .unwrap();
    store.put(&profile("new", 2)).unwrap();
    drop(store);
    // The older one: it sees profiles alone, and each is the current version.
    assert_eq!(old::names(directory.path()), ["cam", "door", "new"]);
    assert_eq!(old::read(directory.path(), "cam"), Ok(version("cam", 3)));
    assert_eq!(old::read(directory.path(), "new"), Ok(version("new", 2)));
    // While it runs, a profile is replaced as one does it there.
    by_hand(directory.path(), "door", 4);
    // Upgraded again.
    let store = open(directory.path());
    assert_eq!(current(&store, "cam"), 3);
    assert_eq!(current(&store, "door"), 4, "the new file is adopted");
    assert_eq!(
        store.get("door", &version("door", 0)).unwrap().0.name,
        "door"
    );
    assert_eq!(
        store.roll_back("door").unwrap().version,
        version("door", 0),
        "and can be undone"
    );
    assert_eq!(old::read(directory.path(), "door"), Ok(version("door", 0)));
    store.roll_back("").unwrap();
    assert_eq!(old::read(directory.path(), "cam"), Ok(version("cam", 0)));
}

#[test]
fn an_activation_that_was_interrupted_before_its_copy_is_finished() {
    let directory = tempfile::tempdir().unwrap();
    by_hand(directory.path(), "cam", 0);
    let file = directory.path().join("cam.json");
    let before = fs::read(&file).unwrap();
    let store = open(directory.path());
    store.put(&profile("cam", 1)).unwrap();
    // The state as it is between the two writes of `state.json`: taken from a store whose copy
    // could not be written.
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    store
        .activate("cam", &version("cam", 1), Scope::Active)
        .unwrap();
    drop(store);
    fs::remove_dir(&file).unwrap();
    fs::write(&file, before).unwrap();
    let store = open(directory.path());
    assert_eq!(current(&store, "cam"), 1, "the copy is old, not newer");
    assert_eq!(old::read(directory.path(), "cam"), Ok(version("cam", 1)));
}

#[test]
fn a_copy_that_is_gone_before_the_state_says_so_withdraws_nothing() {
    let directory = tempfile::tempdir().unwrap();
    by_hand(directory.path(), "door", 0);
    let file = directory.path().join("door.json");
    let store = open(directory.path());
    store.put(&profile("door", 1)).unwrap();
    // A copy that cannot be written: the state goes on to name version 0 as the copy, beside 1 as current.
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    store
        .activate("door", &version("door", 1), Scope::Current)
        .unwrap();
    drop(store);
    fs::remove_dir(&file).unwrap();
    let store = open(directory.path());
    assert_eq!(current(&store, "door"), 1);
    assert_eq!(old::read(directory.path(), "door"), Ok(version("door", 1)));
}

#[test]
fn a_file_that_is_removed_withdraws_its_name_and_the_active_one_comes_back() {
    let directory = tempfile::tempdir().unwrap();
    for name in ["cam", "door"] {
        by_hand(directory.path(), name, 0);
    }
    drop(open(directory.path()));
    for name in ["cam", "door"] {
        fs::remove_file(directory.path().join(format!("{name}.json"))).unwrap();
    }
    let store = open(directory.path());
    assert_eq!(old::names(directory.path()), ["cam"]);
    says(
        &store.get("door", "").unwrap_err(),
        Kind::FailedPrecondition,
        "no current version",
    );
    assert_eq!(store.newest("door").unwrap(), version("door", 0));
    drop(store);
    let store = open(directory.path());
    says(
        &store.get("door", "").unwrap_err(),
        Kind::FailedPrecondition,
        "no current version",
    );
    // Its versions can be deleted now, and the name is gone.
    store.delete("door", &version("door", 0)).unwrap();
    says(&store.get("door", "").unwrap_err(), Kind::NotFound, "door");
    drop(store);
    assert_eq!(View::of(&open(directory.path())).versions.len(), 1);
}

#[test]
fn a_damaged_file_is_refused_until_a_version_is_activated() {
    let directory = tempfile::tempdir().unwrap();
    for name in ["cam", "door"] {
        by_hand(directory.path(), name, 0);
    }
    drop(open(directory.path()));
    let file = directory.path().join("door.json");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replacen("0.5", "0.6", 1)).unwrap();
    let store = open(directory.path());
    says(
        &store.get("door", "").unwrap_err(),
        Kind::DataLoss,
        "checksum",
    );
    // The version itself is whole.
    store.get("door", &version("door", 0)).unwrap();
    store
        .activate("door", &version("door", 0), Scope::Current)
        .unwrap();
    assert_eq!(current(&store, "door"), 0);
    assert_eq!(old::read(directory.path(), "door"), Ok(version("door", 0)));
}

#[test]
fn a_file_under_another_name_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    by_hand(directory.path(), "cam", 0);
    fs::rename(
        directory.path().join("cam.json"),
        directory.path().join("renamed.json"),
    )
    .unwrap();
    let store = ProfileStore::open(directory.path(), None).unwrap();
    says(
        &store.get("", "").unwrap_err(),
        Kind::FailedPrecondition,
        "no profile is active",
    );
    says(
        &store.get("renamed", "").unwrap_err(),
        Kind::DataLoss,
        "named \"cam\"",
    );
}

#[test]
fn a_file_replaced_under_a_running_store_is_kept_when_it_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    by_hand(directory.path(), "cam", 0);
    let store = open(directory.path());
    store.put(&profile("cam", 1)).unwrap();
    by_hand(directory.path(), "cam", 2);
    assert_eq!(current(&store, "cam"), 0, "as it was opened");
    store
        .activate("cam", &version("cam", 1), Scope::Active)
        .unwrap();
    store.get("cam", &version("cam", 2)).unwrap();
}

#[test]
fn a_damaged_version_is_refused_and_mended_by_adding_it_again() {
    let directory = tempfile::tempdir().unwrap();
    by_hand(directory.path(), "cam", 0);
    let store = open(directory.path());
    store.put(&profile("cam", 1)).unwrap();
    let versions = directory.path().join("store/versions/cam");
    let file = fs::read_dir(&versions)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.to_str().unwrap().contains(&version("cam", 1)))
        .unwrap();
    let text = fs::read_to_string(&file).unwrap();
    fs::remove_file(&file).unwrap();
    fs::write(
        &file,
        text.replacen("\"intercept\": -2", "\"intercept\": -3", 1),
    )
    .unwrap();
    let refused = |store: &ProfileStore| store.activate("cam", &version("cam", 1), Scope::Active);
    says(&refused(&store).unwrap_err(), Kind::DataLoss, "checksum");
    // A whole profile, but another one than its name says.
    fs::write(&file, profile("cam", 2).to_text().unwrap()).unwrap();
    says(
        &refused(&store).unwrap_err(),
        Kind::DataLoss,
        "was replaced",
    );
    assert_eq!(current(&store, "cam"), 0, "nothing has changed");
    store.put(&profile("cam", 1)).unwrap();
    refused(&store).unwrap();
    assert_eq!(current(&store, "cam"), 1);
}

#[test]
fn a_damaged_state_is_an_error_that_says_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    by_hand(directory.path(), "cam", 0);
    let store = open(directory.path());
    store.put(&profile("cam", 1)).unwrap();
    store
        .activate("cam", &version("cam", 1), Scope::Active)
        .unwrap();
    drop(store);
    let state = directory.path().join("store/state.json");
    let text = fs::read_to_string(&state).unwrap();
    fs::write(&state, &text[..text.len() - 9]).unwrap();
    for failed in [
        ProfileStore::open(directory.path(), Some("cam")),
        ProfileStore::open_or_read(directory.path(), Some("cam")),
    ] {
        let error = failed.err().unwrap();
        says(&error, Kind::DataLoss, "state.json");
        says(&error, Kind::DataLoss, "remove it");
    }
    // A later version of this program wrote it.
    fs::write(&state, text.replacen("\"schema\": 1", "\"schema\": 9", 1)).unwrap();
    let error = ProfileStore::open_or_read(directory.path(), None)
        .err()
        .unwrap();
    says(&error, Kind::FailedPrecondition, "its schema is 9");
    // As the message says.
    fs::remove_file(&state).unwrap();
    let store = open(directory.path());
    assert_eq!(current(&store, "cam"), 1);
    store.get("cam", &version("cam", 0)).unwrap();
}

#[test]
fn one_process_writes_and_others_read() {
    let directory = tempfile::tempdir().unwrap();
    by_hand(directory.path(), "cam", 0);
    let writer = open(directory.path());
    let second = ProfileStore::open(directory.path(), Some("cam"))
        .err()
        .unwrap();
    says(
        &second,
        Kind::FailedPrecondition,
        "being written by another process",
    );
    let reader = ProfileStore::open_or_read(directory.path(), Some("cam")).unwrap();
    assert_eq!(current(&reader, "cam"), 0);
    says(
        &reader.take_over().unwrap_err(),
        Kind::FailedPrecondition,
        "another process",
    );
    for refused in [
        reader.put(&profile("cam", 1)).map(drop),
        reader.activate("cam", &version("cam", 0), Scope::Active),
        reader.roll_back("").map(drop),
        reader.delete("cam", &version("cam", 1)),
    ] {
        says(
            &refused.unwrap_err(),
            Kind::FailedPrecondition,
            "to be read alone",
        );
    }
    writer.put(&profile("cam", 1)).unwrap();
    writer
        .activate("cam", &version("cam", 1), Scope::Active)
        .unwrap();
    assert_eq!(current(&reader, "cam"), 0, "as it was opened");
    // The writer is gone: the reader may write, once it has read what is there now.
    drop(writer);
    reader.take_over().unwrap();
    assert_eq!(current(&reader, "cam"), 1);
    reader.roll_back("").unwrap();
    assert_eq!(old::read(directory.path(), "cam"), Ok(version("cam", 0)));
}

/// Reading leaves a directory as it is: no store is made in it.
#[test]
fn reading_writes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    by_hand(directory.path(), "cam", 0);
    let reader = ProfileStore::read_only(directory.path(), Some("cam")).unwrap();
    assert_eq!(current(&reader, "cam"), 0);
    reader.get("", &version("cam", 0)).unwrap();
    assert_eq!(reader.list().len(), 1);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn what_an_interrupted_write_left_is_removed() {
    let directory = tempfile::tempdir().unwrap();
    by_hand(directory.path(), "cam", 0);
    drop(open(directory.path()));
    let left = ["", "store/", "store/versions/cam/"].map(|place| {
        let path = directory.path().join(format!("{place}.store-x7"));
        fs::write(&path, "{").unwrap();
        path
    });
    drop(open(directory.path()));
    assert!(left.iter().all(|path| !path.exists()));
}

#[test]
fn the_store_says_what_is_wrong() {
    let directory = tempfile::tempdir().unwrap();
    by_hand(directory.path(), "cam", 0);
    let store = open(directory.path());
    let v = version("cam", 0);
    says(
        &store.delete("cam", &v).unwrap_err(),
        Kind::FailedPrecondition,
        "is current",
    );
    says(
        &store.delete("cam", &version("cam", 1)).unwrap_err(),
        Kind::NotFound,
        "no version",
    );
    says(
        &store.delete("cam", "latest").unwrap_err(),
        Kind::InvalidArgument,
        "64",
    );
    says(
        &store.activate("door", &v, Scope::Active).unwrap_err(),
        Kind::NotFound,
        "door",
    );
    says(
        &store.roll_back("").unwrap_err(),
        Kind::FailedPrecondition,
        "no activation",
    );
    says(
        &store.roll_back("cam").unwrap_err(),
        Kind::FailedPrecondition,
        "no earlier",
    );
    says(
        &store.roll_back("door").unwrap_err(),
        Kind::NotFound,
        "door",
    );
    says(&store.newest("door").unwrap_err(), Kind::NotFound, "door");
    let mut bad = profile("cam", 1);
    bad.heads.clear();
    says(
        &store.put(&bad).unwrap_err(),
        Kind::InvalidArgument,
        "heads",
    );
    for name in ["../cam", "..", "a/b", ".hidden", "cam\0", "é"] {
        says(
            &store.get(name, "").unwrap_err(),
            Kind::InvalidArgument,
            "name",
        );
        says(
            &store.get(name, &v).unwrap_err(),
            Kind::InvalidArgument,
            "name",
        );
        says(
            &store.newest(name).unwrap_err(),
            Kind::InvalidArgument,
            "name",
        );
        says(
            &store.roll_back(name).unwrap_err(),
            Kind::InvalidArgument,
            "name",
        );
    }
}

#[test]
fn versions_are_bounded() {
    let directory = tempfile::tempdir().unwrap();
    let versions = directory.path().join("store/versions/cam");
    fs::create_dir_all(&versions).unwrap();
    for n in 0..limits::PROFILE_VERSIONS_MAX {
        // What they hold does not matter here.
        fs::write(versions.join(format!("{n:06}-{n:064x}.json")), "{}").unwrap();
    }
    let store = open(directory.path());
    says(
        &store.put(&profile("cam", 0)).unwrap_err(),
        Kind::ResourceExhausted,
        "delete some",
    );
    store.delete("cam", &format!("{:064x}", 3)).unwrap();
    store.put(&profile("cam", 0)).unwrap();
    drop(store);
    // A file by hand beyond it is refused by name, and the store opens.
    by_hand(directory.path(), "cam", 1);
    let store = open(directory.path());
    says(
        &store.get("cam", "").unwrap_err(),
        Kind::ResourceExhausted,
        "delete some",
    );
}

#[test]
fn the_configured_choice_counts_until_an_activation() {
    let directory = tempfile::tempdir().unwrap();
    for name in ["cam", "door"] {
        by_hand(directory.path(), name, 0);
    }
    drop(open(directory.path()));
    let store = ProfileStore::open(directory.path(), Some("door")).unwrap();
    assert_eq!(store.get("", "").unwrap().0.name, "door");
    store
        .activate("cam", &version("cam", 0), Scope::Active)
        .unwrap();
    drop(store);
    let store = ProfileStore::open(directory.path(), Some("door")).unwrap();
    assert!(store.is_activated());
    assert_eq!(store.get("", "").unwrap().0.name, "cam");
    assert_eq!(
        store.roll_back("").unwrap(),
        Selected {
            name: "door".into(),
            version: version("door", 0)
        }
    );
}

fn op() -> impl Strategy<Value = Op> {
    let name = || 0..NAMES.len();
    prop_oneof![
        3 => (name(), 0..VERSIONS).prop_map(|(name, n)| Op::Put(name, n)),
        4 => (name(), 0..VERSIONS, any::<bool>()).prop_map(|(name, n, a)| Op::Activate(name, n, a)),
        3 => name().prop_map(|name| Op::RollBack(Some(name))),
        3 => Just(Op::RollBack(None)),
        2 => (name(), 0..VERSIONS).prop_map(|(name, n)| Op::Delete(name, n)),
        1 => Just(Op::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(48) })]

    #[test]
    fn any_sequence_is_what_the_model_says(ops in prop::collection::vec(op(), 1..24)) {
        let directory = tempfile::tempdir().unwrap();
        by_hand(directory.path(), "cam", 0);
        let mut store = open(directory.path());
        let mut model = Model::new("cam", 0);
        for op in ops {
            if op == Op::Reopen {
                drop(store);
                store = open(directory.path());
            } else {
                let expected = model.apply(op);
                let got = op.run(&store);
                prop_assert_eq!(got.is_ok(), expected, "{:?}: {:?}", op, got.err());
            }
            prop_assert_eq!(View::of(&store), model.view(), "after {:?}", op);
        }
        // Everybody says the same: who opens it anew, who only reads it, and an older server.
        let read = ProfileStore::read_only(directory.path(), Some("cam")).unwrap();
        prop_assert_eq!(View::of(&read), model.view());
        drop(store);
        prop_assert_eq!(View::of(&open(directory.path())), model.view());
        for (name, version) in &model.view().current {
            prop_assert_eq!(old::read(directory.path(), name), Ok(version.clone()));
        }
    }
}
