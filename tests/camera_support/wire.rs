//! RTSP over TCP as bytes: messages and interleaved frames; RTP headers.

/// A request or a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The first line.
    pub start: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Message {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|h| h.0.eq_ignore_ascii_case(name));
        found.map(|h| h.1.as_str())
    }

    /// Status of a response.
    pub fn status(&self) -> u16 {
        let word = self.start.split(' ').nth(1).unwrap_or_default();
        word.parse().unwrap_or(0)
    }

    /// Method of a request.
    pub fn method(&self) -> &str {
        self.start.split(' ').next().unwrap_or_default()
    }

    /// As it goes over the wire, with the length of the body that it has.
    pub fn bytes(&self) -> Vec<u8> {
        let mut text = format!("{}\r\n", self.start);
        for (name, value) in &self.headers {
            if !name.eq_ignore_ascii_case("content-length") {
                text += &format!("{name}: {value}\r\n");
            }
        }
        if !self.body.is_empty() {
            text += &format!("Content-Length: {}\r\n", self.body.len());
        }
        text += "\r\n";
        [text.as_bytes(), &self.body].concat()
    }
}

/// What comes over the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    Message(Message),
    /// An interleaved packet with its channel.
    Frame(u8, Vec<u8>),
}

/// Longest head of a message, bytes.
const HEAD_MAX: usize = 64 << 10;

/// Takes the first whole piece off the front of `bytes`; `None` if more are needed.
pub fn take(bytes: &mut Vec<u8>) -> Result<Option<Piece>, String> {
    if bytes.first() == Some(&b'$') {
        if bytes.len() < 4 {
            return Ok(None);
        }
        let end = 4 + usize::from(u16::from_be_bytes([bytes[2], bytes[3]]));
        if bytes.len() < end {
            return Ok(None);
        }
        let piece = Piece::Frame(bytes[1], bytes[4..end].to_vec());
        bytes.drain(..end);
        return Ok(Some(piece));
    }
    let Some(head) = bytes.windows(4).position(|w| w == b"\r\n\r\n") else {
        return match bytes.len() > HEAD_MAX {
            true => Err("a message head without an end".to_owned()),
            false => Ok(None),
        };
    };
    let text = std::str::from_utf8(&bytes[..head]).map_err(|e| e.to_string())?;
    let mut lines = text.split("\r\n");
    let mut message = Message {
        start: lines.next().unwrap_or_default().to_owned(),
        headers: Vec::new(),
        body: Vec::new(),
    };
    for line in lines {
        let (name, value) = line.split_once(':').ok_or(format!("header `{line}`"))?;
        let header = (name.trim().to_owned(), value.trim().to_owned());
        message.headers.push(header);
    }
    let length = match message.header("content-length") {
        Some(length) => length.parse::<usize>().map_err(|e| e.to_string())?,
        None => 0,
    };
    let end = head + 4 + length;
    if bytes.len() < end {
        return Ok(None);
    }
    message.body = bytes[head + 4..end].to_vec();
    bytes.drain(..end);
    Ok(Some(Piece::Message(message)))
}

/// An interleaved frame as bytes.
pub fn frame(channel: u8, data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(data.len()).unwrap().to_be_bytes();
    [&[b'$', channel], &length[..], data].concat()
}

/// An RTP packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rtp {
    pub marker: bool,
    pub sequence: u16,
    pub timestamp: u32,
    pub ssrc: u32,
    pub payload: Vec<u8>,
}

impl Rtp {
    pub fn parse(data: &[u8]) -> Option<Rtp> {
        let start = payload_start(data)?;
        Some(Rtp {
            marker: data[1] & 0x80 != 0,
            sequence: u16::from_be_bytes([data[2], data[3]]),
            timestamp: u32::from_be_bytes([data[4], data[5], data[6], data[7]]),
            ssrc: u32::from_be_bytes([data[8], data[9], data[10], data[11]]),
            payload: data[start..].to_vec(),
        })
    }
}

/// Where the payload of an RTP packet begins: after CSRCs and the header extension.
pub fn payload_start(data: &[u8]) -> Option<usize> {
    if data.len() < 12 || data[0] >> 6 != 2 {
        return None;
    }
    let mut at = 12 + 4 * usize::from(data[0] & 15);
    if data[0] & 0x10 != 0 {
        let words = u16::from_be_bytes([*data.get(at + 2)?, *data.get(at + 3)?]);
        at += 4 + 4 * usize::from(words);
    }
    (at <= data.len()).then_some(at)
}
