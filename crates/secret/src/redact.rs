//! Removes our credentials from the answers of servers.
//!
//! Servers and proxies quote requests in their errors: a header, a URL with a token. Their messages reach store, API, log and
//! traces. Each client therefore removes its credential before it passes a message on.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use secrecy::{ExposeSecret as _, SecretString};

/// Replaces a credential.
const REDACTED: &str = "[redacted]";

/// Shorter texts are not redacted, because they occur in ordinary words.
const SHORTEST: usize = 4;

/// From this length in bytes, the beginning of a credential is redacted anywhere in a text.
///
/// Servers truncate texts, so an answer may quote only the beginning. Shorter beginnings are redacted at the end of a text.
const BEGINNING: usize = 12;

/// Our credentials in every form in which a server may quote them.
///
/// The forms are plain, Base64 (also with the user name, as in basic authentication), percent-encoded, and escaped for JSON.
/// `Debug` shows no form.
#[derive(Clone, Default)]
pub struct Redaction(Vec<SecretString>);

impl Redaction {
    /// Creates a redaction without credentials.
    pub fn none() -> Self {
        Self::default()
    }

    /// Creates a redaction for a secret and its user name, which may be empty.
    pub fn of(username: &str, secret: &str) -> Self {
        Self::none().and(username, secret)
    }

    /// Adds another credential.
    #[must_use]
    pub fn and(mut self, username: &str, secret: &str) -> Self {
        let mut forms = vec![secret.to_owned(), percent_encoded(secret, true), percent_encoded(secret, false)];
        // Some encoders leave slashes, which are allowed in a path.
        forms.extend(
            [("%2F", true), ("%2f", false)].map(|(slash, upper)| percent_encoded(secret, upper).replace(slash, "/")),
        );
        // In form data, a space is a plus sign.
        forms.push(percent_encoded(secret, true).replace("%20", "+"));
        let json = serde_json::Value::from(secret).to_string();
        forms.push(json[1..json.len() - 1].to_owned());
        forms.retain(|form| form.len() >= SHORTEST);
        for text in [secret.to_owned(), format!("{username}:{secret}")] {
            let engines = [STANDARD, URL_SAFE].map(|engine| engine.encode(&text));
            forms.extend(engines);
            forms.extend([STANDARD_NO_PAD, URL_SAFE_NO_PAD].map(|engine| engine.encode(&text)));
        }
        // Longest first, so that no rest of a longer form remains.
        forms.sort_by_key(|form| std::cmp::Reverse(form.len()));
        forms.dedup();
        self.0.extend(forms.into_iter().map(SecretString::from));
        self
    }

    /// Returns the text without the credentials, whole or truncated.
    pub fn clean(&self, text: &str) -> String {
        let mut clean = self.clean_whole(text);
        for form in &self.0 {
            let form = form.expose_secret();
            // The shortest beginning that ends at the boundary of a character.
            let Some(beginning) = (BEGINNING..form.len()).find_map(|length| form.get(..length)) else { continue };
            while let Some(at) = clean.find(beginning) {
                let same = clean[at..].char_indices().zip(form.chars()).take_while(|((_, a), b)| a == b).last();
                let end = same.map_or(at + beginning.len(), |((place, last), _)| at + place + last.len_utf8());
                clean.replace_range(at..end, REDACTED);
            }
            // At the end of a truncated text, the beginning may be shorter than `BEGINNING`.
            let is_rest = |length: &usize| form.get(..*length).is_some_and(|rest| clean.ends_with(rest));
            if let Some(rest) = (SHORTEST..BEGINNING.min(form.len())).rev().find(is_rest) {
                clean.truncate(clean.len() - rest);
                clean.push_str(REDACTED);
            }
        }
        clean
    }

