//! Finds the sites in the nodes of a file.

use super::ambiguous::{refuse_duplicates_above, refuse_stray_marks, refuse_template};
use super::document::{DocumentKind, objects};
use super::embedded::Embedded;
use super::finder::Finder;
use super::found::{Found, Part};
use super::prefilter::may_hold_sites;
use super::protected::Protections;
use super::registries::GlobalRegistry;
use super::site::{Format, Note, Unreadable};
use super::slots::{Key, Slot, Slots};
use super::task::{Role, Task};
use super::tree::{Kind, NodeId, Tree};

/// The sites of a text.
pub(crate) struct Sites<'task> {
    /// The sites in the order of the text.
    ///
    /// A site that an alias or merge key repeats is listed once. [`Found::homes`] has all its maps.
    pub(crate) found: Vec<Found>,
    /// Scalars whose texts have sites, in the order of the text. Each scalar is listed once.
    pub(crate) embedded: Vec<Embedded<'task>>,
    /// Aliases under a merge key, ascending.
    pub(crate) merges: Vec<NodeId>,
    /// Aliases excluded by `# tagrelay: ignore`, ascending.
    pub(crate) ignored_aliases: Vec<NodeId>,
    /// Positions that are left alone although a version may be expected there.
    pub(crate) notes: Vec<Note>,
    /// The parts of the text that must not be edited.
    pub(crate) protections: Protections,
}

impl<'task> Sites<'task> {
    /// Finds every site of a text.
    ///
    /// # Errors
    ///
    /// If a key of a site occurs twice, or merge keys are nested too deeply.
    pub(crate) fn find(tree: &Tree<'_>, task: &Task<'task>) -> Result<Self, Unreadable> {
        let mut finder = Finder::new(tree);
        if matches!(task.role, Role::File(_)) {
            refuse_template(tree)?;
        }
        refuse_stray_marks(tree)?;
        for document in &tree.documents {
            for (root, kind) in objects(tree, document.root, task.role) {
                finder.document = kind;
                if kind != DocumentKind::Foreign {
                    finder.walk(root)?;
                }
                match kind {
                    DocumentKind::Kustomization => finder.find_patches(root)?,
                    DocumentKind::Patch => finder.find_operations(root)?,
                    _ => {}
                }
            }
        }
        finder.in_order();
        refuse_duplicates_above(tree, &finder.found)?;
        finder.apply_claims(task);
        if !matches!(task.role, Role::File(_)) {
            finder.skip_nested_texts();
        }
        let Finder { found, embedded, ignored_aliases, mut notes, mut unclear, reader, .. } = finder;
        // A part of a site is no longer unclear, because a marker or rule names it.
        found.iter().flat_map(Found::parts).for_each(|part| unclear.remove(part.node));
        notes.extend(unclear.into_notes());
        let protections = match (found.as_slice(), embedded.is_empty()) {
            ([], true) => Protections::default(),
            _ => Protections::of(tree, task.role),
        };
        notes.extend(protections.notes(found.iter()));
        notes.sort_by_key(|note| note.line);
        let (embedded, merges) = (embedded.into_values().collect(), reader.into_merges());
        Ok(Self { found, embedded, merges, ignored_aliases, notes, protections })
    }
}

