//! Leads a Matroska stream around its damage. Pure.
//!
//! GStreamer's demuxer gives up at an element that claims an absurd size, and takes the rest of
//! the file with it. So the bytes pass through here first: elements are followed from header to
//! header (RFC 8794, RFC 9559), and where a header cannot be one, all up to the next cluster is
//! left out. Payloads are not looked at: a damaged frame is the decoder's business.

use std::ops::Range;

/// Bytes of the longest element header: an identifier of 4 and a size of 8.
const HEAD_BYTES: usize = 12;
/// A block larger than this is no block, bytes: it is the demuxer's own limit.
const BLOCK_MAX_BYTES: u64 = 15 << 20;
/// Another element larger than this is none, bytes: indices and attached files.
const ELEMENT_MAX_BYTES: u64 = 256 << 20;
/// A timestamp and its like are at most this long, bytes.
const NUMBER_MAX_BYTES: u64 = 8;

const EBML: u32 = 0x1a45_dfa3;
const SEGMENT: u32 = 0x1853_8067;
const CLUSTER: u32 = 0x1f43_b675;
const TIMESTAMP: u32 = 0xe7;
const SIMPLE_BLOCK: u32 = 0xa3;
const BLOCK_GROUP: u32 = 0xa0;
const PREV_SIZE: u32 = 0xab;
const POSITION: u32 = 0xa7;
const CRC_32: u32 = 0xbf;
const VOID: u32 = 0xec;
const SILENT_TRACKS: u32 = 0x5854;
/// SeekHead, Info, Tracks, Cues, Tags, Attachments, Chapters.
const TOP_LEVEL: [u32; 7] = [
    0x114d_9b74,
    0x1549_a966,
    0x1654_ae6b,
    0x1c53_bb6b,
    0x1254_c367,
    0x1941_a469,
    0x1043_a770,
];

/// A stretch of a chunk that may go on to the demuxer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) bytes: Vec<u8>,
    /// Bytes were left out before it.
    pub(crate) after_damage: bool,
}

/// Follows the elements of one stream.
#[derive(Debug, Default)]
pub(crate) struct Mender {
    /// Bytes of a header that is not whole yet.
    pending: Vec<u8>,
    state: State,
    /// The first cluster has begun; before it, damage is left to the demuxer.
    in_clusters: bool,
    /// Bytes taken before the element at hand.
    position: u64,
    /// Where the present cluster ends, if it says.
    cluster_end: Option<u64>,
    damaged: bool,
}

#[derive(Debug, Default)]
enum State {
    /// At an element header.
    #[default]
    Head,
    /// Within a payload of which this many bytes are left.
    Payload(u64),
    /// Looking for a cluster.
    Lost,
    /// Letting all pass: the structure is not understood, or of unknown size.
    Open,
}

enum Head {
    /// More bytes are needed.
    Short,
    /// An element: bytes of its header, and of the payload to pass over.
    Known { length: usize, skip: u64 },
    /// No element of this place.
    Broken,
}

