//! Kustomizations with images of a base. `tests/manifest/corpus/overlays` is a repository whose `base` belongs to no
//! environment: `original/` becomes `expected/`, `leave/` does not change. Also generated kustomizations.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use tagrelay_image::{ImageReference, Repository, Version};
use tagrelay_manifest::{
    Beside, Edited, Format, ManifestSettings, Overlay, Overlays, Pin, Refused, Surroundings, Wanted, edit,
    edit_overlay, read_overlay, scan,
};
use tagrelay_test_support::folder;

const USER: &str = "registry.example.com/shop/user-service";
const ORDER: &str = "registry.example.com/shop/order-service";
const DIGEST: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

/// A repository in memory; an environment has the files below a folder.
struct Repo {
    files: BTreeMap<String, Vec<u8>>,
    own: String,
}

impl Repo {
    fn new(own: &str, files: &[(&str, &str)]) -> Self {
        let files = files.iter().map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec()));
        Self { files: files.collect(), own: own.to_owned() }
    }

    fn corpus(own: &str) -> Self {
        Self { files: folder::files("tests/manifest/corpus/overlays"), own: own.to_owned() }
    }

    fn overlay(&self, path: &str) -> Overlay {
        read_overlay(path, &self.files[path], self)
    }

    fn edit(&self, path: &str, wanted: &[Wanted], settings: &ManifestSettings) -> Result<Edited, Refused> {
        edit_overlay(path, &self.files[path], wanted, settings, &self.overlay(path).inherited)
    }
}

impl Surroundings for Repo {
    fn at(&self, path: &str) -> Beside {
        let folder = if path.is_empty() { String::new() } else { format!("{path}/") };
        match self.files.get(path) {
            Some(bytes) => Beside::File(bytes.clone()),
            None if self.files.keys().any(|file| file.starts_with(&folder)) => Beside::Folder,
            None => Beside::Nothing,
        }
    }

    fn is_own(&self, path: &str) -> bool {
        path.starts_with(&self.own)
    }
}

fn wanted(references: &[&str]) -> Vec<Wanted> {
    let wanted = |reference: &&str| {
        let reference: ImageReference = reference.parse().unwrap();
        let version: Version = reference.version().unwrap();
        Wanted { repository: reference.repository, version }
    };
    references.iter().map(wanted).collect()
}

fn corpus_wanted() -> Vec<Wanted> {
    let user = format!("{USER}:9f8e7d6c5b4a39281706f5e4d3c2b1a098765432");
    wanted(&[&user, &format!("{ORDER}:123e456"), "nginx:1.28"])
}

fn versions(overlay: &Overlay) -> Vec<String> {
    let describe = |site: &tagrelay_manifest::Site| {
        assert_eq!(site.format, Format::Inherited);
        format!("{} {} {}", site.line, site.repository.name(), site.version)
    };
    overlay.inherited.iter().map(|image| describe(&image.site)).collect()
}

#[test]
fn added_entry_follows_the_style_of_the_file() {
    let repo = Repo::corpus("original/");
    let originals: Vec<&String> = repo.files.keys().filter(|path| path.starts_with("original/")).collect();
    assert!(originals.len() >= 10);
    for path in originals {
        let expected = String::from_utf8_lossy(&repo.files[&path.replace("original/", "expected/")]);
        let edited = repo.edit(path, &corpus_wanted(), &ManifestSettings::default());
        let edited = edited.unwrap_or_else(|refused| panic!("{path}: {refused}"));
        assert_eq!(String::from_utf8_lossy(&edited.bytes), expected, "{path}");

        // Then it is an ordinary site at the reported position, and nothing is inherited.
        let sites = scan(path, &edited.bytes).unwrap();
        for change in &edited.changes {
            let says_it = |site: &tagrelay_manifest::Site| {
                (site.line, &site.repository, &site.version) == (change.line, &change.repository, &change.new)
            };
            assert!(sites.iter().any(says_it), "{path}: {change:?} {sites:?}");
        }
        let mut after = Repo::corpus("original/");
        after.files.insert(path.clone(), edited.bytes.clone());
        assert_eq!(versions(&after.overlay(path)), [""; 0], "{path}");
        let again = after.edit(path, &corpus_wanted(), &ManifestSettings::default()).unwrap();
        assert_eq!((again.bytes, again.changes), (edited.bytes, vec![]), "{path}");
    }
}

