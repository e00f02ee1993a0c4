use serde::{Deserialize, Serialize};

use super::string_newtype;

/// Docker Hub's host in references.
const DOCKER_HUB: &str = "docker.io";

/// The longest repository name that registries accept, host included, in bytes.
const MAX_NAME_BYTES: usize = 255;

/// A normalised repository: `host[:port]/path`, always with a host, always lower-case.
///
/// `nginx` is `docker.io/library/nginx`; `index.docker.io` and `registry-1.docker.io` are `docker.io`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Repository {
    /// `host/path`.
    full: String,
    /// The length of the host in bytes.
    host_bytes: usize,
}

string_newtype!(Repository, InvalidRepository);

/// Why a string is not a repository.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRepository {
    /// The text is empty.
    #[error("a repository is empty")]
    Empty,
    /// The name is longer than registries accept.
    #[error("a repository has {0} bytes, and at most {MAX_NAME_BYTES} are allowed")]
    TooLong(usize),
    /// The part before the first slash is not a host with an optional port.
    #[error("`{0}` is not a registry host (a DNS name with a dot, an address or `localhost`, with an optional port)")]
    Host(String),
    /// A path component is invalid by the distribution specification.
    #[error("`{0}` is not a repository path (lower-case letters and digits, joined by `.`, `_`, `__`, `-` or `/`)")]
    Path(String),
}

impl Repository {
    /// Creates a repository from a host and a path, as registries announce them.
    ///
    /// # Errors
    ///
    /// [`InvalidRepository`] if a part is invalid or the whole is too long.
    pub fn new(host: &str, path: &str) -> Result<Self, InvalidRepository> {
        let host = normalise_host(host)?;
        let path = match host.as_str() {
            DOCKER_HUB if !path.contains('/') => format!("library/{path}"),
            _ => path.to_owned(),
        };
        check_path(&path)?;
        let full = format!("{host}/{path}");
        if full.len() > MAX_NAME_BYTES {
            return Err(InvalidRepository::TooLong(full.len()));
        }
        Ok(Self { full, host_bytes: host.len() })
    }

    /// Returns `host/path`.
    pub fn as_str(&self) -> &str {
        &self.full
    }

    /// Returns the registry's host and port: `docker.io`, `localhost:5000`.
    pub fn registry(&self) -> &str {
        &self.full[..self.host_bytes]
    }

    /// Returns the path inside the registry: `library/nginx`.
    pub fn path(&self) -> &str {
        &self.full[self.host_bytes + 1..]
    }

    /// Returns the last component of the path: `nginx`.
    pub fn name(&self) -> &str {
        self.full.rsplit('/').next().unwrap_or(&self.full)
    }
}

impl std::str::FromStr for Repository {
    type Err = InvalidRepository;

    /// Parses a repository with an optional host.
    ///
    /// The first component is a host if it contains a dot, a colon or an upper-case letter, or is `localhost`
    /// (<https://github.com/distribution/reference/blob/main/normalize.go>, `splitDockerDomain`).
    fn from_str(text: &str) -> Result<Self, InvalidRepository> {
        if text.is_empty() {
            return Err(InvalidRepository::Empty);
        }
        match text.split_once('/') {
            Some((first, rest)) if is_host(first) => Self::new(first, rest),
            _ => Self::new(DOCKER_HUB, text),
        }
    }
}

fn is_host(first: &str) -> bool {
    first.contains(['.', ':']) || first == "localhost" || first.bytes().any(|byte| byte.is_ascii_uppercase())
}