impl Mender {
    /// Takes the next bytes; gives those that may go on.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Option<Piece> {
        let mut input = std::mem::take(&mut self.pending);
        input.extend_from_slice(bytes);
        let mut out = Vec::with_capacity(input.len());
        let mut at = 0;
        while at < input.len() {
            let rest = &input[at..];
            match self.state {
                State::Open => {
                    out.extend_from_slice(rest);
                    at = input.len();
                }
                State::Payload(left) => {
                    let n = rest.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                    out.extend_from_slice(&rest[..n]);
                    at += n;
                    self.position += n as u64;
                    self.state = match left - n as u64 {
                        0 => State::Head,
                        left => State::Payload(left),
                    };
                }
                State::Head => match self.head(rest) {
                    Head::Short => {
                        self.pending = rest.to_vec();
                        break;
                    }
                    Head::Known { length, skip } => {
                        out.extend_from_slice(&rest[..length]);
                        at += length;
                        self.position += length as u64;
                        if skip > 0 {
                            self.state = State::Payload(skip);
                        }
                    }
                    Head::Broken if self.in_clusters => self.state = State::Lost,
                    Head::Broken => self.state = State::Open,
                },
                State::Lost => match find_cluster(rest) {
                    Ok(found) => {
                        // What came before the damage goes first, by itself.
                        at += found;
                        self.position += found as u64;
                        self.state = State::Head;
                        self.damaged = true;
                        if !out.is_empty() {
                            self.pending = input[at..].to_vec();
                            return Some(Piece {
                                bytes: out,
                                after_damage: false,
                            });
                        }
                    }
                    Err(undecided) => {
                        self.position += undecided.start as u64;
                        self.pending = rest[undecided].to_vec();
                        break;
                    }
                },
            }
        }
        (!out.is_empty()).then(|| Piece {
            bytes: out,
            after_damage: std::mem::take(&mut self.damaged),
        })
    }

    /// What is held back at the end of the stream.
    pub(crate) fn finish(&mut self) -> Option<Piece> {
        let bytes = std::mem::take(&mut self.pending);
        let keep = matches!(self.state, State::Head) && !bytes.is_empty();
        keep.then(|| Piece {
            bytes,
            after_damage: std::mem::take(&mut self.damaged),
        })
    }

    fn head(&mut self, bytes: &[u8]) -> Head {
        let Some((id, size, length)) = element(bytes) else {
            return if bytes.len() < HEAD_BYTES {
                Head::Short
            } else {
                Head::Broken
            };
        };
        let after_head = self.position.saturating_add(length as u64);
        match id {
            CLUSTER => {
                self.in_clusters = true;
                self.cluster_end = size.map(|size| after_head.saturating_add(size));
                Head::Known { length, skip: 0 }
            }
            SEGMENT => Head::Known { length, skip: 0 },
            VOID | CRC_32 | EBML => bounded(length, size, ELEMENT_MAX_BYTES),
            id if TOP_LEVEL.contains(&id) => bounded(length, size, ELEMENT_MAX_BYTES),
            TIMESTAMP | PREV_SIZE | POSITION | SILENT_TRACKS | SIMPLE_BLOCK | BLOCK_GROUP
                if self.in_clusters =>
            {
                let number = matches!(id, TIMESTAMP | PREV_SIZE | POSITION);
                let limit = if number {
                    NUMBER_MAX_BYTES
                } else {
                    BLOCK_MAX_BYTES
                };
                let room = self
                    .cluster_end
                    .map_or(limit, |end| end.saturating_sub(after_head));
                bounded(length, size, limit.min(room))
            }
            _ => Head::Broken,
        }
    }
}

fn bounded(length: usize, size: Option<u64>, limit: u64) -> Head {
    match size {
        Some(skip) if skip <= limit => Head::Known { length, skip },
        _ => Head::Broken,
    }
}

/// Identifier, payload size (`None`: unknown) and header length at the start of `bytes`; `None` if
/// there is no whole header.
fn element(bytes: &[u8]) -> Option<(u32, Option<u64>, usize)> {
    let id_length = bytes.first()?.leading_zeros() as usize + 1;
    if id_length > 4 {
        return None;
    }
    let id = bytes
        .get(..id_length)?
        .iter()
        .fold(0u32, |id, &b| id << 8 | u32::from(b));
    let rest = bytes.get(id_length..)?;
    let size_length = rest.first()?.leading_zeros() as usize + 1;
    if size_length > 8 {
        return None;
    }
    let raw = rest
        .get(..size_length)?
        .iter()
        .fold(0u64, |size, &b| size << 8 | u64::from(b));
    let mask = (1u64 << (7 * size_length)) - 1;
    let size = (raw & mask != mask).then_some(raw & mask);
    Some((id, size, id_length + size_length))
}

