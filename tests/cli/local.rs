//! Commands that need no server: help, usage, `sites` and `check`.

use std::path::Path;

use tagrelay_test_support::command::run;
use tagrelay_test_support::settings::{COMMANDS, SMALLEST};

use crate::{tagrelay, workplace};

const EXAMPLE: &str = "deploy/config-repository";

/// The names of the commands in a help text.
fn listed_commands(help: &str) -> Vec<String> {
    let list = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    list.filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
        .collect()
}

#[test]
fn help_of_every_command_has_an_example() {
    let top = run(&mut tagrelay("--help")).expect_code(0);
    let commands = listed_commands(&top.stdout);
    for name in [
        "demo",
        "sites",
        "check",
        "serve",
        "status",
        "history",
        "diff",
        "promote",
        "promotions",
        "rollback",
        "events",
        "holds",
        "freezes",
        "freeze",
        "thaw",
        "receivers",
        "reload",
        "open",
        "completion",
        "help",
    ] {
        assert!(commands.iter().any(|command| command == name), "{name} is not in {commands:?}");
    }
    let mut paths: Vec<String> = commands.into_iter().filter(|name| name != "help").collect();
    for command in ["holds", "events", "promotions", "webhook"] {
        let help = run(&mut tagrelay(&format!("{command} --help"))).expect_code(0);
        paths.extend(listed_commands(&help.stdout).iter().map(|below| format!("{command} {below}")));
    }
    assert!(paths.iter().any(|path| path == "events show") && paths.iter().any(|path| path == "holds release"));
    for path in &paths {
        let help = run(&mut tagrelay(&format!("{path} --help"))).expect_code(0);
        // The help of `holds add` and `holds release` has short forms.
        let name = path.split_whitespace().last().unwrap().replace("add", "hold");
        let has_example = help.stdout.lines().any(|line| line.starts_with("  tagrelay ") && line.contains(&name));
        assert!(has_example && help.stdout.contains("Example"), "{path}:\n{}", help.stdout);
        assert!(help.stdout.lines().all(|line| line.chars().count() <= 100), "{path}:\n{}", help.stdout);
        assert!(help.stderr.is_empty());
    }
}

#[test]
fn data_is_printed_as_json() {
    for command in [
        "sites",
        "check",
        "status",
        "promote",
        "rollback",
        "events",
        "events show",
        "holds",
        "hold",
        "freezes",
        "freeze",
    ] {
        let help = run(&mut tagrelay(&format!("{command} --help"))).expect_code(0);
        assert!(help.stdout.contains("--json"), "{command}");
    }
}

#[test]
fn invalid_arguments_are_usage_errors() {
    for arguments in [
        "",
        "fly",
        "serve --fly",
        "promote",
        "promote --to production --tag 1a2b3c4",
        "promote --to production --expect user-service",
        "promote --to production --no-wait --wait 3",
        "promote --to production --token secret",
        "promote --to production --wait 18446744073709551615",
        "rollback user-service",
        "rollback production a b --to t1",
        "events --state lost",
        "events shwo",
        "hold production",
        "freeze production",
        "--time soon status",
        "events --limit 0",
        "status --server 127.0.0.1:8080",
        "status --server http://me:secret@127.0.0.1:8080",
        "check --offline=perhaps",
    ] {
        let answer = run(&mut tagrelay(arguments)).expect_code(2);
        assert!(answer.stdout.is_empty() && answer.stderr.contains("--help"), "{arguments}: {answer:?}");
    }
}

#[test]
fn settings_must_use_the_expected_store() {
    let workplace = workplace();
    workplace.write_settings(&format!("{SMALLEST}\n[store]\nurl = \"sqlite:/data/tagrelay.db\"\n"));
    for (expected, code, message) in [
        ("sqlite", 0, "is the SQLite file /data/tagrelay.db, as expected"),
        ("sqlite:/data", 0, "as expected"),
        ("sqlite:/var/lib/tagrelay", 1, "Set `url = \"sqlite:/var/lib/tagrelay/tagrelay.db\"` in [store]"),
        ("postgres", 1, "--expect-store=postgres, but [store] is the SQLite file /data/tagrelay.db"),
    ] {
        let checked = run(&mut workplace.tagrelay(&format!("check --offline --expect-store={expected}")));
        let checked = checked.expect_code(code);
        assert!(checked.stdout.contains(message), "{expected}: {}", checked.stdout);
    }
    let wrong = run(&mut workplace.tagrelay("check --offline --expect-store=mysql")).expect_code(2);
    assert!(wrong.stderr.contains("expected sqlite, sqlite:FOLDER or postgres"), "{}", wrong.stderr);
}

