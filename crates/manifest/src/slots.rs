//! Reads the keys of a map that make up sites, including those from merge keys (`<<`).

use std::ops::Index;

use granit_parser::ScalarStyle;

use super::found::Part;
use super::plain::reads_as_string;
use super::site::Unreadable;
use super::tree::{Kind, NodeId, Tree};

/// Limit of maps that the merge keys (`<<`) of one map may reach.
const MAX_MERGED: usize = 64;

/// Limit of nodes reached through aliases in a file.
///
/// Hand-written files with merge keys reach some hundreds. Without a limit, a few thousand aliases of a large list would give
/// millions of sites.
const MAX_REVISITED: usize = 200_000;

/// A key of a site.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Key {
    Image,
    Images,
    Repository,
    Registry,
    Tag,
    Digest,
    Sha,
    Name,
    NewName,
    NewTag,
    Global,
    Helm,
    Kustomize,
    ValuesContent,
    ElementsYaml,
    TemplatePatch,
}

impl Key {
    const COUNT: usize = Self::TemplatePatch as usize + 1;

    fn of(text: &str) -> Option<Self> {
        Some(match text {
            "image" => Self::Image,
            "images" => Self::Images,
            "repository" => Self::Repository,
            "registry" => Self::Registry,
            "tag" => Self::Tag,
            "digest" => Self::Digest,
            "sha" => Self::Sha,
            "name" => Self::Name,
            "newName" => Self::NewName,
            "newTag" => Self::NewTag,
            "global" => Self::Global,
            "helm" => Self::Helm,
            "kustomize" => Self::Kustomize,
            "valuesContent" => Self::ValuesContent,
            "elementsYaml" => Self::ElementsYaml,
            "templatePatch" => Self::TemplatePatch,
            _ => return None,
        })
    }
}

/// The values of a map's keys that make up sites.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Slots {
    values: [Option<NodeId>; Key::COUNT],
    /// The second of two equal keys.
    duplicate: Option<NodeId>,
}

impl Index<Key> for Slots {
    type Output = Option<NodeId>;

    fn index(&self, key: Key) -> &Option<NodeId> {
        &self.values[key as usize]
    }
}

impl Slots {
    /// Adds the values of `merged` for missing keys.
    fn fill(&mut self, merged: &Self) {
        for (mine, theirs) in self.values.iter_mut().zip(merged.values) {
            *mine = mine.or(theirs);
        }
    }
}

/// The value of a key.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Slot<'tree> {
    /// The key is missing or its value is empty.
    Absent,
    /// A string: its position in the map, its scalar, and its value.
    ///
    /// The scalar is another node if the position is an alias.
    Text(NodeId, NodeId, &'tree str),
    /// A value that cannot be part of a site.
    Other,
}

impl<'tree> Slot<'tree> {
    /// Returns the string with the whole scalar as its part.
    pub(crate) fn whole(self) -> Option<(&'tree str, Part)> {
        match self {
            Self::Text(at, node, text) => Some((text, Part::whole(at, node, text))),
            Self::Absent | Self::Other => None,
        }
    }
}

/// Returns the reason why a file with a duplicate key is not read.
pub(crate) fn twice(tree: &Tree<'_>, key: NodeId) -> Unreadable {
    let name = &tree.node(tree.resolve(key)).value;
    let reason =
        format!("has the key `{name}` twice in one mapping, and readers differ on which one counts: remove one");
    Unreadable { line: Some(tree.node(key).line), reason }
}

/// Returns the nodes that the value of a merge key names: the value itself, or each item of a list.
pub(crate) fn merge_sources<'a>(tree: &'a Tree<'_>, value: NodeId) -> impl Iterator<Item = NodeId> + 'a {
    let is_list = matches!(tree.node(value).kind, Kind::Sequence(_));
    let items = if is_list { Some(tree.children(value)) } else { None };
    items.into_iter().flatten().chain((!is_list).then_some(value))
}

/// Reads the maps of a file, and counts the cost.
pub(crate) struct Reader<'tree, 'text> {
    tree: &'tree Tree<'text>,
    /// Aliases under a merge key, in the order in which they were found.
    merges: Vec<NodeId>,
    /// The number of nodes reached through aliases.
    revisited: usize,
}

impl<'tree, 'text> Reader<'tree, 'text> {
    pub(crate) fn new(tree: &'tree Tree<'text>) -> Self {
        Self { tree, merges: Vec::new(), revisited: 0 }
    }

