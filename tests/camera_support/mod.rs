//! Cameras for tests: small clips, a proxy that breaks things on demand, and a bare RTSP client.
//!
//! ```ignore
//! #[path = "camera_support/mod.rs"]
//! mod camera_support;
//! let camera = Camera::start(CameraOptions::new(clips::h264())).unwrap();
//! let proxy = FaultProxy::start(camera.address());
//! // … a client watches proxy.url("/camera") …
//! proxy.set(Fault::Silence);
//! proxy.clear();
//! ```
#![allow(dead_code)] // each test binary uses its part
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod client;
pub mod clips;
pub mod fault;
pub mod proxy;
mod tamper;
#[path = "../video_support/mod.rs"]
pub mod video_support;
pub mod wire;

pub use fault::Fault;
pub use proxy::FaultProxy;
