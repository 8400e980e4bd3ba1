//! FRAMES -> BYTES: H.264 in MP4, for clips that are made here (the demo, tests, benchmarks).

use std::{
    path::Path,
    time::{Duration, Instant},
};

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;

use crate::{
    error::{Error, Kind, Result, ResultExt},
    limits::{ENCODE_QUEUE_FRAMES, ENCODE_STALL_TIMEOUT},
};

/// Writes RGB frames as a fast-start MP4 with H.264 (High profile, 4:2:0, BT.601 limited range).
/// The same frames give the same bytes on one machine: one encoder thread, constant quality.
pub struct Mp4Writer {
    pipeline: gst::Pipeline,
    source: gst_app::AppSrc,
    bus: gst::Bus,
    frame_bytes: usize,
    frames: u64,
    fps: u32,
    name: String,
}

impl Mp4Writer {
    /// Starts a file of `width` × `height` (even numbers) at `fps` frames per second.
    ///
    /// Fails with `FailedPrecondition` where GStreamer lacks a needed element, and names it.
    pub fn create(path: &Path, width: u32, height: u32, fps: u32) -> Result<Self> {
        if width == 0 || height == 0 || width % 2 == 1 || height % 2 == 1 || fps == 0 {
            return Err(Error::invalid(format!(
                "cannot encode {width}x{height} at {fps} fps; sides must be even, and nothing 0"
            )));
        }
        gst::init().or_kind(Kind::FailedPrecondition, || {
            "GStreamer does not start".into()
        })?;
        let caps = gst::Caps::builder("video/x-raw")
            .field("format", "RGB")
            .field("width", i32::try_from(width).unwrap_or(i32::MAX))
            .field("height", i32::try_from(height).unwrap_or(i32::MAX))
            .field(
                "framerate",
                gst::Fraction::new(i32::try_from(fps).unwrap_or(1), 1),
            )
            .build();
        let i420 = gst::Caps::builder("video/x-raw")
            .field("format", "I420")
            .field("colorimetry", "bt601")
            .build();
        let location = path.to_str().ok_or_else(|| {
            Error::invalid(format!(
                "{} is not UTF-8; choose another name",
                path.display()
            ))
        })?;
        let source = gst_app::AppSrc::builder()
            .caps(&caps)
            .format(gst::Format::Time)
            .build();
        // RGB rows without padding, whatever their width.
        let frame_bytes = width as usize * height as usize * 3;
        let convert = element("videoconvert", "gstreamer1.0-plugins-base")?;
        let filter = element("capsfilter", "gstreamer1.0")?;
        filter.set_property("caps", &i420);
        let encoder = element("x264enc", "gstreamer1.0-plugins-ugly")?;
        encoder.set_property_from_str("pass", "quant");
        encoder.set_property("quantizer", 21u32);
        encoder.set_property_from_str("speed-preset", "veryfast");
        encoder.set_property("threads", 1u32);
        // The lookahead thread decides by what has arrived so far: not the same each time.
        encoder.set_property("option-string", "sync-lookahead=0");
        encoder.set_property("key-int-max", 2 * fps);
        let muxer = element("mp4mux", "gstreamer1.0-plugins-good")?;
        muxer.set_property("faststart", true);
        let sink = element("filesink", "gstreamer1.0")?;
        sink.set_property("location", location);
        let chain = [
            source.clone().upcast(),
            convert,
            filter,
            encoder,
            muxer,
            sink,
        ];
        let pipeline = gst::Pipeline::new();
        let failed = || "the encoding pipeline cannot be built".to_owned();
        pipeline.add_many(&chain).or_kind(Kind::Internal, failed)?;
        gst::Element::link_many(&chain).or_kind(Kind::Internal, failed)?;
        let bus = pipeline
            .bus()
            .ok_or_else(|| Error::internal("a pipeline without a bus"))?;
        let writer = Mp4Writer {
            pipeline,
            source,
            bus,
            frame_bytes,
            frames: 0,
            fps,
            name: location.to_owned(),
        };
        if writer.pipeline.set_state(gst::State::Playing).is_err() {
            writer.check()?;
            return Err(Error::invalid(format!("cannot write {location}")));
        }
        Ok(writer)
    }

