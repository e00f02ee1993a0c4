//! Kustomizations with bases outside of the environment, rules and pinned digests, with real pushes.

use crate::setup::{Setup, apply, deployment, environment_plan, plan, prepare, versions};
use tagrelay::config_repo::{ConfigRepository, Grouping, Outcome, Plan};
use tagrelay_image::Version;
use tagrelay_manifest::{Format, ManifestSettings, Pin, RulePart, SiteRule};
use tagrelay_test_support::git::{Remote, git};

const USER: &str = "uyou/user-service";
const DIGEST: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
const STAGING: &str = "environments/staging/user/kustomization.yaml";
const OVERLAY: &str = "# staging\nresources:\n  - ../../../base/user\n";
const BASE: &str = "resources: [deployment.yaml]\n";

fn platform() -> Remote {
    Remote::with(&[
        (STAGING, OVERLAY),
        ("environments/production/kustomization.yaml", "resources: [../../base/user]\n"),
        ("base/user/kustomization.yaml", BASE),
        ("base/user/deployment.yaml", &deployment("uyou/user-service:1.0")),
        ("base/other/readme.yaml", "a: b\n"),
    ])
}

/// The incrementally updated index equals a new one.
async fn assert_equals_new_index(setup: &Setup, repository: &ConfigRepository, name: &str) {
    repository.refresh().await.unwrap();
    let rival = setup.open_rival(name).await;
    rival.refresh().await.unwrap();
    assert_eq!(repository.snapshot(), rival.snapshot(), "{name}");
}

#[tokio::test]
async fn image_of_the_base_gets_its_own_entry() {
    let remote = platform();
    let setup = Setup::new(&remote.file_url());
    let repository = setup.open().await;
    repository.refresh().await.unwrap();
    assert_eq!(versions(&repository, "staging", USER), ["1.0"]);
    let snapshot = repository.snapshot().unwrap();
    let places = &snapshot.environments["staging"].sites[&USER.parse().unwrap()];
    assert_eq!((&*places[0].path, places[0].line, places[0].format), (STAGING, 3, Format::Inherited));

    // The base's version needs no entry.
    let unchanged = apply(&repository, plan("staging", &[(USER, "1.0")])).await;
    assert_eq!(unchanged[0].1, Outcome::Unchanged);

    let outcomes = apply(&repository, plan("staging", &[(USER, "2.0")])).await;
    let Outcome::Changed { changes, .. } = &outcomes[0].1 else { panic!("{outcomes:?}") };
    assert_eq!((changes[0].line, changes[0].old.to_string().as_str()), (6, "1.0"));
    let expected = format!("{OVERLAY}images:\n  - name: uyou/user-service\n    newTag: \"2.0\"\n");
    assert_eq!(remote.read(STAGING), expected);
    assert_eq!(git(&remote.bare(), &["diff", "--name-only", "HEAD~", "HEAD"]).trim(), STAGING);
    assert_eq!(versions(&repository, "staging", USER), ["2.0"]);
    assert_eq!(versions(&repository, "production", USER), ["1.0"]);
    assert_equals_new_index(&setup, &repository, "after").await;

    // Now it is an ordinary site. Removing the entry restores the base's version.
    apply(&repository, plan("staging", &[(USER, "3.0")])).await;
    assert_eq!(remote.read(STAGING), expected.replace("2.0", "3.0"));
    remote.commit("no entry", &[(STAGING, OVERLAY)]);
    repository.refresh().await.unwrap();
    assert_eq!(versions(&repository, "staging", USER), ["1.0"]);
    remote.assert_sound();
}

