//! Short forms of repository names: what all of them begin with is shown once.

/// What a list of repositories begins with.
pub(super) struct Prefix(String);

impl Prefix {
    /// Returns the common prefix, up to a slash. Empty for a single repository without others to share it.
    pub(super) fn of<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let mut names = names.into_iter();
        let Some(first) = names.next() else { return Self(String::new()) };
        let mut prefix = first.rfind('/').map_or("", |slash| &first[..=slash]);
        for name in names {
            while !name.starts_with(prefix) {
                let shorter = prefix.trim_end_matches('/');
                prefix = shorter.rfind('/').map_or("", |slash| &prefix[..=slash]);
            }
        }
        Self(prefix.to_owned())
    }

    /// Returns a name without the prefix.
    pub(super) fn strip<'a>(&self, name: &'a str) -> &'a str {
        name.strip_prefix(&self.0).unwrap_or(name)
    }

    /// Returns a heading for the names: `repository (docker.io/uyou/…)`.
    pub(super) fn heading(&self) -> String {
        if self.0.is_empty() { "repository".to_owned() } else { format!("in {}", self.0.trim_end_matches('/')) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_prefix_ends_with_a_slash() {
        let prefix = |names: &[&str]| Prefix::of(names.iter().copied()).0;
        assert_eq!(prefix(&["docker.io/uyou/user-service", "docker.io/uyou/user-api"]), "docker.io/uyou/");
        assert_eq!(prefix(&["docker.io/uyou/a", "docker.io/other/a"]), "docker.io/");
        assert_eq!(prefix(&["docker.io/uyou/a", "ghcr.io/uyou/a"]), "");
        assert_eq!(prefix(&["docker.io/uyou/a"]), "docker.io/uyou/");
        assert_eq!(prefix(&[]), "");
        let prefix = Prefix::of(["docker.io/uyou/a", "docker.io/uyou/b"]);
        assert_eq!((prefix.strip("docker.io/uyou/a"), prefix.heading().as_str()), ("a", "in docker.io/uyou"));
    }
}
