//! Hostile input: deep, wide, long, repeated and malformed. It is refused or read in bounded time and on a small stack, never
//! with a panic.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tagrelay_image::Repository;
use tagrelay_manifest::{
    Beside, ManifestSettings, Overlay, Overlays, Refused, RulePart, Site, SiteRule, Surroundings, Unreadable, Wanted,
    edit, edit_overlay, read, read_overlay, scan,
};

fn wanted() -> Vec<Wanted> {
    let version = tagrelay_image::Version::tagged("2".parse().unwrap(), None);
    vec![Wanted { repository: "a".parse().unwrap(), version }]
}

/// Scans and edits on a stack of 256 KiB, an eighth of the default. Without bounds, each of these inputs takes hours.
fn on_small_stack(bytes: Vec<u8>) -> (Result<Vec<Site>, Unreadable>, Result<Vec<u8>, Refused>) {
    let work = move || {
        let edited = edit("kustomization.yaml", &bytes, &wanted()).map(|edited| edited.bytes);
        (scan("kustomization.yaml", &bytes), edited)
    };
    let thread = std::thread::Builder::new().stack_size(256 << 10).spawn(work).unwrap();
    thread.join().expect("no panic")
}

fn reason_of(bytes: impl Into<Vec<u8>>) -> String {
    let (scanned, edited) = on_small_stack(bytes.into());
    let unreadable = scanned.unwrap_err();
    assert_eq!(edited, Err(Refused::Unreadable(unreadable.clone())));
    unreadable.to_string()
}

#[test]
fn deep_nesting_is_refused() {
    for opener in ["[", "{a: ", "- ", "? ", "[{a: ", "{? ", "- - ", "{{", "*a: ", "!x [", "&a ["] {
        let reason = reason_of(format!("image: a:1\nb:\n  {}", opener.repeat(10_000)));
        assert!(reason.starts_with("line "), "{opener}: {reason}");
    }
    let block: String = (0..10_000).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
    let reason = reason_of(format!("image: a:1\n{}", &block[..8 << 20]));
    assert!(reason.contains("is nested deeper than 255 levels"), "{reason}");
    // Real manifests are far below the limit.
    let nested = format!("image: a:1\nb: {}{}\n", "[".repeat(200), "]".repeat(200));
    assert_eq!(on_small_stack(nested.into()).0.unwrap().len(), 1);
}

#[test]
fn billion_laughs_are_read_cheaply() {
    let mut text = String::from("a0: &a0 {image: a:1}\n");
    for level in 1..30 {
        let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
        text += &format!("a{level}: &a{level} [{aliases}]\n");
    }
    let (scanned, edited) = on_small_stack(text.clone().into());
    assert_eq!(scanned.unwrap().len(), 1);
    assert_eq!(edited.unwrap(), text.replace("a:1", "a:2").into_bytes());
}

#[test]
fn merge_keys_cannot_explode() {
    let mut text = String::from("a0: &a0 {repository: a}\n");
    for level in 1..60 {
        let source = format!("*a{}", level - 1);
        text += &format!("a{level}: &a{level} {{<<: [{source}, {source}, {source}], tag: v{level}}}\n");
    }
    assert_eq!(on_small_stack(text.clone().into()).0.unwrap().len(), 59);
    for level in 60..70 {
        text += &format!("a{level}: &a{level} {{<<: *a{}}}\n", level - 1);
    }
    assert!(reason_of(text).contains("merge keys"));

    // Circular merges, and merges of unmergeable values.
    let text = "a: &a\n  <<: *a\n  image: a:1\nb: &b\n  <<: [*a, *b, 1, [*a]]\nc:\n  <<: x\n  <<: {}\n";
    assert_eq!(on_small_stack(text.into()).0.unwrap().len(), 1);
}

