//! What Helm values say of images: `repository`, `tag` and `digest` beside each other, references below a `registry`.

use std::borrow::Cow;

use crate::image::ImageReference;

use super::find::Finder;
use super::found::Part;
use super::registries::{GlobalRegistry, has_host};
use super::slots::{Key, Slot, Slots};
use super::tree::NodeId;

impl Finder<'_, '_, '_> {
    /// `image: repository:tag`, in values below the `registry` beside it where it says none itself.
    pub(super) fn take_reference_beside(&mut self, home: NodeId, at: NodeId, node: NodeId, text: &str, slots: &Slots) {
        let is_alone = !self.document.holds_values() || has_host(ImageReference::split(text).0);
        match self.reader.slot(slots[Key::Registry]) {
            Slot::Text(_, _, registry) if !is_alone => self.take_reference(home, at, node, text, 0, Some(registry)),
            // A registry that cannot be read: nobody can say whose image it is.
            Slot::Other if !is_alone => {}
            _ => self.take_reference(home, at, node, text, 0, None),
        }
    }

    /// `repository`, `tag` and `digest` beside each other.
    pub(super) fn take_values(&mut self, home: NodeId, name: &str, slots: &Slots, global: Option<GlobalRegistry<'_>>) {
        let registry = match self.reader.slot(slots[Key::Registry]) {
            Slot::Absent => None,
            Slot::Text(_, _, registry) => Some(registry),
            Slot::Other => return,
        };
        let registry = match global {
            Some(global) => global.over(registry, name),
            None => registry,
        };
        let repository = below(registry, name);
        let (tag, inner_digest) = match self.reader.slot(slots[Key::Tag]) {
            Slot::Absent => (None, None),
            // Some charts have no key for the digest; people write `tag: 1.27@sha256:…` there.
            Slot::Text(at, node, text) => {
                let (tag, digest) = Part::tag_and_digest(at, node, text);
                (Some(tag), digest)
            }
            Slot::Other => return,
        };
        let mut digests = inner_digest.into_iter().collect::<Vec<_>>();
        for (slot, may_be_bare) in [(slots[Key::Digest], false), (slots[Key::Sha], true)] {
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
            self.add(home, self.document.values_format(), tag, digests.pop(), &repository);
        }
    }
}

/// Returns the repository of a name below a registry, as the charts join them: a path behind the host is fine.
pub(super) fn below<'name>(registry: Option<&str>, name: &'name str) -> Cow<'name, str> {
    match registry {
        None => Cow::Borrowed(name),
        // With a slash at its end a chart adds none.
        Some(registry) => Cow::Owned(format!("{}/{name}", registry.strip_suffix('/').unwrap_or(registry))),
    }
}

#[cfg(test)]
mod tests {
    use super::super::find::tests::sites;
    use super::super::scan;

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
            ("registry: ghcr.io/x/, repository: a", "ghcr.io/x/a"),
            ("registry: docker.io, repository: a", "a"),
            ("registry: '', repository: ghcr.io/a", "ghcr.io/a"),
            ("registry: 'localhost:5000', repository: a", "localhost:5000/a"),
            ("registry: registry.k8s.io, image: ingress-nginx/controller", "registry.k8s.io/ingress-nginx/controller"),
        ] {
            assert_eq!(sites(&format!("{{{text}, tag: v1}}")), [format!("1 helm-values {expected} v1")]);
        }
        for (text, expected) in [
            ("registry: ghcr.io, image: 'x/a:v1'", "1 helm-values ghcr.io/x/a v1"),
            ("registry: ghcr.io/y, image: 'a:v1'", "1 helm-values ghcr.io/y/a v1"),
            ("registry: ghcr.io, image: 'quay.io/x/a:v1'", "1 helm-values quay.io/x/a v1"),
            ("registry: ghcr.io, image: 'a:v1', apiVersion: v1, kind: X", "1 kubernetes a v1"),
        ] {
            assert_eq!(sites(&format!("{{{text}}}")), [expected]);
        }
        assert_eq!(sites("{registry: [a], image: 'x/a:v1'}"), [""; 0]);
        for text in ["registry: [a], repository: a", "registry: '{{ x }}', repository: a", "repository: [a]", "tag: v2"]
        {
            assert!(scan("a.yaml", format!("{{{text}, tag: v1}}").as_bytes()).unwrap_or_default().is_empty(), "{text}");
        }
    }
}
