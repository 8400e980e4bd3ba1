//! Where a decoder process keeps its pictures: GStreamer memory of a kind that the server maps too, so that no picture
//! has to be copied there.
//!
//! The decoder's element asks its sink what memory to use, and draws in it. libav goes on referring to most of what
//! it gives, so GStreamer has each such picture copied before it is handed on. Here a copy is another reference to the same
//! bytes, which libav reads and does not write any more; and where the decoder takes memory for a new picture while
//! somebody still holds the old one, it gets other bytes to draw in.

mod room;

use std::{
    alloc::{Layout, alloc, dealloc},
    ptr::NonNull,
    sync::Arc,
};

use gstreamer as gst;
use gstreamer::{glib, prelude::*, subclass::prelude::ObjectSubclassIsExt as _};
use gstreamer_video as gst_video;
use memmap2::MmapRaw;

use crate::limits::WORKER_PICTURE_MAX_BYTES;
use room::{Room, Span};

/// What the data of a memory begins at a multiple of, bytes: no decoder asks for more.
const ALIGNMENT: usize = 64;

glib::wrapper! {
    /// Gives the memory of pictures: what another process maps too while there is room and the picture is not large,
    /// and this one's own otherwise.
    pub struct PictureMemory(ObjectSubclass<imp::PictureMemory>) @extends gst::Allocator, gst::Object;
}

impl PictureMemory {
    /// In this map, whose first byte lies at `first` for the other process, bytes. Without a map, in this process's own.
    /// GStreamer has to be running.
    pub(crate) fn new(map: Option<MmapRaw>, first: u64) -> Self {
        let memory: Self = glib::Object::new();
        if let Some(map) = map {
            // It was made just now.
            let _ = memory.imp().room.set(Arc::new(Room::new(map, first)));
        }
        memory
    }

    /// Offers it to the decoder that asks. A decoder of gst-libav takes memory from a pool alone, and from one of its own
    /// where it is offered none.
    pub(crate) fn offer(&self, allocation: &mut gst::query::Allocation) {
        let (caps, _) = allocation.get_owned();
        let info = caps.and_then(|caps| gst_video::VideoInfo::from_caps(&caps).ok());
        let size = info.and_then(|info| u32::try_from(info.size()).ok());
        if let Some(size) = size {
            let pool = gst_video::VideoBufferPool::new();
            allocation.add_allocation_param(Some(self), gst::AllocationParams::default());
            // As many as are needed.
            allocation.add_allocation_pool(Some(&pool), size, 0, 0);
        }
    }
}

/// Where a buffer's bytes lie for the other process, if they do.
pub(crate) fn place(buffer: &gst::BufferRef) -> Option<u64> {
    if buffer.n_memory() != 1 {
        return None;
    }
    let memory = buffer.peek_memory(0);
    memory.allocator()?.downcast_ref::<PictureMemory>()?;
    // SAFETY: memory of this allocator was made by `imp::make`.
    let memory = unsafe { imp::Memory::of(memory.as_ptr().cast_mut()) };
    memory.place()
}

/// Bytes for a picture.
enum Block {
    Shared(Span),
    Own(NonNull<u8>, Layout),
}

// SAFETY: the bytes of its own belong to nobody else, and are freed once; who reads and writes them when is for GStreamer.
unsafe impl Send for Block {}
// SAFETY: as above.
unsafe impl Sync for Block {}

impl Block {
    /// None where there is no memory for it.
    fn new(room: Option<&Arc<Room>>, bytes: usize) -> Option<Self> {
        let shared = room.filter(|_| bytes <= WORKER_PICTURE_MAX_BYTES);
        if let Some(span) = shared.and_then(|room| room.take(bytes)) {
            return Some(Block::Shared(span));
        }
        let layout = Layout::from_size_align(bytes.max(1), ALIGNMENT).ok()?;
        // SAFETY: the layout's size is not zero.
        let own = unsafe { alloc(layout) };
        Some(Block::Own(NonNull::new(own)?, layout))
    }

    fn as_mut_ptr(&self) -> *mut u8 {
        match self {
            Block::Shared(span) => span.as_mut_ptr(),
            Block::Own(own, _) => own.as_ptr(),
        }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if let Block::Own(own, layout) = self {
            // SAFETY: it was allocated with this layout.
            unsafe { dealloc(own.as_ptr(), *layout) }
        }
    }
}

