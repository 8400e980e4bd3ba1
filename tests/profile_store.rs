//! Profiles on disk: what is refused and how it is said, atomic saving.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests fail like tests

mod doubles;

use std::{fs, path::Path};

use doubles::{FINGERPRINT, FakeProbe, profile};
use headhunt::{
    error::{Error, Kind},
    head::HeadId,
    profile::{NormalityParams, Profile, ProfileStore, SCHEMA, SCHEMA_NEWEST, Scope, Scorer},
    segment::SegmentRule,
};
use proptest::prelude::*;
use serde_json::Value;

fn weights(profile: &mut Profile) -> &mut Vec<f64> {
    &mut profile.scorer.logistic_mut().unwrap().weights
}

/// A profile of schema 2: the double's heads with a scorer of normal footage.
fn normality() -> Profile {
    let mut profile = profile();
    let dims = weights(&mut profile).len();
    profile.schema = SCHEMA_NEWEST;
    profile.scorer = NormalityParams {
        mean: vec![0.5; dims],
        variance: 0.25,
        excess: vec![8.0],
        directions: (0..dims).map(|i| f64::from(u8::from(i == 1))).collect(),
        distances: vec![1.0, 4.0],
        quantiles: vec![0.25, 0.75],
        tail_scale: 2.0,
    }
    .into();
    profile
}

fn saved(directory: &Path, profile: &Profile) -> std::path::PathBuf {
    let path = directory.join(format!("{}.json", profile.name));
    profile.save(&path).unwrap();
    path
}

#[test]
fn what_is_saved_is_loaded_and_readable() {
    let directory = tempfile::tempdir().unwrap();
    let mut profile = profile();
    profile.notes.insert("auc".into(), 0.875.into());
    weights(&mut profile)[0] = 0.1 + 0.2;
    let path = saved(directory.path(), &profile);
    assert_eq!(Profile::load(&path).unwrap(), profile);
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.lines().count() > 20, "one value a line");
    assert!(text.contains(&format!("\"sha256:{}\"", profile.checksum().unwrap())));
    // Nothing is left beside it.
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn layout_does_not_matter_to_the_checksum_and_content_does() {
    let directory = tempfile::tempdir().unwrap();
    let original = profile();
    let path = saved(directory.path(), &original);
    let value: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    fs::write(&path, value.to_string()).unwrap();
    assert_eq!(Profile::load(&path).unwrap(), original);
    let mut other = original.clone();
    other.locator.threshold = 0.500_000_000_000_000_1;
    assert_ne!(other.checksum().unwrap(), original.checksum().unwrap());
    let mut noted = original.clone();
    noted.notes.insert("b".into(), 1.into());
    noted.notes.insert("a".into(), 2.into());
    let mut turned = original.clone();
    turned.notes.insert("a".into(), 2.into());
    turned.notes.insert("b".into(), 1.into());
    assert_eq!(noted.checksum().unwrap(), turned.checksum().unwrap());
}

/// Made by Python: `hashlib.sha256(json.dumps(profile, sort_keys=True, separators=(",", ":")))`.
#[test]
fn the_checksum_is_one_that_others_can_make() {
    let expected = "f5f2d456d6bd494296bfe682b2d239869f56540458faae896065f3782b3d3901";
    assert_eq!(profile().checksum().unwrap(), expected);
}

/// The very bytes that the version before schema 2 wrote, and reads.
#[test]
fn a_profile_without_anything_newer_is_written_as_schema_1_to_the_byte() {
    let directory = tempfile::tempdir().unwrap();
    let text = fs::read_to_string(saved(directory.path(), &profile())).unwrap();
    let scorer = r#"    "scorer": {
      "weights": [
        0.5,
        0.25,
        0.125,
        0.3,
        0.2,
        0.1
      ],
      "intercept": -2.0
    },"#;
    assert!(
        text.contains(scorer) && text.contains("\"schema\": 1,"),
        "{text}"
    );
    assert_eq!(profile().schema, SCHEMA);
}

