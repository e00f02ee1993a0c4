//! Properties of arbitrary tags, documents and bytes.

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{FileFailurePersistence, TestRunner};
use regex::Regex;
use tagrelay_image::{Tag, Version};
use tagrelay_manifest::{ManifestSettings, RulePart, Site, SiteRule, Wanted, edit, read, scan};
use tagrelay_test_support::pyyaml;

const OLD_DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const NEW_DIGEST: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

fn wanted(repository: &str, tag: &str) -> Wanted {
    let version = Version::tagged(tag.parse().unwrap(), Some(NEW_DIGEST.parse().unwrap()));
    Wanted { repository: repository.parse().unwrap(), version }
}

/// Runs `cases` cases; failures are kept in a file beside this one. `PROPTEST_CASES` overrides the number.
fn config(cases: u32) -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(cases);
    let failure_persistence = Some(Box::new(FileFailurePersistence::WithSource("regressions")) as Box<_>);
    ProptestConfig { cases, failure_persistence, ..ProptestConfig::default() }
}

// ---- Tags -----------------------------------------------------------------------------------------------------

/// Tags of all kinds, mostly those that some parser reads as a number, date or boolean.
fn tags() -> impl Strategy<Value = String> {
    let sha_digit =
        prop_oneof![12 => proptest::char::range('0', '9'), 2 => Just('e'), 1 => proptest::char::range('a', 'f')];
    let sha = vec(sha_digit, 7..=40).prop_map(|digits| digits.into_iter().collect::<String>());
    let word = prop::sample::select(vec![
        "y",
        "Y",
        "n",
        "N",
        "yes",
        "Yes",
        "YES",
        "no",
        "No",
        "NO",
        "on",
        "On",
        "ON",
        "off",
        "Off",
        "OFF",
        "true",
        "True",
        "TRUE",
        "false",
        "False",
        "FALSE",
        "null",
        "Null",
        "NULL",
        "0",
        "00",
        "08",
        "0o",
        "0x",
        "0b",
        "1e",
        "e1",
        "_",
        "1_",
        "_1",
        "1.",
        "1.e5",
        "1e-5",
        "nan",
        "inf",
        "0x_",
        "2026-01-02",
        "2026-1-2",
        "2026-01-02T03",
        "1.2.3",
        "1-1",
    ]);
    prop_oneof![
        6 => sha,
        2 => word.prop_map(str::to_owned),
        1 => "0[xXoObB][0-9a-f_]{1,12}",
        1 => "[0-9_]{1,4}[.]?[0-9_]{0,4}[eE]?[-]?[0-9_]{0,3}",
        1 => "[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}[tT.-]?[0-9]{0,2}",
        1 => "[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}",
    ]
    .prop_filter("a tag", |text| text.parse::<Tag>().is_ok())
}

/// Every position in which a tag can be; `@` marks it.
const SHAPES: [(&str, &str); 10] = [
    ("values.yaml", "repository: 12\ntag: @ # c\n"),
    ("values.yaml", "repository: 12\ntag: '@'\n"),
    ("values.yaml", "repository: 12\r\ntag: \"@\"\r\n"),
    ("values.yaml", "{repository: 12, tag: @}"),
    ("values.yaml", "'repository': 12\n'tag': @"),
    ("values.yaml", "repository: 12\ntag: >-\n  @\n"),
    ("kustomization.yaml", "images:\n- name: 12\n  newTag: @\n"),
    ("pod.yaml", "image: 12:@\n"),
    ("pod.yaml", "[{image: 12:@, name: a}]"),
    ("pod.yaml", "image:\n  12:@\n"),
];

