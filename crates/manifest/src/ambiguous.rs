//! Refuses files that YAML readers interpret differently in a relevant position.

use std::collections::BTreeMap;

use granit_parser::{ScalarStyle, StructureStyle};
use memchr::memmem;

use super::found::Found;
use super::lines::{LineCounter, last_line};
use super::site::Unreadable;
use super::slots::twice;
use super::tree::{Kind, Node, NodeId, TEMPLATE_HINT, Tree};

const BYTE_ORDER_MARK: &str = "\u{feff}";

/// Refuses templates that are valid YAML by chance: `{{ .Values.x }}` is a map whose key is a map.
///
/// Texts inside a file may be templates, such as those of an ApplicationSet.
pub(crate) fn refuse_template(tree: &Tree<'_>) -> Result<(), Unreadable> {
    let is_flow = |node: &Node<'_>| node.kind == Kind::Mapping(StructureStyle::Flow);
    let opens_twice =
        |pair: &&[Node<'_>]| is_flow(&pair[0]) && is_flow(&pair[1]) && pair[0].span().start + 1 == pair[1].span().start;
    match tree.nodes.windows(2).find(opens_twice) {
        Some(pair) => Err(Unreadable { line: Some(pair[0].line), reason: format!("holds `{{{{`{TEMPLATE_HINT}") }),
        None => Ok(()),
    }
}

/// Refuses a byte order mark after the first character, except in comments, quotes and blocks.
///
/// The mark is invisible. Some readers ignore it, and others treat it as a letter.
pub(crate) fn refuse_stray_marks(tree: &Tree<'_>) -> Result<(), Unreadable> {
    let text = tree.text();
    for start in memmem::find_iter(text.as_bytes(), BYTE_ORDER_MARK).filter(|start| *start > 0) {
        let behind = tree.nodes.partition_point(|node| node.span().start <= start);
        let around = behind.checked_sub(1).map(|id| &tree.nodes[id]).filter(|node| node.span().contains(&start));
        let is_text = |node: &Node<'_>| match node.kind {
            Kind::Scalar(style) => style != ScalarStyle::Plain,
            Kind::Mapping(_) | Kind::Sequence(_) | Kind::Alias(_) => false,
        };
        let before = last_line(&text[..start]);
        let is_comment = before.starts_with('#') || before.contains(" #") || before.contains("\t#");
        if !is_comment && !around.is_some_and(is_text) {
            let line = Some(LineCounter::new(text.as_bytes()).of(start));
            let reason = "holds a byte order mark (U+FEFF, which is not to be seen) that is not its beginning, as files \
                          that were joined have it: remove it";
            return Err(Unreadable { line, reason: reason.to_owned() });
        }
    }
    Ok(())
}

/// Refuses a duplicate key on the way to a site, because readers use either the first or the last.
pub(crate) fn refuse_duplicates_above(tree: &Tree<'_>, found: &[Found]) -> Result<(), Unreadable> {
    let mut parts: Vec<NodeId> = found.iter().flat_map(Found::parts).map(|part| part.node).collect();
    parts.sort_unstable();
    let leads_to_a_site = |id: NodeId| {
        let behind = parts.partition_point(|part| *part < id);
        parts.get(behind).is_some_and(|part| *part < tree.node(id).subtree_end)
    };
    let is_above = |id: &NodeId| matches!(tree.node(*id).kind, Kind::Mapping(_)) && leads_to_a_site(*id);
    for mapping in (0..tree.nodes.len() as NodeId).filter(is_above) {
        let mut keys: BTreeMap<&str, bool> = BTreeMap::new();
        for (key, value) in tree.entries(mapping) {
            let text = &*tree.node(tree.resolve(key)).value;
            let is_scalar = matches!(tree.node(tree.resolve(key)).kind, Kind::Scalar(_));
            let leads = leads_to_a_site(value);
            // Several merge keys are applied one after another.
            if is_scalar && text != "<<" && keys.insert(text, leads).is_some_and(|other| other || leads) {
                return Err(twice(tree, key));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::scan;

    #[test]
    fn byte_order_marks_are_refused_in_relevant_positions() {
        for (text, line) in [
            ("\u{feff}\u{feff}image: a:1\n", 1),
            ("image: a:1\n---\n\u{feff}image: b:1\n", 3),
            ("image: a:1\n\u{feff}image: b:1\n", 2),
            ("image: a:1\n\u{feff}# c\n", 2),
            ("image: \u{feff}a:1\n", 1),
            ("image: a:\u{feff}1\n", 1),
            ("a: {image: a:1,\n\u{feff}b: c}\n", 2),
        ] {
            let unreadable = scan("a.yaml", text.as_bytes()).unwrap_err();
            assert_eq!(unreadable.line, Some(line), "{text:?}: {unreadable}");
        }
        let joined = scan("a.yaml", "\u{feff}\u{feff}image: b:1\n".as_bytes()).unwrap_err();
        assert!(joined.reason.contains("byte order mark"), "{joined}");
        for text in
            ["\u{feff}image: a:1\n", "image: a:1 # \u{feff}\n", "image: a:1\nb: '\u{feff}'\nc: |\n  \u{feff}d\n"]
        {
            assert_eq!(scan("a.yaml", text.as_bytes()).unwrap().len(), 1, "{text:?}");
        }
    }
}
