//! Which container the first bytes belong to. Pure.

use crate::error::{Error, Result};

/// The containers that are decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Container {
    /// MP4, MOV and their kin.
    Mp4,
    /// Matroska.
    Matroska,
    /// WebM.
    WebM,
    /// MPEG transport stream, packets of 188, 192 or 204 bytes.
    MpegTs,
    /// AVI.
    Avi,
}

impl Container {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Container::Mp4 => "mp4",
            Container::Matroska => "matroska",
            Container::WebM => "webm",
            Container::MpegTs => "mpegts",
            Container::Avi => "avi",
        }
    }

    /// The GStreamer element that takes it apart, and its Debian package.
    pub(crate) const fn demuxer(self) -> (&'static str, &'static str) {
        const GOOD: &str = "gstreamer1.0-plugins-good";
        match self {
            Container::Mp4 => ("qtdemux", GOOD),
            Container::Matroska | Container::WebM => ("matroskademux", GOOD),
            Container::MpegTs => ("tsdemux", "gstreamer1.0-plugins-bad"),
            Container::Avi => ("avidemux", GOOD),
        }
    }
}

/// Bytes after which the answer is certain.
const ENOUGH: usize = 1024;

/// (packet length, offset of the sync byte) of transport streams.
const TS_PACKETS: [(usize, usize); 3] = [(188, 0), (192, 4), (204, 0)];
const TS_SYNC: u8 = 0x47;
const TS_PACKETS_NEEDED: usize = 4;

/// The container that `head` begins, or `None` if more bytes are needed to tell. `complete` says
/// that no more will come.
pub(crate) fn sniff(head: &[u8], complete: bool) -> Result<Option<Container>> {
    if !complete && head.len() < 64 {
        return Ok(None);
    }
    if head.is_empty() {
        return Err(Error::invalid("the input is empty (0 bytes)"));
    }
    if head.starts_with(&[0x1a, 0x45, 0xdf, 0xa3]) {
        let doc_type = head.get(..64).unwrap_or(head);
        let webm = doc_type.windows(4).any(|w| w == b"webm");
        return Ok(Some(if webm {
            Container::WebM
        } else {
            Container::Matroska
        }));
    }
    if head.starts_with(b"RIFF") && head.get(8..12) == Some(b"AVI ") {
        return Ok(Some(Container::Avi));
    }
    if is_mp4(head) {
        return Ok(Some(Container::Mp4));
    }
    if TS_PACKETS
        .iter()
        .any(|&(length, offset)| is_ts(head, length, offset))
    {
        return Ok(Some(Container::MpegTs));
    }
    if !complete && head.len() < ENOUGH {
        return Ok(None);
    }
    Err(Error::invalid(format!(
        "the input is not a video in a known container (MP4/MOV, MKV/WebM, MPEG-TS, AVI): it looks like {}",
        describe(head)
    )))
}

fn is_mp4(head: &[u8]) -> bool {
    let (Some(size), Some(kind)) = (head.get(..4), head.get(4..8)) else {
        return false;
    };
    let size = u32::from_be_bytes([size[0], size[1], size[2], size[3]]);
    let plausible = size == 0 || size == 1 || size >= 8;
    plausible
        && matches!(
            kind,
            b"ftyp" | b"moov" | b"mdat" | b"free" | b"skip" | b"wide" | b"styp" | b"pnot"
        )
}

/// Sync bytes stand where they must, in as many packets as are needed, or in all that there are
/// (two at least) if the input is that short.
fn is_ts(head: &[u8], length: usize, offset: usize) -> bool {
    let mut found = 0;
    for packet in 0..TS_PACKETS_NEEDED {
        match head.get(offset + packet * length) {
            Some(&TS_SYNC) => found += 1,
            Some(_) => return false,
            None => break,
        }
    }
    found >= 2
}

