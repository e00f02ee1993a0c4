//! The push event that Argo CD's webhook receives, in GitHub's format.
//!
//! Argo CD reads `ref`, `before`, `after`, the files of `commits`, and `html_url` and `default_branch` of `repository`
//! (<https://github.com/argoproj/argo-cd/blob/v2.13.0/util/webhook/webhook.go>, `affectedRevisionInfo`). It refreshes the
//! applications whose repository has the host and path of `html_url`, by any protocol.

use hmac::{KeyInit as _, Mac as _};
use serde_json::{Value, json};

use super::WatchedBranch;
use super::touched::place;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushedCommit {
    /// The last commit.
    pub commit: String,
    /// The changed files of all commits, relative to the repository.
    pub files: Vec<String>,
}

/// Returns the payload; `None`: the repository's URL has no host, so Argo CD could not find its applications.
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

/// Returns the signature headers of a body: SHA-256, and SHA-1 for older versions of Argo CD.
pub(super) fn signatures(secret: &[u8], body: &[u8]) -> [(&'static str, String); 2] {
    // HMAC accepts keys of any length, so neither fails.
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
    fn repository_is_named_by_its_web_url() {
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
    fn signatures_match_githubs_example() {
        // The example of https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries
        let [(_, sha256), (_, sha1)] = signatures(b"It's a Secret to Everybody", b"Hello, World!");
        assert_eq!(sha256, "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17");
        assert_eq!(sha1.len(), 45);
    }
}
