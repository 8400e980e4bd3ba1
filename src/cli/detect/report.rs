//! What `headhunt detect` says about one video: the stable JSON object, or a table.

use std::{
    io::{self, Write},
    path::Path,
    time::Duration,
};

use serde::Serialize;

use crate::pipeline::event::{DetectEvent, SegmentScores, Stage};

/// One video's scores and events. Its JSON form is stable; keys may be added, none is renamed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// As it was given.
    pub video: String,
    /// Measured: frames by the time that they are shown, without gaps, rounded to 1e-6 (durations
    /// are whole nanoseconds, so 30 fps would read 30.0000003). The declared rate where the frames
    /// have no duration; 0 where there is none either.
    pub fps: f64,
    /// Decoded frames.
    pub frames: u64,
    /// In media order.
    pub segments: Vec<Segment>,
    /// In media order.
    pub events: Vec<Event>,
    /// Parts without scores; the key is there only where there are any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gaps: Vec<Gap>,
    #[serde(skip)]
    shown: Duration,
    #[serde(skip)]
    declared_fps: Option<f64>,
}

/// One segment's scores.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Segment {
    /// Index of the first decoded frame.
    pub first_frame: u64,
    /// Decoded frames.
    pub frames: u64,
    /// PTS of the first frame, seconds.
    pub start_s: f64,
    /// PTS + duration of the last frame, seconds.
    pub end_s: f64,
    /// p.
    pub probability: f64,
    /// p′.
    pub smoothed: f64,
}

/// One event.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Event {
    /// PTS of the first frame, seconds.
    pub start_s: f64,
    /// PTS + duration of the last frame, seconds.
    pub end_s: f64,
    /// Index of the first frame.
    pub first_frame: u64,
    /// Index of the last frame, inclusive.
    pub last_frame: u64,
    /// Largest p′.
    pub peak: f64,
    /// Mean p′.
    pub mean: f64,
}

/// A part without scores.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Gap {
    /// End of the last good frame, seconds.
    pub start_s: f64,
    /// Start of the next good frame, seconds.
    pub end_s: f64,
    /// Why.
    pub reason: &'static str,
    /// Frames lost, as far as it can be known.
    pub frames_lost: u64,
    /// What happened.
    pub detail: String,
}

impl Report {
    /// A report without anything in it yet.
    pub fn new(video: &Path) -> Self {
        Report {
            video: video.display().to_string(),
            fps: 0.0,
            frames: 0,
            segments: Vec::new(),
            events: Vec::new(),
            gaps: Vec::new(),
            shown: Duration::ZERO,
            declared_fps: None,
        }
    }

    /// Takes a detection's events in their order.
    pub fn take(&mut self, event: DetectEvent) {
        match event {
            DetectEvent::Opened(info) => self.declared_fps = info.declared_fps,
            DetectEvent::Scores(scores) if scores.stage == Stage::Final => self.segment(&scores),
            DetectEvent::EventEnded(event, ..) => self.events.push(Event {
                start_s: event.start.as_secs_f64(),
                end_s: event.end.as_secs_f64(),
                first_frame: event.first_frame,
                last_frame: event.last_frame,
                peak: event.peak,
                mean: event.mean,
            }),
            DetectEvent::Gap(gap) => self.gaps.push(Gap {
                start_s: gap.from.as_secs_f64(),
                end_s: gap.to.as_secs_f64(),
                reason: gap.reason.as_str(),
                frames_lost: gap.frames_lost,
                detail: gap.detail,
            }),
            DetectEvent::Summary(summary) => {
                self.frames = summary.frames;
                self.fps = if self.shown.is_zero() {
                    self.declared_fps.unwrap_or(0.0)
                } else {
                    let measured = summary.frames as f64 / self.shown.as_secs_f64();
                    (measured * 1e6).round() / 1e6
                };
            }
            DetectEvent::Scores(_)
            | DetectEvent::EventStarted(_)
            | DetectEvent::EventUpdated(_)
            | DetectEvent::Source(_)
            | DetectEvent::ProfileChanged { .. } => {}
        }
    }

    fn segment(&mut self, scores: &SegmentScores) {
        let (Some(first), Some(last)) = (scores.frames.first(), scores.frames.last()) else {
            return;
        };
        self.shown += scores
            .frames
            .iter()
            .map(|frame| frame.duration)
            .sum::<Duration>();
        self.segments.push(Segment {
            first_frame: first.index,
            frames: scores.frames.len() as u64,
            start_s: first.pts.as_secs_f64(),
            end_s: last.end().as_secs_f64(),
            probability: scores.probability,
            smoothed: scores.smoothed,
        });
    }

    /// Writes one line of JSON, or a table.
    pub fn write(&self, json: bool, out: &mut dyn Write) -> io::Result<()> {
        if json {
            serde_json::to_writer(&mut *out, self)?;
            writeln!(out)?;
        } else {
            self.write_table(out)?;
        }
        out.flush()
    }

    fn write_table(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(
            out,
            "{}: {} frames at {:.3} fps, {} segments, {} events",
            self.video,
            self.frames,
            self.fps,
            self.segments.len(),
            self.events.len()
        )?;
        writeln!(
            out,
            "  {:>7}  {:>17}  {:>21}  {:>6}  {:>6}",
            "segment", "frames", "seconds", "p", "p'"
        )?;
        for (number, s) in self.segments.iter().enumerate() {
            let last = s.first_frame + s.frames.saturating_sub(1);
            writeln!(
                out,
                "  {number:>7}  {:>17}  {:>21}  {:>6.4}  {:>6.4}",
                format!("{}-{last}", s.first_frame),
                format!("{:.3}-{:.3}", s.start_s, s.end_s),
                s.probability,
                s.smoothed
            )?;
        }
        if !self.events.is_empty() {
            writeln!(
                out,
                "  {:>7}  {:>17}  {:>21}  {:>6}  {:>6}",
                "event", "frames", "seconds", "peak", "mean"
            )?;
        }
        for (number, e) in self.events.iter().enumerate() {
            writeln!(
                out,
                "  {number:>7}  {:>17}  {:>21}  {:>6.4}  {:>6.4}",
                format!("{}-{}", e.first_frame, e.last_frame),
                format!("{:.3}-{:.3}", e.start_s, e.end_s),
                e.peak,
                e.mean
            )?;
        }
        for gap in &self.gaps {
            writeln!(
                out,
                "  gap {:.3}-{:.3} s, {}: about {} frames without scores ({})",
                gap.start_s, gap.end_s, gap.reason, gap.frames_lost, gap.detail
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
