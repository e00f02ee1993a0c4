//! Finds the sites in the nodes of a file.

use std::ops::Range;

use crate::image::{Digest, ImageReference, Repository, Tag, Version};

use super::site::{Format, Site, Unreadable};
use super::tree::{Kind, NodeId, Tree};

/// The most mappings through which the merge keys (`<<`) of one mapping are followed.
const MAX_MERGED: usize = 64;

/// The most nodes that are met through aliases, in a whole file. Files in which people use merge keys meet
/// some hundreds; without a bound, a few thousand aliases of a large list would make millions of sites.
const MAX_REVISITED: usize = 200_000;

/// All sites of a file.
pub(super) struct Sites {
    /// The sites in the order of the text. Those that an alias or a merge repeats word for word come once;
    /// see [`Found::copies`].
    pub(super) found: Vec<Found>,
    /// The aliases that stand under a merge key, ascending.
    pub(super) merges: Vec<NodeId>,
}

/// A site with the scalars that it is made of.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) site: Site,
    /// The mappings that have this site, with everything that an alias or a merge key brings them.
    pub(super) homes: Vec<NodeId>,
    pub(super) tag: Option<Part>,
    pub(super) digest: Option<Part>,
}

/// Where a tag or a digest stands.
#[derive(Debug, Clone)]
pub(super) struct Part {
    /// The scalar.
    pub(super) node: NodeId,
    /// Every node through which sites reach the scalar: the scalar itself, or aliases of it.
    pub(super) reached_by: Vec<NodeId>,
    /// The bytes of the scalar's value that are the tag or the digest.
    pub(super) range: Range<usize>,
    /// Whether a digest is written without `sha256:` in front, as under the key `sha`.
    pub(super) is_bare: bool,
}

/// What a document is, which decides the form of its sites.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DocumentKind {
    Kubernetes,
    Kustomization,
    Other,
}

/// The values of the keys of one mapping that sites are made of.
#[derive(Debug, Clone, Copy, Default)]
struct Slots {
    image: Option<NodeId>,
    images: Option<NodeId>,
    repository: Option<NodeId>,
    registry: Option<NodeId>,
    tag: Option<NodeId>,
    digest: Option<NodeId>,
    sha: Option<NodeId>,
    name: Option<NodeId>,
    new_name: Option<NodeId>,
    new_tag: Option<NodeId>,
    /// The second of two equal keys.
    duplicate: Option<NodeId>,
}

impl Slots {
    fn of_key(&mut self, key: &str) -> Option<&mut Option<NodeId>> {
        Some(match key {
            "image" => &mut self.image,
            "images" => &mut self.images,
            "repository" => &mut self.repository,
            "registry" => &mut self.registry,
            "tag" => &mut self.tag,
            "digest" => &mut self.digest,
            "sha" => &mut self.sha,
            "name" => &mut self.name,
            "newName" => &mut self.new_name,
            "newTag" => &mut self.new_tag,
            _ => return None,
        })
    }

    /// Takes the values of `merged` for the keys that are not there yet.
    fn fill(&mut self, merged: &Self) {
        let fill = |mine: &mut Option<NodeId>, theirs: Option<NodeId>| *mine = mine.or(theirs);
        fill(&mut self.image, merged.image);
        fill(&mut self.images, merged.images);
        fill(&mut self.repository, merged.repository);
        fill(&mut self.registry, merged.registry);
        fill(&mut self.tag, merged.tag);
        fill(&mut self.digest, merged.digest);
        fill(&mut self.sha, merged.sha);
        fill(&mut self.name, merged.name);
        fill(&mut self.new_name, merged.new_name);
        fill(&mut self.new_tag, merged.new_tag);
    }
}

/// What stands under a key.
enum Slot<'tree> {
    /// No such key, or nothing in it.
    Absent,
    /// A scalar that is text: the place in the mapping, the scalar (elsewhere when the place is an alias), its value.
    Text(NodeId, NodeId, &'tree str),
    /// Something that no site is made of.
    Other,
}

