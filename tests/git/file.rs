//! Config repositories over `file://`: Git's programs and hooks, the mirror, the index.

use crate::setup::{Setup, apply, deployment, environment_plan, packs, plan, prepare, versions};
use tagrelay::config_repo::{ConfigRepository, Outcome, Plan, PrepareError, PushError, RemoteError};
use tagrelay_test_support::git::{self, Remote, git};

const USER: &str = "uyou/user-service";
const ORDER: &str = "uyou/order-service";

fn platform() -> Remote {
    Remote::with(&[
        ("environments/staging/user.yaml", &deployment("uyou/user-service:1.0")),
        ("environments/staging/order.yaml", &deployment("uyou/order-service:1.0")),
        ("environments/production/user.yaml", &deployment("uyou/user-service:1.0")),
        ("README.md", "image: uyou/user-service:1.0\n"),
    ])
}

#[tokio::test]
async fn update_is_one_commit_that_changes_only_the_tag() {
    let remote = platform();
    let setup = Setup::new(&remote.file_url());
    let repository = setup.open().await;
    let parent = repository.refresh().await.unwrap();
    assert_eq!(parent.to_string(), remote.tip());

    let prepared = prepare(&repository, plan("staging", &[(USER, "2.0")])).await;
    let diff = prepared.unified_diff().unwrap();
    repository.push(prepared).await.unwrap();

    assert_eq!(remote.log(), ["staging: uyou/user-service:2.0", "first"]);
    assert_eq!(remote.read("environments/staging/user.yaml"), deployment("uyou/user-service:2.0"));
    assert_eq!(remote.read("environments/production/user.yaml"), deployment("uyou/user-service:1.0"));
    assert_eq!(
        git(&remote.bare(), &["diff", "HEAD~", "HEAD"]).lines().skip(2).collect::<Vec<_>>(),
        diff.lines().skip(2).collect::<Vec<_>>()
    );
    assert_eq!(repository.tip().unwrap().to_string(), remote.tip());
    assert_eq!(versions(&repository, "staging", USER), ["2.0"]);
    assert_eq!(
        git(&remote.bare(), &["log", "-1", "--format=%an <%ae> %cn <%ce>"]).trim(),
        "Tagrelay <tagrelay@example.com> Tagrelay <tagrelay@example.com>"
    );
    remote.assert_sound();
}

#[tokio::test]
async fn two_environments_are_two_commits_in_one_push() {
    let remote = platform();
    remote.hook("pre-receive", "cat >> pushes");
    let repository = Setup::new(&remote.file_url()).open_kept().await;
    repository.refresh().await.unwrap();
    let both = Plan {
        environments: vec![
            environment_plan("staging", &[(USER, "2.0")]),
            environment_plan("production", &[(USER, "2.0")]),
        ],
    };
    let prepared = prepare(&repository, both).await;
    assert_eq!(prepared.commits().len(), 2);
    assert_eq!(prepared.commits()[1].id, Some(prepared.tip()));
    repository.push(prepared).await.unwrap();
    assert_eq!(remote.log(), ["production: uyou/user-service:2.0", "staging: uyou/user-service:2.0", "first"]);
    assert_eq!(std::fs::read_to_string(remote.bare().join("pushes")).unwrap().lines().count(), 1);
    remote.assert_sound();
}

#[tokio::test]
async fn equal_tree_makes_no_commit_and_missing_site_is_refused() {
    let remote = platform();
    let repository = Setup::new(&remote.file_url()).open_kept().await;
    assert!(matches!(
        repository.prepare(plan("staging", &[]), std::sync::Arc::new(|_| String::new())).await,
        Err(PrepareError::NotRead)
    ));
    repository.refresh().await.unwrap();
    let prepared = prepare(&repository, plan("staging", &[(USER, "1.0"), ("uyou/nobody", "1.0"), (ORDER, "9")])).await;
    assert_eq!(prepared.outcomes()[0].1, Outcome::Unchanged);
    assert_eq!(
        prepared.outcomes()[1].1,
        Outcome::Refused { reason: "no manifest of staging names docker.io/uyou/nobody".to_owned() }
    );
    assert!(matches!(&prepared.outcomes()[2].1, Outcome::Changed { changes, .. } if changes.len() == 1));

    let nothing = prepare(&repository, plan("staging", &[(USER, "1.0")])).await;
    assert!(nothing.is_empty());
    assert_eq!(nothing.tip(), nothing.parent());
    repository.push(nothing).await.unwrap();
    assert_eq!(remote.log(), ["first"]);
    assert!(matches!(
        repository.prepare(plan("moon", &[]), std::sync::Arc::new(|_| String::new())).await,
        Err(PrepareError::UnknownEnvironment(name)) if name == "moon"
    ));
}

