//! The spans of a call and of its segments.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use opentelemetry_proto::tonic::{
    common::v1::KeyValue,
    trace::v1::{Span, Status, span::SpanKind},
};

use super::{
    Shared,
    context::{Parent, SpanId, TraceId},
    otlp::{attribute, failed, flags},
    stages::{StageTime, Stages},
};
use crate::{
    error::{Error, Kind},
    media::FrameStamp,
    telemetry::metrics::Label as _,
};

/// A call that is traced; what happens in it becomes its children, even after its end.
#[derive(Clone)]
pub struct Call(Arc<CallSpan>);

struct CallSpan {
    shared: Arc<Shared>,
    trace: TraceId,
    id: SpanId,
    /// `tracestate` of the caller.
    state: String,
    about: Mutex<About>,
}

/// What a detection is about.
#[derive(Default)]
struct About {
    /// On its segments too: a camera's call may last for months, and its span is there at its end.
    everywhere: Vec<KeyValue>,
    call: Vec<KeyValue>,
}

impl Call {
    /// Its trace.
    pub fn trace(&self) -> TraceId {
        self.0.trace
    }

    /// It is the detection with this id.
    pub fn session(&self, id: &str) {
        let mut about = self.0.lock();
        about
            .everywhere
            .push(attribute("headhunt.session.id", id.to_owned()));
    }

    /// It detects with this version of this profile, at first.
    pub fn profile(&self, name: &str, version: &str) {
        let mut about = self.0.lock();
        let call = &mut about.call;
        call.push(attribute("headhunt.profile.name", name.to_owned()));
        call.push(attribute("headhunt.profile.version", version.to_owned()));
    }

    /// It watches this, an address without credentials.
    pub fn source(&self, shown: &str) {
        let mut about = self.0.lock();
        about
            .everywhere
            .push(attribute("headhunt.source", shown.to_owned()));
    }

    /// A segment of its media, with its first and last frame, that began with the first of `times`.
    pub fn segment(
        &self,
        number: u64,
        run: u64,
        frames: Option<(FrameStamp, FrameStamp)>,
        times: &[StageTime],
    ) -> TracedSegment {
        let stages = Stages::default();
        for time in times {
            stages.add(*time);
        }
        let mut attributes = self.0.lock().everywhere.clone();
        attributes.push(attribute("headhunt.segment.number", number));
        attributes.push(attribute("headhunt.segment.run", run));
        if let Some((first, last)) = frames {
            attributes.extend([
                attribute("headhunt.segment.first_frame", first.index),
                attribute("headhunt.segment.last_frame", last.index),
                attribute("headhunt.segment.start_s", first.pts.as_secs_f64()),
                attribute("headhunt.segment.end_s", last.end().as_secs_f64()),
            ]);
        }
        TracedSegment {
            call: self.clone(),
            began: Instant::now(),
            stages: Arc::new(stages),
            attributes,
            ended: false,
        }
    }
}

impl CallSpan {
    fn lock(&self) -> std::sync::MutexGuard<'_, About> {
        self.about.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn span(&self, id: SpanId, parent: Option<SpanId>, name: &str) -> Span {
        Span {
            trace_id: self.trace.bytes(),
            span_id: id.bytes(),
            parent_span_id: parent.map(SpanId::bytes).unwrap_or_default(),
            trace_state: self.state.clone(),
            flags: flags(false),
            name: name.to_owned(),
            kind: SpanKind::Internal.into(),
            ..Span::default()
        }
    }
}

/// A call until its end. Dropped without a word it counts as cancelled: its client left.
#[must_use = "a call that is dropped has ended"]
pub struct RunningCall {
    call: Call,
    method: &'static str,
    parent: Option<SpanId>,
    /// Nanoseconds since 1970, since the machine's time may be set during months of a camera.
    began: u64,
    ended: bool,
}

impl RunningCall {
    pub(super) fn begin(
        shared: Arc<Shared>,
        method: &'static str,
        trace: TraceId,
        parent: Option<Parent>,
    ) -> RunningCall {
        let (parent, state) = parent.map_or((None, String::new()), |parent| {
            (Some(parent.span), parent.state)
        });
        shared.clock.follow();
        let began = shared.clock.nanos(Instant::now());
        RunningCall {
            call: Call(Arc::new(CallSpan {
                shared,
                trace,
                id: SpanId::random(),
                state,
                about: Mutex::default(),
            })),
            method,
            parent,
            began,
            ended: false,
        }
    }

