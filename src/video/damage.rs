//! Damage that a demuxer only writes to its log.
//!
//! matroskademux skips what it cannot read up to the next cluster without a word to the pipeline:
//! no message, no flag on the buffers. Its log line is the only sign, and it is written on the
//! thread that feeds the decoder, so a thread-local says whose it is. GStreamer's log goes to
//! `tracing` instead of standard error.

use std::{
    cell::RefCell,
    sync::{Arc, Once, Weak},
};

use gstreamer as gst;

use super::{graph::Shared, sniff::Container};

thread_local! {
    static FED: RefCell<Weak<Shared>> = const { RefCell::new(Weak::new()) };
}

const MATROSKA: &str = "matroskademux";

/// Makes the demuxer of this container log its damage. Its plugin is loaded.
pub(crate) fn listen(container: Container) {
    if !matches!(container, Container::Matroska | Container::WebM) {
        return;
    }
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        gst::log::remove_default_log_function();
        gst::log::add_log_function(|category, level, _, function, line, _, message| {
            let text = message.get();
            let text = text.as_ref().map_or("", |t| t.as_str());
            if category.name() == MATROSKA && text.starts_with("parse error") {
                FED.with_borrow(|fed| {
                    if let Some(shared) = fed.upgrade() {
                        shared.state().ledger.damaged();
                    }
                });
            }
            tracing::trace!(target: "gstreamer", %level, category = category.name(), %function, line, "{text}");
        });
        if let Some(category) = gst::log::DebugCategory::get(MATROSKA) {
            category.set_threshold(gst::DebugLevel::Warning);
        }
    });
}

/// Log lines of this thread belong to this pipeline from now on.
pub(crate) fn this_thread_feeds(shared: &Arc<Shared>) {
    FED.with_borrow_mut(|fed| {
        if !std::ptr::eq(fed.as_ptr(), Arc::as_ptr(shared)) {
            *fed = Arc::downgrade(shared);
        }
    });
}
