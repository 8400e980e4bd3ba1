//! The `Transport` header: what we ask for and what the camera grants. Pure.

use std::net::IpAddr;

use super::Failure;

/// Where the packets of the track will come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Granted {
    /// Channels of RTP and of RTCP.
    Interleaved(u8, u8),
    /// The camera's ports for RTP and RTCP where it told them.
    Datagrams(Option<(u16, u16)>),
}

/// What we ask for over TCP.
pub(super) const INTERLEAVED: &str = "RTP/AVP/TCP;unicast;interleaved=0-1";

/// What we ask for over UDP.
pub(super) fn datagrams(rtp: u16, rtcp: u16) -> String {
    format!("RTP/AVP;unicast;client_port={rtp}-{rtcp}")
}

/// Reads the answer to [`INTERLEAVED`]. A camera that does not repeat the channels uses those that
/// were asked for.
pub(super) fn granted_interleaved(answer: Option<&str>) -> Result<Granted, Failure> {
    let Some(answer) = answer else {
        return Ok(Granted::Interleaved(0, 1));
    };
    let parameters = Parameters::of(answer);
    if let Some(channels) = parameters.get("interleaved") {
        let (rtp, rtcp) = pair::<u8>(channels, |n| n.wrapping_add(1)).ok_or_else(unreadable)?;
        if rtp == rtcp {
            return Err(unreadable());
        }
        return Ok(Granted::Interleaved(rtp, rtcp));
    }
    if parameters.is_tcp() {
        return Ok(Granted::Interleaved(0, 1));
    }
    Err(Failure::protocol(
        "the camera was asked for TCP and grants another transport; ask for UDP",
    ))
}

/// Reads the answer to [`datagrams`]. `camera` is the address that was connected to; packets from
/// another `source` are not taken, whatever the answer says.
pub(super) fn granted_datagrams(answer: Option<&str>, camera: IpAddr) -> Result<Granted, Failure> {
    let Some(answer) = answer else {
        return Ok(Granted::Datagrams(None));
    };
    let parameters = Parameters::of(answer);
    if parameters.is_tcp() || parameters.get("interleaved").is_some() {
        return Err(Failure::protocol(
            "the camera was asked for UDP and grants TCP; ask for TCP",
        ));
    }
    if parameters.get("multicast").is_some() {
        return Err(Failure::protocol(
            "the camera grants multicast, which is not taken; ask for TCP",
        ));
    }
    let elsewhere = parameters
        .get("source")
        .and_then(|s| s.trim_matches(['[', ']']).parse::<IpAddr>().ok())
        .is_some_and(|source| source.to_canonical() != camera.to_canonical());
    if elsewhere {
        tracing::debug!("the camera names another source of its packets, which is ignored");
    }
    let ports = match parameters.get("server_port") {
        Some(ports) => pair::<u16>(ports, |n| n.wrapping_add(1))
            .ok_or_else(unreadable)
            .map(|ports| Some(ports).filter(|(rtp, rtcp)| *rtp != 0 && *rtcp != 0))?,
        None => None,
    };
    Ok(Granted::Datagrams(ports))
}

fn unreadable() -> Failure {
    Failure::protocol("the camera's answer to SETUP has a Transport header that cannot be read")
}

/// `a-b`, or `a` alone with its follower.
fn pair<T: std::str::FromStr + Copy>(text: &str, after: impl Fn(T) -> T) -> Option<(T, T)> {
    match text.split_once('-') {
        Some((a, b)) => Some((a.trim().parse().ok()?, b.trim().parse().ok()?)),
        None => {
            let a = text.trim().parse().ok()?;
            Some((a, after(a)))
        }
    }
}

/// The first transport of a header, cut into its parts.
struct Parameters<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Parameters<'a> {
    fn of(header: &'a str) -> Self {
        let first = header.split(',').next().unwrap_or_default();
        Parameters(
            first
                .split(';')
                .map(|p| p.split_once('=').unwrap_or((p, "")))
                .map(|(name, value)| (name.trim(), value.trim().trim_matches('"')))
                .collect(),
        )
    }

    fn get(&self, name: &str) -> Option<&'a str> {
        self.0
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, value)| *value)
    }

    fn is_tcp(&self) -> bool {
        let profile = self.0.first().map_or("", |(name, _)| *name);
        profile.to_ascii_uppercase().ends_with("/TCP")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn channels_are_those_of_the_answer() {
        let granted = |text| granted_interleaved(text);
        for (answer, channels) in [
            ("RTP/AVP/TCP;unicast;interleaved=4-5;ssrc=1a2b", (4, 5)),
            ("RTP/AVP/TCP;interleaved=6", (6, 7)),
            (
                "RTP/AVP/TCP;unicast; Interleaved = 8 - 9 ;mode=\"PLAY\"",
                (8, 9),
            ),
            ("RTP/AVP/TCP;unicast", (0, 1)),
        ] {
            assert_eq!(
                granted(Some(answer)),
                Ok(Granted::Interleaved(channels.0, channels.1))
            );
        }
        assert_eq!(granted(None), Ok(Granted::Interleaved(0, 1)));
        for answer in [
            "RTP/AVP;unicast;client_port=1-2",
            "RTP/AVP/TCP;interleaved=a-b",
            "RTP/AVP/TCP;interleaved=256-257",
            "RTP/AVP/TCP;interleaved=3-3",
            "",
        ] {
            assert!(granted(Some(answer)).is_err(), "{answer}");
        }
    }

    #[test]
    fn ports_are_those_of_the_answer() {
        let camera = IpAddr::from([10, 0, 0, 7]);
        let granted = |text| granted_datagrams(Some(text), camera);
        for (answer, ports) in [
            (
                "RTP/AVP;unicast;client_port=5000-5001;server_port=6970-6971;source=10.0.0.9",
                Some((6970, 6971)),
            ),
            ("RTP/AVP/UDP;unicast;server_port=6970", Some((6970, 6971))),
            ("RTP/AVP;unicast;client_port=5000-5001", None),
            ("RTP/AVP;unicast;server_port=0-0", None),
        ] {
            assert_eq!(granted(answer), Ok(Granted::Datagrams(ports)));
        }
        for answer in [
            "RTP/AVP/TCP;unicast;interleaved=0-1",
            "RTP/AVP;multicast;destination=224.1.1.1",
            "RTP/AVP;unicast;server_port=x-y",
            "RTP/AVP;unicast;server_port=70000-70001",
        ] {
            assert!(granted(answer).is_err(), "{answer}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_answers_do_no_harm(answer in "[ -~]{0,80}") {
            let _ = granted_interleaved(Some(&answer));
            let _ = granted_datagrams(Some(&answer), IpAddr::from([10, 0, 0, 7]));
        }
    }
}
