//! Gives a stream's source the pictures of a file, for ever.

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;

use super::{
    reader::{Clip, Reader, Unit},
    seam::Seam,
};
use crate::error::{Error, Result};

/// Feeds one stream. Reads when it is asked, in the thread that asks: the sinks' clock sets the
/// pace.
pub(super) struct Feed {
    clip: Clip,
    reader: Option<Reader>,
    seam: Seam,
}

impl Feed {
    pub(super) fn new(clip: Clip) -> Feed {
        Feed {
            clip,
            reader: None,
            seam: Seam::default(),
        }
    }

    /// Becomes the answer to what `source` needs.
    pub(super) fn attach(mut self, source: &gst_app::AppSrc) {
        source.set_format(gst::Format::Time);
        source.set_stream_type(gst_app::AppStreamType::Stream);
        source.set_is_live(true);
        // Asked only when it is empty, so one picture waits in it at most.
        source.set_min_percent(0);
        let callbacks = gst_app::AppSrcCallbacks::builder()
            .need_data(move |source, _| self.give(source))
            .build();
        source.set_callbacks(callbacks);
    }

    fn give(&mut self, source: &gst_app::AppSrc) {
        // Set as soon as the stream is being stopped.
        let stopped = || {
            source
                .static_pad("src")
                .is_none_or(|pad| pad.pad_flags().contains(gst::PadFlags::FLUSHING))
        };
        match self.next(stopped) {
            Ok(Some(sample)) => {
                if let Err(flow) = source.push_sample(&sample) {
                    tracing::debug!(?flow, "a camera's stream takes no more");
                }
            }
            Ok(None) => {}
            Err(e) => {
                let file = self.clip.path.display();
                tracing::error!("the camera of {file} ends: {e:#}");
                // Its clients are told; a later one gets a new stream.
                if let Err(flow) = source.end_of_stream() {
                    tracing::debug!(?flow, "a camera's stream has ended already");
                }
            }
        }
    }

    /// The next picture with its time on the stream's line; `None` when stopped.
    fn next(&mut self, stopped: impl Fn() -> bool) -> Result<Option<gst::Sample>> {
        loop {
            let reader = match &mut self.reader {
                Some(reader) => reader,
                None => self.reader.insert(Reader::open(&self.clip)?),
            };
            match reader.next(&stopped) {
                Ok(Some(unit)) => {
                    if let Some(sample) = place(&mut self.seam, unit) {
                        return Ok(Some(sample));
                    }
                }
                Ok(None) if stopped() => return Ok(None),
                Ok(None) => self.begin_again()?,
                // What was readable is played over and over, as the decoder would keep it.
                Err(e) if self.seam.moved() => {
                    tracing::warn!("{}: {e:#}; begins again", self.clip.path.display());
                    self.begin_again()?;
                }
                Err(e) => return Err(e),
            }
        }
    }

    fn begin_again(&mut self) -> Result<()> {
        if !self.seam.moved() {
            return Err(Error::invalid("the file has no pictures"));
        }
        self.seam.next_pass();
        self.reader = None;
        Ok(())
    }
}

fn place(seam: &mut Seam, unit: Unit) -> Option<gst::Sample> {
    let placed = seam.place(unit.times, unit.duration)?;
    let time = |nanos: i64| u64::try_from(nanos).ok().map(gst::ClockTime::from_nseconds);
    let mut buffer = unit.buffer;
    {
        let buffer = buffer.make_mut();
        buffer.set_pts(time(placed.pts));
        buffer.set_dts(placed.dts.and_then(time));
        buffer.set_duration(time(unit.duration));
        // The seam is none that a client should see.
        buffer.unset_flags(gst::BufferFlags::DISCONT);
    }
    let sample = gst::Sample::builder().buffer(&buffer).caps(&unit.caps);
    Some(sample.build())
}
