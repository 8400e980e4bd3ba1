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
    IndexFirst,
    /// After the media, or not there: the whole file is needed.
    IndexLast,
}

struct BoxHead {
    kind: [u8; 4],
    /// Whole box, bytes; `None` if it lasts to the end of the file.
    size: Option<u64>,
}

/// Bytes of the longest box header.
const HEAD_BYTES: usize = 16;

/// The header at the start of `bytes`; `None` if they are too few.
fn head(bytes: &[u8]) -> Option<Result<BoxHead>> {
    let size = u32::from_be_bytes(bytes.get(..4)?.try_into().ok()?);
    let kind: [u8; 4] = bytes.get(4..8)?.try_into().ok()?;
    let (size, least) = match size {
        0 => (None, 8),
        1 => (
            Some(u64::from_be_bytes(bytes.get(8..16)?.try_into().ok()?)),
            16,
        ),
        n => (Some(u64::from(n)), 8),
    };
    if size.is_some_and(|s| s < least) {
        return Some(Err(Error::invalid(format!(
            "damaged MP4: the box `{}` declares {} bytes",
            kind.escape_ascii(),
            size.unwrap_or(0)
        ))));
    }
    Some(Ok(BoxHead { kind, size }))
}

/// The layout as far as `start` shows it; `None` if more bytes are needed. A damaged order is left
/// to [`require_index`].
pub(crate) fn layout(start: &[u8]) -> Option<Layout> {
    let mut at = 0usize;
    loop {
        match head(start.get(at..)?)? {
            Ok(h) if &h.kind == b"moov" => return Some(Layout::IndexFirst),
            Ok(h) if &h.kind == b"mdat" => return Some(Layout::IndexLast),
            Ok(BoxHead { size: Some(n), .. }) => {
                at = usize::try_from(n).ok().and_then(|n| at.checked_add(n))?;
            }
            Ok(BoxHead { size: None, .. }) | Err(_) => return Some(Layout::IndexLast),
        }
    }
}

/// Finds the index of a whole MP4 file.
///
/// # Errors
/// `InvalidArgument` if there is none: the file is truncated or was never finished.
pub(crate) fn require_index(file: &mut File) -> Result<()> {
    let io =
        |e: std::io::Error| Error::data_loss(format!("cannot read the MP4: {e}")).with_source(e);
    let length = file.seek(SeekFrom::End(0)).map_err(io)?;
    let mut at = 0u64;
    for _ in 0..MP4_MAX_BOXES {
        file.seek(SeekFrom::Start(at)).map_err(io)?;
        let mut bytes = Vec::with_capacity(HEAD_BYTES);
        file.by_ref()
            .take(HEAD_BYTES as u64)
            .read_to_end(&mut bytes)
            .map_err(io)?;
        let Some(head) = head(&bytes) else { break };
        let head = head?;
        let end = head.size.and_then(|s| at.checked_add(s));
        if &head.kind == b"moov" {
            // Cut inside: the sample tables are not whole.
            if end.is_some_and(|end| end <= length) || head.size.is_none() {
                return Ok(());
            }
            return Err(Error::invalid(format!(
                "truncated MP4: its index (moov box at byte {at}) ends {} bytes after the end of the file",
                end.map_or(0, |end| end - length)
            )));
        }
        match end {
            Some(end) if end < length => at = end,
            _ => break,
        }
    }
    Err(Error::invalid(
        "truncated MP4: it has no index (moov box); the recording or the transfer was not finished",
    ))
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
        let file = [boxed(b"ftyp", 24), boxed(b"free", 100), boxed(b"moov", 50)].concat();
        assert_eq!(layout(&file), Some(Layout::IndexFirst));
        // The header of moov is enough, and nothing is claimed before it is seen.
        assert_eq!(layout(&file[..32 + 108 + 8]), Some(Layout::IndexFirst));
        assert_eq!(layout(&file[..32 + 108 + 7]), None);
        assert_eq!(layout(&[]), None);
    }

    #[test]
    fn media_before_index_needs_the_whole() {
        let media = [boxed(b"ftyp", 24), large(b"mdat", 100), boxed(b"moov", 9)].concat();
        assert_eq!(layout(&media), Some(Layout::IndexLast));
        require_index(&mut on_disk(&media)).unwrap();
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
