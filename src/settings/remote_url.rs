use url::{Host, ParseError, Url};

/// Why a text is not the URL of a config repository. Messages do not quote it, because it may contain a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct InvalidRemoteUrl {
    pub(super) message: String,
    pub(super) hint: String,
}

fn invalid<T>(message: &str, hint: impl Into<String>) -> Result<T, InvalidRemoteUrl> {
    Err(InvalidRemoteUrl { message: format!("`url`: {message}"), hint: hint.into() })
}

/// The protocol of a Git repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    Https,
    Http,
    Ssh,
    File,
}

/// Parses the URL of a config repository.
pub(super) fn parse(text: &str) -> Result<(Url, Transport), InvalidRemoteUrl> {
    if !text.contains("://") {
        return Err(not_a_url(text));
    }
    let url = match Url::parse(text) {
        Ok(url) => url,
        Err(ParseError::InvalidPort) if text.starts_with("ssh:") => {
            return invalid(
                "the text after the host's `:` is not a port",
                "in an ssh:// URL the path begins with `/`: write \"ssh://git@host/path\"",
            );
        }
        Err(error) => return invalid(&format!("this is not a URL: {error}"), EXAMPLE),
    };
    let transport = match url.scheme() {
        "https" => Transport::Https,
        "http" => Transport::Http,
        "ssh" => Transport::Ssh,
        "file" => Transport::File,
        other => return invalid(&format!("`{other}` is not supported"), "use https, http, ssh or file"),
    };
    check_parts(&url, transport)?;
    Ok((url, transport))
}

const EXAMPLE: &str = "write \"https://host/path.git\", \"ssh://git@host/path.git\" or \"file:///path.git\"";

fn check_parts(url: &Url, transport: Transport) -> Result<(), InvalidRemoteUrl> {
    if url.password().is_some() {
        return invalid("it contains a password", "remove it, and write password = { env = \"NAME\" } beside the URL");
    }
    if !url.username().is_empty() && transport != Transport::Ssh {
        return invalid(
            "it contains a user name, which may be a token",
            "remove it, and write username = \"…\" and password = { env = \"NAME\" } beside the URL",
        );
    }
    if url.query().is_some() || url.fragment().is_some() {
        return invalid("it contains `?` or `#`, which no Git URL needs", "remove the text from there on");
    }
    if transport == Transport::File && url.has_host() {
        return invalid("a file URL has no host", "write three slashes: \"file:///path.git\"");
    }
    if transport != Transport::File && url.host_str().is_none_or(str::is_empty) {
        return invalid("it has no host", EXAMPLE);
    }
    if matches!(url.path(), "" | "/") {
        return invalid("it names no repository after the host", EXAMPLE);
    }
    Ok(())
}

/// Returns the message for the other forms that Git accepts: `git@host:path` and plain paths.
fn not_a_url(text: &str) -> InvalidRemoteUrl {
    let harmless = |part: &str| !part.is_empty() && part.bytes().all(is_harmless);
    let scp_like = text.split_once('@').and_then(|(user, rest)| Some((user, rest.split_once(':')?)));
    let (message, hint) = match scp_like {
        Some((user, (host, path))) if harmless(user) && harmless(host) && harmless(path) => (
            "`url`: write a URL instead of user@host:path".to_owned(),
            format!("write \"ssh://{user}@{host}/{}\"", path.trim_start_matches('/')),
        ),
        Some(_) => ("`url`: write a URL instead of user@host:path".to_owned(), EXAMPLE.to_owned()),
        None if text.starts_with('/') => {
            ("`url`: this is a path, not a URL".to_owned(), "write file:// in front of it".to_owned())
        }
        None => ("`url`: this is not a URL".to_owned(), EXAMPLE.to_owned()),
    };
    InvalidRemoteUrl { message, hint }
}

fn is_harmless(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'/' | b'~')
}

/// Returns whether the host is this machine; `None` means a file URL.
pub(super) fn is_loopback(host: Option<Host<&str>>) -> bool {
    match host {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_transports_are_supported() {
        for (text, transport) in [
            ("https://git.example.com/uyou/platform-config.git", Transport::Https),
            ("http://127.0.0.1:3000/platform.git", Transport::Http),
            ("ssh://git@git.example.com:2222/uyou/platform.git", Transport::Ssh),
            ("file:///srv/git/platform.git", Transport::File),
        ] {
            let (url, found) = parse(text).unwrap();
            assert_eq!((url.as_str(), found), (text, transport));
        }
    }

    #[test]
    fn invalid_url_is_reported_with_a_hint_and_without_its_password() {
        for (text, message, hint) in [
            (
                "git@git.example.com:uyou/platform.git",
                "instead of user@host",
                "ssh://git@git.example.com/uyou/platform",
            ),
            ("git:hunter2@git.example.com:uyou", "instead of user@host", "ssh://git@host"),
            ("ssh://git@git.example.com:uyou/platform.git", "not a port", "ssh://git@host/path"),
            ("/srv/git/platform.git", "a path", "file://"),
            ("platform.git", "not a URL", "https://"),
            ("https://tagrelay:hunter2@git.example.com/a.git", "contains a password", "env"),
            ("https://hunter2@git.example.com/a.git", "may be a token", "username"),
            ("ssh://git:hunter2@git.example.com/a.git", "contains a password", "env"),
            ("https://git.example.com/a.git?private_token=hunter2", "`?`", "remove"),
            ("https://git.example.com", "no repository", "https://"),
            ("https://:hunter2 @/a", "not a URL", "https://"),
            ("git://git.example.com/a.git", "`git` is not supported", "https"),
            ("file://srv/git/a.git", "no host", "three slashes"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.message.contains(message), "{text}: {error:?}");
            assert!(error.hint.contains(hint), "{text}: {error:?}");
            assert!(!format!("{error:?}").contains("hunter2"), "{text}: {error:?}");
        }
    }

    #[test]
    fn loopback_hosts_are_recognised() {
        let loopback = |text: &str| is_loopback(Url::parse(text).unwrap().host());
        for text in ["http://localhost:1/", "http://127.0.0.2/", "http://[::1]/", "http://git.localhost/"] {
            assert!(loopback(text), "{text}");
        }
        assert!(!loopback("http://git.example.com/"));
        assert!(!loopback("http://10.0.0.1/"));
    }
}