/// Texts that are not strings in YAML 1.1 (<https://yaml.org/type/>, in the forms given there), in the core schema of
/// YAML 1.2 (<https://yaml.org/spec/1.2.2/#1032-tag-resolution>), or for more lenient parsers.
static OTHER_THAN_STRINGS: LazyLock<Regex> = LazyLock::new(|| {
    let forms = [
        // 1.1: bool, null, merge, value.
        "y|Y|yes|Yes|YES|n|N|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF",
        "~|null|Null|NULL||<<|=",
        // 1.1: int in base 2, 8, 10, 16, 60.
        "[-+]?0b[0-1_]+|[-+]?0[0-7_]+|[-+]?(?:0|[1-9][0-9_]*)|[-+]?0x[0-9a-fA-F_]+|[-+]?[1-9][0-9_]*(?::[0-5]?[0-9])+",
        // 1.1: float; the specification allows more than one dot, which no parser does.
        r"[-+]?(?:[0-9][0-9_]*)?\.[0-9_]*(?:[eE][-+][0-9]+)?|[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+\.[0-9_]*",
        r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        // 1.1: timestamp.
        r"[0-9]{4}-[0-9]{2}-[0-9]{2}|[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:[Tt]|[ \t]+)[0-9]{1,2}.*",
        // 1.2: int and float.
        r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+|[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?",
        // Go: upper-case prefixes, underscores anywhere, one-digit dates.
        r"[-+]?0[bB][01_]+|[-+]?0[oO][0-7_]+|[-+]?0[xX][0-9a-fA-F_]+|[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}",
        r"[-+]?(?:\.[0-9_]+|[0-9][0-9_]*(?:\.[0-9_]*)?)(?:[eE][-+]?[0-9_]+)?",
        // The npm package `yaml` for 1.1: an exponent without dot.
        r"[eE][-+]?[0-9][0-9_]*",
    ];
    Regex::new(&format!("^(?:{})$", forms.join("|"))).unwrap()
});

/// Sets the tag in a shape, checks that nothing around it changed, and returns the text with its value at `@`.
fn set_tag(path: &str, shape: &str, tag: &str) -> (String, String) {
    let before = shape.replace('@', "latest");
    let edited = edit(path, before.as_bytes(), &[wanted("12", tag)]).unwrap();
    let after = String::from_utf8(edited.bytes).unwrap();
    let (head, tail) = shape.split_once('@').unwrap();
    // A whole reference may get quotes.
    let head = if after.starts_with(head) { head } else { head.strip_suffix("12:").unwrap() };
    let token = after.strip_prefix(head).and_then(|rest| rest.strip_suffix(tail)).expect("other bytes are equal");
    (after.clone(), token.to_owned())
}

fn tag_in(value: &serde_yaml::Value) -> Option<String> {
    let text = |value: Option<&serde_yaml::Value>| value.and_then(|value| value.as_str()).map(str::to_owned);
    let first = |value: &serde_yaml::Value| value.get(0).cloned();
    text(value.get("tag"))
        .or_else(|| text(value.get("images").and_then(first)?.get("newTag")))
        .or_else(|| text(value.get("image")))
        .or_else(|| text(first(value)?.get("image")))
        .map(|tag| tag.strip_prefix("12:").map(str::to_owned).unwrap_or(tag))
}

proptest! {
    #![proptest_config(config(2_000))]

    #[test]
    fn written_tag_is_a_string_to_every_reader(tag in tags()) {
        for (path, shape) in SHAPES {
            let (after, token) = set_tag(path, shape, &tag);
            // As a whole scalar: in the shape's quotes, after the name in a reference, or unchanged.
            let scalar = if shape.contains("12:@") && !token.contains("12:") { format!("12:{token}") } else { token };
            let is_plain = !scalar.starts_with(['\'', '"']) && !shape.contains("'@'") && !shape.contains("\"@\"");
            let is_block = shape.contains(">-");
            prop_assert!(!is_plain || is_block || !OTHER_THAN_STRINGS.is_match(&scalar), "{}", after);
            // Quotes are added only if needed.
            let is_quoted = scalar.starts_with(['\'', '"']);
            let is_odd = tag.starts_with(|first: char| first.is_ascii_digit()) || OTHER_THAN_STRINGS.is_match(&tag);
            prop_assert!(!is_quoted || is_odd || tag.len() < 6, "{}", after);
            let second = tag_in(&serde_yaml::from_str(&after).unwrap());
            prop_assert_eq!(second.as_deref(), Some(tag.as_str()), "{}", after);
            let sites = scan(path, after.as_bytes()).unwrap();
            prop_assert_eq!(sites[0].version.tag().unwrap().as_str(), tag.as_str());
        }
    }
}

#[test]
fn written_tag_is_a_string_to_pyyaml() {
    if pyyaml::is_left_out() {
        return;
    }
    let mut runner = TestRunner::deterministic();
    let tags: Vec<String> = (0..3_000).map(|_| tags().new_tree(&mut runner).unwrap().current()).collect();
    let documents = tags.iter().flat_map(|tag| SHAPES.map(|(path, shape)| set_tag(path, shape, tag).0));
    let stream: String = documents.map(|text| format!("--- # next\n{text}\n")).collect();

    let script = "import sys, yaml, json; Loader = getattr(yaml, 'CSafeLoader', yaml.SafeLoader)\n\
                  def tag(d):\n \
                    d = d[0] if isinstance(d, list) else d\n \
                    t = d['images'][0]['newTag'] if 'images' in d else d.get('tag', d.get('image'))\n \
                    return t if isinstance(t, str) else repr(t) + ' is no string'\n\
                  json.dump([tag(d) for d in yaml.load_all(sys.stdin.buffer.read(), Loader)], sys.stdout)";
    let mut python =
        Command::new("python3").args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = python.stdin.take().unwrap();
    let writer = std::thread::spawn(move || stdin.write_all(stream.as_bytes()).unwrap());
    let output = python.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success());
    let read: Vec<String> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(read.len(), tags.len() * SHAPES.len());
    for (index, read) in read.iter().enumerate() {
        let (_, shape) = SHAPES[index % SHAPES.len()];
        let expected = &tags[index / SHAPES.len()];
        let expected = if shape.contains("12:@") { format!("12:{expected}") } else { expected.clone() };
        assert_eq!(*read, expected, "{shape}");
    }
}