#[test]
fn file_without_room_for_an_entry_stays_unchanged() {
    let repo = Repo::corpus("leave/");
    let mut outcomes = String::new();
    for (path, bytes) in repo.files.iter().filter(|(path, _)| path.starts_with("leave/")) {
        let overlay = repo.overlay(path);
        let outcome = match repo.edit(path, &corpus_wanted(), &ManifestSettings::default()) {
            Ok(edited) => {
                assert!(edited.bytes == *bytes && edited.changes.is_empty(), "{path}");
                "unchanged".to_owned()
            }
            Err(refused) => format!("refused: {refused}"),
        };
        let notes = overlay.notes.iter().map(|note| format!("    line {}: {}\n", note.line, note.reason));
        outcomes.push_str(&format!("{path}: {:?}, {outcome}\n{}", versions(&overlay), notes.collect::<String>()));
    }
    insta::assert_snapshot!(outcomes);
}

fn deployment(image: &str) -> String {
    format!("kind: Deployment\nspec:\n  containers:\n  - image: {image}\n")
}

#[test]
fn only_images_from_outside_are_inherited() {
    let (own, both) = (deployment("own:1"), format!("{}---\n{}", deployment("a:1"), deployment("a:2")));
    let repo = Repo::new(
        "env/",
        &[
            ("env/kustomization.yaml", "resources: [own.yaml, inner, ../base, ../more.yaml]\n"),
            ("env/own.yaml", &own),
            ("env/inner/kustomization.yaml", "resources:\n- ../../base\nimages:\n- name: a\n  newTag: v1\n"),
            ("base/kustomization.yaml", "resources: [a.yaml, ../deeper]\nimages:\n- {name: deep, newTag: '3'}\n"),
            ("base/a.yaml", &both),
            ("deeper/Kustomization", "resources: [x.yaml]"),
            (
                "deeper/x.yaml",
                "kind: Rollout\nspec: {template: {initContainers: [{image: deep}, {image: '{{ x }}'}]}}\n",
            ),
            ("more.yaml", "kind: CustomResourceDefinition\ncontainers: [{image: crd:1}]\n"),
        ],
    );
    let overlay = repo.overlay("env/kustomization.yaml");
    assert_eq!(versions(&overlay), ["1 a 1", "1 a 2", "1 deep 3"]);
    assert_eq!(versions(&repo.overlay("env/inner/kustomization.yaml")), ["2 deep 3"]);
    // A kustomization named as a resource, which kustomize refuses, still belongs to its folder.
    let own = ("env/kustomization.yaml", "resources: [../base/kustomization.yaml, ../base]\n");
    let base = [("base/kustomization.yaml", "resources: [a.yaml]"), ("base/a.yaml", both.as_str())];
    let twice = Repo::new("env/", &[own, base[0], base[1]]);
    assert_eq!(versions(&twice.overlay(own.0)), ["1 a 1", "1 a 2"]);
    for path in
        ["base", "base/kustomization.yaml", "base/a.yaml", "deeper/kustomization.yaml", "deeper/x.yaml", "more.yaml"]
    {
        assert!(overlay.looked_at.contains(path), "{path}: {:?}", overlay.looked_at);
    }
}

