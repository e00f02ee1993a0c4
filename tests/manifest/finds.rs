//! Minimised inputs of bugs that the fuzz targets found, one test each.

use crate::checks;
use tagrelay_image::{ImageReference, Version};
use tagrelay_manifest::{
    Beside, ManifestSettings, Refused, RulePart, SiteRule, Surroundings, Wanted, edit_overlay, read, read_overlay, scan,
};

/// A kustomization of an environment with a base that runs the image `a:1`.
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

fn version(reference: &str) -> Version {
    reference.parse::<ImageReference>().unwrap().version().unwrap()
}

/// The byte search skipped the file, so its duplicate key was noticed only after the entry was inserted.
#[test]
fn no_entry_is_added_if_the_file_becomes_unreadable() {
    let text = b"resources:\n- ../base\nname: x\nname: y\n";
    let path = "env/kustomization.yaml";
    let overlay = read_overlay(path, text, &UponBase);
    assert_eq!(overlay.inherited.len(), 1);
    let wanted = Wanted { repository: "a".parse().unwrap(), version: version("a:v2") };
    let refused = edit_overlay(path, text, &[wanted], &ManifestSettings::default(), &overlay.inherited).unwrap_err();
    assert!(matches!(&refused, Refused::Unreadable(why) if why.line == Some(4)), "{refused}");
}

/// The fuzz targets are a separate workspace with their own lock file.
#[test]
fn fuzz_targets_lock_the_same_readers_as_the_program() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let version = |file: &str, name: &str| {
        let text = std::fs::read_to_string(root.join(file)).unwrap();
        let mut lines = text.lines().skip_while(|line| *line != format!("name = \"{name}\""));
        lines.nth(1).map(str::to_owned)
    };
    for name in ["granit-parser", "yaml_serde", "serde_json", "memchr", "globset"] {
        let (ours, theirs) = (version("Cargo.lock", name), version("fuzz/Cargo.lock", name));
        assert!(ours.is_some() && ours == theirs, "{name}: {ours:?} {theirs:?}");
    }
}

/// A template can be valid YAML: `{{ x }}` is a mapping with a mapping as key.
#[test]
fn parseable_template_is_left_alone() {
    let text = "metadata:\n  name: {{ .Release.Name }}\nspec:\n  image: a:1\n";
    let unreadable = scan("templates/b.yaml", text.as_bytes()).unwrap_err();
    assert_eq!(unreadable.line, Some(2));
    assert!(unreadable.reason.contains("it may be a template"), "{}", unreadable.reason);
    let quoted = "spec: {name: '{{ x }}', image: a:1}\n";
    assert_eq!(scan("a.yaml", quoted.as_bytes()).unwrap().len(), 1);
}

