//! `config.example.toml` and the reference of the settings match the program.

use std::env::VarError;
use std::path::Path;

use tagrelay::access::Permission;
use tagrelay::config_repo::Authentication;
use tagrelay::policy::{TagRule, Verification};
use tagrelay::settings::{Faults, KEY_SETS, Settings, UpdateMode};
use tagrelay_secret::ExposeSecret;
use tagrelay_webhook::Kind;

const EXAMPLE: &str = include_str!("../../config.example.toml");
const REFERENCE: &str = include_str!("../../docs/settings.md");

/// The environment and `/run/secrets/tagrelay` of the example.
struct Surroundings {
    folder: tempfile::TempDir,
}

impl Surroundings {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["harbor-password", "harbor-webhook-secret", "known_hosts"] {
            std::fs::write(folder.path().join(name), format!("{name} from a file\n")).unwrap();
        }
        std::fs::write(folder.path().join("ssh-key"), "-----BEGIN OPENSSH PRIVATE KEY-----\n").unwrap();
        Self { folder }
    }

    fn parse(&self, text: &str) -> Result<Settings, Faults> {
        let text = text.replace("/run/secrets/tagrelay", self.folder.path().to_str().unwrap());
        Settings::parse("config.example.toml", &text, &|name| Ok(format!("value-of-{name}")))
    }
}

#[test]
fn example_is_valid() {
    let surroundings = Surroundings::new();
    let settings = surroundings.parse(EXAMPLE).unwrap_or_else(|faults| panic!("{faults}"));
    assert_eq!(settings.warnings, []);
    assert_eq!(settings.server.operations_listen.unwrap().to_string(), "127.0.0.1:9090");
    assert_eq!(settings.store.path, Path::new("tagrelay.db"));

    let [(remote, environments)] = settings.remotes().try_into().unwrap();
    assert_eq!(remote.url.as_str(), "https://git.example.com/uyou/platform-config.git");
    assert_eq!(remote.mirror, Path::new("mirrors/platform/main"));
    let Authentication::Basic { username, password } = remote.authentication else { panic!("no password") };
    assert_eq!(username, "tagrelay");
    assert_eq!(password.reveal().unwrap().expose_secret(), "value-of-GIT_PASSWORD");
    let updates: Vec<_> =
        environments.iter().map(|environment| (environment.name.as_str(), environment.update)).collect();
    assert_eq!(updates, [("staging", UpdateMode::Automatic), ("production", UpdateMode::Manual)]);
    assert_eq!(environments[1].promote_from, ["staging"]);

    let TagRule::CommitSha { prefix, min_length, .. } = &settings.images[0].tag else { panic!("another rule") };
    assert_eq!((prefix.as_str(), *min_length), ("sha-", 7));
    assert!(settings.images.iter().all(|rule| rule.verify == Verification::Exists));
    let kinds: Vec<Kind> = settings.receivers.iter().map(|receiver| receiver.kind).collect();
    for kind in Kind::ALL {
        assert!(kinds.contains(kind), "the example has no receiver of the kind {kind}");
    }
    let password = &settings.registries.sections[1].credentials.as_ref().unwrap().password;
    assert_eq!(password.reveal().unwrap().expose_secret(), "harbor-password from a file");
    let promote: Permission = "promote:production".parse().unwrap();
    assert!(settings.api_tokens[0].may(&promote));
    assert!(!settings.api_tokens[0].may(&Permission::Admin));
    assert!(settings.api_tokens[1].may(&promote));
}

#[test]
fn example_without_its_secrets_names_each_of_them() {
    let faults = Settings::parse("e.toml", EXAMPLE, &|_| Err(VarError::NotPresent)).unwrap_err();
    let secrets = EXAMPLE.lines().filter(|line| !line.starts_with('#'));
    let secrets = secrets.map(|line| line.matches("{ env =").count() + line.matches("{ file =").count()).sum::<usize>();
    assert_eq!(faults.0.len(), secrets, "{faults}");
}

/// The commented settings with their line numbers.
fn left_out() -> Vec<(usize, &'static str)> {
    let is_setting =
        |line: &str| line.strip_prefix('#').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase()));
    EXAMPLE.lines().enumerate().filter(|(_, line)| is_setting(line)).collect()
}

