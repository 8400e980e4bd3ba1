//! What metrics are told of a detection: the state of its stream, and how its camera fares.

use crate::{
    media::SourceState,
    pipeline::event::{DetectEvent, Stage},
    telemetry::{
        cameras::Camera,
        server::{StreamRunning, StreamState},
    },
};

/// What metrics are told of a detection.
pub(super) struct Told<'a> {
    running: &'a StreamRunning,
    camera: Option<Camera>,
}

impl<'a> Told<'a> {
    /// `camera`: the name of a live source; `series_max` of them have series of their own.
    pub fn begin(running: &'a StreamRunning, camera: Option<&str>, series_max: usize) -> Told<'a> {
        Told {
            running,
            camera: camera.map(|name| Camera::begin(name, series_max)),
        }
    }

    /// Another event, before it is sent.
    pub fn see(&mut self, event: &DetectEvent) {
        match event {
            DetectEvent::Opened(_) | DetectEvent::Source(SourceState::Connected) => {
                self.running.becomes(StreamState::Scoring);
            }
            DetectEvent::Source(SourceState::Interrupted { .. }) => {
                self.running.becomes(StreamState::Interrupted);
            }
            _ => {}
        }
        let Some(camera) = &mut self.camera else {
            return;
        };
        match event {
            DetectEvent::Opened(_) | DetectEvent::Source(SourceState::Connected) => {
                camera.connected();
            }
            DetectEvent::Source(SourceState::Interrupted { reason, .. }) => {
                camera.interrupted(*reason);
            }
            DetectEvent::Scores(scores) if scores.stage == Stage::Final => {
                camera.scored(scores.lag)
            }
            DetectEvent::Gap(gap) => camera.skipped(gap.to.saturating_since(gap.from)),
            _ => {}
        }
    }
}