#[test]
fn many_aliases_of_much_are_refused() {
    let entries = "- {name: a, newTag: v1}\n".repeat(5_000);
    let aliases = "- images: *images\n".repeat(5_000);
    let reason = reason_of(format!("images: &images\n{entries}more:\n{aliases}"));
    assert!(reason.contains("uses its aliases so often"), "{reason}");

    let reason = reason_of(format!("image: &a a:1\nb: [{}]\n", "*a,".repeat(17 << 20)));
    assert!(reason.contains("bytes, and files of at most"), "{reason}");
    let reason = reason_of(format!("image: &a a:1\nb: [{}]\n", "*a,".repeat(5 << 20)));
    assert!(reason.contains("more than 10000 aliases"), "{reason}");
    let reason = reason_of(format!("image: a:1\nb: [{}]\n", "a,".repeat(2 << 20)));
    assert!(reason.contains("keys and values"), "{reason}");
}

#[test]
fn many_shared_scalars_are_searched() {
    // Every alias copies every site, and every site is to be changed.
    let sites = "  - {repository: a, tag: v1}\n".repeat(10_000);
    let text = format!("all: &all\n{sites}copies: [{}]\n", vec!["*all"; 9_000].join(", "));
    let (scanned, edited) = on_small_stack(text.clone().into());
    assert_eq!(scanned.unwrap().len(), 10_000);
    assert_eq!(edited.unwrap(), text.replace("tag: v1", "tag: \"2\"").into_bytes());
}

#[test]
fn long_lines_are_read() {
    let long = "x".repeat(1 << 20);
    for text in [
        format!("{{a: {long}, image: a:1, b: \"{long}\"}}\n"),
        format!("# {long}\nimage: a:1 # {long}"),
        format!("a: |\n  {long}\nimage: a:1"),
        format!("a: [{}]\nimage: 'a:1'\n", "abc, ".repeat(100_000)),
        format!("{}image: a:1\n", "\n".repeat(1 << 20)),
        format!("{}image: a:1\n", "# x\n".repeat(1 << 18)),
        format!("a:{}b\nimage: a:1\n", " ".repeat(1 << 20)),
    ] {
        let (scanned, edited) = on_small_stack(text.clone().into());
        assert_eq!(scanned.unwrap().len(), 1);
        assert!(edited.unwrap() == text.replace("a:1", "a:2").into_bytes());
    }
    assert_eq!(on_small_stack(format!("image: a:{long}").into()).0, Ok(Vec::new()));
    assert_eq!(on_small_stack(format!("image: {long}:1").into()).0, Ok(Vec::new()));
    assert_eq!(on_small_stack(format!("image: \"a:1{}\"", "\\n".repeat(1 << 20)).into()).0, Ok(Vec::new()));
}

#[test]
fn broken_bytes_are_reported_with_their_line() {
    for (bytes, expected) in [
        (&b"image: a:1\n\xc3"[..], "line 2: is not UTF-8 text; save it as UTF-8"),
        (b"\xff\xfei\0m\0a\0g\0e\0", "line 1: is not UTF-8 text; save it as UTF-8"),
        (b"image: a:1\n\0", "line 2"),
        (b"image: a:1\n@", "line 2"),
        (b"image: a:1\n\n\n'", "line "),
        (b"%YAML 3.0\n---\nimage: a:1", "line 1"),
        (b"image: a:1\n{{- if x }}\n", "line 2"),
    ] {
        let reason = reason_of(bytes);
        assert!(reason.starts_with(expected), "{reason}");
    }
    assert!(reason_of("image: a:1\n{{- if x }}\n").contains("template"));
}