#[test]
fn a_normality_scorer_needs_schema_2_and_survives() {
    let directory = tempfile::tempdir().unwrap();
    let path = saved(directory.path(), &normality());
    assert_eq!(Profile::load(&path).unwrap(), normality());
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains("\"schema\": 2,") && text.contains("\"normality\": {"));

    type Change = fn(&mut NormalityParams);
    let cases: [(&str, Change); 11] = [
        ("scorer.normality.mean", |n| n.mean[2] = f64::NAN),
        ("scorer.normality.mean", |n| n.mean.truncate(2)),
        ("scorer.normality.variance", |n| n.variance = 0.0),
        ("scorer.normality.tail_scale", |n| {
            n.tail_scale = f64::INFINITY
        }),
        ("scorer.normality.excess", |n| n.excess[0] = -1.0),
        ("scorer.normality.excess", |n| n.excess = vec![1.0; 65]),
        ("scorer.normality.directions", |n| n.directions[0] = 0.5),
        ("scorer.normality.directions", |n| n.directions.truncate(1)),
        ("scorer.normality.distances", |n| {
            n.distances = vec![4.0, 4.0]
        }),
        ("scorer.normality.quantiles", |n| n.quantiles[1] = 1.5),
        ("scorer.normality.quantiles", |n| n.quantiles.truncate(1)),
    ];
    for (key, change) in cases {
        let mut bad = normality();
        let Scorer::Normality(params) = &mut bad.scorer else {
            unreachable!()
        };
        change(params);
        let error = bad.save(directory.path().join("bad.json")).unwrap_err();
        says(&error, Kind::InvalidArgument, key);
    }
    let mut old = normality();
    old.schema = SCHEMA;
    let error = old.save(directory.path().join("bad.json")).unwrap_err();
    says(&error, Kind::InvalidArgument, "schema is 1");
}

#[test]
fn a_version_that_stays_as_the_copy_for_older_servers_can_be_deleted() {
    let directory = tempfile::tempdir().unwrap();
    let store = ProfileStore::open(directory.path(), None).unwrap();
    let old = store.put(&profile()).unwrap();
    let new = store.put(&normality()).unwrap();
    let name = profile().name;
    store.activate(&name, &new, Scope::Active).unwrap();
    let copy = directory.path().join(format!("{name}.json"));
    assert!(Profile::load(&copy).is_ok_and(|copy| copy == profile()));
    store.delete(&name, &old).unwrap();
    assert!(!copy.exists());
    drop(store);
    let store = ProfileStore::open(directory.path(), None).unwrap();
    let versions: Vec<_> = store
        .list()
        .into_iter()
        .map(|entry| entry.version)
        .collect();
    assert_eq!(versions, [new.as_str()], "it is back");
    assert_eq!(store.get("", "").unwrap().1, new);
}

/// The error of loading a saved profile after its text was changed.
fn damaged(change: impl FnOnce(String) -> String) -> Error {
    let directory = tempfile::tempdir().unwrap();
    let path = saved(directory.path(), &profile());
    let text = fs::read_to_string(&path).unwrap();
    let changed = change(text.clone());
    assert_ne!(changed, text, "the test must change something");
    fs::write(&path, changed).unwrap();
    let error = Profile::load(&path).unwrap_err();
    assert!(error.message().contains("double.json"), "{error}");
    error
}

#[track_caller]
fn says(error: &Error, kind: Kind, words: &str) {
    let text = format!("{error:#}");
    assert_eq!(error.kind(), kind, "{text}");
    assert!(text.contains(words), "{text:?} does not say {words:?}");
}

