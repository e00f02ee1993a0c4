//! Proposes environments and image rules for the sites of a repository.

use std::collections::{BTreeMap, BTreeSet};

use crate::cli::sites::FoundSite;

/// Names of folders that are environments, from the first stage to the last.
const STAGES: [&[&str]; 4] = [
    &["dev", "develop", "development", "sandbox", "preview"],
    &["test", "testing", "tst", "qa", "int", "integration"],
    &["staging", "stage", "stg", "uat", "preprod", "pre-prod", "preproduction", "pre-production", "acceptance"],
    &["prod", "prd", "production", "live"],
];

/// The shortest commit that `min_length` allows.
const SHORTEST_COMMIT: usize = 7;

/// Above this many folders, an environment gets one glob instead.
const MOST_PATHS: usize = 4;

/// A proposed environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Environment {
    pub(super) name: String,
    /// Folders, or globs.
    pub(super) paths: Vec<String>,
    pub(super) is_automatic: bool,
    pub(super) promote_from: Option<String>,
    /// The prefix of its tags, if it differs from that of the image rules.
    pub(super) prefix: Option<String>,
}

/// A proposed image rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) repository: String,
    /// The value of `tag`; `None`: the default.
    pub(super) tag: Option<String>,
}

/// Returns the environments that the folders of the sites name, the first stage first.
pub(super) fn environments(sites: &[FoundSite]) -> Vec<Environment> {
    let mut folders: BTreeMap<(usize, &str), BTreeSet<Vec<&str>>> = BTreeMap::new();
    for site in sites {
        let folder: Vec<&str> = site.path.split('/').collect();
        let Some((_, folder)) = folder.split_last() else { continue };
        let named = folder.iter().enumerate().find_map(|(at, name)| Some((at, stage_of(name)?, *name)));
        if let Some((at, stage, name)) = named {
            folders.entry((stage, name)).or_default().insert(folder[..=at].to_vec());
        }
    }
    let mut environments: Vec<Environment> = Vec::new();
    for ((stage, name), folders) in folders {
        let (name, is_automatic) = (name.to_owned(), stage < STAGES.len() - 1);
        environments.push(Environment { name, paths: paths(&folders), is_automatic, promote_from: None, prefix: None });
    }
    if environments.is_empty() {
        let (name, paths) = ("main".to_owned(), vec!["**".to_owned()]);
        environments.push(Environment { name, paths, is_automatic: true, promote_from: None, prefix: None });
    }
    connect(&mut environments);
    environments
}

/// Sets `promote_from` of each manual environment to the last automatic one before it.
pub(super) fn connect(environments: &mut [Environment]) {
    let mut before: Option<String> = None;
    for environment in environments {
        environment.promote_from = before.clone().filter(|_| !environment.is_automatic);
        if environment.is_automatic {
            before = Some(environment.name.clone());
        }
    }
}

fn stage_of(folder: &str) -> Option<usize> {
    let folder = folder.to_ascii_lowercase();
    STAGES.iter().position(|names| names.contains(&folder.as_str()))
}

/// Returns the folders, or one glob per depth if there are many: `apps/*/overlays/production`.
fn paths(folders: &BTreeSet<Vec<&str>>) -> Vec<String> {
    if folders.len() <= MOST_PATHS {
        return folders.iter().map(|folder| folder.join("/")).collect();
    }
    let mut globs: BTreeMap<usize, Vec<&str>> = BTreeMap::new();
    for folder in folders {
        let glob = globs.entry(folder.len()).or_insert_with(|| folder.clone());
        for (part, other) in glob.iter_mut().zip(folder) {
            if part != other {
                *part = "*";
            }
        }
    }
    globs.into_values().map(|glob| format!("{}/**", glob.join("/"))).collect()
}

/// Returns the patterns of repositories with tags that look like commits: one per registry and owner.
pub(super) fn patterns(sites: &[FoundSite]) -> BTreeSet<String> {
    let built = sites.iter().filter(|site| site.tag.as_deref().and_then(commit_prefix).is_some());
    built.map(owner_pattern).collect()
}

/// Returns the patterns of all repositories, for messages.
pub(super) fn all_patterns(sites: &[FoundSite]) -> BTreeSet<String> {
    sites.iter().map(owner_pattern).collect()
}

fn owner_pattern(site: &FoundSite) -> String {
    let name = site.repository.as_str();
    let owner = name.rsplit_once('/').map_or(name, |(owner, _)| owner);
    format!("{owner}/*")
}

/// Returns the text before a commit at the end of a tag: empty, `sha-`, `dev-`; `None`: the tag does not end with a commit.
fn commit_prefix(tag: &str) -> Option<&str> {
    let start = tag.rfind(['-', '_', '.']).map_or(0, |at| at + 1);
    let (prefix, commit) = tag.split_at(start);
    let is_hex = commit.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    // A date or a number has no letter; a commit of seven digits is rare.
    let is_commit = is_hex && commit.bytes().any(|byte| byte.is_ascii_alphabetic());
    (is_commit && (SHORTEST_COMMIT..=40).contains(&commit.len())).then_some(prefix)
}

