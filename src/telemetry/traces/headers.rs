//! Metadata of exports, such as a token: a secret that no message repeats.

use tonic::metadata::{Ascii, MetadataKey, MetadataMap, MetadataValue};

use crate::{
    error::{Error, Result},
    limits::TRACE_HEADERS_MAX,
};

/// Metadata of every export.
#[derive(Clone, Default)]
pub struct Headers(Vec<(MetadataKey<Ascii>, MetadataValue<Ascii>)>);

impl Headers {
    /// From the bytes of a file with a line `name: value` each; empty lines and such with `#` at their
    /// beginning count for nothing.
    ///
    /// Fails with `InvalidArgument`, naming the line but not what it says.
    pub fn parse(bytes: &[u8]) -> Result<Headers> {
        let wrong = |what: String| Error::invalid(what).with_field("traces.headers_file");
        let text = std::str::from_utf8(bytes)
            .map_err(|_| wrong("traces.headers_file is no UTF-8 text".into()))?;
        let mut headers = Vec::new();
        for (n, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let header = line.split_once(':').and_then(|(name, value)| {
                let name = name.trim().to_ascii_lowercase().parse().ok()?;
                let mut value: MetadataValue<Ascii> = value.trim().parse().ok()?;
                value.set_sensitive(true);
                Some((name, value))
            });
            headers.push(header.ok_or_else(|| {
                wrong(format!(
                    "line {} of traces.headers_file is no header: write `name: value`",
                    n + 1
                ))
            })?);
        }
        if headers.len() > TRACE_HEADERS_MAX {
            return Err(wrong(format!(
                "traces.headers_file has {} headers; at most {TRACE_HEADERS_MAX} are sent",
                headers.len()
            )));
        }
        Ok(Headers(headers))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn add_to(&self, metadata: &mut MetadataMap) {
        for (name, value) in &self.0 {
            metadata.append(name.clone(), value.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_come_from_lines_and_hide_their_values() {
        let file = b"# the collector's token\n\nAuthorization: Bearer a:b\nx-tenant:  yard \n";
        let headers = Headers::parse(file).unwrap();
        let mut metadata = MetadataMap::new();
        headers.add_to(&mut metadata);
        assert_eq!(metadata.get("authorization").unwrap(), "Bearer a:b");
        assert_eq!(metadata.get("x-tenant").unwrap(), "yard");
        let shown = format!("{metadata:?}");
        assert!(!shown.contains("Bearer"), "{shown}");
        assert!(Headers::parse(b"").unwrap().is_empty());
    }

    #[test]
    fn a_wrong_line_is_named_and_not_repeated() {
        for file in [
            &b"a: b\nsecret"[..],
            b"a: b\nsecret token: x",
            b"a: b\nx-bin: secret",
            "a: b\nx: s\u{7}ecret".as_bytes(),
        ] {
            let error = Headers::parse(file).err().unwrap();
            let message = format!("{error:#}");
            assert!(message.contains("line 2"), "{message}");
            assert!(!message.contains("secret"), "{message}");
        }
        assert!(Headers::parse(&[0xff]).is_err());
        let many = "a: b\n".repeat(TRACE_HEADERS_MAX + 1);
        assert!(Headers::parse(many.as_bytes()).is_err());
    }
}
