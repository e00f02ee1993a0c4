//! The guide points to existing files, and the Chinese pages are in step with the English ones.

use std::collections::BTreeSet;
use std::path::Path;

use regex::Regex;

use super::platform_tree::{files_below, path, read};

/// The pages of the example platform.
const PAGES: [&str; 11] = [
    "docs/releases.md",
    "deploy/helm/tagrelay/README.md",
    "docs/guide.md",
    "docs/services.md",
    "docs/development.md",
    "docs/platform-alerts.md",
    "docs/spinnaker.md",
    "deploy/config-repository/README.md",
    "docs/zh/README.md",
    "docs/zh/cluster.md",
    "docs/zh/guide.md",
];

/// The English page of each Chinese one.
const TRANSLATED: [(&str, &str); 3] = [
    ("README.md", "docs/zh/README.md"),
    ("docs/cluster.md", "docs/zh/cluster.md"),
    ("docs/guide.md", "docs/zh/guide.md"),
];

/// The anchors of a page's headings, as Git hosts make them.
fn anchors(page: &str) -> BTreeSet<String> {
    let kept = Regex::new(r"[^\p{L}\p{N} _-]").unwrap();
    let heading = |(_, text): (usize, String)| kept.replace_all(&text.to_lowercase(), "").replace(' ', "-");
    headings(page).into_iter().map(heading).collect()
}

/// Level and text of each heading outside of code blocks.
fn headings(page: &str) -> Vec<(usize, String)> {
    let mut is_code = false;
    let mut found = Vec::new();
    for line in page.lines() {
        if line.trim_start().starts_with("```") {
            is_code = !is_code;
        }
        let level = line.bytes().take_while(|byte| *byte == b'#').count();
        if !is_code && level > 0 && line[level..].starts_with(' ') {
            found.push((level, line[level + 1..].trim().to_owned()));
        }
    }
    found
}

/// The code blocks of a page, with their fences.
fn code_blocks(page: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut open: Option<Vec<&str>> = None;
    for line in page.lines() {
        let is_fence = line.trim_start().starts_with("```");
        match (&mut open, is_fence) {
            (None, true) => open = Some(vec![line]),
            (Some(block), true) => {
                block.push(line);
                blocks.push(block.join("\n"));
                open = None;
            }
            (Some(block), false) => block.push(line),
            (None, false) => {}
        }
    }
    assert!(open.is_none(), "a code block is not closed");
    blocks
}

#[test]
fn links_of_the_platform_pages_lead_somewhere() {
    let link = Regex::new(r"\]\(([^)\s]+)\)").unwrap();
    for name in PAGES {
        let page = read(name);
        for found in link.captures_iter(&page) {
            let target = &found[1];
            if target.contains("://") {
                continue;
            }
            let (file, anchor) = target.split_once('#').map_or((target, None), |(file, anchor)| (file, Some(anchor)));
            let folder = Path::new(name).parent().unwrap();
            let file = if file.is_empty() { path(name) } else { path(folder.join(file).to_str().unwrap()) };
            assert!(file.exists(), "{name}: {target}");
            if let Some(anchor) = anchor {
                let text = std::fs::read_to_string(&file).unwrap();
                assert!(anchors(&text).contains(anchor), "{name}: {target}: {:?}", anchors(&text));
            }
        }
    }
}

#[test]
fn guide_has_seven_chapters_that_name_files() {
    let page = read("docs/guide.md");
    let chapters: Vec<String> =
        headings(&page).into_iter().filter(|(level, _)| *level == 2).map(|(_, text)| text).collect();
    assert_eq!(chapters.len(), 7, "{chapters:?}");
    for (number, chapter) in page.split("\n## ").skip(1).enumerate() {
        assert!(chapter.starts_with(&format!("{}. ", number + 1)), "{}", &chapter[..30]);
        assert!(chapter.contains("](../deploy/"), "chapter {} points to no file", number + 1);
    }
}

#[test]
fn chinese_pages_have_the_headings_and_code_of_the_english_ones() {
    for (english, chinese) in TRANSLATED {
        let (english_page, chinese_page) = (read(english), read(chinese));
        let levels = |page: &str| headings(page).iter().map(|(level, _)| *level).collect::<Vec<_>>();
        assert_eq!(levels(&chinese_page), levels(&english_page), "{chinese}: headings of {english}");
        let (theirs, ours) = (code_blocks(&english_page), code_blocks(&chinese_page));
        for (number, (english_block, chinese_block)) in theirs.iter().zip(&ours).enumerate() {
            assert_eq!(chinese_block, english_block, "{chinese}: code block {} of {english}", number + 1);
        }
        assert_eq!(ours.len(), theirs.len(), "{chinese}: code blocks of {english}");
        let is_chinese = |text: &&String| text.chars().any(|letter| ('\u{4e00}'..='\u{9fff}').contains(&letter));
        let translated = headings(&chinese_page);
        let texts: Vec<String> = translated.into_iter().map(|(_, text)| text).collect();
        assert!(texts.iter().filter(is_chinese).count() * 2 > texts.len(), "{chinese} is not in Chinese: {texts:?}");
    }
}

