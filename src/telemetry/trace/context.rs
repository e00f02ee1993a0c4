use std::fmt;
use std::str::FromStr;

use http::HeaderMap;
use ulid::Ulid;

/// The flag of a sampled trace.
const SAMPLED: u8 = 1;

/// A trace and one of its spans, in the form of the W3C's `traceparent`.
///
/// Source: <https://www.w3.org/TR/trace-context/#traceparent-header>.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceContext {
    trace_id: [u8; 16],
    span_id: [u8; 8],
    flags: u8,
}

/// The id of a trace: 32 hexadecimal digits, shared by its spans and log lines.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId([u8; 16]);

/// The text is not a `traceparent`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a traceparent such as 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")]
pub struct InvalidTraceParent(String);

impl TraceContext {
    /// Returns the context of a new trace.
    ///
    /// The span stands for the external cause, such as the push of an image, and is never recorded.
    pub fn random() -> Self {
        let [_, _, _, _, _, _, _, _, span_id @ ..] = Ulid::new().0.to_be_bytes();
        // The last bytes of both ids are random, as samplers expect.
        Self { trace_id: Ulid::new().0.to_be_bytes(), span_id, flags: SAMPLED }
    }

    /// Returns the context in the headers of a request; `None`: no context, an invalid one, or several.
    pub fn from_headers(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all("traceparent").iter();
        let value = values.next()?;
        // Two values would contradict each other.
        if values.next().is_some() {
            return None;
        }
        value.to_str().ok()?.trim().parse().ok()
    }

    pub fn trace_id(&self) -> TraceId {
        TraceId(self.trace_id)
    }

    #[cfg(feature = "otel")]
    pub(super) fn from_parts(trace_id: [u8; 16], span_id: [u8; 8], flags: u8) -> Self {
        Self { trace_id, span_id, flags }
    }

    #[cfg(feature = "otel")]
    pub(super) fn parts(&self) -> ([u8; 16], [u8; 8], u8) {
        (self.trace_id, self.span_id, self.flags)
    }
}

impl fmt::Display for TraceContext {
    /// Writes the value of the header.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-{:02x}", self.trace_id(), hex::encode(self.span_id), self.flags)
    }
}

impl fmt::Debug for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for TraceContext {
    type Err = InvalidTraceParent;

    fn from_str(text: &str) -> Result<Self, InvalidTraceParent> {
        parse(text).ok_or_else(|| InvalidTraceParent(text.chars().take(80).collect()))
    }
}

fn parse(text: &str) -> Option<TraceContext> {
    let mut parts = text.split('-');
    let [version] = bytes::<1>(parts.next()?)?;
    let trace_id = bytes::<16>(parts.next()?)?;
    let span_id = bytes::<8>(parts.next()?)?;
    let [flags] = bytes::<1>(parts.next()?)?;
    // Later versions may append parts; version 255 is invalid.
    let is_whole = version != 0 || parts.next().is_none();
    let is_valid = version != 255 && trace_id != [0; 16] && span_id != [0; 8];
    (is_whole && is_valid).then_some(TraceContext { trace_id, span_id, flags: flags & SAMPLED })
}

/// Parses exactly `LENGTH` bytes in lower-case hexadecimal digits.
fn bytes<const LENGTH: usize>(text: &str) -> Option<[u8; LENGTH]> {
    let mut bytes = [0; LENGTH];
    let is_lower = !text.bytes().any(|byte| byte.is_ascii_uppercase());
    (is_lower && hex::decode_to_slice(text, &mut bytes).is_ok()).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn header_parses_back() {
        let context: TraceContext = EXAMPLE.parse().unwrap();
        assert_eq!(context.to_string(), EXAMPLE);
        assert_eq!(context.trace_id().to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        let random = TraceContext::random();
        assert_eq!(random.to_string().parse(), Ok(random));
        assert_ne!(random.trace_id(), TraceContext::random().trace_id());
        assert_ne!(random.span_id, TraceContext::random().span_id);
        assert!(random.to_string().ends_with("-01"));
    }

    #[test]
    fn invalid_traceparent_is_refused() {
        for text in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e47360-00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473é-00f067aa0ba902b7-01",
        ] {
            assert!(text.parse::<TraceContext>().is_err(), "{text}");
        }
        let later = EXAMPLE.replacen("00", "cc", 1) + "-what-comes-then";
        assert_eq!(later.parse::<TraceContext>().unwrap().to_string(), EXAMPLE);
        // Unknown flags are dropped.
        assert_eq!(EXAMPLE.replace("-01", "-ff").parse::<TraceContext>().unwrap().to_string(), EXAMPLE);
    }

    #[test]
    fn repeated_header_is_ignored() {
        let mut headers = HeaderMap::new();
        assert_eq!(TraceContext::from_headers(&headers), None);
        headers.append("traceparent", EXAMPLE.parse().unwrap());
        assert_eq!(TraceContext::from_headers(&headers).unwrap().to_string(), EXAMPLE);
        headers.append("traceparent", EXAMPLE.parse().unwrap());
        assert_eq!(TraceContext::from_headers(&headers), None);
    }
}
