//! VIDEO: bytes to frames; the only room that imports GStreamer.

pub mod encode;
