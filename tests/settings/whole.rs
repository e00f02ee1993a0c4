//! Whole settings: defaults, warnings, and the values for the rest of the program.

use std::path::Path;

use tagrelay::registry::Cloud;
use tagrelay::settings::{Fault, Faults, Position, Settings};
use tagrelay_test_support::settings::SMALLEST;

use crate::texts::{environment, faults, parse};

#[test]
fn smallest_settings_are_valid() {
    let settings = parse(SMALLEST).unwrap();
    assert_eq!(settings.warnings, []);
    assert_eq!(settings.server.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(settings.store.path, Path::new("tagrelay.db"));
    assert_eq!(settings.config_repositories[0].commits.author.email, "tagrelay@localhost");
}

#[test]
fn all_faults_are_reported_in_order() {
    let text = r#"
[server]
listen = "nowhere"
prot = 1

[store]
url = "mysql://root:hunter2@db"

[[config_repository]]
name = "platform"
url = "git@host:path"
brnach = "main"

[[environment]]
name = "staging"
config_repository = "platfrom"
paths = ["/environments"]
update = "sometimes"

[[environment]]
name = "staging"
paths = ["b"]
promote_from = ["staging", "qa"]

[[image]]
repository = "Docker.io/a"
tag = { min_length = 41 }

[[registry]]
host = "https://docker.io"
username = "a"

[[receiver]]
name = "a b"
kind = "docker_hub"
secret = { env = "NOT_SET" }

[[api_token]]
name = "a"
token = "hunter2"
permissions = ["promote", "rollback:qa"]
"#;
    let faults = parse(text).unwrap_err();
    let lines: Vec<u32> = faults.0.iter().map(|fault| fault.position.unwrap().line).collect();
    assert_eq!(lines, [3, 4, 7, 11, 12, 16, 17, 18, 21, 23, 23, 26, 27, 30, 31, 34, 35, 36, 40, 41, 41]);
    assert!(!faults.to_string().contains("hunter2"), "{faults}");
}

#[test]
fn questionable_settings_are_warnings() {
    let warnings = |text: &str| -> Vec<String> {
        parse(text).unwrap().warnings.iter().map(|warning| warning.to_string()).collect()
    };
    let basic = "username = \"a\"\npassword = { env = \"TOKEN\" }";
    let http =
        |host: &str| SMALLEST.replace("\"file:///srv/git/platform.git\"", &format!("\"http://{host}/a.git\"\n{basic}"));
    let short = "\n[[api_token]]\nname = \"a\"\ntoken = { value = \"a\" }\npermissions = [\"read\"]\n";
    let warned = warnings(&format!("{SMALLEST}{short}")).join("\n");
    assert!(
        warned.contains("`token` has fewer than 16 characters, so that it can be guessed; use letters"),
        "{warned}"
    );
    assert_eq!(
        warnings(&http("git.example.com")),
        ["t.toml:3:7: the password of the config repository is sent unencrypted over http; use https"]
    );
    assert!(warnings(&http("127.0.0.1:3000")).is_empty());
    let registry = |host: &str| {
        let image = SMALLEST.replace("docker.io/uyou/*", &format!("{host}/uyou/*"));
        format!("{image}[[registry]]\nhost = \"{host}\"\nplain_http = true\n{basic}\n")
    };
    assert_eq!(
        warnings(&registry("registry.internal:5000")),
        ["t.toml:19:14: the password for `registry.internal:5000` is sent unencrypted over http; use https"]
    );
    assert!(warnings(&registry("localhost:5000")).is_empty());
    let both = SMALLEST.replace("environments/production/**", "environments/staging/api");
    let by_hand = |text: &str| text.replace("update = \"automatic\"", "update = \"manual\"");
    assert_eq!(
        warnings(&by_hand(&both)),
        ["t.toml:12:9: `environments/staging/api` of `production` is also in `staging`: both environments write to it"]
    );
    assert_eq!(
        faults(&both),
        "t.toml:12:9: `environments/staging/api` of `production` is also in `staging`: both environments write to it; give each its \
         own folders; shared manifests belong to a base that neither lists"
    );
    assert_eq!(
        warnings(&format!("{SMALLEST}[[registry]]\nhost = \"harbor.example.com\"\n")),
        [
            "t.toml:17:1: no [[image]] rule has a repository at harbor.example.com; remove the [[registry]], or add the rule"
        ]
    );
    let open = "[server]\nlisten = \"0.0.0.0:8080\"\n[[receiver]]\nname = \"hub\"\nkind = \"docker-hub\"\nunauthenticated = true\n";
    assert_eq!(
        warnings(&format!("{SMALLEST}{open}")),
        [
            "t.toml:22:19: `hub` accepts webhooks of anybody who reaches 0.0.0.0:8080; set `secret`, or listen on a loopback address"
        ]
    );
    assert!(warnings(&format!("{SMALLEST}{}", open.replace("0.0.0.0", "127.0.0.1"))).is_empty());
    let over = "promote_from = [\"staging\"]\nfreeze = [{ from = \"2020-12-24T00:00:00Z\", until = \"2020-12-27T00:00:00Z\" }]";
    let warned = warnings(&SMALLEST.replace("promote_from = [\"staging\"]", over)).join("\n");
    assert!(warned.ends_with("this freeze is over; remove it"), "{warned}");
    let unused = SMALLEST.replace("paths =", "config_repository = \"platform\"\npaths =");
    assert_eq!(
        warnings(&format!("{unused}[[config_repository]]\nname = \"edge\"\nurl = \"file:///srv/edge.git\"\n")),
        ["t.toml:19:1: no [[environment]] uses the config repository `edge`"]
    );
}

#[test]
fn two_repositories_share_no_mirror() {
    let two = |first: &str, second: &str| {
        let text = SMALLEST
            .replace("paths =", "config_repository = \"platform\"\npaths =")
            .replace("name = \"platform\"", &format!("name = \"platform\"\n{first}"));
        faults(&format!("{text}[[config_repository]]\nname = \"edge\"\nurl = \"file:///srv/edge.git\"\n{second}\n"))
    };
    assert_eq!(
        two("mirror = \"m\"", "mirror = \"m\""),
        "t.toml:23:10: the mirror `m` is taken by the [[config_repository]] on line 3"
    );
    assert_eq!(two("", "mirror = \"mirrors/platform\""), "t.toml:23:10: `edge` has the same mirror as `platform`");
}

#[test]
fn each_branch_has_a_remote_and_a_mirror_of_its_own() {
    let text = SMALLEST.replace("promote_from =", "branch = \"env/production\"\npromote_from =");
    let settings = parse(&format!("{text}[store]\nurl = \"sqlite:/data/t.db\"\n")).unwrap();
    let found: Vec<_> = settings
        .remotes()
        .into_iter()
        .map(|(remote, on_it)| {
            let on_it: Vec<String> = on_it.into_iter().map(|environment| environment.name).collect();
            (remote.branch, remote.mirror.display().to_string(), on_it.join(" "))
        })
        .collect();
    let expected = [
        ("main", "/data/mirrors/platform/main", "staging"),
        ("env/production", "/data/mirrors/platform/env%2Fproduction", "production"),
    ];
    assert_eq!(found, expected.map(|(a, b, c)| (a.to_owned(), b.to_owned(), c.to_owned())));
    let together = parse(SMALLEST).unwrap().remotes();
    assert_eq!(together.len(), 1);
    assert_eq!(together[0].1.len(), 2);
    assert_eq!(together[0].0.mirror, Path::new("mirrors/platform/main"));
}

#[test]
fn unreadable_files_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tagrelay.toml");
    let load = || Settings::load_with(&path, &environment);
    assert_eq!(
        load().unwrap_err().to_string(),
        format!(
            "{}: the settings cannot be read: No such file or directory (os error 2); name the settings with --config \
             FILE; config.example.toml is an example",
            path.display()
        )
    );
    std::fs::write(&path, b"[server]\n# caf\xc3\xa9 \xff\n").unwrap();
    assert_eq!(load().unwrap_err().to_string(), format!("{}:2:8: the settings are not UTF-8", path.display()));
    std::fs::write(&path, format!("\u{feff}{}", SMALLEST.replace('\n', "\r\n"))).unwrap();
    assert!(load().is_ok());
    std::fs::write(&path, "\u{feff}x = 1").unwrap();
    assert!(load().unwrap_err().to_string().contains("tagrelay.toml:1:1: unknown key `x`"));
}

