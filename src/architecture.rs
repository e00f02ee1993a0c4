//! Compares the rooms in `docs/architecture.md` with the imports in the sources.
//!
//! The sources are read as text: comments, strings and test code are left out, then every path that begins with `crate`,
//! `super` or `self` is followed through the re-exports of `mod.rs` and `lib.rs` to the file that defines it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// The names from the root of a crate to a module. Empty for `lib.rs`.
type ModulePath = Vec<String>;

/// The table of rooms, in the order of its rows.
#[derive(Debug, Default)]
struct Table {
    /// Each crate with the crates that it uses.
    crates: BTreeMap<String, BTreeSet<String>>,
    /// The rooms of the daemon. Each may use the rooms above it.
    rooms: Vec<String>,
}

impl Table {
    /// Reads the rows that begin with `crates/name` or with the names of rooms.
    fn parse(page: &str) -> Self {
        let section = page.split("\n## ").find(|section| section.starts_with("The rooms\n")).expect("the section");
        let mut table = Self::default();
        for row in section.lines().filter(|line| line.starts_with("| `")) {
            let cells: Vec<Vec<String>> = row.trim_matches('|').split('|').map(quoted).collect();
            match cells[0][0].strip_prefix("crates/") {
                Some(name) => {
                    table.crates.insert(name.to_owned(), cells.last().expect("a cell").iter().cloned().collect());
                }
                None => table.rooms.extend(cells[0].iter().cloned()),
            }
        }
        table
    }

    /// Returns why a room may not use another one; `None` if it may.
    fn objection(&self, room: &str, used: &str) -> Option<String> {
        let rank = |name: &str| self.rooms.iter().position(|room| room == name);
        match (rank(room), rank(used)) {
            (None, _) => Some(format!("`{room}` is missing in the table of rooms")),
            (_, None) => Some(format!("`{used}` is missing in the table of rooms")),
            (Some(own), Some(other)) if own < other => Some(format!("`{used}` stands below `{room}` in the table")),
            _ => None,
        }
    }
}

