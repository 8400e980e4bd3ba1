//! PIPELINE: composes the rooms into jobs; the only orchestration, no arithmetic.

mod backlog;
pub mod calibrate;
pub mod detect;
pub mod event;
pub mod labelled;
pub mod offline;
pub mod prepare;
pub mod samples;
pub mod tensor_file;
