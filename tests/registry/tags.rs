//! Tag lists of registries, correct and malformed.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use tagrelay::registry::{Confirmation, Listing, Registries, RegistrySettings};
use tagrelay_image::Repository;
use tagrelay_test_support::guarded_registry::{Fault, GuardedRegistry, SignIn};

use crate::image;

/// A server that returns the scripted answers to list requests in order, and repeats the last one.
struct Lists {
    host: String,
    state: Arc<Mutex<State_>>,
}

#[derive(Default)]
struct State_ {
    answers: Vec<Answer>,
    asked: Vec<String>,
}

#[derive(Clone)]
struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: String,
    /// A body of this many mebibytes instead.
    endless_mib: usize,
}

fn page(tags: &[&str], link: Option<&str>) -> Answer {
    let headers = link.map(|link| ("link", link.to_owned())).into_iter().collect();
    let body = serde_json::json!({ "name": "uyou/a", "tags": tags }).to_string();
    Answer { status: 200, headers, body, endless_mib: 0 }
}

fn text(status: u16, body: &str) -> Answer {
    Answer { status, headers: Vec::new(), body: body.to_owned(), endless_mib: 0 }
}

fn error(status: u16, code: &str) -> Answer {
    text(status, &serde_json::json!({ "errors": [{ "code": code, "message": "no" }] }).to_string())
}

async fn answer(State(state): State<Arc<Mutex<State_>>>, request: Request) -> Response {
    let answer = {
        let mut state = state.lock().unwrap();
        state.asked.push(request.uri().to_string());
        if state.answers.len() > 1 { state.answers.remove(0) } else { state.answers[0].clone() }
    };
    let mut response = Response::builder().status(answer.status);
    for (name, value) in &answer.headers {
        response = response.header(*name, value);
    }
    let body = if answer.endless_mib > 0 {
        let blocks = (0..answer.endless_mib).map(|_| Ok::<_, std::io::Error>(vec![b' '; 1 << 20]));
        Body::from_stream(futures_util::stream::iter(blocks))
    } else {
        Body::from(answer.body)
    };
    response.body(body).unwrap()
}

impl Lists {
    async fn answering(answers: impl IntoIterator<Item = Answer>) -> Self {
        let state = Arc::new(Mutex::new(State_ { answers: answers.into_iter().collect(), asked: Vec::new() }));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let routes = axum::Router::new().fallback(answer).with_state(Arc::clone(&state));
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Self { host, state }
    }

    fn registries(&self) -> Registries {
        asking(&self.host)
    }

    fn repository(&self) -> Repository {
        Repository::new(&self.host, "uyou/a").unwrap()
    }

    async fn list(&self) -> Listing {
        self.registries().tags(&self.repository()).await
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().unwrap().asked)
    }
}

fn asking(host: &str) -> Registries {
    let settings = RegistrySettings { plain_http: true, ..RegistrySettings::for_host(host) };
    Registries::new(vec![settings]).unwrap()
}

#[track_caller]
fn tags(listing: Listing) -> Vec<String> {
    match listing {
        Listing::Tags { tags, .. } => tags.iter().map(ToString::to_string).collect(),
        other => panic!("no tags: {other:?}"),
    }
}

#[track_caller]
fn no_list(listing: Listing) -> String {
    match listing {
        Listing::NoList { reason } => reason,
        other => panic!("not what was expected: {other:?}"),
    }
}

#[track_caller]
fn not_allowed(listing: Listing) -> String {
    match listing {
        Listing::NotAllowed { reason } => reason,
        other => panic!("not what was expected: {other:?}"),
    }
}

