//! ApplicationSets: which of them read files of a branch, and which applications they generate.

use globset::GlobBuilder;
use serde::Deserialize;

use super::touched::WatchedBranch;
use super::{ApplicationName, Source};

/// The most nested generators that are read (`matrix` and `merge`). Argo CD allows two levels.
const MAX_NESTING: usize = 4;

/// An ApplicationSet with generators that read Git.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApplicationSet {
    pub name: String,
    /// The Git generators, with those inside of `matrix` and `merge`.
    generators: Vec<GitGenerator>,
    /// The applications that it reports as generated. Empty before Argo CD 2.12.
    pub applications: Vec<ApplicationName>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct GitGenerator {
    source: Source,
    /// Globs of files.
    files: Vec<String>,
    /// Globs of folders.
    folders: Vec<String>,
}

impl ApplicationSet {
    /// Returns whether a generator reads one of these files of the branch.
    pub fn is_touched_by<'a>(&self, branch: &WatchedBranch, files: impl IntoIterator<Item = &'a str> + Clone) -> bool {
        let on_branch = self.generators.iter().filter(|generator| branch.feeds(&generator.source));
        on_branch.into_iter().any(|generator| {
            let globs = |patterns: &[String]| -> Vec<globset::GlobMatcher> {
                let glob =
                    |pattern: &String| GlobBuilder::new(pattern.trim_matches('/')).literal_separator(true).build();
                patterns.iter().filter_map(|pattern| Some(glob(pattern).ok()?.compile_matcher())).collect()
            };
            let (in_files, in_folders) = (globs(&generator.files), globs(&generator.folders));
            files.clone().into_iter().any(|file| {
                let is_below = || {
                    let folders = file.match_indices('/').map(|(slash, _)| &file[..slash]);
                    folders.into_iter().any(|folder| in_folders.iter().any(|glob| glob.is_match(folder)))
                };
                in_files.iter().any(|glob| glob.is_match(file)) || is_below()
            })
        })
    }
}

/// The answer to `GET /api/v1/applicationsets` (`v1alpha1ApplicationSetList`).
#[derive(Deserialize)]
pub(super) struct WireSets {
    items: Option<Vec<WireSet>>,
}

#[derive(Deserialize)]
struct WireSet {
    metadata: WireMetadata,
    spec: Option<WireSpec>,
    status: Option<WireStatus>,
}

#[derive(Deserialize)]
struct WireMetadata {
    name: String,
    namespace: Option<String>,
}

#[derive(Deserialize)]
struct WireSpec {
    generators: Option<Vec<WireGenerator>>,
}

#[derive(Deserialize)]
struct WireGenerator {
    git: Option<WireGit>,
    matrix: Option<WireNested>,
    merge: Option<WireNested>,
}

#[derive(Deserialize)]
struct WireNested {
    generators: Option<Vec<WireGenerator>>,
}

#[derive(Deserialize)]
struct WireGit {
    #[serde(rename = "repoURL", default)]
    repo_url: String,
    #[serde(default)]
    revision: Option<String>,
    files: Option<Vec<WirePath>>,
    directories: Option<Vec<WirePath>>,
}

