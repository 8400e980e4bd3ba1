//! Small clips, each made once per process. Every frame carries its index in its pixels
//! (`video_support::index_of`), so that a test knows which one it got.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use super::video_support::{Clip, fresh_path, run_pipeline};

/// Frames per second of all clips, and frames from one key frame to the next.
pub const FPS: i32 = 10;

const X264: &str =
    "x264enc speed-preset=ultrafast tune=zerolatency threads=1 key-int-max=10 bitrate=400";

/// 160x120, 1 s, H.264 in MP4.
pub fn h264() -> PathBuf {
    made("h264", || clip(X264, "h264parse ! mp4mux").make())
}

/// 160x120, 3 s, H.264 in MP4.
pub fn h264_long() -> PathBuf {
    made("h264-long", || {
        clip(X264, "h264parse ! mp4mux").frames(30).make()
    })
}

/// 320x240, 1 s, H.264 in MP4.
pub fn h264_large() -> PathBuf {
    made("h264-large", || {
        clip(X264, "h264parse ! mp4mux").sized(320, 240).make()
    })
}

/// 160x120, 1 s, H.265 in MP4.
pub fn h265() -> PathBuf {
    made("h265", || {
        let x265 = "x265enc speed-preset=ultrafast tune=zerolatency key-int-max=10 log-level=none";
        clip(x265, "h265parse ! mp4mux").make()
    })
}

/// 160x120, 1 s, MJPEG in AVI.
pub fn mjpeg() -> PathBuf {
    made("mjpeg", || clip("jpegenc", "avimux").make())
}

/// 640x480, 1 s, MJPEG in Matroska: many packets.
pub fn heavy() -> PathBuf {
    made("heavy", || {
        let mut clip = clip("jpegenc quality=90", "matroskamux").sized(640, 480);
        clip.noise = true;
        clip.make()
    })
}

/// 160x120, 1 s, H.264 in the container of this muxer.
pub fn h264_in(muxer: &'static str) -> PathBuf {
    made(muxer, || clip(X264, &format!("h264parse ! {muxer}")).make())
}

/// One H.264 stream in MPEG-TS of which the first second is 160x120 and the next 320x240.
pub fn resolution_change() -> PathBuf {
    made("change", || {
        let stream = |width, height| {
            let bytes = "video/x-h264,stream-format=byte-stream,alignment=au";
            let clip = clip(X264, bytes).sized(width, height).make();
            std::fs::read(clip).unwrap()
        };
        let raw = fresh_path();
        std::fs::write(&raw, [stream(160, 120), stream(320, 240)].concat()).unwrap();
        run_pipeline(&format!(
            "filesrc location={} ! h264parse ! mpegtsmux ! filesink name=out",
            raw.display()
        ))
    })
}

fn clip(encoder: &str, muxer: &str) -> Clip {
    let mut clip = Clip::new(encoder, muxer).frames(10);
    clip.fps = FPS;
    clip
}

fn made(name: &'static str, make: impl FnOnce() -> PathBuf) -> PathBuf {
    type Cell = Arc<OnceLock<PathBuf>>;
    static MADE: OnceLock<Mutex<HashMap<&'static str, Cell>>> = OnceLock::new();
    let cells = MADE.get_or_init(Mutex::default);
    let cell = {
        let mut cells = cells.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(cells.entry(name).or_default())
    };
    cell.get_or_init(make).clone()
}
