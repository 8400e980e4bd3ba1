//! PIPELINE: composes the rooms into jobs; the only orchestration, no arithmetic.

pub mod calibrate;
pub mod detect;
pub mod event;
<<<<<<< HEAD
pub mod labelled;
pub mod offline;
pub mod prepare;
pub mod samples;
=======
pub mod prepare;
>>>>>>> engine
pub mod tensor_file;