fn normalise_host(host: &str) -> Result<String, InvalidRepository> {
    let invalid = || InvalidRepository::Host(host.to_owned());
    let (name, port) = match host.strip_prefix('[') {
        // IPv6 addresses are in brackets.
        Some(rest) => {
            let (address, port) = rest.split_once(']').ok_or_else(invalid)?;
            let address_ok = address.parse::<std::net::Ipv6Addr>().is_ok();
            let port = if port.is_empty() { None } else { Some(port.strip_prefix(':').ok_or_else(invalid)?) };
            if !address_ok {
                return Err(invalid());
            }
            (format!("[{address}]"), port)
        }
        None => {
            let (name, port) = match host.split_once(':') {
                Some((name, port)) => (name, Some(port)),
                None => (host, None),
            };
            if !name.split('.').all(is_host_label) {
                return Err(invalid());
            }
            (name.to_ascii_lowercase(), port)
        }
    };
    if let Some(port) = port
        && (!port.bytes().all(|byte| byte.is_ascii_digit()) || port.parse::<u16>().is_err())
    {
        return Err(invalid());
    }
    let normal = match name.as_str() {
        "index.docker.io" | "registry-1.docker.io" | "registry.hub.docker.com" => DOCKER_HUB.to_owned(),
        _ => name,
    };
    let host = match port {
        Some(port) => format!("{normal}:{port}"),
        None => normal,
    };
    // A host such as `word` would be parsed as part of the path next time.
    if is_host(&host) { Ok(host) } else { Err(invalid()) }
}

fn is_host_label(label: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    !label.is_empty() && !label.starts_with('-') && !label.ends_with('-') && label.bytes().all(inner)
}

fn check_path(path: &str) -> Result<(), InvalidRepository> {
    if path.split('/').all(is_path_component) { Ok(()) } else { Err(InvalidRepository::Path(path.to_owned())) }
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`, from the distribution specification.
fn is_path_component(component: &str) -> bool {
    let is_alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = component.as_bytes();
    let ends_well = |byte: Option<&u8>| byte.is_some_and(|byte| is_alphanumeric(*byte));
    if !ends_well(bytes.first()) || !ends_well(bytes.last()) {
        return false;
    }
    let separators = component.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    let mut separators = separators.filter(|separator| !separator.is_empty());
    separators.all(|separator| matches!(separator, "." | "_" | "__") || separator.bytes().all(|byte| byte == b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normal(text: &str) -> String {
        text.parse::<Repository>().unwrap_or_else(|error| panic!("{text}: {error}")).to_string()
    }

    #[test]
    fn repositories_are_normalised() {
        for (written, expected) in [
            ("nginx", "docker.io/library/nginx"),
            ("uyou/user-service", "docker.io/uyou/user-service"),
            ("docker.io/nginx", "docker.io/library/nginx"),
            ("index.docker.io/uyou/a", "docker.io/uyou/a"),
            ("localhost/a", "localhost/a"),
            ("localhost:5000/a/b", "localhost:5000/a/b"),
            ("Registry.Example.COM/a", "registry.example.com/a"),
            ("[::1]:5000/a", "[::1]:5000/a"),
            ("ghcr.io/a/b__c/d-e.f", "ghcr.io/a/b__c/d-e.f"),
        ] {
            assert_eq!(normal(written), expected);
        }
    }

    #[test]
    fn host_path_and_name_are_split() {
        let repository: Repository = "registry.example.com:5000/team/user-service".parse().unwrap();
        assert_eq!(repository.registry(), "registry.example.com:5000");
        assert_eq!(repository.path(), "team/user-service");
        assert_eq!(repository.name(), "user-service");
    }

    #[test]
    fn invalid_repositories_are_refused() {
        for text in
            ["Nginx", "a//b", "a/", "/a", "a b", "a/../b", "a/.b", "a___b", "{{ x }}", "a:b", "uyou/a:tag", "a\n"]
        {
            assert!(text.parse::<Repository>().is_err(), "{text}");
        }
        for text in ["exa mple.com/a", "example.com:port/a", "example.com:99999/a", "-a.com/b", "[::g]/a", "a..b/c"] {
            assert!(matches!(text.parse::<Repository>(), Err(InvalidRepository::Host(_))), "{text}");
        }
        // In lower case, these would be paths of Docker Hub.
        for text in ["Word/a", "WORD/a/b"] {
            assert!(matches!(text.parse::<Repository>(), Err(InvalidRepository::Host(_))), "{text}");
        }
        assert!(matches!(Repository::new("word", "a/b"), Err(InvalidRepository::Host(_))));
        assert!(Repository::new("word:5000", "a/b").is_ok());
        assert!(matches!("a".repeat(300).parse::<Repository>(), Err(InvalidRepository::TooLong(_))));
        assert_eq!("".parse::<Repository>(), Err(InvalidRepository::Empty));
    }
}
