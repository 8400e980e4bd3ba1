//! One entry of a list of hosts: a name, an address or a range, with or without ports. Pure.

use std::{fmt, net::IpAddr, ops::RangeInclusive, str::FromStr};

use ipnet::IpNet;

use super::special::plain;

/// Whom a connection may or may not go to.
///
/// As text: `cam7.example.org`, `*.example.org` (any name below it), `10.0.0.7`, `10.0.0.0/8`,
/// `fd00::/8`, each with `:PORT` or `:FIRST-LAST` after it; IPv6 with ports stands in brackets:
/// `[fd00::/8]:554`. Without ports it means all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    host: Host,
    ports: RangeInclusive<u16>,
    /// As it was written.
    text: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Host {
    Addresses(IpNet),
    Name(String),
    /// Any name that ends with this, its dot included.
    Below(String),
}

impl Rule {
    /// Whether it names this host, or a range that the address lies in, with the address's port.
    pub(super) fn holds(&self, host: &str, address: IpAddr, port: u16) -> bool {
        self.ports.contains(&port)
            && match &self.host {
                // A broad range of IPv6 addresses does not mean the IPv4 ones inside.
                Host::Addresses(net) => net.contains(&plain(address)),
                Host::Name(_) | Host::Below(_) => self.names(host),
            }
    }

    /// As [`holds`](Self::holds), and for a range also whether it holds the address as it is written,
    /// so that `2002::/16` can be denied.
    pub(super) fn touches(&self, host: &str, address: IpAddr, port: u16) -> bool {
        let as_written = match &self.host {
            Host::Addresses(net) => self.ports.contains(&port) && net.contains(&address),
            _ => false,
        };
        as_written || self.holds(host, address, port)
    }

    /// Whether some address of this host could pass: what can be said before the name is resolved.
    pub fn could_hold(&self, host: &str, port: u16) -> bool {
        if !self.ports.contains(&port) {
            return false;
        }
        match (&self.host, host.parse::<IpAddr>()) {
            (Host::Addresses(net), Ok(address)) => net.contains(&plain(address)),
            (Host::Addresses(_), Err(_)) => true,
            _ => self.names(host),
        }
    }

    /// The range, if it is one.
    pub(super) fn range(&self) -> Option<IpNet> {
        match self.host {
            Host::Addresses(net) => Some(net),
            _ => None,
        }
    }

    fn names(&self, host: &str) -> bool {
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        match &self.host {
            Host::Addresses(_) => false,
            Host::Name(name) => *name == host,
            Host::Below(end) => host.len() > end.len() && host.ends_with(end.as_str()),
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Rule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (host, ports) = split(text)?;
        Ok(Rule {
            host: of_host(host)?,
            ports: ports.map_or(Ok(0..=u16::MAX), of_ports)?,
            text: text.to_owned(),
        })
    }
}

/// Host and ports.
fn split(text: &str) -> Result<(&str, Option<&str>), String> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, after) = rest.split_once(']').ok_or("the bracket is not closed")?;
        return match after.strip_prefix(':') {
            Some(ports) => Ok((host, Some(ports))),
            None if after.is_empty() => Ok((host, None)),
            None => Err("after the bracket only :PORT may follow".into()),
        };
    }
    match text.split_once(':') {
        // More than one colon is an IPv6 address.
        Some((host, ports)) if !ports.contains(':') => Ok((host, Some(ports))),
        _ => Ok((text, None)),
    }
}

fn of_ports(text: &str) -> Result<RangeInclusive<u16>, String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
    match (port(first), port(last)) {
        (Some(first), Some(last)) if first <= last => Ok(first..=last),
        _ => Err(format!(
            "`{text}` is no port and no range of ports: write e.g. 554 or 554-560"
        )),
    }
}

fn of_host(text: &str) -> Result<Host, String> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return narrow(IpNet::from(address));
    }
    if text.contains('/') {
        let net: IpNet = text
            .parse()
            .map_err(|_| "no range of addresses: write e.g. 10.0.0.0/8 or fd00::/8".to_owned())?;
        if net.trunc() != net {
            return Err(format!(
                "an address inside a range, not a range: write {} for the range",
                net.trunc()
            ));
        }
        return narrow(net);
    }
    let (below, name) = match text.strip_prefix("*.") {
        Some(name) => (true, name),
        None => (false, text),
    };
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    let last = name.rsplit('.').next().unwrap_or_default();
    let of_names = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    // Resolvers take `127.1` and `0x7f000001` for addresses; here they would never match one.
    let numeric = last.starts_with("0x") || last.bytes().all(|b| b.is_ascii_digit());
    if name.is_empty() || name.len() > 253 || !name.bytes().all(of_names) || numeric {
        return Err("no host name, no address and no range of addresses: write e.g. cam7.example.org, *.example.org, 10.0.0.7 or 10.0.0.0/8".into());
    }
    Ok(if below {
        Host::Below(format!(".{name}"))
    } else {
        Host::Name(name)
    })
}

