//! The order of an MP4's top-level boxes: can it be decoded while it arrives, and is its index
//! there at all? Pure but for reading.

use std::{
    fs::File,
    io::{Read as _, Seek as _, SeekFrom},
};

use crate::{
    error::{Error, Result},
    limits::MP4_MAX_BOXES,
};

/// Where the index (`moov`) stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// Before the media: decoding can begin at once.
    IndexFirst {
        /// The media comes in fragments, each with an index of its own. The duration that the
        /// first index declares is no bound then.
        fragmented: bool,
    },
    /// After the media, or not there: the whole file is needed.
    IndexLast,
}

struct BoxHead {
    kind: [u8; 4],
    /// This header, bytes.
    length: u64,
    /// Whole box, bytes; `None` if it lasts to the end of the file.
    size: Option<u64>,
}

/// Bytes of the longest box header.
const HEAD_BYTES: usize = 16;

/// The header at the start of `bytes`; `None` if they are too few.
fn head(bytes: &[u8]) -> Option<Result<BoxHead>> {
    let size = u32::from_be_bytes(bytes.get(..4)?.try_into().ok()?);
    let kind: [u8; 4] = bytes.get(4..8)?.try_into().ok()?;
    let (size, length) = match size {
        0 => (None, 8),
        1 => (
            Some(u64::from_be_bytes(bytes.get(8..16)?.try_into().ok()?)),
            16,
        ),
        n => (Some(u64::from(n)), 8),
    };
    if size.is_some_and(|s| s < length) {
        return Some(Err(Error::invalid(format!(
            "damaged MP4: the box `{}` declares {} bytes",
            kind.escape_ascii(),
            size.unwrap_or(0)
        ))));
    }
    Some(Ok(BoxHead { kind, length, size }))
}

/// The layout as far as `start` shows it; `None` if more bytes are needed. A damaged order is left
/// to [`require_index`].
pub(crate) fn layout(start: &[u8]) -> Option<Layout> {
    match first_index(start)? {
        None => Some(Layout::IndexLast),
        Some((at, index)) => Some(Layout::IndexFirst {
            fragmented: has_fragments(start.get(at..)?, &index)?,
        }),
    }
}

/// Where the index ends if it comes before the media, bytes from the start.
pub(crate) fn index_end(start: &[u8]) -> Option<u64> {
    let (at, index) = first_index(start)??;
    (at as u64).checked_add(index.size?)
}

/// The index and where it begins if it comes before the media; `None` inside if it does not.
fn first_index(start: &[u8]) -> Option<Option<(usize, BoxHead)>> {
    let mut at = 0usize;
    loop {
        match head(start.get(at..)?)? {
            Ok(h) if &h.kind == b"moov" => return Some(Some((at, h))),
            Ok(h) if &h.kind == b"mdat" => return Some(None),
            Ok(BoxHead { size: Some(n), .. }) => {
                at = usize::try_from(n).ok().and_then(|n| at.checked_add(n))?;
            }
            Ok(BoxHead { size: None, .. }) | Err(_) => return Some(None),
        }
    }
}

/// Whether the index at the start of `bytes` announces fragments (`mvex`); `None` if more bytes
/// are needed.
fn has_fragments(bytes: &[u8], index: &BoxHead) -> Option<bool> {
    let mut at = index.length;
    loop {
        if index.size.is_some_and(|size| at >= size) {
            return Some(false);
        }
        let child = head(bytes.get(usize::try_from(at).ok()?..)?)?;
        match child {
            Ok(h) if &h.kind == b"mvex" => return Some(true),
            Ok(BoxHead { size: Some(n), .. }) => at = at.checked_add(n)?,
            Ok(BoxHead { size: None, .. }) | Err(_) => return Some(false),
        }
    }
}

