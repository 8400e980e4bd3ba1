//! See the entry.
#![no_main]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // as a test may

#[path = "../../tests/entry/container.rs"]
mod entry;

libfuzzer_sys::fuzz_target!(
    init: {
        // As in each Rust program that has a main of its own: a peer that is gone is an error, no signal.
        // SAFETY: it runs once, before any thread.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    },
    |bytes: &[u8]| {
        let _ = entry::run(bytes);
    }
);
