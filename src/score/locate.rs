//! The locator: p of consecutive segments to p′ and events, for a whole sequence ([`locate`]) or
//! segment by segment ([`StreamingLocator`]); the final values and events of both are bit-equal.
//!
//! A segment is anomalous if p′ > τ, and a run of anomalous segments is an event. A gap (a change of
//! [`SegmentSpan::run`]) splits the sequence: smoothing never reaches across it. A gap of at most
//! the bridge lies inside an event, which keeps its id, if the segments on both sides of it are
//! anomalous; a longer one ends the event with [`EndReason::Gap`]. The gap's length is the
//! time from the end of the last segment before it to the start of the first one after it.

use std::{collections::VecDeque, time::Duration};

use super::{
    events::{EndReason, Event},
    smooth::Filter,
    tracker::{Change, Tracker},
};
use crate::{
    error::{Error, Result},
    limits::LOCATOR_SIGMA_MAX,
    media::MediaTime,
    profile::{Edge, LocatorParams},
};

/// Where and when a segment stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentSpan {
    /// Index of its first decoded frame.
    pub first_frame: u64,
    /// Index of its last decoded frame, inclusive.
    pub last_frame: u64,
    /// PTS of its first frame.
    pub start: MediaTime,
    /// PTS + duration of its last frame.
    pub end: MediaTime,
    /// Differs from the segment's before where there is a gap between them.
    pub run: u64,
}

/// What [`locate`] found.
#[derive(Clone, Debug, PartialEq)]
pub struct Located {
    /// p′, one per segment.
    pub smoothed: Vec<f64>,
    /// Events, whole, in media order; ids count up from 0.
    pub events: Vec<(Event, EndReason)>,
}

/// One message of a [`StreamingLocator`]; `segment` is the zero-based count of pushes.
#[derive(Clone, Debug, PartialEq)]
pub enum LocatorOutput {
    /// Once per segment, at once: p′ as it would be if the media ended here.
    Provisional {
        /// Which segment.
        segment: u64,
        /// p.
        p: f64,
        /// p′ over what is known.
        smoothed: f64,
        /// Where and when.
        span: SegmentSpan,
    },
    /// Once per segment, in order: p′ that will not change.
    Final {
        /// Which segment.
        segment: u64,
        /// p.
        p: f64,
        /// p′.
        smoothed: f64,
    },
    /// An event began.
    Started(Event),
    /// It grew by a segment.
    Updated(Event),
    /// It is over.
    Ended(Event, EndReason),
}

impl From<Change> for LocatorOutput {
    fn from(change: Change) -> Self {
        match change {
            Change::Started(event) => LocatorOutput::Started(event),
            Change::Updated(event) => LocatorOutput::Updated(event),
            Change::Ended(event, reason) => LocatorOutput::Ended(event, reason),
        }
    }
}

/// Smooths and locates a whole sequence. `segment_seconds` is the length of a full segment: the
/// bridge where the parameters name none.
///
/// `InvalidArgument` for parameters outside the limits, a p outside 0..1 or a count of p that is not
/// that of the spans.
pub fn locate(
    spans: &[SegmentSpan],
    p: &[f64],
    params: &LocatorParams,
    segment_seconds: f64,
) -> Result<Located> {
    let (_, mut tracker) = parts(params, segment_seconds)?;
    let smoothed = smooth_runs(spans, p, params.sigma, params.edge)?;
    let mut events = Vec::new();
    let mut keep = |change: Option<Change>| {
        if let Some(Change::Ended(event, reason)) = change {
            events.push((event, reason));
        }
    };
    for (span, &smoothed) in spans.iter().zip(&smoothed) {
        keep(tracker.announce(span));
        keep(tracker.push(span, smoothed));
    }
    keep(tracker.finish());
    Ok(Located { smoothed, events })
}

/// p′ of a sequence with gaps: each run of segments is smoothed on its own.
///
/// `InvalidArgument` as for [`locate`].
pub fn smooth_runs(spans: &[SegmentSpan], p: &[f64], sigma: f64, edge: Edge) -> Result<Vec<f64>> {
    check_sigma(sigma)?;
    if spans.len() != p.len() {
        return Err(Error::invalid(format!(
            "{} segments but {} probabilities",
            spans.len(),
            p.len()
        )));
    }
    for (i, &p) in p.iter().enumerate() {
        check_probability(i as u64, p)?;
    }
    let filter = Filter::new(sigma, edge);
    let mut smoothed = Vec::with_capacity(p.len());
    let mut rest = p;
    for run in spans.chunk_by(|a, b| a.run == b.run) {
        let (p, later) = rest.split_at(run.len());
        smoothed.extend((0..p.len()).map(|at| filter.at(p, at)));
        rest = later;
    }
    Ok(smoothed)
}

/// Smooths and locates segment by segment. A segment's p′ is final once `radius` later segments of
/// its run are known or the run ended; memory is bounded by twice the radius.
#[derive(Clone, Debug)]
pub struct StreamingLocator {
    filter: Filter,
    tracker: Tracker,
    /// Segments pushed.
    pushed: u64,
    run: Option<u64>,
    /// By [`end_run`](Self::end_run): the next segment must be of another run.
    run_ended: bool,
    /// p of the run, from at most a radius before the first that is not final to the newest.
    window: Vec<f64>,
    /// The segments that are not final: the last ones of the window.
    waiting: VecDeque<SegmentSpan>,
}

