use gst::AllocationParams;
use memmap2::MmapOptions;

use super::*;

const FIRST: u64 = 1 << 20;

fn memory(bytes: usize) -> PictureMemory {
    crate::video::init().unwrap();
    let map = MmapOptions::new().len(bytes).map_anon().unwrap();
    PictureMemory::new(Some(MmapRaw::from(map)), FIRST)
}

fn buffer(memory: gst::Memory) -> gst::Buffer {
    let mut buffer = gst::Buffer::new();
    buffer.get_mut().unwrap().append_memory(memory);
    buffer
}

#[test]
fn a_copy_is_the_same_bytes_until_one_of_them_is_drawn_in_anew() {
    let kind = memory(1 << 20);
    let mut original = kind.alloc(5000, None).unwrap();
    let draw = |memory: &mut gst::Memory, level| {
        let mut map = memory.get_mut().unwrap().map_writable().unwrap();
        map.fill(level);
    };
    draw(&mut original, 1);
    let mut copy = original.copy();
    let part = original.share(1000..3000);
    let all = |memory: &gst::Memory, bytes: usize, level| {
        let map = memory.map_readable().unwrap();
        map.len() == bytes && map.iter().all(|byte| *byte == level)
    };
    assert!(all(&copy, 5000, 1) && all(&part, 2000, 1));
    let at = |memory: &gst::Memory| place(&buffer(memory.clone())).unwrap();
    assert_eq!(at(&original), FIRST);
    assert_eq!((at(&copy), at(&part)), (FIRST, FIRST + 1000));
    // As a pool's buffer is, while its last picture is still held.
    draw(&mut original, 2);
    assert!(all(&original, 5000, 2) && all(&copy, 5000, 1) && all(&part, 2000, 1));
    assert_eq!((at(&original), at(&copy)), (FIRST + 8192, FIRST));
    // What is in a copy counts.
    {
        let mut map = copy.get_mut().unwrap().map_writable().unwrap();
        assert!(map.iter().all(|byte| *byte == 1));
        map[0] = 3;
    }
    assert!(all(&part, 2000, 1) && at(&part) == FIRST + 1000);
    drop(part);
    drop(copy);
    assert_eq!(
        at(&kind.alloc(1, None).unwrap()),
        FIRST,
        "its place is free"
    );
}

#[test]
fn memory_that_is_mapped_stays_where_it_is() {
    let kind = memory(1 << 20);
    let original = kind.alloc(100, None).unwrap();
    let raw = original.as_ptr().cast_mut();
    let map = |flags| {
        let mut info = std::mem::MaybeUninit::uninit();
        // SAFETY: the memory lives, and the map is given back below.
        unsafe {
            assert_ne!(gst::ffi::gst_memory_map(raw, info.as_mut_ptr(), flags), 0);
            info.assume_init()
        }
    };
    let both = gst::ffi::GST_MAP_READ | gst::ffi::GST_MAP_WRITE;
    // As libav has it, while it goes on referring to it.
    let mut first = map(both);
    let copy = original.copy();
    let mut second = map(both);
    assert_eq!(first.data, second.data);
    for info in [&mut first, &mut second] {
        // SAFETY: it was mapped above.
        unsafe { gst::ffi::gst_memory_unmap(raw, info) };
    }
    let mut third = map(both);
    assert_ne!(first.data, third.data);
    // SAFETY: as above.
    unsafe { gst::ffi::gst_memory_unmap(raw, &mut third) };
    drop(copy);
}

#[test]
fn what_has_no_room_lies_in_this_process_alone() {
    let kind = memory(8192);
    let large = kind.alloc(WORKER_PICTURE_MAX_BYTES + 1, None).unwrap();
    assert_eq!(place(&buffer(large)), None);
    let first = buffer(kind.alloc(8000, None).unwrap());
    assert_eq!(place(&first), Some(FIRST));
    let mut second = kind.alloc(8000, None).unwrap();
    second.get_mut().unwrap().map_writable().unwrap().fill(7);
    assert!(
        second
            .copy()
            .map_readable()
            .unwrap()
            .iter()
            .all(|b| *b == 7)
    );
    assert_eq!(place(&buffer(second)), None);
    drop(first);
    assert!(place(&buffer(kind.alloc(8000, None).unwrap())).is_some());
    let without = PictureMemory::new(None, FIRST);
    assert_eq!(place(&buffer(without.alloc(10, None).unwrap())), None);
    // GStreamer's own.
    assert_eq!(place(&gst::Buffer::with_size(10).unwrap()), None);
}

#[test]
fn prefixes_and_padding_are_there_and_alignments_kept() {
    let kind = memory(1 << 20);
    let params = AllocationParams::new(gst::MemoryFlags::empty(), 63, 32, 16);
    let mut made = kind.alloc(100, Some(&params)).unwrap();
    let sizes = made.get_mut().unwrap();
    assert_eq!(
        (sizes.size(), sizes.offset(), sizes.maxsize()),
        (100, 32, 148)
    );
    assert_eq!(place(&buffer(made)), Some(FIRST + 32));
    let coarse = AllocationParams::new(gst::MemoryFlags::empty(), 4095, 0, 0);
    assert!(kind.alloc(100, Some(&coarse)).is_err());
    assert!(kind.alloc(usize::MAX - 10, Some(&params)).is_err());
}
