//! ENGINE: one thread owns the resident model; a bounded queue stands before it.
//!
//! ```text
//! submit ─▶ room in the lane? ─▶ lanes (live, upload, offline) ─▶ batch ─▶ HeadProbe ─▶ Ticket
//! ```
//!
//! Segments with equal prompts share a pass, which extracts the heads that any of them wants. A
//! segment waits at most so long, leaves the queue when its caller leaves, and fails alone: a batch
//! that fails is run again one by one. [`probe`] is the seam to the model: it names neither
//! candle nor tonic.

mod config;
mod gate;
mod handle;
mod job;
pub mod probe;
mod pulse;
mod queue;
mod union;
mod worker;

pub use config::EngineConfig;
pub use handle::{Engine, EngineHandle, Load};
pub use job::{Job, Lane, Ticket};
pub use pulse::Health;
pub(crate) use worker::panic_message;
