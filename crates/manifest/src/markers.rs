//! Markers: comments that name the image of the scalar on their line.
//!
//! `# tagrelay: <name>` and `# tagrelay: <name>:tag` (also `:digest`, `:name`), `# tagrelay: ignore`, and Flux's
//! `# {"$imagepolicy": "<namespace>:<name>"}` with optional `:tag`, `:digest` or `:name`
//! (<https://fluxcd.io/flux/guides/image-update/#configure-image-update-for-custom-resources>).

use std::collections::BTreeSet;
use std::ops::Range;

use granit_parser::StructureStyle;
use memchr::memmem;

use super::lines::{LineCounter, last_line, line_length};
use super::tree::{Kind, NodeId, Tree, is_in, outermost};

/// The first word of our markers.
pub(crate) const OWN: &[u8] = b"tagrelay:";
/// The key in Flux's markers.
pub(crate) const FLUX: &[u8] = b"\"$imagepolicy\"";

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Marker<'text> {
    /// The value before the marker on its line; `None`: there is no value.
    pub(crate) at: Option<NodeId>,
    /// The value at whose edge the marker is.
    ///
    /// That is the value of the key on its line, if the value begins on a later line. In brackets, it is the outermost collection
    /// that opens or closes on its line.
    pub(crate) around: Option<NodeId>,
    /// The line, counted from 1.
    pub(crate) line: u32,
    pub(crate) says: Says<'text>,
}

/// The meaning of a marker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Says<'text> {
    /// The value is not a site.
    Ignore,
    /// The value is this part of the image with this name.
    Is(Name<'text>, Option<Marked>),
    /// The marker is not understood.
    Unclear,
}

/// The kind of name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Name<'text> {
    /// The name in a marker of Tagrelay.
    Own(&'text str),
    /// Flux's `namespace:name`.
    Policy(&'text str),
}

/// The part that a marker states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Marked {
    Tag,
    Digest,
    Name,
}

/// Returns the markers of a file in the order of the text.
pub(crate) fn markers<'text>(tree: &Tree<'text>) -> Vec<Marker<'text>> {
    let text: &'text str = tree.text();
    let mut found: Vec<(usize, usize)> = Vec::new();
    for (word, before) in [(OWN, ""), (FLUX, "{")] {
        for start in memmem::find_iter(text.as_bytes(), word) {
            if let Some(hash) = hash_before(text, start, before) {
                found.push((hash, start));
            }
        }
    }
    found.sort_unstable();
    let keys = if found.is_empty() { BTreeSet::new() } else { keys(tree) };
    let mut lines = LineCounter::new(text.as_bytes());
    let mut markers = Vec::new();
    // The end of the line of the last marker. The rest of that line is the text of the marker's comment.
    let mut line_end = 0;
    for (hash, start) in found {
        if hash < line_end {
            continue;
        }
        let line = lines.of(hash);
        if let Some(at) = value_before(tree, hash, lines.start) {
            line_end = start + line_length(&text[start..]);
            let behind = tree.nodes.partition_point(|node| node.span().start <= hash) as NodeId;
            let last = behind.checked_sub(1);
            let key = last.filter(|last| keys.contains(last) && tree.node(*last).line == line);
            let value = key.map(|key| key + 1).filter(|value| tree.node(*value).subtree_end > *value);
            let edge =
                || last.and_then(|last| opened(tree, last, line).or_else(|| closed(tree, last, lines.start, hash)));
            let around = value.or_else(|| item(tree, behind, hash, lines.start)).or_else(edge);
            let at = at.filter(|at| !keys.contains(at));
            markers.push(Marker { at, around, line, says: says(&text[start..line_end]) });
        }
    }
    markers
}

/// Returns the keys of all maps. A marker applies to a value, not to a key.
fn keys(tree: &Tree<'_>) -> BTreeSet<NodeId> {
    let mappings = (0..tree.nodes.len() as NodeId).filter(|id| matches!(tree.node(*id).kind, Kind::Mapping(_)));
    mappings.flat_map(|mapping| tree.entries(mapping)).map(|(key, _)| key).collect()
}

