//! Lenient JSON with bounded memory.

use std::borrow::Cow;
use std::cell::Cell;

use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

/// Limit of values in a body. The largest real bodies, with hundreds of events, have about 10,000. Without a limit, a body
/// of 1 MiB could use 40 MiB of memory (`[[0],[0],…`).
const MAX_VALUES: usize = 100_000;

/// Parses the JSON of a body: the body itself, or the field `payload` of a form.
///
/// # Errors
///
/// The fault and its position, without any text of the body.
pub(crate) fn parse(headers: &http::HeaderMap, body: &[u8]) -> Result<Value, String> {
    if let Some(encoding) = headers.get(http::header::CONTENT_ENCODING).filter(|value| value.as_bytes() != b"identity")
    {
        return Err(format!("the body is compressed ({encoding:?}), which is not supported"));
    }
    match form_payload(headers, body) {
        Some(payload) => parse_text(payload.as_bytes()),
        None => parse_text(body),
    }
}

/// Parses a JSON document within the limits.
pub(crate) fn parse_text(text: &[u8]) -> Result<Value, String> {
    let text = text.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(text);
    if text.trim_ascii().is_empty() {
        return Err("the body is empty".to_owned());
    }
    let left = Cell::new(MAX_VALUES);
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let value = Bounded { left: &left }.deserialize(&mut deserializer);
    value.and_then(|value| deserializer.end().map(|()| value)).map_err(|error| format!("the body is not JSON: {error}"))
}

/// Returns the field `payload` if the body is a form. GitHub, Gitea and Forgejo send a form if the webhook is configured
/// so.
pub(crate) fn form_payload<'a>(headers: &http::HeaderMap, body: &'a [u8]) -> Option<Cow<'a, str>> {
    let content_type = headers.get(http::header::CONTENT_TYPE)?.to_str().ok()?;
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    if !media_type.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        return None;
    }
    url::form_urlencoded::parse(body).find(|(name, _)| name == "payload").map(|(_, payload)| payload)
}

/// A position in a JSON document, which may not exist.
///
/// Missing members, `null` and values of another type are treated alike: as absent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Node<'a>(Option<&'a Value>);

impl<'a> Node<'a> {
    /// Returns the position of the whole document.
    pub(crate) fn new(value: &'a Value) -> Self {
        Self(Some(value))
    }

    /// Returns the member `name`.
    pub(crate) fn get(self, name: &str) -> Self {
        Self(self.0.and_then(|value| value.as_object()).and_then(|members| members.get(name)))
    }

    /// Returns whether there is a value other than `null` and empty containers and strings.
    pub(crate) fn is_present(self) -> bool {
        match self.0 {
            None | Some(Value::Null) => false,
            Some(Value::String(text)) => !text.is_empty(),
            Some(Value::Array(items)) => !items.is_empty(),
            Some(Value::Object(members)) => !members.is_empty(),
            Some(Value::Bool(_) | Value::Number(_)) => true,
        }
    }

    /// Returns a non-empty string, or an integer as text. A number with fraction or exponent is absent, because its original
    /// text is lost.
    pub(crate) fn text(self) -> Option<Cow<'a, str>> {
        match self.0? {
            Value::String(text) if !text.is_empty() => Some(Cow::Borrowed(text)),
            Value::Number(number) if !number.is_f64() => Some(Cow::Owned(number.to_string())),
            _ => None,
        }
    }

    /// Returns a string, which may be empty.
    pub(crate) fn string(self) -> Option<&'a str> {
        self.0.and_then(Value::as_str)
    }

    /// Returns whether the value is `true` or `"true"`.
    pub(crate) fn is_true(self) -> bool {
        self.0.and_then(Value::as_bool) == Some(true) || self.string() == Some("true")
    }

    /// Returns the elements of an array.
    pub(crate) fn items(self) -> impl Iterator<Item = Self> + use<'a> {
        let items = self.0.and_then(|value| value.as_array());
        items.into_iter().flatten().map(Self::new)
    }

    /// Returns the members of an object.
    pub(crate) fn members(self) -> impl Iterator<Item = (&'a str, Self)> + use<'a> {
        let members = self.0.and_then(|value| value.as_object());
        members.into_iter().flatten().map(|(name, value)| (name.as_str(), Self::new(value)))
    }

    /// Returns whether the value is an array.
    pub(crate) fn is_array(self) -> bool {
        self.0.is_some_and(Value::is_array)
    }

    /// Returns the time in a string or number; see [`super::time::parse`].
    pub(crate) fn time(self) -> Option<jiff::Timestamp> {
        match self.0? {
            Value::String(text) => super::time::parse(text),
            Value::Number(number) => super::time::from_unix(number.as_f64()?),
            _ => None,
        }
    }
}

/// Builds values and counts them.
struct Bounded<'b> {
    left: &'b Cell<usize>,
}

impl Bounded<'_> {
    fn again(&self) -> Self {
        Bounded { left: self.left }
    }
}

impl<'de> DeserializeSeed<'de> for Bounded<'_> {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        let Some(left) = self.left.get().checked_sub(1) else {
            return Err(D::Error::custom(format!("more than {MAX_VALUES} values")));
        };
        self.left.set(left);
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Bounded<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element_seed(self.again())? {
            items.push(item);
        }
        items.shrink_to_fit();
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut members = serde_json::Map::new();
        while let Some(name) = access.next_key::<String>()? {
            let value = access.next_value_seed(self.again())?;
            members.insert(name, value);
        }
        Ok(Value::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_and_depth_are_bounded() {
        let flat = format!("[{}0]", "0,".repeat(MAX_VALUES));
        assert!(parse_text(flat.as_bytes()).unwrap_err().contains("more than 100000 values"));
        let deep = "[".repeat(100_000);
        assert!(parse_text(deep.as_bytes()).unwrap_err().contains("recursion limit"));
    }

    #[test]
    fn errors_do_not_quote_the_body() {
        let error = parse_text(b"{\"password\": hunter2}").unwrap_err();
        assert_eq!(error, "the body is not JSON: expected value at line 1 column 14");
        assert_eq!(parse_text(b" \r\n").unwrap_err(), "the body is empty");
        assert!(parse_text(b"{} {}").unwrap_err().contains("trailing characters"));
    }

    #[test]
    fn byte_order_mark_is_skipped() {
        assert!(parse_text(b"\xEF\xBB\xBF{}").is_ok());
    }

    #[test]
    fn text_is_a_string_or_an_integer() {
        let value = serde_json::json!({"a": "x", "b": 1234567, "c": 1.5, "d": "", "e": null, "f": [], "g": {"h": 0}});
        let node = Node::new(&value);
        assert_eq!(node.get("a").text().unwrap(), "x");
        assert_eq!(node.get("b").text().unwrap(), "1234567");
        for name in ["c", "d", "e", "f", "g", "z"] {
            assert_eq!(node.get(name).text(), None, "{name}");
        }
        assert!(!node.get("f").get("x").is_present());
        assert!(node.get("g").get("h").is_present());
    }
}
