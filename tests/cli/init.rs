//! `tagrelay init` as the built program.

use std::io::Write as _;
use std::process::Stdio;

use tagrelay_test_support::command::{Answer, Workplace, run};

use crate::workplace;

/// A workplace with a working copy of the example platform in `work`.
fn with_copy() -> Workplace {
    let workplace = workplace().with_repository();
    std::fs::remove_file(workplace.path("tagrelay.toml")).unwrap();
    workplace
}

fn written(workplace: &Workplace) -> String {
    std::fs::read_to_string(workplace.path("tagrelay.toml")).unwrap()
}

/// Runs `check` with a value for each variable that `init` names.
fn check(workplace: &Workplace, arguments: &str) -> Answer {
    let text = written(workplace);
    let variables = text.lines().filter(|line| !line.starts_with('#'));
    let variables = variables.filter_map(|line| line.split_once("{ env = \"")?.1.split_once('"')).map(|(name, _)| name);
    run(workplace.tagrelay(arguments).envs(variables.map(|name| (name, "a secret of enough length"))))
}

#[test]
fn config_repository_over_ssh_needs_no_key_yet() {
    let workplace = with_copy();
    workplace.git(&["-C", "work", "remote", "add", "origin", "ssh://git@git.example.com/uyou/config.git"]);
    run(&mut workplace.tagrelay("init work --yes --public-url https://hooks.example.com/")).expect_code(0);
    let text = written(&workplace);
    for part in [
        "url = \"ssh://git@git.example.com/uyou/config.git\"",
        "ssh_key = { env = \"GIT_SSH_KEY\" }",
        "known_hosts = \"known_hosts\"",
    ] {
        assert!(text.contains(part), "{part}:\n{text}");
    }
}

#[test]
fn proposals_for_the_example_platform_pass_check() {
    let workplace = with_copy();
    let url = format!("file://{}", workplace.path("platform.git").display());
    workplace.git(&["-C", "work", "remote", "add", "origin", &url]);
    let answer = run(&mut workplace.tagrelay("init work --yes --public-url https://hooks.example.com/")).expect_code(0);
    for part in [
        "production: manual, promoted from staging (environments/production)",
        "docker.io/uyou/* with tags { kind = \"commit-sha\" }",
        "docker.io: https://hooks.example.com/webhooks/docker-hub?token=$DOCKER_HUB_WEBHOOK_SECRET",
        "tagrelay check --config tagrelay.toml",
        "tagrelay serve --config tagrelay.toml",
    ] {
        assert!(answer.stdout.contains(part), "{part}: {}", answer.stdout);
    }
    let text = written(&workplace);
    for part in [
        format!("url = \"{url}\"\nbranch = \"main\""),
        "name = \"development\"\npaths = [\"environments/development\"]\nupdate = \"automatic\"\n\
         tag = { kind = \"commit-sha\", prefix = \"dev-\" }"
            .to_owned(),
        "update = \"manual\"\npromote_from = [\"staging\"]".to_owned(),
    ] {
        assert!(text.contains(&part), "{part}:\n{text}");
    }
    let checked = check(&workplace, "check --offline").expect_code(0);
    assert!(checked.stdout.contains("good: faults 0, warnings 0"), "{}", checked.stdout);
    let again = run(&mut workplace.tagrelay("init work --yes")).expect_code(1);
    assert!(again.stderr.contains("tagrelay.toml exists: use --force or --output"), "{}", again.stderr);
}