/// Returns the item of a list whose `-` is alone on its line before the comment.
///
/// `None`: no such item, or an empty one. `behind`: the node after the comment.
fn item(tree: &Tree<'_>, behind: NodeId, hash: usize, line_start: usize) -> Option<NodeId> {
    let text = tree.text();
    let indentation = |line: &str| line.len() - line.trim_start_matches(' ').len();
    // The item's anchor and tag may follow the dash.
    let is_property = |word: &str| word.starts_with(['&', '!']);
    let before = text.get(line_start..hash)?;
    let mut words = before.split_ascii_whitespace();
    let is_alone = words.next() == Some("-") && words.all(|word| word == "-" || is_property(word));
    // A list begins after its first dash, also as the first item of another list.
    let begins_here = |id: &NodeId| {
        let node = &tree.nodes[*id as usize];
        let is_list = matches!(node.kind, Kind::Sequence(_));
        is_list && text.get(hash..node.span().start).is_some_and(|between| !between.contains(['\n', '\r']))
    };
    let behind = (behind..tree.nodes.len() as NodeId).find(|id| !begins_here(id))?;
    let between = text.get(hash..tree.node(behind).span().start)?;
    let line = last_line(between);
    // A node that is not indented further, or begins with its own dash, is not in this item.
    let is_inside = line.len() < between.len()
        && indentation(line) > indentation(before)
        && line.split_ascii_whitespace().all(is_property);
    (is_alone && is_inside).then_some(behind)
}

/// Returns the outermost collection whose bracket opens on the line.
///
/// `last`: the last node before the comment.
fn opened(tree: &Tree<'_>, last: NodeId, line: u32) -> Option<NodeId> {
    let opens = |id: &NodeId| {
        let node = tree.node(*id);
        node.line == line && node.subtree_end > last + 1 && is_between_brackets(tree, *id)
    };
    (0..=last).rev().take_while(opens).last()
}

/// Returns the outermost collection whose bracket closes on the line before the comment.
///
/// `last`: the last node before the comment.
fn closed(tree: &Tree<'_>, last: NodeId, line_start: usize, hash: usize) -> Option<NodeId> {
    let end = tree.node(last).span().end;
    let between = tree.text().get(end..hash)?;
    let closing = |line: &str| {
        let (before_comment, _) = line.split_once('#').unwrap_or((line, ""));
        before_comment.matches([']', '}']).count()
    };
    // Brackets that close on earlier lines do not matter.
    if closing(&between[line_start.saturating_sub(end).min(between.len())..]) == 0 {
        return None;
    }
    let count: usize = between.split(['\n', '\r']).map(closing).sum();
    let ends = |id: &NodeId| is_between_brackets(tree, *id) && tree.node(*id).subtree_end == last + 1;
    (0..=last).rev().filter(ends).nth(count - 1)
}

/// Returns whether a node is a collection in brackets. A single pair in a sequence has no brackets of its own.
fn is_between_brackets(tree: &Tree<'_>, id: NodeId) -> bool {
    let node = tree.node(id);
    matches!(node.kind, Kind::Mapping(StructureStyle::Flow) | Kind::Sequence(StructureStyle::Flow))
        && tree.text()[node.span().start..].starts_with(['{', '['])
}

/// The nodes that `# tagrelay: ignore` excludes.
///
/// These are the nodes on its line, and the value at whose edge the marker is.
pub(crate) struct Ignored {
    lines: BTreeSet<u32>,
    /// In the order of the text, not nested.
    ranges: Vec<Range<NodeId>>,
}

impl Ignored {
    pub(crate) fn of(tree: &Tree<'_>, markers: &[Marker<'_>]) -> Self {
        let ignoring = || markers.iter().filter(|marker| marker.says == Says::Ignore);
        let lines = ignoring().filter(|marker| marker.at.is_some()).map(|marker| marker.line).collect();
        let around = ignoring().filter_map(|marker| marker.around);
        Self { lines, ranges: outermost(around.map(|id| id..tree.node(id).subtree_end).collect()) }
    }

    pub(crate) fn is_nothing(&self) -> bool {
        self.lines.is_empty() && self.ranges.is_empty()
    }

    /// Returns whether a node is excluded.
    pub(crate) fn takes(&self, tree: &Tree<'_>, id: NodeId) -> bool {
        self.lines.contains(&tree.node(id).line) || is_in(&self.ranges, id)
    }

    /// Returns whether a node is inside a value that is excluded as a whole.
    pub(crate) fn holds(&self, id: NodeId) -> bool {
        is_in(&self.ranges, id)
    }

    /// Returns whether a marker is on the line of a node.
    pub(crate) fn takes_line_of(&self, tree: &Tree<'_>, id: NodeId) -> bool {
        self.lines.contains(&tree.node(id).line)
    }
}