/// Returns the words between backticks.
fn quoted(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// A source file without its test code.
#[derive(Debug)]
struct Source {
    path: String,
    tokens: Vec<String>,
}

/// The files of one crate by their modules.
#[derive(Debug, Default)]
struct Sources {
    files: BTreeMap<ModulePath, Source>,
    /// The re-exports of `mod.rs` and `lib.rs`, with their absolute paths.
    passed_on: BTreeMap<(ModulePath, String), ModulePath>,
}

impl Sources {
    fn of(texts: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut sources = Self::default();
        let mut excluded = BTreeSet::new();
        for (path, text) in texts {
            let module = module_of(&path);
            let (tokens, test_modules) = without_tests(tokens(&text));
            excluded.extend(test_modules.into_iter().map(|name| [&module[..], &[name]].concat()));
            sources.files.insert(module, Source { path, tokens });
        }
        sources.files.retain(|module, _| !excluded.iter().any(|test| module.starts_with(test)));
        let mut passed_on = BTreeMap::new();
        for (module, source) in &sources.files {
            for (index, _) in source.tokens.iter().enumerate().filter(|(_, token)| *token == "use") {
                for (path, name) in use_tree(&source.tokens, index + 1) {
                    if let Some(path) = sources.absolute(module, &path) {
                        passed_on.insert((module.clone(), name), path);
                    }
                }
            }
        }
        sources.passed_on = passed_on;
        sources
    }

    /// Reads every Rust file below a folder.
    fn read(folder: &Path) -> Self {
        let mut texts = Vec::new();
        let mut pending = vec![folder.to_owned()];
        while let Some(at) = pending.pop() {
            for entry in fs::read_dir(&at).expect("a folder") {
                let path = entry.expect("an entry").path();
                if path.is_dir() {
                    pending.push(path);
                } else if path.extension().is_some_and(|extension| extension == "rs") {
                    let name = path.strip_prefix(folder).expect("a path below").to_str().expect("text").to_owned();
                    texts.push((name, fs::read_to_string(&path).expect("a readable file")));
                }
            }
        }
        Self::of(texts)
    }

    /// Returns the absolute form of a path in a module; `None` for paths into other crates.
    fn absolute(&self, module: &[String], path: &[String]) -> Option<ModulePath> {
        let (first, rest) = path.split_first()?;
        let mut absolute = match first.as_str() {
            "crate" => Vec::new(),
            "self" => module.to_vec(),
            "super" => module[..module.len().saturating_sub(1)].to_vec(),
            child => {
                let child = [module, &[child.to_owned()]].concat();
                return self.files.contains_key(&child).then(|| [&child, rest].concat());
            }
        };
        for name in rest {
            if name == "super" {
                absolute.pop();
            } else {
                absolute.push(name.clone());
            }
        }
        Some(absolute)
    }

    /// Returns the module that defines the item at an absolute path.
    fn definition(&self, path: &[String]) -> ModulePath {
        let mut at = ModulePath::new();
        let mut rest = path.to_vec();
        // A chain of re-exports ends, because a loop of them would not compile.
        while !rest.is_empty() {
            let name = rest.remove(0);
            let child = [&at[..], std::slice::from_ref(&name)].concat();
            if self.files.contains_key(&child) {
                at = child;
            } else if let Some(target) = self.passed_on.get(&(at.clone(), name)).filter(|_| self.is_index(&at)) {
                rest = [&target[..], &rest].concat();
                at = ModulePath::new();
            } else {
                break;
            }
        }
        at
    }

    /// Returns whether a module is the table of contents of a folder.
    fn is_index(&self, module: &[String]) -> bool {
        let path = self.files.get(module).map(|source| source.path.as_str()).unwrap_or_default();
        path.ends_with("mod.rs") || path == "lib.rs"
    }

    /// Returns which module imports which.
    fn imports(&self) -> BTreeSet<(ModulePath, ModulePath)> {
        let mut imports = BTreeSet::new();
        for (module, source) in &self.files {
            for (index, token) in source.tokens.iter().enumerate() {
                let is_path = matches!(token.as_str(), "crate" | "super" | "self")
                    && source.tokens.get(index + 1).is_some_and(|next| next == "::")
                    && index.checked_sub(1).is_none_or(|before| source.tokens[before] != "::");
                if !is_path {
                    continue;
                }
                for (path, _) in use_tree(&source.tokens, index) {
                    let target = self.absolute(module, &path).map(|path| self.definition(&path));
                    if let Some(target) = target.filter(|target| target != module) {
                        imports.insert((module.clone(), target));
                    }
                }
            }
        }
        imports
    }

    /// Returns the groups of files that import each other in a circle. A `mod.rs` may use the files of its own folder.
    fn circles(&self) -> Vec<Vec<&str>> {
        let mut uses: BTreeMap<ModulePath, BTreeSet<ModulePath>> = BTreeMap::new();
        for (from, to) in self.imports().into_iter().filter(|(from, to)| !to.starts_with(from)) {
            uses.entry(from).or_default().insert(to);
        }
        let reached = |from: &ModulePath| {
            let mut reached = BTreeSet::new();
            let mut pending = vec![from];
            while let Some(next) = pending.pop() {
                pending.extend(uses.get(next).into_iter().flatten().filter(|to| reached.insert((*to).clone())));
            }
            reached
        };
        let reach: BTreeMap<&ModulePath, BTreeSet<ModulePath>> =
            uses.keys().map(|from| (from, reached(from))).collect();
        let mut circles: BTreeSet<Vec<&str>> = BTreeSet::new();
        for (from, reached) in reach.iter().filter(|(from, reached)| reached.contains(**from)) {
            let members = reached.iter().filter(|to| reach.get(to).is_some_and(|back| back.contains(*from)));
            circles.insert(members.map(|module| self.files[module].path.as_str()).collect());
        }
        circles.into_iter().collect()
    }
}

/// Returns the module of a file: `a/b.rs` and `a/b/mod.rs` are `a::b`.
fn module_of(path: &str) -> ModulePath {
    let path = path.trim_end_matches(".rs");
    let path = path.strip_suffix("/mod").unwrap_or(path);
    if path == "lib" { Vec::new() } else { path.split('/').map(str::to_owned).collect() }
}

/// Splits a text into words, `::` and other characters, without comments, strings, lifetimes and blanks.
fn tokens(text: &str) -> Vec<String> {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || !byte.is_ascii();
    let (bytes, mut found, mut at) = (text.as_bytes(), Vec::new(), 0);
    let find = |from: usize, end: &str| text[from..].find(end).map_or(text.len(), |length| from + length + end.len());
    // Returns the first byte behind a quoted text, whose escapes are skipped.
    let unquoted = |from: usize, quote: u8| {
        let mut at = from;
        while at < bytes.len() && bytes[at] != quote {
            at += if bytes[at] == b'\\' { 2 } else { 1 };
        }
        at + 1
    };
    while at < bytes.len() {
        let rest = &bytes[at..];
        at = match rest {
            [b'/', b'/', ..] => find(at, "\n"),
            [b'/', b'*', ..] => find(at + 2, "*/"),
            [b'"', ..] => unquoted(at + 1, b'"'),
            // A character, or else the first letter of a lifetime.
            [b'\'', b'\\', ..] => unquoted(at + 1, b'\''),
            [b'\'', ..] => {
                let length = text[at + 1..].chars().next().map_or(0, char::len_utf8);
                let is_character = bytes.get(at + 1 + length) == Some(&b'\'');
                at + 1 + length + usize::from(is_character)
            }
            [b':', b':', ..] => {
                found.push("::".to_owned());
                at + 2
            }
            [byte, ..] if is_word(*byte) => {
                let end = at + rest.iter().take_while(|byte| is_word(**byte)).count();
                let hashes = bytes[end..].iter().take_while(|byte| **byte == b'#').count();
                // A raw string ends with as many hashes as it began with.
                if matches!(&text[at..end], "r" | "br") && bytes.get(end + hashes) == Some(&b'"') {
                    find(end + hashes + 1, &format!("\"{}", "#".repeat(hashes)))
                } else {
                    found.push(text[at..end].to_owned());
                    end
                }
            }
            [byte, ..] => {
                if !byte.is_ascii_whitespace() {
                    found.push(char::from(*byte).to_string());
                }
                at + 1
            }
            [] => at,
        };
    }
    found
}

/// Returns the tokens without `#[cfg(test)]` items, and the names of the modules among those items.
fn without_tests(tokens: Vec<String>) -> (Vec<String>, Vec<String>) {
    const TEST: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let (mut kept, mut modules) = (Vec::new(), Vec::new());
    let mut at = 0;
    while at < tokens.len() {
        if !tokens[at..].iter().zip(TEST).all(|(token, wanted)| token == wanted) || tokens.len() < at + TEST.len() {
            kept.push(tokens[at].clone());
            at += 1;
            continue;
        }
        at += TEST.len();
        let (start, mut depth) = (at, 0);
        while at < tokens.len() {
            let token = tokens[at].as_str();
            depth += i32::from(matches!(token, "{" | "(" | "[")) - i32::from(matches!(token, "}" | ")" | "]"));
            at += 1;
            if depth == 0 && (token == ";" || token == "}" && tokens[start] != "use") {
                break;
            }
        }
        if let Some(index) = tokens[start..at].iter().position(|token| token == "mod") {
            modules.push(tokens[start + index + 1].clone());
        }
    }
    (kept, modules)
}

/// Returns the paths of a tree such as `crate::{a::B, c::{D, E as F}}`, each with the name that it has here.
fn use_tree(tokens: &[String], start: usize) -> Vec<(ModulePath, String)> {
    fn tree(tokens: &[String], at: &mut usize, before: &ModulePath, found: &mut Vec<(ModulePath, String)>) {
        let mut path = before.clone();
        loop {
            match tokens.get(*at).map(String::as_str) {
                Some("{") => {
                    *at += 1;
                    while tokens.get(*at).is_some_and(|token| token != "}") {
                        let start = *at;
                        tree(tokens, at, &path, found);
                        if tokens.get(*at).is_some_and(|token| token == ",") || *at == start {
                            *at += 1;
                        }
                    }
                    *at += 1;
                    return;
                }
                Some(name) if name.starts_with(|first: char| first.is_alphabetic() || first == '_') => {
                    // `a::{self}` is `a`.
                    if name != "self" || path.is_empty() {
                        path.push(name.to_owned());
                    }
                    *at += 1;
                }
                _ => {}
            }
            if tokens.get(*at).is_none_or(|token| token != "::") {
                break;
            }
            *at += 1;
        }
        let mut name = path.last().cloned().unwrap_or_default();
        if tokens.get(*at).is_some_and(|token| token == "as") {
            name = tokens.get(*at + 1).cloned().unwrap_or_default();
            *at += 2;
        }
        found.push((path, name));
    }
    let (mut at, mut found) = (start, Vec::new());
    tree(tokens, &mut at, &Vec::new(), &mut found);
    found
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn table() -> Table {
    Table::parse(&fs::read_to_string(root().join("docs/architecture.md")).unwrap())
}

/// Returns the names of the crates, sorted.
fn crates() -> Vec<String> {
    let folders = fs::read_dir(root().join("crates")).unwrap();
    let mut names: Vec<String> = folders.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn table_lists_every_crate_with_its_dependencies() {
    let table = table();
    let mut actual = BTreeMap::new();
    for name in crates() {
        let manifest = fs::read_to_string(root().join("crates").join(&name).join("Cargo.toml")).unwrap();
        let manifest: toml::Table = manifest.parse().unwrap();
        let dependencies = manifest.get("dependencies").and_then(toml::Value::as_table).cloned().unwrap_or_default();
        let own = dependencies.keys().filter_map(|name| name.strip_prefix("tagrelay-")).map(str::to_owned);
        actual.insert(name, own.collect::<BTreeSet<_>>());
    }
    assert_eq!(table.crates, actual, "docs/architecture.md, then the Cargo.toml files");
}

#[test]
fn rooms_use_only_the_rooms_above_them() {
    let (table, sources) = (table(), Sources::read(&root().join("src")));
    let rooms = sources.files.keys().filter_map(|module| module.first()).filter(|name| *name != "main");
    let rooms: BTreeSet<&String> = rooms.collect();
    let listed: BTreeSet<&String> = table.rooms.iter().collect();
    assert_eq!(rooms, listed, "the folders of src/, then the rooms in docs/architecture.md");
    let mut objections = BTreeSet::new();
    for (from, to) in sources.imports() {
        if let (Some(room), Some(used)) = (from.first(), to.first())
            && room != used
            && let Some(objection) = table.objection(room, used)
        {
            objections.insert(format!("src/{} uses `{used}`: {objection}", sources.files[&from].path));
        }
    }
    assert!(objections.is_empty(), "{objections:#?}");
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let mut circles = Vec::new();
    for folder in crates().iter().map(|name| format!("crates/{name}/src")).chain(["src".to_owned()]) {
        let sources = Sources::read(&root().join(&folder));
        circles.extend(sources.circles().into_iter().map(|files| format!("{folder}: {files:?}")));
    }
    assert!(circles.is_empty(), "{circles:#?}");
}

#[test]
fn forbidden_imports_and_circles_are_found() {
    let sources = Sources::of(
        [
            ("lib.rs", "mod low;\nmod high;\npub use high::High;"),
            ("low.rs", "// crate::high\nconst TEXT: &str = \"crate::high\";\nuse crate::{High as Up};\n"),
            ("high/mod.rs", "mod one;\nmod two;\npub use one::High;\nfn f() { two::g() }"),
            ("high/one.rs", "use super::two::{self, Two};\n#[cfg(test)]\nmod tests { use crate::low; }"),
            ("high/two.rs", "use super::High;\n#[cfg(test)]\nuse crate::low::{x};\n"),
        ]
        .map(|(path, text)| (path.to_owned(), text.to_owned())),
    );
    let name = |module: &ModulePath| module.join("::");
    let imports: Vec<_> = sources.imports().iter().map(|(from, to)| (name(from), name(to))).collect();
    let expected = [("high::one", "high::two"), ("high::two", "high::one"), ("low", "high::one")];
    assert_eq!(imports, expected.map(|(from, to)| (from.to_owned(), to.to_owned())));
    assert_eq!(sources.circles(), [["high/one.rs", "high/two.rs"]]);

    let table = Table::parse("\n## The rooms\n\n| `crates/a` | x | `b` |\n| `low` | y |\n| `high` | z |\n\n## Next\n");
    assert_eq!(table.crates["a"], BTreeSet::from(["b".to_owned()]));
    assert_eq!(table.objection("high", "low"), None);
    assert_eq!(table.objection("low", "high").unwrap(), "`high` stands below `low` in the table");
    assert_eq!(table.objection("low", "new").unwrap(), "`new` is missing in the table of rooms");
}
