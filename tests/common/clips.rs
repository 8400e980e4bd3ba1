//! Real, small video files, made by GStreamer when a test asks for them.

use std::path::PathBuf;

use gstreamer::{self as gst, prelude::*};

/// Writes a file with this pipeline, whose last element gets the file's place, and reads it.
fn make(pipeline: &str) -> Vec<u8> {
    gst::init().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path: PathBuf = dir.path().join("clip");
    let description = format!("{pipeline} ! filesink location={}", path.display());
    let pipeline = gst::parse::launch(&description).unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let message = pipeline.bus().unwrap().timed_pop_filtered(
        gst::ClockTime::from_seconds(60),
        &[gst::MessageType::Eos, gst::MessageType::Error],
    );
    pipeline.set_state(gst::State::Null).unwrap();
    match message.as_ref().map(|m| m.view()) {
        Some(gst::MessageView::Eos(_)) => std::fs::read(path).unwrap(),
        other => panic!("{description}: {other:?}"),
    }
}

/// H.264 at 25 frames per second in the container of this muxer; noise, so that it does not
/// compress away.
pub fn h264(frames: u32, width: u32, height: u32, muxer: &str) -> Vec<u8> {
    make(&format!(
        "videotestsrc num-buffers={frames} pattern=snow ! \
         video/x-raw,format=I420,width={width},height={height},framerate=25/1 ! \
         x264enc speed-preset=ultrafast tune=zerolatency key-int-max=12 ! h264parse ! {muxer}"
    ))
}

/// An MP4 with a sound track alone.
pub fn audio_only() -> Vec<u8> {
    make("audiotestsrc num-buffers=50 ! audioconvert ! avenc_aac ! aacparse ! mp4mux")
}

/// The pixels of a JPEG, RGB, as GStreamer decodes them; its width must be a multiple of four.
pub fn decode_jpeg(jpeg: &[u8]) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("picture.jpg");
    std::fs::write(&path, jpeg).unwrap();
    make(&format!(
        "filesrc location={} ! jpegdec ! videoconvert ! video/x-raw,format=RGB",
        path.display()
    ))
}
