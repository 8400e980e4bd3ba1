//! SCORE: head features to p, p′ and events; pure, with streaming and batch forms proven equal.
//!
//! - [`Scorer`]: features to p, with what the profile holds: [`logistic`] or [`normality`]; [`svm`] and
//!   [`mlp`] (on [`standard`] features) are other ways, to compare it with.
//! - [`smooth`]: p to p′ along a run of segments.
//! - [`locate`]: p′ to events, for a whole sequence or segment by segment.
//! - [`alerts`]: which events people are told, and when.
//! - [`events`]: the words for what was found.

pub mod alerts;
mod cholesky;
pub mod events;
pub mod locate;
pub mod logistic;
pub mod mlp;
pub mod normality;
mod scorer;
pub mod smooth;
pub mod standard;
pub mod svm;
mod tracker;

pub use scorer::Scorer;
