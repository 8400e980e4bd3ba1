//! MODEL: clips to head features; the only room that imports candle.
//!
//! - [`config`]: config.json of both checkpoint layouts as one struct.
//! - [`layout`]: which tensors a model has, and what each layout calls them.
//! - [`weights`]: the checkpoint's files, memory-mapped and checked.
//! - [`pixels`], [`prompt`]: frames and questions as the model takes them.
//! - [`hub`]: from a directory or a hub id to a checkpoint directory.
//! - [`synthesize`]: checkpoints with random weights, in any shape.
//! - [`inspect`], [`fingerprint`]: what a checkpoint is, for people and for profiles.

pub mod config;
pub mod fingerprint;
pub mod hub;
pub mod inspect;
pub mod layout;
pub mod pixels;
pub mod prompt;
pub mod synthesize;
pub mod weights;
