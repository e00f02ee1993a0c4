//! The history of a source repository over every transport: requests, stored data, answers.

use std::path::Path;
use std::time::Duration;

use tagrelay::config_repo::Authentication;
use tagrelay::source_repo::{Membership, Relation, SourceSettings, Sources};
use tagrelay_image::Repository;
use tagrelay_secret::Secret;
use tagrelay_test_support::git_http::{Fault, Server};
use tagrelay_test_support::source::{CONTENT, Source};

fn settings(url: &str, branches: &[&str], folder: &Path) -> SourceSettings {
    let password = Secret::inline("source-password-77".to_owned()).unwrap();
    let is_http = url.starts_with("http");
    SourceSettings {
        url: url.to_owned(),
        branches: branches.iter().map(|branch| (*branch).to_owned()).collect(),
        authentication: match is_http {
            true => Authentication::Basic { username: "reader".to_owned(), password },
            false => Authentication::None,
        },
        ca_bundle: None,
        folder: folder.to_owned(),
    }
}

fn image() -> Repository {
    "docker.io/uyou/user-service".parse().unwrap()
}

/// A source repository and an image.
struct Asked(Sources);

impl Asked {
    fn new(settings: SourceSettings) -> Self {
        tagrelay::registry::install_tls_provider();
        Self(Sources::new(vec![settings]))
    }

    async fn is_on_branch(&self, sha: &str) -> bool {
        self.0.membership(0, &image(), sha).await.unwrap() == Membership::OnBranch
    }

    async fn relation(&self, new: &str, old: &str) -> Relation {
        self.0.relation(0, &image(), new, old).await.unwrap()
    }
}

fn contents(folder: &Path) -> String {
    let mut text = String::new();
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        match entry.path() {
            path if path.is_dir() => text.push_str(&contents(&path)),
            path => text.push_str(&String::from_utf8_lossy(&std::fs::read(path).unwrap())),
        }
    }
    text
}

/// Servers with an abbreviated and a full history, with both protocol versions.
#[tokio::test]
async fn ancestry_is_known_from_every_server() {
    for (can_filter, fault) in
        [(true, Fault::None), (true, Fault::OldProtocol), (false, Fault::None), (false, Fault::OldProtocol)]
    {
        let source = Source::new("user-service", can_filter);
        let commits = source.commits(250);
        let (oldest, newest) = (&commits[0], &commits[249]);
        let server = Server::start(source.folder.path(), "reader", "source-password-77");
        server.set_fault(fault);
        let kept = tempfile::tempdir().unwrap();
        let asked = Asked::new(settings(&format!("{}/{{name}}.git", server.url), &["main"], kept.path()));
        let case = format!("filter {can_filter}, {fault:?}");
        assert!(asked.is_on_branch(newest).await, "{case}");
        assert_eq!(asked.relation(newest, oldest).await, Relation::Descendant, "{case}");
        assert_eq!(asked.relation(&oldest[..12], &newest[..9]).await, Relation::Ancestor, "{case}");
        assert_eq!(asked.relation(newest, newest).await, Relation::Same, "{case}");
        let unknown = asked.relation(newest, &"e".repeat(40)).await;
        assert!(
            matches!(&unknown, Relation::Unknown { reason } if reason.contains("has no commit eeeeeee")),
            "{unknown:?}"
        );

        // Only new commits are requested.
        let next = source.commit("main", Some(newest), "next");
        assert!(asked.is_on_branch(&next).await, "{case}");
        assert_eq!(asked.relation(&next, &commits[120]).await, Relation::Descendant, "{case}");
        assert!(!contents(kept.path()).contains(CONTENT), "{case}");
        assert_eq!(contents(kept.path()).matches(&commits[200]).count(), 2, "{case}: once itself, once as a parent");
    }
}

#[tokio::test]
async fn only_configured_branches_count() {
    let source = Source::new("user-service", true);
    let first = source.commit("main", None, "first");
    let release = source.commit("release/1", Some(&first), "release");
    let deep = source.commit("release/2/fix", Some(&release), "deep");
    let feature = source.commit("feature", Some(&first), "feature");
    let url = format!("file://{}", source.path().display());
    let kept = tempfile::tempdir().unwrap();
    let some = Asked::new(settings(&url, &["main", "release/*"], kept.path()));
    assert!(some.is_on_branch(&first).await && some.is_on_branch(&release).await);
    assert!(!some.is_on_branch(&deep).await && !some.is_on_branch(&feature).await);
    let said = some.0.membership(0, &image(), &feature).await.unwrap();
    let expected = format!("the commit {} is on none of the branches `main`, `release/*` of {url}", &feature[..7]);
    assert_eq!(said, Membership::Elsewhere { reason: expected });

    // Without a list, every branch counts. Commits on diverged branches have no relation.
    let all = Asked::new(settings(&url, &[], kept.path()));
    assert!(all.is_on_branch(&feature).await && all.is_on_branch(&deep).await);
    assert!(matches!(all.relation(&feature, &release).await, Relation::Unknown { .. }));
    assert_eq!(all.relation(&deep, &first).await, Relation::Descendant);
    let said = all.0.membership(0, &image(), &"e".repeat(40)).await.unwrap();
    assert_eq!(said, Membership::Elsewhere { reason: format!("the commit eeeeeee is on no branch of {url}") });
}

