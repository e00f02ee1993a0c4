//! Finds the sites in the nodes of a file.

use std::borrow::Cow;
use std::ops::Range;

use crate::image::{Digest, ImageReference, Tag, Version};

use super::site::{Format, Site, Unreadable};
use super::slots::{Reader, Slot, Slots};
use super::tree::{Kind, NodeId, Tree};

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

impl Sites {
    /// Finds every site of a file of the name `path`.
    ///
    /// # Errors
    ///
    /// When a key that makes a site is there twice, or when merge keys go too far.
    pub(super) fn find(path: &str, tree: &Tree<'_>) -> Result<Self, Unreadable> {
        let name = path.rsplit('/').next().unwrap_or(path);
        let named_kustomization = matches!(name, "kustomization.yaml" | "kustomization.yml" | "Kustomization");
        let mut finder = Finder { tree, document: DocumentKind::Other, reader: Reader::new(tree), found: Vec::new() };
        for document in &tree.documents {
            finder.document = document_kind(tree, document.root, named_kustomization);
            finder.walk(document.root)?;
        }
        Ok(Self { found: finder.found, merges: finder.reader.into_merges() }.in_order())
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
    reader: Reader<'tree, 'text>,
    found: Vec<Found>,
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
        let slots = self.reader.read(mapping)?;
        if slots.image.is_none() && slots.images.is_none() && slots.repository.is_none() {
            return Ok(());
        }
        self.reader.refuse_duplicate(&slots)?;
        let image = self.reader.slot(slots.image);
        if let Slot::Text(at, node, text) = image {
            self.take_reference(mapping, at, node, text);
        }
        match (self.reader.slot(slots.repository), image) {
            (Slot::Text(_, _, name), _) => self.take_values(mapping, name, &slots),
            // Some charts say `image` for the repository: <https://github.com/kubernetes/ingress-nginx>.
            (Slot::Absent, Slot::Text(_, _, name)) => self.take_values(mapping, name, &slots),
            _ => {}
        }
        if let (DocumentKind::Kustomization, Some(images)) = (self.document, slots.images) {
            let tree = self.tree;
            let images = tree.resolve(images);
            if matches!(tree.node(images).kind, Kind::Sequence(_)) {
                self.reader.revisit(images)?;
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
        self.add(home, format, tag, digest, name);
    }

    /// `repository`, `tag` and `digest` beside each other.
    fn take_values(&mut self, home: NodeId, name: &str, slots: &Slots) {
        let repository = match self.reader.slot(slots.registry) {
            Slot::Absent => Cow::Borrowed(name),
            // As the charts join them, so a path behind the host is fine.
            Slot::Text(_, _, registry) => Cow::Owned(format!("{registry}/{name}")),
            Slot::Other => return,
        };
        let (tag, inner_digest) = match self.reader.slot(slots.tag) {
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
            match self.reader.slot(slot) {
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
            self.add(home, Format::HelmValues, tag, digests.pop(), &repository);
        }
    }

    /// An entry of a kustomization's `images`.
    fn take_entry(&mut self, entry: NodeId) -> Result<(), Unreadable> {
        if !matches!(self.tree.node(entry).kind, Kind::Mapping(_)) {
            return Ok(());
        }
        let slots = self.reader.read(entry)?;
        self.reader.refuse_duplicate(&slots)?;
        let name = match (self.reader.slot(slots.new_name), self.reader.slot(slots.name)) {
            (Slot::Text(_, _, name), _) | (Slot::Absent, Slot::Text(_, _, name)) => name,
            _ => return Ok(()),
        };
        let (tag, digest) = match (self.reader.slot(slots.new_tag), self.reader.slot(slots.digest)) {
            (Slot::Other, _) | (_, Slot::Other) => return Ok(()),
            (tag, digest) => (tag.whole(), digest.whole()),
        };
        self.add(entry, Format::Kustomization, tag, digest, name);
        Ok(())
    }

    /// Adds a site when all its parts are what they should be.
    fn add(
        &mut self,
        home: NodeId,
        format: Format,
        tag: Option<(&str, Part)>,
        digest: Option<(&str, Part)>,
        repository: &str,
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
        let Ok(repository) = repository.parse() else { return };
        let (tag, digest) = (tag.map(|(_, part)| part), digest.map(|(_, part)| part));
        let line = tag.as_ref().or(digest.as_ref()).map_or(1, |part| self.tree.node(part.node).line);
        let site = Site { repository, version, format, line };
        self.found.push(Found { site, homes: vec![home], tag, digest });
    }
}

impl Part {
    /// The part that is all of the scalar.
    pub(super) fn whole(at: NodeId, node: NodeId, text: &str) -> Self {
        Self::inside(at, node, 0..text.len())
    }

    /// The part that is these bytes of the scalar's value.
    fn inside(at: NodeId, node: NodeId, range: Range<usize>) -> Self {
        Self { node, reached_by: vec![at], range, is_bare: false }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Unreadable, scan};

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    /// Returns the sites of a file as `line format repository version`, with `D` for the digest.
    fn sites_in(path: &str, text: &str) -> Vec<String> {
        let text = text.replace('$', DIGEST);
        let sites = scan(path, text.as_bytes()).unwrap_or_else(|error| panic!("{error}\n{text}"));
        let describe = |site: &super::Site| {
            let repository = site.repository.as_str().replace("docker.io/library/", "");
            format!("{} {} {repository} {}", site.line, site.format, site.version).replace(DIGEST, "D")
        };
        sites.iter().map(describe).collect()
    }

    fn sites(text: &str) -> Vec<String> {
        sites_in("a.yaml", text)
    }

    #[test]
    fn tells_the_format_by_the_document() {
        let text = "apiVersion: v1\nkind: Pod\nimage: a:1\n---\nimage: b:1\n---\nkind: Pod\nimage: c:1\n";
        assert_eq!(sites(text), ["3 kubernetes a 1", "5 helm-values b 1", "8 helm-values c 1"]);
        let text = "image: a:1\nimages: [{name: b, newTag: v1}]\n";
        assert_eq!(sites(text), ["1 helm-values a 1"]);
        assert_eq!(sites_in("x/kustomization.yml", text), ["1 helm-values a 1", "2 kustomization b v1"]);
        assert_eq!(sites(&format!("{text}kind: Kustomization")).len(), 2);
        // Named so, but something else by its own words.
        let typed = format!("{text}apiVersion: v1\nkind: ConfigMap");
        assert_eq!(sites_in("kustomization.yaml", &typed), ["1 kubernetes a 1"]);
    }

    #[test]
    fn reads_versions_as_they_are_written() {
        assert_eq!(sites("{repository: a, tag: 1_000}"), ["1 helm-values a 1_000"]);
        assert_eq!(sites("{repository: a, tag: 0x1F}"), ["1 helm-values a 0x1F"]);
        assert_eq!(sites("repository: a\n\ntag: 1.20 # c\n"), ["3 helm-values a 1.20"]);
        assert_eq!(sites("{repository: a, tag: yes, digest: $}"), ["1 helm-values a yes@D"]);
        assert_eq!(sites("{repository: a, tag: , digest: $}"), ["1 helm-values a @D"]);
        assert_eq!(sites("{repository: a, tag: 1@$}"), ["1 helm-values a 1@D"]);
        assert_eq!(sites("{repository: a, sha: $}"), ["1 helm-values a @D"]);
        for nothing in ["null", "~", "", "''", "\"\"", "!!int 1", "!x v1", "[v1]", "{a: b}", "'{{ x }}'", "a b", "1@x"]
        {
            assert_eq!(sites(&format!("{{repository: a, tag: {nothing}}}")), [""; 0], "{nothing}");
        }
        // What is not understood is not half edited.
        for half in ["tag: '{{ x }}', digest: $", "tag: v1, digest: x", "tag: v1@$, digest: $", "tag: v1, digest: [$]"]
        {
            assert_eq!(sites(&format!("{{repository: a, {half}}}")), [""; 0], "{half}");
        }
    }

    #[test]
    fn joins_registry_and_repository_as_charts_do() {
        for (text, expected) in [
            ("registry: ghcr.io, repository: x/a", "ghcr.io/x/a"),
            ("registry: ghcr.io/x, repository: a", "ghcr.io/x/a"),
            ("registry: docker.io, repository: a", "a"),
            ("registry: '', repository: ghcr.io/a", "ghcr.io/a"),
            ("registry: 'localhost:5000', repository: a", "localhost:5000/a"),
            ("registry: registry.k8s.io, image: ingress-nginx/controller", "registry.k8s.io/ingress-nginx/controller"),
        ] {
            assert_eq!(sites(&format!("{{{text}, tag: v1}}")), [format!("1 helm-values {expected} v1")]);
        }
        for text in ["registry: [a], repository: a", "registry: '{{ x }}', repository: a", "repository: [a]", "tag: v2"]
        {
            assert!(scan("a.yaml", format!("{{{text}, tag: v1}}").as_bytes()).unwrap_or_default().is_empty(), "{text}");
        }
    }

    #[test]
    fn finds_a_site_once_however_often_it_is_repeated() {
        let text = "a: &a {repository: a, tag: &t v1}\nb: *a\nc: {<<: *a, x: y}\nd: {repository: b, tag: *t}\n\
                    e: {<<: *a, repository: c}\nf: [*t, *a]\n";
        assert_eq!(sites(text), ["1 helm-values a v1", "1 helm-values b v1", "1 helm-values c v1"]);
        assert_eq!(sites("x: &x a:1\ny: {image: *x}\nz: {image: *x}\n"), ["1 helm-values a 1"]);
        let text = "kind: Kustomization\nx: &x\n  {name: a, newTag: v1}\nimages: [*x, {<<: *x, name: b}]\n";
        assert_eq!(sites(text), ["3 kustomization a v1", "3 kustomization b v1"]);
    }

    #[test]
    fn leaves_templates_alone() {
        assert_eq!(
            sites("image: {{ .image }}\na: {{ image: a:1 }}\n? {image: a:1}\n: {image: b:1}\n"),
            ["4 helm-values b 1"]
        );
        let unreadable = scan("a.yaml", b"image: a:1\n{{- if .x }}\nb: c\n{{- end }}\n").unwrap_err();
        assert!(unreadable.line == Some(2) && unreadable.reason.contains("template"), "{unreadable}");
    }

    #[test]
    fn reports_keys_that_are_there_twice() {
        for text in ["image: a:1\nimage: b:1", "image: a:1\nimage: []", "repository: a\ntag: 1\n'tag': 2"] {
            let Err(Unreadable { line: Some(line), reason }) = scan("a.yaml", text.as_bytes()) else {
                panic!("{text}")
            };
            assert_eq!(line as usize, text.lines().count());
            assert!(reason.contains("twice"), "{reason}");
        }
        // Where no site is concerned it is somebody else's business.
        assert_eq!(sites("image: a:1\nlabels: {tag: 1, tag: 2}\nx: 1\nx: 2").len(), 1);
    }
}