/// The commands of a shell block. A line that ends with `\\` continues.
fn count_of_commands(block: &str) -> usize {
    let lines: Vec<&str> = block.lines().filter(|line| !line.starts_with("```")).collect();
    lines.iter().enumerate().filter(|(at, _)| *at == 0 || !lines[at - 1].ends_with('\\')).count()
}

#[test]
fn each_way_to_install_takes_at_most_six_commands() {
    let page = read("docs/cluster.md");
    let install = page.split("\n## ").find(|section| section.starts_with("4. Install\n")).unwrap();
    let secrets = page.split("\n## ").find(|section| section.starts_with("3. Secrets\n")).unwrap();
    let secrets = count_of_commands(&code_blocks(secrets)[0]);
    for (way, shared) in [("With Helm", secrets), ("With kustomize", secrets), ("The program alone", 0)] {
        let section =
            install.split("\n### ").find(|section| section.starts_with(way)).unwrap_or_else(|| panic!("{way}"));
        let blocks = code_blocks(section);
        assert_eq!(blocks.len(), 1, "{way}");
        let commands = count_of_commands(&blocks[0]) + shared;
        assert!((3..=6).contains(&commands), "{way}: {commands} commands");
    }
}

#[test]
fn every_place_with_an_example_name_is_listed() {
    let page = read("docs/cluster.md");
    let section = page.split("\n## ").find(|section| section.starts_with("2. What to change\n")).unwrap();
    let cells: Vec<&str> =
        section.lines().filter_map(|line| line.strip_prefix("| `deploy/")?.split(" |").next()).collect();
    // The further names in a cell are below the first one's folder.
    let mut listed = Vec::new();
    for cell in cells {
        let mut names = cell.split('`').filter(|name| !name.is_empty() && *name != ", ");
        let first = format!("deploy/{}", names.next().unwrap());
        let folder = first.split("/base/").next().unwrap().to_owned();
        listed.extend(names.map(|name| format!("{folder}/{name}")));
        listed.push(first);
    }
    let listed: Vec<Regex> = listed
        .iter()
        .map(|glob| Regex::new(&format!("^{}$", regex::escape(glob).replace(r"\*", "[^/]*"))).unwrap())
        .collect();
    let example = Regex::new(
        r"git\.example\.com/uyou/platform-config|tagrelay\.example\.com|registry\.example\.com|docker\.io/uyou",
    )
    .unwrap();
    let mut missing = Vec::new();
    for folder in ["deploy/kubernetes", "deploy/argocd", "deploy/config-repository", "deploy/ci"] {
        for name in files_below(folder) {
            let text = read(&name);
            let is_named = text.lines().any(|line| !line.trim_start().starts_with('#') && example.is_match(line));
            if is_named && !name.ends_with(".md") && !listed.iter().any(|glob| glob.is_match(&name)) {
                missing.push(name);
            }
        }
    }
    assert_eq!(missing, [] as [&str; 0], "these are not in docs/cluster.md");
}

#[test]
fn second_example_is_valid_with_the_rest_of_the_settings() {
    let page = read("docs/cluster.md");
    let section = page.split("\n## ").find(|section| section.starts_with("GitLab with Harbor\n")).unwrap();
    let own = code_blocks(section).into_iter().find(|block| block.starts_with("```toml")).unwrap();
    let own = own.trim_start_matches("```toml\n").trim_end_matches("\n```");
    let base: toml::Table = read("deploy/kubernetes/tagrelay.toml").parse().unwrap();
    let mut merged: toml::Table = own.parse().unwrap();
    for key in ["server", "environment", "api_token"] {
        merged.insert(key.to_owned(), base[key].clone());
    }
    let secrets = tempfile::tempdir().unwrap();
    let keys = code_blocks(section).into_iter().find(|block| block.contains("create secret")).unwrap();
    for key in keys.split("--from-literal=").skip(1).filter_map(|rest| rest.split('=').next()) {
        std::fs::write(secrets.path().join(key), "a secret of enough length").unwrap();
    }
    let text = merged.to_string().replace("/run/secrets/tagrelay", secrets.path().to_str().unwrap());
    let settings = tagrelay::settings::Settings::parse("t.toml", &text, &|_| Err(std::env::VarError::NotPresent));
    assert_eq!(settings.unwrap_or_else(|faults| panic!("{faults}")).warnings, []);
}
