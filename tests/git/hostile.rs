//! Repositories with unusual content: it is kept unchanged, and refused or reported if it matters.

use crate::setup::{Setup, apply, deployment, plan, prepare, versions};
use tagrelay::config_repo::{ConfigRepository, EnvironmentPaths, OpenError, Outcome, RemoteError};
use tagrelay_test_support::git::{self, Remote, git, git_with_input};

const USER: &str = "uyou/user-service";

/// Adds entries (mode, object, path as bytes) to the index of the working copy.
fn add_entries(remote: &Remote, entries: &[(&str, &str, &[u8])]) {
    let mut input = Vec::new();
    for (mode, id, path) in entries {
        input.extend_from_slice(format!("{mode} {id}\t").as_bytes());
        input.extend_from_slice(path);
        input.push(0);
    }
    git_with_input(&remote.work(), &["update-index", "-z", "--index-info"], &input);
}

fn blob(remote: &Remote, text: &[u8]) -> String {
    git_with_input(&remote.work(), &["hash-object", "-w", "--stdin"], text)
}

/// All entries of the branch, names as bytes.
fn listing(remote: &Remote) -> Vec<Vec<u8>> {
    let output = git::attempt(&remote.bare(), &["ls-tree", "-r", "-t", "-z", "main"]);
    output.stdout.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect()
}

#[tokio::test]
async fn odd_tree_entries_stay_unchanged() {
    let remote = Remote::with(&[("environments/staging/link/real.yaml", &deployment("uyou/user-service:1.0"))]);
    let manifest = blob(&remote, deployment("uyou/user-service:1.0").as_bytes());
    let outside = blob(&remote, b"/etc/passwd");
    let commit = remote.tip();
    add_entries(
        &remote,
        &[
            ("100755", &manifest, b"environments/staging/executable.yaml"),
            ("100644", &manifest, "environments/staging/it's \"quoted\" \u{fc}.yaml".as_bytes()),
            ("100644", &manifest, b"environments/staging/not-utf-8-\xff.yaml"),
            ("100644", &manifest, b"environments/staging/new\nline.yaml"),
            ("120000", &outside, b"environments/staging/symlink.yaml"),
            ("120000", &outside, b"environments/staging/symlink"),
            ("160000", &commit, b"environments/staging/submodule"),
            ("160000", &commit, b"environments/staging/submodule.yaml"),
            ("100644", &manifest, b"outside\xfe/\x01.yaml"),
        ],
    );
    remote.commit_index("odd");
    let before = listing(&remote);
    let repository = Setup::new(&remote.file_url()).open_kept().await;
    repository.refresh().await.unwrap();

    let snapshot = repository.snapshot().unwrap();
    let problems: Vec<String> = snapshot.environments["staging"]
        .problems
        .iter()
        .map(|problem| format!("{} {}", problem.path, problem.reason))
        .collect();
    assert_eq!(
        problems,
        [
            r"environments/staging/new\nline.yaml has control characters in its name: rename it",
            r"environments/staging/not-utf-8-\xff.yaml has a name that is not valid UTF-8: rename it",
            "environments/staging/submodule.yaml is a submodule: submodules are not read",
            "environments/staging/symlink.yaml is a symbolic link: links are not followed",
        ]
    );
    let prepared = prepare(&repository, plan("staging", &[(USER, "2.0")])).await;
    let Outcome::Changed { changes, .. } = &prepared.outcomes()[0].1 else { panic!("not changed") };
    let paths: Vec<&str> = changes.iter().map(|change| change.path.as_str()).collect();
    assert_eq!(
        paths,
        [
            "environments/staging/executable.yaml",
            "environments/staging/it's \"quoted\" \u{fc}.yaml",
            "environments/staging/link/real.yaml"
        ]
    );
    repository.push(prepared.clone()).await.unwrap();
    remote.assert_sound();

    // Names and modes are unchanged; only the ids of three files and their parent folders differ.
    let after = listing(&remote);
    let differ: Vec<String> = before
        .iter()
        .zip(&after)
        .filter(|(old, new)| old != new)
        .map(|(old, new)| {
            let name = |line: &[u8]| line[line.iter().position(|byte| *byte == b'\t').unwrap() + 1..].to_vec();
            assert_eq!((name(old), &old[..6]), (name(new), &new[..6]));
            String::from_utf8(name(old)).unwrap()
        })
        .collect();
    let folders = ["environments", "environments/staging", paths[0], paths[1], "environments/staging/link", paths[2]];
    assert_eq!(differ, folders);
    assert_eq!(before.len(), after.len());
}