mod imp {
    use std::{
        cell::UnsafeCell,
        ffi::CStr,
        mem::MaybeUninit,
        ptr::null_mut,
        sync::{Mutex, MutexGuard, OnceLock, PoisonError},
    };

    use gst::{ffi, prelude::ObjectType as _, subclass::prelude::*};
    use gstreamer as gst;

    use super::{ALIGNMENT, Arc, Block, Room, glib};

    const KIND: &CStr = c"HeadHuntPictureMemory";

    #[derive(Default)]
    pub struct PictureMemory {
        pub(super) room: OnceLock<Arc<Room>>,
    }

    #[glib::object_subclass]
    impl ObjectSubclass for PictureMemory {
        const NAME: &'static str = "HeadHuntPictureMemory";
        type Type = super::PictureMemory;
        type ParentType = gst::Allocator;

        fn instance_init(object: &glib::subclass::InitializingObject<Self>) {
            let allocator: *mut ffi::GstAllocator = object.as_ptr().cast();
            // SAFETY: it is an allocator, and nobody else has it yet.
            unsafe {
                (*allocator).mem_type = KIND.as_ptr();
                (*allocator).mem_map = Some(map);
                (*allocator).mem_unmap = Some(unmap);
                (*allocator).mem_copy = Some(refer);
                (*allocator).mem_share = Some(refer);
                (*allocator).mem_is_span = Some(is_span);
            }
        }
    }

    impl ObjectImpl for PictureMemory {}
    impl GstObjectImpl for PictureMemory {}

    // SAFETY: what `alloc` gives is a `GstMemory` of this allocator, and `free` frees that alone.
    unsafe impl AllocatorImpl for PictureMemory {
        unsafe fn alloc(&self, size: usize, params: &gst::AllocationParams) -> *mut ffi::GstMemory {
            let all = size
                .checked_add(params.prefix())
                .and_then(|all| all.checked_add(params.padding()));
            let room = self.room.get();
            let Some((all, block)) = all.and_then(|all| Some((all, Block::new(room, all)?))) else {
                return null_mut();
            };
            if params.align() >= ALIGNMENT {
                return null_mut();
            }
            let start = block.as_mut_ptr();
            // SAFETY: the block is `all` bytes long.
            unsafe {
                start.write_bytes(0, params.prefix());
                start
                    .wrapping_add(params.prefix() + size)
                    .write_bytes(0, params.padding());
            }
            let shape = Shape {
                flags: params.flags().bits(),
                whole: all,
                align: params.align(),
                offset: params.prefix(),
                size,
            };
            let allocator: *mut ffi::GstAllocator = self.obj().as_ptr().cast();
            // SAFETY: the allocator is this one.
            unsafe { make(allocator, Arc::new(block), shape, true) }
        }

        unsafe fn free(&self, memory: *mut ffi::GstMemory) {
            // SAFETY: `make` made it, and nobody refers to it any more.
            drop(unsafe { Box::from_raw(memory.cast::<Memory>()) });
        }
    }

    /// A `GstMemory` with what this allocator knows of it.
    #[repr(C)]
    pub struct Memory {
        /// GStreamer counts references in it, whoever looks at the rest.
        base: UnsafeCell<ffi::GstMemory>,
        /// Made by the allocator, for a pool: what is in it does not matter when it is taken anew.
        original: bool,
        held: Mutex<Held>,
    }

    struct Held {
        block: Arc<Block>,
        maps: usize,
    }

    struct Shape {
        flags: ffi::GstMemoryFlags,
        whole: usize,
        align: usize,
        offset: usize,
        size: usize,
    }

    impl Memory {
        /// # Safety
        /// `make` has made it, and it lives as long as it is looked at.
        pub unsafe fn of<'a>(memory: *mut ffi::GstMemory) -> &'a Memory {
            // SAFETY: by the contract.
            unsafe { &*memory.cast::<Memory>() }
        }

        /// Of the whole block, the part that this is, and the allocator: nothing of it changes.
        fn shape(&self) -> (Shape, *mut ffi::GstAllocator) {
            let base = self.base.get();
            // SAFETY: the base lives as long as this, and nobody writes these fields while others refer to it.
            unsafe {
                let shape = Shape {
                    flags: 0,
                    whole: (*base).maxsize,
                    align: (*base).align,
                    offset: (*base).offset,
                    size: (*base).size,
                };
                (shape, (*base).allocator)
            }
        }