/// Returns the start of the comment whose first word is at `start`, after `opener` and blanks.
fn hash_before(text: &str, start: usize, opener: &str) -> Option<usize> {
    let blanks = |text: &str| text.trim_end_matches([' ', '\t']).len();
    let before = &text[..blanks(&text[..start])];
    let before = before.strip_suffix(opener)?;
    let hash = before[..blanks(before)].strip_suffix('#')?;
    // Without a blank before the hash, the text is not a comment.
    (hash.is_empty() || hash.ends_with([' ', '\t', '\n', '\r', '\u{feff}'])).then_some(hash.len())
}

/// Returns the last value before a comment on its line, which begins at `line_start`.
///
/// `Some(None)`: the line has no value before the comment. `None`: the text is not a comment but part of a scalar.
fn value_before(tree: &Tree<'_>, hash: usize, line_start: usize) -> Option<Option<NodeId>> {
    let behind = tree.nodes.partition_point(|node| node.span().start <= hash);
    let Some(id) = behind.checked_sub(1) else { return Some(None) };
    let span: Range<usize> = tree.nodes[id].span();
    if span.contains(&hash) && matches!(tree.nodes[id].kind, Kind::Scalar(_)) {
        return None;
    }
    if span.end < line_start {
        return Some(None);
    }
    let between = tree.text().get(span.end..hash).unwrap_or("\n");
    let is_same_line = between.chars().all(|character| matches!(character, ' ' | '\t' | '}' | ']' | ','));
    let is_value = matches!(tree.nodes[id].kind, Kind::Scalar(_) | Kind::Alias(_)) && !span.is_empty();
    Some((is_same_line && is_value).then_some(id as NodeId))
}

/// Parses the text from the marker's first word to the end of the line.
fn says(line: &str) -> Says<'_> {
    if let Some(rest) = line.strip_prefix("tagrelay:") {
        return match rest.split_whitespace().next() {
            Some("ignore") => Says::Ignore,
            Some(word) if is_nearly_ignore(word) => Says::Unclear,
            // The port of a registry also has a colon, so only known words are parts.
            Some(word) => match word.rsplit_once(':') {
                Some((name, part)) if !name.is_empty() && part_of(part).is_some() => {
                    Says::Is(Name::Own(name), part_of(part))
                }
                _ if word.ends_with(':') => Says::Unclear,
                _ => Says::Is(Name::Own(word), None),
            },
            None => Says::Unclear,
        };
    }
    policy_of(line).unwrap_or(Says::Unclear)
}

/// Returns whether a word is probably a misspelled `ignore`.
///
/// For example upper case, extra characters, or swapped or doubled letters.
fn is_nearly_ignore(word: &str) -> bool {
    let word = word.to_ascii_lowercase();
    let letters = |word: &str| word.bytes().collect::<BTreeSet<u8>>();
    word.starts_with("ignor") || (word.starts_with('i') && word.len() <= 7 && letters(&word) == letters("ignore"))
}

/// Parses `"$imagepolicy": "namespace:name:part"`.
fn policy_of(line: &str) -> Option<Says<'_>> {
    let rest = line.strip_prefix("\"$imagepolicy\"")?.trim_start().strip_prefix(':')?.trim_start();
    let (policy, _) = rest.strip_prefix('"')?.split_once('"')?;
    let (namespace, name) = policy.split_once(':')?;
    let (name, part) = match name.split_once(':') {
        Some((name, part)) => (name, Some(part_of(part)?)),
        None => (name, None),
    };
    let length = namespace.len() + 1 + name.len();
    (!namespace.is_empty() && !name.is_empty()).then(|| Says::Is(Name::Policy(&policy[..length]), part))
}

