//! The token file: who holds which token. It has digests, never tokens.
//!
//! ```toml
//! [[token]]
//! name = "gateway"                   # for logs and messages
//! sha256 = "…"                       # of the token, 64 hexadecimal digits
//! roles = ["detect"]                 # detect, admin, observe
//! expires = "2027-01-01T00:00:00Z"   # RFC 3339; left out: never
//! max_streams = 16                   # detections at the same time
//! max_upload_bytes = 1073741824      # of one upload
//! sources = ["*.cams.example.org", "10.1.0.0/16:554", "file://"]
//! ```

use std::{collections::HashSet, sync::Arc, time::SystemTime};

use config::{Config, ConfigError, File, FileFormat};
use serde::Deserialize;
use subtle::ConstantTimeEq as _;

use super::{Caller, Role, Roles, Sources, digest};
use crate::{
    error::{Error, Result},
    limits,
    net::Rule,
};

/// What may stand for the server's own files among a token's sources.
const FILES: &str = "file://";

/// Tokens by their digests.
#[derive(Debug)]
pub struct Book {
    held: Vec<Held>,
}

#[derive(Debug)]
struct Held {
    expires: Option<SystemTime>,
    caller: Arc<Caller>,
}

/// Why a token is not believed: for logs and metrics, never for the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// No entry has its digest.
    Unknown,
    /// Its time is over.
    Expired,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entries {
    #[serde(default)]
    token: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    sha256: String,
    roles: Vec<String>,
    expires: Option<String>,
    max_streams: Option<usize>,
    max_upload_bytes: Option<u64>,
    sources: Option<Vec<String>>,
}

impl Book {
    /// The tokens of a file's bytes. No message repeats a value that could be a token.
    ///
    /// Fails with `InvalidArgument`, naming the entry.
    pub fn parse(bytes: &[u8]) -> Result<Book> {
        let text = std::str::from_utf8(bytes)
            .map_err(|_| Error::invalid("the token file is no UTF-8 text"))?;
        let entries: Entries = Config::builder()
            .add_source(File::from_str(text, FileFormat::Toml))
            .build()
            .and_then(Config::try_deserialize)
            .map_err(|error| unreadable(&error))?;
        if entries.token.is_empty() {
            return Err(Error::invalid(
                "the token file has no [[token]]; `headhunt token new` makes one",
            ));
        }
        if entries.token.len() > limits::TOKENS_MAX {
            return Err(Error::invalid(format!(
                "the token file has {} tokens; at most {} are taken",
                entries.token.len(),
                limits::TOKENS_MAX
            )));
        }
        let mut names = HashSet::new();
        let mut digests = HashSet::new();
        let mut held = Vec::new();
        for (n, entry) in entries.token.into_iter().enumerate() {
            let whose = format!("token {} of the token file", n + 1);
            let one = of_entry(entry).map_err(|e| Error::invalid(format!("{whose}: {e}")))?;
            if !names.insert(one.caller.name.clone()) || !digests.insert(one.caller.digest) {
                return Err(Error::invalid(format!(
                    "{whose}: another one has the same name or sha256"
                )));
            }
            held.push(one);
        }
        Ok(Book { held })
    }

    /// Whose token this is. It is compared with all of them, each in constant time.
    pub fn find(&self, token: &str, now: SystemTime) -> Result<Arc<Caller>, Refused> {
        let presented = digest(token);
        let mut found = None;
        for held in &self.held {
            if bool::from(held.caller.digest.ct_eq(&presented)) {
                found = Some(held);
            }
        }
        let held = found.ok_or(Refused::Unknown)?;
        if held.is_over(now) {
            return Err(Refused::Expired);
        }
        Ok(held.caller.clone())
    }

    /// Whether a caller of an earlier book would still be let in where one of these roles is needed.
    pub fn still_holds(&self, caller: &Caller, roles: Roles, now: SystemTime) -> bool {
        let same =
            |held: &&Held| held.caller.name == caller.name && held.caller.digest == caller.digest;
        let held = self.held.iter().find(same);
        held.is_some_and(|held| !held.is_over(now) && held.caller.roles.meets(roles))
    }
}