impl Sites {
    /// Finds every site of a file of the name `path`.
    ///
    /// # Errors
    ///
    /// When a key that makes a site is there twice, or when merge keys go too far.
    pub(super) fn find(path: &str, tree: &Tree<'_>) -> Result<Self, Unreadable> {
        let name = path.rsplit('/').next().unwrap_or(path);
        let named_kustomization = matches!(name, "kustomization.yaml" | "kustomization.yml" | "Kustomization");
        let sites = Self { found: Vec::new(), merges: Vec::new() };
        let mut finder = Finder { tree, document: DocumentKind::Other, sites, revisited: 0 };
        for document in &tree.documents {
            finder.document = document_kind(tree, document.root, named_kustomization);
            finder.walk(document.root)?;
        }
        finder.sites.merges.sort_unstable();
        finder.sites.merges.dedup();
        Ok(finder.sites.in_order())
    }

    /// Sorts the sites and joins those that are the same bytes.
    fn in_order(mut self) -> Self {
        if self.found.len() > 1 {
            self.found.sort_by(|one, other| {
                let repositories = || one.site.repository.cmp(&other.site.repository);
                one.place().cmp(&other.place()).then_with(repositories)
            });
            self.found.dedup_by(|copy, first| first.joins(copy));
        }
        self
    }
}

impl Found {
    /// The scalars of the site, which order it in the text.
    fn place(&self) -> (NodeId, NodeId) {
        let node = |part: &Option<Part>| part.as_ref().map(|part| part.node);
        let tag = node(&self.tag);
        let digest = node(&self.digest);
        (tag.or(digest).unwrap_or_default(), digest.or(tag).unwrap_or_default())
    }

    /// Takes in `copy` when it is this very site, reached in another way.
    fn joins(&mut self, copy: &mut Self) -> bool {
        let is_same = self.place() == copy.place() && self.site == copy.site;
        if is_same {
            if !self.homes.ends_with(&copy.homes) {
                self.homes.append(&mut copy.homes);
            }
            for (part, other) in [(&mut self.tag, &mut copy.tag), (&mut self.digest, &mut copy.digest)] {
                if let (Some(part), Some(other)) = (part, other) {
                    part.reached_by.append(&mut other.reached_by);
                }
            }
        }
        is_same
    }

    /// The tag and the digest, those that are there.
    pub(super) fn parts(&self) -> impl Iterator<Item = &Part> {
        self.tag.iter().chain(&self.digest)
    }
}

/// Tells what a document is by its root.
fn document_kind(tree: &Tree<'_>, root: NodeId, named_kustomization: bool) -> DocumentKind {
    let mut kind = None;
    let mut has_api_version = false;
    if matches!(tree.node(root).kind, Kind::Mapping(_)) {
        for (key, value) in tree.entries(root) {
            match &*tree.node(key).value {
                "kind" => kind = Some(&*tree.node(value).value),
                "apiVersion" => has_api_version = true,
                _ => {}
            }
        }
    }
    match kind {
        Some("Kustomization") => DocumentKind::Kustomization,
        // kustomize fills in both when they are missing.
        Some("Component") | None if named_kustomization => DocumentKind::Kustomization,
        Some(_) if has_api_version => DocumentKind::Kubernetes,
        _ => DocumentKind::Other,
    }
}

struct Finder<'tree, 'text> {
    tree: &'tree Tree<'text>,
    document: DocumentKind,
    sites: Sites,
    /// How many nodes were met through aliases.
    revisited: usize,
}

