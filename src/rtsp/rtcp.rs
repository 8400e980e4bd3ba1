//! RTCP (RFC 3550, 6): what a sender says, and what a receiver reports. Pure.

use std::time::Duration;

const SENDER_REPORT: u8 = 200;
const RECEIVER_REPORT: u8 = 201;
const DESCRIPTION: u8 = 202;
const BYE: u8 = 203;

/// What of a compound packet is heeded.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Heard {
    /// The sender of a report, and the middle 32 bits of its NTP time.
    pub report: Option<(u32, u32)>,
    /// Who leaves; at most 31 for each packet of the compound.
    pub leaving: Vec<u32>,
}

/// Reads a compound packet as far as it is one.
pub(super) fn read(mut compound: &[u8]) -> Heard {
    let mut heard = Heard::default();
    while let Some(&[flags, kind, high, low]) = compound.first_chunk() {
        let length = 4 * usize::from(u16::from_be_bytes([high, low]));
        let Some((body, rest)) = compound[4..].split_at_checked(length) else {
            break;
        };
        if flags >> 6 != 2 {
            break;
        }
        match kind {
            SENDER_REPORT => {
                if let (Some(ssrc), Some(middle)) = (word(body, 0), word(body, 6)) {
                    heard.report = Some((ssrc, middle));
                }
            }
            BYE => {
                let count = usize::from(flags & 0x1f);
                let sources = (0..count).map_while(|n| word(body, 4 * n));
                heard.leaving.extend(sources);
            }
            _ => {}
        }
        compound = rest;
    }
    heard
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes
        .get(at..)?
        .first_chunk()
        .map(|b| u32::from_be_bytes(*b))
}

/// How well packets of one source arrive (RFC 3550, A.3, A.8 and 6.4.1).
#[derive(Debug)]
pub(super) struct Reception {
    ssrc: u32,
    clock_rate: u32,
    first: i64,
    highest: i64,
    received: i64,
    expected_before: i64,
    received_before: i64,
    /// Ticks.
    jitter: f64,
    transit: u32,
    /// Middle of the sender's NTP time, and when it arrived.
    report: Option<(u32, Duration)>,
}

impl Reception {
    /// Begins with a packet: its number without wraps, its timestamp and its arrival.
    pub fn new(ssrc: u32, clock_rate: u32, number: i64, timestamp: u32, now: Duration) -> Self {
        Reception {
            ssrc,
            clock_rate,
            first: number,
            highest: number,
            received: 1,
            expected_before: 0,
            received_before: 0,
            jitter: 0.0,
            transit: ticks(now, clock_rate).wrapping_sub(timestamp),
            report: None,
        }
    }

    /// Counts a further packet.
    pub fn packet(&mut self, number: i64, timestamp: u32, now: Duration) {
        self.highest = self.highest.max(number);
        self.received += 1;
        let transit = ticks(now, self.clock_rate).wrapping_sub(timestamp);
        let change = transit.wrapping_sub(self.transit).cast_signed();
        self.transit = transit;
        self.jitter += (f64::from(change.unsigned_abs()) - self.jitter) / 16.0;
    }

    /// Takes note of the sender's report.
    pub fn heard(&mut self, ssrc: u32, middle: u32, now: Duration) {
        if ssrc == self.ssrc {
            self.report = Some((middle, now));
        }
    }

    /// The report block, 24 bytes. The next one's loss fraction begins here.
    fn block(&mut self, now: Duration) -> [u8; 24] {
        let expected = self.highest - self.first + 1;
        let lost = (expected - self.received).clamp(-0x80_0000, 0x7f_ffff);
        let expected_lately = expected - self.expected_before;
        let lost_lately = expected_lately - (self.received - self.received_before);
        self.expected_before = expected;
        self.received_before = self.received;
        let fraction = if expected_lately > 0 && lost_lately > 0 {
            u8::try_from((lost_lately * 256 / expected_lately).min(255)).unwrap_or(255)
        } else {
            0
        };
        // In units of 1/65536 s.
        let (middle, since) = self.report.map_or((0, 0), |(middle, then)| {
            let since = now.saturating_sub(then).as_micros() * 65_536 / 1_000_000;
            (middle, u32::try_from(since).unwrap_or(u32::MAX))
        });
        let lost = lost.to_be_bytes();
        let mut block = [0; 24];
        block[..4].copy_from_slice(&self.ssrc.to_be_bytes());
        block[4] = fraction;
        block[5..8].copy_from_slice(&lost[5..]);
        block[8..12].copy_from_slice(&((self.highest & 0xffff_ffff) as u32).to_be_bytes());
        block[12..16].copy_from_slice(&(self.jitter as u32).to_be_bytes());
        block[16..20].copy_from_slice(&middle.to_be_bytes());
        block[20..].copy_from_slice(&since.to_be_bytes());
        block
    }
}

