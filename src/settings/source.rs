use std::path::Path;

use globset::GlobBuilder;

use super::keys;
use super::reader::Section;
use super::remote_url::{self, Transport, is_loopback};
use super::report::At;
use crate::config_repo::Authentication;
use crate::policy::TagRule;
use crate::source_repo::{NAME, SourceSettings};

const EXAMPLE: &str = "source = \"https://host/uyou/{name}.git\"";

/// Returns the source repository of an `[[image]]`; `None`: it has none. `store`: the SQLite file; the histories of
/// sources are stored beside it.
pub(super) fn read(image: Section<'_>, rule: Option<&TagRule>, store: &Path) -> Option<SourceSettings> {
    let branches = read_branches(image);
    if !image.has("source") {
        if image.has("source_branches") {
            let message = "`source_branches` has no effect without `source`";
            image.report().fault_with_hint(image.offset_of("source_branches"), message, format!("write {EXAMPLE}"));
        }
        return None;
    }
    if let Some(rule) = rule.filter(|rule| !rule.names_commits()) {
        let message = format!("`source` has no effect with the tag kind `{}`: its tags name no commit", rule.kind());
        let hint = "use `commit-sha`, or `regex` with a group `sha`".to_owned();
        image.report().fault_with_hint(image.offset_of("source"), message, hint);
    }
    let is_text = image.value("source").is_some_and(|found| found.value.as_str().is_some());
    let (url, authentication, ca_bundle) = if is_text {
        let url = read_url(image, image.text("source")?)?;
        if url.value.1 == Transport::Ssh {
            let hint = format!(
                "write source = {{ url = \"{}\", ssh_key = {{ file = \"…\" }}, known_hosts = \"…\" }}",
                url.value.0
            );
            image.report().fault_with_hint(url.offset, "a source with an ssh URL needs a key", hint);
        }
        (url, Some(Authentication::None), None)
    } else {
        let source = image.table("source", &keys::SOURCE, EXAMPLE)?;
        let url = source.required_text("url", EXAMPLE).and_then(|text| read_url(source, text));
        let transport = url.as_ref().map(|url| url.value.1);
        let authentication = super::config_repository::read_authentication(source, transport, None);
        if let (Some(url), Some(Authentication::Basic { .. })) = (&url, &authentication) {
            warn_of_plain_http(source, url);
        }
        (url?, authentication, source.ca_bundle())
    };
    let folder = store.parent().unwrap_or(Path::new("")).join("sources");
    Some(SourceSettings { url: url.value.0, branches: branches?, authentication: authentication?, ca_bundle, folder })
}

/// Reads a URL with an optional `{name}` in its path.
fn read_url(section: Section<'_>, text: At<&str>) -> Option<At<(String, Transport)>> {
    let sample = |name: &str| remote_url::parse(&text.value.replace(NAME, name));
    let fault = |message: &str, hint: String| {
        section.report().fault_with_hint(text.offset, message.to_owned(), hint);
        None
    };
    match (sample("a"), sample("b")) {
        (Ok((one, transport)), Ok((two, _))) => {
            let outside = one.host() != two.host() || one.port() != two.port() || one.username() != two.username();
            if outside || text.value.replace(NAME, "").contains(['{', '}']) {
                return fault(
                    "a source may contain `{name}` in its path, and no other braces",
                    format!("write {EXAMPLE}"),
                );
            }
            Some(At { value: (text.value.to_owned(), transport), offset: text.offset })
        }
        (Err(error), _) | (_, Err(error)) => fault(&error.message.replacen("`url`", "`source`", 1), error.hint),
    }
}

/// Returns the globs over branches; empty: all branches.
fn read_branches(image: Section<'_>) -> Option<Vec<String>> {
    if !image.has("source_branches") {
        return Some(Vec::new());
    }
    let mut branches = Vec::new();
    for branch in image.required_texts("source_branches", "source_branches = [\"main\"]")? {
        let shown = branch.value.escape_debug();
        if let Some(short) = branch.value.strip_prefix("refs/heads/") {
            let hint = format!("write \"{}\"", short.escape_debug());
            image.report().fault_with_hint(branch.offset, format!("`source_branches`: `{shown}` is a reference"), hint);
        } else if let Err(error) = GlobBuilder::new(branch.value).literal_separator(true).build() {
            let message = format!("`source_branches`: `{shown}` is not a glob: {}", error.kind());
            image.report().fault(branch.offset, message);
        } else {
            branches.push(branch.value.to_owned());
        }
    }
    Some(branches)
}

fn warn_of_plain_http(source: Section<'_>, url: &At<(String, Transport)>) {
    let host = remote_url::parse(&url.value.0.replace(NAME, "a"));
    if url.value.1 == Transport::Http && host.is_ok_and(|(parsed, _)| !is_loopback(parsed.host())) {
        let message = "the password of the source repository is sent unencrypted over http";
        source.report().warning(url.offset, message, "use https".to_owned());
    }
}
