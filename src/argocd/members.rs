//! Which applications belong to an environment.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::{Application, ApplicationName, ApplicationSet, Selection, WatchedBranch};

/// What an environment consists of, as far as Argo CD sees it.
#[derive(Debug, Clone)]
pub struct Reach<'a> {
    pub branch: &'a WatchedBranch,
    /// The files that name its managed images.
    pub files: &'a BTreeSet<&'a str>,
    pub selection: &'a Selection,
    /// The applications that have its labels, if it selects by labels.
    pub labelled: Option<&'a HashSet<ApplicationName>>,
}

/// Why an application belongs to an environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Via {
    /// It reads files of the environment.
    Source,
    /// Its hydrator renders files of the environment.
    Hydrator,
    /// The settings select it.
    Settings,
    /// It is a resource of another application of the environment.
    Parent(ApplicationName),
    /// An ApplicationSet that reads files of the environment generates it.
    Set(String),
}

/// An application of an environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member<'a> {
    pub app: &'a Application,
    pub via: Via,
}

impl Reach<'_> {
    /// Returns why an application belongs to the environment by itself.
    fn takes(&self, app: &Application) -> Option<Via> {
        if app.is_deleted {
            return None;
        }
        match self.selection {
            Selection::Paths => {
                let touched = app.reads_any(self.branch, self.files);
                let via = if app.hydrator_of(self.branch).is_some() { Via::Hydrator } else { Via::Source };
                touched.then_some(via)
            }
            Selection::Named(names) => names.iter().any(|name| name.names(&app.name)).then_some(Via::Settings),
            Selection::Labels(_) => {
                self.labelled.is_some_and(|labelled| labelled.contains(&app.name)).then_some(Via::Settings)
            }
        }
    }
}

/// Returns the applications of an environment: those that it has by itself, their children, and the products of ApplicationSets that
/// read its files. `others`: the other environments.
///
/// An application that belongs to another environment by itself is no child of this one. The children of an application that belongs
/// to several environments, and the products of an ApplicationSet that reads files of several, belong to none of them: it is not
/// known which ones deploy which environment.
pub fn members<'a>(
    all: &'a [Application],
    sets: &[ApplicationSet],
    of: &Reach<'_>,
    others: &[Reach<'_>],
) -> Vec<Member<'a>> {
    let belongs_elsewhere = |app: &Application| others.iter().any(|other| other.takes(app).is_some());
    let mut found: Vec<Member<'a>> = Vec::new();
    let mut known: HashSet<&ApplicationName> = HashSet::new();
    for app in all {
        if let Some(via) = of.takes(app) {
            known.insert(&app.name);
            found.push(Member { app, via });
        }
    }
    let by_name: HashMap<&str, Vec<&'a Application>> = all.iter().fold(HashMap::new(), |mut by_name, app| {
        by_name.entry(app.name.name.as_str()).or_insert_with(Vec::new).push(app);
        by_name
    });
    for set in products_of(sets, of, others) {
        let listed = set.applications.iter().flat_map(|name| named(&by_name, name));
        let owned = all.iter().filter(|app| app.application_set.as_deref() == Some(&set.name));
        for app in listed.chain(owned) {
            if !app.is_deleted && !belongs_elsewhere(app) && known.insert(&app.name) {
                found.push(Member { app, via: Via::Set(set.name.clone()) });
            }
        }
    }
    let mut next = 0;
    while let Some(parent) = found.get(next).map(|member| member.app) {
        next += 1;
        if belongs_elsewhere(parent) {
            continue;
        }
        for child in parent.children.iter().flat_map(|name| named(&by_name, name)) {
            if !child.is_deleted && !belongs_elsewhere(child) && known.insert(&child.name) {
                found.push(Member { app: child, via: Via::Parent(parent.name.clone()) });
            }
        }
    }
    found
}

/// Returns the ApplicationSets that read files of this environment and of no other one.
fn products_of<'s>(
    sets: &'s [ApplicationSet],
    of: &Reach<'_>,
    others: &[Reach<'_>],
) -> impl Iterator<Item = &'s ApplicationSet> {
    let reads = |set: &ApplicationSet, reach: &Reach<'_>| set.is_touched_by(reach.branch, reach.files.iter().copied());
    let chosen: Vec<&ApplicationSet> =
        sets.iter().filter(|set| reads(set, of) && !others.iter().any(|other| reads(set, other))).collect();
    chosen.into_iter()
}

