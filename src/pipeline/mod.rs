//! PIPELINE: composes the rooms into jobs; the only orchestration, no arithmetic.

pub mod ablate;
mod backlog;
pub mod calibrate;
pub mod detect;
pub mod enough;
pub mod evaluate;
pub mod event;
mod follow;
pub mod labelled;
pub mod offline;
pub mod options;
mod people;
pub mod prepare;
pub mod reduce;
pub mod report;
mod sample;
pub mod samples;
pub mod scoring;
pub mod snapshot;
pub mod tensor_file;
