//! Finds the applications that read given files.

use std::collections::BTreeSet;

use globset::GlobBuilder;
use url::Url;

use super::{Application, Hydrator, Source};

/// A branch of a config repository as applications name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchedBranch {
    /// `argocd_url` of the config repository, else its `url`.
    pub repository: Url,
    /// Without `refs/heads/`.
    pub branch: String,
    /// Whether it is the default branch, which `HEAD` names.
    pub is_default: bool,
}

impl WatchedBranch {
    /// Returns whether a source reads this branch.
    pub(super) fn feeds(&self, source: &Source) -> bool {
        let revision = source.target_revision.strip_prefix("refs/heads/").unwrap_or(&source.target_revision);
        let reads_it = match revision {
            "" | "HEAD" => self.is_default,
            named => named == self.branch,
        };
        reads_it && same_repository(self.repository.as_str(), &source.repo_url)
    }
}

impl Application {
    /// Returns whether one of its sources reads the branch.
    pub fn reads(&self, branch: &WatchedBranch) -> bool {
        self.read_sources().any(|source| branch.feeds(source))
    }

    /// Returns whether it would read one of these files, if its revision were the branch's and it were not being deleted.
    pub fn would_read<'a>(&self, branch: &WatchedBranch, files: impl IntoIterator<Item = &'a str>) -> bool {
        let mut of_branch = self.clone();
        let sources = of_branch.sources.iter_mut().chain(of_branch.hydrator.iter_mut().map(|one| &mut one.dry_source));
        sources.for_each(|source| source.target_revision.clone_from(&branch.branch));
        of_branch.is_touched_by(branch, files)
    }

    /// Returns the revision that it reads of the branch's repository, if that is another one.
    pub fn other_revision_of(&self, branch: &WatchedBranch) -> Option<&str> {
        let mut others = self
            .read_sources()
            .filter(|source| same_repository(branch.repository.as_str(), &source.repo_url) && !branch.feeds(source));
        others.next().map(|source| source.target_revision.as_str())
    }

    /// Returns the sources of its manifests, with the one that its hydrator renders.
    fn read_sources(&self) -> impl Iterator<Item = &Source> {
        self.sources.iter().chain(self.hydrator.iter().map(|hydrator| &hydrator.dry_source))
    }

    /// Returns its hydrator, if that renders the branch.
    pub(super) fn hydrator_of(&self, branch: &WatchedBranch) -> Option<&Hydrator> {
        self.hydrator.as_ref().filter(|hydrator| branch.feeds(&hydrator.dry_source))
    }

    /// Returns whether it reads one of these files of the branch. Paths are relative to the repository, without `/` in
    /// front.
    ///
    /// It reads the paths in its `manifest-generate-paths`. Without that annotation it reads the folders of its sources and
    /// its value files.
    pub fn is_touched_by<'a>(&self, branch: &WatchedBranch, files: impl IntoIterator<Item = &'a str>) -> bool {
        self.is_made_of(branch).is_some_and(|is_part| files.into_iter().any(is_part))
    }

    /// As [`Self::is_touched_by`], for many files: the cost does not grow with their number.
    pub(super) fn reads_any(&self, branch: &WatchedBranch, files: &BTreeSet<&str>) -> bool {
        self.parts(branch).iter().any(|part| part.holds_any(files))
    }

    /// Returns a predicate for the files of the branch that it reads; `None`: it reads none.
    pub fn is_made_of(&self, branch: &WatchedBranch) -> Option<impl Fn(&str) -> bool + use<>> {
        let parts = self.parts(branch);
        (!parts.is_empty()).then_some(move |file: &str| parts.iter().any(|part| part.holds(file)))
    }

    /// Returns the commit of the branch that it was last compared at, or that its hydrator rendered last.
    pub fn revision_in(&self, branch: &WatchedBranch) -> Option<&str> {
        self.revisions_of(branch).first().copied()
    }

    /// Returns the revisions of the sources that read the branch, or all revisions if no source does.
    pub(super) fn revisions_of(&self, branch: &WatchedBranch) -> Vec<&str> {
        if let Some(hydrator) = self.hydrator_of(branch) {
            let rendered = hydrator.last.as_ref().and_then(|last| last.dry_commit.as_deref());
            return rendered.into_iter().collect();
        }
        let all = || self.revisions.iter().map(String::as_str).collect();
        if self.sources.len() != self.revisions.len() || !self.reads(branch) {
            return all();
        }
        let pairs = self.sources.iter().zip(&self.revisions);
        pairs.filter(|(source, _)| branch.feeds(source)).map(|(_, revision)| revision.as_str()).collect()
    }

    fn parts(&self, branch: &WatchedBranch) -> Vec<Part> {
        let mut parts = Vec::new();
        for source in self.read_sources().filter(|source| branch.feeds(source)) {
            let folder = source.path.as_deref().and_then(|path| resolve("", path));
            match (&self.generate_paths, &folder) {
                (Some(paths), _) => {
                    let folder = folder.as_deref().unwrap_or_default();
                    parts.extend(
                        paths.split(';').filter(|path| !path.is_empty()).filter_map(|path| Part::new(folder, path)),
                    );
                    continue;
                }
                (None, Some(folder)) => parts.push(Part::Below(folder.clone())),
                (None, None) => {}
            }
            let own = source.value_files.iter().filter(|file| !file.starts_with('$'));
            parts.extend(own.filter_map(|file| Part::new(folder.as_deref().unwrap_or_default(), file)));
            if let Some(name) = &source.reference {
                let prefix = format!("${name}/");
                let referring = self.sources.iter().flat_map(|other| &other.value_files);
                parts.extend(referring.filter_map(|file| Part::new("", file.strip_prefix(&prefix)?)));
            }
        }
        parts
    }
}