    /// Returns the text without the credentials. Only for texts that are not truncated.
    pub fn clean_whole(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, form| match text.contains(form.expose_secret()) {
            true => text.replace(form.expose_secret(), REDACTED),
            false => text,
        })
    }

    /// Applies [`Self::clean_whole`] to the bytes of an answer.
    pub fn clean_bytes(&self, bytes: Vec<u8>) -> Vec<u8> {
        match String::from_utf8(bytes) {
            Ok(text) if self.0.iter().any(|form| text.contains(form.expose_secret())) => {
                self.clean_whole(&text).into_bytes()
            }
            Ok(text) => text.into_bytes(),
            Err(error) => self.clean_whole(&String::from_utf8_lossy(error.as_bytes())).into_bytes(),
        }
    }
}

impl std::fmt::Debug for Redaction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Redaction({} forms)", self.0.len())
    }
}

/// Percent-encodes all except unreserved characters.
///
/// Source: <https://www.rfc-editor.org/rfc/rfc3986#section-2.1>.
fn percent_encoded(text: &str, upper: bool) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            byte if upper => out.push_str(&format!("%{byte:02X}")),
            byte => out.push_str(&format!("%{byte:02x}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "p@ss \"wörd\"/+=x";

    #[test]
    fn every_form_is_redacted() {
        let redaction = Redaction::of("tagrelay", SECRET);
        let pair = format!("tagrelay:{SECRET}");
        for form in [
            SECRET.to_owned(),
            STANDARD.encode(SECRET),
            STANDARD.encode(&pair),
            STANDARD_NO_PAD.encode(&pair),
            URL_SAFE.encode(&pair),
            URL_SAFE_NO_PAD.encode(&pair),
            "p%40ss%20%22w%C3%B6rd%22%2F%2B%3Dx".to_owned(),
            "p%40ss%20%22w%c3%b6rd%22%2f%2b%3dx".to_owned(),
            "p%40ss%20%22w%C3%B6rd%22/%2B%3Dx".to_owned(),
            "p%40ss+%22w%C3%B6rd%22%2F%2B%3Dx".to_owned(),
            serde_json::json!(SECRET).to_string().trim_matches('"').trim_end_matches('\\').to_owned(),
        ] {
            let said = format!("no: ({form}), and once more {form}");
            for clean in [redaction.clean(&said), redaction.clean_whole(&said)] {
                assert_eq!(clean, "no: ([redacted]), and once more [redacted]", "{form}");
            }
            assert_eq!(redaction.clean_bytes(said.into_bytes()), b"no: ([redacted]), and once more [redacted]");
        }
        assert_eq!(redaction.clean_bytes(vec![0xff, b'a']), "\u{fffd}a".as_bytes());
        assert_eq!(Redaction::none().clean_bytes(b"as it is".to_vec()), b"as it is");
    }

    #[test]
    fn truncated_credentials_are_redacted() {
        let redaction = Redaction::of("bot", "ghp_0123456789abcdefghij");
        assert_eq!(redaction.clean("not ghp_0123456789abcd"), "not [redacted]");
        assert_eq!(redaction.clean("ghp_01234567 and more"), "[redacted] and more");
        assert_eq!(redaction.clean("the end is ghp_01234"), "the end is [redacted]");
        assert_eq!(Redaction::of("bot", "pässwörtchäß").clean("no: pässwörtch, no"), "no: [redacted], no");
        assert_eq!(redaction.clean("ghp_0123456 is little"), "ghp_0123456 is little");
        let header = STANDARD.encode("bot:ghp_0123456789abcdefghij");
        assert_eq!(redaction.clean(&format!("Basic {}", &header[..20])), "Basic [redacted]");
    }

    #[test]
    fn other_texts_are_unchanged() {
        assert_eq!(Redaction::of("a", "x").clean("an example"), "an example");
        assert_eq!(Redaction::of("a", "x").clean("Basic YTp4"), "Basic [redacted]");
        assert_eq!(Redaction::none().clean("a secret"), "a secret");
        assert!(!format!("{:?}", Redaction::of("a", "hunter22").and("", "hunter33")).contains("hunter"));
    }
}
