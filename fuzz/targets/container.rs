//! See the entry. Inputs are decoded here, where the fuzzer sees which code they reach, and every so many in a
//! decoder process too, which is this program again.
#![no_main]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // as a test may

#[path = "../../tests/entry/container.rs"]
mod entry;

use std::sync::atomic::{AtomicU64, Ordering};

use headhunt::{
    error::{Error, Kind},
    pipeline::reduce,
    video::worker,
};

/// To start a process takes as long as to decode some inputs.
const PROCESS_EVERY: u64 = 32;

/// Set where processes can be confined: sanitizers need more address space than one may have.
const PROCESSES: &str = "HEADHUNT_FUZZ_PROCESSES";

static INPUTS: AtomicU64 = AtomicU64::new(0);

/// What is no fault of an input: the process was ended, lost its pictures, or could not be started.
fn broke(error: &Error) -> bool {
    matches!(
        error.kind(),
        Kind::Aborted | Kind::DataLoss | Kind::FailedPrecondition
    )
}

/// A decoder process must not be ended by an input, nor hang.
fn through_a_process(bytes: &[u8]) {
    let workers = worker::Workers::of_this_program();
    if let Err(there) = entry::decoded(bytes, Some(workers))
        && broke(&there)
    {
        let here = entry::decoded(bytes, None);
        let same = here.as_ref().is_err_and(|here| here.kind() == there.kind());
        assert!(same, "in a process: {there:#}; here: {here:?}");
    }
}

libfuzzer_sys::fuzz_target!(
    init: {
        // As in each Rust program that has a main of its own: a peer that is gone is an error, no signal.
        // SAFETY: it runs once, before any thread.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
        if std::env::args().nth(1).as_deref() == Some("decode-worker") {
            worker::take().unwrap().serve(reduce::for_decoder());
        }
    },
    |bytes: &[u8]| {
        let _ = entry::run(bytes);
        if INPUTS.fetch_add(1, Ordering::Relaxed) % PROCESS_EVERY == 0
            && std::env::var_os(PROCESSES).is_some()
        {
            through_a_process(bytes);
        }
    }
);