/// A step's description, the files that it writes, and the expected versions.
type Step<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a [&'a str]);

#[tokio::test]
async fn changed_base_is_noticed() {
    let remote = platform();
    let setup = Setup::new(&remote.file_url());
    let repository = setup.open().await;
    repository.refresh().await.unwrap();
    let two = format!("{}---\n{}", deployment("uyou/user-service:1.1"), deployment("ghcr.io/x/proxy:5"));
    let steps: [Step<'_>; 7] = [
        ("another version", &[("base/user/deployment.yaml", &two)], &["1.1"]),
        (
            "a version in the base",
            &[(
                "base/user/kustomization.yaml",
                "resources: [deployment.yaml]\nimages: [{name: uyou/user-service, newTag: v7}]\n",
            )],
            &["v7"],
        ),
        ("nothing is left", &[("base/user/kustomization.yaml", "resources: []\n")], &[]),
        (
            "back, from elsewhere",
            &[
                ("base/user/kustomization.yaml", "resources: [../new]\n"),
                ("base/new/kustomization.yml", "resources: [d.yaml]\n"),
            ],
            &[],
        ),
        ("what was missing", &[("base/new/d.yaml", &deployment("uyou/user-service:4"))], &["4"]),
        ("a patch beside it", &[("environments/staging/user/patch.yaml", &deployment("uyou/user-service:9"))], &["9"]),
        (
            "an entry above",
            &[
                ("environments/staging/user/patch.yaml", "a: b\n"),
                (
                    "environments/staging/kustomization.yaml",
                    "resources: [user]\nimages:\n- {name: uyou/user-service, newTag: v8}\n",
                ),
            ],
            &["v8"],
        ),
    ];
    for (step, files, expected) in steps {
        remote.commit(step, files);
        repository.refresh().await.unwrap();
        assert_eq!(versions(&repository, "staging", USER), expected, "{step}");
        assert_equals_new_index(&setup, &repository, step).await;
    }
    // A foreign commit that changes the base between reading and pushing is a lost race.
    let prepared = prepare(&repository, plan("production", &[(USER, "2.0")])).await;
    remote.commit("race", &[("base/new/d.yaml", &deployment("uyou/other:1"))]);
    assert!(repository.push(prepared).await.is_err());
    repository.refresh().await.unwrap();
    assert_eq!(versions(&repository, "production", USER), [""; 0]);
}

#[tokio::test]
async fn kustomization_of_two_environments_gets_one_entry() {
    for grouping in [Grouping::PerEnvironment, Grouping::Single] {
        let remote = platform();
        let mut setup = Setup::new(&remote.file_url());
        setup.settings.commits.grouping = grouping;
        setup.environments[1].paths = vec!["environments/staging/**".to_owned()];
        let repository = setup.open().await;
        repository.refresh().await.unwrap();
        let both = Plan {
            environments: vec![
                environment_plan("staging", &[(USER, "v2")]),
                environment_plan("production", &[(USER, "v2")]),
            ],
        };
        apply(&repository, both).await;
        let expected = format!("{OVERLAY}images:\n  - name: uyou/user-service\n    newTag: v2\n");
        assert_eq!(remote.read(STAGING), expected, "{grouping:?}");
        assert_equals_new_index(&setup, &repository, "both").await;
    }
}

#[tokio::test]
async fn unwritable_image_list_is_refused_without_stopping_others() {
    let remote = platform();
    let overlay = format!("{OVERLAY}images: [{{name: other, newTag: v1}}]\n");
    remote.commit("flow", &[(STAGING, &overlay), ("environments/staging/a.yaml", &deployment("uyou/other:v1"))]);
    let repository = Setup::new(&remote.file_url()).open_kept().await;
    repository.refresh().await.unwrap();
    let outcomes = apply(&repository, plan("staging", &[(USER, "2.0"), ("uyou/other", "v2")])).await;
    let Outcome::Refused { reason } = &outcomes[0].1 else { panic!("{outcomes:?}") };
    assert!(reason.starts_with(STAGING) && reason.contains("between brackets"), "{reason}");
    assert!(matches!(outcomes[1].1, Outcome::Changed { .. }));
    assert_eq!(remote.read(STAGING), overlay);
}

#[tokio::test]
async fn rules_and_pinned_digests_are_pushed() {
    const SETTINGS: &str = "environments/staging/edge.conf";
    let remote = platform();
    let values = "image:\n  repository: uyou/user-service\n  tag: 1.0.0 # kept\n";
    remote.commit(
        "more",
        &[
            (SETTINGS, "releases:\n- {name: user, version: 1.0.0} # kept\n"),
            ("environments/staging/values.yaml", values),
        ],
    );
    let mut setup = Setup::new(&remote.file_url());
    let repository: tagrelay_image::Repository = USER.parse().unwrap();
    let rule = SiteRule::new(SETTINGS, "$.releases[?name=='user'].version", Some(repository.clone()), RulePart::Tag);
    setup.environments[0].manifests =
        ManifestSettings { rules: vec![rule.unwrap()], pin: Pin::Digest, ..ManifestSettings::default() };
    let opened = setup.open().await;
    opened.refresh().await.unwrap();
    assert_eq!(versions(&opened, "staging", USER), ["1.0.0", "1.0", "1.0.0"]);

    // Nothing can be pinned without a digest, so nothing changes.
    let outcomes = apply(&opened, plan("staging", &[(USER, "2.0.0")])).await;
    assert!(matches!(&outcomes[0].1, Outcome::Refused { reason } if reason.contains("no digest is known")));

    let mut pinned = plan("staging", &[(USER, "2.0.0")]);
    pinned.environments[0].wanted[0].version = Version::tagged("2.0.0".parse().unwrap(), Some(DIGEST.parse().unwrap()));
    let outcomes = apply(&opened, pinned.clone()).await;
    assert!(matches!(&outcomes[0].1, Outcome::Changed { changes, .. } if changes.len() == 3), "{outcomes:?}");
    let edited = values.replace("1.0.0", &format!("2.0.0@{DIGEST}"));
    assert_eq!(remote.read("environments/staging/values.yaml"), edited);
    assert_eq!(remote.read(SETTINGS), "releases:\n- {name: user, version: 2.0.0} # kept\n");
    let entry = format!("images:\n  - name: uyou/user-service\n    newTag: 2.0.0\n    digest: {DIGEST}\n");
    assert_eq!(remote.read(STAGING), format!("{OVERLAY}{entry}"));
    assert_eq!(apply(&opened, pinned).await[0].1, Outcome::Unchanged);
    assert_equals_new_index(&setup, &opened, "pinned").await;
    remote.assert_sound();
}
