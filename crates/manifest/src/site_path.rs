//! Paths to scalars: a small part of JSONPath for YAML (<https://www.rfc-editor.org/rfc/rfc9535>).
//!
//! `$` is the root of each document. Steps are `.key`, `['key']`, `[2]`, `[*]` (also `.*`) and `[?key=='text']` (also
//! `[?(@.key.inner == "text")]`). The last form selects items and values whose key has that text. A step into a block scalar parses
//! the scalar as YAML.

use std::collections::{BTreeMap, BTreeSet};

use super::tree::{Kind, NodeId, Tree};

/// Limit of a path, in bytes.
const MAX_BYTES: usize = 1024;

/// A path to scalars of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SitePath {
    pub(crate) steps: Vec<Step>,
}

/// One step of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// The value of a key.
    Key(String),
    /// An item, counted from 0.
    Index(usize),
    /// All items or values.
    All,
    /// The items and values whose value at these keys is this text.
    Filter(Vec<String>, String),
}

/// Why a text is not a path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`path` is invalid at byte {position}: {reason}")]
pub struct InvalidSitePath {
    /// The position in bytes, from 0.
    pub position: usize,
    /// The fault, and the expected syntax.
    pub reason: &'static str,
}

/// The end of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reached<'path> {
    /// The position of a node in its collection, which may be an alias.
    Node(NodeId),
    /// A position inside the text of a scalar, with the rest of the path.
    Inside(NodeId, &'path [Step]),
}

/// Returns the ends of the path from `root`, in the order of the text. Each end is listed once.
pub(crate) fn select<'path>(tree: &Tree<'_>, root: NodeId, steps: &'path [Step]) -> Vec<Reached<'path>> {
    let mut places = vec![root];
    let mut inside = Vec::new();
    for (done, step) in steps.iter().enumerate() {
        let mut next = Vec::new();
        let (mut entered, mut known) = (BTreeSet::new(), Known::new());
        for place in places {
            let node = tree.resolve(place);
            // All aliases of a collection lead to the same positions.
            let is_scalar = matches!(tree.node(node).kind, Kind::Scalar(_));
            if !is_scalar && !entered.insert(node) {
                continue;
            }
            match tree.node(node).kind {
                Kind::Scalar(_) => inside.push(Reached::Inside(place, &steps[done..])),
                Kind::Mapping(_) => step.take(tree, tree.entries(node), &mut known, &mut next),
                Kind::Sequence(_) => match step {
                    Step::Index(index) => next.extend(tree.children(node).nth(*index)),
                    _ => step.take(tree, tree.children(node).map(|item| (node, item)), &mut known, &mut next),
                },
                Kind::Alias(_) => {}
            }
        }
        // Two aliases of a collection lead to the same positions. Without this, ten nested levels of ten aliases would be too many.
        next.sort_unstable();
        next.dedup();
        places = next;
    }
    places.into_iter().map(Reached::Node).chain(inside).collect()
}

impl Step {
    /// Adds the entries that the step selects. Items of a sequence have no keys.
    fn take(
        &self,
        tree: &Tree<'_>,
        entries: impl Iterator<Item = (NodeId, NodeId)>,
        known: &mut Known,
        next: &mut Vec<NodeId>,
    ) {
        let takes = |(key, value): &(NodeId, NodeId)| match self {
            Self::Key(wanted) => {
                let key = tree.node(*key);
                matches!(key.kind, Kind::Scalar(_)) && key.value == *wanted
            }
            Self::All => true,
            Self::Filter(keys, wanted) => says(tree, *value, keys, wanted, known),
            Self::Index(_) => false,
        };
        next.extend(entries.filter(takes).map(|(_, value)| value));
    }
}

/// Caches the values at a key path of nodes, because aliases look up the same values repeatedly.
type Known = BTreeMap<(NodeId, usize), Option<NodeId>>;