#[test]
fn version_decided_elsewhere_is_not_inherited() {
    let base =
        [("base/kustomization.yaml", "resources: [a.yaml]"), ("base/a.yaml", "kind: Pod\ncontainers: [{image: a:1}]")];
    let inner = ("env/x/kustomization.yaml", "resources: [../../base]");
    let outer = |text: &'static str| ("env/kustomization.yaml", text);
    let a: Repository = "a".parse().unwrap();
    let offered = |outer: (&str, &str), places: &[(&str, Format)]| {
        let repo = Repo::new("env/", &[base[0], base[1], inner, outer]);
        let mut overlays = Overlays::default();
        for path in [inner.0, outer.0] {
            assert_eq!(
                overlays.put(path, Some(repo.overlay(path))).contains(&a),
                path == inner.0 || outer.1.contains("name")
            );
        }
        let places: Vec<(Arc<str>, Format)> = places.iter().map(|(path, format)| ((*path).into(), *format)).collect();
        let count = overlays.sites_of(&a, &places).count();
        assert!(overlays.looks_into("base/") && !overlays.looks_into("other/"));
        assert_eq!(overlays.dependents_of("base/a.yaml").count(), 1);
        overlays.put(inner.0, None);
        overlays.put(outer.0, None);
        assert_eq!(overlays, Overlays::default());
        count
    };
    assert_eq!(offered(outer("resources: [x]"), &[]), 1);
    assert_eq!(offered(outer("resources: [x]"), &[("env/y/a.yaml", Format::Kubernetes)]), 1);
    assert_eq!(offered(outer("resources: [x]"), &[("env/xy.yaml", Format::Kustomization)]), 0);
    assert_eq!(offered(outer("resources: [x]"), &[("env/x/patch.yaml", Format::Kubernetes)]), 0);
    assert_eq!(offered(outer("resources: [x]"), &[("apps/a.yaml", Format::Argocd)]), 0);
    assert_eq!(offered(outer("resources: [x]\nimages: [{name: a, newTag: v2}]"), &[]), 0);
    assert_eq!(offered(outer("resources: [y]\nimages: [{name: a, newTag: v2}]"), &[]), 1);
}

#[test]
fn tag_and_digest_follow_the_base_and_the_settings() {
    let kustomization = "resources:\n- ../base.yaml\n";
    let edited = |base: &str, wanted_version: &str, pin| {
        let base = deployment(&base.replace('$', DIGEST));
        let repo = Repo::new("env/", &[("env/kustomization.yaml", kustomization), ("base.yaml", &base)]);
        let settings = ManifestSettings { pin, ..ManifestSettings::default() };
        let wanted = wanted(&[&format!("a{}", wanted_version.replace('$', DIGEST))]);
        let edited = repo.edit("env/kustomization.yaml", &wanted, &settings);
        edited.map(|edited| {
            let text = String::from_utf8(edited.bytes).unwrap().replace(DIGEST, "$");
            text.strip_prefix(kustomization).unwrap().to_owned()
        })
    };
    let entry = |rest: &str| Ok(format!("images:\n- name: a\n{rest}"));
    assert_eq!(edited("a:1", ":v2@$", Pin::Keep), entry("  newTag: v2\n"));
    assert_eq!(edited("a:1", ":v2@$", Pin::Digest), entry("  newTag: v2\n  digest: $\n"));
    assert_eq!(edited("a:1@$", ":v2@$", Pin::Keep), entry("  newTag: v2\n  digest: $\n"));
    assert_eq!(
        edited("a@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", ":v2@$", Pin::Keep),
        entry("  digest: $\n")
    );
    assert_eq!(edited("a:v2", ":v2@$", Pin::Keep), Ok(String::new()));
    // One entry applies to all images of its name, whatever their versions.
    for two in ["a:1\n  - image: a:1@$", "a:1@$\n  - image: a:1"] {
        assert_eq!(edited(two, ":v2@$", Pin::Keep), entry("  newTag: v2\n  digest: $\n"), "{two}");
    }
    assert_eq!(edited("a@$\n  - image: a:v2", ":v2@$", Pin::Keep), Ok(String::new()));
    assert!(matches!(edited("a:1", ":v2", Pin::Digest), Err(Refused::DigestUnknown { line: 2, .. })));
    assert!(matches!(edited("a:1@$", ":v2", Pin::Keep), Err(Refused::DigestUnknown { .. })));
    assert!(matches!(edited("a:1", "@$", Pin::Keep), Err(Refused::TagUnknown { .. })));
}

#[test]
fn cyclic_bases_end() {
    let mut files = vec![("env/kustomization.yaml".to_owned(), "resources: [../b0]\n".to_owned())];
    for number in 0..200 {
        let text = format!("resources: [../b{0}, ../b{0}, ../b{1}, a.yaml]\n", number + 1, number + 2);
        files.push((format!("b{number}/kustomization.yaml"), text));
        files.push((format!("b{number}/a.yaml"), deployment(&format!("a{number}:1"))));
    }
    let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    let found = Repo::new("env/", &files).overlay("env/kustomization.yaml");
    assert!((20..=40).contains(&found.inherited.len()), "{}", found.inherited.len());
}

