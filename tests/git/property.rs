//! Any sequence of updates, foreign commits and restarts ends with the files of a simple model, and with the same objects that
//! Git creates.

use std::collections::BTreeMap;

use crate::setup::{self, Setup, apply, packs, plan};
use proptest::prelude::*;
use tagrelay::config_repo::{ConfigRepository, EnvironmentPaths, Outcome};
use tagrelay_manifest::{ManifestSettings, RulePart, SiteRule};
use tagrelay_test_support::git::{self, Remote, git, git_with_input};

/// Names whose order in a tree is not alphabetical: folders sort as if their name ended with a slash.
const FOLDERS: [&str; 6] = ["a", "a-b", "a.b", "a0", "\u{e9}", "deep/a/b/c"];
const FILES: [&str; 4] = ["a.yaml", "a-b.yaml", "z z.yaml", "Kustomization"];
const IMAGES: [&str; 4] = ["uyou/one", "ghcr.io/uyou/two", "localhost:5000/three", "uyou/ruled"];
/// The image that only a rule finds.
const RULED: usize = 3;
const FOLDERS_OF_ENVIRONMENTS: [&str; 2] = ["staging", "production"];

/// An environment: its name, the prefix of its paths, and whether it has the rule. Some share files, some the rule, some both.
const ENVIRONMENTS: [(&str, &str, bool); 5] = [
    ("staging", "environments/staging/", false),
    ("production", "environments/production/", false),
    ("whole", "environments/", true),
    ("ruled", "environments/production/", true),
    ("part", "environments/staging/a/", true),
];

fn environments() -> Vec<EnvironmentPaths> {
    let environment = |(name, prefix, is_ruled): (&str, &str, bool)| {
        let rule = || {
            let repository = Some(IMAGES[RULED].parse().unwrap());
            SiteRule::new("environments/**", "$.spec.release", repository, RulePart::Tag).unwrap()
        };
        let rules = is_ruled.then(rule).into_iter().collect();
        EnvironmentPaths {
            name: name.to_owned(),
            paths: vec![format!("{prefix}**")],
            manifests: ManifestSettings { rules, ..ManifestSettings::default() },
        }
    };
    ENVIRONMENTS.map(environment).into()
}

#[derive(Debug, Clone)]
enum Step {
    Update {
        environment: usize,
        image: usize,
        tag: u8,
    },
    Rival {
        environment: usize,
        image: usize,
        tag: u8,
    },
    Foreign {
        path: String,
        images: Vec<(usize, u8)>,
    },
    Remove {
        path: String,
    },
    /// A foreign commit with the files of an earlier commit.
    Revert {
        back: usize,
    },
    Refresh,
    Restart,
}

fn path() -> impl Strategy<Value = String> {
    let part = (0..FOLDERS_OF_ENVIRONMENTS.len(), 0..FOLDERS.len(), 0..FILES.len());
    part.prop_map(|(environment, folder, file)| {
        format!("environments/{}/{}/{}", FOLDERS_OF_ENVIRONMENTS[environment], FOLDERS[folder], FILES[file])
    })
}

fn images() -> impl Strategy<Value = Vec<(usize, u8)>> {
    prop::collection::vec((0..IMAGES.len(), 0_u8..4), 0..4).prop_map(|mut images| {
        // Keys are unique.
        let mut is_first = true;
        images.retain(|(image, _)| *image != RULED || std::mem::take(&mut is_first));
        images
    })
}

fn step() -> impl Strategy<Value = Step> {
    let update = (0..ENVIRONMENTS.len(), 0..IMAGES.len(), 0_u8..6);
    prop_oneof![
        5 => update.clone().prop_map(|(environment, image, tag)| Step::Update { environment, image, tag }),
        2 => update.prop_map(|(environment, image, tag)| Step::Rival { environment, image, tag }),
        3 => (path(), images()).prop_map(|(path, images)| Step::Foreign { path, images }),
        1 => path().prop_map(|path| Step::Remove { path }),
        1 => (1_usize..4).prop_map(|back| Step::Revert { back }),
        1 => Just(Step::Refresh),
        1 => Just(Step::Restart),
    ]
}

