//! Files whose content must not be edited: a checksum covers them, or a tool writes them.
//!
//! The sites of such files are listed. An edit of such a site is refused with advice.

use std::ops::Range;

use granit_parser::ScalarStyle;
use memchr::memmem;

use super::file_name::is_lock_file;
use super::found::Found;
use super::site::{Format, Note};
use super::task::Role;
use super::tree::{Kind, NodeId, Tree};

/// Comments after this many bytes do not describe the file.
const MAX_HEADER_BYTES: usize = 16 << 10;

/// Limit of reported sites in a text.
const MAX_REPORTED: usize = 100;

/// Why the content of a file must not be edited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protection {
    /// A file of sops whose checksum also covers the values that are not encrypted.
    Sops,
    /// A SealedSecret.
    SealedSecret,
    /// The comment at the top says that the file is generated.
    Generated,
    /// A lock file.
    LockFile,
}

impl Protection {
    /// Returns the cause and what to do, as the end of a sentence.
    pub(crate) fn advice(self) -> &'static str {
        match self {
            Self::Sops => {
                "the checksum of sops (`sops.mac`) covers it, and `sops -d` would fail after a change: move the version to \
                 a file without secrets, or set `mac_only_encrypted: true` in `.sops.yaml` and encrypt the file again"
            }
            Self::SealedSecret => {
                "it is part of a SealedSecret, which kubeseal generates: move the version to another object, or change \
                 the Secret and seal it again"
            }
            Self::Generated => {
                "the comment at the top says that the file is generated, so the next run would undo a change: change its \
                 source, or put a marker (`# tagrelay: …`) behind the version if it may be changed here"
            }
            Self::LockFile => {
                "it is in a lock file, which a tool generates: change the source of the lock file and run the tool, or \
                 name the version in an `[[environment.site]]` if it may be changed here"
            }
        }
    }

    /// Returns whether a marker or rule permits the edit. Without a checksum, an edit breaks nothing.
    fn yields_to_claims(self) -> bool {
        match self {
            Self::Sops | Self::SealedSecret => false,
            Self::Generated | Self::LockFile => true,
        }
    }
}

/// The protected parts of a text.
#[derive(Debug, Default)]
pub(crate) struct Protections {
    /// Each part with its protection. A checksum comes before a claim that the text is generated.
    parts: Vec<(Range<NodeId>, Protection)>,
}

impl Protections {
    /// Returns the protected parts of a text that has sites.
    pub(crate) fn of(tree: &Tree<'_>, role: Role<'_>) -> Self {
        let all = 0..tree.nodes.len() as NodeId;
        let mut parts = Vec::new();
        // Almost no file has one of these words, and a search for bytes is fast.
        let has = |word: &str| memmem::find(tree.text().as_bytes(), word.as_bytes()).is_some();
        // The checksum of sops covers all documents.
        if has("sops") && tree.documents.iter().any(|document| has_checksum_of_sops(tree, document.root)) {
            parts.push((all.clone(), Protection::Sops));
        }
        if has("bitnami.com") || has("imgpkg.carvel.dev") {
            let mappings = (0..).zip(&tree.nodes).filter(|(_, node)| matches!(node.kind, Kind::Mapping(_)));
            for (id, node) in mappings {
                if let Some(protection) = of_object(tree, id) {
                    parts.push((id..node.subtree_end, protection));
                }
            }
        }
        if let Role::File(path) = role {
            if is_lock_file(path) {
                parts.push((all.clone(), Protection::LockFile));
            }
            if is_marked_as_generated(tree.text()) {
                parts.push((all, Protection::Generated));
            }
        }
        Self { parts }
    }

    /// Returns the protection of a site; `None`: the site may be edited.
    pub(crate) fn of_site(&self, found: &Found) -> Option<Protection> {
        let is_claimed = matches!(found.site.format, Format::Marker | Format::Rule);
        self.find(|range| found.parts().any(|part| range.contains(&part.node)), is_claimed)
    }

    /// Returns the protection of a site in the text of a scalar; `None`: the site may be edited.
    pub(crate) fn of_site_inside(&self, node: NodeId, format: Format) -> Option<Protection> {
        self.find(|range| range.contains(&node), matches!(format, Format::Marker | Format::Rule))
    }

    /// Returns the protection against additions to the text; `None`: entries may be added.
    pub(crate) fn of_text(&self) -> Option<Protection> {
        self.find(|_| true, false)
    }

    fn find(&self, holds: impl Fn(&Range<NodeId>) -> bool, is_claimed: bool) -> Option<Protection> {
        let applies = |protection: Protection| !(is_claimed && protection.yields_to_claims());
        let mut parts = self.parts.iter();
        parts.find(|(range, protection)| holds(range) && applies(*protection)).map(|(_, protection)| *protection)
    }