/// Finds the index of a whole MP4 file; true if it announces fragments.
///
/// # Errors
/// `InvalidArgument` if there is none: the file is truncated or was never finished.
pub(crate) fn require_index(file: &mut File) -> Result<bool> {
    let length = file.seek(SeekFrom::End(0)).map_err(unreadable)?;
    let mut at = 0u64;
    // Whether `at` is among the children of the index, which end there.
    let mut inside = None;
    for _ in 0..MP4_MAX_BOXES {
        if inside.is_some_and(|end| at >= end) {
            return Ok(false);
        }
        let Some(head) = read_head(file, at)? else {
            break;
        };
        let head = match head {
            // Children do not matter enough to refuse the file.
            Err(_) if inside.is_some() => return Ok(false),
            head => head?,
        };
        let end = head.size.and_then(|s| at.checked_add(s)).unwrap_or(length);
        if inside.is_some() && &head.kind == b"mvex" {
            return Ok(true);
        }
        if inside.is_none() && &head.kind == b"moov" {
            // Cut inside: the sample tables are not whole.
            if end > length {
                return Err(Error::invalid(format!(
                    "truncated MP4: its index (moov box at byte {at}) ends {} bytes after the end of the file",
                    end - length
                )));
            }
            inside = Some(end);
            at += head.length;
        } else if end < length || inside.is_some() {
            at = end;
        } else {
            break;
        }
    }
    if inside.is_some() {
        return Ok(false);
    }
    Err(Error::invalid(
        "truncated MP4: it has no index (moov box); the recording or the transfer was not finished",
    ))
}

fn read_head(file: &mut File, at: u64) -> Result<Option<Result<BoxHead>>> {
    let mut bytes = Vec::with_capacity(HEAD_BYTES);
    file.seek(SeekFrom::Start(at)).map_err(unreadable)?;
    file.by_ref()
        .take(HEAD_BYTES as u64)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    Ok(head(&bytes))
}

fn unreadable(e: std::io::Error) -> Error {
    Error::data_loss(format!("cannot read the MP4: {e}")).with_source(e)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn boxed(kind: &[u8; 4], payload: usize) -> Vec<u8> {
        let mut v = u32::try_from(payload + 8).unwrap().to_be_bytes().to_vec();
        v.extend(kind);
        v.resize(payload + 8, 0);
        v
    }

    fn nested(kind: &[u8; 4], children: &[Vec<u8>]) -> Vec<u8> {
        let children = children.concat();
        let mut v = boxed(kind, children.len());
        v[8..].copy_from_slice(&children);
        v
    }

    fn large(kind: &[u8; 4], payload: usize) -> Vec<u8> {
        let mut v = 1u32.to_be_bytes().to_vec();
        v.extend(kind);
        v.extend((payload as u64 + 16).to_be_bytes());
        v.resize(payload + 16, 0);
        v
    }

    fn on_disk(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    #[test]
    fn index_before_media_can_stream() {
        let plain = nested(b"moov", &[boxed(b"mvhd", 50), boxed(b"trak", 70)]);
        let fragments = nested(
            b"moov",
            &[boxed(b"mvhd", 50), boxed(b"trak", 70), boxed(b"mvex", 9)],
        );
        for (moov, fragmented) in [(plain, false), (fragments, true)] {
            let before = [boxed(b"ftyp", 24), boxed(b"free", 100)].concat();
            let index_ends = (before.len() + moov.len()) as u64;
            let file = [before.clone(), moov, boxed(b"mdat", 10)].concat();
            let expected = Some(Layout::IndexFirst { fragmented });
            assert_eq!(layout(&file), expected);
            assert_eq!(require_index(&mut on_disk(&file)).unwrap(), fragmented);
            // Nothing is claimed before it is seen.
            for n in 0..file.len() {
                let part = layout(&file[..n]);
                assert!(part.is_none() || part == expected, "{n} bytes: {part:?}");
                let end = (n >= before.len() + 8).then_some(index_ends);
                assert_eq!(index_end(&file[..n]), end, "{n} bytes");
            }
        }
    }

    #[test]
    fn media_before_index_needs_the_whole() {
        let media = [boxed(b"ftyp", 24), large(b"mdat", 100), boxed(b"moov", 9)].concat();
        assert_eq!(layout(&media), Some(Layout::IndexLast));
        assert!(!require_index(&mut on_disk(&media)).unwrap());
        let no_end = [boxed(b"ftyp", 24), b"\0\0\0\0free".to_vec()].concat();
        assert_eq!(layout(&no_end), Some(Layout::IndexLast));
    }

    #[test]
    fn a_missing_or_cut_index_is_named() {
        let whole = [boxed(b"ftyp", 24), boxed(b"mdat", 100), boxed(b"moov", 90)].concat();
        let says = |bytes: &[u8]| {
            require_index(&mut on_disk(bytes))
                .unwrap_err()
                .message()
                .to_owned()
        };
        assert!(says(&whole[..100]).contains("no index"));
        assert!(says(&whole[..whole.len() - 1]).contains("1 bytes after the end"));
        assert!(says(b"\0\0\0\x03mdat").contains("declares 3 bytes"));
        assert!(says(b"").contains("no index"));
    }
}