#[test]
fn answers_and_flags_replace_proposals() {
    let workplace = with_copy();
    let mut init =
        workplace.tagrelay("init work --manual staging --repository https://me:hunter2@git.example.com/p.git");
    let mut process = init.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // development: no; production: the proposal; one image; its receiver.
    process.stdin.take().unwrap().write_all(b"maybe\nno\n\ndocker.io/uyou/user-service\ngeneric\n").unwrap();
    let answer = process.wait_with_output().unwrap();
    let (stdout, stderr) = (String::from_utf8(answer.stdout).unwrap(), String::from_utf8(answer.stderr).unwrap());
    assert!(answer.status.success(), "{stderr}");
    assert!(
        stderr.contains("development (environments/development): deploy new versions automatically? yes or no [yes]")
    );
    assert!(!stderr.contains("staging (") && !stderr.contains("URL of the config repository"), "{stderr}");
    let text = written(&workplace);
    assert!(!format!("{text}{stdout}{stderr}").contains("hunter2"), "a password was kept");
    assert_eq!(text.matches("update = \"manual\"").count(), 3, "{text}");
    assert!(!text.contains("promote_from"), "{text}");
    assert!(text.contains("url = \"https://git.example.com/p.git\"") && text.contains("kind = \"generic\""), "{text}");
    check(&workplace, "check --offline").expect_code(0);
}

#[test]
fn cloud_registry_gets_a_login() {
    let workplace = workplace();
    std::fs::remove_file(workplace.path("tagrelay.toml")).unwrap();
    let folder = workplace.path("manifests/prod");
    std::fs::create_dir_all(&folder).unwrap();
    let image = "europe-docker.pkg.dev/uyou/apps/web:sha-9f8e7d6";
    std::fs::write(folder.join("web.yaml"), format!("kind: Pod\nspec:\n  containers:\n    - image: {image}\n"))
        .unwrap();
    let url = "https://git.example.com/p.git";
    run(&mut workplace.tagrelay(&format!("init manifests --yes --repository {url}"))).expect_code(0);
    let text = written(&workplace);
    for part in [
        "host = \"europe-docker.pkg.dev\"\nlogin = \"google\"",
        "repository = \"europe-docker.pkg.dev/uyou/apps/*\"\ntag = { kind = \"commit-sha\", prefix = \"sha-\", min_length = 7 }",
        "kind = \"gar\"",
    ] {
        assert!(text.contains(part), "{part}:\n{text}");
    }
    check(&workplace, "check --offline").expect_code(0);
}

#[test]
fn missing_answers_are_named() {
    let workplace = with_copy();
    let unknown = run(&mut workplace.tagrelay("init work --yes")).expect_code(1);
    assert!(unknown.stderr.contains("use --repository URL"), "{}", unknown.stderr);
    let url = "--repository https://git.example.com/p.git";
    let name = run(&mut workplace.tagrelay(&format!("init work --yes {url} --manual prod"))).expect_code(1);
    assert!(
        name.stderr.contains("there is no environment `prod`; found: development, staging, production"),
        "{name:?}"
    );
    let inside = run(&mut workplace.tagrelay(&format!("init work/environments --yes {url}"))).expect_code(1);
    assert!(inside.stderr.contains("work/environments is inside the repository"), "{inside:?}");
    let pattern = run(&mut workplace.tagrelay(&format!("init work --yes {url} --image uyou"))).expect_code(1);
    assert!(pattern.stderr.contains("the settings would not be valid"), "{pattern:?}");

    std::fs::create_dir(workplace.path("other")).unwrap();
    std::fs::write(workplace.path("other/a.yaml"), "kind: Pod\nspec:\n  containers:\n    - image: redis:7.2.4\n")
        .unwrap();
    let image = run(&mut workplace.tagrelay(&format!("init other --yes {url}"))).expect_code(1);
    assert!(image.stderr.contains("name yours with --image; found: docker.io/library/*"), "{image:?}");
    assert!(!workplace.path("tagrelay.toml").exists());
}

#[test]
fn output_to_standard_output_is_the_settings_alone() {
    let workplace = with_copy();
    let url = "--repository https://git.example.com/p.git";
    let answer = run(&mut workplace.tagrelay(&format!("init work --yes {url} --output -"))).expect_code(0);
    assert!(answer.stdout.starts_with("# Written by") && !answer.stdout.contains("Next:"), "{}", answer.stdout);
    assert!(answer.stderr.contains("Next:") && !workplace.path("tagrelay.toml").exists());
}