/// Files of a repository.
enum Part {
    /// A file, or a folder with everything below it; empty: all files.
    Below(String),
    /// All files that match a glob.
    Matching(globset::GlobMatcher),
}

impl Part {
    fn new(folder: &str, path: &str) -> Option<Self> {
        let path = resolve(folder, path)?;
        if !path.contains(['*', '?', '[']) {
            return Some(Self::Below(path));
        }
        let glob = GlobBuilder::new(&path).literal_separator(true).build().ok()?;
        Some(Self::Matching(glob.compile_matcher()))
    }

    fn holds_any(&self, files: &BTreeSet<&str>) -> bool {
        match self {
            Self::Below(folder) if folder.is_empty() => !files.is_empty(),
            Self::Below(folder) => {
                let below = format!("{folder}/");
                let next = files.range(below.as_str()..).next();
                files.contains(folder.as_str()) || next.is_some_and(|file| file.starts_with(&below))
            }
            Self::Matching(glob) => files.iter().any(|file| glob.is_match(file)),
        }
    }

    fn holds(&self, file: &str) -> bool {
        match self {
            Self::Below(folder) if folder.is_empty() => true,
            Self::Below(folder) => {
                file.strip_prefix(folder.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
            Self::Matching(glob) => glob.is_match(file),
        }
    }
}

/// Returns a path relative to the repository: from its top if it begins with `/`, else from `folder`. `None`: it leaves
/// the repository.
fn resolve(folder: &str, path: &str) -> Option<String> {
    let begin = if path.starts_with('/') { "" } else { folder };
    let mut components: Vec<&str> = Vec::new();
    for component in begin.split('/').chain(path.split('/')) {
        match component {
            "" | "." => {}
            ".." => {
                components.pop()?;
            }
            other => components.push(other),
        }
    }
    Some(components.join("/"))
}

/// Returns whether two URLs name the same repository: same host and path, by any protocol and port.
///
/// Argo CD's webhook compares them like this (<https://github.com/argoproj/argo-cd/blob/v2.13.0/util/webhook/webhook.go>,
/// `getWebUrlRegex`).
fn same_repository(one: &str, other: &str) -> bool {
    matches!((place(one), place(other)), (Some(one), Some(other)) if one == other)
}

/// Returns host and path in lower case, without `.git`; `None`: the URL has no path.
pub(super) fn place(url: &str) -> Option<(String, String)> {
    let (host, path) = match Url::parse(url) {
        Ok(url) if url.scheme() == "file" || url.has_host() => {
            (url.host_str().unwrap_or_default().to_owned(), url.path().to_owned())
        }
        // `git@host:path`, which is not a URL.
        _ => {
            let (host, path) = url.split_once(':')?;
            (host.rsplit('@').next()?.to_owned(), path.to_owned())
        }
    };
    let path = path.trim_matches('/').to_lowercase();
    let path = path.strip_suffix(".git").unwrap_or(&path).trim_end_matches('/');
    (!path.is_empty()).then(|| (host.to_lowercase(), path.to_owned()))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::application::application;
    use super::*;

    fn branch() -> WatchedBranch {
        let repository = Url::parse("https://git.example.com/uyou/platform-config.git").unwrap();
        WatchedBranch { repository, branch: "main".to_owned(), is_default: true }
    }

    fn made_of(spec: Value) -> Application {
        application(json!({"metadata": {"name": "a"}, "spec": spec}))
    }

    fn source(path: &str, revision: &str) -> Value {
        json!({"source": {"repoURL": "https://git.example.com/uyou/platform-config.git", "path": path, "targetRevision": revision}})
    }

    #[test]
    fn folder_includes_everything_below_it() {
        let touched = |path: &str, file: &str| made_of(source(path, "main")).is_touched_by(&branch(), [file]);
        assert!(touched("environments/staging", "environments/staging/user.yaml"));
        assert!(touched("environments/staging/", "environments/staging/a/b.yaml"));
        assert!(touched("./environments/staging", "environments/staging/a.yaml"));
        assert!(touched(".", "a.yaml"));
        assert!(!touched("environments/staging", "environments/staging-2/user.yaml"));
        assert!(!touched("environments/staging", "environments/production/user.yaml"));
        assert!(!touched("../elsewhere", "elsewhere/user.yaml"));
    }

    #[test]
    fn one_of_many_files_is_found() {
        let files: BTreeSet<&str> = ["a-b/c.yaml", "a/b.yaml", "a0.yaml", "x.yaml"].into();
        let reads = |path: &str| made_of(source(path, "main")).reads_any(&branch(), &files);
        assert!(reads("a") && reads("a-b") && reads("."));
        assert!(!reads("a/b") && !reads("b") && !reads("x"));
        let mut globbed = made_of(source("a", "main"));
        globbed.generate_paths = Some("/*.yaml".to_owned());
        assert!(globbed.reads_any(&branch(), &files) && !globbed.reads_any(&branch(), &BTreeSet::new()));
    }

    #[test]
    fn only_sources_on_the_branch_count() {
        let touched = |revision: &str, is_default: bool| {
            let branch = WatchedBranch { is_default, ..branch() };
            made_of(source("a", revision)).is_touched_by(&branch, ["a/b.yaml"])
        };
        assert!(touched("main", false) && touched("refs/heads/main", false));
        assert!(touched("HEAD", true) && touched("", true));
        assert!(!touched("HEAD", false) && !touched("", false));
        assert!(!touched("release", true) && !touched("v1.2.3", true));
    }

    #[test]
    fn repositories_are_compared_by_host_and_path() {
        let ours = "https://git.example.com/uyou/platform-config.git";
        for other in [
            "https://git.example.com/uyou/platform-config",
            "https://GIT.example.com/Uyou/Platform-Config.git",
            "git@git.example.com:uyou/platform-config.git",
            "ssh://git@git.example.com:2222/uyou/platform-config.git",
            "http://token@git.example.com:3000/uyou/platform-config/",
        ] {
            assert!(same_repository(ours, other), "{other}");
        }
        for other in [
            "https://git.example.com/uyou/platform-config-2.git",
            "https://other.example.com/uyou/platform-config.git",
            "https://git.example.com/",
            "",
        ] {
            assert!(!same_repository(ours, other), "{other}");
        }
        assert!(same_repository("file:///srv/config.git", "file:///srv/config.git"));
    }

    #[test]
    fn value_files_count_in_any_folder_and_source() {
        // As in deploy/argocd/apisix-staging.yaml.
        let apisix = made_of(json!({"sources": [
            {"repoURL": "https://apache.github.io/apisix-helm-chart", "chart": "apisix", "targetRevision": "2.10.0",
             "helm": {"valueFiles": ["$config/base/apisix/values.yaml", "$config/environments/staging/apisix/values.yaml"]}},
            {"repoURL": "git@git.example.com:uyou/platform-config.git", "targetRevision": "main", "ref": "config"}]}));
        assert!(apisix.reads(&branch()));
        assert!(apisix.is_touched_by(&branch(), ["x", "environments/staging/apisix/values.yaml"]));
        assert!(!apisix.is_touched_by(&branch(), ["environments/staging/apisix/other.yaml"]));
        let chart = made_of(
            json!({"source": {"repoURL": "https://git.example.com/uyou/platform-config", "path": "charts/user",
            "helm": {"valueFiles": ["../../environments/staging/user.yaml", "/shared.yaml"]}}}),
        );
        assert!(chart.is_touched_by(&branch(), ["environments/staging/user.yaml"]));
        assert!(chart.is_touched_by(&branch(), ["shared.yaml"]));
        assert!(!chart.is_touched_by(&branch(), ["environments/production/user.yaml"]));
    }

    #[test]
    fn annotation_restricts_the_files() {
        let annotated = |paths: &str, file: &str| {
            let mut app = made_of(source("environments/staging/overlay", "main"));
            app.generate_paths = Some(paths.to_owned());
            app.is_touched_by(&branch(), [file])
        };
        assert!(annotated(".", "environments/staging/overlay/k.yaml"));
        assert!(annotated(".;../../../base", "base/user/deployment.yaml"));
        assert!(annotated("/base", "base/user/deployment.yaml"));
        assert!(annotated("/environments/*/overlay/*-service.yaml", "environments/staging/overlay/user-service.yaml"));
        assert!(!annotated("/base", "environments/staging/overlay/k.yaml"));
        assert!(!annotated("/base/*.yaml", "base/user/deployment.yaml"));
    }

    #[test]
    fn only_revisions_of_the_branch_are_returned() {
        let app = application(json!({"metadata": {"name": "a"},
            "spec": {"sources": [{"repoURL": "https://charts", "chart": "apisix"},
                {"repoURL": "https://git.example.com/uyou/platform-config", "ref": "config"}]},
            "status": {"sync": {"revisions": ["2.10.0", "abc"]}}}));
        assert_eq!(app.revisions_of(&branch()), ["abc"]);
        let other = WatchedBranch { branch: "x".to_owned(), is_default: false, ..branch() };
        assert_eq!(app.revisions_of(&other), ["2.10.0", "abc"]);
    }
}