impl Held {
    fn is_over(&self, now: SystemTime) -> bool {
        self.expires.is_some_and(|end| now >= end)
    }
}

fn of_entry(entry: Entry) -> Result<Held, String> {
    check_name(&entry.name)?;
    let mut roles = Vec::new();
    for role in &entry.roles {
        let role: Role = role
            .parse()
            .map_err(|_| "roles: use detect, admin and observe")?;
        roles.push(role);
    }
    let roles = Roles::of(&roles);
    if roles.is_empty() {
        return Err("roles: give at least one of detect, admin and observe".into());
    }
    let expires = entry.expires.as_deref().map(moment).transpose()?;
    if entry.max_streams == Some(0) || entry.max_upload_bytes == Some(0) {
        return Err("max_streams and max_upload_bytes are at least 1".into());
    }
    Ok(Held {
        expires,
        caller: Arc::new(Caller {
            name: entry.name,
            digest: of_hex(&entry.sha256)?,
            roles,
            max_streams: entry.max_streams,
            max_upload_bytes: entry.max_upload_bytes,
            sources: entry.sources.as_deref().map(sources).transpose()?,
        }),
    })
}

/// Whether a token may have this name; the error says what it must look like.
pub fn check_name(name: &str) -> Result<(), String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if name.is_empty() || name.len() > limits::TOKEN_NAME_MAX_BYTES || !name.bytes().all(plain) {
        return Err(format!(
            "the name has 1 to {} letters, digits, - _ and .",
            limits::TOKEN_NAME_MAX_BYTES
        ));
    }
    Ok(())
}

/// A moment in RFC 3339.
pub fn moment(text: &str) -> Result<SystemTime, String> {
    text.trim()
        .parse::<prost_types::Timestamp>()
        .ok()
        .and_then(|time| SystemTime::try_from(time).ok())
        .ok_or_else(|| "expires: no moment in RFC 3339, such as 2027-01-01T00:00:00Z".into())
}

fn sources(entries: &[String]) -> Result<Sources, String> {
    let mut files = false;
    let mut hosts: Vec<Rule> = Vec::new();
    for entry in entries {
        if entry == FILES {
            files = true;
            continue;
        }
        let rule = entry.parse();
        hosts.push(rule.map_err(|e| format!("sources: `{entry}`: {e}"))?);
    }
    Ok(Sources {
        files,
        hosts: hosts.into(),
    })
}

fn of_hex(text: &str) -> Result<[u8; 32], String> {
    let wrong = || "sha256: not 64 hexadecimal digits".to_owned();
    let bytes = text.as_bytes();
    if bytes.len() != 64 {
        return Err(wrong());
    }
    let mut out = [0; 32];
    for (byte, pair) in out.iter_mut().zip(bytes.chunks_exact(2)) {
        let digit = |b: u8| char::from(b).to_digit(16);
        let (Some(high), Some(low)) = (digit(pair[0]), digit(pair[1])) else {
            return Err(wrong());
        };
        *byte = (high * 16 + low) as u8; // below 256
    }
    Ok(out)
}