#[tokio::test]
async fn pages_are_followed_to_the_end() {
    let absolute = |host: &str| format!("<http://{host}/v2/uyou/a/tags/list?n=2&last=d>; rel=\"next\"");
    let lists = Lists::answering([page(&[], None)]).await;
    lists.state.lock().unwrap().answers = vec![
        page(&["b", "a"], Some("</v2/uyou/a/tags/list?n=2&last=b>; rel=\"next\"")),
        page(&["c", "d"], Some(&absolute(&lists.host))),
        page(&["e"], None),
    ];
    let listing = lists.list().await;
    assert!(matches!(listing, Listing::Tags { pages: 3, .. }), "{listing:?}");
    assert_eq!(tags(listing), ["a", "b", "c", "d", "e"]);
    let next = |last: &str| format!("/v2/uyou/a/tags/list?n=2&last={last}");
    assert_eq!(lists.asked(), ["/v2/uyou/a/tags/list?n=1000".to_owned(), next("b"), next("d")]);
}

#[tokio::test]
async fn embedded_registry_lists_with_a_token_for_each_repository() {
    let registry = GuardedRegistry::start(SignIn::Bearer { expires_in: 300 }).await;
    for tag in ["1", "2"] {
        registry.push("a/b", tag).await;
    }
    let registries = asking(&registry.host());
    let repository = registry.repository("a/b");
    assert_eq!(tags(registries.tags(&repository).await), ["1", "2"]);
    assert_eq!(registry.requests(), ["GET /v2/a/b/tags/list", "GET /token", "GET /v2/a/b/tags/list"]);
    // The token of confirmations is reused, so the next list is one request, and the next confirmation too.
    assert_eq!(tags(registries.tags(&repository).await), ["1", "2"]);
    assert!(matches!(registries.confirm(&image(&registry.host(), "a/b", "2")).await, Confirmation::There(_)));
    assert_eq!(registry.requests(), ["GET /v2/a/b/tags/list", "HEAD /v2/a/b/manifests/2"]);
    // A repository without pushes has no tags.
    assert_eq!(tags(registries.tags(&registry.repository("a/c")).await), Vec::<String>::new());
}