#[test]
fn each_damage_has_its_own_message() {
    let replace =
        |from: &'static str, to: &'static str| move |text: String| text.replacen(from, to, 1);
    says(
        &damaged(|text| text[..text.len() / 2].into()),
        Kind::DataLoss,
        "not JSON",
    );
    says(
        &damaged(|_| "[1]".into()),
        Kind::DataLoss,
        "no profile.schema",
    );
    says(
        &damaged(replace("\"schema\": 1", "\"schema\": 3")),
        Kind::FailedPrecondition,
        "its schema is 3",
    );
    says(
        &damaged(replace("\"schema\": 1", "\"schema\": 2")),
        Kind::DataLoss,
        "schema is 2, where a profile of this scorer has 1",
    );
    says(
        &damaged(replace("\"intercept\": -2.0", "\"normality\": null")),
        Kind::DataLoss,
        "neither weights and intercept nor normality",
    );
    says(
        &damaged(replace("\"intercept\": -2.0", "\"offset\": -2.0")),
        Kind::DataLoss,
        "unknown field `offset`",
    );
    says(
        &damaged(replace("\"sigma\"", "\"sigmoid\"")),
        Kind::DataLoss,
        "unknown field `sigmoid`",
    );
    says(
        &damaged(replace("\"schema\": 1", "\"schema\": 1, \"schema\": 1")),
        Kind::DataLoss,
        "duplicate field `schema`",
    );
    says(
        &damaged(replace("\"threshold\": 0.5", "\"threshold\": 0.6")),
        Kind::DataLoss,
        "checksum",
    );
    says(
        &damaged(replace("sha256:", "sha256:0")),
        Kind::DataLoss,
        "checksum",
    );
    says(
        &damaged(replace("\"threshold\": 0.5", "\"threshold\": 1e999")),
        Kind::DataLoss,
        "not JSON",
    );
    says(
        &damaged(|text| text + &" ".repeat(5 << 20)),
        Kind::DataLoss,
        "bytes, so it is no profile",
    );
    let directory = tempfile::tempdir().unwrap();
    let error = Profile::load(directory.path().join("none.json")).unwrap_err();
    says(&error, Kind::NotFound, "none.json");
    let binary = directory.path().join("binary.json");
    fs::write(&binary, [0xff, 0xfe, 0x00]).unwrap();
    says(
        &Profile::load(&binary).unwrap_err(),
        Kind::DataLoss,
        "UTF-8",
    );
}

#[test]
fn nonsense_is_refused_by_key_on_saving_and_on_loading() {
    type Change = fn(&mut Profile);
    let cases: [(&str, Change); 24] = [
        ("schema", |p| p.schema = 7),
        ("name", |p| p.name = "Upper".into()),
        ("name", |p| p.name = String::new()),
        ("name", |p| p.name = "../up".into()),
        ("name", |p| p.name = "a".repeat(65)),
        ("segment", |p| p.segment = SegmentRule::Frames(0)),
        ("segment", |p| p.segment = SegmentRule::Seconds(f64::NAN)),
        ("segment", |p| p.segment = SegmentRule::Seconds(-1.0)),
        ("frames_per_segment", |p| p.frames_per_segment = 0),
        ("heads", |p| p.heads.clear()),
        ("heads", |p| p.heads[1] = p.heads[0]),
        ("scorer.weights", |p| {
            weights(p).pop();
        }),
        ("scorer.weights", |p| weights(p)[3] = f64::INFINITY),
        ("scorer.intercept", |p| {
            p.scorer.logistic_mut().unwrap().intercept = f64::NAN
        }),
        ("model.head_dim", |p| p.model.head_dim = 0),
        ("model.fingerprint", |p| {
            p.model.fingerprint = "F".repeat(64)
        }),
        ("scoring_prompts", |p| p.scoring_prompts.clear()),
        ("scoring_prompts", |p| p.scoring_prompts[0] = " \n".into()),
        ("hunt_prompts", |p| p.hunt_prompts[0] = "x".repeat(5000)),
        ("hunt_prompts", |p| p.hunt_prompts = vec!["x".into(); 33]),
        ("locator.sigma", |p| p.locator.sigma = 0.0),
        ("locator.sigma", |p| p.locator.sigma = f64::NAN),
        ("locator.threshold", |p| p.locator.threshold = 1.5),
        ("locator.event_bridge_s", |p| {
            p.locator.event_bridge_s = Some(-0.1)
        }),
    ];
    let directory = tempfile::tempdir().unwrap();
    for (key, change) in cases {
        let mut bad = profile();
        change(&mut bad);
        let error = bad.save(directory.path().join("bad.json")).unwrap_err();
        says(&error, Kind::InvalidArgument, key);
    }
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    // A file that somebody made so, with a checksum that fits.
    let mut bad = profile();
    bad.locator.threshold = 1.5;
    let content = serde_json::json!({
        "checksum": format!("sha256:{}", bad.checksum().unwrap()),
        "profile": bad,
    });
    let path = directory.path().join("double.json");
    fs::write(&path, content.to_string()).unwrap();
    says(
        &Profile::load(&path).unwrap_err(),
        Kind::DataLoss,
        "locator.threshold",
    );
}

