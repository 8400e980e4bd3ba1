//! MODEL: clips to head features; the only room that imports candle.
//!
//! - [`config`]: config.json of both checkpoint layouts as one struct.
//! - [`layout`]: which tensors a model has, and what each layout calls them.
//! - [`weights`]: the checkpoint's files, memory-mapped and checked.

pub mod config;
pub mod layout;
pub mod weights;