#[tokio::test]
async fn lost_race_is_outdated_and_keeps_the_foreign_commit() {
    let remote = platform();
    let repository = Setup::new(&remote.file_url()).open_kept().await;
    repository.refresh().await.unwrap();
    let prepared = prepare(&repository, plan("staging", &[(USER, "2.0")])).await;
    remote.commit("foreign", &[("environments/staging/order.yaml", &deployment("uyou/order-service:7.0"))]);
    assert!(matches!(repository.push(prepared.clone()).await, Err(PushError::Outdated { .. })));
    assert_eq!(remote.log(), ["foreign", "first"]);

    repository.refresh().await.unwrap();
    assert_eq!(versions(&repository, "staging", ORDER), ["7.0"]);
    assert!(matches!(repository.push(prepared).await, Err(PushError::Outdated { .. })), "of an older tip");
    apply(&repository, plan("staging", &[(USER, "2.0")])).await;
    assert_eq!(remote.log(), ["staging: uyou/user-service:2.0", "foreign", "first"]);
    assert_eq!(remote.read("environments/staging/order.yaml"), deployment("uyou/order-service:7.0"));
    remote.assert_sound();
}

#[tokio::test]
async fn race_lost_at_the_server_is_outdated() {
    let remote = platform();
    let repository = Setup::new(&remote.file_url()).open_kept().await;
    repository.refresh().await.unwrap();
    // Moves the branch during our push: after the advertisement, before the lock.
    let foreign = git(&remote.bare(), &["commit-tree", "-p", "HEAD", "-m", "foreign", "HEAD^{tree}"]);
    remote
        .hook("pre-receive", &format!("env -u GIT_QUARANTINE_PATH git update-ref refs/heads/main {}", foreign.trim()));
    let prepared = prepare(&repository, plan("staging", &[(USER, "2.0")])).await;
    let error = repository.push(prepared).await.unwrap_err();
    assert!(matches!(&error, PushError::Outdated { .. }), "{error}");
    assert_eq!(remote.log(), ["foreign", "first"]);
}

#[tokio::test]
async fn rejection_by_hook_keeps_its_message() {
    let remote = platform();
    let repository = Setup::new(&remote.file_url()).open_kept().await;
    repository.refresh().await.unwrap();
    for (hook, words) in [("pre-receive", "pre-receive hook declined"), ("update", "hook declined")] {
        remote.hook(hook, "echo 'GH006: Protected branch update failed for main.' >&2; exit 1");
        let prepared = prepare(&repository, plan("staging", &[(USER, "2.0")])).await;
        let PushError::Refused { reason } = repository.push(prepared).await.unwrap_err() else { panic!("not refused") };
        assert!(reason.contains(words) && reason.contains("GH006: Protected branch update failed"), "{reason}");
        remote.remove_hook(hook);
    }
    assert_eq!(remote.log(), ["first"]);
    assert_eq!(versions(&repository, "staging", USER), ["1.0"]);
    apply(&repository, plan("staging", &[(USER, "2.0")])).await;
}

#[tokio::test]
async fn rivals_lose_no_update() {
    let remote = platform();
    let setup = Setup::new(&remote.file_url());
    let mut rivals = tokio::task::JoinSet::new();
    for (rival, image) in [USER, ORDER].into_iter().enumerate() {
        let repository = setup.open_rival(&format!("rival-{rival}")).await;
        rivals.spawn(async move {
            repository.refresh().await.unwrap();
            for update in 1..=8 {
                apply(&repository, plan("staging", &[(image, &format!("2.{update}"))])).await;
            }
        });
    }
    rivals.join_all().await;
    let log = remote.log();
    for image in [USER, ORDER] {
        let updates: Vec<&String> = log.iter().filter(|subject| subject.contains(image)).collect();
        let expected: Vec<String> = (1..=8).rev().map(|update| format!("staging: {image}:2.{update}")).collect();
        assert_eq!(updates, expected.iter().collect::<Vec<_>>());
    }
    assert_eq!(log.len(), 17);
    remote.assert_sound();
}

#[tokio::test]
async fn mirror_survives_a_restart() {
    let remote = platform();
    let setup = Setup::new(&remote.file_url());
    let repository = setup.open().await;
    repository.refresh().await.unwrap();
    let in_use = tagrelay::config_repo::ConfigRepository::open(setup.settings.clone(), setup.environments.clone());
    assert!(in_use.await.unwrap_err().to_string().contains("in use by another process"));
    drop(repository);

    let half = setup.mirror().join("objects/pack/pack_git2_half");
    std::fs::write(&half, "PACK").unwrap();
    let repository = setup.open().await;
    let before = packs(setup.mirror());
    repository.refresh().await.unwrap();
    assert_eq!(packs(setup.mirror()), before, "nothing had to be fetched");
    assert!(!half.exists());
    apply(&repository, plan("staging", &[(USER, "2.0")])).await;
    drop(repository);

    let repository = setup.open().await;
    repository.refresh().await.unwrap();
    assert_eq!(versions(&repository, "staging", USER), ["2.0"]);
    git::assert_sound(setup.mirror());
}