        fn held(&self) -> MutexGuard<'_, Held> {
            self.held.lock().unwrap_or_else(PoisonError::into_inner)
        }

        /// Where its first byte lies for the other process, if it does.
        pub fn place(&self) -> Option<u64> {
            match &*self.held().block {
                Block::Shared(span) => span.place().checked_add(self.shape().0.offset as u64),
                Block::Own(..) => None,
            }
        }
    }

    /// # Safety
    /// `allocator` is a [`PictureMemory`], and `shape` is within the block.
    unsafe fn make(
        allocator: *mut ffi::GstAllocator,
        block: Arc<Block>,
        shape: Shape,
        original: bool,
    ) -> *mut ffi::GstMemory {
        let memory = Box::into_raw(Box::new(Memory {
            // SAFETY: plain data that `gst_memory_init` fills.
            base: unsafe { MaybeUninit::zeroed().assume_init() },
            original,
            held: Mutex::new(Held { block, maps: 0 }),
        }));
        let base: *mut ffi::GstMemory = memory.cast();
        // SAFETY: it was allocated just now, and begins with its base.
        unsafe {
            ffi::gst_memory_init(
                base,
                shape.flags,
                allocator,
                null_mut(),
                shape.whole,
                shape.align,
                shape.offset,
                shape.size,
            );
        }
        base
    }

    /// The bytes; others where they are to be drawn in and somebody else refers to them.
    unsafe extern "C" fn map(
        memory: *mut ffi::GstMemory,
        _size: usize,
        flags: ffi::GstMapFlags,
    ) -> glib::ffi::gpointer {
        // SAFETY: GStreamer maps memory of this allocator by this, while it refers to it.
        let memory = unsafe { Memory::of(memory) };
        let mut held = memory.held();
        let draws = flags & ffi::GST_MAP_WRITE != 0;
        // Whoever referred to it last has read what it wanted to.
        if draws && held.maps == 0 && Arc::get_mut(&mut held.block).is_none() {
            let (Shape { whole, .. }, allocator) = memory.shape();
            // SAFETY: an allocator that this made has its type.
            let allocator =
                unsafe { &*allocator.cast::<<PictureMemory as ObjectSubclass>::Instance>() };
            let Some(other) = Block::new(allocator.imp().room.get(), whole) else {
                return null_mut();
            };
            if !memory.original {
                // SAFETY: both are that long, and the other one is nobody else's.
                unsafe {
                    other
                        .as_mut_ptr()
                        .copy_from_nonoverlapping(held.block.as_mut_ptr(), whole);
                }
            }
            held.block = Arc::new(other);
        }
        held.maps += 1;
        held.block.as_mut_ptr().cast()
    }

    unsafe extern "C" fn unmap(memory: *mut ffi::GstMemory) {
        // SAFETY: as for `map`.
        let memory = unsafe { Memory::of(memory) };
        let mut held = memory.held();
        held.maps = held.maps.saturating_sub(1);
    }

    /// A part of a memory's bytes as a memory of its own.
    unsafe extern "C" fn refer(
        memory: *mut ffi::GstMemory,
        offset: isize,
        size: isize,
    ) -> *mut ffi::GstMemory {
        // SAFETY: as for `map`.
        let memory = unsafe { Memory::of(memory) };
        let (of, allocator) = memory.shape();
        // Before what is seen of it there may be a prefix.
        let Some(first) = of.offset.checked_add_signed(offset) else {
            return null_mut();
        };
        // -1: to its end.
        let size =
            usize::try_from(size).unwrap_or_else(|_| (of.offset + of.size).saturating_sub(first));
        if first.checked_add(size).is_none_or(|end| end > of.whole) {
            return null_mut();
        }
        let shape = Shape {
            offset: first,
            size,
            ..of
        };
        let block = Arc::clone(&memory.held().block);
        // SAFETY: the allocator is the memory's.
        unsafe { make(allocator, block, shape, false) }
    }

    unsafe extern "C" fn is_span(
        _one: *mut ffi::GstMemory,
        _other: *mut ffi::GstMemory,
        _offset: *mut usize,
    ) -> glib::ffi::gboolean {
        glib::ffi::GFALSE
    }
}

#[cfg(test)]
mod tests;