/// A kustomization of random parts in random styles.
fn kustomization() -> impl Strategy<Value = String> {
    let entry = prop_oneof![
        Just(("other", "v1")),
        Just(("'other'", "\"1.0\"")),
        Just(("\"other\"", "'123e4'")),
        Just(("ghcr.io/x/other", "v1 # c")),
    ];
    let images = prop::option::of((prop::collection::vec((entry, any::<bool>()), 0..4), 0..5usize, 1..4usize));
    let part = prop_oneof![
        Just("namespace: shop\n"),
        Just("# a comment\n"),
        Just("\n"),
        Just("commonLabels: {a: b}\n"),
        Just("patches:\n- patch: |\n    a: b\n"),
        Just("patches:\n- patch: |+\n    a: b\n\n"),
        Just("configMapGenerator:\n    - name: x\n      literals:\n      - a=b\n"),
    ];
    let parts = || prop::collection::vec(part.clone(), 0..3);
    (parts(), images, parts(), 0..3usize, any::<[bool; 4]>()).prop_map(|(above, images, below, indent, flags)| {
        let [crlf, bom, dashes, no_end] = flags;
        let mut text = String::new();
        text.push_str(if dashes { "---\n" } else { "" });
        text.push_str(&format!("resources:\n{}- ../base\n", " ".repeat(indent)));
        // Duplicate keys are invalid.
        let mut seen = std::collections::BTreeSet::new();
        let mut add = |text: &mut String, part: &str| {
            let key = part.split(':').next().unwrap();
            if !part.contains(':') || seen.insert(key.to_owned()) {
                text.push_str(part);
            }
        };
        above.iter().for_each(|part| add(&mut text, part));
        if let Some((entries, indentation, distance)) = images {
            text.push_str("images:\n");
            for ((name, tag), is_flow) in entries {
                let (before, gap) = (" ".repeat(indentation), " ".repeat(distance));
                let tag_alone = tag.split(' ').next().unwrap();
                text.push_str(&if is_flow {
                    format!("{before}-{gap}{{name: {name}, newTag: {tag_alone}}}\n")
                } else {
                    format!("{before}-{gap}name: {name}\n{before} {gap}newTag: {tag}\n")
                });
            }
        }
        below.iter().for_each(|part| add(&mut text, part));
        if no_end {
            text.truncate(text.trim_end_matches('\n').len());
        }
        let text = if crlf { text.replace('\n', "\r\n") } else { text };
        if bom { format!("\u{feff}{text}") } else { text }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    /// The insertion is one run of whole lines, which another parser reads as one additional entry. It is refused if the list has
    /// no place for it.
    #[test]
    fn added_entries_are_the_only_difference(text in kustomization(), tag in "[0-9a-f]{1,12}|[0-9]{7}|[0-9]{3}e[0-9]{3}|v[0-9.]{1,3}1") {
        let base = deployment("registry.example.com:5000/shop/user-service:first");
        let repo = Repo::new("env/", &[("env/kustomization.yaml", &text), ("base/kustomization.yaml", "resources: [a.yaml]"), ("base/a.yaml", &base)]);
        let wanted = wanted(&[&format!("registry.example.com:5000/shop/user-service:{tag}")]);
        match repo.edit("env/kustomization.yaml", &wanted, &ManifestSettings::default()) {
            Ok(edited) => {
                let new = String::from_utf8(edited.bytes.clone()).unwrap();
                prop_assert_eq!(edited.changes.len(), 1);
                let start = text.bytes().zip(new.bytes()).take_while(|(old, new)| old == new).count();
                let end = text.bytes().rev().zip(new.bytes().rev()).take_while(|(old, new)| old == new).count();
                prop_assert!(start + end >= text.len(), "{:?}", new);
                prop_assert_eq!(new.ends_with('\n'), text.ends_with('\n'));
                prop_assert_eq!(new.matches("\r\n").count() == new.matches('\n').count(), text.contains("\r\n"));

                let read = |text: &str| serde_yaml::from_str::<serde_yaml::Value>(text.trim_start_matches('\u{feff}')).unwrap();
                let (before, mut after) = (read(&text), read(&new));
                let images = after["images"].as_sequence_mut().unwrap();
                let entry = images.pop().unwrap();
                prop_assert_eq!(entry["name"].as_str(), Some("registry.example.com:5000/shop/user-service"));
                prop_assert_eq!(entry["newTag"].as_str(), Some(tag.as_str()));
                if images.is_empty() {
                    after.as_mapping_mut().unwrap().remove("images");
                }
                prop_assert_eq!(&after, &before);
                // From now on it is an ordinary site.
                let later = edit("env/kustomization.yaml", &edited.bytes, &wanted).unwrap();
                prop_assert_eq!(later.changes.len(), 0);
            }
            Err(Refused::NoPlace { reason, .. }) => {
                let ends_in_text = text.contains("patch: |") && !text.ends_with('\n');
                let has_empty_list = text.contains("images:") && !text.contains("newTag");
                prop_assert!(ends_in_text || has_empty_list, "{}: {}", reason, text);
            }
            Err(refused) => prop_assert!(false, "{}: {}", refused, text),
        }
    }
}

#[test]
fn generated_kustomization_gets_no_entry() {
    let pod = format!("apiVersion: v1\nkind: Pod\nspec:\n  containers:\n  - image: {USER}:4f1c9e2\n");
    for (header, words) in [
        ("# Code generated by tool. DO NOT EDIT.\n", "the comment at the top says that the file is generated"),
        ("sops: {mac: 'ENC[x]'}\n", "`sops.mac`"),
    ] {
        let overlay = format!("{header}resources: [../base]\n");
        let path = "own/kustomization.yaml";
        let files = [
            (path, overlay.as_str()),
            ("base/kustomization.yaml", "resources: [a.yaml]\n"),
            ("base/a.yaml", pod.as_str()),
        ];
        let repo = Repo::new("own/", &files);
        let wanted = wanted(&[&format!("{USER}:9f8e7d6")]);
        let refused = repo.edit(path, &wanted, &ManifestSettings::default()).unwrap_err();
        assert!(matches!(&refused, Refused::NoPlace { reason, .. } if reason.contains(words)), "{header}: {refused}");
        let plain = Repo::new("own/", &[(path, "resources: [../base]\n"), files[1], files[2]]);
        assert_eq!(plain.edit(path, &wanted, &ManifestSettings::default()).unwrap().changes.len(), 1);
    }
}

#[test]
fn image_replaced_by_json_patch_gets_no_entry() {
    let deployment = |name: &str, image: &str| {
        format!(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}}}\nspec:\n  template:\n    spec:\n      \
             containers:\n      - {{name: a, image: '{image}'}}\n      - {{name: b, image: 'sidecar:1'}}\n"
        )
    };
    let base = format!("{}---\n{}", deployment("user", "shop/user:1"), deployment("order", "shop/order:1"));
    let at = "/spec/template/spec/containers/0/image";
    let patch = |target: &str, operations: &str| format!("target: {{{target}}}\n  patch: '{operations}'");
    // The patch, the images that stay inherited, and the reported ones.
    let replaces = |image: &str| format!("[{{op: replace, path: {at}, value: \"{image}\"}}]");
    let (user, order, sidecar) = ("2 user 1", "2 order 1", "2 sidecar 1");
    for (patch, inherited, told) in [
        (patch("kind: Deployment, name: user", &replaces("other/user:2")), vec![sidecar, order], vec!["shop/user"]),
        // The new site has the version.
        (patch("kind: Deployment, name: user", &replaces("shop/user:2")), vec![sidecar, order], vec![]),
        (patch("kind: Deployment, name: prod-user", &replaces("x:2")), vec![sidecar, order], vec!["shop/user"]),
        (patch("kind: Deployment", &replaces("x:2")), vec![sidecar], vec!["shop/user", "shop/order"]),
        (patch("name: .*", &replaces("x:2")), vec![sidecar], vec!["shop/user", "shop/order"]),
        (patch("kind: StatefulSet", &replaces("x:2")), vec![user, sidecar, order], vec![]),
        (patch("kind: Deployment", "[{op: test, path: /spec, value: x}]"), vec![user, sidecar, order], vec![]),
        (
            patch("name: order", "[{op: remove, path: /spec/template/spec/containers/0}]"),
            vec![user, sidecar],
            vec!["shop/order"],
        ),
        (
            patch("name: order", "[{op: add, path: /spec/template/spec/containers/0, value: {image: \"x:2\"}}]"),
            vec![user, sidecar, order],
            vec![],
        ),
        (
            patch("name: order", "[{op: add, path: /spec/template/spec, value: {}}]"),
            vec![user, sidecar],
            vec!["shop/order", "sidecar"],
        ),
        ("target: {name: user}\n  path: user.yaml".to_owned(), vec![sidecar, order], vec!["shop/user"]),
        ("path: user.yaml".to_owned(), vec![user, sidecar, order], vec![]),
    ] {
        let kustomization = format!("resources:\n- ../base.yaml\npatches:\n- {patch}\n");
        let file = format!("- op: replace\n  path: {at}\n  value: other/user:2\n");
        let files = [("env/kustomization.yaml", &*kustomization), ("base.yaml", &base), ("env/user.yaml", &file)];
        let overlay = Repo::new("env/", &files).overlay("env/kustomization.yaml");
        let mut found = versions(&overlay);
        found.sort_unstable();
        let mut expected = inherited;
        expected.sort_unstable();
        assert_eq!(found, expected, "{patch}");
        let named = |note: &tagrelay_manifest::Note| {
            assert!(note.line == 2 && note.reason.contains("JSON Patch"), "{note:?}");
            note.reason.split('`').nth(1).unwrap().to_owned()
        };
        assert_eq!(overlay.notes.iter().map(named).collect::<Vec<_>>(), told, "{patch}");
        assert_eq!(
            overlay.looked_at.contains("env/user.yaml"),
            patch.contains("path: user.yaml") && patch.contains("target")
        );

        // The same patch in the base, outside of the environment, is not a site.
        let files = [
            ("env/kustomization.yaml", "resources:\n- ../base\n"),
            ("base/kustomization.yaml", &*kustomization),
            ("base/user.yaml", &*file),
            ("base.yaml", &*base),
        ];
        let overlay = Repo::new("env/", &files).overlay("env/kustomization.yaml");
        assert_eq!(versions(&overlay).len(), found.len(), "{patch}");
    }
}

