//! An upload that is stored while it is decoded: random access to what has arrived, and a reader
//! that asks for more than that waits.
//!
//! A fast-start MP4 is read this way. Without random access, GStreamer's demuxer ignores the edit
//! list and cuts the last reordered frames off; with it, an upload gives the frames of the file.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gstreamer as gst;
use gstreamer_app as gst_app;

use super::spool::Spool;
use crate::error::Result;

pub(crate) struct Reservoir {
    inner: Mutex<Inner>,
}

struct Inner {
    spool: Spool,
    /// Nothing more will arrive.
    ended: bool,
    /// Where the reader stands, bytes.
    offset: u64,
    /// What the reader waits for, bytes.
    wanted: Option<u32>,
    /// Where the MP4's index ends, bytes.
    index_end: u64,
    /// The reader still looks for an index, from box to box.
    scanning: bool,
}

/// Boxes of fragmented files that stand between the index and the first fragment.
const BOXES_ASIDE: [&[u8; 4]; 9] = [
    b"sidx", b"ssix", b"styp", b"emsg", b"prft", b"uuid", b"free", b"skip", b"meta",
];

/// Bytes of a box header, as the demuxer reads it.
const BOX_HEAD_BYTES: u32 = 16;

impl Reservoir {
    pub(crate) fn new(spool: Spool, index_end: u64) -> Arc<Self> {
        Arc::new(Reservoir {
            inner: Mutex::new(Inner {
                spool,
                ended: false,
                offset: 0,
                wanted: None,
                index_end,
                scanning: true,
            }),
        })
    }

    /// Answers what `src` asks for: at once if it has arrived, else from [`Reservoir::append`].
    pub(crate) fn serve(self: &Arc<Self>, src: &gst_app::AppSrc) {
        src.set_stream_type(gst_app::AppStreamType::RandomAccess);
        let (reader, seeker) = (Arc::clone(self), Arc::clone(self));
        src.set_callbacks(
            gst_app::AppSrcCallbacks::builder()
                .need_data(move |src, length| {
                    let mut inner = reader.lock();
                    inner.wanted = Some(length);

                    inner.answer(src);
                })
                .seek_data(move |_, offset| {
                    let mut inner = seeker.lock();
                    inner.offset = offset;
                    inner.wanted = None;
                    true
                })
                .build(),
        );
    }

    /// Bytes that have arrived past the reader; zero if it waits for more.
    pub(crate) fn ahead(&self) -> u64 {
        let inner = self.lock();
        if inner.wanted.is_some() {
            return 0;
        }
        inner.spool.len().saturating_sub(inner.offset)
    }

    /// Stores what has arrived.
    pub(crate) fn append(&self, src: &gst_app::AppSrc, bytes: &[u8]) -> Result<()> {
        let mut inner = self.lock();
        inner.spool.write(bytes)?;
        inner.answer(src);
        Ok(())
    }

    /// Nothing more will arrive.
    pub(crate) fn end(&self, src: &gst_app::AppSrc) {
        let mut inner = self.lock();
        inner.ended = true;
        inner.answer(src);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Whether the reader takes a box of so many bytes whole that is neither media nor tells where media lies: it goes on
    /// to the next one behind it.
    fn is_aside(&self, bytes: u32) -> bool {
        let head = self.spool.read(self.offset, 8).unwrap_or_default();
        let (size, kind) = head.split_at_checked(4).unwrap_or_default();
        size == bytes.to_be_bytes() && BOXES_ASIDE.iter().any(|name| kind == *name)
    }

    fn answer(&mut self, src: &gst_app::AppSrc) {
        let Some(wanted) = self.wanted else { return };
        let mut there = self.spool.len().saturating_sub(self.offset);
        let past_index = self.offset >= self.index_end;
        if past_index && wanted > BOX_HEAD_BYTES && !self.is_aside(wanted) {
            self.scanning = false;
        }
        if there < u64::from(wanted) && !self.ended {
            if !(past_index && self.scanning) || wanted > BOX_HEAD_BYTES {
                return;
            }
            // The demuxer goes on to the last box before it reads the first frame. It has the
            // index: for all it needs, the file may end here.
            there = 0;
        }
        let length = there.min(u64::from(wanted));
        self.wanted = None;
        let outcome = if length == 0 {
            src.end_of_stream()
        } else {
            let bytes = match self.spool.read(self.offset, length) {
                Ok(bytes) => bytes,
                Err(error) => {
                    tracing::error!(%error, "a stored upload cannot be read back");
                    // The demuxer reports a short input.
                    let _ = src.end_of_stream();
                    return;
                }
            };
            let mut buffer = gst::Buffer::from_slice(bytes);
            if let Some(buffer) = buffer.get_mut() {
                buffer.set_offset(self.offset);
            }
            self.offset += length;
            src.push_buffer(buffer)
        };
        if let Err(flow) = outcome {
            tracing::debug!(?flow, "the pipeline no longer reads its input");
        }
    }
}