/// What it may be instead, for people.
fn describe(head: &[u8]) -> String {
    const KNOWN: [(&[u8], usize, &str); 18] = [
        (b"WAVE", 8, "a WAV audio file"),
        (b"WEBP", 8, "a WebP image"),
        (b"OggS", 0, "an Ogg file"),
        (b"FLV\x01", 0, "an FLV file"),
        (
            &[0x30, 0x26, 0xb2, 0x75, 0x8e, 0x66, 0xcf, 0x11],
            0,
            "an ASF/WMV file",
        ),
        (&[0, 0, 1, 0xba], 0, "an MPEG program stream"),
        (&[0, 0, 1, 0xb3], 0, "a bare MPEG video stream"),
        (&[0, 0, 0, 1], 0, "a bare H.264/H.265 stream"),
        (&[0, 0, 1], 0, "a bare MPEG-family stream"),
        (b"ID3", 0, "an MP3 audio file"),
        (b"fLaC", 0, "a FLAC audio file"),
        (b"\x89PNG", 0, "a PNG image"),
        (&[0xff, 0xd8, 0xff], 0, "a JPEG image"),
        (b"GIF8", 0, "a GIF image"),
        (b"%PDF", 0, "a PDF document"),
        (b"PK\x03\x04", 0, "a ZIP archive"),
        (&[0x1f, 0x8b], 0, "a gzip file"),
        (b"\x7fELF", 0, "a program"),
    ];
    for (magic, at, name) in KNOWN {
        if head.get(at..).is_some_and(|rest| rest.starts_with(magic)) {
            return name.to_owned();
        }
    }
    let start = head.get(..ENOUGH).unwrap_or(head);
    // A multi-byte character may be cut at the end.
    let text = match std::str::from_utf8(start) {
        Ok(text) => Some(text),
        Err(e) if e.error_len().is_none() => std::str::from_utf8(&start[..e.valid_up_to()]).ok(),
        Err(_) => None,
    };
    if text.is_some_and(|t| t.chars().all(|c| !c.is_control() || c.is_whitespace())) {
        return "a text file".to_owned();
    }
    let first: Vec<String> = head.iter().take(8).map(|b| format!("{b:02x}")).collect();
    format!("unknown data (first bytes {})", first.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn padded(bytes: &[u8]) -> Vec<u8> {
        let mut v = bytes.to_vec();
        v.resize(2048, 0xee);
        v
    }

    #[test]
    fn containers_are_told_by_their_magic() {
        let told = |bytes: &[u8]| sniff(&padded(bytes), false).unwrap();
        assert_eq!(told(b"\0\0\0\x20ftypisom\0\0\x02\0"), Some(Container::Mp4));
        assert_eq!(told(b"\0\0\0\0mdat"), Some(Container::Mp4));
        assert_eq!(told(b"RIFF\x00\x10\0\0AVI LIST"), Some(Container::Avi));
        assert_eq!(
            told(b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81\x01\x42\x82\x84webm"),
            Some(Container::WebM)
        );
        assert_eq!(
            told(b"\x1a\x45\xdf\xa3\x9f\x42\x82\x88matroska"),
            Some(Container::Matroska)
        );
        for (length, offset) in TS_PACKETS {
            let mut ts = vec![0u8; 5 * length];
            for p in 0..5 {
                ts[p * length + offset] = TS_SYNC;
            }
            assert_eq!(sniff(&ts, false).unwrap(), Some(Container::MpegTs));
        }
    }

    #[test]
    fn every_prefix_either_waits_or_agrees() {
        let mut ts = vec![0u8; 2000];
        for p in 0..10 {
            ts[p * 188] = TS_SYNC;
        }
        for head in [
            padded(b"\0\0\0\x20ftypisom"),
            padded(b"\x1a\x45\xdf\xa3\x9f\x42\x82\x84webm"),
            ts,
        ] {
            let whole = sniff(&head, true).unwrap();
            assert!(whole.is_some());
            for n in 0..head.len() {
                let told = sniff(&head[..n], false).unwrap();
                assert!(told.is_none() || told == whole, "prefix of {n} bytes");
            }
        }
    }

    #[test]
    fn what_is_not_a_video_is_named() {
        let refused = |bytes: &[u8]| sniff(bytes, true).unwrap_err().message().to_owned();
        assert!(refused(b"").contains("empty"));
        assert!(refused(b"hello, this is a letter\n").contains("a text file"));
        assert!(refused("naïve text".as_bytes()).contains("a text file"));
        assert!(refused(b"RIFF\0\0\0\0WAVEfmt ").contains("WAV"));
        assert!(refused(&[0xff, 0xd8, 0xff, 0xe0]).contains("JPEG"));
        assert!(refused(&[1, 2, 3, 4, 250]).contains("01 02 03 04 fa"));
        // One sync byte alone is no transport stream.
        assert!(refused(b"G\x01\x02").contains("unknown data"));
    }
}