#[test]
fn embedded_texts_have_the_same_bounds() {
    let application = |values: &str| {
        let text = values.replace('\n', "\n      ");
        format!(
            "apiVersion: argoproj.io/v1alpha1\nkind: Application\nspec:\n  image: a:1\n  helm:\n    values: |\n      {text}\n"
        )
    };
    for opener in ["[", "{a: ", "- ", "? ", "[{a: ", "- - ", "{{", "&a ["] {
        let text = application(&format!("image: a:1\nb:\n  {}", opener.repeat(10_000)));
        let (scanned, edited) = on_small_stack(text.clone().into());
        // Only this text is ignored, not the rest of the file.
        assert_eq!(scanned.unwrap().len(), 1, "{opener}");
        assert_eq!(edited.unwrap(), text.replacen("a:1", "a:2", 1).into_bytes());
    }
    let laughs = "a0: &a0 {image: a:1}\na1: [*a0, *a0]\na2: [*a0, *a0]";
    let (scanned, _) = on_small_stack(application(laughs).into());
    assert_eq!(scanned.unwrap().len(), 2);

    // Many texts, and many markers on one value.
    let many = "  - helm:\n      values: |\n        image: a:1\n".repeat(20_000);
    let text = format!("apiVersion: argoproj.io/v1alpha1\nkind: Application\nsources:\n{many}");
    let (scanned, edited) = on_small_stack(text.clone().into());
    assert_eq!(scanned.unwrap().len(), 20_000);
    assert_eq!(edited.unwrap(), text.replace("a:1", "a:2").into_bytes());
    let text = format!("image: a:1\n{}", "- v1 # tagrelay: docker.io/library/a:tag\n".repeat(50_000))
        .replacen('\n', "\nb:\n", 1);
    assert_eq!(on_small_stack(text.into()).0.unwrap().len(), 50_001);
}

// ---- Growth ---------------------------------------------------------------------------------------------------

/// Processor time of this thread, which other tests and programs do not affect.
fn worked() -> Duration {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(told.split(' ').next().unwrap().parse().unwrap())
}

/// Fails if four times the input takes eight times as long; quadratic algorithms take sixteen times as long. `size` grows to
/// the maximum, or until a run takes some clock ticks.
fn assert_linear(largest: usize, work: impl Fn(usize)) {
    let time = |size| {
        let begin = worked();
        work(size);
        worked() - begin
    };
    // Noise only makes runs longer.
    let best = |size| time(size).min(time(size));
    let mut size = largest / 64;
    let mut one = best(size);
    while one < Duration::from_millis(30) && size < largest {
        size *= 2;
        one = best(size);
    }
    let mut four = best(4 * size);
    // A busy machine also disturbs the time on the processor: measure both again before failing.
    for _ in 0..4 {
        if four < one * 8 + Duration::from_millis(30) {
            break;
        }
        (one, four) = (one.max(best(size)), four.min(best(4 * size)));
    }
    assert!(four < one * 8 + Duration::from_millis(30), "{size}: {one:?}, four times as much: {four:?}");
}

fn scan_and_edit(text: &str) {
    scan("kustomization.yaml", text.as_bytes()).unwrap();
    edit("kustomization.yaml", text.as_bytes(), &wanted()).unwrap();
}

#[test]
fn time_grows_with_the_file() {
    assert_linear(64_000, |size| scan_and_edit(&"- {image: a:1}\n".repeat(size)));
    assert_linear(32_000, |size| scan_and_edit(&"- image: a:1 # tagrelay: docker.io/library/a\n".repeat(size)));
    // Many markers in one comment, and markers separated by many blanks.
    assert_linear(128_000, |size| scan_and_edit(&format!("image: a:1{}", " # tagrelay: a".repeat(size))));
    let lines = |size| format!("image: a:1{}\n{}", " ".repeat(20 * size), "# tagrelay: a\n".repeat(size));
    assert_linear(64_000, |size| scan_and_edit(&lines(size)));
    assert_linear(8_192, |size| scan_and_edit(&"- k: # tagrelay: ignore\n    image: a:1\n- image: a:1\n".repeat(size)));
    // Unclosed brackets beside markers.
    for item in
        ["{ # tagrelay: ignore\n image: a:1},\n", "{image: a:1\n }, # tagrelay: ignore\n", "[], # tagrelay: ignore\n"]
    {
        assert_linear(8_192, |size| scan_and_edit(&format!("image: a:1\nb: [\n{}]\n", item.repeat(size))));
    }
    // Characters that only some parsers treat as line ends, at harmless positions: in quotes, and at the end of a line.
    for end in ["\u{85}", "\u{2028}", "\u{2029}"] {
        for (before, item, behind) in [("a: \"", "x", "\""), ("a: '", "x", "'"), ("# ", "", ""), ("a: |\n  b", "", "")]
        {
            assert_linear(64_000, |size| {
                let items = format!("{item}{end}").repeat(size);
                scan_and_edit(&format!("image: a:1\n{before}{items}{behind}\n"));
            });
        }
    }
    // As many policies as markers that refer to one.
    let flux = |number: usize| {
        format!(
            "- b/c{number} # {{\"$imagepolicy\": \"x:p{number}:name\"}}\n\
             - v1 # {{\"$imagepolicy\": \"x:p{number}:tag\"}}\n"
        )
    };
    assert_linear(16_000, |size| scan_and_edit(&(0..size).map(flux).collect::<String>()));
}

