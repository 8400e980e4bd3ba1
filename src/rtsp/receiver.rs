//! The packets of one track: judged, put in order, counted. Pure.

use std::time::Duration;

use prost::bytes::Bytes;

use super::{
    Packet, Track,
    rtcp::{self, Reception},
    rtp,
    sequence::{Order, Pushed, Ticks},
};
use crate::limits;

#[derive(Debug)]
pub(super) struct Receiver {
    payload_type: u8,
    clock_rate: u32,
    /// Ours, in reports.
    own_ssrc: u32,
    /// The track's, once a packet came.
    ssrc: Option<u32>,
    order: Order<(Bytes, u32, Duration)>,
    ticks: Ticks,
    reception: Option<Reception>,
}

impl Receiver {
    /// `reordering`: whether the transport may change the order of packets.
    pub fn new(track: &Track, reordering: bool, own_ssrc: u32) -> Self {
        let room = if reordering {
            limits::RTP_REORDER_PACKETS
        } else {
            0
        };
        Receiver {
            payload_type: track.payload_type,
            clock_rate: track.clock_rate,
            own_ssrc,
            ssrc: None,
            order: Order::new(room, limits::RTP_REORDER_WAIT),
            ticks: Ticks::default(),
            reception: None,
        }
    }

    /// Takes what arrived where RTP is expected. `false` where it is no new packet of the track.
    pub fn push(&mut self, data: Bytes, now: Duration) -> bool {
        let Some(header) = rtp::header(&data).filter(|h| h.payload_type == self.payload_type)
        else {
            return false;
        };
        let item = (data, header.timestamp, now);
        let pushed = if self.ssrc.is_some_and(|ssrc| ssrc != header.ssrc) {
            self.order.restart(header.sequence, item, now)
        } else {
            self.order.push(header.sequence, item, now)
        };
        match (pushed, &mut self.reception) {
            (Pushed::Refused, _) => return false,
            (Pushed::Taken(number), Some(reception)) => {
                reception.packet(number, header.timestamp, now);
            }
            (Pushed::Taken(number) | Pushed::Restarted(number), _) => {
                self.ssrc = Some(header.ssrc);
                self.reception = Some(Reception::new(
                    header.ssrc,
                    self.clock_rate,
                    number,
                    header.timestamp,
                    now,
                ));
            }
        }
        true
    }

    /// The next packet in order.
    pub fn pop(&mut self, now: Duration) -> Option<Packet> {
        let ((data, timestamp, arrived), lost) = self.order.pop(now)?;
        Some(Packet {
            data,
            ticks: self.ticks.unwrap(timestamp),
            lost,
            arrived,
        })
    }

    /// When `pop` gives something without a further `push`.
    pub fn due(&self) -> Option<Duration> {
        self.order.due()
    }

    /// Gives up waiting for what is missing.
    pub fn flush(&mut self) {
        self.order.flush();
    }

    /// Takes a control packet. `true` where the sender of the track leaves.
    pub fn control(&mut self, data: &[u8], now: Duration) -> bool {
        let heard = rtcp::read(data);
        if let (Some((ssrc, middle)), Some(reception)) = (heard.report, &mut self.reception) {
            reception.heard(ssrc, middle, now);
        }
        match self.ssrc {
            Some(ssrc) => heard.leaving.contains(&ssrc),
            None => !heard.leaving.is_empty(),
        }
    }

    /// A receiver report.
    pub fn report(&mut self, now: Duration) -> Vec<u8> {
        rtcp::receiver_report(self.own_ssrc, self.reception.as_mut(), now)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Codec, *};

    fn receiver(reordering: bool) -> Receiver {
        let track = Track {
            codec: Codec::H264,
            payload_type: 96,
            clock_rate: 90_000,
            parameters: Vec::new(),
        };
        Receiver::new(&track, reordering, 7)
    }

    fn packet(payload_type: u8, sequence: u16, timestamp: u32, ssrc: u32) -> Bytes {
        let mut bytes = vec![0x80, payload_type];
        bytes.extend_from_slice(&sequence.to_be_bytes());
        bytes.extend_from_slice(&timestamp.to_be_bytes());
        bytes.extend_from_slice(&ssrc.to_be_bytes());
        bytes.push(0x41);
        Bytes::from(bytes)
    }

    fn popped(receiver: &mut Receiver) -> Vec<(i64, u32)> {
        std::iter::from_fn(|| receiver.pop(Duration::ZERO))
            .map(|p| (p.ticks, p.lost))
            .collect()
    }

    #[test]
    fn a_new_source_goes_on_by_the_signed_difference() {
        for reordering in [false, true] {
            let mut receiver = receiver(reordering);
            assert!(receiver.push(packet(96, 10, 1000, 1), Duration::ZERO));
            assert!(
                receiver.push(packet(0xe0, 11, 4600, 1), Duration::ZERO),
                "marker"
            );
            assert!(receiver.push(packet(96, 500, 4_294_967_000, 2), Duration::ZERO));
            assert!(receiver.push(packet(96, 501, 3000, 2), Duration::ZERO));
            assert_eq!(
                popped(&mut receiver),
                [(1000, 0), (4600, 0), (-296, 1), (3000, 0)]
            );
            assert!(!receiver.control(&[0x81, 203, 0, 1, 0, 0, 0, 1], Duration::ZERO));
            assert!(receiver.control(&[0x81, 203, 0, 1, 0, 0, 0, 2], Duration::ZERO));
        }
    }

    #[test]
    fn other_payload_types_and_junk_are_ignored() {
        let mut receiver = receiver(false);
        assert!(!receiver.push(packet(97, 10, 1000, 1), Duration::ZERO));
        assert!(!receiver.push(Bytes::from_static(b"junk"), Duration::ZERO));
        assert!(receiver.push(packet(96, 10, 1000, 1), Duration::ZERO));
        assert!(
            !receiver.push(packet(96, 10, 1000, 1), Duration::ZERO),
            "again"
        );
        assert_eq!(popped(&mut receiver), [(1000, 0)]);
    }

    #[test]
    fn a_report_has_a_block_once_packets_came() {
        let mut receiver = receiver(false);
        assert_eq!(receiver.report(Duration::ZERO)[0], 0x80);
        receiver.push(packet(96, 10, 1000, 1), Duration::ZERO);
        assert_eq!(receiver.report(Duration::ZERO)[0], 0x81);
    }
}
