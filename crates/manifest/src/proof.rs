//! Proves that an edit changed only the addressed scalars, and that the file names the wanted versions.
//!
//! The proof uses only the two texts. It does not use the planned values, quotes and spans, and finds the sites of the new text
//! again.

use granit_parser::ScalarStyle;

use tagrelay_image::Repository;

use super::notation::Replacement;
use super::plain::reads_as_string;
use super::read::Contents;
use super::shape::WantedVersions;
use super::site::Reading;
use super::task::Task;
use super::tree::{Kind, Node, Tree};

/// Why a proof failed.
pub(crate) enum Unproven {
    /// Another part would change: a bug in the editor.
    Defect(String),
    /// The sites of the new text differ, or one has another version than wanted.
    ///
    /// The repository of the first such site.
    OtherSites(Option<Repository>),
}

/// Proves that `new` is the old text with the `replacements`, and names the wanted versions.
///
/// There is no other change, and the sites are the same. The replacements are in the order of the text. Returns the nodes of `new`.
///
/// # Errors
///
/// The first difference.
pub(crate) fn proof(
    old: &Tree<'_>,
    before: &Contents<'_, '_>,
    task: &Task<'_>,
    wanted_versions: &WantedVersions<'_>,
    new: &str,
    replacements: &[Replacement],
) -> Result<Reading, Unproven> {
    // 1. and 2. Bytes and nodes.
    let new = same_but_for(old, new, replacements).map_err(Unproven::Defect)?;
    if task.is_json() && serde_json::from_str::<serde::de::IgnoredAny>(new.text()).is_err() {
        return Err(Unproven::Defect("the new text is not JSON".to_owned()));
    }

    // 3. Every site is still there: wanted ones with the wanted version, others unchanged.
    let after = Contents::of(&new, task).map_err(|_| Unproven::OtherSites(None))?;
    let (mut old_sites, mut new_sites) = (before.found(), after.found());
    loop {
        match (old_sites.next(), new_sites.next()) {
            (None, None) => break,
            (Some(old), Some(new)) if wanted_versions.is_carried_out(old, new) => {}
            (old, _) => return Err(Unproven::OtherSites(old.map(|old| old.site.repository.clone()))),
        }
    }
    drop(new_sites);
    Ok(after.reading(&new))
}

/// Proves that only the values of some scalars differ in `new`, and returns its nodes.
///
/// # Errors
///
/// The first difference, as a sentence.
fn same_but_for<'new>(old: &Tree<'_>, new: &'new str, replacements: &[Replacement]) -> Result<Tree<'new>, String> {
    // 1. Around the replaced spans, every byte is equal.
    let (mut old_rest, mut new_rest, mut position) = (old.text(), new, 0);
    for Replacement { span, token, .. } in replacements {
        let kept = span.start.checked_sub(position).and_then(|length| old_rest.get(..length));
        let behind = kept.and_then(|kept| new_rest.strip_prefix(kept)?.strip_prefix(token.as_str()));
        new_rest = behind.ok_or_else(|| format!("bytes before byte {} changed", span.start))?;
        old_rest = old.text().get(span.end..).ok_or("a scalar ends after the file")?;
        position = span.end;
    }
    if old_rest != new_rest {
        return Err(format!("bytes behind byte {position} changed"));
    }

    // 2. Parsed again, the new text has the same documents and nodes, except for the addressed scalars.
    let new = Tree::parse(new.as_bytes()).map_err(|error| format!("the new text cannot be read: {error}"))?;
    if old.documents != new.documents || old.nodes.len() != new.nodes.len() {
        return Err("the new text has other documents, keys or values".to_owned());
    }
    let mut addressed = replacements.iter().peekable();
    for (old_node, new_node) in old.nodes.iter().zip(&new.nodes) {
        let is_here = |next: &&Replacement| next.span == old_node.span() && matches!(old_node.kind, Kind::Scalar(_));
        match addressed.next_if(is_here) {
            Some(replacement) => set_as_wanted(old_node, new_node, replacement)?,
            None if old_node.reads_like(new_node) => {}
            None => return Err(format!("line {} reads differently", old_node.line)),
        }
    }
    match addressed.next() {
        Some(missed) => Err(format!("there is no scalar at the bytes {:?}", missed.span)),
        None => Ok(new),
    }
}

