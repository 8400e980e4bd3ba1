//! `headhunt demo`: the main job from nothing, over the real code path. The raw material is
//! labelled synthetic clips of a street under a fixed camera.

mod anomaly;
mod background;
mod baseline;
mod canvas;
mod client;
mod clips;
mod report;
mod run;
mod scene;

use anomaly::ClipKind;
use scene::{FPS, HEIGHT, Scene, WIDTH};

pub use run::{Args, run};