#[test]
fn faults_are_available_as_data() {
    let faults = Faults(vec![
        Fault {
            file: "t.toml".into(),
            position: Some(Position { line: 2, column: 1 }),
            message: "a".into(),
            hint: Some("b".into()),
        },
        Fault { file: "t.toml".into(), position: None, message: "c".into(), hint: None },
    ]);
    assert_eq!(
        serde_json::to_string(&faults).unwrap(),
        r#"[{"file":"t.toml","line":2,"column":1,"message":"a","hint":"b"},{"file":"t.toml","message":"c","hint":null}]"#
    );
}

#[test]
fn docker_config_is_checked_and_its_helpers_are_reported() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.json");
    let text = format!("{SMALLEST}[registries]\ndocker_config = \"{}\"\n", file.display());
    let read = || Settings::parse("t.toml", &text, &|name| Ok(name.to_owned()));

    std::fs::write(&file, r#"{"credHelpers":{"gcr.io":"gcloud"}}"#).unwrap();
    let settings = read().unwrap();
    assert_eq!(settings.registries.docker_config.as_deref(), Some(file.as_path()));
    let warning = settings.warnings[0].to_string();
    assert!(warning.contains("the credential helper `gcr.io: gcloud` is not run"), "{warning}");

    std::fs::write(&file, r#"{"auths":{"gcr.io":{"auth":"hunter2!"}}}"#).unwrap();
    let faults = read().unwrap_err().to_string();
    assert!(faults.contains("entry `gcr.io`: `auth` is not base64") && !faults.contains("hunter2"), "{faults}");
}

#[test]
fn login_fits_patterns_and_warns_without_an_identity() {
    let sections = "[[registry]]\nhost = \"*.dkr.ecr.*.amazonaws.com\"\nlogin = \"aws\"\n\
                    [[registry]]\nhost = \"*-docker.pkg.dev\"\nlogin = \"google\"\n\
                    [[registry]]\nhost = \"*.azurecr.io\"\nlogin = \"azure\"\n";
    let text = format!("{SMALLEST}{sections}");
    let with_role = |name: &str| match name {
        "AWS_ROLE_ARN" => Ok("arn:aws:iam::123456789012:role/tagrelay".to_owned()),
        _ => Err(std::env::VarError::NotPresent),
    };
    let settings = Settings::parse("t.toml", &text, &with_role).unwrap();
    assert_eq!(settings.warnings, []);
    let logins: Vec<_> = settings.registries.sections.iter().map(|section| section.login).collect();
    assert_eq!(logins, Cloud::ALL.map(Some));
    assert_eq!(settings.registries.environment.identity_variables(Cloud::Aws), ["AWS_ROLE_ARN"]);
    let without = Settings::parse("t.toml", &text, &|_| Err(std::env::VarError::NotPresent)).unwrap();
    let warnings: Vec<String> = without.warnings.iter().map(ToString::to_string).collect();
    let [warning] = warnings.as_slice() else { panic!("{warnings:?}") };
    assert!(
        warning.starts_with("t.toml:19:9: login = \"aws\": the environment has no AWS identity; run it in a pod"),
        "{warning}"
    );
}