// ---- Documents ------------------------------------------------------------------------------------------------

/// A part of a document before and after the edit of `a.example/managed`.
#[derive(Debug, Clone)]
struct Piece {
    before: String,
    after: String,
}

impl Piece {
    fn same(text: impl Into<String>) -> Self {
        let before = text.into();
        Self { after: before.clone(), before }
    }

    fn map(self, change: impl Fn(String) -> String) -> Self {
        Self { before: change(self.before), after: change(self.after) }
    }

    fn join(pieces: Vec<Self>, separator: &str) -> Self {
        let join = |side: fn(&Self) -> &str| pieces.iter().map(side).collect::<Vec<_>>().join(separator);
        Self { before: join(|piece| &piece.before), after: join(|piece| &piece.after) }
    }
}

/// A one-line value of the key `image`, managed or not.
fn references() -> impl Strategy<Value = Piece> {
    let names =
        prop::sample::select(vec!["a.example/managed", "A.EXAMPLE/managed", "a.example/other", "managed", "1/2"]);
    let quotes = prop::sample::select(vec!["", "'", "\""]);
    (names, quotes, 0..4_u8).prop_map(|(name, quote, shape)| {
        let write = |tag: &str, digest: &str| match shape {
            0 => format!("{quote}{name}:{tag}{quote}"),
            1 => format!("{quote}{name}:{tag}@{digest}{quote}"),
            2 => format!("{quote}{name}@{digest}{quote}"),
            _ => format!("{quote}{name}{quote}"),
        };
        let before = write("v1.0", OLD_DIGEST);
        let is_managed = name.eq_ignore_ascii_case("a.example/managed");
        Piece { after: if is_managed { write("9f8e7d6", NEW_DIGEST) } else { before.clone() }, before }
    })
}