fn part_of(word: &str) -> Option<Marked> {
    match word {
        "tag" => Some(Marked::Tag),
        "digest" => Some(Marked::Digest),
        "name" => Some(Marked::Name),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns each marker as `line value meaning`.
    fn found(text: &str) -> Vec<String> {
        let tree = Tree::parse(text.as_bytes()).unwrap();
        let shown = |marker: &Marker<'_>| {
            let value = marker.at.map_or("-".to_owned(), |at| tree.node(tree.resolve(at)).value.to_string());
            let says = match marker.says {
                Says::Ignore => "ignore".to_owned(),
                Says::Unclear => "?".to_owned(),
                Says::Is(Name::Own(name), part) => format!("{name} {part:?}"),
                Says::Is(Name::Policy(name), part) => format!("flux {name} {part:?}"),
            };
            format!("{} {value} {says}", marker.line)
        };
        markers(&tree).iter().map(shown).collect()
    }

    #[test]
    fn marker_belongs_to_the_value_before_it() {
        for (text, expected) in [
            ("a: v1 # tagrelay: x", "1 v1 x None"),
            ("a: 'v1'\t#tagrelay:x:tag other words", "1 v1 x Some(Tag)"),
            ("\n\ra: &a v1 # tagrelay: r.io:5000/x:digest\r\n", "3 v1 r.io:5000/x Some(Digest)"),
            ("a: v1 # tagrelay: r.io:5000/x\n", "1 v1 r.io:5000/x None"),
            ("a: {b: c, d: v1} # tagrelay: x:name", "1 v1 x Some(Name)"),
            ("- v1 # tagrelay: ignore", "1 v1 ignore"),
            ("a: v1 # {\"$imagepolicy\": \"ns:x\"}", "1 v1 flux ns:x None"),
            ("a: v1 # { \"$imagepolicy\" : \"ns:x:tag\" }", "1 v1 flux ns:x Some(Tag)"),
            ("a: v1 # {\"$imagepolicy\": \"ns:x:what\"}", "1 v1 ?"),
            ("a: v1 # {\"$imagepolicy\": \"x\"}", "1 v1 ?"),
            ("a: v1 # tagrelay:", "1 v1 ?"),
            ("a: v1 # tagrelay: IGNORE", "1 v1 ?"),
            ("a: v1 # tagrelay: ingore", "1 v1 ?"),
            ("a: v1 # tagrelay: ignored", "1 v1 ?"),
            ("a: v1 # tagrelay: region", "1 v1 region None"),
            ("a: # tagrelay: x", "1 - x None"),
            ("# tagrelay: x\na: v1", "1 - x None"),
            ("\u{feff}# tagrelay: x\na: v1", "1 - x None"),
            ("a: &a v1\nb: *a # tagrelay: x", "2 v1 x None"),
            ("a: v1 # tagrelay: x\nb: v2", "1 v1 x None"),
            // A comment has one marker. The rest of the comment is text.
            ("a: v1 # tagrelay: x # tagrelay: y # {\"$imagepolicy\": \"ns:x\"}\r\nb: v2", "1 v1 x None"),
            ("? v1 # tagrelay: x\n: v2", "1 - x None"),
            ("{v1: # tagrelay: x\n v2}", "1 - x None"),
        ] {
            assert_eq!(found(text), [expected], "{text}");
        }
    }

    #[test]
    fn lone_dash_stands_for_its_item() {
        for (text, expected) in [
            ("- # tagrelay: ignore\n  a: b\n- c", Some("a: b")),
            ("x:\n-\t# tagrelay: ignore\n\n  # why\n  a: b\n", Some("a: b")),
            ("- &x # tagrelay: ignore\r\n  a: b\r\n", Some("a: b")),
            ("- # tagrelay: ignore\n  &x\n  a: b\n", Some("a: b")),
            ("- - # tagrelay: ignore\n    a: b\n", Some("a: b")),
            ("- # tagrelay: ignore\n  - a\n", Some("- a")),
            ("- # tagrelay: ignore\n  a # b\n", Some("a")),
            ("- # tagrelay: ignore\n- a\n", None),
            ("- - # tagrelay: ignore\n  - a\n", None),
            ("a: # tagrelay: ignore\n- a\n", None),
            ("- # tagrelay: ignore\n", None),
            ("- a: x\n- # tagrelay: ignore\nb: c", None),
            ("a:\n  - # tagrelay: ignore\nb: c", None),
            ("x # - # tagrelay: ignore", None),
        ] {
            let Ok(tree) = Tree::parse(text.as_bytes()) else { continue };
            let hash = text.find("# tagrelay").unwrap();
            let line_start = text[..hash].rfind('\n').map_or(0, |end| end + 1);
            let behind = tree.nodes.partition_point(|node| node.span().start <= hash) as NodeId;
            let found = item(&tree, behind, hash, line_start).map(|id| &text[tree.node(id).span().start..]);
            assert_eq!(found.map(|found| found.starts_with(expected.unwrap_or("?"))), expected.map(|_| true), "{text}");
        }
    }

    #[test]
    fn marker_must_be_in_a_comment() {
        for text in [
            "a: 'v1 # tagrelay: x'",
            "a: |\n  v1 # tagrelay: x\n",
            "a: v1#tagrelay:x",
            "tagrelay: x",
            "a: v1 # see tagrelay: x",
            "a: \"{\\\"$imagepolicy\\\": \\\"ns:x\\\"}\"",
            "a: v1 # \"$imagepolicy\"",
        ] {
            assert_eq!(found(text), [""; 0], "{text}");
        }
    }
}
