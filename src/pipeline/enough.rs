//! Whether labelled videos give enough samples of both classes, told before any pass.

use tokio_util::sync::CancellationToken;

use super::{labelled::LabelledVideo, offline::Open};
use crate::{
    error::{Error, Result},
    limits::HUNT_SAMPLES_MIN,
    media::MediaEvent,
    score::locate::SegmentSpan,
    segment::{SampledSegment, SegmentRule, Segmenter},
};

/// Samples of the two classes.
#[derive(Default)]
struct Classes {
    anomalous: usize,
    normal: usize,
}

impl Classes {
    fn enough(&self) -> bool {
        self.anomalous.min(self.normal) >= HUNT_SAMPLES_MIN
    }

    fn add(&mut self, video: &LabelledVideo, span: Option<SegmentSpan>) {
        if video.sample(0, span).anomaly {
            self.anomalous += 1;
        } else {
            self.normal += 1;
        }
    }
}

/// Refuses videos that give fewer than [`HUNT_SAMPLES_MIN`] samples of a class. Each clip is good for one
/// sample of its label; only where that does not suffice are clips decoded, up to the sample that
/// does.
///
/// Fails with `InvalidArgument` (field `clip_ids`) where samples are missing, and with the decoder's
/// errors, after the clip's name.
pub fn enough_samples(
    videos: &[LabelledVideo],
    open: impl Open,
    rule: SegmentRule,
    cancel: &CancellationToken,
) -> Result<()> {
    let certain = Classes {
        anomalous: videos.iter().filter(|video| video.anomaly).count(),
        normal: videos.iter().filter(|video| !video.anomaly).count(),
    };
    if certain.enough() {
        return Ok(());
    }
    let mut classes = Classes::default();
    for video in videos {
        if video.intervals_known {
            count(video, open.clone(), rule, cancel, &mut classes)
                .map_err(|e| e.context(&video.name))?;
        } else {
            classes.add(video, None);
        }
        if classes.enough() {
            return Ok(());
        }
    }
    let (class, n) = if classes.anomalous < HUNT_SAMPLES_MIN {
        ("anomalous", classes.anomalous)
    } else {
        ("normal", classes.normal)
    };
    Err(Error::invalid(format!(
        "hunting needs at least {HUNT_SAMPLES_MIN} {class} samples, and all clips together give {n}: add \
         clips, or correct the frames in which something happens"
    ))
    .with_field("clip_ids"))
}

/// Adds a video's segments, as long as there are not enough.
fn count(
    video: &LabelledVideo,
    open: impl Open,
    rule: SegmentRule,
    cancel: &CancellationToken,
    classes: &mut Classes,
) -> Result<()> {
    let mut source = open(&video.path, cancel.child_token())?;
    let mut segmenter = Segmenter::new(rule, 1)?;
    let mut add = |segment: Option<SampledSegment<()>>| {
        if let Some(segment) = segment
            && let (Some(first), Some(last)) = (segment.frames.first(), segment.frames.last())
        {
            let span = SegmentSpan {
                first_frame: first.index,
                last_frame: last.index,
                start: first.pts,
                end: last.end(),
                run: segment.run,
            };
            classes.add(video, Some(span));
        }
        classes.enough()
    };
    while let Some(event) = source.next_event()? {
        let segment = match event {
            MediaEvent::Frame(frame) => segmenter.push(frame.stamp, ())?,
            MediaEvent::Gap(_) => segmenter.gap(),
            MediaEvent::Opened(_) | MediaEvent::Source(_) => None,
        };
        if add(segment) {
            return Ok(());
        }
    }
    add(segmenter.finish());
    Ok(())
}