/// One-line scalars that are not sites.
fn others() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        "[a-zA-Zäöü🚀][a-zA-Z0-9äöü🚀.-]{0,12}",
        "'[ a-zA-Z0-9äöü🚀#:{},-]{0,12}'",
        "\"[ a-zA-Z0-9äöü🚀#:{},-]{0,12}(\\\\n|\\\\u00e4|\\\\\\\\)?\"",
        "[0-9.e]{1,6}",
        Just("'{{ .Values.x }}'".to_owned()),
        Just("&anchor a.example/managed:v1.0".to_owned()),
    ]
}

/// Flow collections with sites at any depth.
fn flows() -> impl Strategy<Value = Piece> {
    let key = prop::sample::select(vec!["aN", "'bN'", "\"c Nd\"", "üN", "nameN"]);
    let blank = prop::sample::select(vec![", ", " , ", ",\n                                        "]);
    let leaf = prop_oneof![
        references().prop_map(|reference| reference.map(|text| format!("{{image: {text} }}"))),
        references().prop_map(|reference| reference.map(|text| format!("{{\"image\":{text},b: 1}}"))),
        "[a-z]{1,5}".prop_map(Piece::same),
    ];
    leaf.prop_recursive(3, 12, 4, move |inner| {
        let item = (key.clone(), inner.clone());
        prop_oneof![
            (vec(item, 1..3), blank.clone()).prop_map(|(items, blank)| {
                // Duplicate keys are tested elsewhere.
                let numbered = items.into_iter().enumerate();
                let numbered = numbered.map(|(n, (key, value))| {
                    let key = key.replace('N', &n.to_string());
                    value.map(|text| format!("{key}: {text}"))
                });
                Piece::join(numbered.collect(), blank).map(|text| format!("{{{text}}}"))
            }),
            (vec(inner, 1..3), blank.clone())
                .prop_map(|(items, blank)| Piece::join(items, blank).map(|text| format!("[ {text}]"))),
        ]
    })
}

/// One or several lines of a mapping without indentation.
fn lines() -> impl Strategy<Value = Piece> {
    let trailing = prop::sample::select(vec!["", " ", "  # image: a.example/managed:v1.0", "\t# tab", " #"]);
    prop_oneof![
        (references(), trailing.clone(), " {1,4}")
            .prop_map(|(value, trailing, blank)| value
                .map(|text| format!("kN:\n  - image:{blank}{text}{trailing}\n    name: x"))),
        (references(), trailing.clone())
            .prop_map(|(value, trailing)| value.map(|text| format!("kN:\n    kM:\n     image: {text}{trailing}"))),
        (others(), trailing).prop_map(|(value, trailing)| Piece::same(format!("kN: {value}{trailing}"))),
        flows().prop_map(|flow| flow.map(|text| format!("kN: {text}"))),
        Just(Piece::same("")),
        Just(Piece::same("# image: a.example/managed:v1.0")),
        Just(Piece::same("\t# c")),
        Just(Piece::same("kN: |2+\n   image: a.example/managed:v1.0\n\n  # text\n")),
        Just(Piece::same("kN: >\n  image: a.example/managed:v1.0\n\n\n   x")),
        Just(Piece::same("---")),
        Just(Piece::same("...\n---\n# c")),
        (0..3_u8).prop_map(|shape| {
            let write = |tag: &str, digest: &str| match shape {
                0 => format!("kN: {{tag: {tag}, repository: a.example/managed}} # c"),
                1 => format!("kN:\n  repository: managed\n  registry: a.example\n\n  tag: '{tag}'\n  digest: {digest}"),
                _ => format!("kN:\n- - repository: 'a.example/managed'\n    digest: \"{digest}\"\n    tag:"),
            };
            Piece { before: write("v1.0", OLD_DIGEST), after: write("9f8e7d6", NEW_DIGEST) }
        }),
    ]
}

