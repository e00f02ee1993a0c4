//! What the fuzz targets found, made small: one test for each find.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use tagrelay::manifest::{Beside, ManifestSettings, Refused, Surroundings, Wanted, edit_overlay, read_overlay, scan};

/// A kustomization of an environment upon a base with the image `a:1`.
struct UponBase;

impl Surroundings for UponBase {
    fn at(&self, path: &str) -> Beside {
        match path {
            "base" => Beside::Folder,
            "base/kustomization.yaml" => Beside::File(b"resources: [a.yaml]".to_vec()),
            "base/a.yaml" => Beside::File(b"kind: Pod\ncontainers: [{image: a:1}]".to_vec()),
            _ => Beside::Nothing,
        }
    }

    fn is_own(&self, path: &str) -> bool {
        path.starts_with("env/")
    }
}

/// The byte search denied the file, so nobody saw the key that is there twice until the entry was there.
#[test]
fn no_entry_is_added_to_what_cannot_be_read_with_it() {
    let text = b"resources:\n- ../base\nname: x\nname: y\n";
    let path = "env/kustomization.yaml";
    let overlay = read_overlay(path, text, &UponBase);
    assert_eq!(overlay.inherited.len(), 1);
    let wanted = Wanted {
        repository: "a".parse().unwrap(),
        version: "a:v2".parse::<tagrelay::image::ImageReference>().unwrap().version().unwrap(),
    };
    let refused = edit_overlay(path, text, &[wanted], &ManifestSettings::default(), &overlay.inherited).unwrap_err();
    assert!(matches!(&refused, Refused::Unreadable(why) if why.line == Some(4)), "{refused}");
}

/// The targets read with the parser as it ships: with its default features it goes another way through comments.
#[test]
fn the_targets_have_the_parser_of_the_program() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let line = |file: &str, name: &str| {
        let text = std::fs::read_to_string(root.join(file)).unwrap();
        text.lines().find(|line| line.starts_with(&format!("{name} = "))).map(str::to_owned)
    };
    for name in ["granit-parser", "serde_yaml", "serde_json", "memchr", "globset"] {
        let (ours, theirs) = (line("Cargo.toml", name), line("fuzz/Cargo.toml", name));
        assert!(ours.is_some() && ours == theirs, "{name}: {ours:?} {theirs:?}");
    }
}

/// A template may well be YAML as it stands: `{{ x }}` is a mapping whose key is a mapping.
#[test]
fn a_template_that_parses_is_left_alone() {
    let text = "metadata:\n  name: {{ .Release.Name }}\nspec:\n  image: a:1\n";
    let unreadable = scan("templates/b.yaml", text.as_bytes()).unwrap_err();
    assert_eq!(unreadable.line, Some(2));
    assert!(unreadable.reason.contains("it may be a template"), "{}", unreadable.reason);
    let quoted = "spec: {name: '{{ x }}', image: a:1}\n";
    assert_eq!(scan("a.yaml", quoted.as_bytes()).unwrap().len(), 1);
}

/// The first of two equal keys is dead to most readers, and a site below it with it.
#[test]
fn a_key_that_is_twice_on_the_way_to_a_site_is_refused() {
    for text in [
        "web: {image: {repository: a, tag: v1}}\nweb: {image: {repository: b, tag: v1}}\n",
        "web: {x: y}\nweb: {image: a:1}\n",
        "a: {&k image: a:1, *k : a:2}\n",
    ] {
        let unreadable = scan("a.yaml", text.as_bytes()).unwrap_err();
        assert!(unreadable.reason.contains("twice in one mapping"), "{text}: {}", unreadable.reason);
    }
    assert_eq!(scan("a.yaml", b"x: 1\nx: 2\nimage: a:1\n").unwrap().len(), 1);
}
