//! Where connections may go by configuration. Pure.

use std::{net::SocketAddr, sync::Arc};

use super::{Rule, Vet, special};

/// Lists of whom connections may go to.
///
/// A denied host is refused. Addresses of this machine, of its link, of metadata services, multicast
/// and reserved ones are refused unless a range that lies inside theirs is allowed: neither a name nor
/// a broad range opens them. Where anything is allowed, all else is refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// Empty: all that is not refused otherwise.
    pub allow: Vec<Rule>,
    /// Wins over `allow`.
    pub deny: Vec<Rule>,
}

impl Vet for Reach {
    fn vet(&self, host: &str, address: SocketAddr) -> Result<(), String> {
        let (ip, port) = (address.ip(), address.port());
        if let Some(rule) = self.deny.iter().find(|r| r.touches(host, ip, port)) {
            return Err(format!("the server's sources.deny has {rule}"));
        }
        let mut allowing = self.allow.iter().filter(|rule| rule.holds(host, ip, port));
        if let Some(special) = special::special(special::plain(ip)) {
            let opens = |rule: &Rule| rule.range().is_some_and(|net| special.net.contains(&net));
            return if allowing.any(opens) {
                Ok(())
            } else {
                Err(format!(
                    "it is {}, which is refused unless the server's sources.allow lists it, as {} or a part of it",
                    special.name, special.net
                ))
            };
        }
        if self.allow.is_empty() || allowing.next().is_some() {
            Ok(())
        } else {
            Err("it is not in the server's sources.allow".into())
        }
    }
}

/// Where the holder of a token may have connections go: only where the server may go too.
#[derive(Clone)]
pub struct Within {
    /// Where the server may go.
    pub server: Arc<dyn Vet>,
    /// Where the token lets it.
    pub rules: Arc<[Rule]>,
}

impl Vet for Within {
    fn vet(&self, host: &str, address: SocketAddr) -> Result<(), String> {
        self.server.vet(host, address)?;
        let (ip, port) = (address.ip(), address.port());
        if self.rules.iter().any(|rule| rule.holds(host, ip, port)) {
            Ok(())
        } else {
            Err("it is not among the sources of this token".into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(texts: &[&str]) -> Vec<Rule> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn judged(allow: &[&str], deny: &[&str], host: &str, address: &str) -> Result<(), String> {
        let reach = Reach {
            allow: rules(allow),
            deny: rules(deny),
        };
        reach.vet(host, address.parse().unwrap())
    }

    #[test]
    fn without_lists_cameras_are_reached_and_special_addresses_are_not() {
        for address in [
            "10.0.0.7:554",
            "192.168.1.2:8554",
            "[fd00::7]:554",
            "8.8.8.8:80",
        ] {
            assert_eq!(judged(&[], &[], "cam", address), Ok(()), "{address}");
        }
        for (address, class) in [
            ("127.0.0.1:554", "loopback"),
            ("[::1]:554", "loopback"),
            ("[::ffff:127.0.0.1]:554", "loopback"),
            ("[64:ff9b::7f00:1]:554", "loopback"),
            ("[2002:7f00:1::]:554", "loopback"),
            ("0.0.0.0:554", "unspecified"),
            ("169.254.169.254:80", "metadata"),
            ("[fd00:ec2::254]:80", "metadata"),
            ("[fe80::1]:554", "link-local"),
            ("239.1.1.1:554", "multicast"),
        ] {
            let why = judged(&[], &[], "cam", address).unwrap_err();
            assert!(
                why.contains(class) && why.contains("sources.allow"),
                "{why}"
            );
        }
    }

    #[test]
    fn special_addresses_open_only_to_a_range_of_their_own() {
        let loopback = "127.0.0.1:554";
        assert_eq!(judged(&["127.0.0.0/8"], &[], "cam", loopback), Ok(()));
        assert_eq!(judged(&["127.0.0.1:554"], &[], "cam", loopback), Ok(()));
        assert!(judged(&["127.0.0.1:555"], &[], "cam", loopback).is_err());
        for broad in ["0.0.0.0/0", "localhost", "*.example.org", "126.0.0.0/7"] {
            let host = if broad.starts_with('*') {
                "a.example.org"
            } else {
                "localhost"
            };
            let why = judged(&[broad], &[], host, loopback).unwrap_err();
            assert!(why.contains("127.0.0.0/8"), "{broad}: {why}");
        }
        // Its link does not mean the metadata service on it.
        let metadata = "169.254.169.254:80";
        assert!(judged(&["169.254.0.0/16"], &[], "x", metadata).is_err());
        assert_eq!(
            judged(&["169.254.0.0/16"], &[], "x", "169.254.7.7:80"),
            Ok(())
        );
        assert_eq!(judged(&["169.254.169.254"], &[], "x", metadata), Ok(()));
    }

    #[test]
    fn what_is_not_allowed_is_refused_and_deny_wins() {
        let allow = ["10.0.0.0/8:554", "*.cams.example"];
        assert_eq!(judged(&allow, &[], "x", "10.1.1.1:554"), Ok(()));
        assert_eq!(judged(&allow, &[], "a.cams.example", "8.8.8.8:80"), Ok(()));
        let why = judged(&allow, &[], "x", "10.1.1.1:80").unwrap_err();
        assert!(why.contains("sources.allow"), "{why}");
        let why = judged(&allow, &["10.1.0.0/16"], "x", "10.1.1.1:554").unwrap_err();
        assert!(why.contains("10.1.0.0/16"), "{why}");
        let why = judged(&[], &["2002::/16"], "x", "[2002:a01:203::1]:80").unwrap_err();
        assert!(why.contains("2002::/16"), "{why}");
        let why = judged(&[], &["evil.example"], "EVIL.example.", "8.8.8.8:80").unwrap_err();
        assert!(why.contains("evil.example"), "{why}");
    }
}
