//! RTP headers (RFC 3550, 5.1). Pure.

/// The parts of a header that the receiver needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub payload_type: u8,
    pub sequence: u16,
    pub timestamp: u32,
    pub ssrc: u32,
}

/// The header of a packet; `None` unless the version is 2 and contributing sources, extension and
/// padding lie inside the packet.
pub(super) fn header(packet: &[u8]) -> Option<Header> {
    let &[
        flags,
        marker_and_type,
        s1,
        s0,
        t3,
        t2,
        t1,
        t0,
        c3,
        c2,
        c1,
        c0,
    ] = packet.first_chunk()?;
    if flags >> 6 != 2 {
        return None;
    }
    let mut payload = packet.get(12 + 4 * usize::from(flags & 0x0f)..)?;
    if flags & 0x10 != 0 {
        let &[_, _, high, low] = payload.first_chunk()?;
        let words = usize::from(u16::from_be_bytes([high, low]));
        payload = payload.get(4 + 4 * words..)?;
    }
    if flags & 0x20 != 0 {
        let padding = usize::from(*payload.last()?);
        if padding == 0 || padding > payload.len() {
            return None;
        }
    }
    Some(Header {
        payload_type: marker_and_type & 0x7f,
        sequence: u16::from_be_bytes([s1, s0]),
        timestamp: u32::from_be_bytes([t3, t2, t1, t0]),
        ssrc: u32::from_be_bytes([c3, c2, c1, c0]),
    })
}

/// Whether this is a control packet that came where RTP is expected (RFC 5761, 4).
pub(super) fn is_control(packet: &[u8]) -> bool {
    matches!(packet, [flags, 200..=204, ..] if flags >> 6 == 2)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packet(flags: u8, rest: &[u8]) -> Vec<u8> {
        let mut bytes = vec![flags, 0xe0, 0x12, 0x34, 1, 2, 3, 4, 5, 6, 7, 8];
        bytes.extend_from_slice(rest);
        bytes
    }

    #[test]
    fn fields_are_read() {
        assert_eq!(
            header(&packet(0x80, b"payload")),
            Some(Header {
                payload_type: 96,
                sequence: 0x1234,
                timestamp: 0x0102_0304,
                ssrc: 0x0506_0708,
            })
        );
    }

    #[test]
    fn what_does_not_fit_its_packet_is_none() {
        let good: [(u8, &[u8]); 6] = [
            (0x80, &[]),
            (0x82, &[0; 8]),
            (0x90, &[0, 0, 0, 0]),
            (0x90, &[0, 0, 0, 1, 9, 9, 9, 9]),
            (0xa0, &[7, 7, 2]),
            (0xa0, &[7, 7, 3]),
        ];
        for (flags, rest) in good {
            assert!(header(&packet(flags, rest)).is_some(), "{flags:x} {rest:?}");
        }
        let bad: [(u8, &[u8]); 9] = [
            (0x00, &[]),
            (0x40, &[]),
            (0xc0, &[]),
            (0x82, &[0; 7]),
            (0x90, &[0, 0, 0]),
            (0x90, &[0, 0, 0, 1, 9, 9, 9]),
            (0xa0, &[]),
            (0xa0, &[7, 7, 0]),
            (0xa0, &[7, 7, 4]),
        ];
        for (flags, rest) in bad {
            assert_eq!(header(&packet(flags, rest)), None, "{flags:x} {rest:?}");
        }
        assert_eq!(header(&packet(0x80, &[])[..11]), None);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = header(&bytes);
            let _ = is_control(&bytes);
        }
    }
}
