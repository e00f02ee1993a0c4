//! Lists the tags of a repository, page by page: `GET /v2/<name>/tags/list`.
//!
//! Source: <https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md#listing-tags>.

use std::collections::{BTreeSet, HashSet};

use bytes::Bytes;
use http::{Method, StatusCode};
use serde::de::{Deserialize, Deserializer, SeqAccess, Visitor};
use url::Url;

use super::body::read_at_most;
use super::failure::RegistryFailure;
use super::lenient::Text;
use super::link::{BadLink, next_page};
use super::one::Registry;
use tagrelay_image::Tag;

/// Tags requested per page: the maximum of Amazon ECR.
///
/// Source: <https://github.com/google/go-containerregistry/issues/681>. Other registries use their own limit and link to the next
/// page.
const PAGE_TAGS: usize = 1000;

/// The maximum number of pages of one list. Docker Hub and Harbor may send as few as 100 tags per page.
const MAX_PAGES: usize = 1000;

/// The maximum number of tags of one repository.
const MAX_TAGS: usize = 100_000;

/// The maximum size of a page. A registry without pages sends all tags at once; 97,000 tags of 40 characters fit.
const MAX_PAGE_BYTES: usize = 4 << 20;

/// The maximum number of consecutive pages without a new tag.
///
/// A registry that filters by permission may send empty pages.
const MAX_IDLE_PAGES: usize = 8;

/// The maximum size of the body of an error.
const MAX_ERROR_BYTES: usize = 64 << 10;

const JSON: [&str; 1] = ["application/json"];

/// A registry's answer about the tags of a repository.
pub(super) enum Listed {
    Tags {
        tags: Vec<Tag>,
        requests: usize,
    },
    Unsupported {
        reason: String,
    },
    /// The answer is not a tag list.
    NoList {
        reason: String,
    },
}

/// The answer to the request of one page.
enum Page {
    Names {
        names: Vec<String>,
        next: Option<Url>,
    },
    /// The repository does not exist (yet).
    Nothing,
    Unsupported(String),
    /// The answer is not a tag list.
    NoList(String),
    /// The registry rejected the requested number of tags.
    TooMany,
}

impl Registry {
    /// Returns all tags of the repository `path`, sorted, without duplicates. Invalid tags are left out.
    pub(super) async fn tags(&self, path: &str) -> Result<Listed, RegistryFailure> {
        let place = format!("{path}/tags/list");
        let bare = self.address(&place)?;
        let mut next = Some(with_query(&bare, &[("n", &PAGE_TAGS.to_string())]));
        let mut tags = BTreeSet::new();
        let mut asked = HashSet::new();
        let mut idle = 0;
        while let Some(address) = next.take() {
            if !asked.insert(address.clone()) || idle > MAX_IDLE_PAGES {
                return Ok(self.no_list(&place, "with pages that link in a circle"));
            }
            if asked.len() > MAX_PAGES {
                return Ok(self.no_list(&place, "with more than 1,000 pages"));
            }
            match self.page(path, &place, &address).await? {
                Page::Nothing if tags.is_empty() => break,
                // An incomplete list would make the missing tags look deleted.
                Page::Nothing => return Ok(self.no_list(&place, "404 Not Found for a further page")),
                Page::Unsupported(reason) => return Ok(Listed::Unsupported { reason }),
                Page::NoList(reason) => return Ok(Listed::NoList { reason }),
                Page::TooMany if asked.len() == 1 => next = Some(bare.clone()),
                Page::TooMany => return Ok(self.no_list(&place, "400 Bad Request")),
                Page::Names { names, next: linked } => {
                    if names.len() > MAX_TAGS {
                        return Ok(self.no_list(&place, "with more than 100,000 tags, the limit"));
                    }
                    let (before, count) = (tags.len(), names.len());
                    let last = names.last().cloned();
                    tags.extend(names.into_iter().filter_map(|name| name.parse::<Tag>().ok()));
                    let has_news = tags.len() > before;
                    idle = if has_news { 0 } else { idle + 1 };
                    if tags.len() > MAX_TAGS {
                        return Ok(self.no_list(&place, "with more than 100,000 tags, the limit"));
                    }
                    // Some registries never send links, so a full page may not be the last one. A registry that has sent a link
                    // before sends a link whenever a page follows.
                    self.record_link(linked.is_some());
                    let is_cut_off = !self.gives_links() && has_news && count == PAGE_TAGS;
                    next = linked.or_else(|| {
                        let last = last.filter(|_| is_cut_off)?;
                        Some(with_query(&bare, &[("n", &PAGE_TAGS.to_string()), ("last", &last)]))
                    });
                }
            }
        }
        Ok(Listed::Tags { tags: tags.into_iter().collect(), requests: asked.len() })
    }