/// Where the next cluster begins, or what must be kept until more is known.
fn find_cluster(bytes: &[u8]) -> Result<usize, Range<usize>> {
    const MAGIC: [u8; 4] = CLUSTER.to_be_bytes();
    // Its header and that of its first child.
    const DECISIVE: usize = HEAD_BYTES + 1;
    for at in 0..bytes.len() {
        let rest = &bytes[at..];
        if rest.len() < DECISIVE {
            return Err(at..bytes.len());
        }
        if rest.starts_with(&MAGIC)
            && let Some((_, _, length)) = element(rest)
            && rest.get(length).is_some_and(|&first| {
                [TIMESTAMP, PREV_SIZE, POSITION, CRC_32, VOID].contains(&u32::from(first))
            })
        {
            return Ok(at);
        }
    }
    Err(bytes.len()..bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn el(id: u32, payload: &[u8]) -> Vec<u8> {
        let id = id.to_be_bytes();
        let start = id.iter().position(|&b| b != 0).unwrap();
        let mut v = id[start..].to_vec();
        v.extend((0x0100_0000_0000_0000 | payload.len() as u64).to_be_bytes());
        v.extend(payload);
        v
    }

    fn cluster(n: u8) -> Vec<u8> {
        let children = [
            el(TIMESTAMP, &[n]),
            el(SIMPLE_BLOCK, &[n; 300]),
            el(SIMPLE_BLOCK, &[n; 50]),
        ];
        el(CLUSTER, &children.concat())
    }

    fn stream() -> (Vec<u8>, Vec<Vec<u8>>) {
        let mut head = el(EBML, b"matroska");
        head.extend([0x18, 0x53, 0x80, 0x67, 0xff]); // of unknown size
        head.extend(el(TOP_LEVEL[1], &[7; 40]));
        (head, (1..5).map(cluster).collect())
    }

    fn mend(bytes: &[u8], chunk: usize) -> (Vec<u8>, usize) {
        let mut mender = Mender::default();
        let mut out = vec![];
        let mut damages = 0;
        let mut take = |piece: Option<Piece>| {
            if let Some(piece) = piece {
                damages += usize::from(piece.after_damage);
                out.extend(piece.bytes);
            }
        };
        for chunk in bytes.chunks(chunk) {
            take(mender.push(chunk));
            // What waits behind a damage comes with the next bytes, or now.
            take(mender.push(&[]));
        }
        take(mender.push(&[]));
        take(mender.finish());
        (out, damages)
    }

    #[test]
    fn a_whole_stream_passes_unchanged_in_any_chunks() {
        let (head, clusters) = stream();
        let bytes = [head, clusters.concat()].concat();
        for chunk in 1..bytes.len() {
            assert_eq!(mend(&bytes, chunk), (bytes.clone(), 0), "chunks of {chunk}");
        }
    }

    #[test]
    fn damage_is_left_out_up_to_the_next_cluster() {
        let (head, clusters) = stream();
        let whole = [head.clone(), clusters.concat()].concat();
        for junk in [0x00, 0xff, 0xa3] {
            for chunk in [1, 3, 100, 10_000] {
                let mut bytes = whole.clone();
                // From inside the first block of the second cluster into the third.
                let from = head.len() + clusters[0].len() + 40;
                bytes[from..from + 400].fill(junk);
                let (out, damages) = mend(&bytes, chunk);
                let what = format!("{junk:#x} in chunks of {chunk}");
                assert_eq!(damages, 1, "{what}");
                assert!(out.starts_with(&bytes[..from]), "{what}");
                assert!(out.ends_with(&clusters[3]), "{what}");
                assert!(
                    !out.ends_with(&[&clusters[2][..], &clusters[3]].concat()),
                    "{what}"
                );
            }
        }
    }

    #[test]
    fn a_file_that_is_not_understood_passes_unchanged() {
        let bytes: Vec<u8> = (0..=255).cycle().take(3000).collect();
        assert_eq!(mend(&bytes, 100), (bytes, 0));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_in_any_chunks_are_survived(
            mut noise in proptest::collection::vec(proptest::num::u8::ANY, 0..400),
            at in 0usize..1600,
            chunk in 1usize..500,
        ) {
            let (head, clusters) = stream();
            let mut bytes = [head, clusters.concat()].concat();
            let at = at.min(bytes.len());
            noise.truncate(bytes.len() - at);
            bytes[at..at + noise.len()].copy_from_slice(&noise);
            let (out, _) = mend(&bytes, chunk);
            proptest::prop_assert!(out.len() <= bytes.len());
        }
    }
}
