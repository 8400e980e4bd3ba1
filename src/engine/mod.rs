//! ENGINE: one thread owns the resident model; a bounded queue stands before it.
//!
//! [`probe`] is the seam to the model: it names neither candle nor tonic.

pub mod probe;
