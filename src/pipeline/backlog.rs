//! What the decode thread has given and the engine has not yet taken, in media order. For a live
//! stream it is bounded by dropping the oldest segment: late results are worth less than new ones.

use std::collections::VecDeque;

use tokio::time::Instant;

use super::prepare::PreparedSegment;
use crate::{
    limits::{BACKLOG_ENTRIES_MAX, LIVE_BACKLOG_SEGMENTS},
    media::{FrameStamp, Gap, GapReason, SourceState},
    telemetry::traces::TracedSegment,
};

/// Segments that were dropped one after the other, as one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Shed {
    /// Its first frame.
    pub first: FrameStamp,
    /// Its last one.
    pub last: FrameStamp,
    /// How many.
    pub frames: u64,
    /// Of how many segments.
    pub segments: u64,
}

impl Shed {
    /// A segment of these frames; `None` where it has none.
    pub fn of(frames: &[FrameStamp]) -> Option<Shed> {
        Some(Shed {
            first: *frames.first()?,
            last: *frames.last()?,
            frames: frames.len() as u64,
            segments: 1,
        })
    }

    fn join(&mut self, next: Shed) {
        self.last = next.last;
        self.frames = self.frames.saturating_add(next.frames);
        self.segments = self.segments.saturating_add(next.segments);
    }

    /// What is told of it.
    pub fn gap(&self) -> Gap {
        Gap {
            from: self.first.pts,
            to: self.last.end(),
            reason: GapReason::LoadShed,
            frames_lost: self.frames,
            detail: format!(
                "{} segments could not be scored in time: the model is busy, or finds no memory",
                self.segments
            ),
        }
    }
}

/// The arrival of a segment.
pub(super) struct Came {
    pub at: Instant,
    /// Where it is traced.
    pub span: Option<TracedSegment>,
}

/// One thing in media order.
pub(super) enum Waiting {
    Segment(Box<PreparedSegment>, Came),
    Shed(Shed),
    Gap(Gap),
    Source(SourceState),
}

impl Waiting {
    /// A segment that repeats a score costs nothing and holds no pixels: it is neither counted nor
    /// dropped.
    fn is_for_the_model(&self) -> bool {
        matches!(self, Waiting::Segment(segment, _) if segment.repeats.is_none())
    }
}

/// The queue.
#[derive(Default)]
pub(super) struct Backlog {
    waiting: VecDeque<Waiting>,
    /// Those for the model.
    segments: usize,
}

impl Backlog {
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether there is room for one more thing: gaps without end must not fill the memory either.
    pub fn has_room(&self) -> bool {
        self.waiting.len() < BACKLOG_ENTRIES_MAX
    }

    pub fn push(&mut self, entry: Waiting) {
        self.segments += usize::from(entry.is_for_the_model());
        self.waiting.push_back(entry);
    }

    pub fn pop(&mut self) -> Option<Waiting> {
        let entry = self.waiting.pop_front()?;
        self.segments -= usize::from(entry.is_for_the_model());
        Some(entry)
    }

    pub fn clear(&mut self) {
        *self = Backlog::default();
    }

    /// Drops the oldest segments beyond the bound of a live stream; they stay as what was dropped.
    pub fn shed(&mut self) {
        while self.segments > LIVE_BACKLOG_SEGMENTS {
            let oldest = self.waiting.iter().position(Waiting::is_for_the_model);
            let Some(at) = oldest else { return };
            self.segments -= 1;
            let shed = match &mut self.waiting[at] {
                Waiting::Segment(segment, came) => {
                    if let Some(span) = came.span.take() {
                        span.shed();
                    }
                    Shed::of(&segment.frames)
                }
                _ => None,
            };
            let Some(shed) = shed else {
                self.waiting.remove(at);
                continue;
            };
            if at > 0
                && let Some(Waiting::Shed(before)) = self.waiting.get_mut(at - 1)
            {
                before.join(shed);
                self.waiting.remove(at);
            } else {
                self.waiting[at] = Waiting::Shed(shed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        engine::probe::Clip,
        media::MediaTime,
        pipeline::prepare::Received,
        telemetry::{metrics::Stage, traces::StageTime},
    };

    fn segment(number: u64) -> Waiting {
        let frames = (2 * number..2 * number + 2)
            .map(|index| FrameStamp {
                index,
                pts: MediaTime::from_nanos(index as i64 * 100),
                duration: Duration::from_nanos(100),
            })
            .collect();
        let now = Instant::now();
        let stage = |stage| StageTime::new(stage, now.into_std(), now.into_std());
        Waiting::Segment(
            Box::new(PreparedSegment {
                number,
                run: 0,
                frames,
                clip: Clip { frames: vec![] },
                repeats: None,
                snapshot: None,
                received: Received::default(),
                stages: [Stage::Decode, Stage::Preprocess].map(stage),
            }),
            Came {
                at: now,
                span: None,
            },
        )
    }

    fn shown(backlog: &mut Backlog) -> Vec<String> {
        std::iter::from_fn(|| backlog.pop())
            .map(|entry| match entry {
                Waiting::Segment(segment, _) => format!("s{}", segment.number),
                Waiting::Shed(shed) => format!(
                    "x{}..{}/{}",
                    shed.first.index, shed.last.index, shed.segments
                ),
                Waiting::Gap(_) => "gap".into(),
                Waiting::Source(_) => "source".into(),
            })
            .collect()
    }

    #[test]
    fn the_oldest_are_dropped_and_joined_and_the_order_stays() {
        let mut backlog = Backlog::default();
        for number in 0..2 {
            backlog.push(segment(number));
            backlog.shed();
        }
        backlog.push(Waiting::Source(SourceState::Connected));
        for number in 2..5 {
            backlog.push(segment(number));
            backlog.shed();
        }
        assert_eq!(
            shown(&mut backlog),
            ["x0..3/2", "source", "x4..5/1", "s3", "s4"]
        );
        assert!(backlog.is_empty());
    }

    #[test]
    fn segments_that_repeat_a_score_are_neither_counted_nor_dropped() {
        let mut backlog = Backlog::default();
        backlog.push(segment(0));
        for number in 1..9 {
            let mut gated = segment(number);
            if let Waiting::Segment(gated, _) = &mut gated {
                gated.repeats = Some(0);
            }
            backlog.push(gated);
            backlog.shed();
        }
        backlog.push(segment(9));
        backlog.shed();
        assert_eq!(backlog.waiting.len(), 10);
        backlog.push(segment(10));
        backlog.shed();
        let shown = shown(&mut backlog);
        assert_eq!((shown[0].as_str(), shown[1].as_str()), ("x0..1/1", "s1"));
        assert_eq!(shown.len(), 11);
    }

    #[test]
    fn a_shed_run_is_a_gap_over_all_of_its_frames() {
        let mut backlog = Backlog::default();
        for number in 0..5 {
            backlog.push(segment(number));
        }
        backlog.shed();
        let Some(Waiting::Shed(shed)) = backlog.pop() else {
            panic!("nothing was shed");
        };
        let gap = shed.gap();
        assert_eq!((gap.from.as_nanos(), gap.to.as_nanos()), (0, 600));
        assert_eq!((gap.frames_lost, gap.reason), (6, GapReason::LoadShed));
    }

    #[test]
    fn entries_are_bounded() {
        let mut backlog = Backlog::default();
        while backlog.has_room() {
            backlog.push(Waiting::Source(SourceState::Connected));
        }
        assert_eq!(shown(&mut backlog).len(), BACKLOG_ENTRIES_MAX);
    }
}
