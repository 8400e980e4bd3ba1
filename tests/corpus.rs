//! Malformed inputs: each must be taken or refused with a reason, within bounded time and memory, and no
//! thread may panic. Kept inputs are files below `tests/corpus`, in the form that the fuzz targets of `fuzz/`
//! read; damaged copies of the whole ones among them are made here, the same in each run.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test may

mod corpus_support;
mod entry;

use corpus_support::{damaged, kept, run};
use entry::{checkpoint_files, detect_messages, rtsp, tables};

#[test]
fn tables_are_taken_or_refused() {
    let mut cases = kept("tables");
    cases.extend(damaged(&cases, 1, 24));
    run(cases, 300, tables::run);
}

#[test]
fn checkpoint_files_are_taken_or_refused() {
    let mut cases = kept("checkpoint_files");
    cases.extend(damaged(&cases, 1, 24));
    run(cases, 200, checkpoint_files::run);
}

#[cfg(feature = "video")]
#[test]
fn containers_are_taken_or_refused() {
    use corpus_support::fields;
    let mut cases = kept("container");
    let fields = fields(&cases, 3);
    cases.extend(damaged(&cases, 0, 24));
    cases.extend(fields);
    run(cases, 100, entry::container::run);
}

/// What breaks a decoder's process would show as another end than here.
#[cfg(feature = "video")]
#[test]
fn containers_end_in_a_decoder_process_as_they_do_here() {
    let workers = headhunt::video::worker::Workers {
        program: env!("CARGO_BIN_EXE_headhunt").into(),
        ..headhunt::video::worker::Workers::of_this_program()
    };
    for case in kept("container") {
        let (name, bytes) = (case.name, case.bytes);
        let here = entry::container::decoded(&bytes, None);
        let there = entry::container::decoded(&bytes, Some(workers.clone()));
        match (here, there) {
            (Ok(here), Ok(there)) => assert_eq!(here, there, "{name}"),
            (Err(here), Err(there)) => assert_eq!(here.kind(), there.kind(), "{name}: {there:#}"),
            (here, there) => panic!("{name}: {here:?} here, {there:?} there"),
        }
    }
}

#[test]
fn cameras_words_are_taken_or_refused() {
    let mut cases = kept("rtsp");
    cases.extend(damaged(&cases, 0, 24));
    run(cases, 100, rtsp::run);
}

#[test]
fn clients_messages_are_answered_or_refused() {
    let mut cases = kept("detect_messages");
    cases.extend(damaged(&cases, 1, 24));
    run(cases, 120, detect_messages::run);
    detect_messages::ends_well();
}