    async fn page(&self, path: &str, place: &str, address: &Url) -> Result<Page, RegistryFailure> {
        let response = self.ask_at(Method::GET, path, address, &JSON).await?;
        let status = response.status();
        if status.is_success() {
            let next = match next_page(response.headers(), address) {
                Ok(next) => next,
                Err(BadLink(what)) => {
                    return Ok(Page::NoList(self.no_list_at(place, &format!("with a link to {what}"))));
                }
            };
            let body = read_at_most(response, MAX_PAGE_BYTES).await.map_err(|error| self.no_answer(error))?;
            let Some(body) = body else { return Ok(Page::NoList(self.no_list_at(place, "with more than 4 MiB"))) };
            // Parsing a long list takes milliseconds, too long for an async thread.
            let names = tokio::task::spawn_blocking(move || read_names(&body)).await.ok().flatten();
            return Ok(match names {
                Some(names) => Page::Names { names, next },
                None => Page::NoList(self.no_list_at(place, "with something other than a tag list")),
            });
        }
        let headers = response.headers().clone();
        let code = match status {
            StatusCode::BAD_REQUEST
            | StatusCode::NOT_FOUND
            | StatusCode::METHOD_NOT_ALLOWED
            | StatusCode::NOT_IMPLEMENTED => {
                let body = read_at_most(response, MAX_ERROR_BYTES).await.map_err(|error| self.no_answer(error))?;
                body.and_then(|body| error_code(&body))
            }
            _ => None,
        };
        let says = |code: &str| format!("registry {} answered {status} {code} for /v2/{place}", self.host());
        match (status, code.as_deref()) {
            (StatusCode::NOT_FOUND, Some("NAME_UNKNOWN" | "NAME_INVALID")) => Ok(Page::Nothing),
            (StatusCode::BAD_REQUEST, code) if code != Some("UNSUPPORTED") => Ok(Page::TooMany),
            // Amazon ECR answers UNSUPPORTED if it rejects the requested number.
            (StatusCode::BAD_REQUEST, _) if address.query().is_some() => Ok(Page::TooMany),
            (
                StatusCode::BAD_REQUEST
                | StatusCode::NOT_FOUND
                | StatusCode::METHOD_NOT_ALLOWED
                | StatusCode::NOT_IMPLEMENTED,
                code,
            ) => Ok(Page::Unsupported(says(code.unwrap_or_default()))),
            (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, _) => Err(self.unexpected(status, &headers, place)),
            _ => match self.unexpected(status, &headers, place) {
                RegistryFailure::NotAllowed { reason } => Ok(Page::NoList(reason)),
                not_now @ RegistryFailure::NotNow { .. } => Err(not_now),
            },
        }
    }

    fn no_list(&self, place: &str, answer: &str) -> Listed {
        Listed::NoList { reason: self.no_list_at(place, answer) }
    }

    fn no_list_at(&self, place: &str, answer: &str) -> String {
        format!("registry {} answered {answer} for /v2/{place}", self.host())
    }
}

fn with_query(address: &Url, pairs: &[(&str, &str)]) -> Url {
    let mut address = address.clone();
    address.query_pairs_mut().extend_pairs(pairs);
    address
}

/// Parses a tag list; `None`: the body is not a tag list. Old registries send `null` for an empty list.
fn read_names(body: &Bytes) -> Option<Vec<String>> {
    #[derive(serde::Deserialize)]
    struct List {
        // Required: an object without `tags` is not a tag list.
        #[serde(deserialize_with = "Option::deserialize")]
        tags: Option<Names>,
    }
    let list: List = serde_json::from_slice(body).ok()?;
    Some(list.tags.unwrap_or_default().0)
}

/// The tags of a page. At most one more than [`MAX_TAGS`] is kept, which is enough to notice the excess.
#[derive(Default)]
struct Names(Vec<String>);

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Elements;
        impl<'de> Visitor<'de> for Elements {
            type Value = Names;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a list of tags")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Names, A::Error> {
                let mut names = Vec::new();
                while let Some(Text(name)) = list.next_element()? {
                    if names.len() <= MAX_TAGS {
                        names.extend(name);
                    }
                }
                Ok(Names(names))
            }
        }
        deserializer.deserialize_seq(Elements)
    }
}

/// Returns the code of an error body, a word in capitals.
///
/// Source: <https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md#error-codes>.
fn error_code(body: &Bytes) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Errors {
        errors: Vec<Problem>,
    }
    #[derive(serde::Deserialize)]
    struct Problem {
        code: String,
    }
    let errors: Errors = serde_json::from_slice(body).ok()?;
    let code = errors.errors.into_iter().next()?.code;
    let is_word = code.len() <= 64 && code.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_');
    is_word.then_some(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Option<Vec<String>> {
        read_names(&Bytes::copy_from_slice(text.as_bytes()))
    }

    #[test]
    fn only_tag_lists_are_read_as_lists() {
        assert_eq!(names(r#"{"name":"a","tags":["1","2"]}"#), Some(vec!["1".to_owned(), "2".to_owned()]));
        assert_eq!(names(r#"{"name":"a","tags":null}"#), Some(Vec::new()));
        assert_eq!(names(r#"{"tags":["1",2,null,{"a":[]}]}"#), Some(vec!["1".to_owned()]));
        for text in ["", "<html></html>", "{}", "[]", r#"{"tags":"1"}"#, r#"{"tags":{"1":{}}}"#, "null"] {
            assert_eq!(names(text), None, "{text}");
        }
    }

    #[test]
    fn error_codes_are_words_in_capitals() {
        let code = |text: &str| error_code(&Bytes::copy_from_slice(text.as_bytes()));
        assert_eq!(code(r#"{"errors":[{"code":"NAME_UNKNOWN","message":"x"}]}"#).as_deref(), Some("NAME_UNKNOWN"));
        for text in ["", "{}", r#"{"errors":[]}"#, r#"{"errors":[{"code":"<script>"}]}"#] {
            assert_eq!(code(text), None, "{text}");
        }
    }
}
