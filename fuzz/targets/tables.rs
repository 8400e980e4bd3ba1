//! See the entry.
#![no_main]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // as a test may

#[path = "../../tests/entry/tables.rs"]
mod entry;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = entry::run(bytes);
});