    /// Appends a frame: `width * height * 3` bytes, RGB. Waits while the encoder is behind.
    pub fn push(&mut self, rgb: Vec<u8>) -> Result<()> {
        if rgb.len() != self.frame_bytes {
            return Err(Error::invalid(format!(
                "a frame of {} bytes; it must be {}",
                rgb.len(),
                self.frame_bytes
            )));
        }
        let room = (self.frame_bytes * ENCODE_QUEUE_FRAMES) as u64;
        let started = Instant::now();
        while self.source.current_level_bytes() > room {
            self.check()?;
            if started.elapsed() > ENCODE_STALL_TIMEOUT {
                return Err(self.stalled());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let second = gst::ClockTime::SECOND.nseconds();
        let at = |frame: u64| gst::ClockTime::from_nseconds(frame * second / u64::from(self.fps));
        let mut buffer = gst::Buffer::from_mut_slice(rgb);
        if let Some(buffer) = buffer.get_mut() {
            buffer.set_pts(at(self.frames));
            buffer.set_duration(at(self.frames + 1) - at(self.frames));
        }
        self.frames += 1;
        if self.source.push_buffer(buffer).is_err() {
            self.check()?;
            return Err(Error::internal(format!(
                "the encoder of {} has stopped",
                self.name
            )));
        }
        Ok(())
    }

    /// Ends the file; only then it is whole.
    pub fn finish(self) -> Result<()> {
        if self.source.end_of_stream().is_err() {
            self.check()?;
            return Err(Error::internal(format!(
                "the encoder of {} has stopped",
                self.name
            )));
        }
        let limit = gst::ClockTime::from_nseconds(
            u64::try_from(ENCODE_STALL_TIMEOUT.as_nanos()).unwrap_or(u64::MAX),
        );
        let types = [gst::MessageType::Eos, gst::MessageType::Error];
        match self.bus.timed_pop_filtered(limit, &types) {
            Some(message) => self.explain(&message),
            None => Err(self.stalled()),
        }
    }

    /// The pipeline's error, if it has posted one.
    fn check(&self) -> Result<()> {
        match self.bus.pop_filtered(&[gst::MessageType::Error]) {
            Some(message) => self.explain(&message),
            None => Ok(()),
        }
    }

    fn explain(&self, message: &gst::Message) -> Result<()> {
        let gst::MessageView::Error(error) = message.view() else {
            return Ok(());
        };
        let kind = match error.error().kind::<gst::ResourceError>() {
            Some(gst::ResourceError::NoSpaceLeft) => Kind::ResourceExhausted,
            Some(_) => Kind::InvalidArgument,
            None => Kind::Internal,
        };
        Err(Error::new(kind, format!("cannot write {}", self.name)).with_source(error.error()))
    }

    fn stalled(&self) -> Error {
        Error::deadline(format!(
            "the encoder of {} made no progress for {} s",
            self.name,
            ENCODE_STALL_TIMEOUT.as_secs()
        ))
    }
}

impl Drop for Mp4Writer {
    fn drop(&mut self) {
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

fn element(name: &str, package: &str) -> Result<gst::Element> {
    gst::ElementFactory::make(name)
        .build()
        .or_kind(Kind::FailedPrecondition, || {
            format!("GStreamer has no element {name}; install {package}")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decoded size and frame count.
    fn decode(path: &Path) -> (i32, i32, usize) {
        let text = format!(
            "filesrc location={} ! qtdemux ! h264parse ! avdec_h264 ! appsink name=sink sync=false",
            path.display()
        );
        let pipeline = gst::parse::launch(&text)
            .unwrap()
            .downcast::<gst::Pipeline>()
            .unwrap();
        let sink = pipeline
            .by_name("sink")
            .unwrap()
            .downcast::<gst_app::AppSink>()
            .unwrap();
        pipeline.set_state(gst::State::Playing).unwrap();
        let (mut width, mut height, mut frames) = (0, 0, 0);
        while let Some(sample) = sink.try_pull_sample(gst::ClockTime::from_seconds(20)) {
            let caps = sample.caps().unwrap().structure(0).unwrap();
            (width, height) = (caps.get("width").unwrap(), caps.get("height").unwrap());
            frames += 1;
        }
        assert!(sink.is_eos());
        pipeline.set_state(gst::State::Null).unwrap();
        (width, height, frames)
    }

    fn write(path: &Path, frames: u8) -> Result<()> {
        let mut writer = Mp4Writer::create(path, 64, 48, 30)?;
        for i in 0..frames {
            writer.push(
                (0..64 * 48 * 3)
                    .map(|k| (k as u8).wrapping_mul(i))
                    .collect(),
            )?;
        }
        writer.finish()
    }

    #[test]
    fn every_frame_is_there_and_the_file_is_the_same_again() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a.mp4"), dir.path().join("b.mp4"));
        write(&a, 75).unwrap();
        write(&b, 75).unwrap();
        assert_eq!(decode(&a), (64, 48, 75));
        let (a, b) = (std::fs::read(a).unwrap(), std::fs::read(b).unwrap());
        // Fast start: the index stands before the media.
        let find = |what: &[u8]| a.windows(4).position(|w| w == what).unwrap();
        assert!(find(b"moov") < find(b"mdat"));
        assert_eq!(a.len(), b.len());
        let media = |file: &[u8]| {
            let at = file.windows(4).position(|w| w == b"mdat").unwrap();
            file[at..].to_vec()
        };
        assert!(media(&a) == media(&b));
    }

    #[test]
    fn what_cannot_be_written_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let nowhere = dir.path().join("no/such/folder.mp4");
        assert!(write(&nowhere, 60).is_err());
        let path = dir.path().join("a.mp4");
        assert_eq!(
            Mp4Writer::create(&path, 63, 48, 30).err().unwrap().kind(),
            Kind::InvalidArgument
        );
        let mut writer = Mp4Writer::create(&path, 64, 48, 30).unwrap();
        assert_eq!(
            writer.push(vec![0; 5]).unwrap_err().kind(),
            Kind::InvalidArgument
        );
    }
}