    /// Reports the protected sites of a text.
    pub(crate) fn notes<'found>(&self, found: impl Iterator<Item = &'found Found>) -> Vec<Note> {
        let protected = found.filter_map(|found| Some((found, self.of_site(found)?)));
        protected.map(|(found, protection)| protection.note(found)).take(MAX_REPORTED).collect()
    }
}

impl Protection {
    /// Reports a protected site.
    pub(crate) fn note(self, found: &Found) -> Note {
        let reason = format!("the version of `{}` is left alone: {}", found.site.repository, self.advice());
        Note { line: found.site.line, reason }
    }
}

/// Returns whether a document has a checksum of sops that covers values that are not encrypted.
///
/// With `mac_only_encrypted: true`, the checksum covers only the encrypted values
/// (<https://github.com/getsops/sops#encrypting-only-parts-of-a-file>).
fn has_checksum_of_sops(tree: &Tree<'_>, root: NodeId) -> bool {
    let Some(metadata) = tree.value_of(root, "sops") else { return false };
    let metadata = tree.resolve(metadata);
    let is_true = |id: NodeId| {
        let node = tree.node(tree.resolve(id));
        node.kind == Kind::Scalar(ScalarStyle::Plain) && node.value == "true"
    };
    tree.value_of(metadata, "mac").is_some() && !tree.value_of(metadata, "mac_only_encrypted").is_some_and(is_true)
}

/// Returns the protection of an object by its kind.
fn of_object(tree: &Tree<'_>, mapping: NodeId) -> Option<Protection> {
    let text = |key| tree.value_of(mapping, key).map(|value| &*tree.node(tree.resolve(value)).value);
    let group = text("apiVersion")?.split('/').next()?;
    match (group, text("kind")?) {
        ("bitnami.com", "SealedSecret") => Some(Protection::SealedSecret),
        ("imgpkg.carvel.dev", "ImagesLock" | "BundleLock") => Some(Protection::LockFile),
        _ => None,
    }
}

/// Returns whether the comments before the content declare the file generated and not to be edited.
///
/// A comment with only one of the two is common in files that people edit: "passwords are generated", "do not edit on Fridays".
fn is_marked_as_generated(text: &str) -> bool {
    let mut header = String::new();
    for line in text.trim_start_matches('\u{feff}').lines().map(str::trim) {
        let Some(comment) = line.strip_prefix('#') else {
            if line.is_empty() || line == "---" || line.starts_with('%') {
                continue;
            }
            break;
        };
        if header.len() + comment.len() > MAX_HEADER_BYTES {
            break;
        }
        for word in comment.trim_start_matches('#').split_whitespace() {
            header.push_str(&word.to_ascii_lowercase());
            header.push(' ');
        }
    }
    let has = |words: &[&str]| words.iter().any(|words| header.contains(words));
    let forbids_edits = || {
        ["edit", "modif", "change", "touch"].iter().any(|verb| {
            ["not ", "not be ", "n't ", "not manually ", "not be manually ", "not hand-", "never ", "not directly "]
                .iter()
                .any(|before| header.contains(&format!("{before}{verb}")))
        })
    };
    has(&["@generated", "code generated by "]) || (has(&["generated"]) && forbids_edits())
}

#[cfg(test)]
mod tests {
    use tagrelay_image::Version;

    use super::super::{ManifestSettings, Refused, Wanted, edit, read};

    const SOPS: &str = "sops:\n  mac: ENC[AES256_GCM,data:eA==,type:str]\n  encrypted_regex: ^password$\n";

    fn wanted(tag: &str) -> Wanted {
        let version = Version::from_parts(Some(tag.parse().unwrap()), None).unwrap();
        Wanted { repository: "a".parse().unwrap(), version }
    }

    /// Sets the version of `a` to `v2`, and returns the refusal; an empty text: the file was edited.
    ///
    /// Checks that the reading lists the site, and reports the site if and only if the edit is refused.
    fn refusal(path: &str, text: &str) -> String {
        let wanted = [wanted("v2")];
        let reading = read(path, text.as_bytes(), &ManifestSettings::default()).unwrap();
        assert!(reading.sites.iter().any(|site| site.repository.as_str().ends_with("/a")), "{text}");
        let notes: Vec<String> = reading.notes.iter().map(|note| format!("{}: {}", note.line, note.reason)).collect();
        match edit(path, text.as_bytes(), &wanted) {
            Ok(edited) => {
                assert_eq!((edited.changes.len(), notes.len()), (1, 0), "{text}: {notes:?}");
                String::new()
            }
            Err(refused) => {
                let Refused::Protected { line, advice, .. } = &refused else { panic!("{refused}") };
                assert!(notes.iter().any(|note| note.starts_with(&format!("{line}: ")) && note.ends_with(advice)));
                refused.to_string()
            }
        }
    }