/// Whole files: lines with unique keys, any line end, with or without BOM and final line feed.
fn documents() -> impl Strategy<Value = Piece> {
    let ends = prop::sample::select(vec!["\n", "\r\n"]);
    (vec(lines(), 0..12), ends, any::<bool>(), any::<bool>()).prop_map(|(lines, end, bom, last)| {
        let numbered = lines.into_iter().enumerate();
        let numbered = numbered.map(|(number, line)| line.map(|text| text.replace("kN", &format!("key{number}"))));
        let finish = |text: String| {
            let text = text.replace('\n', end);
            let text = if last { text + end } else { text };
            if bom { format!("\u{feff}{text}") } else { text }
        };
        Piece::join(numbered.collect(), "\n").map(finish)
    })
}

proptest! {
    #![proptest_config(config(3_000))]

    #[test]
    fn edit_changes_only_versions(document in documents()) {
        let wanted = [wanted("a.example/managed", "9f8e7d6")];
        let edited = edit("values.yaml", document.before.as_bytes(), &wanted);
        let edited = edited.unwrap_or_else(|refused| panic!("{refused}\n{}", document.before));
        prop_assert_eq!(std::str::from_utf8(&edited.bytes).unwrap(), &document.after);
        prop_assert_eq!(edited.changes.is_empty(), document.before == document.after);
    }
}

/// An Application with a document in its `values`, with any line end.
fn applications() -> impl Strategy<Value = Piece> {
    let indentation = prop::sample::select(vec![2_usize, 4, 9]);
    let chomping = prop::sample::select(vec!["", "-", "+"]);
    let end = prop::sample::select(vec!["\n", "\r\n"]);
    (vec(lines(), 0..8), indentation, chomping, end).prop_map(|(lines, indentation, chomping, end)| {
        let numbered = lines.into_iter().enumerate();
        let numbered = numbered.map(|(number, line)| line.map(|text| text.replace("kN", &format!("key{number}"))));
        Piece::join(numbered.collect(), "\n").map(|text| {
            // With the indentation indicator, the text can begin with blanks.
            let mut file = "apiVersion: argoproj.io/v1alpha1\nkind: Application\nspec:\n source:\n  helm:\n".to_owned();
            file += &format!("    values: |{indentation}{chomping} # text\n");
            for line in text.split('\n') {
                file += &format!("{}{line}\n", " ".repeat(4 + indentation));
            }
            file += "    releaseName: x\n  kustomize: {images: [a.example/other:v1.0]}\n";
            file.replace('\n', end)
        })
    })
}

/// Typical objects and values in JSON.
fn json_documents() -> impl Strategy<Value = Piece> {
    let value = prop_oneof![
        references().prop_map(|reference| reference.map(|text| {
            let text = text.trim_matches(['"', '\'']).to_owned();
            format!("{{\"image\":\"{text}\"}}")
        })),
        Just(Piece {
            before: "{\"repository\": \"a.example/managed\",\t\"tag\": 1.0}".to_owned(),
            after: "{\"repository\": \"a.example/managed\",\t\"tag\": \"9f8e7d6\"}".to_owned(),
        }),
        "[ -~]{0,9}".prop_map(|text| Piece::same(serde_json::to_string(&text).unwrap())),
    ];
    (vec(value, 0..6), prop::sample::select(vec![",", ",\n\t", " ,\r\n  "])).prop_map(|(values, blank)| {
        Piece::join(values, blank)
            .map(|text| format!("{{\n\t\"apiVersion\": \"v1\", \"kind\": \"List\", \"items\": [{text}]}}"))
    })
}

