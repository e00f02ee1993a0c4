//! The `Link` header of an answer that comes in pages.

use http::{HeaderMap, header};
use url::Url;

/// Why there is no way to the next page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BadLink(pub(super) String);

/// Returns the address of the next page, or `None` on the last one.
///
/// `Link: </v2/a/tags/list?last=x>; rel="next"`, relative to the page or absolute
/// (<https://www.rfc-editor.org/rfc/rfc8288#section-3>). What is asked next stays with the registry that is asked: the
/// host and path must be those of `page`: another path is the list of another repository, or none. The scheme stays that of `page`, because a registry
/// behind a proxy that ends TLS writes `http`.
pub(super) fn next_page(headers: &HeaderMap, page: &Url) -> Result<Option<Url>, BadLink> {
    let values = headers.get_all(header::LINK).iter().filter_map(|value| value.to_str().ok());
    let Some(target) = values.flat_map(links).find(is_next).map(|link| link.target) else { return Ok(None) };
    let mut next = page.join(target).map_err(|error| BadLink(format!("an address that cannot be read ({error})")))?;
    // A port that is left out is the usual one of its scheme, which is not to count as another port.
    let has_own_port = next.port().is_some() || page.port().is_some();
    let is_same_host = next.host() == page.host() && (!has_own_port || next.port() == page.port());
    if !is_same_host || !matches!(next.scheme(), "http" | "https") {
        let host = next.host_str().unwrap_or_default();
        return Err(BadLink(format!("another host ({}), which is not asked", host.escape_debug())));
    }
    if next.path() != page.path() {
        return Err(BadLink("another list, or to none, which is not asked for".to_owned()));
    }
    if next.set_scheme(page.scheme()).is_err() || next.set_username("").is_err() || next.set_password(None).is_err() {
        return Err(BadLink("an address that cannot be asked".to_owned()));
    }
    next.set_fragment(None);
    Ok(Some(next))
}

struct Link<'a> {
    target: &'a str,
    parameters: &'a str,
}

/// Splits a header into its links. A comma inside of `<…>` or of a quoted text separates nothing.
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

/// Returns whether the relation is `next`, alone or among others.
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
    fn links_are_read_as_registries_write_them() {
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
    fn a_query_may_hold_what_separates_links() {
        let found = next(r#"</v2/a/b/tags/list?last=1,2;3>; rel="next""#);
        assert_eq!(found, Ok(Some("https://r.example.com:5000/v2/a/b/tags/list?last=1,2;3".to_owned())));
    }

    #[test]
    fn what_is_no_link_to_a_next_page_ends_the_list() {
        for link in ["", "next", r#"</v2/a/b/tags/list>; rel="prev""#, "</v2/a", r#"</v2/a/tags/list>; rev="next""#] {
            assert_eq!(next(link), Ok(None), "{link}");
        }
    }

    #[test]
    fn no_link_leads_to_somebody_else() {
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
            assert!(reason.starts_with("another list"), "{path}: {reason}");
        }
        assert!(next(r#"<https://[::1/v2/a/tags/list>; rel="next""#).unwrap_err().contains("cannot be read"));
    }
}