#[test]
fn time_of_rules_grows_with_the_file() {
    let rule = |path: &str| {
        let rule = SiteRule::new("**", path, None, RulePart::Reference).unwrap();
        ManifestSettings { rules: vec![rule], ..ManifestSettings::default() }
    };
    for path in ["$.b[*].k0", "$.b[*][*]", "$.b[?k0=='x'].k0", "$.c[?m.k0=='x'].k0"] {
        assert_linear(1_024, |size| {
            let keys: String = (0..size).map(|number| format!("k{number}: v, ")).collect();
            let (aliases, holders) = ("*m, ".repeat(size), "{m: *m}, ".repeat(size));
            let text = format!("m: &m {{{keys}}}\nb: [{aliases}]\nc: [{holders}]\n");
            read("a.yaml", text.as_bytes(), &rule(path)).unwrap();
        });
    }
}

/// A repository in memory; `env/` belongs to the environment.
struct Repo {
    files: BTreeMap<String, String>,
    /// How often each file was read.
    reads: Cell<usize>,
}

impl Repo {
    fn overlay(&self) -> Overlay {
        read_overlay("env/kustomization.yaml", self.files["env/kustomization.yaml"].as_bytes(), self)
    }

    /// An overlay with additional entries, and a base with these images.
    fn upon(overlay: &str, images: impl Iterator<Item = String>) -> Self {
        let containers: String = images.map(|image| format!("- image: {image}\n")).collect();
        let files = BTreeMap::from([
            ("env/kustomization.yaml".to_owned(), format!("resources: [../base.yaml]\n{overlay}")),
            ("base.yaml".to_owned(), format!("kind: Pod\ncontainers:\n{containers}")),
        ]);
        Self { files, reads: Cell::new(0) }
    }
}

impl Surroundings for Repo {
    fn at(&self, path: &str) -> Beside {
        self.reads.set(self.reads.get() + 1);
        self.files.get(path).map_or(Beside::Nothing, |text| Beside::File(text.clone().into_bytes()))
    }

    fn is_own(&self, path: &str) -> bool {
        path.starts_with("env/")
    }
}