#[derive(Deserialize)]
struct WirePath {
    #[serde(default)]
    path: String,
    #[serde(default)]
    exclude: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireStatus {
    resources: Option<Vec<WireGenerated>>,
    application_status: Option<Vec<WireApplicationStatus>>,
}

#[derive(Deserialize)]
struct WireGenerated {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    name: String,
    namespace: Option<String>,
}

#[derive(Deserialize)]
struct WireApplicationStatus {
    #[serde(default)]
    application: String,
}

impl WireSets {
    pub(super) fn into_sets(self) -> Vec<ApplicationSet> {
        self.items.into_iter().flatten().map(ApplicationSet::from).collect()
    }
}

impl From<WireSet> for ApplicationSet {
    fn from(wire: WireSet) -> Self {
        let WireMetadata { name, namespace } = wire.metadata;
        let mut generators = Vec::new();
        gather(wire.spec.and_then(|spec| spec.generators).unwrap_or_default(), &mut generators, 0);
        let (generated, statuses) =
            wire.status.map_or((None, None), |status| (status.resources, status.application_status));
        let generated = generated.into_iter().flatten().filter(|resource| resource.kind == "Application");
        let mut applications: Vec<ApplicationName> = generated
            .map(|resource| ApplicationName {
                namespace: resource.namespace.filter(|text| !text.is_empty()),
                name: resource.name,
            })
            .collect();
        for status in statuses.into_iter().flatten().filter(|status| !status.application.is_empty()) {
            if applications.iter().all(|known| known.name != status.application) {
                // An ApplicationSet generates applications in its own namespace.
                applications.push(ApplicationName { namespace: namespace.clone(), name: status.application });
            }
        }
        Self { name, generators, applications }
    }
}

fn gather(wire: Vec<WireGenerator>, found: &mut Vec<GitGenerator>, depth: usize) {
    if depth > MAX_NESTING {
        return;
    }
    for WireGenerator { git, matrix, merge } in wire {
        if let Some(git) = git {
            let paths = |paths: Option<Vec<WirePath>>| -> Vec<String> {
                let wanted = paths.into_iter().flatten().filter(|path| !path.exclude.unwrap_or(false));
                wanted.map(|path| path.path).filter(|path| !path.is_empty()).collect()
            };
            let source = Source {
                repo_url: git.repo_url,
                target_revision: git.revision.unwrap_or_default(),
                ..Source::default()
            };
            found.push(GitGenerator { source, files: paths(git.files), folders: paths(git.directories) });
        }
        for nested in [matrix, merge].into_iter().flatten() {
            gather(nested.generators.unwrap_or_default(), found, depth + 1);
        }
    }
}

#[cfg(test)]
pub(super) fn application_set(json: serde_json::Value) -> ApplicationSet {
    let list = serde_json::json!({ "items": [json] }).to_string();
    serde_json::from_str::<WireSets>(&list).unwrap().into_sets().remove(0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use url::Url;

    use super::*;

    fn branch() -> WatchedBranch {
        let repository = Url::parse("https://git.example.com/uyou/config.git").unwrap();
        WatchedBranch { repository, branch: "main".to_owned(), is_default: true }
    }

    #[test]
    fn generators_read_files_and_folders_of_the_branch() {
        let git = |more: serde_json::Value| {
            let mut git = json!({"repoURL": "https://git.example.com/uyou/config", "revision": "HEAD"});
            git.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            json!({"metadata": {"name": "s"}, "spec": {"generators": [{"matrix": {"generators": [{"list": {}}, {"git": git}]}}]}})
        };
        let files = application_set(git(json!({"files": [{"path": "environments/staging/*/set.yaml"}]})));
        assert!(files.is_touched_by(&branch(), ["environments/staging/a/set.yaml"]));
        assert!(
            !files.is_touched_by(&branch(), ["environments/production/a/set.yaml", "environments/staging/set.yaml"])
        );
        let folders =
            application_set(git(json!({"directories": [{"path": "apps/*"}, {"path": "other/*", "exclude": true}]})));
        assert!(folders.is_touched_by(&branch(), ["apps/a/deep/er.yaml"]));
        assert!(!folders.is_touched_by(&branch(), ["apps/a.yaml", "other/a/b.yaml"]));
        let elsewhere = application_set(git(json!({"revision": "release", "files": [{"path": "**"}]})));
        assert!(!elsewhere.is_touched_by(&branch(), ["a"]));
    }

    #[test]
    fn generated_applications_come_from_either_status() {
        let set = application_set(json!({"metadata": {"name": "s", "namespace": "argocd"}, "spec": {}, "status": {
            "resources": [{"kind": "Application", "name": "a", "namespace": "argocd"}, {"kind": "Other", "name": "x"}],
            "applicationStatus": [{"application": "a"}, {"application": "b"}]}}));
        let names: Vec<String> = set.applications.iter().map(ToString::to_string).collect();
        assert_eq!(names, ["argocd/a", "argocd/b"]);
        assert_eq!(application_set(json!({"metadata": {"name": "s"}})).applications, []);
    }
}
