//! Runs inputs one by one and watches what they do to the process.

pub mod mutate;

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    sync::{
        LazyLock, Mutex, PoisonError,
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

/// Longest that one input may take; most take milliseconds. Far above the waits that an entry has itself,
/// because the machine may be busy.
const INPUT_MAX: Duration = Duration::from_secs(20);

/// Most memory that one input may add to what the process holds, bytes. The largest is 250 kB.
const MEMORY_MAX: u64 = 192 << 20;

/// One input.
pub struct Case {
    pub name: String,
    pub bytes: Vec<u8>,
    pub expected: Expected,
}

/// What must come of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Expected {
    /// Whole.
    Taken,
    /// Wrong in a way that must be noticed.
    Refused,
    /// Damaged at random, or found by a fuzzer.
    Either,
}

/// The kept inputs of a target: `ok-…` must be taken, `bad-…` refused, `found-…` were found by fuzzing.
pub fn kept(target: &str) -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/corpus")
        .join(target);
    let paths: BTreeSet<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths
        .into_iter()
        .map(|path| {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            let expected = match name.split('-').next() {
                Some("ok") => Expected::Taken,
                Some("bad") => Expected::Refused,
                Some("found") => Expected::Either,
                _ => panic!("{name}: ok-…, bad-… or found-… is expected"),
            };
            Case {
                bytes: fs::read(&path).unwrap(),
                name: format!("{target}/{name}"),
                expected,
            }
        })
        .collect()
}

/// `count` damaged copies of each whole input, whose first `keep` bytes stay.
pub fn damaged(cases: &[Case], keep: usize, count: usize) -> Vec<Case> {
    let whole = cases.iter().filter(|c| c.expected == Expected::Taken);
    whole
        .zip(1..)
        .flat_map(|(case, seed)| {
            let copies = mutate::damaged(&case.bytes, keep, count, seed);
            named(case, "damage", copies)
        })
        .collect()
}

/// Copies of each whole container with its fields at their ends, every `step`-th of them.
pub fn fields(cases: &[Case], step: usize) -> Vec<Case> {
    let whole = cases.iter().filter(|c| c.expected == Expected::Taken);
    whole
        .flat_map(|case| named(case, "field", mutate::fields(&case.bytes)))
        .step_by(step)
        .collect()
}

fn named(case: &Case, what: &str, copies: Vec<Vec<u8>>) -> Vec<Case> {
    let each = copies.into_iter().enumerate();
    each.map(|(n, bytes)| Case {
        name: format!("{}, {what} {n}", case.name),
        bytes,
        expected: Expected::Either,
    })
    .collect()
}

/// Panics anywhere in the process, on whichever thread.
static PANICS: LazyLock<Mutex<Vec<String>>> = LazyLock::new(|| {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        before(panic);
        PANICS
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(panic.to_string());
    }));
    Mutex::default()
});

/// One input at a time, or nobody knows whose panic and whose memory it was.
static TURN: Mutex<()> = Mutex::new(());

/// Gives each input to the entry. At least `least` must have been refused, or the entry reads nothing.
pub fn run(cases: Vec<Case>, least: usize, entry: fn(&[u8]) -> Result<(), String>) {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let panics = || std::mem::take(&mut *PANICS.lock().unwrap_or_else(PoisonError::into_inner));
    panics();
    let (to_worker, inputs) = mpsc::sync_channel::<Vec<u8>>(1);
    let (to_us, outcomes) = mpsc::sync_channel(1);
    let worker = thread::spawn(move || {
        for input in inputs {
            // Whose panic is told by the hook.
            let outcome = std::panic::catch_unwind(|| entry(&input));
            let _ = to_us.send(outcome.unwrap_or_else(|_| Err("panic".into())));
        }
    });
    let mut wrong = Vec::new();
    let mut refused = 0;
    let mut slowest = (Duration::ZERO, String::new());
    let mut largest = (0, String::new());
    let count = cases.len();
    let begun = Instant::now();
    for case in cases {
        let Case {
            name,
            bytes,
            expected,
        } = case;
        let memory = Memory::begin();
        let start = Instant::now();
        to_worker.send(bytes).unwrap();
        let outcome = match outcomes.recv_timeout(INPUT_MAX) {
            Ok(outcome) => outcome,
            // The thread cannot be stopped: no other input can be judged.
            Err(RecvTimeoutError::Timeout) => panic!("{name}: no end within {INPUT_MAX:?}"),
            Err(RecvTimeoutError::Disconnected) => panic!("{name}: the worker is gone"),
        };
        slowest = slowest.max((start.elapsed(), name.clone()));
        let grown = memory.grown();
        largest = largest.max((grown, name.clone()));
        for panic in panics() {
            wrong.push(format!("{name}: {panic}"));
        }
        if grown > MEMORY_MAX {
            wrong.push(format!("{name}: {grown} bytes of memory"));
        }
        refused += usize::from(outcome.is_err());
        match (&outcome, expected) {
            (Err(why), Expected::Taken) => wrong.push(format!("{name}: refused: {why}")),
            (Ok(()), Expected::Refused) => wrong.push(format!("{name}: taken")),
            (Err(why), _) if why.trim().is_empty() => wrong.push(format!("{name}: no reason")),
            _ => {}
        }
    }
    drop(to_worker);
    worker.join().unwrap();
    println!(
        "{count} inputs, {refused} refused, {:.1} s; slowest {:?}, largest {:?}",
        begun.elapsed().as_secs_f64(),
        slowest,
        largest
    );
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(refused >= least, "only {refused} of {count} were refused");
}

/// Memory of the process from here on.
struct Memory(u64);

impl Memory {
    fn begin() -> Memory {
        // Sets the peak back to what is held now.
        let reset = fs::write("/proc/self/clear_refs", "5").is_ok();
        Memory(status(if reset { "VmRSS:" } else { "VmHWM:" }))
    }

    /// By how much the peak was above, bytes.
    fn grown(&self) -> u64 {
        status("VmHWM:").saturating_sub(self.0)
    }
}

fn status(field: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let kilobytes = line.unwrap().trim().trim_end_matches(" kB");
    kilobytes.parse::<u64>().unwrap() * 1024
}
