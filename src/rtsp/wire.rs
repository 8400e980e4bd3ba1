//! Bytes to messages and interleaved packets; pure. What is found is bounded before it is kept.
//!
//! The message itself is read by rtsp-types. Before that a head is put in order here, since cameras
//! end lines with LF alone, put Latin-1 into `Server` and spaces before colons.

use prost::bytes::{Buf as _, Bytes, BytesMut};
use rtsp_types::{Message, Request, Response};

use super::Failure;
use crate::limits;

/// Something complete that the peer sent.
#[derive(Debug)]
pub(super) enum Incoming {
    /// An answer, and its `WWW-Authenticate` headers one by one: rtsp-types joins them, and then
    /// one that cannot be read would spoil the others.
    Response(Response<Vec<u8>>, Vec<String>),
    Request(Request<Vec<u8>>),
    /// `$`, channel, length, data.
    Frame(u8, Bytes),
}

/// Collects bytes and cuts them.
#[derive(Debug, Default)]
pub(super) struct Framer {
    /// What has arrived and was not cut off yet.
    pub buffer: BytesMut,
    /// Of it, what was searched for the end of a head already.
    scanned: usize,
    head: Option<Head>,
}

#[derive(Debug)]
struct Head {
    /// In order, without the empty line and without Content-Length.
    text: String,
    challenges: Vec<String>,
    /// Bytes of the body that follows.
    body: usize,
}

impl Framer {
    /// The next complete thing; `None` where more bytes are needed. After an error nothing more
    /// can be found.
    pub fn take(&mut self) -> Result<Option<Incoming>, Failure> {
        if self.head.is_none() {
            let blank = |b: &u8| matches!(b, b'\r' | b'\n');
            if self.scanned == 0 {
                let blanks = self.buffer.iter().take_while(|b| blank(b)).count();
                self.buffer.advance(blanks);
            }
            match self.buffer.first() {
                None => return Ok(None),
                Some(b'$') => return Ok(self.take_frame()),
                Some(b) if b.is_ascii_alphabetic() => {}
                Some(_) => {
                    return Err(Failure::protocol(
                        "the camera sent bytes that are neither an RTSP message nor a packet",
                    ));
                }
            }
            let Some(end) = self.find_end()? else {
                return Ok(None);
            };
            let raw = self.buffer.split_to(end);
            self.scanned = 0;
            self.head = Some(Head::read(&raw)?);
        }
        let Some(head) = self.head.take_if(|h| self.buffer.len() >= h.body) else {
            return Ok(None);
        };
        let body = self.buffer.split_to(head.body);
        head.with(&body).map(Some)
    }

    fn take_frame(&mut self) -> Option<Incoming> {
        let &[_, channel, high, low] = self.buffer.first_chunk()?;
        let length = usize::from(u16::from_be_bytes([high, low]));
        if self.buffer.len() < 4 + length {
            return None;
        }
        self.buffer.advance(4);
        // A copy, so that who keeps a packet does not keep everything that was read with it.
        let data = Bytes::copy_from_slice(&self.buffer[..length]);
        self.buffer.advance(length);
        Some(Incoming::Frame(channel, data))
    }

    /// Where the empty line after the head ends.
    fn find_end(&mut self) -> Result<Option<usize>, Failure> {
        let bytes = &self.buffer[..];
        for (at, _) in bytes
            .iter()
            .enumerate()
            .skip(self.scanned)
            .filter(|(_, b)| **b == b'\n')
        {
            let line = &bytes[..at];
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.last() == Some(&b'\n') && at < limits::RTSP_HEAD_MAX_BYTES {
                return Ok(Some(at + 1));
            }
        }
        self.scanned = bytes.len();
        if bytes.len() >= limits::RTSP_HEAD_MAX_BYTES {
            return Err(Failure::protocol(format!(
                "the head of the camera's message is longer than {} bytes",
                limits::RTSP_HEAD_MAX_BYTES
            )));
        }
        Ok(None)
    }
}

impl Head {
    fn read(raw: &[u8]) -> Result<Head, Failure> {
        let raw = String::from_utf8_lossy(raw);
        let mut lines = raw.lines().map(|l| l.replace(['\r', '\0'], " "));
        let first = lines.next().unwrap_or_default();
        let mut head = Head {
            text: first.trim_end().to_owned(),
            challenges: Vec::new(),
            body: 0,
        };
        // `RTSP/1.0 200` without a reason.
        if head.text.split(' ').count() == 2 && head.text.starts_with("RTSP/") {
            head.text.push(' ');
        }
        let mut length = None;
        for line in unfolded(lines) {
            let Some((name, value)) = line.split_once(':') else {
                continue;
            };
            let (name, value) = (name.trim(), value.trim());
            let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
            if name.is_empty() || !name.bytes().all(token) {
                continue;
            }
            if name.eq_ignore_ascii_case("content-length") {
                length = length.or(Some(value.to_owned()));
                continue;
            }
            if name.eq_ignore_ascii_case("www-authenticate") {
                head.challenges.push(value.to_owned());
                continue;
            }
            head.text.push_str("\r\n");
            head.text.push_str(name);
            head.text.push_str(": ");
            head.text.push_str(value);
        }
        if let Some(length) = length {
            head.body = length
                .parse()
                .ok()
                .filter(|n| *n <= limits::RTSP_BODY_MAX_BYTES)
                .ok_or_else(|| {
                    Failure::protocol(format!(
                        "the camera announces a message body that is not of 0 to {} bytes",
                        limits::RTSP_BODY_MAX_BYTES
                    ))
                })?;
        }
        Ok(head)
    }