/// The reader's own messages show the lines that they speak of, where a token may stand by mistake.
fn unreadable(error: &ConfigError) -> Error {
    let message = match error {
        ConfigError::Type { expected, key, .. } => {
            format!("{} must be {expected}", key.as_deref().unwrap_or("a value"))
        }
        ConfigError::FileParse { cause, .. } => first_line(&cause.to_string()),
        // Names of keys alone.
        ConfigError::NotFound(key) => format!("{key} is missing"),
        other if other.to_string().starts_with("unknown field") => first_line(&other.to_string()),
        other if other.to_string().starts_with("missing field") => first_line(&other.to_string()),
        _ => "not what a list of [[token]] entries looks like".to_owned(),
    };
    Error::invalid(format!("the token file cannot be read: {message}"))
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::access::{entry, mint};

    fn refusal(text: &str) -> String {
        Book::parse(text.as_bytes()).expect_err(text).to_string()
    }

    #[test]
    fn a_token_is_found_until_it_expires_and_others_are_not() {
        let (token, other) = (mint(), mint());
        let text = entry("a", &other, &[Role::Admin], None)
            + &entry(
                "b",
                &token,
                &[Role::Detect],
                Some("2027-01-01T00:00:00+01:00"),
            )
            + "max_streams = 3\nmax_upload_bytes = 5\nsources = ['file://', '10.0.0.0/8']\n";
        let book = Book::parse(text.as_bytes()).unwrap();
        let end = SystemTime::UNIX_EPOCH + Duration::from_secs(1_798_758_000);
        let caller = book.find(&token, end - Duration::from_secs(1)).unwrap();
        assert_eq!(caller.name, "b");
        assert_eq!(caller.roles, Roles::of(&[Role::Detect]));
        assert_eq!(
            (caller.max_streams, caller.max_upload_bytes),
            (Some(3), Some(5))
        );
        let sources = caller.sources.as_ref().unwrap();
        assert!(sources.files && sources.hosts.len() == 1);
        assert_eq!(book.find(&token, end), Err(Refused::Expired));
        let detect = Roles::of(&[Role::Detect]);
        assert!(book.still_holds(&caller, detect, end - Duration::from_secs(1)));
        assert!(!book.still_holds(&caller, detect, end));
        let admin = Roles::of(&[Role::Admin]);
        assert!(!book.still_holds(&caller, admin, SystemTime::UNIX_EPOCH));
        let renewed = entry("b", &mint(), &[Role::Detect], None);
        let renewed = Book::parse(renewed.as_bytes()).unwrap();
        assert!(!renewed.still_holds(&caller, detect, SystemTime::UNIX_EPOCH));
        assert_eq!(book.find(&mint(), end), Err(Refused::Unknown));
        assert_eq!(book.find("", end), Err(Refused::Unknown));
        assert_eq!(book.find(&other, end).unwrap().sources, None);
        // Digests are no secret, tokens are: nothing keeps one.
        assert!(!format!("{book:?}{text}").contains(&token));
    }

    #[test]
    fn nonsense_is_refused_by_entry_and_what_may_be_a_token_is_not_repeated() {
        let good = entry("a", &mint(), &[Role::Detect], None);
        let secret = mint();
        for (text, word) in [
            (String::new(), "headhunt token new"),
            (good.clone() + &good, "token 2"),
            (good.clone() + "rules = 1", "rules"),
            (good.replace("\"a\"", "\"a b\""), "name"),
            (good.replace("detect", "root"), "roles"),
            (good.replace("\"detect\"", ""), "at least one"),
            (good.replace("sha256 = \"", "sha256 = \"0"), "sha256"),
            (good.replace("sha256", "sha512"), "sha512"),
            (good.clone() + "expires = 'tomorrow'", "RFC 3339"),
            (good.clone() + "max_streams = 0", "max_streams"),
            (good.clone() + "max_streams = 'many'", "max_streams"),
            (good.clone() + "sources = ['*']", "sources"),
            (good.clone() + &format!("token = {secret}"), "line"),
            (
                format!("[[token]]\nname = 'a'\nsha256 = '{secret}'\nroles = []"),
                "token 1",
            ),
            (
                format!("[[token]]\nname = 'a'\nsha256 = ['{secret}']\nroles = 1"),
                "token",
            ),
            (format!("token = '{secret}'"), "token"),
        ] {
            let message = refusal(&text);
            assert!(message.contains(word), "{text}\n{message}");
            assert!(!message.contains(&secret), "{message}");
        }
        let many: String = (0..=limits::TOKENS_MAX)
            .map(|n| entry(&format!("t{n}"), &mint(), &[Role::Detect], None))
            .collect();
        assert!(refusal(&many).contains("1024"));
    }
}
