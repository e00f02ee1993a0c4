//! Parses the `WWW-Authenticate` header of a 401. Pure.

use http::HeaderValue;

/// A form of authentication that a registry asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    /// User name and password with every request.
    Basic,
    /// A token of the service at `realm`
    /// (<https://distribution.github.io/distribution/spec/auth/token/>).
    Bearer(Bearer),
}

/// The parameters of a `Bearer` challenge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bearer {
    /// The URL of the token service, unparsed.
    pub(super) realm: String,
    /// The token service's name for the registry.
    pub(super) service: Option<String>,
}

/// Returns the challenge to answer: the first usable `Bearer`, else `Basic`, else `None`.
///
/// `Bearer` wins in any position, because a token gives access to one repository and a password to all.
pub(super) fn choose<'a>(values: impl IntoIterator<Item = &'a HeaderValue>) -> Option<Challenge> {
    let mut basic = None;
    for value in values {
        for found in parse(value.as_bytes()) {
            match found.scheme.to_ascii_lowercase().as_str() {
                "bearer" => {
                    if let Some(realm) = found.parameter("realm").filter(|realm| !realm.is_empty()) {
                        let service = found.parameter("service").map(str::to_owned);
                        return Some(Challenge::Bearer(Bearer { realm: realm.to_owned(), service }));
                    }
                }
                "basic" => basic = Some(Challenge::Basic),
                _ => {}
            }
        }
    }
    basic
}

/// One challenge of the header: a scheme and its parameters.
#[derive(Debug, PartialEq, Eq)]
struct Written {
    scheme: String,
    parameters: Vec<(String, String)>,
}

impl Written {
    fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// Parses the challenges of one header field (<https://www.rfc-editor.org/rfc/rfc9110#section-11.6.1>).
///
/// Commas separate both challenges and parameters, so a word is a parameter if `=` and a value follow it, and a new
/// scheme otherwise. A syntax error ends the list; challenges before it are kept.
fn parse(value: &[u8]) -> Vec<Written> {
    let mut cursor = Cursor { rest: value };
    let mut challenges: Vec<Written> = Vec::new();
    loop {
        cursor.skip(|byte| byte == b',' || is_space(byte));
        let word = cursor.take(is_token);
        if word.is_empty() {
            return challenges;
        }
        let before_value = cursor.rest;
        match (cursor.parameter_value(), challenges.last_mut()) {
            (Some(value), Some(challenge)) => challenge.parameters.push((word, value)),
            (Some(_), None) => return challenges,
            (None, _) => {
                cursor.rest = before_value;
                cursor.skip_token68();
                challenges.push(Written { scheme: word, parameters: Vec::new() });
            }
        }
    }
}

struct Cursor<'a> {
    rest: &'a [u8],
}

impl Cursor<'_> {
    fn skip(&mut self, skipped: impl Fn(u8) -> bool) {
        self.take(skipped);
    }

    fn take(&mut self, taken: impl Fn(u8) -> bool) -> String {
        let end = self.rest.iter().position(|byte| !taken(*byte)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        String::from_utf8_lossy(word).into_owned()
    }

    /// Reads `= value`, with the spaces that RFC 9110 tolerates around the `=`.
    fn parameter_value(&mut self) -> Option<String> {
        self.skip(is_space);
        self.rest = self.rest.strip_prefix(b"=")?;
        self.skip(is_space);
        if let Some(rest) = self.rest.strip_prefix(b"\"") {
            self.rest = rest;
            return self.quoted();
        }
        // Some registries send URLs without quotes, so an unquoted value ends at the next comma or space.
        let value = self.take(|byte| byte != b',' && byte != b'"' && !is_space(byte));
        (!value.is_empty() && !value.bytes().all(|byte| byte == b'=')).then_some(value)
    }

    /// Reads up to the closing quote. A backslash escapes the next character.
    fn quoted(&mut self) -> Option<String> {
        let mut text = Vec::new();
        let mut bytes = self.rest.iter().enumerate();
        while let Some((place, byte)) = bytes.next() {
            match byte {
                b'"' => {
                    self.rest = &self.rest[place + 1..];
                    return Some(String::from_utf8_lossy(&text).into_owned());
                }
                b'\\' => text.push(*bytes.next()?.1),
                _ => text.push(*byte),
            }
        }
        None
    }

    /// Skips the `token68` that a scheme may have in place of parameters (`Negotiate YII…==`).
    fn skip_token68(&mut self) {
        let before = self.rest;
        self.skip(is_space);
        self.skip(|byte| is_token(byte) || matches!(byte, b'/' | b'='));
        self.skip(is_space);
        let ends = self.rest.is_empty() || self.rest.starts_with(b",");
        let has_parameter = |blob: &[u8]| {
            let blob = blob.trim_ascii_end();
            let padding = blob.iter().rev().take_while(|byte| **byte == b'=').count();
            blob[..blob.len() - padding].contains(&b'=')
        };
        if !ends || has_parameter(&before[..before.len() - self.rest.len()]) {
            self.rest = before;
        }
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>) -> Option<Challenge> {
        Some(Challenge::Bearer(Bearer { realm: realm.to_owned(), service: service.map(str::to_owned) }))
    }

    fn chosen(fields: &[&str]) -> Option<Challenge> {
        let values: Vec<HeaderValue> = fields.iter().map(|field| HeaderValue::from_str(field).unwrap()).collect();
        choose(&values)
    }

    #[test]
    fn challenges_of_real_registries_are_read() {
        let hub =
            r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull""#;
        assert_eq!(chosen(&[hub]), bearer("https://auth.docker.io/token", Some("registry.docker.io")));
        assert_eq!(chosen(&[r#"Basic realm="basic-realm""#]), Some(Challenge::Basic));
        assert_eq!(chosen(&["Basic"]), Some(Challenge::Basic));
    }

    #[test]
    fn order_case_spaces_and_quoting_do_not_matter() {
        for field in [
            r#"bearer scope="repository:a/b:pull,push", service="s" , realm="https://t/""#,
            r#"BEARER REALM = "https://t/", Service=s"#,
            r#"Bearer realm=https://t/,service=s"#,
            r#"Basic realm="x, Bearer realm=\"no\"", Bearer realm="https://t/",service="s""#,
            r#"Negotiate YIIB/x==, Bearer realm="https://t/",service="\s""#,
            r#"Negotiate, Bearer error="invalid_token", realm="https://t/", service="s""#,
            r#",, Bearer realm="https://t/",,service="s","#,
        ] {
            assert_eq!(chosen(&[field]), bearer("https://t/", Some("s")), "{field}");
        }
        assert_eq!(chosen(&["Basic realm=x", r#"Bearer realm="https://t/""#]), bearer("https://t/", None));
    }

    #[test]
    fn unusable_challenges_give_none() {
        for field in
            ["", "Negotiate", "Bearer", r#"Bearer service="s""#, r#"realm="https://t/""#, "Digest realm=x", "=,="]
        {
            assert_eq!(chosen(&[field]), None, "{field}");
        }
        assert_eq!(chosen(&[r#"Bearer realm="https://t/"#]), None, "the quote is never closed");
        assert_eq!(chosen(&[]), None);
    }

    #[test]
    fn bearer_without_realm_is_skipped() {
        assert_eq!(chosen(&[r#"Bearer service="s", Basic realm="b""#]), Some(Challenge::Basic));
    }

    proptest::proptest! {
        #[test]
        fn no_header_causes_a_panic(bytes in proptest::collection::vec(0x20u8..0x7f, 0..80)) {
            let _ = parse(&bytes);
        }
    }
}