#[tokio::test]
async fn forbidden_names_are_reported() {
    let remote = Remote::with(&[("environments/staging/user.yaml", &deployment("uyou/user-service:1.0"))]);
    let manifest = blob(&remote, deployment("uyou/user-service:9.9").as_bytes());
    // Written as raw bytes, because no Git command creates such a tree.
    let entry =
        |mode: &str, name: &str, id: &str| [format!("{mode} {name}\0").into_bytes(), hex::decode(id).unwrap()].concat();
    let raw = |entries: &[Vec<u8>]| {
        git_with_input(
            &remote.work(),
            &["hash-object", "-w", "--literally", "-t", "tree", "--stdin"],
            &entries.concat(),
        )
    };
    let inner = raw(&[entry("100644", "user.yaml", &manifest)]);
    let staging =
        raw(&[entry("40000", "..", &inner), entry("40000", ".git", &inner), entry("100644", "user.yaml", &manifest)]);
    let environments = raw(&[entry("40000", "staging", &staging)]);
    let root = raw(&[entry("40000", "environments", &environments)]);
    let commit = git(&remote.work(), &["commit-tree", "-m", "hostile", &root]);
    git(&remote.work(), &["push", "-q", "--force", "origin", &format!("{}:refs/heads/main", commit.trim())]);

    let repository = Setup::new(&remote.file_url()).open_kept().await;
    repository.refresh().await.unwrap();
    let snapshot = repository.snapshot().unwrap();
    let problems: Vec<&str> =
        snapshot.environments["staging"].problems.iter().map(|problem| problem.path.as_str()).collect();
    assert_eq!(problems, ["environments/staging/../user.yaml", "environments/staging/.git/user.yaml"]);
    apply(&repository, plan("staging", &[(USER, "2.0")])).await;
    assert_eq!(remote.read("environments/staging/user.yaml"), deployment("uyou/user-service:2.0"));
    assert_eq!(versions(&repository, "staging", USER), ["2.0"]);
}

#[tokio::test]
async fn file_of_100_mib_is_skipped() {
    let remote = Remote::with(&[("environments/staging/user.yaml", &deployment("uyou/user-service:1.0"))]);
    std::fs::write(remote.work().join("environments/staging/huge.yaml"), vec![b'#'; 100 << 20]).unwrap();
    git(&remote.work(), &["add", "-A"]);
    remote.commit_index("huge");
    let repository = Setup::new(&remote.file_url()).open_kept().await;
    repository.refresh().await.unwrap();
    let snapshot = repository.snapshot().unwrap();
    assert_eq!(snapshot.environments["staging"].problems[0].reason, "has 100 MiB; files above 8 MiB are not read");
    apply(&repository, plan("staging", &[(USER, "2.0")])).await;
    assert_eq!(remote.log().len(), 3);
}

