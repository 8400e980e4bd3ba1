//! Session descriptions (RFC 8866, and what cameras make of it) to the track that is wanted. Pure.

use super::{Codec, Failure, FailureKind, Track};
use crate::limits;

/// Names in the message that says what is offered instead of a usable track.
const OFFERED_MAX: usize = 8;

/// Characters of such a name.
const NAME_MAX_CHARS: usize = 24;

/// What a description says as far as it matters here.
#[derive(Debug, Default, PartialEq, Eq)]
struct Description {
    control: Option<String>,
    medias: Vec<Media>,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Media {
    kind: String,
    protocol: String,
    /// Payload types, as text.
    formats: Vec<String>,
    /// Name and value of each attribute.
    attributes: Vec<(String, String)>,
}

/// The video track and where it is controlled.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Chosen {
    pub track: Track,
    /// `a=control` of the session.
    pub session_control: Option<String>,
    /// `a=control` of the track.
    pub track_control: Option<String>,
}

/// Chooses the first video track of a codec that can be taken. Through TLS (`tls`) some servers, MediaMTX among
/// them, describe every track as SRTP, and give it as plain RTP to who asks for that.
pub(super) fn choose(body: &[u8], tls: bool) -> Result<Chosen, Failure> {
    // The library knows CR LF and LF; a description with CR alone is one line to it.
    let description = match sdp_types::Session::parse(body) {
        Ok(session) => Description::from(session),
        Err(_) => Description::read(&String::from_utf8_lossy(body)),
    };
    let found = description
        .medias
        .iter()
        .filter(|m| m.kind.eq_ignore_ascii_case("video") && m.can_be_plain_rtp(tls))
        .find_map(|m| m.track().map(|t| (m, t)));
    match found {
        Some((media, track)) => Ok(Chosen {
            track,
            track_control: control(&media.attributes),
            session_control: description.control,
        }),
        None if description.medias.is_empty() && !body.trim_ascii_start().starts_with(b"v=") => {
            Err(Failure::protocol(
                "the camera's description of its stream is no SDP",
            ))
        }
        None => Err(Failure::new(
            FailureKind::UnsupportedCodec,
            format!(
                "the camera offers no H.264, H.265 or JPEG video but {}",
                description.offered()
            ),
        )),
    }
}

impl From<sdp_types::Session> for Description {
    fn from(session: sdp_types::Session) -> Self {
        let pairs = |attributes: Vec<sdp_types::Attribute>| -> Vec<_> {
            attributes
                .into_iter()
                .map(|a| (a.attribute, a.value.unwrap_or_default()))
                .collect()
        };
        Description {
            control: control(&pairs(session.attributes)),
            medias: session
                .medias
                .into_iter()
                .map(|m| Media {
                    kind: m.media,
                    protocol: m.proto,
                    formats: m.fmt.split_whitespace().map(str::to_owned).collect(),
                    attributes: pairs(m.attributes),
                })
                .collect(),
        }
    }
}

impl Description {
    /// Takes `m=` and `a=` lines and passes over everything else. For descriptions that are wrong
    /// in places that do not matter here.
    fn read(text: &str) -> Description {
        let mut description = Description::default();
        for line in text.split(['\r', '\n', '\0']).map(str::trim) {
            if let Some(media) = line.strip_prefix("m=") {
                let mut words = media.split_whitespace();
                let kind = words.next().unwrap_or_default().to_owned();
                let protocol = words.nth(1).unwrap_or_default().to_owned();
                description.medias.push(Media {
                    kind,
                    protocol,
                    formats: words.map(str::to_owned).collect(),
                    attributes: Vec::new(),
                });
            } else if let Some(attribute) = line.strip_prefix("a=") {
                let (name, value) = attribute.split_once(':').unwrap_or((attribute, ""));
                let attribute = (name.trim().to_owned(), value.trim().to_owned());
                match description.medias.last_mut() {
                    Some(media) => media.attributes.push(attribute),
                    None if description.control.is_none() => {
                        description.control = control(&[attribute]);
                    }
                    None => {}
                }
            }
        }
        description
    }

    /// What there is, for people.
    fn offered(&self) -> String {
        let mut names: Vec<String> = self
            .medias
            .iter()
            .flat_map(|media| {
                let codecs: Vec<String> = media
                    .formats
                    .iter()
                    .map(|f| match media.rtpmap(f) {
                        Some((name, _)) => name.to_owned(),
                        None => format!("payload type {f}"),
                    })
                    .collect();
                let codecs = if codecs.is_empty() {
                    vec!["nothing".to_owned()]
                } else {
                    codecs
                };
                codecs.into_iter().map(|codec| {
                    if media.is_plain_rtp() {
                        format!("{} {}", printable(&media.kind), printable(&codec))
                    } else {
                        format!(
                            "{} {} over {}",
                            printable(&media.kind),
                            printable(&codec),
                            printable(&media.protocol)
                        )
                    }
                })
            })
            .take(OFFERED_MAX + 1)
            .collect();
        if names.len() > OFFERED_MAX {
            names.truncate(OFFERED_MAX);
            names.push("more".to_owned());
        }
        if names.is_empty() {
            "nothing at all".to_owned()
        } else {
            names.join(", ")
        }
    }
}

