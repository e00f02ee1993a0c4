//! Records positions that look like a site but are ambiguous. Such positions are reported and left alone.

use std::collections::BTreeMap;

use tagrelay_image::{Repository, Tag};

use super::found::Written;
use super::site::Note;
use super::slots::{Key, Reader, Slots};
use super::tree::{NodeId, Tree};

/// Limit of reported positions in a text.
const MAX_REPORTED: usize = 100;

/// Limit of a quoted value, in characters.
const MAX_SHOWN: usize = 80;

/// Scalars that look like parts of sites, and the reasons why they are not.
pub(crate) struct Unclear<'tree, 'text> {
    tree: &'tree Tree<'text>,
    reasons: BTreeMap<NodeId, String>,
}

impl<'tree, 'text> Unclear<'tree, 'text> {
    pub(crate) fn new(tree: &'tree Tree<'text>) -> Self {
        Self { tree, reasons: BTreeMap::new() }
    }

    /// Removes a node that has become part of a site.
    pub(crate) fn remove(&mut self, node: NodeId) {
        self.reasons.remove(&node);
    }

    /// Removes the nodes for which `is_excluded` returns true.
    pub(crate) fn exclude(&mut self, is_excluded: impl Fn(NodeId) -> bool) {
        self.reasons.retain(|node, _| !is_excluded(*node));
    }

    pub(crate) fn into_notes(self) -> impl Iterator<Item = Note> {
        let tree = self.tree;
        self.reasons.into_iter().map(|(node, reason)| Note { line: tree.node(node).line, reason })
    }

    /// Records the invalid one of a tag and a digest, if the other one is valid.
    ///
    /// Also records a tag or digest that would be valid without a trailing line break. Other values probably do not belong to an
    /// image.
    pub(crate) fn report_bad_version(&mut self, tag: Option<&Written<'_>>, digest: Option<&Written<'_>>) {
        let is_tag = |text: &str| text.parse::<Tag>().is_ok();
        let tags = tag.map(|(text, part)| (*text, part, is_tag(text), is_tag(text.trim_end_matches('\n'))));
        let digests = digest.map(|(text, part)| {
            let is_digest = |text: &str| part.digest_of(text).is_some();
            (*text, part, is_digest(text), is_digest(text.trim_end_matches('\n')))
        });
        let broken = [tags, digests].into_iter().flatten().find(|(_, _, is_good, would_be)| !is_good && *would_be);
        let (part, reason) = match (tags, digests) {
            (Some((_, _, true, _)), Some((text, part, false, false))) => {
                let shown = shown(text);
                let reason = format!(
                    "the digest `{shown}` is not understood, so the tag next to it is left alone: write `sha256:` and 64 hex \
                     digits, or remove it"
                );
                (part, reason)
            }
            (Some((text, part, false, false)), Some((_, _, true, _))) => {
                let shown = shown(text);
                (part, format!("the tag `{shown}` is not understood, so the digest next to it is left alone"))
            }
            _ => match broken {
                Some((_, part, ..)) => {
                    let reason = "the value ends with a line break, which versions cannot contain: write `|-` or `>-`, or \
                                  the value after its key";
                    (part, reason.to_owned())
                }
                None => return,
            },
        };
        let node = part.node;
        self.note(node, reason);
    }

    /// Records the first key with an unusable value, if the map would otherwise be a site.
    ///
    /// An unusable tag alone is also reported.
    pub(crate) fn report_no_text(
        &mut self,
        reader: &Reader<'_, '_>,
        name: &str,
        slots: &Slots,
        keys: &[Key],
        has_version: bool,
    ) {
        let odd = keys.iter().find(|key| reader.is_odd(slots, **key));
        let Some((odd, at)) = odd.and_then(|odd| Some((*odd, slots[*odd]?))) else { return };
        if name.parse::<Repository>().is_ok() && (has_version || matches!(odd, Key::Tag | Key::NewTag)) {
            // A known key is a single scalar directly before its value.
            let (name, key) = (shown(name), &self.tree.node(at - 1).value);
            let reason = format!(
                "the value of `{key}` is not a string, so the version of `{name}` is left alone: put it between quotes, or \
                 remove it"
            );
            self.note(at, reason);
        }
    }