#[tokio::test]
async fn force_pushed_branch_loses_its_commits() {
    let source = Source::new("user-service", true);
    let first = source.commit("main", None, "first");
    let gone = source.commit("main", Some(&first), "gone");
    let kept = tempfile::tempdir().unwrap();
    let asked = Asked::new(settings(&format!("file://{}", source.path().display()), &["main"], kept.path()));
    assert!(asked.is_on_branch(&gone).await);
    let other = source.commit("main", Some(&first), "other");
    source.git(&["reflog", "expire", "--expire=now", "--all"], "");
    source.git(&["gc", "--quiet", "--prune=now"], "");
    assert!(asked.is_on_branch(&other).await);
    assert!(!asked.is_on_branch(&gone).await);
    // Its ancestry is still known.
    assert_eq!(asked.relation(&gone, &first).await, Relation::Descendant);
    assert!(matches!(asked.relation(&gone, &other).await, Relation::Unknown { .. }));
}

#[tokio::test]
async fn commit_must_still_be_on_a_configured_branch() {
    let source = Source::new("user-service", true);
    let first = source.commit("main", None, "first");
    let gone = source.commit("main", Some(&first), "gone");
    let kept = tempfile::tempdir().unwrap();
    let url = format!("file://{}", source.path().display());
    let asked = Asked::new(settings(&url, &["main"], kept.path()));
    let any = Asked::new(settings(&url, &[], &kept.path().join("any")));
    assert!(asked.is_on_branch(&gone).await && any.is_on_branch(&gone).await);
    source.git(&["update-ref", "refs/heads/main", &first], "");
    assert!(!asked.is_on_branch(&gone).await);
    // Without configured branches, it still counts.
    assert!(any.is_on_branch(&gone).await);
}

#[tokio::test]
async fn negative_answer_rests_on_a_new_reading() {
    let source = Source::new("user-service", true);
    let first = source.commit("main", None, "first");
    let kept = tempfile::tempdir().unwrap();
    let asked = Asked::new(settings(&format!("file://{}", source.path().display()), &["main"], kept.path()));
    let mut last = first;
    for subject in ["second", "third", "fourth"] {
        last = source.commit("main", Some(&last), subject);
        assert!(asked.is_on_branch(&last).await, "{subject}");
    }
}

#[tokio::test]
async fn unreachable_source_is_reported_and_known_commits_stay_known() {
    let source = Source::new("user-service", true);
    let commits = source.commits(3);
    let server = Server::start(source.folder.path(), "reader", "source-password-77");
    let kept = tempfile::tempdir().unwrap();
    let url = format!("{}/user-service.git", server.url);
    let asked = Asked::new(settings(&url, &[], kept.path()));
    server.set_fault(Fault::Unavailable(2));
    let error = asked.0.membership(0, &image(), &commits[2]).await.unwrap_err();
    assert!(error.to_string().starts_with(&format!("source repository {url}: unavailable: 503")), "{error}");
    assert_eq!(error.ask_again_after().unwrap().as_secs(), 2);
    server.set_fault(Fault::None);
    server.take_requests();
    // Another question about the source fails until the pause is over, without a request.
    let error = asked.0.membership(0, &image(), &commits[1]).await.unwrap_err();
    assert!(error.ask_again_after().is_some_and(|wait| wait.as_secs() < 2), "{error}");
    assert_eq!(server.take_requests(), Vec::<String>::new());
    while asked.0.membership(0, &image(), &commits[2]).await.is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(asked.is_on_branch(&commits[2]).await);
    server.set_fault(Fault::Unavailable(2));
    drop(asked);
    let again = Asked::new(settings(&url, &[], kept.path()));
    assert!(again.is_on_branch(&commits[2]).await);
    assert_eq!(again.relation(&commits[2], &commits[0]).await, Relation::Descendant);

    let mut wrong = settings(&url, &[], &kept.path().join("wrong"));
    wrong.authentication = Authentication::None;
    server.set_fault(Fault::None);
    let error = Asked::new(wrong).0.membership(0, &image(), &commits[2]).await.unwrap_err();
    assert!(error.to_string().contains("authentication failed"), "{error}");
    assert!(!error.to_string().contains("source-password"));
}

#[tokio::test]
async fn failure_before_any_connection_names_the_source_repository() {
    let kept = tempfile::tempdir().unwrap();
    let url = "https://127.0.0.1:1/user-service.git";
    let mut without_certificates = settings(url, &[], kept.path());
    without_certificates.ca_bundle = Some(kept.path().join("removed.pem"));
    let error = Asked::new(without_certificates).0.membership(0, &image(), &"1".repeat(40)).await.unwrap_err();
    let error = error.to_string();
    assert!(error.starts_with(&format!("source repository {url}: the certificates in ")), "{error}");
    assert!(!error.contains("config repository"), "{error}");

    // The history's folder is a file.
    std::fs::write(kept.path().join("file"), "").unwrap();
    let server_folder = Source::new("user-service", true);
    let url = format!("file://{}", server_folder.path().display());
    server_folder.commits(1);
    let nowhere = settings(&url, &[], &kept.path().join("file"));
    let error = Asked::new(nowhere).0.membership(0, &image(), &"1".repeat(40)).await.unwrap_err().to_string();
    assert!(error.starts_with(&format!("source repository {url}: the folder ")), "{error}");
    assert!(!error.contains("config repository") && !error.contains("mirror"), "{error}");
}

#[tokio::test]
async fn damaged_cache_is_recreated() {
    let source = Source::new("user-service", true);
    let commits = source.commits(20);
    let kept = tempfile::tempdir().unwrap();
    let url = format!("file://{}", source.path().display());
    assert!(Asked::new(settings(&url, &[], kept.path())).is_on_branch(&commits[19]).await);
    let folder = std::fs::read_dir(kept.path()).unwrap().next().unwrap().unwrap().path();
    std::fs::write(folder.join("commits"), "damaged").unwrap();
    let asked = Asked::new(settings(&url, &[], kept.path()));
    assert!(asked.is_on_branch(&commits[19]).await);
    assert_eq!(asked.relation(&commits[19], &commits[0]).await, Relation::Descendant);
    assert!(!folder.join("incoming").exists());
}
