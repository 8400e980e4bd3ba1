//! Damage to whole inputs, the same on every machine.

/// xorshift64*: the same numbers everywhere.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Below `n`, which is above 0.
    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}

/// What stands where a number stood, or in the middle of text.
const TEXTS: [&[u8]; 12] = [
    b"0",
    b"-1",
    b"18446744073709551615",
    b"9223372036854775808",
    b"4294967296",
    b"1e999",
    b"NaN",
    b"\"\"",
    b"\0",
    b"\xff\xfe",
    b"\xe2\x80\xae",
    b"{[{[\"",
];

/// `count` damaged copies of `whole`; the first `keep` bytes stay as they are.
pub fn damaged(whole: &[u8], keep: usize, count: usize, seed: u64) -> Vec<Vec<u8>> {
    let mut dice = Dice::new(seed);
    (0..count).map(|n| one(whole, keep, n, &mut dice)).collect()
}

fn one(whole: &[u8], keep: usize, n: usize, dice: &mut Dice) -> Vec<u8> {
    let mut out = whole.to_vec();
    let room = whole.len().saturating_sub(keep);
    if room == 0 {
        return out;
    }
    let at = keep + dice.below(room);
    match n % 6 {
        0 => out.truncate(at),
        1 => out[at] ^= 1 << dice.below(8),
        // A field of 1, 2, 4 or 8 bytes at its largest or smallest.
        2 => {
            let end = out.len().min(at + (1 << dice.below(4)));
            let byte = [0xff, 0x00, 0x7f, 0x80][dice.below(4)];
            out[at..end].fill(byte);
        }
        3 => {
            let end = out.len().min(at + 1 + dice.below(64));
            out.drain(at..end);
        }
        4 => {
            let end = out.len().min(at + 1 + dice.below(64));
            let again = out[at..end].to_vec();
            out.splice(at..at, again);
        }
        // The next number from here on, else what is here.
        _ => {
            let digit = |b: &u8| b.is_ascii_digit();
            let text = TEXTS[dice.below(TEXTS.len())];
            let from = out[at..].iter().position(digit).map_or(at, |d| at + d);
            let length = out[from..].iter().take_while(|b| digit(b)).count();
            out.splice(from..from + length, text.iter().copied());
        }
    }
    out
}

/// For each of the containers' own fields that this file has, copies with the field at its ends.
pub fn fields(whole: &[u8]) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    let mut with = |at: usize, bytes: &[u8]| {
        let Some(place) = whole.get(at..at + bytes.len()) else {
            return;
        };
        if place != bytes {
            let mut copy = whole.to_vec();
            copy[at..at + bytes.len()].copy_from_slice(bytes);
            out.push(copy);
        }
    };
    for (at, four) in whole.windows(4).enumerate() {
        if BOXES.contains(&four) && at >= 4 {
            // The box's size, and the words after its type: version and flags, counts, times, sizes.
            for size in [0_u32, 1, 7, 0x7fff_ffff, u32::MAX] {
                with(at - 4, &size.to_be_bytes());
            }
            for word in 1..6 {
                with(at + 4 * word, &[0xff; 4]);
            }
        } else if CHUNKS.contains(&four) {
            for word in 1..5 {
                with(at + 4 * word, &[0xff; 4]);
                with(at + 4 * word, &[0; 4]);
            }
        } else if ELEMENTS.iter().any(|id| four.starts_with(id)) {
            // Matroska: the size after the identifier, unknown, of eight bytes, and zero.
            let id = ELEMENTS.iter().find(|id| four.starts_with(id));
            let after = at + id.map_or(0, |id| id.len());
            for size in [
                &[0xff][..],
                &[0x01, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe],
                &[0x80],
            ] {
                with(after, size);
            }
        }
    }
    if whole.first() == Some(&0x47) && whole.len().is_multiple_of(188) {
        for packet in (0..whole.len()).step_by(188) {
            // MPEG-TS: another PID, only an adaptation field, of more bytes than there are, and a
            // section or PES length at its largest.
            with(packet + 1, &[0x1f, 0xff]);
            with(packet + 3, &[0x30, 0xff]);
            with(packet + 6, &[0xff, 0xff]);
        }
    }
    out
}

/// MP4.
const BOXES: [&[u8]; 18] = [
    b"ftyp", b"moov", b"mvhd", b"tkhd", b"mdhd", b"hdlr", b"stsd", b"avc1", b"avcC", b"stts",
    b"stsc", b"stsz", b"stco", b"elst", b"moof", b"tfhd", b"trun", b"mdat",
];

/// AVI.
const CHUNKS: [&[u8]; 8] = [
    b"RIFF", b"avih", b"strh", b"strf", b"hdrl", b"movi", b"idx1", b"00db",
];

/// Matroska: head, segment, info, tracks, track, width, height, codec's data, cluster, its time, block.
const ELEMENTS: [&[u8]; 12] = [
    b"\x1a\x45\xdf\xa3",
    b"\x18\x53\x80\x67",
    b"\x15\x49\xa9\x66",
    b"\x16\x54\xae\x6b",
    b"\x1f\x43\xb6\x75",
    b"\x63\xa2",
    b"\x23\xe3\x83",
    b"\x2a\xd7\xb1",
    b"\x55\xee",
    b"\xb0\x82",
    b"\xba\x82",
    b"\xe7\x81",
];