proptest! {
    #![proptest_config(config(1_500))]

    #[test]
    fn edit_inside_a_text_changes_only_versions(file in applications()) {
        let wanted = [wanted("a.example/managed", "9f8e7d6")];
        let edited = edit("application.yaml", file.before.as_bytes(), &wanted);
        let edited = edited.unwrap_or_else(|refused| panic!("{refused}\n{}", file.before));
        prop_assert_eq!(std::str::from_utf8(&edited.bytes).unwrap(), &file.after);
        for change in &edited.changes {
            let line = file.after.lines().nth(change.line as usize - 1).unwrap_or_default();
            prop_assert!(line.contains("9f8e7d6") || line.contains(NEW_DIGEST), "{}: {}", change.line, line);
        }
    }

    #[test]
    fn json_stays_json(file in json_documents()) {
        let edited = edit("list.json", file.before.as_bytes(), &[wanted("a.example/managed", "9f8e7d6")]);
        let edited = edited.unwrap_or_else(|refused| panic!("{refused}\n{}", file.before));
        prop_assert_eq!(std::str::from_utf8(&edited.bytes).unwrap(), &file.after);
        serde_json::from_slice::<serde_json::Value>(&edited.bytes).unwrap();
    }
}

// ---- Bytes ----------------------------------------------------------------------------------------------------

/// YAML tokens in random order.
fn soup() -> impl Strategy<Value = Vec<u8>> {
    let words = prop::sample::select(vec![
        "image",
        "images",
        "repository",
        "registry",
        "tag",
        "digest",
        "sha",
        "name",
        "newName",
        "newTag",
        "kind",
        ": ",
        ":",
        "\n",
        "\n  ",
        "\n    ",
        "- ",
        "? ",
        "{",
        "}",
        "[",
        "]",
        ", ",
        "&a ",
        "*a",
        "<<: ",
        "<<: *a",
        "!!str ",
        "!x ",
        "'",
        "\"",
        "|\n",
        ">-\n",
        "|2",
        "# ",
        "---\n",
        "...\n",
        "%YAML 1.2\n",
        "\t",
        "\r\n",
        "\r",
        "\u{feff}",
        "ü",
        "🚀",
        "\\",
        "\\x",
        "a",
        "a:1",
        "a:v1",
        "v1",
        "1.27",
        "1e5",
        "~",
        "null",
        "Kustomization",
        "apiVersion",
        "{{ ",
        " }}",
        "\0",
        "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "@",
        "\u{85}",
        "\u{2028}",
        "image: a:1",
        "repository: a",
        "tag: v1",
        "images:\n- name: a\n  newTag: v1\n",
        "{repository: a, tag: v1}",
        "image: &a a:v1\n",
        "image: *a\n",
        "x-a: &a a:v1\n",
        "digest: ''",
        "{<<: *a, repository: b}",
        " # tagrelay: a\n",
        " # tagrelay: a:tag\n",
        " # tagrelay: ignore\n",
        " # {\"$imagepolicy\": \"ns:a\"}\n",
        "apiVersion: argoproj.io/v1alpha1\nkind: Application\n",
        "helm:\n  values: |\n    image: a:1\n",
        "helm:\n  parameters: [{name: image.repository, value: a}, {name: image.tag, value: v1}]\n",
        "kustomize: {images: [b=a:1, a:v1]}\n",
        "global: {imageRegistry: a}\n",
        "services: {b: {image: a:1}}\n",
    ]);
    vec(words, 0..40).prop_map(|words| words.concat().into_bytes())
}

/// The sites of a file that a rule names, so that the byte search is skipped; `None` if it cannot be parsed.
fn past_the_filter(path: &str, bytes: &[u8]) -> Option<Vec<Site>> {
    let rule = SiteRule::new("**", "$.nothing.is.here", None, RulePart::Reference).unwrap();
    let settings = ManifestSettings { rules: vec![rule], ..ManifestSettings::default() };
    read(path, bytes, &settings).ok().map(|reading| reading.sites)
}