#[tokio::test]
async fn references_of_a_kustomization_are_followed_within_bounds() {
    let remote = Remote::with(&[("base/deployment.yaml", &deployment("uyou/user-service:1.0"))]);
    // Too deep for recursion on a thread's stack.
    let deep = "a/".repeat(60_000);
    let huge = "x".repeat(9 << 20);
    let text =
        format!("resources:\n- ../../base/deployment.yaml\n- ../../base/huge.yaml\n- \"{deep}b\"\n- ../../{deep}b\n");
    remote.commit("odd", &[("base/huge.yaml", &huge), ("environments/staging/kustomization.yaml", &text)]);
    let setup = Setup::new(&remote.file_url());
    let repository = setup.open().await;
    repository.refresh().await.unwrap();
    assert_eq!(versions(&repository, "staging", "uyou/user-service"), ["1.0"]);
    apply(&repository, plan("staging", &[(USER, "2.0")])).await;
    assert!(remote.read("environments/staging/kustomization.yaml").ends_with("newTag: \"2.0\"\n"));
    remote.assert_sound();
}

#[tokio::test]
async fn exponentially_unfolding_trees_are_refused() {
    let remote = Remote::with(&[("environments/staging/user.yaml", &deployment("uyou/user-service:1.0"))]);
    // Ten folders in each of ten levels: 10^10 files from eleven objects.
    let mut line = format!("100644 blob {}\ta.txt\n", blob(&remote, b"nothing\n"));
    for _ in 0..10 {
        let tree = git_with_input(&remote.work(), &["mktree"], line.as_bytes());
        line = (0..10).map(|number| format!("040000 tree {tree}\t{number}\n")).collect();
    }
    let bomb = git_with_input(&remote.work(), &["mktree"], line.as_bytes());
    let commit_with = |folder: &str| {
        git(&remote.work(), &["reset", "-q", "--hard", "FETCH_HEAD"]);
        git(&remote.work(), &["read-tree", "--reset", "FETCH_HEAD"]);
        let root = git_with_input(
            &remote.work(),
            &["mktree"],
            format!("{}040000 tree {bomb}\t{folder}\n", git(&remote.work(), &["ls-tree", "FETCH_HEAD"])).as_bytes(),
        );
        let commit = git(&remote.work(), &["commit-tree", "-p", "FETCH_HEAD", "-m", "bomb", &root]);
        git(&remote.bare(), &["fetch", "-q", remote.work().to_str().unwrap(), commit.trim()]);
        git(&remote.bare(), &["update-ref", "refs/heads/main", commit.trim()]);
    };
    git(&remote.work(), &["fetch", "-q", "origin", "main"]);
    commit_with("elsewhere");
    let mut setup = Setup::new(&remote.file_url());
    let repository = setup.open().await;
    repository.refresh().await.unwrap();
    apply(&repository, plan("staging", &[(USER, "2.0")])).await;
    drop(repository);

    setup.environments =
        vec![EnvironmentPaths { name: "all".to_owned(), paths: vec!["**".to_owned()], manifests: Default::default() }];
    let error = setup.open().await.refresh().await.unwrap_err();
    assert!(matches!(&error, RemoteError::Protocol { .. }), "{error}");
    assert!(error.to_string().contains("expands to too many files"), "{error}");
}

#[tokio::test]
async fn two_hundred_thousand_files_are_indexed() {
    let remote = Remote::with(&[("environments/staging/user.yaml", &deployment("uyou/user-service:1.0"))]);
    let work = remote.work();
    // A thousand equal files in each of two hundred folders. Blobs that are read again are not cached.
    let file = blob(&remote, b"kind: ConfigMap\ndata: {a: b}\n");
    let files: String = (0..1_000).map(|number| format!("100644 blob {file}\tf{number}.yaml\n")).collect();
    let folder = git_with_input(&work, &["mktree"], files.as_bytes());
    let folders: String = (0..200).map(|number| format!("040000 tree {folder}\tteam-{number}\n")).collect();
    let user = git(&work, &["rev-parse", "HEAD:environments/staging/user.yaml"]);
    let staging = format!("{folders}100644 blob {}\tuser.yaml\n", user.trim());
    let staging = git_with_input(&work, &["mktree"], staging.as_bytes());
    let environments = git_with_input(&work, &["mktree"], format!("040000 tree {staging}\tstaging\n").as_bytes());
    let root = git_with_input(&work, &["mktree"], format!("040000 tree {environments}\tenvironments\n").as_bytes());
    let commit = git(&work, &["commit-tree", "-p", "HEAD", "-m", "many", &root]);
    git(&remote.bare(), &["fetch", "-q", work.to_str().unwrap(), commit.trim()]);
    git(&remote.bare(), &["update-ref", "refs/heads/main", commit.trim()]);

    let repository = Setup::new(&remote.file_url()).open_kept().await;
    repository.refresh().await.unwrap();
    apply(&repository, plan("staging", &[(USER, "2.0")])).await;
    assert_eq!(versions(&repository, "staging", USER), ["2.0"]);
    assert_eq!(git(&remote.bare(), &["ls-tree", "-r", "--name-only", "main"]).lines().count(), 200_001);
    assert_eq!(remote.log(), ["staging: uyou/user-service:2.0", "many", "first"]);
}