    /// For those who do its work.
    pub fn call(&self) -> &Call {
        &self.call
    }

    /// It ended with the gRPC status of this name (`OK`, `NOT_FOUND`); with a message where that is the
    /// server's fault.
    pub fn end(mut self, code: &str, error: Option<&str>) {
        self.give(code, error);
    }

    fn give(&mut self, code: &str, error: Option<&str>) {
        self.ended = true;
        let call = &self.call.0;
        let mut span = call.span(call.id, self.parent, self.method);
        span.kind = SpanKind::Server.into();
        span.flags = flags(self.parent.is_some());
        call.shared.clock.follow();
        span.start_time_unix_nano = self.began;
        span.end_time_unix_nano = call.shared.clock.nanos(Instant::now());
        let mut attributes = vec![
            attribute("rpc.system.name", "grpc".to_owned()),
            attribute("rpc.method", self.method.to_owned()),
            attribute("rpc.response.status_code", code.to_owned()),
        ];
        if code != "OK" {
            attributes.push(attribute("error.type", code.to_owned()));
        }
        {
            let mut about = call.lock();
            attributes.append(&mut about.everywhere.clone());
            attributes.append(&mut about.call);
        }
        span.attributes = attributes;
        span.status = error.map(failed);
        call.shared.give(vec![span]);
    }
}

impl Drop for RunningCall {
    fn drop(&mut self) {
        if !self.ended {
            self.give("CANCELLED", None);
        }
    }
}

/// A segment until it has a score or will have none. Dropped without a word it was abandoned: the detection
/// ended before.
#[must_use = "a segment that is dropped counts as abandoned"]
pub struct TracedSegment {
    call: Call,
    began: Instant,
    stages: Arc<Stages>,
    attributes: Vec<KeyValue>,
    ended: bool,
}

impl TracedSegment {
    /// Where its stages are noted down.
    pub fn stages(&self) -> &Arc<Stages> {
        &self.stages
    }

    /// It got this p.
    pub fn scored(mut self, p: f64) {
        self.attributes.push(attribute("headhunt.segment.p", p));
        self.give("scored", None);
    }

    /// Nothing moved: it repeats the p of the segment with the number `of`.
    pub fn gated(mut self, p: f64, of: u64) {
        self.attributes.extend([
            attribute("headhunt.segment.p", p),
            attribute("headhunt.segment.repeats", of),
        ]);
        self.give("gated", None);
    }

    /// It could not be scored in time.
    pub fn shed(mut self) {
        self.give("shed", None);
    }

    /// It cannot be scored, and ends the detection; abandoned where the caller had left.
    pub fn failed(mut self, error: &Error) {
        if error.kind() == Kind::Cancelled {
            return;
        }
        let kind = error.kind().as_str().to_owned();
        self.attributes.push(attribute("error.type", kind));
        self.give("error", Some(failed(&format!("{error:#}"))));
    }

    fn give(&mut self, outcome: &'static str, status: Option<Status>) {
        self.ended = true;
        let call = &self.call.0;
        let times = self.stages.so_far();
        // After what was noted down, which the engine may still add to: all of it lies before the end.
        let now = Instant::now();
        let began = times.iter().map(|time| time.from).min();
        let began = began.map_or(self.began, |first| first.min(self.began));
        let clock = &call.shared.clock;
        clock.follow();
        let id = SpanId::random();
        let mut segment = call.span(id, Some(call.id), "segment");
        segment.start_time_unix_nano = clock.nanos(began);
        segment.end_time_unix_nano = clock.nanos(now);
        segment.attributes = std::mem::take(&mut self.attributes);
        let said = attribute("headhunt.segment.outcome", outcome.to_owned());
        segment.attributes.push(said);
        segment.status = status;
        let mut spans = Vec::with_capacity(times.len() + 1);
        spans.push(segment);
        for time in times {
            let mut span = call.span(SpanId::random(), Some(id), time.stage.value());
            span.start_time_unix_nano = clock.nanos(time.from);
            span.end_time_unix_nano = clock.nanos(time.to);
            if time.clips > 1 {
                span.attributes = vec![attribute("headhunt.batch.clips", time.clips)];
            }
            spans.push(span);
        }
        call.shared.give(spans);
    }
}

impl Drop for TracedSegment {
    fn drop(&mut self) {
        if !self.ended {
            self.give("abandoned", None);
        }
    }
}
