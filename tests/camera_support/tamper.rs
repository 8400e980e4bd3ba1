//! What a fault does to one connection's messages and packets. No I/O.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{
    fault::Fault,
    wire::{Message, frame, payload_start},
};

/// RTP ticks per second of every video codec here.
const CLOCK_RATE: i64 = 90_000;

/// Timestamps that are moved as soon as one is seen.
#[derive(Clone, Copy)]
enum Target {
    Zero,
    NearWrap,
}

impl Target {
    fn ticks(self) -> u32 {
        match self {
            Target::Zero => 0,
            Target::NearWrap => 0u32.wrapping_sub((CLOCK_RATE / 2) as u32),
        }
    }
}

/// One connection's state.
pub(super) struct Tamper {
    /// What the camera calls itself, and what the client shall call it.
    names: (String, String),
    fault: Option<Fault>,
    rng: ChaCha8Rng,
    garbage_left: u32,
    /// Added to RTP timestamps.
    offset: u32,
    target: Option<Target>,
    /// The channel of RTP; RTCP has the next.
    channel: u8,
    /// Bytes of the codec's own header in an RTP payload.
    codec_header: usize,
    /// BYE: to be said, or said.
    bye: Option<bool>,
    /// RTP packets that were lost or changed.
    pub(super) touched: u64,
    /// RTP packets that went through, changed or not.
    pub(super) passed: u64,
}

impl Tamper {
    pub(super) fn new(camera: String, proxy: String) -> Tamper {
        Tamper {
            names: (camera, proxy),
            fault: None,
            rng: ChaCha8Rng::seed_from_u64(0),
            garbage_left: 0,
            offset: 0,
            target: None,
            channel: 0,
            codec_header: 2,
            bye: None,
            touched: 0,
            passed: 0,
        }
    }

    /// From now on there is this fault.
    pub(super) fn begin(&mut self, fault: Option<&Fault>) {
        self.fault = fault.cloned();
        match fault {
            Some(Fault::LoseInterleaved { seed, .. } | Fault::BitFlip { seed, .. }) => {
                self.rng = ChaCha8Rng::seed_from_u64(*seed);
            }
            Some(Fault::Garbage { packets, seed }) => {
                self.rng = ChaCha8Rng::seed_from_u64(*seed);
                self.garbage_left = *packets;
            }
            Some(Fault::TimestampStep(seconds)) => {
                let ticks = i64::from(*seconds) * CLOCK_RATE;
                self.offset = self.offset.wrapping_add(ticks as u32);
            }
            Some(Fault::TimestampRestart) => self.target = Some(Target::Zero),
            Some(Fault::TimestampNearWrap) => self.target = Some(Target::NearWrap),
            Some(Fault::Bye) => self.say_bye(),
            _ => {}
        }
    }

    /// The next RTP packet becomes a BYE.
    pub(super) fn say_bye(&mut self) {
        self.bye = self.bye.or(Some(false));
    }

    /// A response of the camera as the client gets it.
    pub(super) fn message(&mut self, mut message: Message) -> Vec<u8> {
        let (camera, proxy) = self.names.clone();
        for (name, value) in &mut message.headers {
            *value = value.replace(&camera, &proxy);
            if name.eq_ignore_ascii_case("transport")
                && let Some(channel) = number_after(value, "interleaved=")
            {
                self.channel = channel as u8;
            }
            if name.eq_ignore_ascii_case("rtp-info")
                && let Some(time) = number_after(value, "rtptime=")
            {
                self.settle(time as u32);
                let moved = (time as u32).wrapping_add(self.offset);
                *value = value.replace(&format!("rtptime={time}"), &format!("rtptime={moved}"));
            }
        }
        if let Ok(body) = String::from_utf8(message.body.clone()) {
            if body.contains("H265/90000") {
                self.codec_header = 3;
            } else if body.contains("m=video") && body.contains("JPEG/90000") {
                self.codec_header = 8;
            }
            message.body = body.replace(&camera, &proxy).into_bytes();
        }
        message.bytes()
    }

    /// An interleaved packet of the camera as the client gets it, if it does.
    pub(super) fn packet(&mut self, channel: u8, mut data: Vec<u8>) -> Option<Vec<u8>> {
        if channel == self.channel.wrapping_add(1) {
            return self.report(channel, data);
        }
        if channel != self.channel {
            return Some(frame(channel, &data));
        }
        let start = payload_start(&data)?;
        match self.bye {
            Some(true) => return None,
            Some(false) => {
                self.bye = Some(true);
                let ssrc = &data[8..12];
                // An empty receiver report, since no packet begins with a BYE.
                let bye = [&[0x80, 201, 0, 1], ssrc, &[0x81, 203, 0, 1], ssrc].concat();
                return Some(frame(channel.wrapping_add(1), &bye));
            }
            None => {}
        }
        let time = u32::from_be_bytes([data[4], data[5], data[6], data[7]]);
        self.settle(time);
        data[4..8].copy_from_slice(&time.wrapping_add(self.offset).to_be_bytes());
        match self.fault {
            Some(Fault::Silence) => return self.lost(),
            Some(Fault::LoseInterleaved { probability, .. })
                if self.rng.random_bool(probability) =>
            {
                return self.lost();
            }
            Some(Fault::BitFlip { probability, .. })
                if self.rng.random_bool(probability) && start < data.len() =>
            {
                let at = self.rng.random_range(start..data.len());
                data[at] ^= 1 << self.rng.random_range(0..8);
                self.touched += 1;
            }
            Some(Fault::Garbage { .. }) if self.garbage_left > 0 => {
                let from = data.len().min(start + self.codec_header);
                self.rng.fill(&mut data[from..]);
                self.garbage_left -= 1;
                self.touched += 1;
            }
            _ => {}
        }
        self.passed += 1;
        Some(frame(channel, &data))
    }

    fn lost(&mut self) -> Option<Vec<u8>> {
        self.touched += 1;
        None
    }

    /// An RTCP packet: the clock that a sender report tells is the one that the client sees.
    fn report(&mut self, channel: u8, mut data: Vec<u8>) -> Option<Vec<u8>> {
        if self.bye.is_some() || self.target.is_some() {
            return None;
        }
        if data.len() >= 20 && data[1] == 200 {
            let time = u32::from_be_bytes([data[16], data[17], data[18], data[19]]);
            data[16..20].copy_from_slice(&time.wrapping_add(self.offset).to_be_bytes());
        }
        Some(frame(channel, &data))
    }

    /// Moves timestamps to where they are wanted, now that one is known.
    fn settle(&mut self, time: u32) {
        if let Some(target) = self.target.take() {
            self.offset = target.ticks().wrapping_sub(time);
        }
    }
}

fn number_after(text: &str, key: &str) -> Option<u64> {
    let rest = text.split_once(key)?.1;
    let digits = rest.find(|c: char| !c.is_ascii_digit());
    rest[..digits.unwrap_or(rest.len())].parse().ok()
}
