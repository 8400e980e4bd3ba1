//! A writer that is killed at any instant leaves what was before its last operation or what is after.

use std::{
    env, fs,
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use headhunt::profile::ProfileStore;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::{
    model::{Model, NAMES, Op, VERSIONS, View},
    old,
};

/// Where the writer writes; set for it alone.
const PLACE: &str = "HEADHUNT_TEST_STORE";
const SEED: &str = "HEADHUNT_TEST_SEED";

const ROUNDS: u64 = 40;

/// Far more than a round takes.
const PATIENCE: Duration = Duration::from_secs(60);

fn random(rng: &mut ChaCha8Rng) -> Op {
    let name = rng.random_range(0..NAMES.len());
    let n = rng.random_range(0..VERSIONS);
    match rng.random_range(0..10) {
        0..3 => Op::Put(name, n),
        3..7 => Op::Activate(name, n, rng.random()),
        7 => Op::RollBack(Some(name)),
        8 => Op::RollBack(None),
        _ => Op::Delete(name, n),
    }
}

/// The writer: it says each operation before it does it, until it is killed.
#[test]
#[ignore = "run by the test below, which kills it"]
fn writer() {
    let Ok(place) = env::var(PLACE) else { return };
    let place = Path::new(&place);
    let mut rng = ChaCha8Rng::seed_from_u64(env::var(SEED).unwrap().parse().unwrap());
    let mut journal = fs::File::options()
        .append(true)
        .create(true)
        .open(place.join("journal"))
        .unwrap();
    let began = Instant::now();
    let store = ProfileStore::open(place.join("profiles"), Some("cam")).unwrap();
    journal.write_all(b"open\n").unwrap();
    // Where nobody kills it, it ends all the same.
    while began.elapsed() < PATIENCE {
        let op = random(&mut rng);
        // One write: a line is whole or not there.
        journal
            .write_all(format!("{}\n", op.line()).as_bytes())
            .unwrap();
        let _ = op.run(&store);
    }
}

#[test]
fn killed_at_any_instant_the_store_is_the_old_or_the_new() {
    let place = tempfile::tempdir().unwrap();
    let profiles = place.path().join("profiles");
    fs::create_dir(&profiles).unwrap();
    super::by_hand(&profiles, "cam", 0);
    let mut model = Model::new("cam", 0);
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let (mut done, mut interrupted) = (0, 0);
    for round in 0..ROUNDS {
        let journal = place.path().join("journal");
        let _ = fs::remove_file(&journal);
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "kill::writer", "--ignored", "--test-threads=1"])
            .env(PLACE, place.path())
            .env(SEED, round.to_string())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let began = Instant::now();
        while !fs::read_to_string(&journal).is_ok_and(|text| text.starts_with("open\n")) {
            assert!(began.elapsed() < PATIENCE, "the writer did not begin");
            std::thread::sleep(Duration::from_micros(200));
        }
        std::thread::sleep(Duration::from_micros(rng.random_range(0..20_000)));
        child.kill().unwrap(); // SIGKILL
        child.wait().unwrap();

        let text = fs::read_to_string(&journal).unwrap();
        let ops: Vec<Op> = text.lines().skip(1).map(Op::of_line).collect();
        if let Some((last, before)) = ops.split_last() {
            for op in before {
                model.apply(*op);
            }
            done += ops.len();
            // Old or new: who opens it decides nothing, so reading says it too.
            let read = View::of(&ProfileStore::read_only(&profiles, Some("cam")).unwrap());
            let old = model.clone();
            model.apply(*last);
            if read != model.view() {
                assert_eq!(read, old.view(), "round {round}, {last:?}");
                model = old;
                interrupted += 1;
            }
        }
        let store = ProfileStore::open(&profiles, Some("cam")).unwrap();
        assert_eq!(View::of(&store), model.view(), "round {round}");
        drop(store);
        for (name, version) in &model.view().current {
            assert_eq!(
                old::read(&profiles, name).as_ref(),
                Ok(version),
                "round {round}"
            );
        }
        let left = fs::read_dir(&profiles).unwrap().count();
        assert_eq!(
            left,
            model.view().current.len() + 1,
            "profiles, and the store"
        );
    }
    // The test tests something: operations were done, and some were cut off.
    assert!(done as u64 > ROUNDS, "{done} operations");
    println!("{done} operations, {interrupted} undone by the kill");
}
