//! MODEL: clips to head features; the only room that imports candle.
//!
//! - [`config`]: config.json of both checkpoint layouts as one struct.
//! - [`layout`]: which tensors a model has, and what each layout calls them.
//! - [`weights`]: the checkpoint's files, memory-mapped and checked.
//! - [`device`]: where the model runs and in which number type; [`pool`]: on which threads.
//! - [`pixels`], [`prompt`]: frames and questions as the model takes them.
//! - [`vision`], [`projector`], [`language`]: the three parts of the forward pass, on [`kernels`].
//! - [`internvl`]: the whole model behind [`HeadProbe`](crate::engine::probe::HeadProbe).
//! - [`hub`]: from a directory or a hub id to a checkpoint directory.
//! - [`synthesize`]: checkpoints with random weights, in any shape.
//! - [`work`]: what a pass costs by arithmetic.
//! - [`inspect`], [`fingerprint`]: what a checkpoint is, for people and for profiles.

pub mod config;
pub mod device;
pub mod fingerprint;
pub mod hub;
pub mod inspect;
pub mod internvl;
pub mod kernels;
pub mod language;
pub mod layout;
mod linear;
pub mod pixels;
pub mod pool;
pub mod projector;
pub mod prompt;
pub mod synthesize;
pub mod vision;
pub mod weights;
pub mod work;

pub use device::{DeviceSpec, Precision};
pub use internvl::{InternVl, LoadOptions};