#[test]
fn a_failed_save_leaves_the_old_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = saved(directory.path(), &profile());
    let mut bad = profile();
    bad.heads.clear();
    bad.save(&path).unwrap_err();
    assert_eq!(Profile::load(&path).unwrap(), profile());
    let error = profile()
        .save(directory.path().join("no/such/x.json"))
        .unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
}

#[test]
fn another_model_is_refused_and_both_are_named() {
    let info = FakeProbe::new().info;
    assert_eq!(profile().check_model(&info, FINGERPRINT).unwrap(), [""; 0]);
    let misfit = |change: &dyn Fn(&mut headhunt::engine::probe::ProbeInfo), words: &str| {
        let mut info = info.clone();
        change(&mut info);
        let error = profile().check_model(&info, FINGERPRINT).unwrap_err();
        says(&error, Kind::FailedPrecondition, words);
    };
    misfit(&|i| i.head_dim = 64, "3 numbers where fake's have 64");
    misfit(&|i| i.layers = 2, "layer 2 head 1 where fake has 2 layers");
    misfit(
        &|i| i.heads = 1,
        "layer 2 head 1 where fake has 4 layers of 1 heads",
    );
    misfit(&|i| i.resident_layers = 2, "needs the first 3 layers");
    let other = "0".repeat(64);
    let error = profile().check_model(&info, &other).unwrap_err();
    says(&error, Kind::FailedPrecondition, FINGERPRINT);
    says(&error, Kind::FailedPrecondition, &other);
    let mut moved = info;
    moved.device = "cuda:0".into();
    moved.dtype = "bf16".into();
    let warnings = profile().check_model(&moved, FINGERPRINT).unwrap();
    assert_eq!(warnings.len(), 2);
    assert!(
        warnings[0].contains("cuda:0") && warnings[1].contains("bf16"),
        "{warnings:?}"
    );
}

#[test]
fn heads_are_written_as_pairs() {
    let directory = tempfile::tempdir().unwrap();
    let path = saved(directory.path(), &profile());
    let value: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    assert_eq!(
        value["profile"]["heads"],
        serde_json::json!([[2, 1], [0, 0]])
    );
    let first: HeadId = serde_json::from_value(value["profile"]["heads"][0].clone()).unwrap();
    assert_eq!(first, HeadId { layer: 2, head: 1 });
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    /// No file content is a panic, and none but the saved one is accepted as it.
    #[test]
    fn a_flipped_byte_never_passes(at in any::<prop::sample::Index>(), flip in 1u8..) {
        let directory = tempfile::tempdir().unwrap();
        let path = saved(directory.path(), &profile());
        let mut bytes = fs::read(&path).unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        fs::write(&path, &bytes).unwrap();
        // White space may turn into other white space: the same content.
        if let Ok(loaded) = Profile::load(&path) {
            prop_assert_eq!(loaded, profile());
        }
    }

    #[test]
    fn every_finite_weight_survives(numbers in prop::collection::vec(
        prop::num::f64::NORMAL | prop::num::f64::SUBNORMAL | prop::num::f64::ZERO, 6
    )) {
        let directory = tempfile::tempdir().unwrap();
        let mut kept = profile();
        *weights(&mut kept) = numbers;
        let path = saved(directory.path(), &kept);
        let loaded = Profile::load(path).unwrap();
        let bits = |p: &Profile| p.scorer.logistic().unwrap().weights.iter().map(|w| w.to_bits()).collect::<Vec<_>>();
        prop_assert_eq!(bits(&loaded), bits(&kept));
    }
}