#[tokio::test]
async fn fetch_transfers_only_new_objects() {
    let files: Vec<(String, String)> = (0..200)
        .map(|number| {
            let path = format!("environments/staging/team-{}/service-{number}.yaml", number / 20);
            (path, deployment(&format!("uyou/service-{number}:1.0")))
        })
        .collect();
    let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    let remote = Remote::with(&files);
    let setup = Setup::new(&remote.file_url());
    let repository = setup.open().await;
    repository.refresh().await.unwrap();
    apply(&repository, plan("staging", &[("uyou/service-9", "2.0")])).await;
    let before = packs(setup.mirror());
    remote.commit("foreign", &[(files[77].0, &deployment("uyou/service-77:7.0"))]);
    repository.refresh().await.unwrap();
    let new = packs(setup.mirror()).into_iter().find(|pack| !before.contains(pack)).unwrap();
    let listed = git(&remote.bare(), &["verify-pack", "-v", new.with_extension("idx").to_str().unwrap()]);
    let objects = listed.lines().filter(|line| [" blob ", " tree ", " commit"].iter().any(|kind| line.contains(kind)));
    // A commit, the trees of two folders with their parents, two files, and the bases of their deltas.
    assert!((4..=16).contains(&objects.count()), "{listed}");
    assert_eq!(versions(&repository, "staging", "uyou/service-77"), ["7.0"]);
    git::assert_sound(setup.mirror());
}

#[tokio::test]
async fn damaged_mirror_is_recreated() {
    let remote = platform();
    let setup = Setup::new(&remote.file_url());
    let damages: [&dyn Fn(); 5] = [
        &|| packs(setup.mirror()).iter().for_each(|pack| std::fs::remove_file(pack).unwrap()),
        &|| packs(setup.mirror()).iter().for_each(|pack| overwrite_middle(pack)),
        &|| std::fs::write(setup.mirror().join("refs/heads/tip"), "nonsense").unwrap(),
        &|| std::fs::remove_dir_all(setup.mirror().join("objects")).unwrap(),
        &|| std::fs::remove_dir_all(setup.mirror()).unwrap(),
    ];
    for (number, damage) in damages.into_iter().enumerate() {
        let repository = setup.open().await;
        repository.refresh().await.unwrap();
        drop(repository);
        damage();
        let repository = setup.open().await;
        repository.refresh().await.unwrap_or_else(|error| panic!("damage {number}: {error}"));
        apply(&repository, plan("staging", &[(USER, &format!("3.{number}"))])).await;
        assert_eq!(versions(&repository, "staging", USER), [format!("3.{number}")]);
        remote.assert_sound();
    }
}

fn overwrite_middle(pack: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(pack, std::fs::Permissions::from_mode(0o600)).unwrap();
    let mut bytes = std::fs::read(pack).unwrap();
    let end = bytes.len() - 20;
    bytes[12..end].fill(0x5a);
    std::fs::write(pack, bytes).unwrap();
}

#[tokio::test]
async fn force_pushed_or_recreated_branch_is_followed() {
    let remote = platform();
    let repository = Setup::new(&remote.file_url()).open_kept().await;
    repository.refresh().await.unwrap();
    apply(&repository, plan("staging", &[(USER, "2.0")])).await;

    git(&remote.work(), &["checkout", "-q", "--orphan", "other"]);
    remote.hook("post-receive", "git gc -q --prune=now");
    std::fs::write(remote.work().join("environments/staging/user.yaml"), deployment("uyou/user-service:5.0")).unwrap();
    git(&remote.work(), &["add", "-A"]);
    let forced = remote.commit_index("forced");
    remote.remove_hook("post-receive");
    assert_eq!(repository.refresh().await.unwrap().to_string(), forced);
    assert_eq!(versions(&repository, "staging", USER), ["5.0"]);
    apply(&repository, plan("staging", &[(USER, "6.0")])).await;
    assert_eq!(remote.log(), ["staging: uyou/user-service:6.0", "forced"]);

    git(&remote.bare(), &["branch", "-m", "main", "gone"]);
    let prepared = prepare(&repository, plan("staging", &[(USER, "7.0")])).await;
    assert!(matches!(repository.push(prepared).await, Err(PushError::Outdated { .. })));
    let error = repository.refresh().await.unwrap_err();
    assert_eq!(error.to_string(), "branch `main` not found: the repository has gone");
    git(&remote.bare(), &["branch", "-m", "gone", "main"]);
    apply(&repository, plan("staging", &[(USER, "7.0")])).await;
    remote.assert_sound();
}

