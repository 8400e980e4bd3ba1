//! Addresses that are no ordinary host's, and IPv4 addresses in the clothes of IPv6. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// A range that nothing is connected to unless the configuration lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Special {
    /// What an address of it is, for people.
    pub name: &'static str,
    /// The range.
    pub net: IpNet,
}

const fn v4(name: &'static str, [a, b, c, d]: [u8; 4], prefix: u8) -> Special {
    Special {
        name,
        net: IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)),
    }
}

const fn v6(name: &'static str, [a, b, c, h]: [u16; 4], prefix: u8) -> Special {
    let address = Ipv6Addr::new(a, b, c, 0, 0, 0, 0, h);
    Special {
        name,
        net: IpNet::V6(Ipv6Net::new_assert(address, prefix)),
    }
}

const METADATA: &str = "the address of a cloud's metadata service";

/// The narrowest first: an address belongs to the first that holds it.
const SPECIAL: [Special; 24] = [
    v4(METADATA, [169, 254, 169, 254], 32),
    // Of tasks and pods on AWS, of Tencent, of Oracle, of Alibaba, of Azure.
    v4(METADATA, [169, 254, 170, 2], 32),
    v4(METADATA, [169, 254, 170, 23], 32),
    v4(METADATA, [169, 254, 0, 23], 32),
    v4(METADATA, [192, 0, 0, 192], 32),
    v4(METADATA, [100, 100, 100, 200], 32),
    v4(METADATA, [168, 63, 129, 16], 32),
    v6(METADATA, [0xfd00, 0x0ec2, 0, 0x254], 128),
    v6(METADATA, [0xfd00, 0x0ec2, 0, 0x23], 128),
    v6(METADATA, [0xfd20, 0x00ce, 0, 0x254], 128),
    v4("an unspecified address", [0, 0, 0, 0], 8),
    v6("an unspecified address", [0, 0, 0, 0], 128),
    v4("a loopback address", [127, 0, 0, 0], 8),
    v6("a loopback address", [0, 0, 0, 1], 128),
    v4("a link-local address", [169, 254, 0, 0], 16),
    v6("a link-local address", [0xfe80, 0, 0, 0], 10),
    v4("a multicast address", [224, 0, 0, 0], 4),
    v6("a multicast address", [0xff00, 0, 0, 0], 8),
    v4("the broadcast address", [255, 255, 255, 255], 32),
    v4("a reserved address", [240, 0, 0, 0], 4),
    // These carry an IPv4 address that cannot be read off for sure.
    v6("a Teredo address", [0x2001, 0, 0, 0], 32),
    v6("a local NAT64 address", [0x0064, 0xff9b, 1, 0], 48),
    // What is left of the range of IPv4-compatible addresses and its neighbours.
    v6("a reserved address", [0, 0, 0, 0], 8),
    v6("a site-local address", [0xfec0, 0, 0, 0], 10),
];

/// The special range that an address lies in; give it [`plain`] addresses.
pub(super) fn special(address: IpAddr) -> Option<Special> {
    let holds = |special: &&Special| special.net.contains(&address);
    SPECIAL.iter().find(holds).copied()
}

/// The address that a packet would end at: the IPv4 address inside an IPv4-mapped, -compatible or
/// -translated, a 6to4 or a NAT64 one, else the address itself.
pub(super) fn plain(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else {
        return address;
    };
    let segments = v6.segments();
    let low = || IpAddr::V4(inside(segments[6], segments[7]));
    match segments {
        // `::` and `::1` are addresses of their own.
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => address,
        [0, 0, 0, 0, 0, 0, ..] | [0, 0, 0, 0, 0, 0xffff, ..] | [0, 0, 0, 0, 0xffff, 0, ..] => low(),
        [0x0064, 0xff9b, 0, 0, 0, 0, ..] => low(),
        [0x2002, high, middle, ..] => IpAddr::V4(inside(high, middle)),
        _ => address,
    }
}

fn inside(high: u16, low: u16) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(high) << 16 | u32::from(low))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Option<&'static str> {
        special(plain(text.parse().unwrap())).map(|special| special.name)
    }

    #[test]
    fn ipv4_inside_ipv6_is_judged_as_what_it_is() {
        for (text, inside) in [
            ("::ffff:127.0.0.1", "127.0.0.1"),
            ("::ffff:0:127.0.0.1", "127.0.0.1"),
            ("::127.0.0.1", "127.0.0.1"),
            ("::2", "0.0.0.2"),
            ("2002:7f00:1::", "127.0.0.1"),
            ("2002:a9fe:a9fe::1", "169.254.169.254"),
            ("64:ff9b::10.0.0.7", "10.0.0.7"),
            ("::", "::"),
            ("::1", "::1"),
            ("2001:db8::1", "2001:db8::1"),
            ("10.0.0.7", "10.0.0.7"),
        ] {
            let expected: IpAddr = inside.parse().unwrap();
            assert_eq!(plain(text.parse().unwrap()), expected, "{text}");
        }
    }

    #[test]
    fn special_addresses_are_known_and_ordinary_ones_are_not_special() {
        for (text, expected) in [
            ("127.0.0.1", "loopback"),
            ("127.255.1.2", "loopback"),
            ("::1", "loopback"),
            ("::ffff:127.9.9.9", "loopback"),
            ("0.0.0.0", "unspecified"),
            ("0.1.2.3", "unspecified"),
            ("::", "unspecified"),
            ("169.254.1.1", "link-local"),
            ("fe80::1", "link-local"),
            ("febf::1", "link-local"),
            ("169.254.169.254", "metadata"),
            ("::ffff:169.254.169.254", "metadata"),
            ("64:ff9b::a9fe:a9fe", "metadata"),
            ("fd00:ec2::254", "metadata"),
            ("fd00:ec2::23", "metadata"),
            ("fd20:ce::254", "metadata"),
            ("169.254.170.23", "metadata"),
            ("169.254.0.23", "metadata"),
            ("192.0.0.192", "metadata"),
            ("100.100.100.200", "metadata"),
            ("168.63.129.16", "metadata"),
            ("224.0.0.1", "multicast"),
            ("239.255.255.250", "multicast"),
            ("ff02::1", "multicast"),
            ("255.255.255.255", "broadcast"),
            ("250.0.0.1", "reserved"),
            ("2001::1", "Teredo"),
            ("64:ff9b:1::1", "NAT64"),
            ("fec0::1", "site-local"),
            ("64:0::1", "reserved"),
        ] {
            let name = name(text).unwrap_or_else(|| panic!("{text} is not special"));
            assert!(name.contains(expected), "{text}: {name}");
        }
        for text in [
            "10.0.0.7",
            "172.16.3.4",
            "192.168.1.20",
            "100.64.0.1",
            "8.8.8.8",
            "fd00::7",
            "2606:4700::1111",
            "2002:a00:7::1",
            "::ffff:10.0.0.7",
        ] {
            assert_eq!(name(text), None, "{text}");
        }
    }
}