/// Returns whether the value at `keys` below a node is this text.
fn says(tree: &Tree<'_>, node: NodeId, keys: &[String], wanted: &str, known: &mut Known) -> bool {
    let mut node = tree.resolve(node);
    for (depth, key) in keys.iter().enumerate() {
        match *known.entry((node, depth)).or_insert_with(|| tree.value_of(node, key)) {
            Some(value) => node = tree.resolve(value),
            None => return false,
        }
    }
    let node = tree.node(node);
    matches!(node.kind, Kind::Scalar(_)) && node.value == *wanted
}

impl std::str::FromStr for SitePath {
    type Err = InvalidSitePath;

    fn from_str(text: &str) -> Result<Self, InvalidSitePath> {
        let mut reader = PathReader { text, position: 0 };
        if text.len() > MAX_BYTES {
            return Err(reader.fault("it has more than 1024 bytes"));
        }
        if !reader.skip("$") {
            return Err(reader.fault("it begins with `$`, the root of the file"));
        }
        let mut steps = Vec::new();
        while reader.position < text.len() {
            steps.push(reader.step()?);
        }
        if steps.is_empty() {
            return Err(reader.fault("a step is missing, such as `.image` or `['image']`"));
        }
        Ok(Self { steps })
    }
}

struct PathReader<'text> {
    text: &'text str,
    position: usize,
}

