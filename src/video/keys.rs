//! Keeps pictures from the decoder that would be damaged: after packets were lost, all those that
//! may refer to what is missing, up to the next key frame. A decoder conceals such damage in
//! silence, and a model would score a picture that the camera never saw.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use gstreamer as gst;

use crate::limits::{LIVE_KEY_FRAME_WAIT_NANOS, PENDING_MAX_FRAMES};

/// Which encoded pictures may be decoded.
#[derive(Debug)]
pub(crate) struct KeyGate(Mutex<Gate>);

#[derive(Debug, Default)]
struct Gate {
    waiting: Option<Wait>,
    /// Losses that the decoder has not come to: PTS of the first and of the last picture that may
    /// lack packets, nanoseconds.
    ahead: VecDeque<(i64, i64)>,
}

/// For a key frame.
#[derive(Clone, Copy, Debug)]
struct Wait {
    /// PTS of the last picture that may itself lack packets.
    to: i64,
    /// PTS of the first picture that was dropped.
    since: Option<i64>,
}

/// PTS of the first and the last picture that may lack packets, where some are missing between those of one picture, which
/// had all of its own or not, and those of the next one. Pictures come in the order in which they are decoded, so the next
/// may be shown earlier.
pub(crate) fn lacking(before: i64, whole: bool, next: i64) -> (i64, i64) {
    if whole {
        (next.min(before.saturating_add(1)), next)
    } else {
        (next.min(before), next.max(before))
    }
}

impl KeyGate {
    /// Waits for the first key frame of a connection.
    pub(crate) fn new() -> Self {
        KeyGate(Mutex::new(Gate {
            waiting: Some(Wait {
                to: i64::MIN,
                since: None,
            }),
            ahead: VecDeque::new(),
        }))
    }

    /// Packets are missing between pictures with these PTS, both included; say so before anything
    /// that follows them is decoded.
    pub(crate) fn lost(&self, from: i64, to: i64) {
        let mut gate = self.lock();
        let full = gate.ahead.len() >= PENDING_MAX_FRAMES;
        match gate.ahead.back_mut() {
            // Where losses touch, and past the bound, they are one.
            Some(last) if full || from <= last.1 => last.1 = last.1.max(to),
            _ => gate.ahead.push_back((from.min(to), to)),
        }
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
        let mut gate = self.lock();
        while let Some((_, to)) = gate.ahead.pop_front_if(|(from, _)| *from <= pts) {
            let before = gate.waiting.take();
            gate.waiting = Some(Wait {
                to: before.map_or(to, |before| before.to.max(to)),
                since: before.and_then(|before| before.since),
            });
        }
        let Some(waiting) = &mut gate.waiting else {
            return true;
        };
        let since = *waiting.since.get_or_insert(pts);
        let patience_is_over = pts.saturating_sub(since) > LIVE_KEY_FRAME_WAIT_NANOS;
        if pts > waiting.to && (key || patience_is_over) {
            gate.waiting = None;
            return true;
        }
        false
    }

    fn lock(&self) -> MutexGuard<'_, Gate> {
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
    fn a_key_frame_without_its_end_is_dropped_though_the_next_picture_is_shown_before_it() {
        let gate = KeyGate::new();
        assert!(gate.admits_at(0, true));
        let (from, to) = lacking(120, false, 40);
        gate.lost(from, to);
        assert!(!gate.admits_at(120, true), "its end is missing");
        assert!(!gate.admits_at(40, false) && !gate.admits_at(160, false));
        assert!(gate.admits_at(200, true));
        assert_eq!(lacking(120, true, 40), (40, 40), "it is whole");
        assert_eq!(lacking(40, true, 120), (41, 120));
        assert_eq!(lacking(40, false, 120), (40, 120));
    }

    #[test]
    fn a_loss_ahead_of_the_decoder_leaves_what_is_before_it_alone() {
        let gate = KeyGate::new();
        gate.lost(80, 120);
        assert!(gate.admits_at(0, true));
        assert!(gate.admits_at(40, false));
        assert!(!gate.admits_at(80, true));
        for n in 0..2 * PENDING_MAX_FRAMES as i64 {
            gate.lost(1000 * n + 1000, 1000 * n + 1001);
        }
        assert!(gate.lock().ahead.len() <= PENDING_MAX_FRAMES);
    }

    #[test]
    fn a_camera_without_key_frames_is_decoded_after_a_while() {
        let gate = KeyGate::new();
        assert!(!gate.admits_at(0, false));
        assert!(!gate.admits_at(LIVE_KEY_FRAME_WAIT_NANOS, false));
        assert!(gate.admits_at(LIVE_KEY_FRAME_WAIT_NANOS + 1, false));
    }
}