/// A manifest with these images. The same images give the same text, so that files share blobs.
fn manifest(images: &[(usize, u8)]) -> String {
    let containers = images.iter().filter(|(image, _)| *image != RULED);
    let lines = containers.map(|(image, tag)| format!("  - image: {}:v{tag} # keep\r\n", IMAGES[*image]));
    let release = images.iter().find(|(image, _)| *image == RULED);
    let release = release.map(|(_, tag)| format!("\n  release: v{tag} # by the rule"));
    format!(
        "apiVersion: v1\nkind: Pod\nspec:\n  containers:\n{}  x: 1{}",
        lines.collect::<String>().replace("\r\n", "\n"),
        release.unwrap_or_default()
    )
    .replace("containers:\n  x", "x")
}

type Files = BTreeMap<String, Vec<(usize, u8)>>;

struct World {
    remote: Remote,
    setup: Setup,
    files: Files,
    history: Vec<Files>,
}

impl World {
    fn start(files: Files) -> Self {
        let remote = Remote::empty();
        let setup = Setup { environments: environments(), ..Setup::new(&remote.file_url()) };
        let mut world = Self { remote, setup, files, history: Vec::new() };
        world.commit_foreign();
        world
    }

    /// Sets the branch to the model's files.
    fn commit_foreign(&mut self) {
        let work = self.remote.work();
        if git::attempt(&work, &["fetch", "-q", "origin", "main"]).status.success() {
            git(&work, &["reset", "-q", "--hard", "FETCH_HEAD"]);
        }
        self.write_files();
        self.remote.commit_index("foreign");
        self.history.push(self.files.clone());
    }

    /// Sets the index of the working copy to the model's files.
    fn write_files(&self) {
        let work = self.remote.work();
        git(&work, &["read-tree", "--empty"]);
        let mut input = String::new();
        for (path, images) in &self.files {
            let id = git_with_input(&work, &["hash-object", "-w", "--stdin"], manifest(images).as_bytes());
            input.push_str(&format!("100644 {id}\t{path}\0"));
        }
        git_with_input(&work, &["update-index", "-z", "--index-info"], input.as_bytes());
    }

    /// Sets the tag in the model. Returns whether anything changed, or `None` if there is no site.
    fn set(&mut self, environment: usize, image: usize, tag: u8) -> Option<bool> {
        let (_, prefix, is_ruled) = ENVIRONMENTS[environment];
        let files = self.files.iter_mut().filter(|(path, _)| path.starts_with(prefix));
        let is_site = |site: &&mut (usize, u8)| site.0 == image && (image != RULED || is_ruled);
        let mut sites: Vec<_> = files.flat_map(|(_, images)| images).filter(is_site).collect();
        let changed = sites.iter().any(|site| site.1 != tag);
        sites.iter_mut().for_each(|site| site.1 = tag);
        (!sites.is_empty()).then_some(changed)
    }

    async fn update(&mut self, repository: &ConfigRepository, environment: usize, image: usize, tag: u8) {
        let expected = self.set(environment, image, tag);
        let parent = self.remote.tip();
        let tag = format!("v{tag}");
        let outcomes = apply(repository, plan(ENVIRONMENTS[environment].0, &[(IMAGES[image], &tag)])).await;
        match (&outcomes[0].1, expected) {
            (Outcome::Refused { .. }, None) | (Outcome::Unchanged, Some(false)) => return,
            (Outcome::Changed { commit, .. }, Some(true)) => assert_eq!(self.remote.tip(), commit.to_string()),
            (outcome, expected) => panic!("{outcome:?} where {expected:?} was expected"),
        }
        self.assert_objects_are_those_of_git(&parent);
        self.history.push(self.files.clone());
    }

