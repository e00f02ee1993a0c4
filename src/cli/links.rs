//! Pages of Git hosts: commits and comparisons.

use url::Url;

/// The hosts whose pages are known.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Host {
    GitHub,
    GitLab,
    /// Also Forgejo and Codeberg.
    Gitea,
    Bitbucket,
}

/// Returns the page of a commit; `None`: the host is unknown.
pub(super) fn commit(repository: &str, id: &str) -> Option<String> {
    let (host, page) = page(repository)?;
    Some(match host {
        Host::GitHub | Host::Gitea => format!("{page}/commit/{id}"),
        Host::GitLab => format!("{page}/-/commit/{id}"),
        Host::Bitbucket => format!("{page}/commits/{id}"),
    })
}

/// Returns the page that compares two commits; `None`: the host is unknown, or one is no commit.
pub(super) fn compare(repository: &str, old: &str, new: &str) -> Option<String> {
    let (old, new) = (sha(old)?, sha(new)?);
    let (host, page) = page(repository)?;
    Some(match host {
        Host::GitHub | Host::Gitea => format!("{page}/compare/{old}...{new}"),
        Host::GitLab => format!("{page}/-/compare/{old}...{new}"),
        Host::Bitbucket => format!("{page}/branches/compare/{new}..{old}"),
    })
}

/// Returns the commit id in a tag: a part of at least seven hexadecimal digits.
fn sha(tag: &str) -> Option<&str> {
    let is_sha = |part: &&str| part.len() >= 7 && part.len() <= 40 && part.bytes().all(|c| c.is_ascii_hexdigit());
    tag.split(['-', '_', '.']).find(is_sha)
}

/// Returns the kind of host and the address of the repository's page.
fn page(repository: &str) -> Option<(Host, String)> {
    let url = Url::parse(repository).ok().or_else(|| scp_form(repository))?;
    let name = url.host_str()?.to_owned();
    let host = match name.as_str() {
        "github.com" => Host::GitHub,
        "gitlab.com" => Host::GitLab,
        "codeberg.org" => Host::Gitea,
        "bitbucket.org" => Host::Bitbucket,
        _ if name.starts_with("github.") => Host::GitHub,
        _ if name.starts_with("gitlab.") => Host::GitLab,
        _ if name.starts_with("gitea.") || name.starts_with("forgejo.") => Host::Gitea,
        _ => return None,
    };
    let path = url.path().trim_end_matches('/');
    let path = path.strip_suffix(".git").unwrap_or(path);
    let port = url.port().filter(|_| url.scheme().starts_with("http")).map(|port| format!(":{port}"));
    let scheme = if url.scheme() == "http" { "http" } else { "https" };
    Some((host, format!("{scheme}://{name}{}{path}", port.unwrap_or_default())))
}

/// Reads `git@host:path`.
fn scp_form(text: &str) -> Option<Url> {
    let (host, path) = text.split_once(':')?;
    let host = host.rsplit('@').next()?;
    Url::parse(&format!("ssh://{host}/{path}")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_known_hosts_are_found() {
        for (repository, expected) in [
            ("https://github.com/uyou/app.git", Some("https://github.com/uyou/app/commit/abc")),
            ("ssh://git@github.com/uyou/app.git", Some("https://github.com/uyou/app/commit/abc")),
            ("git@gitlab.example.com:uyou/team/app.git", Some("https://gitlab.example.com/uyou/team/app/-/commit/abc")),
            ("http://gitea.internal:3000/uyou/app", Some("http://gitea.internal:3000/uyou/app/commit/abc")),
            ("https://bitbucket.org/uyou/app", Some("https://bitbucket.org/uyou/app/commits/abc")),
            ("https://git.example.com/uyou/app.git", None),
            ("file:///srv/app.git", None),
        ] {
            assert_eq!(commit(repository, "abc").as_deref(), expected, "{repository}");
        }
    }

    #[test]
    fn comparison_needs_two_commits() {
        let compare = |old, new| compare("https://github.com/uyou/app", old, new);
        let page = "https://github.com/uyou/app/compare/1a2b3c4...9f8e7d6";
        assert_eq!(compare("1a2b3c4", "9f8e7d6").as_deref(), Some(page));
        assert_eq!(compare("main-1a2b3c4-17", "main-9f8e7d6-18").as_deref(), Some(page));
        assert_eq!(compare("v1.2.3", "9f8e7d6"), None);
    }

    #[test]
    fn credentials_of_an_address_are_left_out() {
        let page = commit("https://me:hunter2@github.com/uyou/app.git", "abc").unwrap();
        assert_eq!(page, "https://github.com/uyou/app/commit/abc");
    }
}