#[test]
fn all_settings_faults_are_reported() {
    let workplace = workplace();
    workplace.write_settings("[server]\nlisten = \"here\"\nlistne = 1\n\n[[environment]]\nname = \"staging\"\n");
    let served = run(&mut workplace.tagrelay("serve")).expect_code(1);
    let checked = run(&mut workplace.tagrelay("check")).expect_code(1);
    let checked_json = run(&mut workplace.tagrelay("check --json")).expect_code(1).json();
    assert_eq!(served.stdout, "", "{served:?}");
    for expected in ["tagrelay.toml:2:10: `listen`", "tagrelay.toml:3:1: unknown key `listne`", "`paths`", "[[image]]"]
    {
        assert!(served.stderr.contains(expected), "{expected} is not in:\n{}", served.stderr);
        assert!(checked.stdout.contains(expected), "{expected} is not in:\n{}", checked.stdout);
    }
    assert_eq!(checked_json["ok"], false);
    let findings = checked_json["findings"].as_array().unwrap();
    assert_eq!(findings.len(), served.stderr.lines().count());
    assert_eq!((&findings[0]["line"], &findings[0]["column"]), (&2.into(), &10.into()));
}

#[test]
fn sites_of_a_folder_are_listed_with_lines() {
    let answer = run(&mut tagrelay(&format!("sites {EXAMPLE}"))).expect_code(0);
    assert!(answer.stdout.starts_with("SITE "), "{}", answer.stdout);
    assert!(!answer.stdout.contains('\u{1b}'), "no colours in a pipe");
    let found = run(&mut tagrelay(&format!("sites {EXAMPLE} --json"))).expect_code(0).json();
    let sites = found["sites"].as_array().unwrap();
    assert!(sites.len() >= 10, "{sites:?}");
    for site in sites {
        let (path, line) = (site["path"].as_str().unwrap(), site["line"].as_u64().unwrap());
        let text = std::fs::read_to_string(Path::new(EXAMPLE).join(path)).unwrap();
        let written = text.lines().nth(line as usize - 1).unwrap();
        let version = site["tag"].as_str().or(site["digest"].as_str()).unwrap();
        assert!(written.contains(version), "{path}:{line} does not say {version}: {written}");
        assert!(answer.stdout.contains(&format!("{path}:{line} ")), "{path}:{line} is not in the table");
        assert!(site.get("rule").is_none(), "nothing is known of rules without settings");
    }
    let formats: std::collections::BTreeSet<_> = sites.iter().map(|site| site["format"].as_str().unwrap()).collect();
    assert_eq!(formats.into_iter().collect::<Vec<_>>(), ["helm-values", "kubernetes", "kustomization"]);
    assert_eq!(found["problems"], serde_json::json!([]));
}

