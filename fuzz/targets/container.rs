//! See the entry. Inputs are decoded here, where the fuzzer sees which code they reach, and every so many in a
//! decoder process too, which is this program again.
#![no_main]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // as a test may

#[path = "../../tests/entry/container.rs"]
mod entry;

use std::sync::atomic::{AtomicU64, Ordering};

use headhunt::video::worker::Workers;

/// To start a process takes as long as to decode some inputs.
const PROCESS_EVERY: u64 = 32;

/// Set where processes can be confined: sanitizers need more address space than one may have.
const PROCESSES: &str = "HEADHUNT_FUZZ_PROCESSES";

static INPUTS: AtomicU64 = AtomicU64::new(0);

libfuzzer_sys::fuzz_target!(
    init: {
        // As in each Rust program that has a main of its own: a peer that is gone is an error, no signal.
        // SAFETY: it runs once, before any thread.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
        if std::env::args().nth(1).as_deref() == Some("decode-worker") {
            entry::serve_as_decoder();
        }
    },
    |bytes: &[u8]| {
        let _ = entry::run(bytes);
        if INPUTS.fetch_add(1, Ordering::Relaxed) % PROCESS_EVERY == 0
            && std::env::var_os(PROCESSES).is_some()
        {
            entry::through_a_process(bytes, Workers::of_this_program());
        }
    }
);
