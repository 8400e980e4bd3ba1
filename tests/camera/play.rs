//! GStreamer's own RTSP client, down to pictures.

use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use headhunt::media::RgbImage;

use super::camera_support::video_support::index_of;

/// How to watch.
pub struct Watch<'a> {
    codec: &'a str,
    protocol: &'a str,
    pictures: usize,
    /// User and password.
    pub login: Option<(&'a str, &'a str)>,
}

impl<'a> Watch<'a> {
    /// `h264`, `h265` or `mjpeg` over `tcp`, `udp` or `tcp+tls`; so many pictures.
    pub fn new(codec: &'a str, protocol: &'a str, pictures: usize) -> Self {
        Watch {
            codec,
            protocol,
            pictures,
            login: None,
        }
    }
}

/// A decoded picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The index that it carries.
    pub index: u64,
    pub size: (u32, u32),
}

/// The first pictures of a camera, or why there are none.
pub fn watch(url: &str, how: &Watch<'_>) -> Result<Vec<Seen>, String> {
    gst::init().unwrap();
    let decoder = match how.codec {
        "h264" => "rtph264depay ! h264parse ! avdec_h264",
        "h265" => "rtph265depay ! h265parse ! avdec_h265",
        _ => "rtpjpegdepay ! jpegdec",
    };
    let pipeline = gst::parse::launch(&format!(
        "rtspsrc name=source latency=200 tls-validation-flags=0 protocols={} ! {decoder} \
         ! videoconvert ! video/x-raw,format=RGB ! appsink name=sink sync=false",
        how.protocol
    ));
    let pipeline = pipeline.unwrap().downcast::<gst::Pipeline>().unwrap();
    let source = pipeline.by_name("source").unwrap();
    source.set_property("location", url);
    if let Some((user, password)) = how.login {
        source.set_property("user-id", user);
        source.set_property("user-pw", password);
    }
    let sink = pipeline.by_name("sink").unwrap();
    let sink = sink.downcast::<gst_app::AppSink>().unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let seen = collect(&pipeline, &sink, how.pictures);
    pipeline.set_state(gst::State::Null).unwrap();
    seen
}

fn collect(
    pipeline: &gst::Pipeline,
    sink: &gst_app::AppSink,
    pictures: usize,
) -> Result<Vec<Seen>, String> {
    let bus = pipeline.bus().unwrap();
    let begun = Instant::now();
    let mut seen = Vec::new();
    while seen.len() < pictures {
        if let Some(sample) = sink.try_pull_sample(gst::ClockTime::from_mseconds(50)) {
            seen.push(look(&sample));
        }
        if let Some(message) = bus.pop_filtered(&[gst::MessageType::Error])
            && let gst::MessageView::Error(e) = message.view()
        {
            return Err(format!("{} {:?}", e.error(), e.debug()));
        }
        if begun.elapsed() > Duration::from_secs(20) {
            return Err(format!("{} pictures in time", seen.len()));
        }
    }
    Ok(seen)
}

fn look(sample: &gst::Sample) -> Seen {
    let caps = sample.caps().unwrap().structure(0).unwrap();
    let side = |name| u32::try_from(caps.get::<i32>(name).unwrap()).unwrap();
    let (width, height) = (side("width"), side("height"));
    // Rows of these widths have no padding.
    let data = sample.buffer().unwrap().map_readable().unwrap().to_vec();
    let image = RgbImage {
        width,
        height,
        data,
    };
    Seen {
        index: index_of(&image),
        size: (width, height),
    }
}
