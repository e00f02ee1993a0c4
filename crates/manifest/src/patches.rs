//! Patches of kustomize: a partial object, or operations of JSON Patch.
//!
//! Source: <https://kubectl.docs.kubernetes.io/references/kustomize/kustomization/patches/>. Patches are texts in a kustomization,
//! an Application of Argo CD or a post-renderer of Flux. JSON Patches may also be separate files.

use super::document::DocumentKind;
use super::embedded::Content;
use super::finder::Finder;
use super::json_patch::{OPERATIONS, is_pointer};
use super::site::Unreadable;
use super::slots::Slot;
use super::tree::{Kind, NodeId};
use super::unclear::shown;
use tagrelay_image::ImageReference;

impl Finder<'_, '_, '_> {
    /// Reads the patches of a kustomization. In Flux's objects, the patches are below `spec`.
    pub(crate) fn find_patches(&mut self, root: NodeId) -> Result<(), Unreadable> {
        self.find_patches_of(root)?;
        match self.tree.value_of(root, "spec") {
            Some(spec) => {
                let spec = self.reader.follow(spec)?;
                self.find_patches_of(spec)
            }
            None => Ok(()),
        }
    }

    /// Reads `patches`, `patchesJson6902` and `patchesStrategicMerge`.
    pub(crate) fn find_patches_of(&mut self, holder: NodeId) -> Result<(), Unreadable> {
        for key in ["patches", "patchesJson6902"] {
            for patch in self.items(holder, key)? {
                let patch = self.reader.follow(patch)?;
                self.find_patch(self.tree.value_of(patch, "patch"))?;
            }
        }
        for patch in self.items(holder, "patchesStrategicMerge")? {
            // A single line is the path of a file.
            if matches!(self.reader.slot(Some(patch)), Slot::Text(_, _, text) if text.contains('\n')) {
                self.find_patch(Some(patch))?;
            }
        }
        Ok(())
    }

    fn items(&mut self, holder: NodeId, key: &str) -> Result<Vec<NodeId>, Unreadable> {
        let Some(list) = self.tree.value_of(holder, key) else { return Ok(Vec::new()) };
        let list = self.reader.follow(list)?;
        let is_list = matches!(self.tree.node(list).kind, Kind::Sequence(_));
        Ok(if is_list { self.tree.children(list).collect() } else { Vec::new() })
    }

    /// Reads a patch: a text, or the operations themselves, as in Flux's first versions.
    fn find_patch(&mut self, at: Option<NodeId>) -> Result<(), Unreadable> {
        match (self.reader.slot(at), at) {
            (Slot::Text(at, node, _), _) => {
                self.embedded_entry(at, node).content = Content::Patch;
                Ok(())
            }
            (Slot::Other, Some(at)) => {
                let operations = self.reader.follow(at)?;
                let document = std::mem::replace(&mut self.document, DocumentKind::Patch);
                let taken = self.find_operations(operations);
                self.document = document;
                taken
            }
            _ => Ok(()),
        }
    }

    /// Reads the operations of a JSON Patch that set an `image`.
    pub(crate) fn find_operations(&mut self, root: NodeId) -> Result<(), Unreadable> {
        let tree = self.tree;
        if !matches!(tree.node(root).kind, Kind::Sequence(_)) {
            return Ok(());
        }
        for operation in tree.children(root) {
            let operation = self.reader.follow(operation)?;
            let path = self.reader.slot(tree.value_of(operation, "path"));
            let value = self.reader.slot(tree.value_of(operation, "value"));
            if let (true, Slot::Text(_, _, path), Slot::Text(at, node, text)) = (self.sets(operation), path, value) {
                if path.ends_with("/image") || path.ends_with("/image/reference") {
                    self.find_reference(operation, at, node, text, 0, None);
                } else {
                    self.report_half_image(path, node, text);
                }
            }
        }
        Ok(())
    }

    /// Returns whether an operation sets its value. `test` only compares; `remove`, `copy` and `move` ignore the value.
    fn sets(&self, operation: NodeId) -> bool {
        matches!(self.reader.slot(self.tree.value_of(operation, "op")), Slot::Text(_, _, "add" | "replace"))
    }

    /// Returns whether a map is an operation that sets no value, so that its value has no sites.
    pub(crate) fn is_idle_operation(&self, mapping: NodeId) -> bool {
        let text = |key| self.reader.slot(self.tree.value_of(mapping, key));
        let is_operation = matches!(text("op"), Slot::Text(_, _, op) if OPERATIONS.contains(&op));
        is_operation && matches!(text("path"), Slot::Text(_, _, path) if is_pointer(path)) && !self.sets(mapping)
    }

    /// Reports an operation that sets a version without naming its image: `/spec/values/image/tag`.
    fn report_half_image(&mut self, path: &str, node: NodeId, text: &str) {
        let mut parts = path.rsplit('/');
        let (last, above) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let is_number = |part: &str| part == "-" || part.bytes().all(|byte| byte.is_ascii_digit());
        let is_version = match last {
            "newTag" => true,
            "tag" | "digest" | "sha" => above.to_ascii_lowercase().ends_with("image"),
            // Entries of an Application's `kustomize.images`.
            _ => above == "images" && is_number(last) && ImageReference::split(text).1.is_some(),
        };
        if is_version && !text.contains("{{") {
            let path = shown(path);
            let reason =
                format!("the operation at `{path}` does not name its image: mark its value (`# tagrelay: <image>`)");
            self.unclear.note(node, reason);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{ManifestSettings, Reading, Refused, Site, Wanted, edit, read, scan};

    const TEXT: &str = "\
resources: [x]
patches:
- path: image.yaml
- patch: |-
    kind: Deployment
    spec:
      containers:
      - {name: a, image: a:1}
- target: {kind: Deployment}
  patch: |
    - op: replace
      path: /spec/template/spec/containers/0/image
      value: a:1 # c
    - {op: add, path: /spec/containers/-, value: {name: b, image: 'a:1'}}
    - {op: test, path: /metadata/name, value: a:1}
patchesStrategicMerge:
- a.yaml
- |
  kind: Pod
  image: a:1
";

    #[test]
    fn patches_are_edited_inside() {
        let sites = scan("x/kustomization.yaml", TEXT.as_bytes()).unwrap();
        let lines = |sites: &[Site]| sites.iter().map(|site| (site.line, site.format.to_string())).collect::<Vec<_>>();
        assert_eq!(lines(&sites), [8, 13, 14, 20].map(|line| (line, "kubernetes".to_owned())));
        let version = tagrelay_image::Version::tagged("v2".parse().unwrap(), None);
        let wanted = [Wanted { repository: "a".parse().unwrap(), version }];
        let edited = edit("x/kustomization.yaml", TEXT.as_bytes(), &wanted).unwrap();
        let new = String::from_utf8(edited.bytes).unwrap();
        let set = |text: &str| {
            text.replace("image: a:1", "image: a:v2").replace("'a:1'", "'a:v2'").replace("a:1 # c", "a:v2 # c")
        };
        assert_eq!(new, set(TEXT));
        assert_eq!(edited.changes.iter().map(|change| change.line).collect::<Vec<_>>(), [8, 13, 14, 20]);
        let quoted = "resources: [x]\npatches:\n- patch: '[{op: replace, path: /image, value: a:1}]'\n";
        let refused = edit("kustomization.yaml", quoted.as_bytes(), &wanted);
        assert!(matches!(refused, Err(Refused::NotLiteral { line: 3, .. })), "{refused:?}");
        let json6902 = "resources: [x]\npatchesJson6902:\n- target: {kind: Deployment}\n  patch: |-\n    - op: replace\n      \
                        path: /image\n      value: a:1\n";
        let edited = edit("x/kustomization.yaml", json6902.as_bytes(), &wanted).unwrap();
        assert_eq!(String::from_utf8(edited.bytes).unwrap(), json6902.replace("a:1", "a:v2"));
        // In other documents, the list has no meaning.
        assert!(scan("x/values.yaml", TEXT.as_bytes()).unwrap().is_empty());
    }

    /// Returns the sites as `line format repository version`, then the notes as `line: reason`.
    fn found(path: &str, text: &str) -> Vec<String> {
        let Reading { sites, notes } = read(path, text.as_bytes(), &ManifestSettings::default()).unwrap();
        let site = |site: &Site| format!("{} {} {} {}", site.line, site.format, site.repository.name(), site.version);
        sites.iter().map(site).chain(notes.iter().map(|note| format!("{}: {}", note.line, note.reason))).collect()
    }

    #[test]
    fn patch_may_be_a_separate_file() {
        let yaml = "# why\n- op: test\n  path: /spec/containers/0/image\n  value: a:0\n- op: replace\n  \
                    path: /spec/containers/0/image\n  value: a:1 # c\n- {op: add, path: /x, value: {image: 'a:2'}}\n\
                    - {op: test, path: /x, value: {image: 'a:2', repository: b, tag: v1}}\n- {op: remove, path: /y}\n";
        assert_eq!(found("user/image.yaml", yaml), ["7 kubernetes a 1", "8 kubernetes a 2"]);
        let version = tagrelay_image::Version::tagged("v2".parse().unwrap(), None);
        let wanted = [Wanted { repository: "a".parse().unwrap(), version }];
        let set = |path, text: &str| String::from_utf8(edit(path, text.as_bytes(), &wanted).unwrap().bytes).unwrap();
        assert_eq!(set("image.yaml", yaml), yaml.replace("a:1", "a:v2").replacen("a:2", "a:v2", 1));
        let json = r#"[{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "a:1"},
                      {"op": "add", "path": "/spec/template/spec/containers/-", "value": {"name": "b", "image": "a:1"}}]"#;
        assert_eq!(found("image.json", json), ["1 kubernetes a 1", "2 kubernetes a 1"]);
        assert_eq!(set("image.json", json), json.replace("a:1", "a:v2"));
        for none in [
            // Not a patch: another item, or an empty list.
            "[{op: replace, path: /image, value: 'a:1'}, {b: c}]",
            "[{op: set, path: /image, value: 'a:1'}]",
            "[{op: replace, path: image, value: 'a:1'}]",
            "[{op: replace, path: /image, value: [a]}, {op: add, path: /x/image-tag, value: v1}]",
            "[{op: add, path: /metadata/annotations/example.com~1image, value: 'a:1'}]",
        ] {
            assert_eq!(found("a.yaml", none), [""; 0], "{none}");
        }
        assert_eq!(found("package.json", r#"{"op": "/image", "image": "a:1"}"#), [""; 0]);
    }

    #[test]
    fn operation_without_an_image_is_reported() {
        for path in ["/spec/values/image/tag", "/spec/values/webImage/digest", "/images/0/newTag"] {
            let text = format!("- {{op: replace, path: {path}, value: v1}}\n");
            let told = found("a.yaml", &text);
            assert!(told.len() == 1 && told[0].starts_with(&format!("1: the operation at `{path}`")), "{told:?}");
            let marked = text.replace("}", "} # tagrelay: docker.io/library/b:tag");
            assert_eq!(found("a.yaml", &marked), ["1 marker b v1"]);
            assert_eq!(found("a.yaml", &text.replace("}", "} # tagrelay: ignore")), [""; 0]);
        }
        let entry = "- {op: add, path: /spec/source/kustomize/images/-, value: 'a:1'}\n";
        assert!(found("a.yaml", entry)[0].starts_with("1: the operation at `/spec/source/kustomize/images/-`"));
        assert_eq!(found("a.yaml", "- {op: add, path: /images/x/tag, value: v1}\n"), [""; 0]);
        assert_eq!(found("a.yaml", "- {op: test, path: /image/tag, value: v1}\n"), [""; 0]);
    }

    #[test]
    fn patches_are_found_in_every_kind_of_kustomization() {
        let patches = "patches:\n- target: {kind: Deployment}\n  patch: |\n    - op: replace\n      path: /spec/image\n      \
                       value: a:1\n- patch: |\n    kind: Deployment\n    image: a:1\nimages: [IMAGE]\n";
        let held = |head: &str, indentation: &str, image: &str| {
            let inner = patches.replace("IMAGE", image).replace('\n', &format!("\n{indentation}"));
            format!("{head}{indentation}{}\n", inner.trim_end())
        };
        for (head, indentation, image, formats) in [
            (
                "apiVersion: argoproj.io/v1alpha1\nkind: Application\nspec:\n  source:\n    kustomize:\n",
                "      ",
                "'a:1'",
                ["kubernetes", "kubernetes", "argocd"],
            ),
            (
                "apiVersion: argoproj.io/v1alpha1\nkind: ApplicationSet\nspec:\n  template:\n    spec:\n      sources:\n      \
                 - kustomize:\n",
                "          ",
                "b=a:1",
                ["kubernetes", "kubernetes", "argocd"],
            ),
            (
                "apiVersion: helm.toolkit.fluxcd.io/v2\nkind: HelmRelease\nspec:\n  postRenderers:\n  - kustomize:\n",
                "      ",
                "{name: a, newTag: '1'}",
                ["kubernetes", "kubernetes", "kustomization"],
            ),
            (
                "apiVersion: kustomize.toolkit.fluxcd.io/v1\nkind: Kustomization\nspec:\n",
                "  ",
                "{name: a, newTag: '1'}",
                ["kubernetes", "kubernetes", "kustomization"],
            ),
        ] {
            let text = held(head, indentation, image);
            let lines = head.lines().count();
            let expected: Vec<String> =
                [6, 9, 10].iter().zip(formats).map(|(line, format)| format!("{} {format} a 1", lines + line)).collect();
            assert_eq!(found("a.yaml", &text), expected, "{text}");
            let version = tagrelay_image::Version::tagged("2".parse().unwrap(), None);
            let wanted = [Wanted { repository: "a".parse().unwrap(), version }];
            let edited = edit("a.yaml", text.as_bytes(), &wanted).unwrap();
            let set = text.replace("a:1", "a:2").replace("'1'", "'2'");
            assert_eq!(String::from_utf8(edited.bytes).unwrap(), set);
        }
        // Flux's first versions had objects and operations instead of texts.
        let old = "apiVersion: helm.toolkit.fluxcd.io/v2beta1\nkind: HelmRelease\nspec:\n  postRenderers:\n  - kustomize:\n      \
                   patchesJson6902:\n      - target: {kind: Deployment}\n        patch:\n        \
                   - {op: replace, path: /spec/image, value: 'a:1'}\n        \
                   - {op: test, path: /spec, value: {image: 'a:1'}}\n      \
                   patchesStrategicMerge:\n      - {kind: Deployment, image: 'a:1'}\n";
        assert_eq!(found("a.yaml", old), ["9 kubernetes a 1", "12 helm-values a 1"]);
    }

    #[test]
    fn operations_that_set_nothing_are_left_alone() {
        let patch = |op: &str| {
            format!(
                "resources: [x]\npatches:\n- patch: |-\n    - {{{op}path: /spec/containers/0/image, value: 'a:1'}}\n"
            )
        };
        for op in ["op: test, ", "op: remove, ", "op: copy, ", "op: move, ", "op: [add], ", ""] {
            assert!(scan("kustomization.yaml", patch(op).as_bytes()).unwrap().is_empty(), "{op}");
        }
        for op in ["op: add, ", "op: replace, "] {
            assert_eq!(scan("kustomization.yaml", patch(op).as_bytes()).unwrap().len(), 1, "{op}");
        }
    }
}