    fn with(self, body: &[u8]) -> Result<Incoming, Failure> {
        let mut bytes = self.text.into_bytes();
        bytes.extend_from_slice(format!("\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes());
        bytes.extend_from_slice(body);
        match Message::<Vec<u8>>::parse(&bytes) {
            Ok((Message::Response(response), _)) => {
                Ok(Incoming::Response(response, self.challenges))
            }
            Ok((Message::Request(request), _)) => Ok(Incoming::Request(request)),
            Ok((Message::Data(_), _)) | Err(_) => Err(Failure::protocol(
                "the camera sent a message that is no RTSP",
            )),
        }
    }
}

/// Joins lines that begin with a space or a tab to the one before.
fn unfolded(lines: impl Iterator<Item = String>) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    for line in lines {
        match out.last_mut() {
            Some(last) if line.starts_with([' ', '\t']) => {
                last.push(' ');
                last.push_str(line.trim());
            }
            _ => out.push(line),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rtsp_types::headers;

    use super::*;

    fn fed(framer: &mut Framer, bytes: &[u8], step: usize) -> Result<Vec<Incoming>, Failure> {
        let mut out = Vec::new();
        for part in bytes.chunks(step) {
            framer.buffer.extend_from_slice(part);
            while let Some(incoming) = framer.take()? {
                out.push(incoming);
            }
        }
        Ok(out)
    }

    #[test]
    fn messages_and_packets_are_cut_wherever_the_bytes_are_split() {
        let bytes = b"\r\nRTSP/1.0 200 OK\r\nCSeq: 1\r\nContent-Length: 4\r\n\r\nbody\
            $\x02\x00\x03abcOPTIONS rtsp://cam/ RTSP/1.0\r\nCSeq: 9\r\n\r\n$\x00\x00\x00";
        for step in [1, 2, 3, 7, 1000] {
            let got = fed(&mut Framer::default(), bytes, step).unwrap();
            let [
                Incoming::Response(response, _),
                Incoming::Frame(2, data),
                Incoming::Request(request),
                Incoming::Frame(0, empty),
            ] = &got[..]
            else {
                panic!("{got:?}");
            };
            assert_eq!(response.body(), b"body");
            assert_eq!(&data[..], b"abc");
            assert_eq!(request.method(), rtsp_types::Method::Options);
            assert!(empty.is_empty());
        }
    }

    #[test]
    fn untidy_heads_are_read() {
        let bytes = b"RTSP/1.0 401\nCSeq : 3\nServer: K\xe4mera\nnonsense\n: empty\n\
            WWW-Authenticate: Digest realm=\"a\",\n nonce=\"b\"\nwww-authenticate: Basic realm=\"c\"\n\
            X:\n\n";
        let got = fed(&mut Framer::default(), bytes, 1).unwrap();
        let [Incoming::Response(response, challenges)] = &got[..] else {
            panic!("{got:?}");
        };
        assert_eq!(u16::from(response.status()), 401);
        assert_eq!(response.header(&headers::CSEQ).unwrap().as_str(), "3");
        assert_eq!(
            challenges,
            &["Digest realm=\"a\", nonce=\"b\"", "Basic realm=\"c\""]
        );
    }

    #[test]
    fn what_is_too_large_or_foreign_is_refused() {
        let long = [b"RTSP/1.0 200 OK\r\nX: ".as_slice(), &[b'a'; 20_000]].concat();
        for bytes in [
            &long[..],
            b"\x16\x03\x01\x02\x00",
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
            b"RTSP/1.0 200 OK\r\nContent-Length: 262145\r\n\r\n",
            b"RTSP/1.0 200 OK\r\nContent-Length: -1\r\n\r\n",
            b"RTSP/1.0 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\n",
            b"RTSP/3.0 200 OK\r\n\r\n",
            b"RTSP/1.0 2x0 OK\r\n\r\n",
            b"OPTIONS /relative RTSP/1.0\r\n\r\n",
        ] {
            let failure = fed(&mut Framer::default(), bytes, 100).unwrap_err();
            assert_eq!(failure.kind, super::super::FailureKind::Protocol);
        }
    }

    #[test]
    fn the_largest_packet_fits() {
        let bytes = [&[b'$', 7, 0xff, 0xff][..], &[1; 65_535]].concat();
        let got = fed(&mut Framer::default(), &bytes, 4096).unwrap();
        assert!(matches!(&got[..], [Incoming::Frame(7, data)] if data.len() == 65_535));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..400), step in 1_usize..50) {
            let _ = fed(&mut Framer::default(), &bytes, step);
        }

        #[test]
        fn arbitrary_heads_do_no_harm(head in "(RTSP/1.0 [0-9]{1,4} |[A-Z]{1,9} [ -~]{0,9} RTSP/1.0)([\r\n]{1,2}[ -~\t]{0,30}){0,5}\r\n\r\n", step in 1_usize..50) {
            let _ = fed(&mut Framer::default(), head.as_bytes(), step);
        }
    }
}
