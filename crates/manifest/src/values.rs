//! The form of images in Helm values.
//!
//! `repository`, `tag` and `digest`, and references below a `registry`.

use tagrelay_image::ImageReference;

use super::finder::Finder;
use super::found::Part;
use super::registries::{GlobalRegistry, has_host};
use super::slots::{Key, Slot, Slots};
use super::tree::NodeId;

impl Finder<'_, '_, '_> {
    /// Adds the reference of `image: repository:tag`, below the `registry` in the same map.
    ///
    /// A registry in the reference itself takes precedence.
    pub(crate) fn find_reference_beside(&mut self, home: NodeId, at: NodeId, node: NodeId, text: &str, slots: &Slots) {
        let (name, tag, digest) = ImageReference::split(text);
        if !self.document.holds_values() || has_host(name) {
            return self.find_reference(home, at, node, text, 0, None);
        }
        match self.reader.slot(slots[Key::Registry]) {
            // With an unusable registry, the repository is unknown.
            _ if self.reader.is_odd(slots, Key::Registry) => {
                if tag.is_some() || digest.is_some() {
                    self.unclear.report_no_text(&self.reader, name, slots, &[Key::Registry], true);
                }
            }
            Slot::Text(_, _, registry) => self.find_reference(home, at, node, text, 0, Some(registry)),
            _ => self.find_reference(home, at, node, text, 0, None),
        }
    }

    /// Adds `repository`, `tag` and `digest` that are in the same map.
    pub(crate) fn find_values(&mut self, home: NodeId, name: &str, slots: &Slots, global: Option<GlobalRegistry<'_>>) {
        let parts = [Key::Registry, Key::Tag, Key::Digest, Key::Sha];
        if parts.iter().any(|key| self.reader.is_odd(slots, *key)) {
            let has_version = parts.iter().any(|key| *key != Key::Registry && self.is_text(slots, *key));
            return self.unclear.report_no_text(&self.reader, name, slots, &parts, has_version);
        }
        let registry = match self.reader.slot(slots[Key::Registry]) {
            Slot::Text(_, _, registry) => Some(registry),
            Slot::Absent | Slot::Other => None,
        };
        let registry = match global {
            Some(global) => global.over(registry, name),
            None => registry,
        };
        let (tag, inner_digest) = match self.reader.slot(slots[Key::Tag]) {
            // Some charts have no key for the digest, so it is written as `tag: 1.27@sha256:…`.
            Slot::Text(at, node, text) => {
                let (tag, digest) = Part::tag_and_digest(at, node, text);
                (Some(tag), digest)
            }
            Slot::Absent | Slot::Other => (None, None),
        };
        let mut digests = inner_digest.into_iter().collect::<Vec<_>>();
        for (key, may_be_bare) in [(Key::Digest, false), (Key::Sha, true)] {
            if let Slot::Text(at, node, text) = self.reader.slot(slots[key]) {
                let is_bare = may_be_bare && !text.contains(':');
                digests.push((text, Part { is_bare, ..Part::whole(at, node, text) }));
            }
        }
        let digest = digests.pop();
        match &digest {
            // It is unclear which of two digests applies.
            Some((_, part)) if !digests.is_empty() => self.unclear.report_two_digests(name, part.node),
            _ => self.add_below(home, self.document.values_format(), tag, digest, (registry, name)),
        }
    }

    fn is_text(&self, slots: &Slots, key: Key) -> bool {
        matches!(self.reader.slot(slots[key]), Slot::Text(..))
    }
}

#[cfg(test)]
mod tests {
    use super::super::find::tests::sites;
    use super::super::scan;

    #[test]
    fn versions_are_read_as_written() {
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
        // An ambiguous value is not edited in part.
        for half in ["tag: '{{ x }}', digest: $", "tag: v1, digest: x", "tag: v1@$, digest: $", "tag: v1, digest: [$]"]
        {
            assert_eq!(sites(&format!("{{repository: a, {half}}}")), [""; 0], "{half}");
        }
    }

    #[test]
    fn registry_and_repository_are_joined_as_in_charts() {
        for (text, expected) in [
            ("registry: ghcr.io, repository: x/a", "ghcr.io/x/a"),
            ("registry: ghcr.io/x, repository: a", "ghcr.io/x/a"),
            ("registry: ghcr.io/x/, repository: a", "ghcr.io/x/a"),
            ("registry: docker.io, repository: a", "a"),
            ("registry: docker.io/, repository: x/a", "docker.io/x/a"),
            ("registry: 10.0.0.1:5000, repository: a", "10.0.0.1:5000/a"),
            ("registry: 10.0.0.1, repository: a", "10.0.0.1/a"),
            ("registry: team, repository: a", "docker.io/team/a"),
            ("registry: '5000', repository: a", "docker.io/5000/a"),
            ("registry: ~, repository: ghcr.io/a", "ghcr.io/a"),
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
