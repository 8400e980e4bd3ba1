//! Whether labelled videos give enough samples of both classes, told before any pass.

use tokio_util::sync::CancellationToken;

use super::{calibrate::NormalOptions, labelled::LabelledVideo, offline::Open};
use crate::{
    error::{Error, Result},
    hunt::rate::{check_footage, days},
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

/// Most frames a second that labels are thought to count.
const FPS_MAX: f64 = 60.0;

/// Whether a video is good for one sample of its label without a look at it. A short event may fill half of no segment;
/// one of two segments' length fills one, wherever that begins.
fn is_certain(video: &LabelledVideo, rule: SegmentRule) -> bool {
    let segment = match rule {
        SegmentRule::Frames(frames) => u64::from(frames),
        SegmentRule::Seconds(seconds) => (seconds * FPS_MAX).ceil() as u64,
    };
    let long = |(start, end): &(u64, u64)| end.saturating_sub(*start) >= segment.saturating_mul(2);
    !video.anomaly || !video.intervals_known || video.anomalous.iter().any(long)
}

/// Refuses videos that give fewer than [`HUNT_SAMPLES_MIN`] samples of a class. A clip is good for one
/// sample of its label, unless what happens in it is short; only where that does not suffice are clips decoded, up to
/// the sample that does.
///
/// Fails with `InvalidArgument` (field `clip_ids`) where samples are missing, and with the decoder's
/// errors, after the clip's name.
pub fn enough_samples(
    videos: &[LabelledVideo],
    open: impl Open,
    rule: SegmentRule,
    cancel: &CancellationToken,
) -> Result<()> {
    let of = |anomaly| {
        let certain = |video: &&LabelledVideo| video.anomaly == anomaly && is_certain(video, rule);
        videos.iter().filter(certain).count()
    };
    let certain = Classes {
        anomalous: of(true),
        normal: of(false),
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

/// Refuses normal videos that are too short to show a rate of false alarms. They are decoded, up to the length that suffices.
///
/// Fails as [`check_footage`], and with the decoder's errors, after the clip's name.
pub fn enough_footage(
    videos: &[LabelledVideo],
    open: impl Open,
    options: &NormalOptions,
    cancel: &CancellationToken,
) -> Result<()> {
    let check = |spans: &[SegmentSpan]| {
        check_footage(
            days(spans),
            options.false_alarms_per_day,
            options.accept_upper_bound,
        )
    };
    let mut spans = Vec::new();
    for video in videos.iter().filter(|video| !video.anomaly) {
        let rule = options.calibrate.rule;
        each_span(video, open.clone(), rule, cancel, &mut |span| {
            spans.push(span);
            check(&spans).is_ok()
        })
        .map_err(|e| e.context(&video.name))?;
        if check(&spans).is_ok() {
            return Ok(());
        }
    }
    check(&spans).map(|_| ())
}

/// Adds a video's segments, as long as there are not enough.
fn count(
    video: &LabelledVideo,
    open: impl Open,
    rule: SegmentRule,
    cancel: &CancellationToken,
    classes: &mut Classes,
) -> Result<()> {
    each_span(video, open, rule, cancel, &mut |span| {
        classes.add(video, Some(span));
        classes.enough()
    })
}

/// Calls `each` with every segment of a video, until it has had enough.
fn each_span(
    video: &LabelledVideo,
    open: impl Open,
    rule: SegmentRule,
    cancel: &CancellationToken,
    each: &mut dyn FnMut(SegmentSpan) -> bool,
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
            return each(span);
        }
        false
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
