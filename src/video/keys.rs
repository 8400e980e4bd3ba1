//! Keeps pictures from the decoder that would be damaged: after packets were lost, all those that
//! may refer to what is missing, up to the next key frame. A decoder conceals such damage in
//! silence, and a model would score a picture that the camera never saw.

use std::sync::{Mutex, MutexGuard, PoisonError};

use gstreamer as gst;

use crate::limits::LIVE_KEY_FRAME_WAIT_NANOS;

/// Which encoded pictures may be decoded.
#[derive(Debug)]
pub(crate) struct KeyGate(Mutex<Option<Wait>>);

/// For a key frame.
#[derive(Clone, Copy, Debug)]
struct Wait {
    /// PTS of the first picture that may be damaged, nanoseconds.
    from: i64,
    /// PTS of the last one that may itself have lost packets.
    to: i64,
    /// PTS of the first picture that was dropped.
    since: Option<i64>,
}

impl KeyGate {
    /// Waits for the first key frame of a connection.
    pub(crate) fn new() -> Self {
        KeyGate(Mutex::new(Some(Wait {
            from: i64::MIN,
            to: i64::MIN,
            since: None,
        })))
    }

    /// Packets are missing between pictures with these PTS, both included; say so before anything
    /// that follows them is decoded.
    pub(crate) fn lost(&self, from: i64, to: i64) {
        let mut wait = self.lock();
        *wait = Some(match *wait {
            Some(before) => Wait {
                to: before.to.max(to),
                ..before
            },
            None => Wait {
                from: from.min(to),
                to,
                since: None,
            },
        });
    }

    /// Whether to decode this picture.
    pub(crate) fn admits(&self, buffer: &gst::BufferRef) -> bool {
        let key = !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT);
        let pts = buffer
            .pts()
            .and_then(|pts| i64::try_from(pts.nseconds()).ok());
        pts.is_none_or(|pts| self.admits_at(pts, key))
    }

    fn admits_at(&self, pts: i64, key: bool) -> bool {
        let mut wait = self.lock();
        let Some(waiting) = &mut *wait else {
            return true;
        };
        if pts < waiting.from {
            return true;
        }
        let since = *waiting.since.get_or_insert(pts);
        let patience_is_over = pts.saturating_sub(since) > LIVE_KEY_FRAME_WAIT_NANOS;
        if pts > waiting.to && (key || patience_is_over) {
            *wait = None;
            return true;
        }
        false
    }

    fn lock(&self) -> MutexGuard<'_, Option<Wait>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_begins_with_a_key_frame() {
        let gate = KeyGate::new();
        assert!(!gate.admits_at(0, false));
        assert!(!gate.admits_at(40, false));
        assert!(gate.admits_at(80, true));
        assert!(gate.admits_at(120, false));
    }

    #[test]
    fn after_a_loss_only_whole_pictures_from_a_key_frame_on_are_admitted() {
        let gate = KeyGate::new();
        assert!(gate.admits_at(0, true));
        gate.lost(80, 120);
        assert!(gate.admits_at(40, false), "it was whole before the loss");
        assert!(!gate.admits_at(80, false));
        assert!(
            !gate.admits_at(120, true),
            "this key frame may lack its first packets"
        );
        assert!(!gate.admits_at(160, false));
        gate.lost(200, 240);
        assert!(!gate.admits_at(240, true));
        assert!(gate.admits_at(280, true));
        assert!(gate.admits_at(320, false));
    }

    #[test]
    fn a_camera_without_key_frames_is_decoded_after_a_while() {
        let gate = KeyGate::new();
        assert!(!gate.admits_at(0, false));
        assert!(!gate.admits_at(LIVE_KEY_FRAME_WAIT_NANOS, false));
        assert!(gate.admits_at(LIVE_KEY_FRAME_WAIT_NANOS + 1, false));
    }
}