impl<'tree> Finder<'tree, '_> {
    /// Visits every mapping below `root`, except inside mappings and sequences that are themselves keys: what
    /// looks like one there is a template, `{{ … }}`.
    fn walk(&mut self, root: NodeId) -> Result<(), Unreadable> {
        let tree = self.tree;
        let mut pending = vec![root];
        while let Some(id) = pending.pop() {
            match tree.node(id).kind {
                Kind::Mapping(_) => {
                    self.visit(id)?;
                    pending.extend(tree.entries(id).map(|(_, value)| value).filter(|value| self.is_collection(*value)));
                }
                Kind::Sequence(_) => pending.extend(tree.children(id).filter(|item| self.is_collection(*item))),
                Kind::Scalar(_) | Kind::Alias(_) => {}
            }
        }
        Ok(())
    }

    fn is_collection(&self, id: NodeId) -> bool {
        matches!(self.tree.node(id).kind, Kind::Mapping(_) | Kind::Sequence(_))
    }

    /// Adds the sites that a mapping makes.
    fn visit(&mut self, mapping: NodeId) -> Result<(), Unreadable> {
        let slots = self.slots(mapping)?;
        if slots.image.is_none() && slots.images.is_none() && slots.repository.is_none() {
            return Ok(());
        }
        self.refuse_duplicate(&slots)?;
        if let Slot::Text(at, node, text) = self.slot(slots.image) {
            self.take_reference(mapping, at, node, text);
        }
        if slots.repository.is_some() {
            self.take_values(mapping, &slots);
        }
        if let (DocumentKind::Kustomization, Some(images)) = (self.document, slots.images) {
            let tree = self.tree;
            let images = tree.resolve(images);
            if matches!(tree.node(images).kind, Kind::Sequence(_)) {
                self.revisit(images)?;
                for entry in tree.children(images) {
                    self.take_entry(tree.resolve(entry))?;
                }
            }
        }
        Ok(())
    }

    /// `image: repository:tag@digest`.
    fn take_reference(&mut self, home: NodeId, at: NodeId, node: NodeId, text: &str) {
        let (name, tag, digest) = ImageReference::split(text);
        let format = match self.document {
            DocumentKind::Kubernetes => Format::Kubernetes,
            DocumentKind::Kustomization | DocumentKind::Other => Format::HelmValues,
        };
        let tag = tag.map(|tag| (tag, Part::inside(at, node, name.len() + 1..name.len() + 1 + tag.len())));
        let digest = digest.map(|digest| (digest, Part::inside(at, node, text.len() - digest.len()..text.len())));
        self.add(home, format, tag, digest, || name.parse().ok());
    }

    /// `repository`, `tag` and `digest` beside each other.
    fn take_values(&mut self, home: NodeId, slots: &Slots) {
        let Slot::Text(_, _, name) = self.slot(slots.repository) else { return };
        let registry = match self.slot(slots.registry) {
            Slot::Absent => None,
            Slot::Text(_, _, registry) => Some(registry),
            Slot::Other => return,
        };
        let (tag, inner_digest) = match self.slot(slots.tag) {
            Slot::Absent => (None, None),
            // Some charts have no key for the digest; people write `tag: 1.27@sha256:…` there.
            Slot::Text(at, node, text) => match text.split_once('@') {
                Some((tag, digest)) => (
                    Some((tag, Part::inside(at, node, 0..tag.len()))),
                    Some((digest, Part::inside(at, node, tag.len() + 1..text.len()))),
                ),
                None => (Some((text, Part::whole(at, node, text))), None),
            },
            Slot::Other => return,
        };
        let mut digests = inner_digest.into_iter().collect::<Vec<_>>();
        for (slot, may_be_bare) in [(slots.digest, false), (slots.sha, true)] {
            match self.slot(slot) {
                Slot::Absent => {}
                Slot::Text(at, node, text) => {
                    let is_bare = may_be_bare && !text.contains(':');
                    digests.push((text, Part { is_bare, ..Part::whole(at, node, text) }));
                }
                Slot::Other => return,
            }
        }
        // With two digests nobody can say which one counts.
        if digests.len() < 2 {
            self.add(home, Format::HelmValues, tag, digests.pop(), || match registry {
                Some(registry) => Repository::new(registry, name).ok(),
                None => name.parse().ok(),
            });
        }
    }

    /// An entry of a kustomization's `images`.
    fn take_entry(&mut self, entry: NodeId) -> Result<(), Unreadable> {
        if !matches!(self.tree.node(entry).kind, Kind::Mapping(_)) {
            return Ok(());
        }
        let slots = self.slots(entry)?;
        self.refuse_duplicate(&slots)?;
        let name = match (self.slot(slots.new_name), self.slot(slots.name)) {
            (Slot::Text(_, _, name), _) | (Slot::Absent, Slot::Text(_, _, name)) => name,
            _ => return Ok(()),
        };
        let (tag, digest) = match (self.slot(slots.new_tag), self.slot(slots.digest)) {
            (Slot::Other, _) | (_, Slot::Other) => return Ok(()),
            (tag, digest) => (tag.whole(), digest.whole()),
        };
        self.add(entry, Format::Kustomization, tag, digest, || name.parse().ok());
        Ok(())
    }

    /// Adds a site when all its parts are what they should be.
    fn add(
        &mut self,
        home: NodeId,
        format: Format,
        tag: Option<(&str, Part)>,
        digest: Option<(&str, Part)>,
        repository: impl FnOnce() -> Option<Repository>,
    ) {
        let parse_tag = |tag: &Option<(&str, Part)>| match tag {
            Some((text, _)) => text.parse::<Tag>().ok().map(Some),
            None => Some(None),
        };
        let parse_digest = |digest: &Option<(&str, Part)>| match digest {
            Some((text, part)) if part.is_bare => format!("sha256:{text}").parse::<Digest>().ok().map(Some),
            Some((text, _)) => text.parse::<Digest>().ok().map(Some),
            None => Some(None),
        };
        let (Some(tag_value), Some(digest_value)) = (parse_tag(&tag), parse_digest(&digest)) else { return };
        let Some(version) = Version::from_parts(tag_value, digest_value) else { return };
        let Some(repository) = repository() else { return };
        let (tag, digest) = (tag.map(|(_, part)| part), digest.map(|(_, part)| part));
        let line = tag.as_ref().or(digest.as_ref()).map_or(1, |part| self.tree.node(part.node).line);
        let site = Site { repository, version, format, line };
        self.sites.found.push(Found { site, homes: vec![home], tag, digest });
    }

    /// Reads the keys of a mapping, then those that merge keys bring.
    fn slots(&mut self, mapping: NodeId) -> Result<Slots, Unreadable> {
        let mut merged = Vec::new();
        let mut slots = self.own_slots(mapping, &mut merged);
        if merged.is_empty() {
            return Ok(slots);
        }
        let mut seen = vec![mapping];
        while let Some(source) = merged.pop() {
            // What was seen has nothing to add, and merges may well go round in circles.
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

    /// Reads the keys that stand in a mapping itself, and puts what it merges onto `merged`, the first last.
    fn own_slots(&mut self, mapping: NodeId, merged: &mut Vec<NodeId>) -> Slots {
        let tree = self.tree;
        let mut slots = Slots::default();
        let merged_before = merged.len();
        for (key, value) in tree.entries(mapping) {
            let text = &*tree.node(key).value;
            if text == "<<" {
                self.sources(value, merged);
            } else if let Some(slot) = slots.of_key(text) {
                let is_duplicate = slot.is_some();
                *slot = Some(value);
                if is_duplicate {
                    slots.duplicate = slots.duplicate.or(Some(key));
                }
            }
        }
        merged[merged_before..].reverse();
        slots
    }

    /// Puts the mappings that a merge key names onto `merged`, and notes its aliases as merges.
    fn sources(&mut self, value: NodeId, merged: &mut Vec<NodeId>) {
        let tree = self.tree;
        let mut take = |id: NodeId| {
            if matches!(tree.node(id).kind, Kind::Alias(_)) {
                self.sites.merges.push(id);
            }
            merged.push(tree.resolve(id));
        };
        if matches!(tree.node(value).kind, Kind::Sequence(_)) {
            tree.children(value).for_each(take)
        } else {
            take(value)
        }
    }

    /// Counts the nodes of a collection that is walked for more than its own sake.
    fn revisit(&mut self, id: NodeId) -> Result<(), Unreadable> {
        let node = self.tree.node(id);
        self.revisited += (node.subtree_end - id) as usize;
        if self.revisited > MAX_REVISITED {
            let reason = "uses its aliases so often that following them would take too long".to_owned();
            return Err(Unreadable { line: Some(node.line), reason });
        }
        Ok(())
    }

    fn refuse_duplicate(&self, slots: &Slots) -> Result<(), Unreadable> {
        let Some(duplicate) = slots.duplicate else { return Ok(()) };
        let key = self.tree.node(duplicate);
        let reason = format!(
            "has the key `{}` twice in one mapping, and readers differ on which one counts: remove one",
            key.value
        );
        Err(Unreadable { line: Some(key.line), reason })
    }

    fn slot(&self, at: Option<NodeId>) -> Slot<'tree> {
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

impl<'tree> Slot<'tree> {
    /// Returns the text with the whole scalar as its place.
    fn whole(self) -> Option<(&'tree str, Part)> {
        match self {
            Self::Text(at, node, text) => Some((text, Part::whole(at, node, text))),
            Self::Absent | Self::Other => None,
        }
    }
}

impl Part {
    /// The part that is all of the scalar.
    fn whole(at: NodeId, node: NodeId, text: &str) -> Self {
        Self::inside(at, node, 0..text.len())
    }

    /// The part that is these bytes of the scalar's value.
    fn inside(at: NodeId, node: NodeId, range: Range<usize>) -> Self {
        Self { node, reached_by: vec![at], range, is_bare: false }
    }
}
