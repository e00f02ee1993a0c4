//! Patches that a kustomization holds as texts: a part of an object, or operations of JSON Patch
//! (<https://kubectl.docs.kubernetes.io/references/kustomize/kustomization/patches/>).

use super::embedded::Content;
use super::find::Finder;
use super::site::Unreadable;
use super::slots::Slot;
use super::tree::{Kind, NodeId};

impl Finder<'_, '_, '_> {
    /// Notes the texts of `patches`, `patchesJson6902` and `patchesStrategicMerge`, in Flux's objects below `spec`.
    pub(super) fn take_patches(&mut self, root: NodeId) -> Result<(), Unreadable> {
        let spec = match self.tree.value_of(root, "spec") {
            Some(spec) => Some(self.reader.follow(spec)?),
            None => None,
        };
        for holder in [Some(root), spec].into_iter().flatten() {
            for key in ["patches", "patchesJson6902"] {
                for patch in self.items(holder, key)? {
                    let patch = self.reader.follow(patch)?;
                    self.take_patch(self.tree.value_of(patch, "patch"));
                }
            }
            for patch in self.items(holder, "patchesStrategicMerge")? {
                // One line is the path of a file.
                if matches!(self.reader.slot(Some(patch)), Slot::Text(_, _, text) if text.contains('\n')) {
                    self.take_patch(Some(patch));
                }
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

    fn take_patch(&mut self, at: Option<NodeId>) {
        if let Slot::Text(at, node, _) = self.reader.slot(at) {
            self.note_embedded(at, node).content = Content::Patch;
        }
    }

    /// Takes the operations of a JSON Patch that set an `image`.
    pub(super) fn take_operations(&mut self, root: NodeId) -> Result<(), Unreadable> {
        let tree = self.tree;
        if !matches!(tree.node(root).kind, Kind::Sequence(_)) {
            return Ok(());
        }
        for operation in tree.children(root) {
            let operation = self.reader.follow(operation)?;
            let path = self.reader.slot(tree.value_of(operation, "path"));
            let value = self.reader.slot(tree.value_of(operation, "value"));
            // The others set nothing: `test` only looks, and what `remove`, `copy` and `move` do needs no value.
            let sets = matches!(self.reader.slot(tree.value_of(operation, "op")), Slot::Text(_, _, "add" | "replace"));
            if let (true, Slot::Text(_, _, path), Slot::Text(at, node, text)) = (sets, path, value)
                && (path.ends_with("/image") || path.ends_with("/image/reference"))
            {
                self.take_reference(operation, at, node, text, 0, None);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Refused, Site, Wanted, edit, scan};

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
        let version = crate::image::Version::tagged("v2".parse().unwrap(), None);
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
        // Elsewhere a list of that name is nothing.
        assert!(scan("x/values.yaml", TEXT.as_bytes()).unwrap().is_empty());
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