impl Media {
    /// RTP without encryption, whatever carries it. Some cameras leave the protocol out.
    fn is_plain_rtp(&self) -> bool {
        let protocol = self.protocol.to_ascii_uppercase();
        protocol.is_empty() || protocol.starts_with("RTP/AVP")
    }

    fn can_be_plain_rtp(&self, tls: bool) -> bool {
        let secure = || self.protocol.to_ascii_uppercase().starts_with("RTP/SAVP");
        self.is_plain_rtp() || (tls && secure())
    }

    /// The values of an attribute that begin with a payload type, without it.
    fn of_format<'a>(&'a self, attribute: &'a str, format: &'a str) -> Option<&'a str> {
        self.attributes
            .iter()
            .filter(|(name, _)| name.eq_ignore_ascii_case(attribute))
            .find_map(|(_, value)| {
                let (of, rest) = value.trim().split_once(char::is_whitespace)?;
                (of == format).then_some(rest.trim())
            })
    }

    /// Encoding name and clock rate, 0 where there is none.
    fn rtpmap<'a>(&'a self, format: &'a str) -> Option<(&'a str, u32)> {
        let mut parts = self.of_format("rtpmap", format)?.split('/');
        let name = parts.next()?.trim();
        let rate = parts.next().and_then(|r| r.trim().parse().ok());
        Some((name, rate.unwrap_or(0)))
    }

    /// The first format that can be taken.
    fn track(&self) -> Option<Track> {
        self.formats.iter().find_map(|format| {
            let payload_type: u8 = format.parse().ok().filter(|n| *n < 128)?;
            let (codec, clock_rate) = match self.rtpmap(format) {
                Some((name, rate)) => (codec(name)?, rate),
                None if payload_type == 26 => (Codec::Mjpeg, 0),
                None => return None,
            };
            let mut parameters = parameters(self.of_format("fmtp", format).unwrap_or(""));
            // Of JPEG wider or higher than 2040 pixels, which its packets have no room for.
            let size = |(name, _): &&(String, String)| name.eq_ignore_ascii_case("x-dimensions");
            if let Some((_, value)) = self.attributes.iter().find(size) {
                parameters.push(("x-dimensions".to_owned(), value.trim().to_owned()));
            }
            Some(Track {
                codec,
                payload_type,
                // All three formats are defined for 90 kHz.
                clock_rate: if clock_rate == 0 { 90_000 } else { clock_rate },
                parameters,
            })
        })
    }
}

fn codec(name: &str) -> Option<Codec> {
    match name.to_ascii_uppercase().as_str() {
        "H264" => Some(Codec::H264),
        "H265" | "HEVC" => Some(Codec::H265),
        "JPEG" => Some(Codec::Mjpeg),
        _ => None,
    }
}

/// `a=1; B=2` to pairs, the names in lower case.
fn parameters(text: &str) -> Vec<(String, String)> {
    text.split(';')
        .map(str::trim)
        .filter(|p| !p.is_empty())
        .map(|p| {
            let (name, value) = p.split_once('=').unwrap_or((p, ""));
            (name.trim().to_ascii_lowercase(), value.trim().to_owned())
        })
        .collect()
}

fn control(attributes: &[(String, String)]) -> Option<String> {
    attributes
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case("control"))
        .map(|(_, value)| value.trim().to_owned())
        .filter(|v| !v.is_empty() && v.len() <= limits::RTSP_CONTROL_MAX_BYTES)
}

/// A name as it may stand in a message.
fn printable(name: &str) -> String {
    name.chars()
        .filter(|c| c.is_ascii_alphanumeric() || "-._/ ".contains(*c))
        .take(NAME_MAX_CHARS)
        .collect()
}

/// Where requests for a `control` attribute go: an absolute one there, `*` or none to the base,
/// others below the base. The last is joined as text, since cameras expect it behind the query.
pub(super) fn control_url(base: &url::Url, control: Option<&str>) -> Result<url::Url, Failure> {
    let unusable =
        || Failure::protocol("the camera's description of its stream has an unusable control URL");
    let control = match control {
        None | Some("*") => return Ok(base.clone()),
        Some(control) => control,
    };
    if control.len() > limits::RTSP_CONTROL_MAX_BYTES {
        return Err(unusable());
    }
    let scheme = control.split_once("://").map(|(scheme, _)| scheme);
    let url = match scheme {
        Some(scheme)
            if scheme.eq_ignore_ascii_case("rtsp") || scheme.eq_ignore_ascii_case("rtsps") =>
        {
            url::Url::parse(control)
        }
        Some(_) => return Err(unusable()),
        None if control.starts_with('/') => base.join(control),
        None => url::Url::parse(&format!(
            "{}/{control}",
            base.as_str().trim_end_matches('/')
        )),
    };
    let mut url = url.map_err(|_| unusable())?;
    url.set_fragment(None);
    crate::net::strip(&mut url).map_err(|_| unusable())?;
    Ok(url)
}

#[cfg(test)]
mod tests;