    /// Records an image with two digests.
    pub(crate) fn report_two_digests(&mut self, name: &str, second: NodeId) {
        if name.parse::<Repository>().is_ok() {
            let name = shown(name);
            let reason = format!(
                "`{name}` has two digests here, and which one counts is not clear: it is left alone; remove one"
            );
            self.note(second, reason);
        }
    }

    /// Records a repository that is invalid below its registry, but valid without it.
    pub(crate) fn report_bad_registry(&mut self, registry: &str, name: &str, version: Option<&Written<'_>>) {
        let Some((text, part)) = version else { return };
        let is_version = text.parse::<Tag>().is_ok() || part.digest_of(text).is_some();
        if is_version && name.parse::<Repository>().is_ok() {
            let (registry, name, node) = (shown(registry), shown(name), part.node);
            let reason = format!(
                "the registry `{registry}` is not understood, so the version of `{name}` is left alone: write `host`, \
                 `host:port` or `host/path`, without `https://`"
            );
            self.note(node, reason);
        }
    }

    /// Records the reason of a node, unless [`MAX_REPORTED`] nodes have a reason.
    pub(crate) fn note(&mut self, node: NodeId, reason: String) {
        if self.reasons.len() < MAX_REPORTED {
            self.reasons.insert(node, reason);
        }
    }
}

