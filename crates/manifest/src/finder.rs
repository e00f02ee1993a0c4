//! Collects the sites of a text.

use std::borrow::Cow;
use std::collections::BTreeMap;

use tagrelay_image::{Repository, Tag, Version};

use super::document::DocumentKind;
use super::embedded::{Content, Embedded};
use super::found::{Found, Part, Written};
use super::site::{Format, Note, Site};
use super::slots::Reader;
use super::tree::{NodeId, Tree};
use super::unclear::Unclear;

/// The sites found in a text so far. The module of each format adds the sites of that format.
pub(crate) struct Finder<'tree, 'text, 'task> {
    pub(crate) tree: &'tree Tree<'text>,
    pub(crate) document: DocumentKind,
    pub(crate) reader: Reader<'tree, 'text>,
    pub(crate) found: Vec<Found>,
    pub(crate) embedded: BTreeMap<NodeId, Embedded<'task>>,
    pub(crate) ignored_aliases: Vec<NodeId>,
    pub(crate) notes: Vec<Note>,
    pub(crate) unclear: Unclear<'tree, 'text>,
}

impl<'tree, 'text, 'task> Finder<'tree, 'text, 'task> {
    pub(crate) fn new(tree: &'tree Tree<'text>) -> Self {
        Self {
            tree,
            document: DocumentKind::Values,
            reader: Reader::new(tree),
            found: Vec::new(),
            embedded: BTreeMap::new(),
            ignored_aliases: Vec::new(),
            notes: Vec::new(),
            unclear: Unclear::new(tree),
        }
    }

    /// Returns the entry of a scalar whose text has sites, and adds it if it is missing.
    pub(crate) fn embedded_entry(&mut self, at: NodeId, node: NodeId) -> &mut Embedded<'task> {
        let new = || Embedded { node, reached_by: Vec::new(), content: Content::Unknown, rules: Vec::new() };
        let embedded = self.embedded.entry(node).or_insert_with(new);
        embedded.reached_by.push(at);
        embedded
    }

    /// Adds the site `repository:tag@digest` in the text from byte `start` on, below an optional registry.
    pub(crate) fn find_reference(
        &mut self,
        home: NodeId,
        at: NodeId,
        node: NodeId,
        text: &str,
        start: usize,
        registry: Option<&str>,
    ) {
        let (name, tag, digest) = Part::of_reference(at, node, text, start);
        self.add_below(home, self.document.format(), tag, digest, (registry, name));
    }

    /// Adds a site of the repository with this name below a registry.
    ///
    /// Reports the repository if it is invalid.
    pub(crate) fn add_below(
        &mut self,
        home: NodeId,
        format: Format,
        tag: Option<Written<'_>>,
        digest: Option<Written<'_>>,
        (registry, name): (Option<&str>, &str),
    ) {
        let repository = below(registry, name);
        match registry {
            Some(registry) if repository.parse::<Repository>().is_err() => {
                self.unclear.report_bad_registry(registry, name, tag.as_ref().or(digest.as_ref()));
            }
            _ => {
                self.add(home, format, tag, digest, &repository);
            }
        }
    }

    /// Adds a site if all its parts are valid. Returns whether the parts are valid.
    pub(crate) fn add(
        &mut self,
        home: NodeId,
        format: Format,
        tag: Option<Written<'_>>,
        digest: Option<Written<'_>>,
        repository: &str,
    ) -> bool {
        let parse_tag = |tag: &Option<Written<'_>>| match tag {
            Some((text, _)) => text.parse::<Tag>().ok().map(Some),
            None => Some(None),
        };
        let parse_digest = |digest: &Option<Written<'_>>| match digest {
            Some((text, part)) => part.digest_of(text).map(Some),
            None => Some(None),
        };
        let Ok(repository) = repository.parse() else { return false };
        let (Some(tag_value), Some(digest_value)) = (parse_tag(&tag), parse_digest(&digest)) else {
            self.unclear.report_bad_version(tag.as_ref(), digest.as_ref());
            return false;
        };
        let Some(version) = Version::from_parts(tag_value, digest_value) else { return false };
        let (tag, digest) = (tag.map(|(_, part)| part), digest.map(|(_, part)| part));
        let line = tag.as_ref().or(digest.as_ref()).map_or(1, |part| self.tree.node(part.node).line);
        let is_pinnable = tag.is_some() && digest.is_none();
        let site = Site { repository, version, format, line };
        self.found.push(Found { site, homes: vec![home], tag, digest, is_pinnable });
        true
    }
}

/// Returns the repository of a name below a registry, joined as in charts. The registry may contain a path.
fn below<'name>(registry: Option<&str>, name: &'name str) -> Cow<'name, str> {
    match registry {
        None => Cow::Borrowed(name),
        // Charts add no second slash.
        Some(registry) => Cow::Owned(format!("{}/{name}", registry.strip_suffix('/').unwrap_or(registry))),
    }
}