#[test]
fn commented_lines_of_the_example_are_valid() {
    let surroundings = Surroundings::new();
    assert!(left_out().len() > 5);
    for (number, line) in left_out() {
        let lines: Vec<&str> =
            EXAMPLE.lines().enumerate().map(|(at, other)| if at == number { &line[1..] } else { other }).collect();
        let Err(faults) = surroundings.parse(&lines.join("\n")) else { continue };
        for fault in faults.0 {
            // The original line is still there, and its files are not on this machine.
            let expected = [
                "duplicate key",
                "does not fit the URL",
                "cannot be read",
                "has no effect with",
                "are both set",
                "not an RSA key",
            ];
            assert!(expected.iter().any(|part| fault.message.contains(part)), "{line}: {fault}");
        }
    }
}

#[test]
fn example_works_over_ssh() {
    let (https, ssh) = (
        ["url = \"https://git", "username = \"tagrelay\"", "password = { env = \"GIT"],
        ["url", "ssh_key", "known_hosts"],
    );
    let line = |line: &str| {
        let uncommented = ssh.iter().any(|key| line.starts_with(&format!("#{key}")));
        let left_out = https.iter().any(|start| line.starts_with(start));
        if uncommented {
            line[1..].to_owned()
        } else if left_out {
            String::new()
        } else {
            line.to_owned()
        }
    };
    let text: Vec<String> = EXAMPLE.lines().map(line).collect();
    let settings = Surroundings::new().parse(&text.join("\n")).unwrap_or_else(|faults| panic!("{faults}"));
    let repository = &settings.config_repositories[0];
    assert_eq!(repository.url.scheme(), "ssh");
    assert!(matches!(&repository.authentication, Authentication::SshKey { passphrase: Some(_), .. }));
}

/// The text below a section's heading, up to the next heading.
fn section_of_reference(name: &str) -> &'static str {
    let heading =
        |line: &str| line.starts_with('#').then(|| line.trim_start_matches(['#', ' ']).replace('`', "").to_lowercase());
    let wanted = name.replace('`', "").to_lowercase();
    let mut start = None;
    let mut offset = 0;
    for line in REFERENCE.split_inclusive('\n') {
        match (start, heading(line.trim_end())) {
            (None, Some(found)) if found == wanted => start = Some(offset),
            (Some(start), Some(_)) => return &REFERENCE[start..offset],
            _ => {}
        }
        offset += line.len();
    }
    &REFERENCE[start.unwrap_or_else(|| panic!("docs/settings.md has no section `{name}`"))..]
}

#[test]
fn every_key_is_in_the_reference_and_in_the_example() {
    for set in KEY_SETS {
        let section = section_of_reference(set.section);
        let mut documented: Vec<&str> = Vec::new();
        for row in section.lines().filter_map(|line| line.strip_prefix("| `")) {
            let cells = row.replace("\\|", "").matches(" |").count();
            // The table of permissions has two columns.
            if cells == 4 {
                documented.push(row.split('`').next().unwrap());
            }
        }
        assert_eq!(documented, set.keys, "in {}", set.section);
        for key in set.keys {
            let starts = |part: &str| part.trim_start().starts_with(&format!("{key} ="));
            let header = ["", "[", "receiver.", "[environment."].map(|before| {
                let closing = if before.starts_with('[') { "]]" } else { "]" };
                format!("[{before}{key}{closing}")
            });
            let shown = |line: &str| {
                header.iter().any(|header| line.starts_with(header.as_str()))
                    || starts(line.trim_start_matches('#'))
                    || line.split(['{', ',']).any(starts)
            };
            assert!(EXAMPLE.lines().any(shown), "config.example.toml has no `{key}` of {}", set.section);
        }
        for key in set.later {
            let refused = section_of_reference("Refused with this version");
            assert!(refused.contains(&format!("`{key}`")), "`{key}` of {} is not among the refused keys", set.section);
        }
    }
}

#[test]
fn every_sender_is_in_the_reference() {
    for kind in Kind::ALL {
        assert!(section_of_reference("[[receiver]]").contains(&format!("`{kind}`")), "{kind}");
    }
}