impl StreamingLocator {
    /// A locator at the start of the media; parameters as for [`locate`].
    pub fn new(params: &LocatorParams, segment_seconds: f64) -> Result<Self> {
        let (filter, tracker) = parts(params, segment_seconds)?;
        Ok(StreamingLocator {
            filter,
            tracker,
            pushed: 0,
            run: None,
            run_ended: false,
            window: Vec::new(),
            waiting: VecDeque::new(),
        })
    }

    /// Later segments that a segment's final p′ waits for.
    pub fn radius(&self) -> usize {
        self.filter.radius()
    }

    /// Takes the next segment. First come the values that it makes final, in order, each with what
    /// it means for the events, then its own provisional one.
    ///
    /// `InvalidArgument` for a p outside 0..1, `Internal` for a segment of a run that was ended;
    /// nothing has changed then.
    pub fn push(&mut self, span: SegmentSpan, p: f64) -> Result<Vec<LocatorOutput>> {
        check_probability(self.pushed, p)?;
        let mut out = Vec::new();
        if self.run != Some(span.run) {
            self.flush(&mut out);
            // Only now: an open event that a short gap follows keeps until this first segment of
            // the new run is final, while later ones are pushed.
            out.extend(self.tracker.announce(&span).map(LocatorOutput::from));
            self.run = Some(span.run);
        } else if self.run_ended {
            return Err(Error::internal(format!(
                "segment {} continues run {}, which was ended before it",
                self.pushed, span.run
            )));
        }
        self.run_ended = false;
        self.window.push(p);
        self.waiting.push_back(span);
        self.pushed = self.pushed.saturating_add(1);
        if self.waiting.len() > self.filter.radius() {
            self.finalize_first(&mut out);
        }
        let smoothed = self.filter.at(&self.window, self.window.len() - 1);
        out.push(LocatorOutput::Provisional {
            segment: self.pushed - 1,
            p,
            smoothed,
            span,
        });
        Ok(out)
    }

    /// There is a gap here, and the next segment will be of another run: gives at once what
    /// [`push`](Self::push) would give only with that segment. Optional; values and events are the same.
    pub fn end_run(&mut self) -> Vec<LocatorOutput> {
        let mut out = Vec::new();
        self.flush(&mut out);
        self.run_ended = self.run.is_some();
        out
    }

    /// After [`end_run`](Self::end_run): no segment will come for longer than the bridge, so the open
    /// event ends here, as it would with the first segment after such a gap.
    pub fn end_event(&mut self) -> Vec<LocatorOutput> {
        let mut out = self.end_run();
        out.extend(self.tracker.interrupted().map(LocatorOutput::from));
        out
    }

    /// There is a gap here up to this time: as [`end_run`](Self::end_run), and the open event ends if the gap is longer
    /// than the bridge, as it would with the first segment after it. That may be long in coming.
    pub fn gap_to(&mut self, to: MediaTime) -> Vec<LocatorOutput> {
        let mut out = self.end_run();
        out.extend(self.tracker.reached(to).map(LocatorOutput::from));
        out
    }

    /// The longest gap inside an event.
    pub fn bridge(&self) -> Duration {
        self.tracker.bridge()
    }

    /// The media ended: the last values and the end of the open event.
    pub fn finish(&mut self) -> Vec<LocatorOutput> {
        let mut out = self.end_run();
        out.extend(self.tracker.finish().map(LocatorOutput::from));
        out
    }

    /// Makes the rest of the run final.
    fn flush(&mut self, out: &mut Vec<LocatorOutput>) {
        while !self.waiting.is_empty() {
            self.finalize_first(out);
        }
        self.window.clear();
    }

    /// Makes the first waiting segment final.
    fn finalize_first(&mut self, out: &mut Vec<LocatorOutput>) {
        let at = self.window.len() - self.waiting.len();
        let Some(span) = self.waiting.pop_front() else {
            return;
        };
        let p = self.window[at];
        let smoothed = self.filter.at(&self.window, at);
        out.push(LocatorOutput::Final {
            segment: self.pushed - 1 - self.waiting.len() as u64,
            p,
            smoothed,
        });
        out.extend(self.tracker.push(&span, smoothed).map(LocatorOutput::from));
        // The next one needs a radius before it.
        if at >= self.filter.radius() {
            self.window.remove(0);
        }
    }
}

fn parts(params: &LocatorParams, segment_seconds: f64) -> Result<(Filter, Tracker)> {
    check_sigma(params.sigma)?;
    if !(0.0..=1.0).contains(&params.threshold) {
        return Err(Error::invalid(format!(
            "the locator's threshold is {}: give 0 to 1",
            params.threshold
        ))
        .with_field("locator.threshold"));
    }
    let bridge = params.event_bridge_s.unwrap_or(segment_seconds);
    if !(bridge.is_finite() && bridge >= 0.0) {
        return Err(Error::invalid(format!(
            "the longest gap inside an event is {bridge} s: give 0 or more"
        ))
        .with_field("locator.event_bridge_s"));
    }
    Ok((
        Filter::new(params.sigma, params.edge),
        Tracker::new(params.threshold, bridge),
    ))
}

fn check_sigma(sigma: f64) -> Result<()> {
    if sigma > 0.0 && sigma <= LOCATOR_SIGMA_MAX {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "the locator's sigma is {sigma} segments: give more than 0, at most {LOCATOR_SIGMA_MAX}"
    ))
    .with_field("locator.sigma"))
}

fn check_probability(segment: u64, p: f64) -> Result<()> {
    if (0.0..=1.0).contains(&p) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "the probability of segment {segment} is {p}: it must be within 0 to 1"
    )))
}