/// Proves that one addressed scalar is the wanted string.
///
/// It has its old style or quotes, its anchor and its tag, and a second reader agrees.
fn set_as_wanted(old: &Node<'_>, new: &Node<'_>, replacement: &Replacement) -> Result<(), String> {
    let Replacement { token, value, inside, .. } = replacement;
    let (Kind::Scalar(old_style), Kind::Scalar(style)) = (old.kind, new.kind) else {
        return Err(format!("`{token}` is no longer a scalar"));
    };
    let is_quoted = matches!(style, ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted);
    let keeps_style = style == old_style || (old_style == ScalarStyle::Plain && is_quoted);
    if new.value != *value || !keeps_style || !old.is_framed_like(new) {
        return Err(format!("`{token}` reads back as something else than the string `{value}`"));
    }
    // A text with sites is a string, and its content has its own proof.
    if !inside.is_empty() {
        let text = Tree::parse(old.value.as_bytes()).map_err(|error| error.to_string())?;
        return same_but_for(&text, value, inside).map(drop);
    }
    // A plain value must be a string under every schema. The second reader alone is not enough, because it reads `123e456`, which
    // overflows, as a string, and also `017` and `yes`, which its schema does not have.
    if style == ScalarStyle::Plain && !reads_as_string(token) {
        return Err(format!("`{token}` is not a string to every reader"));
    }
    let alone = match style {
        ScalarStyle::Literal | ScalarStyle::Folded => format!("|-\n {}", token.trim()),
        ScalarStyle::Plain | ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted => token.clone(),
    };
    match serde_yaml::from_str(&alone) {
        Ok(serde_yaml::Value::String(second)) if second == *value => Ok(()),
        _ => Err(format!("`{token}` is not the string `{value}` to a second reader")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "a: 1\nimage: b:1 # c\nd: [e]\n";

    /// Proves that `new` is [`OLD`] with `b:1` replaced by `token`, and that `token` is the string `value`.
    fn prove(new: &str, token: &str, value: &str) -> Result<(), String> {
        let replacement =
            Replacement { span: 12..15, token: token.to_owned(), value: value.to_owned(), inside: Vec::new() };
        same_but_for(&Tree::parse(OLD.as_bytes()).unwrap(), new, &[replacement]).map(drop)
    }

    #[test]
    fn only_the_wanted_change_is_accepted() {
        prove("a: 1\nimage: b:2 # c\nd: [e]\n", "b:2", "b:2").unwrap();
        prove("a: 1\nimage: \"b:2\" # c\nd: [e]\n", "\"b:2\"", "b:2").unwrap();
        for (new, token, value) in [
            // Other bytes differ: before, after, at the end.
            ("a: 2\nimage: b:2 # c\nd: [e]\n", "b:2", "b:2"),
            ("a: 1\nimage: b:2 # C\nd: [e]\n", "b:2", "b:2"),
            ("a: 1\nimage: b:2 # c\nd: [e]", "b:2", "b:2"),
            // Another value than the wanted one, or not a string.
            ("a: 1\nimage: b:3 # c\nd: [e]\n", "b:3", "b:2"),
            ("a: 1\nimage: 123e456 # c\nd: [e]\n", "123e456", "123e456"),
            ("a: 1\nimage: true # c\nd: [e]\n", "true", "true"),
            ("a: 1\nimage: 0x1f # c\nd: [e]\n", "0x1f", "0x1f"),
            ("a: 1\nimage: 017 # c\nd: [e]\n", "017", "017"),
            ("a: 1\nimage: yes # c\nd: [e]\n", "yes", "yes"),
            // Another structure, another style, another tag or an anchor.
            ("a: 1\nimage: [b:2] # c\nd: [e]\n", "[b:2]", "b:2"),
            ("a: 1\nimage: b:2\nx: y # c\nd: [e]\n", "b:2\nx: y", "b:2"),
            ("a: 1\nimage: >-\n  b:2 # c\nd: [e]\n", ">-\n  b:2", "b:2 # c"),
            ("a: 1\nimage: !!str b:2 # c\nd: [e]\n", "!!str b:2", "b:2"),
            ("a: 1\nimage: &x b:2 # c\nd: [e]\n", "&x b:2", "b:2"),
            ("a: 1\nimage: b:2 # c\nd: [e]\n---\n", "b:2", "b:2"),
            ("a: 1\nimage: b:2 #x # c\nd: [e]\n", "b:2 #x", "b:2"),
            ("a: 1\nimage: 'b:2 # c\nd: [e]\n", "'b:2", "b:2"),
        ] {
            assert!(prove(new, token, value).is_err(), "{new}");
        }
    }

    #[test]
    fn addressed_nodes_must_be_scalars() {
        let tree = Tree::parse(OLD.as_bytes()).unwrap();
        let spans = [(11, 15), (12, 16), (12, 14), (0, 0), (15, 12), (0, 400), (400, 500), (22, 25)];
        for span in spans.map(|(start, end)| start..end) {
            let token = OLD.get(span.clone()).unwrap_or_default().to_owned();
            let replacement = Replacement { span: span.clone(), value: token.clone(), token, inside: Vec::new() };
            assert!(same_but_for(&tree, OLD, &[replacement]).is_err(), "{span:?}");
        }
    }

    /// Proves that `new` is `text` with the replacements, and that its sites name `a:v2`.
    ///
    /// Each replacement is an old and a new text.
    fn prove_sites(text: &str, new: &str, replacements: &[(&str, &str)]) -> Result<(), Unproven> {
        let version = tagrelay_image::Version::tagged("v2".parse().unwrap(), None);
        let wanted = [super::super::Wanted { repository: "a".parse().unwrap(), version }];
        let settings = super::super::ManifestSettings::default();
        let (wanted_versions, task) =
            (WantedVersions::new(&wanted, &settings).ok().unwrap(), Task::of_file("a.yaml", &settings));
        let tree = Tree::parse(text.as_bytes()).unwrap();
        let replacement = |(old, value): &(&str, &str)| {
            let start = text.find(old).unwrap();
            let (token, value) = ((*value).to_owned(), (*value).to_owned());
            Replacement { span: start..start + old.len(), token, value, inside: Vec::new() }
        };
        let replacements: Vec<Replacement> = replacements.iter().map(replacement).collect();
        proof(&tree, &Contents::of(&tree, &task).unwrap(), &task, &wanted_versions, new, &replacements).map(drop)
    }

    #[test]
    fn every_site_must_have_the_wanted_version() {
        let text = "x: {image: a:v1}\ny: {image: b:v1}\n";
        prove_sites(text, &text.replace("a:v1", "a:v2"), &[("a:v1", "a:v2")]).ok().unwrap();
        // Valid YAML with a wrong result: another version, another repository, a missing site, an unchanged site, an additional
        // site.
        for (old, new) in [("a:v1", "a:v3"), ("a:v1", "c:v2"), ("a:v1", "a"), ("x", "z"), ("b:v1", "b:v2")] {
            let outcome = prove_sites(text, &text.replace(old, new), &[(old, new)]);
            assert!(matches!(outcome, Err(Unproven::OtherSites(_))), "{new}");
        }
    }
}