#[tokio::test]
async fn silently_truncated_list_is_continued() {
    let names: Vec<String> = (0..1500).map(|number| format!("v{number:04}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let lists = Lists::answering([page(&names[..1000], None), page(&names[1000..], None)]).await;
    assert_eq!(tags(lists.list().await).len(), 1500);
    assert_eq!(lists.asked(), ["/v2/uyou/a/tags/list?n=1000", "/v2/uyou/a/tags/list?n=1000&last=v0999"]);
    // A registry that sends a link if there is more is complete when it sends none.
    let linked = page(&names[..1000], Some("</v2/uyou/a/tags/list?n=1000&last=v0999>; rel=\"next\""));
    let lists = Lists::answering([linked, page(&names[500..], None)]).await;
    assert_eq!(tags(lists.list().await).len(), 1500);
    assert_eq!(lists.asked().len(), 2);
    // A registry without pages returns the same list again, which ends the reading.
    let lists = Lists::answering([page(&names[..1000], None)]).await;
    assert_eq!(tags(lists.list().await).len(), 1000);
    assert_eq!(lists.asked().len(), 2);
}

#[tokio::test]
async fn list_is_requested_without_page_size_if_refused() {
    for answer in [error(400, "UNSUPPORTED"), error(400, "TAG_LIMIT_EXCEEDED"), error(400, "PAGINATION_NUMBER_INVALID")]
    {
        let lists = Lists::answering([answer, page(&["a"], None)]).await;
        assert_eq!(tags(lists.list().await), ["a"]);
        assert_eq!(lists.asked(), ["/v2/uyou/a/tags/list?n=1000", "/v2/uyou/a/tags/list"]);
    }
}

#[tokio::test]
async fn invalid_tags_are_skipped() {
    let bad = [".", "-a", "a b", "a/b", "", &"x".repeat(129), "\u{202e}", "../../etc/passwd", "ok", "ok", "ok"];
    let lists = Lists::answering([page(&bad, None)]).await;
    assert_eq!(tags(lists.list().await), ["ok"]);
    let lists = Lists::answering([text(200, r#"{"name":"x","tags":[1,null,{},"ok"]}"#)]).await;
    assert_eq!(tags(lists.list().await), ["ok"]);
    let lists = Lists::answering([text(200, r#"{"name":"x","tags":null}"#)]).await;
    assert_eq!(tags(lists.list().await), Vec::<String>::new());
}

#[tokio::test]
async fn links_to_other_hosts_are_not_followed() {
    let elsewhere = Lists::answering([page(&["evil"], None)]).await;
    for link in [
        format!("<http://{}/v2/uyou/a/tags/list?last=a>; rel=\"next\"", elsewhere.host),
        format!("<//{}/v2/uyou/a/tags/list>; rel=next", elsewhere.host),
        "<http://169.254.169.254/v2/a/tags/list>; rel=\"next\"".to_owned(),
    ] {
        let lists = Lists::answering([page(&["a"], Some(&link))]).await;
        let reason = no_list(lists.list().await);
        assert!(reason.contains("a link to another host") && reason.contains("/v2/uyou/a/tags/list"), "{reason}");
    }
    assert_eq!(elsewhere.asked(), Vec::<String>::new());
    let lists = Lists::answering([page(&["a"], Some("</v2/>; rel=\"next\""))]).await;
    assert!(no_list(lists.list().await).contains("a link to another path"));
    assert_eq!(lists.asked().len(), 1);
    // The list of another repository of the same registry: its tags are not used.
    let lists = Lists::answering([page(&["a"], Some("</v2/uyou/b/tags/list?last=a>; rel=\"next\""))]).await;
    assert!(no_list(lists.list().await).contains("a link to another path"));
    assert_eq!(lists.asked().len(), 1);
}

#[tokio::test]
async fn endless_pages_are_cut_off() {
    // The same page again.
    let lists = Lists::answering([page(&["a"], Some("</v2/uyou/a/tags/list?last=a>; rel=\"next\""))]).await;
    assert!(no_list(lists.list().await).contains("link in a circle"));
    assert_eq!(lists.asked().len(), 2);
    // Always a new address without new tags.
    let answers = (0..50).map(|number| page(&["a"], Some(&format!("</v2/uyou/a/tags/list?p={number}>; rel=\"next\""))));
    let lists = Lists::answering(answers).await;
    assert!(no_list(lists.list().await).contains("link in a circle"));
    assert!(lists.asked().len() <= 10);
    // New tags on each page, endlessly.
    let answers = (0..1100).map(|number| {
        page(&[&format!("v{number}")], Some(&format!("</v2/uyou/a/tags/list?last=v{number}>; rel=\"next\"")))
    });
    let lists = Lists::answering(answers).await;
    assert!(no_list(lists.list().await).contains("more than 1,000 pages"));
    assert_eq!(lists.asked().len(), 1000);
}

#[tokio::test]
async fn too_many_tags_are_an_error() {
    let names: Vec<String> = (0..100_001).map(|number| number.to_string()).collect();
    let lists = Lists::answering([page(&names.iter().map(String::as_str).collect::<Vec<_>>(), None)]).await;
    assert!(no_list(lists.list().await).contains("more than 100,000 tags"));
    let few = &names[..100_000];
    let lists = Lists::answering([page(&few.iter().map(String::as_str).collect::<Vec<_>>(), None)]).await;
    assert_eq!(tags(lists.list().await).len(), 100_000);
}

#[tokio::test]
async fn body_of_a_hundred_megabytes_is_not_read() {
    let huge = Answer { endless_mib: 100, ..text(200, "") };
    let lists = Lists::answering([huge]).await;
    assert!(no_list(lists.list().await).contains("more than 4 MiB"));
    let huge = Answer { endless_mib: 100, ..text(404, "") };
    let lists = Lists::answering([huge]).await;
    assert!(matches!(lists.list().await, Listing::Unsupported { .. }));
}

#[tokio::test]
async fn invalid_list_is_not_an_empty_list() {
    for body in ["", "<html>Please sign in</html>", "{}", "[]", r#"{"tags":{"a":1}}"#, r#"{"tags":["a""#] {
        let lists = Lists::answering([text(200, body)]).await;
        assert!(no_list(lists.list().await).contains("other than a tag list"), "{body}");
    }
}

#[tokio::test]
async fn registries_without_lists_are_recognised() {
    for answer in [
        text(404, "404 page not found"),
        error(404, "NOT_FOUND"),
        error(404, "UNSUPPORTED"),
        text(405, ""),
        error(405, "UNSUPPORTED"),
        text(501, ""),
        error(400, "UNSUPPORTED"),
    ] {
        let lists = Lists::answering([answer]).await;
        let Listing::Unsupported { reason } = lists.list().await else { panic!() };
        assert!(reason.starts_with(&format!("registry {} answered ", lists.host)), "{reason}");
    }
    let unknown = Lists::answering([error(404, "NAME_UNKNOWN")]).await;
    assert_eq!(tags(unknown.list().await), Vec::<String>::new(), "a repository that is not there yet");
    for status in [401, 403] {
        let lists = Lists::answering([text(status, "")]).await;
        not_allowed(lists.list().await);
    }
    for status in [204, 302, 418] {
        let lists = Lists::answering([text(status, "")]).await;
        no_list(lists.list().await);
    }
}

#[tokio::test]
async fn failed_page_fails_the_list() {
    let link = Some("</v2/uyou/a/tags/list?last=a>; rel=\"next\"");
    let lists = Lists::answering([page(&["a"], link), text(500, "")]).await;
    assert!(matches!(lists.list().await, Listing::NotNow { .. }), "half a list would forget the other half");
}

#[tokio::test]
async fn retry_after_holds_for_all_repositories_of_a_registry() {
    let busy = |status| Answer { headers: vec![("retry-after", "120".to_owned())], ..text(status, "") };
    for status in [429, 503] {
        let lists = Lists::answering([busy(status)]).await;
        let registries = lists.registries();
        let Listing::NotNow { ask_again_after, .. } = registries.tags(&lists.repository()).await else { panic!() };
        assert_eq!(ask_again_after, Some(Duration::from_secs(120)));
        let (reason, wait) = registries.quiet(&lists.host).unwrap();
        assert!(wait > Duration::from_secs(110) && reason.contains("Retry-After"), "{reason} {wait:?}");
        assert_eq!(registries.quiet("other.example.com"), None);
    }
    // A confirmation also starts a pause.
    let registry = GuardedRegistry::start(SignIn::None).await;
    let registries = asking(&registry.host());
    registry.next([Fault::status(429, &[("retry-after", "60")])]);
    let image = image(&registry.host(), "a", "1");
    assert!(matches!(registries.confirm(&image).await, Confirmation::NotNow { .. }));
    assert!(registries.quiet(&registry.host()).is_some());
}

#[tokio::test]
async fn catch_up_leaves_the_rate_limit_to_confirmations() {
    let limits = |remaining: &str| {
        vec![("ratelimit-limit", "100;w=21600".to_owned()), ("ratelimit-remaining", format!("{remaining};w=21600"))]
    };
    let lists = Lists::answering([
        Answer { headers: limits("50"), ..page(&["a"], None) },
        Answer { headers: limits("9"), ..page(&["a"], None) },
    ])
    .await;
    let registries = lists.registries();
    assert_eq!(tags(registries.tags(&lists.repository()).await), ["a"]);
    assert_eq!(registries.quiet(&lists.host), None);
    assert_eq!(tags(registries.tags(&lists.repository()).await), ["a"], "this one was answered");
    assert!(registries.quiet(&lists.host).unwrap().0.contains("ratelimit-remaining"));
}