/// A time in ticks, wrapped.
fn ticks(now: Duration, clock_rate: u32) -> u32 {
    ((now.as_micros() * u128::from(clock_rate) / 1_000_000) & 0xffff_ffff) as u32
}

/// The compound packet of a receiver: its report, empty without `reception`, and its name, which
/// says nothing but the random `ssrc`.
pub(super) fn receiver_report(
    ssrc: u32,
    reception: Option<&mut Reception>,
    now: Duration,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    let block = reception.map(|r| r.block(now));
    out.extend_from_slice(&[0x80 | u8::from(block.is_some()), RECEIVER_REPORT, 0, 1]);
    out.extend_from_slice(&ssrc.to_be_bytes());
    if let Some(block) = block {
        out[3] += 6;
        out.extend_from_slice(&block);
    }
    // SDES: one chunk with CNAME (1), 8 bytes of hexadecimal digits, and two zeros that end the
    // items and fill the word.
    out.extend_from_slice(&[0x81, DESCRIPTION, 0, 4]);
    out.extend_from_slice(&ssrc.to_be_bytes());
    out.extend_from_slice(&[1, 8]);
    out.extend_from_slice(format!("{ssrc:08x}").as_bytes());
    out.extend_from_slice(&[0, 0]);
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const US: u32 = 0xabcd_0123;
    const THEM: u32 = 0x0506_0708;

    #[test]
    fn a_sender_report_and_a_farewell_are_read() {
        let mut compound = vec![0x80, 200, 0, 6];
        compound.extend_from_slice(&THEM.to_be_bytes());
        compound.extend_from_slice(&[1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        compound.extend_from_slice(&[0x82, 203, 0, 2]);
        compound.extend_from_slice(&THEM.to_be_bytes());
        compound.extend_from_slice(&[0, 0, 0, 9]);
        assert_eq!(
            read(&compound),
            Heard {
                report: Some((THEM, 0x0304_0506)),
                leaving: vec![THEM, 9],
            }
        );
        // Cut or foreign: as far as it goes.
        assert!(read(&compound[..compound.len() - 1]).leaving.is_empty());
        assert_eq!(read(&[0x00, 203, 0, 0]), Heard::default());
    }

    #[test]
    fn a_report_counts_loss_and_jitter() {
        let now = |millis| Duration::from_millis(millis);
        let mut reception = Reception::new(THEM, 90_000, 65_534, 0, now(0));
        // 65,535 and 65,537 are missing; the last packet is 10 ms (900 ticks) late.
        reception.packet(65_536, 3600, now(40));
        reception.packet(65_538, 7200, now(90));
        reception.heard(1, 7, now(0));
        reception.heard(THEM, 0x1111_2222, now(1000));
        let report = receiver_report(US, Some(&mut reception), now(3500));
        assert_eq!(report.len(), 32 + 20);
        assert_eq!(&report[..4], [0x81, 201, 0, 7]);
        assert_eq!(word(&report, 4), Some(US));
        assert_eq!(word(&report, 8), Some(THEM));
        assert_eq!(report[12], 102, "2 of 5");
        assert_eq!(report[13..16], [0, 0, 2]);
        assert_eq!(word(&report, 16), Some(65_538));
        assert_eq!(word(&report, 20), Some(56), "900/16");
        assert_eq!(word(&report, 24), Some(0x1111_2222));
        assert_eq!(word(&report, 28), Some(5 * 65_536 / 2));
        assert_eq!(&report[32..36], [0x81, 202, 0, 4]);
        assert_eq!(&report[40..52], b"\x01\x08abcd0123\0\0");

        reception.packet(65_539, 10_800, now(120));
        let report = receiver_report(US, Some(&mut reception), now(4000));
        assert_eq!(report[12], 0, "nothing was lost since");
        assert_eq!(report[13..16], [0, 0, 2]);
    }

    #[test]
    fn a_report_without_reception_is_empty() {
        let report = receiver_report(US, None, Duration::ZERO);
        assert_eq!(&report[..4], [0x80, 201, 0, 1]);
        assert_eq!(report.len(), 8 + 20);
    }

    #[test]
    fn duplicates_do_not_make_the_loss_wrap() {
        let mut reception = Reception::new(THEM, 90_000, 5, 0, Duration::ZERO);
        for _ in 0..3 {
            reception.packet(5, 0, Duration::ZERO);
        }
        let report = receiver_report(US, Some(&mut reception), Duration::ZERO);
        assert_eq!(report[12..16], [0, 0xff, 0xff, 0xfd]);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(read(&bytes).leaving.len() <= bytes.len());
        }
    }
}
