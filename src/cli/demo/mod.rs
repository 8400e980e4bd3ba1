//! `headhunt demo`: the main job from nothing, over the real code path. The raw material is
//! labelled synthetic clips of a street under a fixed camera.

mod anomaly;
mod baseline;
mod canvas;
mod client;
mod clips;
mod report;
mod run;
mod scene;

pub use run::{Args, run};