impl PathReader<'_> {
    fn rest(&self) -> &str {
        &self.text[self.position..]
    }

    fn fault(&self, reason: &'static str) -> InvalidSitePath {
        InvalidSitePath { position: self.position, reason }
    }

    fn skip(&mut self, word: &str) -> bool {
        let is_here = self.rest().starts_with(word);
        self.position += if is_here { word.len() } else { 0 };
        is_here
    }

    fn skip_blanks(&mut self) {
        self.position += self.rest().len() - self.rest().trim_start_matches(' ').len();
    }

    fn step(&mut self) -> Result<Step, InvalidSitePath> {
        if self.skip("..") {
            return Err(self.fault("`..` is not known here: name every level, or write `[*]`"));
        }
        if self.skip(".") {
            return if self.skip("*") { Ok(Step::All) } else { Ok(Step::Key(self.word()?)) };
        }
        if !self.skip("[") {
            return Err(self.fault("a step begins with `.` or `[`"));
        }
        self.skip_blanks();
        let step = if self.skip("*") {
            Step::All
        } else if self.skip("?") {
            self.filter()?
        } else if self.rest().starts_with(['\'', '"']) {
            Step::Key(self.quoted()?)
        } else {
            self.index()?
        };
        self.skip_blanks();
        if self.skip("]") { Ok(step) } else { Err(self.fault("`]` is missing")) }
    }

    /// Parses an unquoted key.
    fn word(&mut self) -> Result<String, InvalidSitePath> {
        let is_end = |character: char| matches!(character, '.' | '[' | ']' | '=' | '\'' | '"' | ' ' | '(' | ')' | '*');
        let length = self.rest().find(is_end).unwrap_or(self.rest().len());
        if length == 0 {
            return Err(self.fault("a key is missing; one with unusual characters is written `['key']`"));
        }
        let word = self.rest()[..length].to_owned();
        self.position += length;
        Ok(word)
    }

    fn quoted(&mut self) -> Result<String, InvalidSitePath> {
        let quote = if self.skip("'") { '\'' } else { '"' };
        if quote == '"' && !self.skip("\"") {
            return Err(self.fault("a text between quotes is missing"));
        }
        let Some(length) = self.rest().find(quote) else {
            return Err(self.fault("the closing quote is missing"));
        };
        let text = self.rest()[..length].to_owned();
        self.position += length + 1;
        Ok(text)
    }

    fn index(&mut self) -> Result<Step, InvalidSitePath> {
        let length = self.rest().bytes().take_while(u8::is_ascii_digit).count();
        match self.rest()[..length].parse() {
            Ok(index) => {
                self.position += length;
                Ok(Step::Index(index))
            }
            Err(_) => Err(self.fault("`[` is followed by a number, `*`, a key between quotes, or `?` and a condition")),
        }
    }

    /// Parses a condition: `name=='x'`, `(@.name == 'x')`.
    fn filter(&mut self) -> Result<Step, InvalidSitePath> {
        self.skip_blanks();
        let has_parenthesis = self.skip("(");
        self.skip_blanks();
        let mut keys = Vec::new();
        if self.skip("@") {
            if !self.rest().starts_with(['.', '[']) {
                return Err(self.fault("`@` is followed by `.key`"));
            }
        } else {
            keys.push(self.word()?);
        }
        loop {
            if self.skip(".") {
                keys.push(self.word()?);
            } else if self.skip("[") {
                keys.push(self.quoted()?);
                if !self.skip("]") {
                    return Err(self.fault("`]` is missing"));
                }
            } else {
                break;
            }
        }
        self.skip_blanks();
        if !self.skip("==") {
            return Err(self.fault("a condition is `key == 'text'`"));
        }
        self.skip_blanks();
        let text = self.quoted()?;
        self.skip_blanks();
        if has_parenthesis && !self.skip(")") {
            return Err(self.fault("`)` is missing"));
        }
        Ok(Step::Filter(keys, text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the values at the end of a path.
    fn values(text: &str, path: &str) -> Vec<String> {
        let tree = Tree::parse(text.as_bytes()).unwrap();
        let path: SitePath = path.parse().unwrap_or_else(|error| panic!("{path}: {error}"));
        let places = select(&tree, tree.documents[0].root, &path.steps);
        let value = |place: &Reached<'_>| match place {
            Reached::Node(node) => tree.node(tree.resolve(*node)).value.to_string(),
            Reached::Inside(node, rest) => format!("inside {node}, {} more", rest.len()),
        };
        places.iter().map(value).collect()
    }

    #[test]
    fn paths_select_scalars() {
        let text = "a: {b: [{name: x, tag: t1}, {name: y, tag: t2, in: {n: z}}], 'c.d': v, e: |\n  f: g\n}";
        for (path, expected) in [
            ("$.a.b[?name=='x'].tag", &["t1"][..]),
            ("$.a.b[?(@.in.n == \"z\")].tag", &["t2"]),
            ("$.a.b[?@['name']=='y'].tag", &["t2"]),
            ("$.a.b[*].tag", &["t1", "t2"]),
            ("$['a']['b'][1].tag", &["t2"]),
            ("$.a.b[7].tag", &[]),
            ("$.a['c.d']", &["v"]),
            ("$.*.b.*.tag", &["t1", "t2"]),
            ("$.x", &[]),
            ("$.a.b.tag", &[]),
            ("$[0]", &[]),
        ] {
            assert_eq!(values(&text.replace(", e: |\n  f: g\n", ""), path), expected, "{path}");
        }
        assert_eq!(values("e: |\n  f: g\n", "$.e.f"), ["inside 2, 1 more"]);
        let shared = "a: &a {t: v}\nb: [*a, *a]\n";
        assert_eq!(values(shared, "$.b[*].t"), ["v"]);
    }

    #[test]
    fn invalid_path_is_refused_with_the_position() {
        for (path, position, words) in [
            ("", 0, "begins with"),
            ("a.b", 0, "begins with"),
            ("$", 1, "step is missing"),
            ("$a", 1, "a step begins"),
            ("$.a..b", 5, "is not known"),
            ("$.a.", 4, "key is missing"),
            ("$.a[", 4, "is followed by"),
            ("$.a['b'", 7, "`]`"),
            ("$.a['b", 5, "closing quote"),
            ("$.a[?x]", 6, "condition"),
            ("$.a[?(@.x=='y']", 14, "`)`"),
            ("$.a[-1]", 4, "is followed by"),
            ("$.a[99999999999999999999]", 4, "is followed by"),
        ] {
            let error = path.parse::<SitePath>().unwrap_err();
            assert!(error.position == position && error.reason.contains(words), "{path}: {error}");
        }
    }
}
