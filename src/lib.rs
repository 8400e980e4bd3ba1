//! HeadHunt finds anomalies in video with a few attention heads of a frozen multimodal model.
//!
//! ```text
//! bytes ─▶ video ─▶ frames ─▶ segment ─▶ clips ─▶ engine(model) ─▶ head features ─▶ score ─▶ p, p′, events ─▶ pipeline ─▶ rpc | cli
//!                                                      features + labels ─▶ hunt ─▶ profile
//! ```
//!
//! - [`net`]: a host to a connection whose address was judged before anything was sent to it.
//! - [`web`]: an http(s) URL to the bytes of the file there.
//! - [`rtsp`]: a camera's address to the RTP packets of its video track.
//! - [`video`]: bytes to frames; the only room that imports GStreamer.
//! - [`segment`]: frames to segments of sampled frames; pure.
//! - [`model`]: clips to head features; the only room that imports candle.
//! - [`engine`]: one thread owns the resident model, with a bounded queue before it.
//! - [`score`]: features to p, p′ and events; pure.
//! - [`hunt`]: features and labels to ranked heads, a fitted scorer and a calibrated locator; pure.
//! - [`profile`]: what hunting found, as a checksummed file.
//! - [`feedback`]: verdicts on events, with the features of their segments.
//! - [`eval`]: data set annotations and frame-level metrics; pure.
//! - [`report`]: what a hunt or calibration found, as JSON and as a page with pictures; pure.
//! - [`pipeline`]: composes the rooms into detections, hunts and calibrations.
//! - [`library`]: labelled clips on disk, and the features kept of them.
//! - [`jobs`]: hunts, calibrations and evaluations one after another, journaled on disk.
//! - [`access`]: tokens, roles and limits: who may do what.
//! - [`rpc`], [`cli`]: the two doors; [`config`], [`telemetry`], [`memory`]: what they stand on.
//! - [`media`], [`head`], [`intervals`]: the words that rooms share; [`error`], [`limits`], [`clock`],
//!   `files`: the rules.

pub mod access;
pub mod cli;
pub mod clock;
pub mod config;
pub mod engine;
pub mod error;
pub mod eval;
pub mod feedback;
mod files;
pub mod head;
pub mod hunt;
pub mod intervals;
pub mod jobs;
pub mod library;
pub mod limits;
pub mod media;
pub mod memory;
pub mod model;
pub mod net;
pub mod pipeline;
mod places;
pub mod profile;
pub mod report;
pub mod rpc;
pub mod rtsp;
pub mod score;
pub mod segment;
pub mod telemetry;
#[cfg(feature = "video")]
pub mod video;
pub mod web;