#[tokio::test]
async fn empty_or_missing_repository_is_named() {
    let remote = Remote::empty();
    let repository = Setup::new(&remote.file_url()).open_kept().await;
    let error = repository.refresh().await.unwrap_err();
    assert!(matches!(error, RemoteError::NoBranch { .. }));
    assert!(error.to_string().contains("has no branches"), "{error}");
    assert!(!error.is_transient());

    let repository = Setup::new("file:///no/such/repository.git").open_kept().await;
    assert!(matches!(repository.refresh().await, Err(RemoteError::NotFound { .. })));
    let repository = Setup::new(&format!("file://{}", remote.root().display())).open_kept().await;
    let error = repository.refresh().await.unwrap_err();
    assert!(matches!(error, RemoteError::NotFound { .. }), "{error}");
}

#[tokio::test]
async fn foreign_folder_is_not_used_as_mirror() {
    let remote = platform();
    let setup = Setup::new(&remote.file_url());
    // A bare repository, which could be mistaken for a damaged mirror and deleted.
    git(setup.folder.path(), &["init", "-q", "--bare", "mirror.git"]);
    std::fs::write(setup.mirror().join("description"), "mine").unwrap();
    let refused = ConfigRepository::open(setup.settings.clone(), setup.environments.clone()).await.unwrap_err();
    assert!(refused.to_string().contains("which is not part of a mirror: choose an empty folder"), "{refused}");
    assert_eq!(std::fs::read_to_string(setup.mirror().join("description")).unwrap(), "mine");

    // No mirror is created in one either.
    let mut inside = Setup::new(&remote.file_url());
    for (name, bare) in [("bare", true), ("copy", false)] {
        let folder = inside.folder.path().join(name);
        git(inside.folder.path(), &[&["init", "-q"][..], if bare { &["--bare"] } else { &[] }, &[name]].concat());
        inside.settings.mirror = folder.join("main");
        let refused = ConfigRepository::open(inside.settings.clone(), inside.environments.clone()).await.unwrap_err();
        assert!(refused.to_string().contains("which is not part of a mirror: choose an empty folder"), "{refused}");
        assert!(!folder.join("main").exists());
    }
}

#[tokio::test]
async fn leftovers_of_a_killed_process_do_not_break_the_mirror() {
    let remote = platform();
    let setup = Setup::new(&remote.file_url());
    setup.open().await.refresh().await.unwrap();
    for left in ["history/objects/pack", "compaction", "odd"] {
        std::fs::create_dir_all(setup.mirror().join(left)).unwrap();
    }
    std::fs::write(setup.mirror().join("shallow.lock"), "").unwrap();
    setup.open().await.refresh().await.unwrap();
    // Only its name is left.
    std::fs::remove_dir_all(setup.mirror().join("objects")).unwrap();
    let repository = setup.open().await;
    repository.refresh().await.unwrap();
    apply(&repository, plan("staging", &[(USER, "2.0")])).await;
    drop(repository);
    std::fs::write(setup.mirror().join("HEAD"), "").unwrap();
    setup.open().await.refresh().await.unwrap();
}

/// A file system in memory, unmounted on drop.
struct Small(std::path::PathBuf);

impl Small {
    /// Mounts one at a folder; `None` without the permission.
    fn mount(folder: &std::path::Path, size: &str) -> Option<Self> {
        let options = format!("size={size}");
        let mount =
            std::process::Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(folder).output();
        mount.is_ok_and(|mount| mount.status.success()).then(|| Self(folder.to_owned()))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[tokio::test]
async fn old_packs_do_not_fill_a_small_disk() {
    let remote = platform();
    let mut setup = Setup::new(&remote.file_url());
    let disk = setup.folder.path().join("disk");
    std::fs::create_dir(&disk).unwrap();
    let Some(_mounted) = Small::mount(&disk, "3m") else {
        println!("LEFT OUT: nothing can be mounted by this user");
        return;
    };
    setup.settings.mirror = disk.join("mirror.git");
    let repository = setup.open().await;
    let mut noise: u64 = 1;
    for round in 0..30 {
        // Incompressible text in a manifest that changes each time: 200 KiB per fetch.
        let mut text = deployment(&format!("uyou/user-service:{round}"));
        for _ in 0..6_000 {
            noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            text.push_str(&format!("# {noise:016x}{:016x}\n", noise.rotate_left(17)));
        }
        remote.commit("of others", &[("environments/staging/user.yaml", &text)]);
        repository.refresh().await.unwrap_or_else(|error| panic!("round {round}: {error}"));
        assert_eq!(versions(&repository, "staging", USER), [round.to_string()]);
    }
    apply(&repository, plan("staging", &[(USER, "last")])).await;
    remote.assert_sound();
}