    #[test]
    fn file_with_checksum_of_sops_is_refused() {
        for text in [
            format!("image: a:v1\npassword: ENC[x]\n{SOPS}"),
            format!("{SOPS}image: a:v1\n"),
            format!("image: a:v1\n---\nx: y\n{SOPS}"),
            format!("repository: a\ntag: v1\n{SOPS}  mac_only_encrypted: false\n"),
            format!("repository: a\ntag: v1\n{SOPS}  mac_only_encrypted: 'true'\n"),
            // A marker cannot restore the checksum.
            format!("x: v1 # tagrelay: docker.io/library/a:tag\n{SOPS}"),
        ] {
            let refusal = refusal("a.yaml", &text);
            assert!(
                refusal.contains("docker.io/library/a") && refusal.contains("mac_only_encrypted"),
                "{text}: {refusal}"
            );
        }
        let json = r#"{"repository": "a", "tag": "v1", "sops": {"mac": "ENC[x]"}}"#;
        assert!(refusal("values.json", json).starts_with("line 1: "));
        for text in [
            format!("image: a:v1\n{SOPS}  mac_only_encrypted: true\n"),
            "image: a:v1\nsops: {enabled: true}\n".to_owned(),
            "image: a:v1\nbelow:\n  sops: {mac: x}\n".to_owned(),
        ] {
            assert_eq!(refusal("a.yaml", &text), "", "{text}");
        }
    }

    #[test]
    fn checksum_covers_texts_inside_the_file() {
        let release = "apiVersion: helm.cattle.io/v1\nkind: HelmChart\nspec:\n  valuesContent: |\n    image: a:v1\n";
        assert_eq!(refusal("a.yaml", release), "");
        assert!(refusal("a.yaml", &format!("{release}{SOPS}")).starts_with("line 5: "));
        let inside = format!("{release}    sops: {{mac: x}}\n");
        assert!(refusal("a.yaml", &inside).starts_with("line 5: "));
    }

    #[test]
    fn only_changes_are_refused() {
        let wanted = [wanted("v1")];
        let text = format!("image: a:v1\nother: {{image: b:v1}}\n{SOPS}");
        assert_eq!(edit("a.yaml", text.as_bytes(), &wanted).unwrap().changes, []);
    }

    #[test]
    fn sealed_secret_is_refused_and_its_neighbour_is_not() {
        let sealed = "apiVersion: bitnami.com/v1alpha1\nkind: SealedSecret\nspec:\n  image: a:v1\n";
        assert!(refusal("a.yaml", sealed).starts_with("line 4: "));
        let list = format!("apiVersion: v1\nkind: List\nitems:\n- {}", sealed.trim_end().replace('\n', "\n  "));
        assert!(refusal("a.yaml", &list).contains("kubeseal"));
        assert_eq!(
            refusal("a.yaml", &format!("{}---\nimage: a:v1\n", sealed.replace("a:v1", "b:v1")).replace("b:v1", "v")),
            ""
        );
        assert_eq!(refusal("a.yaml", &sealed.replace("SealedSecret", "Other")), "");
    }

    #[test]
    fn generated_file_is_refused_unless_a_marker_permits_it() {
        for header in [
            "# This manifest was generated by flux. DO NOT EDIT.",
            "---\n# Code generated by tool. DO NOT EDIT.",
            "# @generated",
            "\u{feff}# License\n\n## Automatically generated:\n## do not\n## modify it",
            "# GENERATED FILE. It must not be edited.",
            "# autogenerated, please don't touch",
        ] {
            let refusal = refusal("a.yaml", &format!("{header}\nimage: a:v1\n"));
            assert!(refusal.contains("says that the file is generated"), "{header}: {refusal}");
            let marked = format!("{header}\nversion: v1 # tagrelay: docker.io/library/a:tag\n");
            assert_eq!(self::refusal("a.yaml", &marked), "");
        }
        for header in
            ["# Do not edit on Fridays.", "# Passwords are generated.", "x: y\n# @generated", "x: '# @generated'"]
        {
            assert_eq!(refusal("a.yaml", &format!("{header}\nimage: a:v1\n")), "", "{header}");
        }
    }

    #[test]
    fn lock_file_is_refused() {
        for path in ["x/kbld.lock.yml", "images-lock.yaml", "a.lock.yaml"] {
            assert!(refusal(path, "image: a:v1\n").contains("lock file"), "{path}");
            assert_eq!(refusal(path, "version: v1 # tagrelay: docker.io/library/a:tag\n"), "");
        }
        for path in ["lock/a.yaml", "block.yaml", "clock.yaml", "lock.yaml"] {
            assert_eq!(refusal(path, "image: a:v1\n"), "", "{path}");
        }
        let bundle = "apiVersion: imgpkg.carvel.dev/v1alpha1\nkind: ImagesLock\nimages:\n- image: a:v1\n";
        assert!(refusal("a.yaml", bundle).contains("lock file"));
    }
}
