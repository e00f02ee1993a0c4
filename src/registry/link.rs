//! The `Link` header that leads to the next page of a tag list.

use http::{HeaderMap, header};
use url::Url;

/// Why the link to the next page is not followed; ends the sentence "answered with a link to …".
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BadLink(pub(super) String);

/// Returns the URL of the next page; `None`: `page` is the last one.
///
/// Example: `Link: </v2/a/tags/list?last=x>; rel="next"`, absolute or relative to the page
/// (<https://www.rfc-editor.org/rfc/rfc8288#section-3>).
///
/// Host and path must be those of `page`, so that no registry can redirect the list to another host or repository. The
/// scheme of the link is ignored, because a registry behind a TLS proxy writes `http`.
pub(super) fn next_page(headers: &HeaderMap, page: &Url) -> Result<Option<Url>, BadLink> {
    let values = headers.get_all(header::LINK).iter().filter_map(|value| value.to_str().ok());
    let Some(target) = values.flat_map(links).find(is_next).map(|link| link.target) else { return Ok(None) };
    let mut next = page.join(target).map_err(|error| BadLink(format!("an invalid URL ({error})")))?;
    // Two URLs without a port have the same port, even if their schemes differ.
    let has_own_port = next.port().is_some() || page.port().is_some();
    let is_same_host = next.host() == page.host() && (!has_own_port || next.port() == page.port());
    if !is_same_host || !matches!(next.scheme(), "http" | "https") {
        let host = next.host_str().unwrap_or_default();
        return Err(BadLink(format!("another host ({})", host.escape_debug())));
    }
    if next.path() != page.path() {
        return Err(BadLink("another path".to_owned()));
    }
    if next.set_scheme(page.scheme()).is_err() || next.set_username("").is_err() || next.set_password(None).is_err() {
        return Err(BadLink("an unusable URL".to_owned()));
    }
    next.set_fragment(None);
    Ok(Some(next))
}

struct Link<'a> {
    target: &'a str,
    parameters: &'a str,
}

/// Splits a header into its links. Commas inside `<…>` or quotes do not separate links.
fn links(mut text: &str) -> Vec<Link<'_>> {
    let mut links = Vec::new();
    while let Some((target, rest)) =
        text.find('<').and_then(|start| text.get(start + 1..)).and_then(|rest| rest.split_once('>'))
    {
        let mut quoted = false;
        let end = rest.find(|c| {
            quoted ^= c == '"';
            c == ',' && !quoted
        });
        let (parameters, behind) = rest.split_at(end.unwrap_or(rest.len()));
        links.push(Link { target: target.trim(), parameters });
        text = behind;
    }
    links
}

/// Returns whether `next` is one of the link's relations.
fn is_next(link: &Link<'_>) -> bool {
    link.parameters.split(';').filter_map(|parameter| parameter.split_once('=')).any(|(name, value)| {
        let relations = value.trim().trim_matches('"');
        name.trim().eq_ignore_ascii_case("rel")
            && relations.split_ascii_whitespace().any(|relation| relation.eq_ignore_ascii_case("next"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(link: &str) -> Result<Option<String>, String> {
        let mut headers = HeaderMap::new();
        headers.insert(header::LINK, link.parse().unwrap());
        let page = Url::parse("https://r.example.com:5000/v2/a/b/tags/list?n=2").unwrap();
        next_page(&headers, &page).map(|next| next.map(String::from)).map_err(|BadLink(reason)| reason)
    }

    #[test]
    fn links_of_real_registries_are_read() {
        let expected = Ok(Some("https://r.example.com:5000/v2/a/b/tags/list?n=2&last=x".to_owned()));
        for link in [
            r#"</v2/a/b/tags/list?n=2&last=x>; rel="next""#,
            "</v2/a/b/tags/list?n=2&last=x>; rel=next",
            r#"<?n=2&last=x>;rel="next""#,
            r#"<list?n=2&last=x>; title="a, <b>; rel=prev" ; REL="prev Next""#,
            r#"<https://r.example.com:5000/v2/a/b/tags/list?n=2&last=x>; rel="next""#,
            r#"<http://r.example.com:5000/v2/a/b/tags/list?n=2&last=x>; rel="next""#,
            r#"<//u:p@r.example.com:5000/v2/a/b/tags/list?n=2&last=x#f>; rel="next""#,
            r#"</v2/a/b/tags/list?n=2>; rel="first", </v2/a/b/tags/list?n=2&last=x>; rel="next""#,
        ] {
            assert_eq!(next(link), expected, "{link}");
        }
    }

    #[test]
    fn query_may_contain_link_separators() {
        let found = next(r#"</v2/a/b/tags/list?last=1,2;3>; rel="next""#);
        assert_eq!(found, Ok(Some("https://r.example.com:5000/v2/a/b/tags/list?last=1,2;3".to_owned())));
    }

    #[test]
    fn missing_next_link_ends_the_list() {
        for link in ["", "next", r#"</v2/a/b/tags/list>; rel="prev""#, "</v2/a", r#"</v2/a/tags/list>; rev="next""#] {
            assert_eq!(next(link), Ok(None), "{link}");
        }
    }

    #[test]
    fn link_to_another_host_or_path_is_refused() {
        for link in [
            r#"<https://evil.example.com:5000/v2/a/b/tags/list>; rel="next""#,
            r#"<https://r.example.com/v2/a/b/tags/list>; rel="next""#,
            r#"<https://r.example.com:22/v2/a/b/tags/list>; rel="next""#,
            r#"<//evil.example.com/v2/a/b/tags/list>; rel="next""#,
            r#"<file:///etc/passwd/tags/list>; rel="next""#,
        ] {
            let reason = next(link).unwrap_err();
            assert!(reason.starts_with("another host"), "{link}: {reason}");
        }
        for path in
            ["/admin/delete-everything", "/v2/a/c/tags/list", "/v2/b/a/b/tags/list", "/v2/a/b/tags/list/", "../../x"]
        {
            let reason = next(&format!("<{path}?last=x>; rel=\"next\"")).unwrap_err();
            assert_eq!(reason, "another path", "{path}");
        }
        assert!(next(r#"<https://[::1/v2/a/tags/list>; rel="next""#).unwrap_err().contains("invalid URL"));
    }
}
