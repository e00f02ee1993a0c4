//! What a Git host would tell Argo CD of a push.
//!
//! Argo CD takes the `push` event of GitHub from anybody who knows its secret, and reads of it `ref`, `before`, `after`, the
//! files of `commits`, and of `repository` its `html_url` and `default_branch`
//! (<https://github.com/argoproj/argo-cd/blob/v2.13.0/util/webhook/webhook.go>, `affectedRevisionInfo`). It looks for
//! applications whose repository has the host and the path of `html_url`, however they reach it.

use hmac::{KeyInit as _, Mac as _};
use serde_json::{Value, json};

use super::WatchedBranch;
use super::touched::place;

/// Commits that a push has brought to a branch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushedCommit {
    /// The last of them.
    pub commit: String,
    /// The files that they have changed, from the top.
    pub files: Vec<String>,
}

/// Returns the payload; `None` where Argo CD could not tell whose it is, because the repository has no host.
pub(super) fn payload(branch: &WatchedBranch, push: &PushedCommit) -> Option<Value> {
    let (host, _) = place(branch.repository.as_str()).filter(|(host, _)| !host.is_empty())?;
    let path = branch.repository.path().trim_matches('/');
    let path = path.strip_suffix(".git").unwrap_or(path);
    let default_branch = if branch.is_default { branch.branch.as_str() } else { "" };
    Some(json!({
        "ref": format!("refs/heads/{}", branch.branch),
        "after": push.commit,
        "commits": [{ "id": push.commit, "added": [], "removed": [], "modified": push.files }],
        "repository": {
            "full_name": path,
            "html_url": format!("https://{host}/{path}"),
            "default_branch": default_branch,
        },
    }))
}

/// Returns the headers that sign a body: SHA-256, and SHA-1 for versions of Argo CD that know no other.
pub(super) fn signatures(secret: &[u8], body: &[u8]) -> [(&'static str, String); 2] {
    // Both take keys of any length.
    let sha256 = hmac::Hmac::<sha2::Sha256>::new_from_slice(secret).map(|mac| mac.chain_update(body).finalize());
    let sha1 = hmac::Hmac::<sha1::Sha1>::new_from_slice(secret).map(|mac| mac.chain_update(body).finalize());
    [
        (
            "X-Hub-Signature-256",
            sha256.map(|mac| format!("sha256={}", hex::encode(mac.into_bytes()))).unwrap_or_default(),
        ),
        ("X-Hub-Signature", sha1.map(|mac| format!("sha1={}", hex::encode(mac.into_bytes()))).unwrap_or_default()),
    ]
}

#[cfg(test)]
mod tests {
    use url::Url;

    use super::*;

    fn branch(repository: &str) -> WatchedBranch {
        WatchedBranch { repository: Url::parse(repository).unwrap(), branch: "release/1".to_owned(), is_default: false }
    }

    #[test]
    fn the_repository_is_named_as_a_browser_would() {
        let push = PushedCommit { commit: "c".repeat(40), files: vec!["a/b.yaml".to_owned()] };
        for url in [
            "https://git.example.com/uyou/platform-config.git",
            "ssh://git@git.example.com:2222/uyou/platform-config.git",
            "http://git.example.com:3000/uyou/platform-config/",
        ] {
            let body = payload(&branch(url), &push).unwrap();
            assert_eq!(body["repository"]["html_url"], "https://git.example.com/uyou/platform-config");
            assert_eq!(body["ref"], "refs/heads/release/1");
            assert_eq!(body["commits"][0]["modified"], json!(["a/b.yaml"]));
            assert_eq!(body["repository"]["default_branch"], "");
        }
        assert_eq!(payload(&branch("file:///srv/config.git"), &push), None);
    }

    #[test]
    fn the_signatures_are_those_of_github() {
        // The example of https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries
        let [(_, sha256), (_, sha1)] = signatures(b"It's a Secret to Everybody", b"Hello, World!");
        assert_eq!(sha256, "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17");
        assert_eq!(sha1.len(), 45);
    }
}
