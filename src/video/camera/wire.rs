//! What happens to packets behind the payloader: some are lost, and the description may lie.

use gstreamer as gst;
use gstreamer::prelude::*;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::PacketLoss;

/// Loses packets that leave this pad.
pub(super) fn lose(pad: &gst::Pad, loss: PacketLoss) {
    let mut rng = ChaCha8Rng::seed_from_u64(loss.seed);
    // Only the streaming thread passes here; the type of a probe cannot know.
    let rng = std::sync::Mutex::new(move || rng.random_bool(loss.probability));
    let mask = gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST;
    pad.add_probe(mask, move |_, info| {
        let mut lost = rng
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        match &mut info.data {
            Some(gst::PadProbeData::Buffer(_)) if lost() => gst::PadProbeReturn::Drop,
            Some(gst::PadProbeData::BufferList(list)) => {
                let list = list.make_mut();
                let mut at = 0;
                while at < list.len() {
                    if lost() {
                        list.remove(at..=at);
                    } else {
                        at += 1;
                    }
                }
                match list.is_empty() {
                    true => gst::PadProbeReturn::Drop,
                    false => gst::PadProbeReturn::Ok,
                }
            }
            _ => gst::PadProbeReturn::Ok,
        }
    });
}

/// Has the session description claim `rate` frames per second.
pub(super) fn claim(pad: &gst::Pad, rate: f64) {
    pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
        if let Some(event) = info.event_mut()
            && let gst::EventView::Caps(caps) = event.view()
        {
            let mut caps = caps.caps_owned();
            let caps = caps.make_mut();
            // `a-NAME` becomes the attribute NAME.
            caps.set("a-framerate", rate.to_string());
            *event = gst::event::Caps::builder(&caps.to_owned())
                .seqnum(event.seqnum())
                .build();
        }
        gst::PadProbeReturn::Ok
    });
}