/// Returns the rule for a pattern, after the tags of the sites that it covers. Sets the prefixes of environments that have
/// their own.
pub(super) fn rule(pattern: &str, sites: &[FoundSite], environments: &mut [Environment]) -> Rule {
    let glob = globset::GlobBuilder::new(pattern).literal_separator(true).build().map(|glob| glob.compile_matcher());
    let covered: Vec<&FoundSite> = match glob {
        Ok(glob) => sites.iter().filter(|site| glob.is_match(site.repository.as_str())).collect(),
        Err(_) => Vec::new(),
    };
    let tags: Vec<&str> = covered.iter().filter_map(|site| site.tag.as_deref()).collect();
    let commits: Vec<(&str, &str)> = tags.iter().filter_map(|tag| Some((commit_prefix(tag)?, *tag))).collect();
    let repository = pattern.to_owned();
    if commits.is_empty() {
        let is_version = |tag: &&str| semver::Version::parse(tag.strip_prefix('v').unwrap_or(tag)).is_ok();
        let kind = if !tags.is_empty() && tags.iter().all(is_version) { "semver" } else { "any" };
        return Rule { repository, tag: Some(format!("{{ kind = \"{kind}\" }}")) };
    }
    // The last environment decides: branch builds are for the first ones.
    let own = |environment: &Environment| {
        let of = |site: &&&FoundSite| contains(environment, &site.path);
        let prefixes: BTreeSet<&str> =
            covered.iter().filter(of).filter_map(|site| commit_prefix(site.tag.as_deref()?)).collect();
        if prefixes.len() == 1 { prefixes.first().map(|prefix| (*prefix).to_owned()) } else { None }
    };
    let main = environments.iter().rev().find_map(own).unwrap_or_default();
    for environment in environments.iter_mut() {
        if let Some(prefix) = own(environment).filter(|prefix| *prefix != main) {
            environment.prefix = Some(prefix);
        }
    }
    let lengths = commits.iter().filter(|(prefix, _)| *prefix == main).map(|(prefix, tag)| tag.len() - prefix.len());
    let shortest = lengths.min().unwrap_or(40);
    let prefix = if main.is_empty() { String::new() } else { format!(", prefix = \"{main}\"") };
    let length = if shortest == 40 { String::new() } else { format!(", min_length = {shortest}") };
    let is_default = prefix.is_empty() && length.is_empty();
    Rule { repository, tag: (!is_default).then(|| format!("{{ kind = \"commit-sha\"{prefix}{length} }}")) }
}

fn contains(environment: &Environment, path: &str) -> bool {
    environment.paths.iter().any(|own| {
        let glob = if own.contains('*') { own.clone() } else { format!("{own}/**") };
        let glob = globset::GlobBuilder::new(&glob).literal_separator(true).build();
        glob.is_ok_and(|glob| glob.compile_matcher().is_match(path))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(path: &str, reference: &str) -> FoundSite {
        let (repository, tag) = reference.rsplit_once(':').unwrap();
        FoundSite::for_test(path, repository, tag)
    }

    const SHA: &str = "9f8e7d6c5b4a39281706f5e4d3c2b1a098765432";

    #[test]
    fn environments_are_the_folders_with_usual_names() {
        let sites = [
            site("environments/production/a.yaml", "uyou/a:1"),
            site("environments/staging/a.yaml", "uyou/a:1"),
            site("environments/dev/b/a.yaml", "uyou/a:1"),
            site("base/a.yaml", "uyou/a:1"),
        ];
        let found: Vec<_> = environments(&sites)
            .into_iter()
            .map(|found| (found.name, found.paths, found.is_automatic, found.promote_from))
            .collect();
        let paths = |name: &str| vec![format!("environments/{name}")];
        assert_eq!(
            found,
            [
                ("dev".to_owned(), paths("dev"), true, None),
                ("staging".to_owned(), paths("staging"), true, None),
                ("production".to_owned(), paths("production"), false, Some("staging".to_owned())),
            ]
        );
        assert_eq!(environments(&[site("a.yaml", "uyou/a:1")])[0].paths, ["**"]);
    }

    #[test]
    fn many_folders_become_a_glob() {
        let sites: Vec<FoundSite> =
            (0..9).map(|number| site(&format!("apps/{number}/overlays/prod/a.yaml"), "uyou/a:1")).collect();
        assert_eq!(environments(&sites)[0].paths, ["apps/*/overlays/prod/**"]);
    }

    #[test]
    fn rules_follow_the_tags() {
        let sites = [
            site("dev/a.yaml", &format!("uyou/a:dev-{SHA}")),
            site("prod/a.yaml", &format!("uyou/a:{SHA}")),
            site("prod/b.yaml", "ghcr.io/team/b:sha-9f8e7d6"),
            site("prod/c.yaml", "library/redis:7.2.4"),
            site("prod/d.yaml", "library/busybox:latest"),
        ];
        assert_eq!(patterns(&sites).into_iter().collect::<Vec<_>>(), ["docker.io/uyou/*", "ghcr.io/team/*"]);
        let mut found = environments(&sites);
        let tag = |pattern: &str, found: &mut [Environment]| rule(pattern, &sites, found).tag;
        assert_eq!(tag("docker.io/uyou/*", &mut found), None);
        assert_eq!(found[0].prefix.as_deref(), Some("dev-"));
        assert_eq!(found[1].prefix, None);
        let expected = "{ kind = \"commit-sha\", prefix = \"sha-\", min_length = 7 }";
        assert_eq!(tag("ghcr.io/team/*", &mut found).as_deref(), Some(expected));
        assert_eq!(tag("docker.io/library/redis", &mut found).as_deref(), Some("{ kind = \"semver\" }"));
        assert_eq!(tag("docker.io/library/busybox", &mut found).as_deref(), Some("{ kind = \"any\" }"));
    }

    #[test]
    fn dates_and_versions_are_not_commits() {
        for tag in ["latest", "1.2.3", "20261123", "v1", "main-20261123", "deadbee1234567890deadbee1234567890deadbee0"]
        {
            assert_eq!(commit_prefix(tag), None, "{tag}");
        }
        assert_eq!(commit_prefix("9f8e7d6"), Some(""));
        assert_eq!(commit_prefix("release_2-9f8e7d6"), Some("release_2-"));
    }
}
