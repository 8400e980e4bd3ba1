//! Where bytes of strangers enter: one function for each fuzz target. Shared by `tests/corpus.rs` and
//! `fuzz/targets`, so that an input which a fuzzer found can be kept in `tests/corpus` as it is.
//!
//! An entry gives `Ok` for what was taken and the message for what was refused. Whether either is right is
//! for the tests of the rooms; here nothing may panic, hang or take memory without bound.

pub mod checkpoint_files;
#[cfg(feature = "video")]
pub mod container;
pub mod detect_messages;
pub mod rtsp;
pub mod tables;