/// Texts in an Application's values, in all kinds of quotes and with their escapes.
fn quoted_values() -> impl Strategy<Value = (&'static str, String)> {
    let line = prop::sample::select(vec![
        "image: a:1",
        "image: 'a:1'",
        "\"image\": \"a:1\"",
        "? image\n: a:1",
        "a: {image: a:1}",
        "repository: a",
        "tag: v1",
        "b: 1",
        "# image",
        "",
    ]);
    let escape = prop::sample::select(vec!["\\n", "\\x0a", "\\u000A", "\\U0000000a", "\\r", "\n\n        "]);
    (vec(line, 1..4), escape, 0..4_u8).prop_map(|(lines, escape, quotes)| {
        let text = lines.join("\n");
        let double = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', escape);
        let head = "apiVersion: argoproj.io/v1alpha1\nkind: Application\nspec:\n  source:\n    helm:\n      values: ";
        match quotes {
            0 => ("a.yaml", format!("{head}\"{double}\"\n")),
            1 => ("a.yaml", format!("{head}'{}'\n", text.replace('\'', "''").replace('\n', "\n\n        "))),
            2 => ("a.yaml", format!("{head}>\n        {}\n", text.replace('\n', "\n\n        "))),
            _ => {
                let json = serde_json::to_string(&text).unwrap();
                let spec = format!("{{\"source\": {{\"helm\": {{\"values\": {json}}}}}}}");
                (
                    "a.json",
                    format!(
                        "{{\"apiVersion\": \"argoproj.io/v1alpha1\", \"kind\": \"Application\", \"spec\": {spec}}}"
                    ),
                )
            }
        }
    })
}

proptest! {
    #![proptest_config(config(2_000))]

    #[test]
    fn byte_search_misses_no_site((path, text) in quoted_values()) {
        let Some(unfiltered) = past_the_filter(path, text.as_bytes()) else { return Ok(()) };
        prop_assert_eq!(scan(path, text.as_bytes()), Ok(unfiltered), "{}", text);
    }
}

proptest! {
    #![proptest_config(config(20_000))]

    #[test]
    fn no_bytes_cause_a_panic(bytes in prop_oneof![
        3 => soup(),
        1 => vec(any::<u8>(), 0..200),
        1 => vec(any::<u8>(), 0..80).prop_map(|rest| [b"image: a:1\n".as_slice(), &rest].concat()),
        1 => (soup(), any::<prop::sample::Index>(), any::<u8>()).prop_map(|(mut bytes, index, byte)| {
            if !bytes.is_empty() {
                let index = index.index(bytes.len());
                bytes[index] = byte;
            }
            bytes
        }),
    ]) {
        for path in ["a.yaml", "kustomization.yaml"] {
            let wanted = [wanted("a", "1e5")];
            match (scan(path, &bytes), edit(path, &bytes, &wanted)) {
                (Ok(sites), Ok(edited)) => {
                    prop_assert!(past_the_filter(path, &bytes).is_none_or(|unfiltered| unfiltered == sites));
                    // All edits are done: every site of the repository has the wanted version, and no other changed.
                    let after = scan(path, &edited.bytes).unwrap();
                    prop_assert_eq!(sites.len(), after.len());
                    for (old, new) in sites.iter().zip(&after) {
                        prop_assert_eq!(&old.repository, &new.repository);
                        let is_wanted = old.repository == wanted[0].repository;
                        let says_tag = new.version.tag().is_none_or(|tag| tag.as_str() == "1e5");
                        let says_digest = new.version.digest().is_none_or(|digest| digest.as_str() == NEW_DIGEST);
                        let is_right = if is_wanted { says_tag && says_digest } else { old == new };
                        prop_assert!(is_right, "{:?} {:?}", old, new);
                    }
                }
                (Ok(_), Err(refused)) => prop_assert!(refused.repository().is_some(), "{}", refused),
                (Err(unreadable), Err(refused)) => {
                    prop_assert_eq!(tagrelay_manifest::Refused::Unreadable(unreadable), refused);
                }
                (Err(unreadable), Ok(_)) => panic!("edited what cannot be read: {unreadable}"),
            }
        }
    }
}