impl<'tree, 'task> Finder<'tree, '_, 'task> {
    /// Visits every map below `root`, except inside keys: a map or list as a key is a template, `{{ … }}`.
    fn walk(&mut self, root: NodeId) -> Result<(), Unreadable> {
        let tree = self.tree;
        let mut pending = vec![(root, None)];
        while let Some((id, global)) = pending.pop() {
            match tree.node(id).kind {
                Kind::Mapping(_) if self.document.has_operations() && self.is_idle_operation(id) => {}
                Kind::Mapping(_) => {
                    let global = self.visit(id, global)?;
                    let below = tree.entries(id).map(|(_, value)| value).filter(|value| self.is_collection(*value));
                    pending.extend(below.map(|value| (value, global)));
                }
                Kind::Sequence(_) => {
                    let below = tree.children(id).filter(|item| self.is_collection(*item));
                    pending.extend(below.map(|item| (item, global)));
                }
                Kind::Scalar(_) | Kind::Alias(_) => {}
            }
        }
        Ok(())
    }

    /// Records texts inside a text of the file, which are not searched.
    fn skip_nested_texts(&mut self) {
        for node in std::mem::take(&mut self.embedded).into_keys() {
            if may_hold_sites(self.tree.node(node).value.as_bytes()) {
                self.unclear.note(node, "this text is inside another text and is not searched".to_owned());
            }
        }
    }

    fn is_collection(&self, id: NodeId) -> bool {
        matches!(self.tree.node(id).kind, Kind::Mapping(_) | Kind::Sequence(_))
    }

    /// Sorts the sites, and merges sites with the same bytes.
    fn in_order(&mut self) {
        if self.found.len() > 1 {
            self.found.sort_by(|one, other| {
                let repositories = || one.site.repository.cmp(&other.site.repository);
                one.place().cmp(&other.place()).then_with(repositories)
            });
            self.found.dedup_by(|copy, first| first.joins(copy));
        }
    }

    /// Adds the sites of a map. Returns the registry that applies to the nodes below the map.
    fn visit(
        &mut self,
        mapping: NodeId,
        global: Option<GlobalRegistry<'tree>>,
    ) -> Result<Option<GlobalRegistry<'tree>>, Unreadable> {
        let slots = self.reader.read(mapping)?;
        let global = match slots[Key::Global] {
            Some(below) if self.document.holds_values() => self.global_registry(below)?.or(global),
            _ => global,
        };
        self.visit_special(&slots)?;
        if slots[Key::Image].is_none() && slots[Key::Images].is_none() && slots[Key::Repository].is_none() {
            return Ok(global);
        }
        self.reader.refuse_duplicate(&slots)?;
        let image = self.reader.slot(slots[Key::Image]);
        if let Slot::Text(at, node, text) = image {
            self.find_reference_beside(mapping, at, node, text, &slots);
        } else if let (Some(image), Format::Kubernetes) = (slots[Key::Image], self.document.format()) {
            self.find_volume(image)?;
        }
        match (self.reader.slot(slots[Key::Repository]), image) {
            (Slot::Text(_, _, name), _) => self.find_values(mapping, name, &slots, global),
            // Some charts use `image` for the repository: <https://github.com/kubernetes/ingress-nginx>.
            (Slot::Absent, Slot::Text(_, _, name)) => self.find_values(mapping, name, &slots, global),
            _ => {}
        }
        if let (true, Some(images)) = (self.document.has_image_entries(), slots[Key::Images]) {
            let tree = self.tree;
            let images = tree.resolve(images);
            if matches!(tree.node(images).kind, Kind::Sequence(_)) {
                self.reader.revisit(images)?;
                for entry in tree.children(images) {
                    let entry = self.reader.follow(entry)?;
                    self.find_entry(entry)?;
                }
            }
        }
        Ok(global)
    }

    /// Reads keys that have a meaning in only one kind of document.
    fn visit_special(&mut self, slots: &Slots) -> Result<(), Unreadable> {
        match self.document {
            DocumentKind::Argocd => {
                if let Some(kustomize) = slots[Key::Kustomize] {
                    let kustomize = self.reader.follow(kustomize)?;
                    self.find_kustomize_images(kustomize)?;
                    self.find_patches_of(kustomize)?;
                }
                if let Some(helm) = slots[Key::Helm] {
                    self.find_helm(helm)?;
                }
                for key in [Key::ElementsYaml, Key::TemplatePatch] {
                    self.find_part_of_set(slots[key]);
                }
            }
            // A post-renderer, which has the form of a kustomization.
            DocumentKind::HelmRelease => {
                if let Some(kustomize) = slots[Key::Kustomize] {
                    let kustomize = self.reader.follow(kustomize)?;
                    self.find_patches_of(kustomize)?;
                }
            }
            DocumentKind::HelmChart => {
                if let Some(values) = slots[Key::ValuesContent] {
                    self.find_values_text(values);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Adds the image of a volume: `image: {reference: repository:tag}`.
    ///
    /// Source: <https://kubernetes.io/docs/concepts/storage/volumes/#image>.
    fn find_volume(&mut self, image: NodeId) -> Result<(), Unreadable> {
        let image = self.reader.follow(image)?;
        if let Slot::Text(at, node, text) = self.reader.slot(self.tree.value_of(image, "reference")) {
            self.find_reference(image, at, node, text, 0, None);
        }
        Ok(())
    }

    /// Adds the site of an entry in a kustomization's `images`.
    fn find_entry(&mut self, entry: NodeId) -> Result<(), Unreadable> {
        if !matches!(self.tree.node(entry).kind, Kind::Mapping(_)) {
            return Ok(());
        }
        let slots = self.reader.read(entry)?;
        self.reader.refuse_duplicate(&slots)?;
        let name = match (self.reader.slot(slots[Key::NewName]), self.reader.slot(slots[Key::Name])) {
            (Slot::Text(_, _, name), _) | (Slot::Absent, Slot::Text(_, _, name)) => name,
            _ => return Ok(()),
        };
        let (tag, digest) = match (self.reader.slot(slots[Key::NewTag]), self.reader.slot(slots[Key::Digest])) {
            (Slot::Other, version) | (version, Slot::Other) => {
                let has_version = matches!(version, Slot::Text(..));
                self.unclear.report_no_text(&self.reader, name, &slots, &[Key::NewTag, Key::Digest], has_version);
                return Ok(());
            }
            (Slot::Text(at, node, text), digest) => {
                let (tag, inner) = Part::tag_and_digest(at, node, text);
                match (inner, digest.whole()) {
                    (Some(_), Some((_, second))) => {
                        self.unclear.report_two_digests(name, second.node);
                        return Ok(());
                    }
                    (inner, whole) => (Some(tag), inner.or(whole)),
                }
            }
            (Slot::Absent, digest) => (None, digest.whole()),
        };
        self.add(entry, Format::Kustomization, tag, digest, name);
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::{Site, Unreadable, scan};

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    /// Returns the sites of a file as `line format repository version`, with `D` for the digest.
    fn sites_in(path: &str, text: &str) -> Vec<String> {
        let text = text.replace('$', DIGEST);
        let sites = scan(path, text.as_bytes()).unwrap_or_else(|error| panic!("{error}\n{text}"));
        let describe = |site: &Site| {
            let repository = site.repository.as_str().replace("docker.io/library/", "");
            format!("{} {} {repository} {}", site.line, site.format, site.version).replace(DIGEST, "D")
        };
        sites.iter().map(describe).collect()
    }

    pub(in super::super) fn sites(text: &str) -> Vec<String> {
        sites_in("a.yaml", text)
    }

    #[test]
    fn format_depends_on_the_document() {
        let text = "apiVersion: v1\nkind: Pod\nimage: a:1\n---\nimage: b:1\n---\nkind: Pod\nimage: c:1\n";
        assert_eq!(sites(text), ["3 kubernetes a 1", "5 helm-values b 1", "8 helm-values c 1"]);
        let text = "image: a:1\nimages: [{name: b, newTag: v1}]\n";
        assert_eq!(sites(text), ["1 helm-values a 1"]);
        assert_eq!(sites_in("x/kustomization.yml", text), ["1 helm-values a 1", "2 kustomization b v1"]);
        assert_eq!(sites(&format!("{text}kind: Kustomization")).len(), 2);
        // The content overrides the file's name.
        let typed = format!("{text}apiVersion: v1\nkind: ConfigMap");
        assert_eq!(sites_in("kustomization.yaml", &typed), ["1 kubernetes a 1"]);
    }

    #[test]
    fn lists_of_objects_are_searched() {
        let application =
            "{apiVersion: argoproj.io/v1alpha1, kind: Application, spec: {source: {kustomize: {images: ['a:1']}}}}";
        let release = "{apiVersion: helm.toolkit.fluxcd.io/v2, kind: HelmRelease, spec: {values: {image: {repository: b, tag: v1}}}}";
        let text =
            format!("apiVersion: v1\nkind: List\nitems:\n- {application}\n- {release}\n- {{kind: Pod, image: c:1}}\n");
        assert_eq!(sites(&text), ["4 argocd a 1", "5 helm-values b v1", "6 kubernetes c 1"]);
        let flux = "{apiVersion: kustomize.toolkit.fluxcd.io/v1, kind: Kustomization, spec: {images: [{name: d, newTag: v1}]}}";
        assert_eq!(sites(&format!("apiVersion: v1\nkind: List\nitems: [{flux}]\n")), ["3 kustomization d v1"]);
        // Nested lists of any depth.
        let applications =
            format!("{{apiVersion: argoproj.io/v1alpha1, kind: ApplicationList, items: [{application}]}}");
        let list = format!("{{apiVersion: v1, kind: List, items: [{applications}, {{kind: Pod, image: c:1}}]}}");
        let nested = format!("apiVersion: v1\nkind: List\nitems:\n- {list}\n- {release}\n");
        assert_eq!(sites(&nested), ["4 argocd a 1", "4 kubernetes c 1", "5 helm-values b v1"]);
        let deep = format!("{}{application}{}", "{apiVersion: v1, kind: List, items: [".repeat(100), "]}".repeat(100));
        assert_eq!(sites(&deep), ["1 argocd a 1"]);
        // A file named like a kustomization need not be one.
        assert_eq!(sites_in("kustomization.yaml", &text).len(), 3);
    }

    #[test]
    fn repeated_site_is_found_once() {
        let text = "a: &a {repository: a, tag: &t v1}\nb: *a\nc: {<<: *a, x: y}\nd: {repository: b, tag: *t}\n\
                    e: {<<: *a, repository: c}\nf: [*t, *a]\n";
        assert_eq!(sites(text), ["1 helm-values a v1", "1 helm-values b v1", "1 helm-values c v1"]);
        assert_eq!(sites("x: &x a:1\ny: {image: *x}\nz: {image: *x}\n"), ["1 helm-values a 1"]);
        let text = "kind: Kustomization\nx: &x\n  {name: a, newTag: v1}\nimages: [*x, {<<: *x, name: b}]\n";
        assert_eq!(sites(text), ["3 kustomization a v1", "3 kustomization b v1"]);
    }

    #[test]
    fn templates_are_left_alone() {
        assert_eq!(sites("? {image: a:1}\n: {image: b:1}\n"), ["2 helm-values b 1"]);
        for text in ["image: a:1\n{{- if .x }}\nb: c\n{{- end }}\n", "image: a:1\na: {{ image: a:1 }}\n"] {
            let unreadable = scan("a.yaml", text.as_bytes()).unwrap_err();
            assert!(unreadable.line == Some(2) && unreadable.reason.contains("template"), "{unreadable}");
        }
        let inside = "apiVersion: argoproj.io/v1alpha1\nkind: ApplicationSet\nspec: {template: {spec: {source:\n  \
                      {helm: {values: \"a: {{ .x }}\\nimage: a:1\"}}}}}\n";
        assert_eq!(sites(inside).len(), 1, "Argo CD renders it");
    }

    #[test]
    fn duplicate_keys_are_refused() {
        for text in ["image: a:1\nimage: b:1", "image: a:1\nimage: []", "repository: a\ntag: 1\n'tag': 2"] {
            let Err(Unreadable { line: Some(line), reason }) = scan("a.yaml", text.as_bytes()) else {
                panic!("{text}")
            };
            assert_eq!(line as usize, text.lines().count());
            assert!(reason.contains("twice"), "{reason}");
        }
        // Without a site, duplicate keys do not matter.
        assert_eq!(sites("image: a:1\nlabels: {tag: 1, tag: 2}\nx: 1\nx: 2").len(), 1);
    }
}