/// Refuses ranges that would never match, since IPv4 in IPv6 is judged as the IPv4 inside.
fn narrow(net: IpNet) -> Result<Host, String> {
    let inside = plain(net.addr());
    if inside.is_ipv4() && net.addr().is_ipv6() && net.prefix_len() > 16 {
        return Err(format!("IPv4 in IPv6: write it as IPv4, {inside}"));
    }
    Ok(Host::Addresses(net))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(text: &str) -> Rule {
        text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    fn holds(text: &str, host: &str, address: &str, port: u16) -> bool {
        rule(text).holds(host, address.parse().unwrap(), port)
    }

    #[test]
    fn names_match_whole_labels_in_any_case_with_or_without_the_last_dot() {
        let any = "10.0.0.7";
        assert!(holds("cam7.example.org", "CAM7.example.org", any, 1));
        assert!(holds("cam7.example.org", "cam7.example.org.", any, 1));
        assert!(holds("*.Example.org.", "a.b.example.org.", any, 1));
        for (text, host) in [
            ("cam7.example.org", "cam7.example.org.evil.net"),
            ("cam7.example.org", "xcam7.example.org"),
            ("*.example.org", "example.org"),
            ("*.example.org", ".example.org"),
            ("*.example.org", "evilexample.org"),
            ("10.0.0.7", "cam"),
        ] {
            let elsewhere = "192.168.0.1";
            assert!(!holds(text, host, elsewhere, 1), "{text} {host}");
        }
    }

    #[test]
    fn ranges_match_addresses_whatever_their_clothes() {
        for address in [
            "10.1.2.3",
            "::ffff:10.1.2.3",
            "2002:a01:203::9",
            "::10.1.2.3",
        ] {
            assert!(holds("10.0.0.0/8", "x", address, 554), "{address}");
        }
        assert!(!holds("10.0.0.0/8", "x", "11.0.0.1", 554));
        assert!(!holds("::/0", "x", "::ffff:10.1.2.3", 554));
        assert!(holds("fd00::/8", "x", "fd12::1", 554));
        assert!(!holds("fd00::/8", "x", "fe12::1", 554));
        assert!(rule("2002::/16").touches("x", "2002:a01:203::9".parse().unwrap(), 1));
    }

    #[test]
    fn ports_narrow_a_rule() {
        assert!(holds("10.0.0.7:554", "x", "10.0.0.7", 554));
        assert!(!holds("10.0.0.7:554", "x", "10.0.0.7", 555));
        assert!(holds("cam:554-560", "cam", "10.0.0.7", 560));
        assert!(!holds("cam:554-560", "cam", "10.0.0.7", 561));
        assert!(holds("[fd00::/8]:554", "x", "fd00::1", 554));
        assert!(!holds("[fd00::7]:554", "x", "fd00::7", 80));
        assert!(holds("[fd00::7]", "x", "fd00::7", 80));
    }

    #[test]
    fn before_resolution_only_what_cannot_pass_is_told_apart() {
        assert!(rule("*.example.org").could_hold("a.example.org", 1));
        assert!(!rule("*.example.org").could_hold("a.example.net", 1));
        assert!(rule("10.0.0.0/8").could_hold("a.example.net", 1));
        assert!(!rule("10.0.0.0/8").could_hold("11.0.0.1", 1));
        assert!(rule("10.0.0.0/8").could_hold("::ffff:10.0.0.1", 1));
        assert!(!rule("10.0.0.0/8:554").could_hold("10.0.0.1", 80));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "*",
            "*.",
            "a b",
            "cam*",
            "http://cam",
            "user@cam",
            "10.0.0.256",
            "10.0.0.1/8",
            "10.0.0.0/33",
            "127.1",
            "0x7f000001",
            "2130706433",
            "cam:0",
            "cam:70000",
            "cam:9-5",
            "cam:",
            "[fd00::1",
            "[fd00::1]x",
            "fd00::1/8",
            "::ffff:10.0.0.1",
            "::ffff:0:0/96",
        ] {
            assert!(text.parse::<Rule>().is_err(), "{text}");
        }
        assert_eq!(rule("10.0.0.0/8:554").to_string(), "10.0.0.0/8:554");
    }
}
