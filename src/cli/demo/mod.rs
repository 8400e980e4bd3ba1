//! The demo's raw material: labelled synthetic clips of a street under a fixed camera.

mod anomaly;
mod canvas;
#[cfg(feature = "video")]
pub mod clips;
mod scene;

pub use anomaly::ClipKind;
pub use scene::{FPS, HEIGHT, Scene, WIDTH};