#[test]
fn defaults_of_the_reference_are_those_of_the_program() {
    let defaults = Settings::parse(
        "t.toml",
        "config_repository = [{ name = \"a\", url = \"file:///a\" }]\n\
         environment = [{ name = \"e\", paths = [\"a\"] }]\n\
         image = [{ repository = \"docker.io/a/*\" }]",
        &|_| Err(VarError::NotPresent),
    )
    .unwrap();
    let repository = &defaults.config_repositories[0];
    let TagRule::CommitSha { min_length, .. } = &defaults.images[0].tag else { panic!("another rule") };
    for (section, key, default) in [
        ("[server]", "listen", defaults.server.listen.to_string()),
        ("[server]", "max_body_bytes", defaults.server.max_body_bytes.to_string()),
        ("[server]", "max_connections", defaults.server.max_connections.to_string()),
        ("[server]", "catch_up", format!("{}m", defaults.catch_up.every.unwrap().as_secs() / 60)),
        ("[server]", "catch_up_concurrency", defaults.catch_up.at_once.to_string()),
        (
            "[[receiver]]",
            "duplicate_window",
            format!("{}d", tagrelay_webhook::DEFAULT_DUPLICATE_WINDOW.as_secs() / 86_400),
        ),
        ("[store]", "url", format!("sqlite:{}", defaults.store.path.display())),
        ("[[config_repository]]", "branch", repository.branch.clone()),
        (
            "[[config_repository]]",
            "author",
            format!("{} <{}>", repository.commits.author.name, repository.commits.author.email),
        ),
        ("[[config_repository]]", "mirror", repository.mirror.display().to_string().replace("/a", "/NAME")),
        ("tag of [[image]]", "min_length", min_length.to_string()),
        (
            "[[environment]]",
            "update",
            if defaults.environments[0].update == UpdateMode::Manual { "manual" } else { "" }.to_owned(),
        ),
    ] {
        let start = format!("| `{key}` |");
        let row = section_of_reference(section).lines().find(|line| line.starts_with(&start)).unwrap();
        assert!(row.split(" | ").nth(2).unwrap().starts_with(&format!("`{default}`")), "{default}: {row}");
    }
}

/// The first receiver of each section of the guides, by heading.
#[test]
fn catch_up_has_an_interval_or_is_off() {
    let every = |lines: &str| {
        let text = format!(
            "config_repository = [{{ name = \"a\", url = \"file:///a\" }}]\n\
             environment = [{{ name = \"e\", paths = [\"a\"] }}]\n\
             image = [{{ repository = \"docker.io/a/*\" }}]\n[server]\n{lines}"
        );
        let settings = Settings::parse("t.toml", &text, &|_| Err(VarError::NotPresent)).unwrap();
        (settings.catch_up.every.map(|every| every.as_secs()), settings.catch_up.at_once)
    };
    assert_eq!(every("listen = \"127.0.0.1:1\""), (Some(900), 4));
    assert_eq!(every("catch_up = \"2h\"\ncatch_up_concurrency = 1"), (Some(7200), 1));
    for off in ["off", "0", "0s"] {
        assert_eq!(every(&format!("catch_up = \"{off}\"")), (None, 4), "{off}");
    }
}

fn receivers_of_the_guide() -> Vec<(&'static str, &'static str)> {
    const GUIDES: [&str; 2] = [include_str!("../../docs/registries.md"), include_str!("../../docs/git-hosts.md")];
    let sections = GUIDES.iter().flat_map(|guide| guide.split("\n## ").skip(1));
    let block = |section: &'static str| {
        let (heading, text) = section.split_once('\n')?;
        let mut blocks = text.split("```toml\n").skip(1).filter_map(|rest| Some(rest.split_once("\n```")?.0));
        Some((heading, blocks.find(|block| block.starts_with("[[receiver]]"))?))
    };
    sections.filter_map(block).collect()
}

#[test]
fn every_sender_has_its_steps_in_the_guide() {
    let surroundings = Surroundings::new();
    let begin = EXAMPLE.find("[[receiver]]").unwrap();
    let end = EXAMPLE.find("[[api_token]]").unwrap();
    let sections = receivers_of_the_guide();
    for (heading, block) in &sections {
        let text = format!("{}{block}\n\n{}", &EXAMPLE[..begin], &EXAMPLE[end..]);
        let settings = surroundings.parse(&text).unwrap_or_else(|faults| panic!("{heading}: {faults}"));
        let [receiver] = &settings.receivers[..] else { panic!("{heading}") };
        tagrelay_webhook::Receiver::new(receiver.clone()).unwrap_or_else(|error| panic!("{heading}: {error}"));
    }
    for kind in Kind::ALL {
        let line = format!("kind = \"{kind}\"");
        let of_kind = sections.iter().filter(|(_, block)| block.lines().any(|other| other == line)).count();
        assert_eq!(of_kind, 1, "the guides have {of_kind} sections for {kind}");
    }
}
