//! OpenSSH `known_hosts` files: the keys that a host may present.
//!
//! The format is described in `sshd(8)`, section SSH_KNOWN_HOSTS FILE FORMAT (<https://man.openbsd.org/sshd.8>): names or
//! patterns, hashed names, `[host]:port` for ports other than 22, and the marker `@revoked`. Certificate authorities are
//! not supported; a host needs a line with its own key.

use base64::Engine as _;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha1::Sha1;

/// The state of a presented key in a `known_hosts` file. Lines count from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum KeyState {
    /// The key is listed for the host.
    Known,
    /// No key of this type is listed for the host.
    Unknown,
    /// A different key of this type is listed for the host.
    Changed { line: usize },
    /// The key is listed as revoked.
    Revoked { line: usize },
}

/// The lines of a file that match one host.
#[derive(Debug, Clone)]
pub(crate) struct KnownHost {
    entries: Vec<Entry>,
}

#[derive(Debug, Clone)]
struct Entry {
    line: usize,
    revoked: bool,
    key_type: String,
    key: String,
}

impl KnownHost {
    /// Finds the lines of a host. Malformed lines are skipped, as in OpenSSH.
    pub(crate) fn find(text: &str, host: &str, port: u16) -> Self {
        let name = match port {
            22 => host.to_ascii_lowercase(),
            _ => format!("[{}]:{port}", host.to_ascii_lowercase()),
        };
        let lines = text.lines().enumerate();
        Self { entries: lines.filter_map(|(number, line)| parse(line, number + 1, &name)).collect() }
    }

    /// Whether a key of this type (`ssh-ed25519`, …) is listed and not revoked.
    pub(crate) fn has_key_of_type(&self, key_type: &str) -> bool {
        self.entries.iter().any(|entry| !entry.revoked && entry.key_type == key_type)
    }

    /// Returns the types of the listed keys.
    pub(crate) fn key_types(&self) -> Vec<&str> {
        self.entries.iter().filter(|entry| !entry.revoked).map(|entry| entry.key_type.as_str()).collect()
    }

    /// Looks up a key, given as the two words of a line: type and base64.
    pub(crate) fn state_of(&self, key_type: &str, key: &str) -> KeyState {
        let same_key = |entry: &&Entry| entry.key_type == key_type && entry.key == key;
        if let Some(entry) = self.entries.iter().filter(|entry| entry.revoked).find(same_key) {
            return KeyState::Revoked { line: entry.line };
        }
        let mut of_type = self.entries.iter().filter(|entry| !entry.revoked && entry.key_type == key_type).peekable();
        let first = of_type.peek().map(|entry| entry.line);
        match (of_type.any(|entry| entry.key == key), first) {
            (true, _) => KeyState::Known,
            (false, Some(line)) => KeyState::Changed { line },
            (false, None) => KeyState::Unknown,
        }
    }
}

/// Returns the entry of a line if it matches the host `name`.
fn parse(line: &str, number: usize, name: &str) -> Option<Entry> {
    let mut words = line.split_whitespace();
    let first = words.next().filter(|word| !word.starts_with('#'))?;
    let (revoked, names) = match first {
        "@revoked" => (true, words.next()?),
        word if word.starts_with('@') => return None,
        word => (false, word),
    };
    let (key_type, key) = (words.next()?, words.next()?);
    names_host(names, name).then(|| Entry { line: number, revoked, key_type: key_type.to_owned(), key: key.to_owned() })
}

fn names_host(names: &str, host: &str) -> bool {
    if let Some(hashed) = names.strip_prefix("|1|") {
        return is_hash_of(hashed, host);
    }
    let mut named = false;
    for pattern in names.split(',') {
        match pattern.strip_prefix('!') {
            Some(excluded) if matches(excluded, host) => return false,
            Some(_) => {}
            None => named |= matches(pattern, host),
        }
    }
    named
}

/// Checks `salt|hash`, both base64: the HMAC-SHA1 of the name.
fn is_hash_of(hashed: &str, host: &str) -> bool {
    let decode = |text: &str| base64::engine::general_purpose::STANDARD.decode(text).ok();
    let Some((salt, hash)) = hashed.split_once('|') else { return false };
    let (Some(salt), Some(hash)) = (decode(salt), decode(hash)) else { return false };
    Hmac::<Sha1>::new_from_slice(&salt).is_ok_and(|mac| mac.chain_update(host).verify_slice(&hash).is_ok())
}