#[test]
fn images_of_a_base_are_sites_of_the_environment() {
    let workplace = workplace().with_repository();
    let overlay = "environments/staging/based/kustomization.yaml";
    for (path, text) in [
        (overlay, "resources:\n- ../../../base/pod.yaml\n"),
        ("base/pod.yaml", "apiVersion: v1\nkind: Pod\nspec:\n  containers:\n  - image: uyou/based:1a2b3c4\n"),
    ] {
        let path = workplace.path("work").join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    workplace.git(&["-C", "work", "add", "-A"]);
    workplace.git(&["-C", "work", "commit", "-q", "-m", "Base"]);
    workplace.git(&["-C", "work", "push", "-q", "../platform.git", "main"]);
    let sites = |place: &str| {
        run(&mut workplace.tagrelay(&format!("sites {place} --config tagrelay.toml --json"))).expect_code(0).json()
    };
    let folder = sites("work");
    let inherited: Vec<_> = folder["sites"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|site| site["format"] == "inherited" && site["repository"] == "docker.io/uyou/based")
        .collect();
    assert_eq!(inherited.len(), 1, "{inherited:?}");
    assert_eq!(
        (&inherited[0]["path"], &inherited[0]["line"], &inherited[0]["tag"]),
        (&overlay.into(), &2.into(), &"1a2b3c4".into())
    );
    assert_eq!(inherited[0]["environments"], serde_json::json!(["staging"]));
    assert_eq!(inherited[0]["rule"], "docker.io/uyou/*");
    assert_eq!(sites("platform.git")["sites"], folder["sites"]);
    let alone = run(&mut workplace.tagrelay("sites work --json")).expect_code(0).json();
    assert!(alone["sites"].as_array().unwrap().iter().all(|site| site["format"] != "inherited"));
}

#[test]
fn sites_name_environment_and_rule() {
    let workplace = workplace().with_repository();
    let folder = run(&mut workplace.tagrelay("sites work --config tagrelay.toml --json")).expect_code(0).json();
    let of = |repository: &str, environment: &str| {
        let sites = folder["sites"].as_array().unwrap().iter();
        let mut found = sites.filter(|site| {
            site["repository"] == repository && site["environments"] == serde_json::json!([environment])
        });
        found.next().unwrap_or_else(|| panic!("no {repository} in {environment}")).clone()
    };
    assert_eq!(of("docker.io/uyou/user-service", "production")["rule"], "docker.io/uyou/*");
    let unmanaged = of("docker.io/library/redis", "staging");
    assert_eq!(unmanaged["rule"], serde_json::Value::Null);
    assert!(unmanaged["reason"].as_str().unwrap().contains("no [[image]] rule"));

    let url = format!("file://{}", workplace.path("platform.git").display());
    let repository =
        run(&mut workplace.tagrelay(&format!("sites {url} --config tagrelay.toml --json"))).expect_code(0).json();
    assert_eq!(repository["commit"], workplace.git(&["-C", "work", "rev-parse", "HEAD"]).trim());
    assert_eq!(repository["sites"], folder["sites"], "a repository has the sites of its checkout");
    let bare = run(&mut workplace.tagrelay("sites platform.git --config tagrelay.toml --json")).expect_code(0).json();
    assert_eq!(bare, repository, "a bare repository is read as its URL is");
    assert!(!workplace.path("data").exists(), "no other folder is created");
}

#[test]
fn unreadable_files_are_reported() {
    let workplace = workplace();
    std::fs::create_dir(workplace.path("manifests")).unwrap();
    std::fs::write(workplace.path("manifests/broken.yaml"), "kind: [\nimage: a/b:1\n").unwrap();
    let answer = run(&mut workplace.tagrelay("sites manifests")).expect_code(0);
    assert!(answer.stdout.contains("broken.yaml") && answer.stderr.contains("no sites"), "{answer:?}");

    let absent = run(&mut workplace.tagrelay("sites nowhere")).expect_code(1);
    assert!(absent.stdout.is_empty() && absent.stderr.starts_with("error: nowhere cannot be read"), "{absent:?}");
    std::os::unix::fs::symlink("nowhere", workplace.path("dangling")).unwrap();
    let dangling = run(&mut workplace.tagrelay("sites dangling")).expect_code(1);
    assert!(dangling.stderr.starts_with("error: dangling cannot be read"), "{dangling:?}");
    let scp = run(&mut workplace.tagrelay("sites git@git.example.com:uyou/platform.git")).expect_code(1);
    assert!(scp.stderr.contains("ssh://git@git.example.com/uyou/platform.git"), "{scp:?}");
    let secret = run(&mut workplace.tagrelay("sites https://me:hunter2@git.example.com/x.git")).expect_code(1);
    assert!(!secret.stderr.contains("hunter2") && secret.stderr.contains("--config"), "{secret:?}");
    let branch = run(&mut workplace.tagrelay("sites . --branch main")).expect_code(1);
    assert!(branch.stderr.contains("--branch needs a URL"), "{branch:?}");
}

#[test]
fn example_settings_pass_offline() {
    let workplace = workplace();
    let example = include_str!("../../config.example.toml");
    for secret in ["harbor-password", "harbor-webhook-secret"] {
        std::fs::write(workplace.path(secret), "a secret\n").unwrap();
    }
    workplace.write_settings(&example.replace("/run/secrets/tagrelay", "{folder}"));
    let variables: Vec<&str> =
        example.split("{ env = \"").skip(1).filter_map(|rest| rest.split_once('"')).map(|(name, _)| name).collect();
    let mut command = workplace.tagrelay("check --offline");
    // The last one is the identity for `login = "aws"`.
    let values = variables.iter().chain(&["AWS_ROLE_ARN"]).map(|name| (name, format!("hunter2-of-{name}")));
    let answer = run(command.envs(values)).expect_code(0);
    assert!(answer.stdout.contains("good: faults 0, warnings 0"), "{answer:?}");

    let without = run(&mut workplace.tagrelay("check --offline")).expect_code(1);
    assert!(without.stdout.contains("GIT_PASSWORD is not set"), "{without:?}");
    let mut both = format!("{}{}", answer.stdout, answer.stderr);
    both.push_str(&run(command.arg("--json")).stdout);
    assert!(!both.contains("hunter2"), "a secret is shown:\n{both}");
}

#[test]
fn check_compares_rules_with_the_repository() {
    let workplace = workplace().with_repository();
    let good = run(&mut workplace.tagrelay("check")).expect_code(0);
    for expected in ["config repository platform, branch main", "environment production", "sites are managed"] {
        assert!(good.stdout.contains(expected), "{expected} is not in:\n{}", good.stdout);
    }
    assert!(!workplace.path("data").exists(), "a check makes nothing");

    let typos = COMMANDS.replace("environments/staging/**", "environments/stagin/**");
    workplace.write_settings(&format!("{typos}\n[[image]]\nrepository = \"ghcr.io/nobody/*\"\n"));
    let bad = run(&mut workplace.tagrelay("check")).expect_code(1);
    let line = |text: &str| {
        let settings = std::fs::read_to_string(workplace.path("tagrelay.toml")).unwrap();
        settings[..settings.find(text).unwrap()].lines().count()
    };
    let environment = format!("tagrelay.toml:{}: no file in environments/stagin/**", line("name = \"staging\""));
    let rule = format!("tagrelay.toml:{}: it matches no site", line("repository = \"ghcr.io/nobody/*\""));
    for expected in [environment, rule, "not good: faults 2".to_owned()] {
        assert!(bad.stdout.contains(&expected), "{expected} is not in:\n{}", bad.stdout);
    }
    run(&mut workplace.tagrelay("check --offline")).expect_code(0);
}

#[test]
fn check_reports_unreachable_peers() {
    let workplace = workplace().with_repository();
    // Port 1 is closed.
    let asks = COMMANDS.replace("docker.io/uyou/*", "127.0.0.1:1/uyou/*").replace("verify = { exists = false }", "");
    workplace.write_settings(&asks);
    let file = workplace.path("work/environments/staging/new.yaml");
    let sha = "9f8e7d6c5b4a39281706f5e4d3c2b1a098765432";
    std::fs::write(file, format!("apiVersion: v1\nkind: Pod\nspec:\n  image: 127.0.0.1:1/uyou/a:{sha}\n")).unwrap();
    workplace.git(&["-C", "work", "add", "-A"]);
    workplace.git(&["-C", "work", "commit", "-q", "-m", "Add"]);
    workplace.git(&["-C", "work", "push", "-q", "../platform.git", "main"]);
    let registry = run(&mut workplace.tagrelay("check")).expect_code(1);
    assert!(registry.stdout.contains("registry 127.0.0.1:1"), "{}", registry.stdout);

    std::fs::rename(workplace.path("platform.git"), workplace.path("elsewhere.git")).unwrap();
    let remote = run(&mut workplace.tagrelay("check --json")).expect_code(1).json();
    let faults: Vec<_> =
        remote["findings"].as_array().unwrap().iter().filter(|finding| finding["level"] == "fault").collect();
    assert_eq!(faults.len(), 1, "unread files cause no fault: {faults:?}");
    assert_eq!(faults[0]["subject"], "config repository platform, branch main");
}

#[test]
fn check_reads_source_repositories() {
    let workplace = workplace().with_repository();
    let check = |name: &str, branch: &str| {
        let url = format!("file://{}", workplace.path(name).display());
        let source = format!("source = \"{url}\"\nsource_branches = [\"{branch}\"]\nverify = {{ exists = false }}");
        workplace.write_settings(&COMMANDS.replace("verify = { exists = false }", &source));
        run(&mut workplace.tagrelay("check"))
    };
    let good = check("platform.git", "main").expect_code(0).stdout;
    assert!(good.contains("platform.git can be read: branch main"), "{good}");
    let none = check("platform.git", "release/*").expect_code(0).stdout;
    assert!(none.contains("platform.git has none of the `source_branches`"), "{none}");
    let away = check("elsewhere.git", "main").expect_code(1).stdout;
    assert!(away.contains("source of docker.io/uyou/") && away.contains("elsewhere.git: not found"), "{away}");
}

#[test]
fn check_reports_updates_that_would_be_refused() {
    let workplace = workplace().with_repository();
    let shared = "apiVersion: v1\nkind: Pod\nmetadata:\n  annotations:\n    x: &img docker.io/uyou/a:9f8e7d6c5b4a39281706f5e4d3c2b1a098765432\n\
                  spec:\n  containers:\n  - image: *img\n";
    std::fs::write(workplace.path("work/environments/staging/shared.yaml"), shared).unwrap();
    workplace.git(&["-C", "work", "add", "-A"]);
    workplace.git(&["-C", "work", "commit", "-q", "-m", "Share"]);
    workplace.git(&["-C", "work", "push", "-q", "../platform.git", "main"]);
    let tip = workplace.git(&["-C", "platform.git", "rev-parse", "main"]);
    let answer = run(&mut workplace.tagrelay("check")).expect_code(0);
    let expected = "a new version would be refused: environments/staging/shared.yaml: line ";
    let told: Vec<_> = answer.stdout.lines().filter(|line| line.contains(expected)).collect();
    assert_eq!(told.len(), 1, "{}", answer.stdout);
    assert!(told[0].starts_with("warning") && told[0].contains("shared through an anchor"), "{told:?}");
    assert_eq!(workplace.git(&["-C", "platform.git", "rev-parse", "main"]), tip);

    std::fs::create_dir(workplace.path("data")).unwrap();
    std::fs::write(workplace.path("data/tagrelay.db"), "x".repeat(5000)).unwrap();
    let answer = run(&mut workplace.tagrelay("check")).expect_code(1);
    assert!(answer.stdout.contains("tagrelay.db cannot be used: file is not a database"), "{}", answer.stdout);
}

#[test]
fn colours_are_only_for_terminals() {
    let coloured = |variables: &[(&str, &str)]| {
        let mut command = tagrelay(&format!("sites {EXAMPLE}"));
        run(command.envs(variables.iter().copied())).expect_code(0).stdout.contains('\u{1b}')
    };
    assert!(!coloured(&[]));
    assert!(coloured(&[("CLICOLOR_FORCE", "1")]));
    assert!(!coloured(&[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")]));
}

#[test]
fn check_names_registries_that_are_not_asked() {
    let workplace = workplace().with_repository();
    let skipped = |settings: &str, host: &str| {
        workplace.write_settings(settings);
        let answer = run(&mut workplace.tagrelay("check")).stdout;
        let line = answer
            .lines()
            .find(|line| line.contains(&format!("registry {host} ")))
            .unwrap_or_else(|| panic!("{answer}"));
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let reason = "not checked: its [[image]] rules have `verify = { exists = false }`";
    assert_eq!(skipped(COMMANDS, "docker.io"), format!("skipped registry docker.io {reason}"));
    let unused = format!("{COMMANDS}\n[[registry]]\nhost = \"ghcr.io\"\n");
    let reason = "not checked: no manifest that was read names a tag of a managed image there";
    assert_eq!(skipped(&unused, "ghcr.io"), format!("skipped registry ghcr.io {reason}"));
}
