//! PIPELINE: composes the rooms into jobs; the only orchestration, no arithmetic.

pub mod detect;
pub mod event;
pub mod prepare;
pub mod tensor_file;