#[test]
fn patch_with_foreign_image_is_reported() {
    let component = |image: &str| {
        format!(
            "kind: Component\npatches:\n- target: {{name: a}}\n  \
             patch: '[{{op: replace, path: /spec/containers/0/image, value: \"{image}\"}}]'\n"
        )
    };
    for (image, told) in [("b:2", 1), ("a:2", 0)] {
        let files = [
            ("env/kustomization.yaml", "resources:\n- ../base.yaml\ncomponents:\n- ../component\n"),
            ("base.yaml", "kind: Pod\nmetadata: {name: a}\nspec: {containers: [{image: 'a:1'}]}\n"),
            ("component/kustomization.yaml", &*component(image)),
        ];
        let overlay = Repo::new("env/", &files).overlay("env/kustomization.yaml");
        assert_eq!((versions(&overlay), overlay.notes.len()), (vec!["2 a 1".to_owned()], told), "{:?}", overlay.notes);
    }
}

#[test]
fn image_behind_too_many_patches_gets_no_entry() {
    for (operations, inherited) in [(150, 1), (250, 0)] {
        let label = "- {op: add, path: /metadata/labels/x, value: y}\n";
        let kustomization = "resources:\n- ../base.yaml\npatches:\n- target: {name: a}\n  path: labels.yaml\n";
        let files = [
            ("env/kustomization.yaml", kustomization),
            ("env/labels.yaml", &label.repeat(operations)),
            ("base.yaml", "kind: Pod\nmetadata: {name: a}\nspec: {containers: [{image: 'a:1'}]}\n"),
        ];
        let overlay = Repo::new("env/", &files).overlay("env/kustomization.yaml");
        assert_eq!(versions(&overlay).len(), inherited, "{operations}: {:?}", overlay.notes);
    }
}
