//! SCORE: head features to p, p′ and events; pure, with streaming and batch forms proven equal.

pub mod events;
