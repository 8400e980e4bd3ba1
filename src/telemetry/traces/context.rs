//! W3C Trace Context: what a caller says of the trace that its call belongs to.
//!
//! ```text
//! traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01
//!              version-trace-parent-flags, lowercase hexadecimal
//! ```

use std::fmt;

use crate::limits::TRACE_STATE_MAX_BYTES;

/// Length of a `traceparent` of version 00, bytes; later versions may have more behind it.
const LENGTH: usize = 55;
/// The flag of a trace that its caller records.
const SAMPLED: u128 = 1;

/// Name of a trace, never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceId(u128);

/// Name of a span in its trace, never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanId(u64);

/// The span of the caller that a call belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parent {
    /// Its trace.
    pub trace: TraceId,
    /// Itself.
    pub span: SpanId,
    /// Whether the caller records it.
    pub sampled: bool,
    /// `tracestate`, as it came; it is passed on to the collector.
    pub state: String,
}

impl TraceId {
    pub(super) fn random() -> TraceId {
        TraceId(rand::random_range(1..=u128::MAX))
    }

    pub(super) fn bytes(self) -> Vec<u8> {
        self.0.to_be_bytes().to_vec()
    }

    /// The part that is random in every implementation, and that sampling goes by.
    pub(super) fn low(self) -> u64 {
        self.0 as u64
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl SpanId {
    pub(super) fn random() -> SpanId {
        SpanId(rand::random_range(1..=u64::MAX))
    }

    pub(super) fn bytes(self) -> Vec<u8> {
        self.0.to_be_bytes().to_vec()
    }
}

impl Parent {
    /// The parent that a request's headers of these names tell. `None` without a `traceparent`, with more
    /// than one and with one that is malformed: the standard says to begin a new trace then. A `tracestate`
    /// that cannot be passed on is left out.
    pub fn of(traceparent: &[&[u8]], tracestate: &[&[u8]]) -> Option<Parent> {
        let [header] = traceparent else { return None };
        let (trace, span, sampled) = parse(header)?;
        Some(Parent {
            trace,
            span,
            sampled,
            state: state(tracestate),
        })
    }
}

fn parse(header: &[u8]) -> Option<(TraceId, SpanId, bool)> {
    let header = header.trim_ascii();
    let version = hex(header.get(..2)?)?;
    let exact = header.len() == LENGTH;
    let longer = version != 0 && header.get(LENGTH) == Some(&b'-');
    let dashed = [2, 35, 52].iter().all(|at| header.get(*at) == Some(&b'-'));
    if version == 0xff || !dashed || !(exact || longer) {
        return None;
    }
    let trace = hex(header.get(3..35)?)?;
    let span = u64::try_from(hex(header.get(36..52)?)?).ok()?;
    let flags = hex(header.get(53..LENGTH)?)?;
    (trace != 0 && span != 0).then_some((TraceId(trace), SpanId(span), flags & SAMPLED != 0))
}

/// At most 32 lowercase digits.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |number, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(value))
    })
}

/// The headers as one list.
fn state(headers: &[&[u8]]) -> String {
    let length: usize = headers.iter().map(|header| header.len() + 1).sum();
    let printable = |header: &&[u8]| header.iter().all(|b| matches!(b, b'\t' | b' '..=b'~'));
    if length > TRACE_STATE_MAX_BYTES + 1 || !headers.iter().all(printable) {
        return String::new();
    }
    let joined = headers.join(&b","[..]);
    String::from_utf8(joined).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALID: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn parent(header: &str) -> Option<Parent> {
        Parent::of(&[header.as_bytes()], &[])
    }

    #[test]
    fn a_valid_header_is_read() {
        let found = parent(VALID).unwrap();
        assert_eq!(found.trace.to_string(), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(found.span, SpanId(0xb7ad_6b71_6920_3331));
        assert!(found.sampled);
        assert_eq!(found.span.bytes()[0], 0xb7);
        assert_eq!(found.trace.bytes().len(), 16);
        // Flags are bits: only the lowest means "sampled".
        for (flags, sampled) in [("00", false), ("02", false), ("03", true), ("ff", true)] {
            let header = format!("{}{flags}", &VALID[..53]);
            assert_eq!(parent(&header).unwrap().sampled, sampled, "{flags}");
        }
    }

    #[test]
    fn later_versions_are_read_as_far_as_they_are_known() {
        for header in [
            VALID.replacen("00", "01", 1),
            VALID.replacen("00", "fe", 1) + "-what-the-future-will-be",
        ] {
            assert!(parent(&header).unwrap().sampled, "{header}");
        }
        assert_eq!(parent(&(VALID.replacen("00", "01", 1) + ".more")), None);
    }

    #[test]
    fn malformed_headers_are_ignored() {
        for header in [
            "",
            "00",
            &VALID[..54],
            &VALID.to_uppercase(),
            &VALID.replace("-b7", "-B7"),
            &VALID.replacen("00", "ff", 1),
            &format!("{VALID}-"),
            &format!("{VALID}0"),
            &VALID.replace('-', "_"),
            &VALID.replace("0af7", "0xf7"),
            &VALID.replace("-01", "-0g"),
            &VALID.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            &VALID.replace("b7ad6b7169203331", &"0".repeat(16)),
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b716920333é-01",
        ] {
            assert_eq!(parent(header), None, "{header}");
        }
        assert_eq!(Parent::of(&[], &[]), None);
        let twice = [VALID.as_bytes(), VALID.as_bytes()];
        assert_eq!(Parent::of(&twice, &[]), None);
    }

    #[test]
    fn tracestate_is_passed_on_as_one_list_or_left_out() {
        let state = |headers: &[&[u8]]| Parent::of(&[VALID.as_bytes()], headers).unwrap().state;
        assert_eq!(state(&[]), "");
        assert_eq!(state(&[b"a=1,b=2", b"c=3"]), "a=1,b=2,c=3");
        assert_eq!(state(&[&[b'x'; TRACE_STATE_MAX_BYTES]]).len(), 512);
        assert_eq!(state(&[&[b'x'; TRACE_STATE_MAX_BYTES + 1]]), "");
        assert_eq!(state(&["a=é".as_bytes()]), "");
    }
}