#[test]
fn time_is_linear_in_the_bases_of_a_kustomization() {
    let distinct = |size: usize| (0..size).map(|number| format!("a{number}:1"));
    assert_linear(2_048, |size| assert_eq!(Repo::upon("", distinct(size)).overlay().inherited.len(), size));
    let more = |size: usize| format!("x: [{}]\n", "b, ".repeat(size));
    assert_linear(32_000, |size| {
        let equal = std::iter::repeat_n("a:1".to_owned(), size);
        assert_eq!(Repo::upon(&more(size), equal).overlay().inherited.len(), 1);
    });
    let entries =
        |size: usize| format!("images:\n{}", "- {name: a, newName: b}\n- {name: b, newName: a}\n".repeat(size));
    assert_linear(2_048, |size| {
        let tags = (0..100).map(|number| format!("a:{number}"));
        assert_eq!(Repo::upon(&entries(size), tags).overlay().inherited.len(), 0);
    });
    assert_linear(2_048, |size| {
        let repo = Repo::upon("", distinct(size));
        let wanted: Vec<Wanted> = (0..size)
            .map(|number| Wanted { repository: format!("a{number}").parse().unwrap(), ..wanted().remove(0) })
            .collect();
        let (path, settings) = ("env/kustomization.yaml", ManifestSettings::default());
        let edited = edit_overlay(path, repo.files[path].as_bytes(), &wanted, &settings, &repo.overlay().inherited);
        assert_eq!(edited.unwrap().changes.len(), size);
    });
    // An environment's images, with one and with many overlays.
    let offers = |overlays: &Overlays, touched: &BTreeSet<Repository>| {
        touched.iter().map(|repository| overlays.sites_of(repository, &[]).count()).sum::<usize>()
    };
    assert_linear(2_048, |size| {
        let mut overlays = Overlays::default();
        let touched = overlays.put("env/kustomization.yaml", Some(Repo::upon("", distinct(size)).overlay()));
        assert_eq!(offers(&overlays, &touched), size);
        overlays.put("env/kustomization.yaml", None);
        assert_eq!(offers(&overlays, &touched), 0);
    });
    let overlay = Repo::upon("", distinct(4)).overlay();
    assert_linear(8_192, |size| {
        let mut overlays = Overlays::default();
        for number in 0..size {
            overlays.put(&format!("env/{number}/kustomization.yaml"), Some(overlay.clone()));
        }
        assert_eq!(offers(&overlays, &distinct(4).map(|image| image[..2].parse().unwrap()).collect()), 4 * size);
    });
}

#[test]
fn repeated_resource_is_read_once() {
    let again = format!("more:\n- x\nresources:\n{}", "- ../base.yaml\n".repeat(2_000));
    let mut repo = Repo::upon("", (0..2_000).map(|number| format!("a{number}:1")));
    repo.files.insert("env/kustomization.yaml".to_owned(), again);
    assert_eq!(repo.overlay().inherited.len(), 2_000);
    assert!(repo.reads.get() < 10, "{} reads", repo.reads.get());
}

#[test]
fn exceeded_overlay_limits_are_reported() {
    let reasons = |overlay: &Overlay| overlay.notes.iter().map(|note| note.reason.clone()).collect::<Vec<_>>();
    let many = Repo::upon("", (0..10_001).map(|number| format!("a{number}:1"))).overlay();
    assert_eq!(many.inherited.len(), 10_000);
    assert!(reasons(&many)[0].contains("more than 10000 images"), "{:?}", many.notes);

    // Every entry matches every image and renames it.
    let entries = "- {name: a, newName: b}\n- {name: b, newName: a}\n".repeat(5_000);
    let meetings = Repo::upon(&format!("images:\n{entries}"), (0..5_000).map(|number| format!("a:{number}")));
    assert!(reasons(&meetings.overlay())[0].contains("a million"), "{:?}", meetings.overlay().notes);

    let resources = |list: &str| {
        let mut repo = Repo::upon("", std::iter::empty());
        repo.files.insert("env/kustomization.yaml".to_owned(), format!("resources:\n- x\n{list}"));
        repo.files.insert("broken.yaml".to_owned(), "containers: [".to_owned());
        repo.overlay()
    };
    let lookups = resources(&(0..6_000).map(|number| format!("- ../x{number}\n")).collect::<String>());
    assert!(lookups.looked_at.len() == 5_000 && reasons(&lookups)[0].contains("more than 5000 files"));
    let long = resources(&format!("- {}\n", "a/".repeat(30_000)));
    assert!(long.notes[0].line == 3 && long.notes[0].reason.contains("longer than any path"), "{:?}", long.notes);
    let broken = resources("- y\n- ../broken.yaml\n");
    assert!(
        broken.notes[0].line == 4 && broken.notes[0].reason.contains("the images of `broken.yaml` are unknown: line 1")
    );
}