#[tokio::test]
async fn too_deep_folders_are_reported() {
    let remote = Remote::with(&[("environments/staging/user.yaml", &deployment("uyou/user-service:1.0"))]);
    let deep = format!("environments/staging/{}user.yaml", "d/".repeat(300));
    let manifest = blob(&remote, deployment("uyou/user-service:1.0").as_bytes());
    add_entries(&remote, &[("100644", &manifest, deep.as_bytes())]);
    remote.commit_index("deep");
    let repository = Setup::new(&remote.file_url()).open_kept().await;
    repository.refresh().await.unwrap();
    let snapshot = repository.snapshot().unwrap();
    assert_eq!(snapshot.environments["staging"].problems.len(), 1);
    assert!(snapshot.environments["staging"].problems[0].reason.contains("deeper than 128 levels"));
    assert!(snapshot.environments["production"].problems.is_empty());
    apply(&repository, plan("staging", &[(USER, "2.0")])).await;
    assert_eq!(versions(&repository, "staging", USER), ["2.0"]);

    git(&remote.work(), &["rm", "-q", "--cached", &deep]);
    remote.commit_index("shallow");
    repository.refresh().await.unwrap();
    assert!(repository.snapshot().unwrap().environments["staging"].problems.is_empty());
}

#[tokio::test]
async fn any_valid_branch_name_works() {
    let remote = Remote::with(&[("environments/staging/user.yaml", &deployment("uyou/user-service:1.0"))]);
    let branch = "teams/\u{fc}ber/\u{1f680}.config";
    git(&remote.bare(), &["branch", branch, "main"]);
    git(&remote.bare(), &["branch", &format!("{branch}2"), "main"]);
    let mut setup = Setup::new(&remote.file_url());
    setup.settings.branch = branch.to_owned();
    let repository = setup.open().await;
    repository.refresh().await.unwrap();
    apply(&repository, plan("staging", &[(USER, "2.0")])).await;
    assert_eq!(git(&remote.bare(), &["rev-list", "--count", branch]).trim(), "2");
    assert_eq!(remote.log().len(), 1);
    drop(repository);
    for wrong in ["", "a..b", "a b", "-/\u{7f}", "x.lock", "a~1", "/x"] {
        setup.settings.branch = wrong.to_owned();
        let opened = ConfigRepository::open(setup.settings.clone(), Vec::new()).await;
        assert!(matches!(opened, Err(OpenError::Branch { .. })), "{wrong:?}");
    }
}

#[tokio::test]
async fn environment_variables_do_not_reach_hooks() {
    let remote = Remote::with(&[("environments/staging/user.yaml", &deployment("uyou/user-service:1.0"))]);
    remote.hook("pre-receive", "env > environment");
    let repository = Setup::new(&remote.file_url()).open_kept().await;
    repository.refresh().await.unwrap();
    apply(&repository, plan("staging", &[(USER, "2.0")])).await;
    let environment = std::fs::read_to_string(remote.bare().join("environment")).unwrap();
    assert!(!environment.contains("CARGO"), "{environment}");
}