    fn assert_objects_are_those_of_git(&self, parent: &str) {
        let bare = self.remote.bare();
        let show =
            |format: &str| git(&bare, &["log", "-1", &format!("--format={format}"), "main"]).trim_end().to_owned();
        self.write_files();
        let tree = git(&self.remote.work(), &["write-tree"]).trim().to_owned();
        assert_eq!(show("%T"), tree);
        assert_eq!(show("%P"), parent);
        git(&self.remote.work(), &["fetch", "-q", "origin", "main"]);
        let output = git::command(&self.remote.work())
            .args(["commit-tree", "-p", parent, "-m", &show("%B"), &tree])
            .envs(["AUTHOR", "COMMITTER"].map(|who| (format!("GIT_{who}_NAME"), "Tagrelay")))
            .envs(["AUTHOR", "COMMITTER"].map(|who| (format!("GIT_{who}_EMAIL"), "tagrelay@example.com")))
            .envs(["AUTHOR", "COMMITTER"].map(|who| (format!("GIT_{who}_DATE"), show("%at +0000"))))
            .output()
            .unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), self.remote.tip());
    }

    async fn run(mut self, steps: Vec<Step>) {
        let mut repository = self.setup.open().await;
        repository.refresh().await.unwrap();
        let rival = self.setup.open_rival("rival").await;
        rival.refresh().await.unwrap();
        for step in steps {
            match step {
                Step::Update { environment, image, tag } => {
                    // Without this, an update without change or site would be decided by old data.
                    repository.refresh().await.unwrap();
                    self.update(&repository, environment, image, tag).await;
                }
                Step::Rival { environment, image, tag } => {
                    rival.refresh().await.unwrap();
                    self.update(&rival, environment, image, tag).await;
                }
                Step::Foreign { path, images } => {
                    self.files.insert(path, images);
                    self.commit_foreign();
                }
                Step::Remove { path } => {
                    self.files.remove(&path);
                    self.commit_foreign();
                }
                Step::Revert { back } => {
                    self.files = self.history[self.history.len().saturating_sub(back + 1)].clone();
                    self.commit_foreign();
                }
                Step::Refresh => {
                    repository.refresh().await.unwrap();
                }
                Step::Restart => {
                    drop(repository);
                    repository = self.setup.open().await;
                    repository.refresh().await.unwrap();
                }
            }
        }
        repository.refresh().await.unwrap();
        let fresh = self.setup.open_rival("fresh").await;
        fresh.refresh().await.unwrap();
        assert_eq!(repository.snapshot(), fresh.snapshot());
        assert_eq!(self.remote.log().len(), self.history.len());
        for (path, images) in &self.files {
            assert_eq!(self.remote.read(path), manifest(images));
        }
        self.remote.assert_sound();
        drop(repository);
        git::assert_sound(self.setup.mirror());
    }
}

fn configuration() -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(5);
    ProptestConfig { cases, max_shrink_iters: 40, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    // Each case starts hundreds of processes; `PROPTEST_CASES` sets the number of cases.
    #![proptest_config(configuration())]

    #[test]
    fn branch_matches_a_plain_copy(
        files in prop::collection::btree_map(path(), images(), 1..20),
        steps in prop::collection::vec(step(), 1..10),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(World::start(files).run(steps));
    }
}

#[tokio::test]
async fn many_foreign_commits_do_not_grow_the_mirror() {
    let remote = Remote::with(&[("environments/staging/user.yaml", &setup::deployment("uyou/user-service:1.0"))]);
    let setup = Setup::new(&remote.file_url());
    let repository = setup.open().await;
    repository.refresh().await.unwrap();
    let mut most = 0;
    for number in 0..60 {
        let commit = git(&remote.bare(), &["commit-tree", "-p", "main", "-m", &number.to_string(), "main^{tree}"]);
        git(&remote.bare(), &["update-ref", "refs/heads/main", commit.trim()]);
        repository.refresh().await.unwrap();
        most = most.max(packs(setup.mirror()).len());
    }
    assert!((40..=60).contains(&most), "{most}");
    // Compaction runs in the background.
    let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while packs(setup.mirror()).len() >= 20 && std::time::Instant::now() < end {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert!(packs(setup.mirror()).len() < 20);
    apply(&repository, plan("staging", &[("uyou/user-service", "2.0")])).await;
    assert_eq!(remote.log().len(), 62);
    git::assert_sound(setup.mirror());
}

#[tokio::test]
async fn many_own_commits_fill_neither_memory_nor_disk() {
    let padding = format!("# {}\n", "x".repeat(400_000));
    let files: Vec<(String, String)> = (0..12)
        .map(|number| {
            let path = format!("environments/staging/{number}.yaml");
            (path, setup::deployment(&format!("uyou/service-{number}:0")) + &padding)
        })
        .collect();
    let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    let remote = Remote::with(&files);
    let setup = Setup::new(&remote.file_url());
    let repository = setup.open().await;
    repository.refresh().await.unwrap();
    for round in 1..=3 {
        for number in 0..12 {
            let image = format!("uyou/service-{number}");
            apply(&repository, plan("staging", &[(&image, &round.to_string())])).await;
        }
    }
    // 36 pushes of 400 kB each: packs are written every few pushes, and the repository is always valid.
    assert!((2..=8).contains(&packs(setup.mirror()).len()), "{:?}", packs(setup.mirror()));
    git::assert_sound(setup.mirror());
    drop(repository);
    let repository = setup.open().await;
    repository.refresh().await.unwrap();
    assert_eq!(setup::versions(&repository, "staging", "uyou/service-7"), ["3"]);
    assert_eq!(remote.log().len(), 37);
    remote.assert_sound();
}