/// Returns the beginning of a text, without invisible characters.
pub(crate) fn shown(text: &str) -> String {
    text.chars().take(MAX_SHOWN).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use super::super::{ManifestSettings, read};

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    /// Returns the notes of a file without sites.
    fn notes(path: &str, text: &str) -> Vec<String> {
        let reading = read(path, text.replace('$', DIGEST).as_bytes(), &ManifestSettings::default()).unwrap();
        assert_eq!(reading.sites, [], "{text}");
        reading.notes.into_iter().map(|note| format!("{}: {}", note.line, note.reason)).collect()
    }

    #[test]
    fn ambiguous_positions_are_reported() {
        for (text, words) in [
            ("repository: a\ntag: v1\ndigest: e3b0", "3: the digest `e3b0` is not understood"),
            ("repository: a\ntag: v1\ndigest: '@$'", "3: the digest `@sha256:"),
            ("repository: a\ntag: v1@x", "2: the digest `x` is not understood"),
            ("image: a:v1@x", "1: the digest `x` is not understood"),
            ("kind: Kustomization\nimages:\n- name: a\n  newTag: v1\n  digest: '{{x}}'", "5: the digest `{{x}}` is"),
            ("repository: a\ntag: '{{ x }}'\ndigest: $", "2: the tag `{{ x }}` is not understood"),
            ("repository: a\ntag: |\n  v1\n", "3: the value ends with a line break"),
            ("image: >+\n  a:1\n\n", "2: the value ends with a line break"),
            ("image: |\n  a@$\n", "2: the value ends with a line break"),
            ("repository: a\ntag: v1\ndigest: |\n  $\n", "4: the value ends with a line break"),
            (
                "repository: a\ntag: v1\ndigest: {a: b}",
                "3: the value of `digest` is not a string, so the version of `a`",
            ),
            ("repository: a\ntag: v1\ndigest: ''\nsha: [x]", "4: the value of `sha` is not a string"),
            ("repository: a\ntag: [v1]", "2: the value of `tag` is not a string"),
            ("repository: a\ntag: !!int 1", "2: the value of `tag` is not a string"),
            ("x: &x [a]\nrepository: a\ntag: v1\ndigest: *x", "4: the value of `digest` is not a string"),
            ("x: &x {digest: [a]}\nrepository: a\ntag: v1\n<<: *x", "1: the value of `digest` is not a string"),
            ("repository: a\ntag: v1@$\ndigest: $", "3: `a` has two digests here"),
            ("repository: a\ntag: v1\ndigest: $\nsha: $", "4: `a` has two digests here"),
            ("kind: Kustomization\nimages:\n- name: a\n  newTag: v1\n  digest: {}", "5: the value of `digest` is not"),
            ("kind: Kustomization\nimages:\n- name: a\n  newTag: [v1]", "4: the value of `newTag` is not a string"),
            ("kind: Kustomization\nimages:\n- name: a\n  newTag: v1@$\n  digest: $", "5: `a` has two digests here"),
            ("registry: 5000\nrepository: a\ntag: v1", "1: the value of `registry` is not a string"),
            ("registry: true\nrepository: a\ntag: v1", "1: the value of `registry` is not a string"),
            ("registry: {a: b}\nrepository: a\ntag: v1", "1: the value of `registry` is not a string"),
            ("registry: {a: b}\nimage: a:v1", "1: the value of `registry` is not a string"),
            ("registry: https://x.io\nrepository: a\ntag: v1", "3: the registry `https://x.io` is not understood"),
            ("registry: 'https://x.io'\nimage: a@$", "2: the registry `https://x.io` is not understood"),
            ("registry: x.io//\nrepository: a\ntag: v1", "3: the registry `x.io//` is not understood"),
            ("registry: '{{ x }}'\nrepository: a\ndigest: $", "3: the registry `{{ x }}` is not understood"),
            ("global: {imageRegistry: 'http://x.io'}\na: {repository: a, tag: v1}", "2: the registry `http://x.io`"),
        ] {
            let notes = notes("a.yaml", text);
            assert!(notes.len() == 1 && notes[0].starts_with(words), "{text}: {notes:?}");
        }
        // Reported once. Not reported with a marker, or if the value is not an image.
        assert_eq!(notes("a.yaml", "x: &x {repository: a, tag: v1, digest: x}\ny: *x\nz: {<<: *x}\n").len(), 1);
        for text in [
            "repository: a\ntag: v1\ndigest: x # tagrelay: ignore",
            "repository: 'https://charts.example/a'\ntag: v1\ndigest: x",
            "repository: a\ntag: '{{ x }}'",
            "image: |\n  a text: of 1\n",
            "repository: a\ntag: v1\ndigest: {a: b} # tagrelay: ignore",
            "repository: a\ndigest: {a: b}",
            "repository: a\nregistry: [x]",
            "repository: 'https://charts.example/a'\ntag: v1\ndigest: {a: b}",
            "repository: 'https://charts.example/a'\ntag: v1\nregistry: 'https://x.io'",
            "repository: a\nregistry: 'https://x.io'\ntag: '{{ x }}'",
        ] {
            assert_eq!(notes("a.yaml", text), [""; 0], "{text}");
        }
        let parameters = "apiVersion: argoproj.io/v1alpha1\nkind: Application\nhelm:\n  parameters:\n  \
                          - {name: image.repository, value: a}\n  - {name: image.tag, value: v1}\n";
        let odd = "  - {name: image.registry, value: 'https://x.io'}\n";
        assert!(notes("a.yaml", &format!("{parameters}{odd}"))[0].starts_with("6: the registry `https://x.io`"));
        let digests = parameters.replace("v1", "v1@$") + "  - {name: image.digest, value: $}\n";
        assert!(notes("a.yaml", &digests)[0].starts_with("7: `a` has two digests here"));
        let many = "- {repository: a, tag: v1, digest: x}\n".repeat(200);
        assert_eq!(notes("a.yaml", &many).len(), 100);
    }

    #[test]
    fn text_inside_a_text_is_reported() {
        let text = "apiVersion: argoproj.io/v1alpha1\nkind: ApplicationSet\nspec:\n  templatePatch: |\n    spec:\n      \
                    source:\n        helm:\n          values: |\n            image: a:1\n";
        assert_eq!(notes("a.yaml", text), ["9: this text is inside another text and is not searched"]);
        assert_eq!(notes("a.yaml", &text.replace("image", "x")), [""; 0]);
    }
}
