//! PIPELINE: composes the rooms into jobs; the only orchestration, no arithmetic.

pub mod event;
pub mod tensor_file;