/// Whether a pattern with `*` and `?` matches the whole name.
fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.to_ascii_lowercase().into_bytes(), name.as_bytes());
    let (mut at, mut position) = (0, 0);
    // The last star, and the position in the name up to which it matches.
    let mut star: Option<(usize, usize)> = None;
    while position < name.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, position));
                at += 1;
            }
            Some(byte) if *byte == b'?' || *byte == name[position] => {
                at += 1;
                position += 1;
            }
            _ => match star {
                Some((star_at, taken)) => {
                    star = Some((star_at, taken + 1));
                    at = star_at + 1;
                    position = taken + 1;
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "\
# comment
git.example.com,10.0.0.1 ssh-ed25519 AAAA1 who
[git.example.com]:2222 ssh-ed25519 AAAA2
*.wild.example,!not.wild.example\tecdsa-sha2-nistp256   AAAA3
@revoked * ssh-ed25519 AAAAbad
@cert-authority *.example.com ssh-ed25519 AAAAca
half a line
";

    fn state(host: &str, port: u16, key_type: &str, key: &str) -> KeyState {
        KnownHost::find(FILE, host, port).state_of(key_type, key)
    }

    #[test]
    fn hosts_match_by_name_and_port() {
        assert_eq!(state("git.example.com", 22, "ssh-ed25519", "AAAA1"), KeyState::Known);
        assert_eq!(state("GIT.example.com", 22, "ssh-ed25519", "AAAA1"), KeyState::Known);
        assert_eq!(state("10.0.0.1", 22, "ssh-ed25519", "AAAA1"), KeyState::Known);
        assert_eq!(state("git.example.com", 2222, "ssh-ed25519", "AAAA2"), KeyState::Known);
        assert_eq!(state("git.example.com", 2222, "ssh-ed25519", "AAAA1"), KeyState::Changed { line: 3 });
        assert_eq!(state("git.example.com", 23, "ssh-ed25519", "AAAA1"), KeyState::Unknown);
        assert_eq!(state("other.example.com", 22, "ssh-ed25519", "AAAAca"), KeyState::Unknown);
    }

    #[test]
    fn changed_revoked_and_unknown_keys_differ() {
        assert_eq!(state("git.example.com", 22, "ssh-ed25519", "AAAA9"), KeyState::Changed { line: 2 });
        assert_eq!(state("git.example.com", 22, "ssh-ed25519", "AAAAbad"), KeyState::Revoked { line: 5 });
        assert_eq!(state("git.example.com", 22, "ecdsa-sha2-nistp256", "AAAA9"), KeyState::Unknown);
        let host = KnownHost::find(FILE, "git.example.com", 22);
        assert_eq!(host.key_types(), ["ssh-ed25519"]);
        assert!(host.has_key_of_type("ssh-ed25519") && !host.has_key_of_type("ssh-rsa"));
    }

    #[test]
    fn patterns_and_exclusions_match() {
        assert_eq!(state("a.wild.example", 22, "ecdsa-sha2-nistp256", "AAAA3"), KeyState::Known);
        assert_eq!(state("not.wild.example", 22, "ecdsa-sha2-nistp256", "AAAA3"), KeyState::Unknown);
        for (pattern, name, expected) in
            [("*", "", true), ("a*c?", "abbcd", true), ("a*c", "abcb", false), ("?", "", false), ("a**", "a", true)]
        {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn hashed_names_match() {
        // `ssh-keygen -H` of `git.example.com`.
        let mac = Hmac::<Sha1>::new_from_slice(b"salt of twenty bytes").unwrap().chain_update("git.example.com");
        let encode = |bytes: &[u8]| base64::engine::general_purpose::STANDARD.encode(bytes);
        let names = format!("|1|{}|{}", encode(b"salt of twenty bytes"), encode(&mac.finalize().into_bytes()));
        assert!(names_host(&names, "git.example.com"));
        assert!(!names_host(&names, "git.example.org"));
        assert!(!names_host("|1|nonsense", "git.example.com"));
    }
}