/// Most parsers ignore the first of two equal keys, and with it the site below.
#[test]
fn duplicate_key_above_a_site_is_refused() {
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

/// The keys are separated by blank lines, and a blank line before the new key would be part of the text.
#[test]
fn no_blank_line_is_added_to_a_keep_scalar() {
    let text = "resources:\n- ../base\n\npatch: |+\n  a\n";
    let path = "env/kustomization.yaml";
    let overlay = read_overlay(path, text.as_bytes(), &UponBase);
    let wanted = Wanted { repository: "a".parse().unwrap(), version: version("a:v2") };
    let edited = edit_overlay(path, text.as_bytes(), &[wanted], &ManifestSettings::default(), &overlay.inherited);
    let edited = String::from_utf8(edited.unwrap().bytes).unwrap();
    assert_eq!(edited, format!("{text}images:\n- name: a\n  newTag: v2\n"));
}

/// After the text, an explicit key (`?`) has an implicit null value.
#[test]
fn text_at_end_of_file_is_found_behind_an_empty_value() {
    let text = "resources: [../base]\n?\n- patch: |\n    b: 1";
    let refused = inserted(text).unwrap_err();
    assert!(refused.to_string().contains("ends inside a text"), "{refused}");
    inserted(&format!("{text}\n")).unwrap();
}

/// Sets the base's image and makes all checks of the fuzz target.
fn inserted(text: &str) -> Result<String, Refused> {
    checks::insert(&[b"\x03", text.as_bytes()].concat());
    let path = "env/kustomization.yaml";
    let overlay = read_overlay(path, text.as_bytes(), &UponBase);
    let wanted = Wanted { repository: "a".parse().unwrap(), version: version("a:v2") };
    let edited = edit_overlay(path, text.as_bytes(), &[wanted], &ManifestSettings::default(), &overlay.inherited)?;
    Ok(String::from_utf8(edited.bytes).unwrap())
}

/// The compared parser counted the BOM as a column. A carriage return alone ends a line, too.
#[test]
fn added_entry_uses_the_line_ends_of_the_file() {
    const ENTRY: &str = "images:\n- name: a\n  newTag: v2\n";
    for bom in ["", "\u{feff}"] {
        for (text, expected) in [
            ("resources: [../base]\r#image: nx:1.0\n", ENTRY.to_owned()),
            ("resources: [../base]\n", ENTRY.to_owned()),
            ("resources: [../base]\r", ENTRY.replace('\n', "\r")),
            ("resources: [../base]\r\rx: y\r", format!("\r{}", ENTRY.replace('\n', "\r"))),
            ("resources: [../base]\r\n", ENTRY.replace('\n', "\r\n")),
        ] {
            let text = format!("{bom}{text}");
            assert_eq!(inserted(&text).as_deref(), Ok(format!("{text}{expected}").as_str()), "{text:?}");
        }
    }
    // The end of a document that a search for line feeds misses.
    for text in ["resources: [../base]\r...\r", "x: y\rresources:\r- ../base\r...\n"] {
        assert!(matches!(inserted(text), Err(Refused::NoPlace { .. })), "{text:?}");
    }
    let text = "resources:\r- ../base\rimages:\r- name: b\r  newTag: v1\rx: y\r";
    assert_eq!(inserted(text).unwrap(), text.replace("v1\r", "v1\r- name: a\r  newTag: v2\r"));
}

/// If a rule matched nothing in a text, its markers were applied to the file.
#[test]
fn rule_for_a_text_ignores_markers_in_it() {
    let rule = |path, repository: Option<&str>, part| {
        let repository = repository.map(|repository| repository.parse().unwrap());
        let rules = vec![SiteRule::new("**", path, repository, part).unwrap()];
        ManifestSettings { rules, ..ManifestSettings::default() }
    };
    let text = "|+\ry:image: nginx:1.27 # tagrelay: ignogm\rx: v1 # tagrelay: docker.io/library/a\r";
    for text in [text.to_owned(), text.replace('\r', "\n"), format!("x: {}", text.replace('\r', "\n  "))] {
        for path in ["$.nothing.is.here", "$.x.nothing"] {
            let settings = rule(path, None, RulePart::Reference);
            assert_eq!(read(".argocd-source-a.yaml", text.as_bytes(), &settings).unwrap().sites, [], "{text:?}");
        }
        checks::scan(&[b"+", text.as_bytes()].concat());
    }
    // The rule's match is found and can be excluded.
    let settings = rule("$.x.y", Some("a"), RulePart::Tag);
    let text = "x: |\n  y: v1 # c\n  z: v2 # tagrelay: docker.io/library/a\n";
    assert_eq!(read("a.yaml", text.as_bytes(), &settings).unwrap().sites.len(), 1);
    let ignored = text.replace("# c", "# tagrelay: ignore");
    assert_eq!(read("a.yaml", ignored.as_bytes(), &settings).unwrap().sites, []);
}

/// A rule refers to an unparsable text. The parser reports a position after its last line.
#[test]
fn notes_have_lines_of_the_file() {
    let rule = SiteRule::new("**", "$.a.b", Some("a".parse().unwrap()), RulePart::Tag).unwrap();
    let settings = ManifestSettings { rules: vec![rule], ..ManifestSettings::default() };
    for text in [" |+\r%e ", "a: |+\n  %e ", "a: |\n  - [\n", "a: \"%e \""] {
        let lines = 1 + text.matches(['\r', '\n']).count() as u32;
        let reading = read("values.yaml", text.as_bytes(), &settings).unwrap_or_default();
        assert!(reading.notes.iter().all(|note| note.line <= lines), "{text:?}: {:?}", reading.notes);
    }
}

/// Inputs that the fuzzers kept because each covers other code.
#[test]
fn corpus_of_the_fuzzers_passes() {
    let folder = tempfile::tempdir().unwrap();
    let archive = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus.tar.gz");
    let unpacked = std::process::Command::new("tar").arg("-xzf").arg(archive).arg("-C").arg(folder.path()).status();
    assert!(unpacked.unwrap().success());
    for target in ["scan", "edit", "insert"] {
        let check = match target {
            "scan" => checks::scan,
            "edit" => checks::edit,
            _ => checks::insert,
        };
        let inputs: Vec<_> = std::fs::read_dir(folder.path().join(target)).unwrap().collect();
        assert!(inputs.len() > 1_000, "{target}: {}", inputs.len());
        for input in inputs {
            let path = input.unwrap().path();
            println!("{}", path.display());
            check(&std::fs::read(path).unwrap());
        }
    }
}

/// The end of a multi-line flow sequence is not tracked, so nothing is appended to it.
#[test]
fn no_entry_is_added_after_a_flow_list() {
    let refused = inserted("resources: [../base]\nimages:\n- name: b\n  odd: [c,\n    d]\n").unwrap_err();
    assert!(refused.to_string().contains("the last entry of `images`"), "{refused}");
}

/// The column of the keys was taken from an explicit key (`?`), which is further right.
#[test]
fn no_entry_is_added_in_the_column_of_an_explicit_key() {
    for key in ["?\n  image: b\n", "?\n  b\n: c\n", "? b\n: c\n"] {
        let refused = inserted(&format!("{key}resources:\n- ../base\n")).unwrap_err();
        assert!(refused.to_string().contains("its first key"), "{key:?}: {refused}");
    }
}