#[test]
fn expanding_tags_are_refused() {
    let text = format!("%TAG !e! tag:{}\n---\nimage: a:1\nb: [{}]\n", "x".repeat(1_000), "!e!a,".repeat(100_000));
    assert!(reason_of(text).contains("too many explicit tags"));
    let usual = format!("image: a:1\nb: [{}]\n", "!Ref a,".repeat(20_000));
    assert_eq!(on_small_stack(usual.into()).0.unwrap().len(), 1);
}

#[test]
fn large_mappings_behind_many_aliases_are_refused() {
    let keys: String = (0..5_000).map(|number| format!("k{number}: v, ")).collect();
    let aliases = "*m, ".repeat(5_000);
    for document in [
        format!("m: &m {{{keys}}}\nimages: [{aliases}]\n"),
        format!(
            "apiVersion: argoproj.io/v1alpha1\nkind: Application\nm: &m {{{keys}}}\nimage: a:1\nhelm: {{parameters: [{aliases}]}}\n"
        ),
        format!(
            "apiVersion: argoproj.io/v1alpha1\nkind: Application\nm: &m {{{keys}}}\nimage: a:1\ns: [{}]\n",
            "{helm: *m}, ".repeat(5_000)
        ),
        format!(
            "apiVersion: argoproj.io/v1alpha1\nkind: Application\nm: &m {{{keys}}}\nimage: a:1\ns: [{}]\n",
            "{kustomize: *m}, ".repeat(5_000)
        ),
        format!(
            "apiVersion: argoproj.io/v1alpha1\nkind: Application\nm: &m {{{keys}}}\nimage: a:1\ns: [{}]\n",
            "{global: *m}, ".repeat(5_000)
        ),
    ] {
        assert!(reason_of(document).contains("uses its aliases so often"));
    }
}

// ---- Memory ---------------------------------------------------------------------------------------------------

/// Files that need much memory, by number; `None` after the last.
fn dear(case: usize) -> Option<String> {
    let list = |item: &str, count: usize| format!("image: a:1\nb: [{}]\n", item.repeat(count));
    Some(match case {
        0 => list("a,", 999_000),
        1 => list("\"\\x61\",", 999_000),
        2 => list("!a b,", 100_000),
        3 => format!("%TAG !e! tag:{}\n---\n{}", "x".repeat(1_000), list("!e!a,", 700_000)),
        4 => {
            let values = format!("- helm: {{values: \"b: [{}]\"}}\n", "a,".repeat(400_000)).repeat(8);
            format!("apiVersion: argoproj.io/v1alpha1\nkind: Application\nimage: a:1\ns:\n{values}")
        }
        _ => return None,
    })
}

/// Each file is read and edited in its own process, which prints its peak memory.
#[test]
fn memory_is_bounded() {
    const CASE: &str = "TAGRELAY_TEST_MEMORY_OF";
    if let Ok(case) = std::env::var(CASE) {
        let text = dear(case.parse().unwrap()).unwrap();
        let _ = edit("a.yaml", text.as_bytes(), &wanted());
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        println!("{}", status.lines().find(|line| line.starts_with("VmHWM:")).unwrap());
        return;
    }
    for case in (0..).take_while(|case| dear(*case).is_some()) {
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "bounds::memory_is_bounded", "--nocapture"]).env(CASE, case.to_string());
        let told = String::from_utf8(command.output().unwrap().stdout).unwrap();
        // On a machine with one core, libtest has already printed the name of the test on this line.
        let (_, peak) = told.lines().find_map(|line| line.split_once("VmHWM:")).expect(&told);
        let kilobytes: u64 = peak.trim().strip_suffix(" kB").unwrap().parse().unwrap();
        assert!(kilobytes < 300 << 10, "{case}: {kilobytes} kB");
    }
}
