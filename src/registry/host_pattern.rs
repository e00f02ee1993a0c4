//! Patterns of registry hosts.

use globset::{GlobBuilder, GlobMatcher};

/// A host with its port, or a pattern of hosts.
///
/// In a pattern, `*` stands for any characters except dots: `*.registry.example.com`.
#[derive(Debug, Clone)]
pub(super) struct HostPattern {
    text: String,
    /// `None`: the text is one host.
    matcher: Option<GlobMatcher>,
}

impl HostPattern {
    /// Reads a pattern, in upper or lower case; `None`: the pattern is invalid.
    pub(super) fn new(text: &str) -> Option<Self> {
        let text = text.to_ascii_lowercase();
        let matcher = match text.contains('*') {
            true => Some(GlobBuilder::new(&as_path(&text)).literal_separator(true).build().ok()?.compile_matcher()),
            false => None,
        };
        Some(Self { text, matcher })
    }

    pub(super) fn matches(&self, host: &str) -> bool {
        match &self.matcher {
            Some(matcher) => matcher.is_match(as_path(host)),
            None => self.text == host,
        }
    }

    /// Returns the rank among patterns that match the same host.
    ///
    /// One host ranks before patterns, and a longer text before a shorter one.
    pub(super) fn specificity(&self) -> (bool, usize) {
        (self.matcher.is_none(), self.text.len())
    }
}

/// Returns the host with its labels as the components of a path, which `*` does not cross.
fn as_path(host: &str) -> String {
    host.replace('.', "/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcard_does_not_cross_a_dot() {
        let pattern = HostPattern::new("*.Registry.example.com").unwrap();
        assert!(pattern.matches("a.registry.example.com"));
        for host in [
            "registry.example.com",
            "a.b.registry.example.com",
            "a.registry.example.com:5000",
            "axregistry.example.com",
        ] {
            assert!(!pattern.matches(host), "{host}");
        }
    }

    #[test]
    fn exact_host_is_more_specific_than_a_pattern() {
        let rank = |text: &str| HostPattern::new(text).unwrap().specificity();
        assert!(rank("a.example.com") > rank("*.longer.example.com"));
        assert!(rank("eu-*.example.com") > rank("*.example.com"));
    }
}
