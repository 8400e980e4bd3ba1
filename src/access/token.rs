//! A token, and what its holder may do.

use std::{fmt, str::FromStr, sync::Arc};

use sha2::{Digest as _, Sha256};

use crate::{
    error::{Error, Result},
    net::Rule,
};

/// What a token is good for. None of them includes another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Score video and report verdicts.
    Detect,
    /// Clips, jobs and profiles.
    Admin,
    /// Metrics, and what reads without changing anything.
    Observe,
}

impl Role {
    /// All of them.
    pub const ALL: [Role; 3] = [Role::Detect, Role::Admin, Role::Observe];

    /// As the token file has it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Role::Detect => "detect",
            Role::Admin => "admin",
            Role::Observe => "observe",
        }
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Role::ALL
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or_else(|| format!("`{text}` is no role: use detect, admin or observe"))
    }
}

/// A set of roles.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Roles(u8);

impl Roles {
    /// Every role.
    pub const ALL: Roles = Roles::of(&Role::ALL);

    /// These roles.
    pub const fn of(roles: &[Role]) -> Roles {
        let mut set = 0;
        let mut at = 0;
        while at < roles.len() {
            set |= 1 << roles[at] as u8;
            at += 1;
        }
        Roles(set)
    }

    /// Whether there is none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether it has one of these.
    pub const fn meets(self, other: Roles) -> bool {
        self.0 & other.0 != 0
    }
}

impl fmt::Display for Roles {
    /// `admin or observe`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let held = Role::ALL.into_iter();
        let held = held.filter(|role| self.meets(Roles::of(&[*role])));
        for (n, role) in held.enumerate() {
            if n > 0 {
                f.write_str(" or ")?;
            }
            f.write_str(role.as_str())?;
        }
        Ok(())
    }
}

/// Which sources a token's holder may name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    /// Files of the server's.
    pub files: bool,
    /// Hosts.
    pub hosts: Arc<[Rule]>,
}

/// Whoever holds a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The token's name.
    pub name: String,
    /// SHA-256 of the token: another token of the same name is another caller.
    pub digest: [u8; 32],
    /// What it is good for.
    pub roles: Roles,
    /// Detections at the same time; `None`: as many as the server takes.
    pub max_streams: Option<usize>,
    /// Bytes of one upload; `None`: as many as the server takes.
    pub max_upload_bytes: Option<u64>,
    /// What it may name; `None`: whatever the server may reach.
    pub sources: Option<Sources>,
}

/// What is left of the bytes that one upload may have.
#[derive(Clone, Copy, Debug)]
pub struct Quota {
    most: Option<u64>,
    used: u64,
}

impl Quota {
    /// Of this caller's next upload.
    pub fn of(caller: Option<&Caller>) -> Quota {
        Quota {
            most: caller.and_then(|caller| caller.max_upload_bytes),
            used: 0,
        }
    }

    /// So many bytes more came.
    ///
    /// Fails with `ResourceExhausted` where they are more than the token may send.
    pub fn take(&mut self, bytes: usize) -> Result<()> {
        self.used = self.used.saturating_add(bytes as u64);
        match self.most {
            Some(most) if self.used > most => Err(Error::exhausted(format!(
                "the upload has more bytes than this token may send (max_upload_bytes = {most})"
            ))
            .for_good()),
            _ => Ok(()),
        }
    }
}

/// A new token: 256 random bits in hex after `hh_`, by which leaked ones are found.
pub fn mint() -> String {
    let [a, b]: [u128; 2] = rand::random();
    format!("hh_{a:032x}{b:032x}")
}

/// SHA-256 of a token: what is stored of it. A token has 256 random bits, so a slow hash would add
/// nothing.
pub fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token).into()
}

/// The token file's entry for a token.
pub fn entry(name: &str, token: &str, roles: &[Role], expires: Option<&str>) -> String {
    let hex: String = digest(token).iter().map(|b| format!("{b:02x}")).collect();
    let roles: Vec<String> = roles
        .iter()
        .map(|role| format!("\"{}\"", role.as_str()))
        .collect();
    let expires = expires.map_or_else(String::new, |at| format!("expires = \"{at}\"\n"));
    format!(
        "[[token]]\nname = \"{name}\"\nsha256 = \"{hex}\"\nroles = [{}]\n{expires}",
        roles.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_long_and_differ() {
        let (a, b) = (mint(), mint());
        assert_ne!(a, b);
        assert_eq!(a.len(), 67);
        assert!(a.starts_with("hh_") && a[3..].bytes().all(|b| b.is_ascii_hexdigit()));
    }

    #[test]
    fn roles_are_sets() {
        let both = Roles::of(&[Role::Observe, Role::Admin]);
        assert_eq!(both.to_string(), "admin or observe");
        assert!(both.meets(Roles::of(&[Role::Admin])) && !both.meets(Roles::of(&[Role::Detect])));
        assert!(Roles::default().is_empty() && Roles::ALL.meets(Roles::of(&[Role::Detect])));
        assert!("root".parse::<Role>().is_err());
    }
}