/// Returns the applications of a name. Older versions of Argo CD leave out the namespace in some places.
fn named<'a>(by_name: &HashMap<&str, Vec<&'a Application>>, name: &ApplicationName) -> Vec<&'a Application> {
    let found = by_name.get(name.name.as_str()).map(Vec::as_slice).unwrap_or_default();
    found.iter().copied().filter(|app| name.names(&app.name)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use url::Url;

    use super::super::application::application;
    use super::super::application_set::application_set;
    use super::*;

    const REPOSITORY: &str = "https://git.example.com/uyou/config";

    fn branch() -> WatchedBranch {
        let repository = Url::parse(REPOSITORY).unwrap();
        WatchedBranch { repository, branch: "main".to_owned(), is_default: true }
    }

    fn app(name: &str, path: &str, children: &[&str]) -> Application {
        let children: Vec<Value> = children
            .iter()
            .map(|name| json!({"group": "argoproj.io", "kind": "Application", "namespace": "argocd", "name": name}))
            .collect();
        application(json!({"metadata": {"name": name, "namespace": "argocd"},
            "spec": {"source": {"repoURL": REPOSITORY, "path": path, "targetRevision": "main"}},
            "status": {"resources": children}}))
    }

    fn found(all: &[Application], sets: &[ApplicationSet], files: &[&str], elsewhere: &[&str]) -> Vec<String> {
        let branch = branch();
        let (files, elsewhere): (BTreeSet<&str>, BTreeSet<&str>) =
            (files.iter().copied().collect(), elsewhere.iter().copied().collect());
        let of = |files| Reach { branch: &branch, files, selection: &Selection::Paths, labelled: None };
        let members = members(all, sets, &of(&files), &[of(&elsewhere)]);
        members.iter().map(|member| member.app.name.name.clone()).collect()
    }

    #[test]
    fn children_and_their_children_belong_to_the_environment() {
        let all = [
            app("parent", "environments/staging/apps", &["child"]),
            app("child", "base/child", &["grandchild", "parent"]),
            app("grandchild", "base/grandchild", &[]),
            app("stranger", "base/stranger", &[]),
        ];
        let found = found(&all, &[], &["environments/staging/apps/child.yaml"], &[]);
        assert_eq!(found, ["parent", "child", "grandchild"]);
    }

    #[test]
    fn application_of_another_environment_is_no_child() {
        let all = [
            app("staging", "environments/staging/apps", &["mine", "production"]),
            app("production", "environments/production/apps", &["theirs"]),
            app("mine", "base/mine", &[]),
            app("theirs", "base/theirs", &[]),
        ];
        let files = ["environments/staging/apps/a.yaml"];
        assert_eq!(found(&all, &[], &files, &["environments/production/apps/a.yaml"]), ["staging", "mine"]);
    }

    #[test]
    fn children_of_an_application_of_two_environments_belong_to_neither() {
        let all = [app("root", "apps", &["child"]), app("child", "base/child", &[])];
        assert_eq!(found(&all, &[], &["apps/staging.yaml"], &["apps/production.yaml"]), ["root"]);
        assert_eq!(found(&all, &[], &["apps/staging.yaml"], &[]), ["root", "child"]);
    }

    #[test]
    fn products_of_a_set_belong_to_the_environment_whose_files_it_reads() {
        let set = |path: &str| {
            application_set(json!({"metadata": {"name": "set"},
                "spec": {"generators": [{"git": {"repoURL": REPOSITORY, "revision": "main", "files": [{"path": path}]}}]},
                "status": {"resources": [{"kind": "Application", "name": "listed", "namespace": "argocd"}]}}))
        };
        let mut owned = app("owned", "charts/app", &[]);
        owned.application_set = Some("set".to_owned());
        let all = [app("listed", "charts/app", &[]), owned, app("other", "charts/app", &[])];
        let (staging, production) = (["environments/staging/set/a.yaml"], ["environments/production/set/a.yaml"]);
        assert_eq!(found(&all, &[set("environments/staging/set/*.yaml")], &staging, &production), ["listed", "owned"]);
        let of_both = set("environments/*/set/*.yaml");
        assert_eq!(found(&all, &[of_both], &staging, &production), Vec::<String>::new());
    }

    #[test]
    fn application_leaves_with_its_target_revision_or_its_deletion() {
        let mut tagged = app("tagged", "environments/staging/a", &[]);
        tagged.sources[0].target_revision = "v1.0.0".to_owned();
        let mut deleted = app("deleted", "environments/staging/a", &[]);
        deleted.is_deleted = true;
        let all = [app("a", "environments/staging/a", &[]), tagged, deleted];
        assert_eq!(found(&all, &[], &["environments/staging/a/b.yaml"], &[]), ["a"]);
    }

    #[test]
    fn hydrated_application_belongs_by_its_dry_source() {
        let hydrated: Value = serde_json::from_str(include_str!("recorded/application-hyd.json")).unwrap();
        let all = [application(hydrated)];
        let repository = Url::parse("http://127.0.0.1:13000/acme/cfg-at.git").unwrap();
        let branch = WatchedBranch { repository, branch: "main".to_owned(), is_default: true };
        let files: BTreeSet<&str> = ["environments/staging/hyd/deployment.yaml"].into();
        let of = Reach { branch: &branch, files: &files, selection: &Selection::Paths, labelled: None };
        let found = members(&all, &[], &of, &[]);
        assert_eq!(found.iter().map(|member| member.via.clone()).collect::<Vec<_>>(), [Via::Hydrator]);
        assert_eq!(all[0].revision_in(&branch), Some("e2c3014fab62e00898fa213eac4472ca6cee02cc"));
    }
}