    /// Returns the aliases under merge keys of the maps that were read, ascending.
    pub(crate) fn into_merges(mut self) -> Vec<NodeId> {
        self.merges.sort_unstable();
        self.merges.dedup();
        self.merges
    }

    /// Reads the keys of a map, and then the keys from merge keys.
    pub(crate) fn read(&mut self, mapping: NodeId) -> Result<Slots, Unreadable> {
        let mut merged = Vec::new();
        let mut slots = self.own_slots(mapping, &mut merged);
        if merged.is_empty() {
            return Ok(slots);
        }
        let mut seen = vec![mapping];
        while let Some(source) = merged.pop() {
            // A map that was visited before adds nothing. Merge keys may form circles.
            if seen.contains(&source) || !matches!(self.tree.node(source).kind, Kind::Mapping(_)) {
                continue;
            }
            if seen.len() == MAX_MERGED {
                let reason = format!("has merge keys (`<<`) that go through more than {MAX_MERGED} mappings");
                return Err(Unreadable { line: Some(self.tree.node(mapping).line), reason });
            }
            seen.push(source);
            self.revisit(source)?;
            slots.fill(&self.own_slots(source, &mut merged));
        }
        Ok(slots)
    }

    /// Reads the map's own keys, and pushes its merged maps onto `merged`, the first map last.
    fn own_slots(&mut self, mapping: NodeId, merged: &mut Vec<NodeId>) -> Slots {
        let tree = self.tree;
        let mut slots = Slots::default();
        let merged_before = merged.len();
        for (key, value) in tree.entries(mapping) {
            let text = &*tree.node(key).value;
            if text == "<<" {
                self.sources(value, merged);
            } else if let Some(known) = Key::of(text)
                && slots.values[known as usize].replace(value).is_some()
            {
                slots.duplicate = slots.duplicate.or(Some(key));
            }
        }
        merged[merged_before..].reverse();
        slots
    }

    /// Pushes the maps that a merge key names onto `merged`, and records the aliases of the key.
    fn sources(&mut self, value: NodeId, merged: &mut Vec<NodeId>) {
        let tree = self.tree;
        for id in merge_sources(tree, value) {
            if matches!(tree.node(id).kind, Kind::Alias(_)) {
                self.merges.push(id);
            }
            merged.push(tree.resolve(id));
        }
    }

    /// Counts the nodes of a collection that is visited more than once.
    pub(crate) fn revisit(&mut self, id: NodeId) -> Result<(), Unreadable> {
        let node = self.tree.node(id);
        self.revisited += (node.subtree_end - id) as usize;
        if self.revisited > MAX_REVISITED {
            let reason = "uses its aliases so often that following them would take too long".to_owned();
            return Err(Unreadable { line: Some(node.line), reason });
        }
        Ok(())
    }

    /// Returns the node of a position, and counts its subtree if it is reached through an alias.
    pub(crate) fn follow(&mut self, at: NodeId) -> Result<NodeId, Unreadable> {
        let id = self.tree.resolve(at);
        if id != at {
            self.revisit(id)?;
        }
        Ok(id)
    }

    pub(crate) fn refuse_duplicate(&self, slots: &Slots) -> Result<(), Unreadable> {
        slots.duplicate.map_or(Ok(()), |duplicate| Err(twice(self.tree, duplicate)))
    }

    /// Returns whether a key has a value that no site can use.
    ///
    /// That is a value that is not a string, or a registry that is a number.
    pub(crate) fn is_odd(&self, slots: &Slots, key: Key) -> bool {
        match self.slot(slots[key]) {
            Slot::Absent => false,
            Slot::Other => true,
            Slot::Text(_, node, text) => {
                let is_of_number = |byte: u8| byte.is_ascii_alphanumeric() || b".:_-".contains(&byte);
                let is_plain = self.tree.node(node).kind == Kind::Scalar(ScalarStyle::Plain);
                key == Key::Registry && is_plain && text.bytes().all(is_of_number) && !reads_as_string(text)
            }
        }
    }

    pub(crate) fn slot(&self, at: Option<NodeId>) -> Slot<'tree> {
        let Some(at) = at else { return Slot::Absent };
        let id = self.tree.resolve(at);
        let node = self.tree.node(id);
        match node.kind {
            Kind::Scalar(_) if node.is_retyped() => Slot::Other,
            Kind::Scalar(_) if node.is_null() || node.value.is_empty() => Slot::Absent,
            Kind::Scalar(_) => Slot::Text(at, id, &node.value),
            Kind::Mapping(_) | Kind::Sequence(_) | Kind::Alias(_) => Slot::Other,
        }
    }
}
