//! Faults of settings have a position and contain no secret.

use tagrelay_test_support::settings::SMALLEST;

use crate::texts::faults;

/// The faults of the minimal settings with one replaced part.
fn changed(from: &str, to: &str) -> String {
    assert_eq!(SMALLEST.matches(from).count(), 1, "{from}");
    faults(&SMALLEST.replace(from, to))
}

/// The faults of the minimal settings with additional text, which begins on line 17.
fn with(more: &str) -> String {
    faults(&format!("{SMALLEST}{more}\n"))
}

#[track_caller]
fn check(cases: &[(String, &str)]) {
    for (found, expected) in cases {
        assert_eq!(found, expected);
    }
}

#[test]
fn unknown_keys_are_reported_with_the_nearest_known_key() {
    check(&[
        (
            changed("repository = ", "reposotory = "),
            "t.toml:15:1: `repository` is missing in [[image]]; write repository = \"docker.io/uyou/*\"\n\
             t.toml:16:1: unknown key `reposotory` in [[image]]; did you mean `repository`?",
        ),
        (with("[servre]"), "t.toml:17:2: unknown key `servre` in the settings; did you mean `server`?"),
        (with("[server]\npaths = []"), "t.toml:18:1: unknown key `paths` in [server]; it belongs in [[environment]]"),
        (
            with("[server]\nport = 1"),
            "t.toml:18:1: unknown key `port` in [server]; known: `listen`, `operations_listen`, `max_body_bytes`, `max_connections`, `stop_timeout`, `tls`, `catch_up`, `catch_up_concurrency`",
        ),
        (
            with("[server]\ncatch_up = \"10s\"\ncatch_up_concurrency = 0"),
            "t.toml:18:12: `catch_up`: `10s` is not a span of time from 1m to 7d; write \"24h\" or \"7d\"\n\
             t.toml:19:24: `catch_up_concurrency` in [server] must be 1 to 64",
        ),
        (
            changed("promote_from = [\"staging\"]", "promote_from = [\"stagin\"]"),
            "t.toml:13:17: `promote_from`: there is no [[environment]] called `stagin`; did you mean `staging`?",
        ),
        (
            changed("promote_from =", "config_repository = \"plattform\"\npromote_from ="),
            "t.toml:13:21: there is no [[config_repository]] called `plattform`; did you mean `platform`?",
        ),
        (
            changed("\"automatic\"", "\"automatc\""),
            "t.toml:8:10: `update`: unknown value `automatc`; did you mean `automatic`?",
        ),
        (
            changed("promote_from = [\"staging\"]", "promote_from = [\"staging\"]\ntag = { kind = \"digest\" }"),
            "t.toml:14:16: `tag` of [[environment]] cannot have the kind `digest`; set it in the [[image]] rule: a moving tag \
             is followed in every environment",
        ),
        (
            changed("promote_from = [\"staging\"]", "promote_from = [\"staging\"]\ntag = { prefx = \"dev-\" }"),
            "t.toml:14:9: unknown key `prefx` in `tag` of [[environment]]; did you mean `prefix`?",
        ),
        (
            with("tag = { kind = \"commit-sah\" }"),
            "t.toml:17:16: there is no tag kind called `commit-sah`; did you mean `commit-sha`?",
        ),
        (
            with("[[receiver]]\nname = \"hub\"\nkind = \"dockerhub\"\nsecret = { env = \"TOKEN\" }"),
            "t.toml:19:8: there is no sender called `dockerhub`; did you mean `docker-hub`?",
        ),
        (
            with("[[receiver]]\nname = \"hub\"\nkind = \"gitlab\"\nsecret = { env = \"TOKEN\" }"),
            "t.toml:19:8: there is no sender called `gitlab`; did you mean `gitlab-registry`?",
        ),
        (
            with("[[receiver]]\nname = \"hub\"\nkind = \"azure\"\nsecret = { env = \"TOKEN\" }"),
            "t.toml:19:8: there is no sender called `azure`; did you mean `acr`?",
        ),
        (
            with(
                "[[api_token]]\nname = \"a\"\ntoken = { env = \"TOKEN\" }\npermissions = [\"raed\", \"hold:prodction\"]",
            ),
            "t.toml:20:16: there is no permission `raed`; did you mean `read`?\n\
             t.toml:20:24: the permission `hold:prodction` names no [[environment]]; did you mean `production`?",
        ),
    ]);
}

#[test]
fn invalid_commit_settings_are_reported() {
    let platform = |lines: &str| changed("name = \"platform\"", &format!("name = \"platform\"\n{lines}"));
    check(&[
        (
            platform("signing = { format = \"gpg\", key = { env = \"TOKEN\" } }\ncommit = \"singel\""),
            "t.toml:3:22: `format`: unknown value `gpg`; known: `ssh`, `openpgp`\n\
             t.toml:4:10: `commit`: unknown value `singel`; did you mean `single`?",
        ),
        (
            platform("signing = { format = \"ssh\", key = { env = \"TOKEN\" } }"),
            "t.toml:3:35: `signing`: the SSH key cannot be read: Could not read key; it must be a private key in \
             OpenSSH or PEM form",
        ),
        (
            platform("signing = { format = \"openpgp\", key = { env = \"TOKEN\" } }"),
            "t.toml:3:39: `signing`: the OpenPGP key is not an armoured private key: use the output of `gpg --export-secret-keys \
             --armor KEY`",
        ),
        (
            platform("signing = {}"),
            "t.toml:3:11: `format` is missing in `signing` of [[config_repository]]; write format = \"ssh\"\n\
             t.toml:3:11: `key` is missing in `signing` of [[config_repository]]: it is the key to sign with; write \
             key = { env = \"NAME\" } or { file = \"/run/secrets/name\" }",
        ),
        (
            platform("committer = \"nobody\"\nquiet_period = \"5m\"\nsigned_off_by = 1"),
            "t.toml:3:13: `committer`: `nobody` is not a name and an address; write \"Tagrelay <tagrelay@example.com>\"\n\
             t.toml:4:16: `quiet_period`: `5m` is not a span of time from 0s to 1m; write \"2s\"\n\
             t.toml:5:17: `signed_off_by` in [[config_repository]] must be true or false, not a number",
        ),
        (
            platform("message = { subject = \"{{ enviroment }}\", body = \"{% if %}\" }"),
            "t.toml:3:23: `subject` of `message`: it uses an unknown name, in its line 1; docs/settings.md lists the names for templates\n\
             t.toml:3:50: `body` of `message`: syntax error (unexpected end of block), in its line 1; docs/settings.md lists the names for templates",
        ),
    ]);
}

#[test]
fn incomplete_github_app_is_reported() {
    let with_app = |url: &str, lines: &str| {
        changed("url = \"file:///srv/git/platform.git\"", &format!("url = \"{url}\"\n{lines}"))
    };
    let github = "https://github.com/uyou/config.git";
    check(&[
        (
            with_app(github, "github_app = {}"),
            "t.toml:4:14: `app_id` is missing in `github_app` of [[config_repository]]; write github_app = { app_id = \
             123456, installation_id = 12345678, private_key = { file = \"/run/secrets/github-app.pem\" } }\n\
             t.toml:4:14: `installation_id` is missing in `github_app` of [[config_repository]]; write github_app = { app_id \
             = 123456, installation_id = 12345678, private_key = { file = \"/run/secrets/github-app.pem\" } }\n\
             t.toml:4:14: `private_key` is missing in `github_app` of [[config_repository]]: generate it in the app's settings on GitHub; \
             write private_key = { env = \"NAME\" } or { file = \"/run/secrets/name\" }",
        ),
        (
            with_app(
                github,
                "github_app = { app_id = 1, installation_id = 0, private_key = { env = \"KEY\" }, api_url = \"http://a/\" }\n\
                 username = \"x\"",
            ),
            "t.toml:4:46: `installation_id` in `github_app` of [[config_repository]] must be 1 to 9223372036854775807\n\
             t.toml:4:90: `api_url` must be an https URL without user name and query; write \"https://github.example.com/api/v3\"\n\
             t.toml:5:12: `username` has no effect with `github_app`; leave one of them out",
        ),
        (
            with_app(github, "github_app = { app_id = \"Iv1\", installation_id = 1, private_key = { env = \"KEY\" } }"),
            "t.toml:4:67: `private_key`: the key of the GitHub App is not an RSA key in PEM form: use the file that GitHub generated",
        ),
        (
            with_app(
                "ssh://git@github.com/uyou/config.git",
                "github_app = {}\nssh_key = { env = \"KEY\" }\nknown_hosts = \"/dev/null\"",
            ),
            "t.toml:4:14: `github_app` does not fit the URL; ssh uses `ssh_key` and `known_hosts`, and the user name in the \
             URL",
        ),
    ]);
}

#[test]
fn receivers_of_git_hosts_name_a_config_repository() {
    let receiver = |lines: &str| with(&format!("[[receiver]]\nname = \"a\"\nsecret = {{ env = \"TOKEN\" }}\n{lines}"));
    check(&[
        (
            receiver("kind = \"git-github\"\nregistry = \"ghcr.io\"\nduplicate_window = \"7d\""),
            "t.toml:21:12: `registry` has no effect for the kind `git-github`, which announces commits; leave it out\n\
             t.toml:22:20: `duplicate_window` has no effect for the kind `git-github`, which announces commits; leave it out",
        ),
        (
            receiver("kind = \"git-gitea\"\nconfig_repository = \"plattform\""),
            "t.toml:21:21: there is no [[config_repository]] called `plattform`; did you mean `platform`?",
        ),
        (
            receiver("kind = \"ghcr\"\nconfig_repository = \"platform\""),
            "t.toml:21:21: `config_repository` has no effect for the kind `ghcr`, which announces images; leave it out",
        ),
    ]);
}

#[test]
fn planned_settings_are_refused() {
    check(&[
        (
            changed("\"automatic\"", "\"pull-request\""),
            "t.toml:8:10: update = \"pull-request\" is not supported yet; use `automatic`, `manual` or `follow` with this version",
        ),
        (
            with("verify = { signature = {} }"),
            "t.toml:17:12: `signature` in `verify` of [[image]] is not supported yet; leave it out with this version",
        ),
        (
            with("[[receiver]]\nname = \"n\"\nkind = \"nexus\"\nsecret = { env = \"TOKEN\" }"),
            "t.toml:19:8: the events of Nexus Repository do not name their registry; set `registry` to its host",
        ),
        (
            with("[store]\nurl = \"postgres://tagrelay:hunter2@db/tagrelay\""),
            "t.toml:18:7: `url` in [store]: this build has SQLite only, not PostgreSQL; write \"sqlite:tagrelay.db\" \
             or \"sqlite:/var/lib/tagrelay/tagrelay.db\"",
        ),
    ]);
}

#[test]
fn missing_keys_are_reported() {
    check(&[
        (
            faults(""),
            "t.toml: there is no [[config_repository]]: there is no Git repository to write to; config.example.toml is an example\n\
             t.toml: there is no [[environment]]: no environment receives new versions; config.example.toml is an example\n\
             t.toml: there is no [[image]]: no repository is managed; config.example.toml is an example",
        ),
        (
            changed("name = \"platform\"\n", ""),
            "t.toml:1:1: `name` is missing in [[config_repository]]; write name = \"…\"",
        ),
        (
            changed("paths = [\"environments/staging/**\"]", "paths = []"),
            "t.toml:7:9: `paths` in [[environment]] is an empty list; write paths = [\"environments/staging/**\"]",
        ),
        (
            with("[[config_repository]]\nname = \"edge\"\nurl = \"file:///srv/git/edge.git\""),
            "t.toml:5:1: `config_repository` is missing in [[environment]], and there are several; name one of \
             `platform`, `edge`\n\
             t.toml:10:1: `config_repository` is missing in [[environment]], and there are several; name one of \
             `platform`, `edge`",
        ),
        (
            with("[[receiver]]\nname = \"hub\"\nkind = \"docker-hub\""),
            "t.toml:17:1: `secret` is missing in [[receiver]]: without it any client could announce images (set unauthenticated = true to allow that); write secret = { env = \"NAME\" } or { file = \
             \"/run/secrets/name\" }",
        ),
        (
            with("[[api_token]]\nname = \"a\"\npermissions = []"),
            "t.toml:17:1: `token` is missing in [[api_token]]: no request could match it; write token = { env = \"NAME\" } \
             or { file = \"/run/secrets/name\" }\n\
             t.toml:19:15: `permissions` in [[api_token]] is an empty list; write permissions = [\"read\"]",
        ),
    ]);
}

#[test]
fn values_of_the_wrong_type_are_not_repeated() {
    check(&[
        (
            with("[server]\nlisten = 8080\nmax_body_bytes = \"1\""),
            "t.toml:18:10: `listen` in [server] must be a string, not a number\n\
             t.toml:19:18: `max_body_bytes` in [server] must be a whole number, not a string",
        ),
        (
            with("[server]\nmax_body_bytes = 12\nlisten = \"localhost:8080\""),
            "t.toml:18:18: `max_body_bytes` in [server] must be 1024 to 67108864\n\
             t.toml:19:10: `listen`: `localhost:8080` is not an address with a port; write \"127.0.0.1:8080\", or \
             \"0.0.0.0:8080\" for every interface",
        ),
        (
            with("[registry]\nhost = \"docker.io\"\n[[registry]]\nhost = \"ghcr.io\""),
            "t.toml:19:3: [registry] on line 17 is a single table, and [[registry]] is a list of tables; write [[registry]] on \
             line 17, too",
        ),
        (with("[registry]\nhost = \"docker.io\""), "t.toml:17:1: `registry` is a list of sections; write [[registry]]"),
        (with("[[server]]"), "t.toml:17:1: `server` in the settings must be a table, as in [server], not a list"),
        (
            changed("[\"environments/staging/**\"]", "\"environments/staging/**\""),
            "t.toml:7:9: `paths` in [[environment]] must be a list of strings, as in [\"…\"], not a string",
        ),
        (
            with("[[receiver]]\nname = \"hub\"\nkind = \"docker-hub\"\nsecret = \"hunter2\""),
            "t.toml:20:10: `secret` in [[receiver]] must be a table, as in { env = \"NAME\" } or { file = \
             \"/run/secrets/name\" }, not a string",
        ),
        (
            with("[[receiver]]\nname = \"hub\"\nkind = \"docker-hub\"\nunauthenticated = \"yes\""),
            "t.toml:20:19: `unauthenticated` in [[receiver]] must be true or false, not a string",
        ),
        (
            with("tag = \"commit-sha\""),
            "t.toml:17:7: `tag` in [[image]] must be a table, as in tag = { kind = \"commit-sha\" }, not a string",
        ),
    ]);
}

#[test]
fn secrets_are_read_and_not_shown() {
    let receiver = |secret: &str| with(&format!("[[receiver]]\nname = \"r\"\nkind = \"ghcr\"\nsecret = {secret}"));
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().join("empty");
    std::fs::write(&empty, "\n").unwrap();
    check(&[
        (receiver("{ env = \"TOKEN\" }"), "none"),
        (receiver("{ value = \"hunter2\" }"), "none"),
        (
            receiver("{ env = \"TOKEM\" }"),
            "t.toml:20:18: `secret`: the environment variable TOKEM is not set: set it for the process, or name \
             another one",
        ),
        (
            receiver("{ env = \"EMPTY\" }"),
            "t.toml:20:18: `secret`: the secret from the environment variable EMPTY is empty",
        ),
        (receiver("{ value = \"\" }"), "t.toml:20:20: `value` in a secret is empty"),
        (
            receiver("{ file = \"/no/such/file\" }"),
            "t.toml:20:19: `secret`: the secret file /no/such/file cannot be read: No such file or directory (os error 2)",
        ),
        (
            receiver(&format!("{{ file = '{}' }}", empty.display())),
            &format!("t.toml:20:19: `secret`: the secret from {} is empty", empty.display()),
        ),
        // A secret under a wrong key.
        (
            receiver("{ env = \"hunter2\" }"),
            "t.toml:20:18: `secret`: `env` names no variable of the environment (names are capital letters, digits and `_`)",
        ),
        (
            receiver("{ file = \"hunter2\" }"),
            "t.toml:20:19: `secret`: the secret file cannot be read: No such file or directory (os error 2)",
        ),
        (
            receiver("{ hunter2 = true }"),
            "t.toml:20:10: `secret` names no source of the secret; write { env = \"NAME\" } or { file = \
             \"/run/secrets/name\" }\n\
             t.toml:20:12: unknown key in a secret; known: `env`, `file`, `value`",
        ),
        (
            receiver("{ vaule = \"hunter2\" }"),
            "t.toml:20:10: `secret` names no source of the secret; write { env = \"NAME\" } or { file = \
             \"/run/secrets/name\" }\n\
             t.toml:20:12: unknown key `vaule` in a secret; did you mean `value`?",
        ),
        (
            receiver("{ env = \"TOKEN\", value = \"hunter2\" }"),
            "t.toml:20:10: `secret` names 2 sources of the secret instead of one; write { env = \"NAME\" } or { file = \
             \"/run/secrets/name\" }",
        ),
        (
            with("[[api_token]]\nname = \"a\"\nsha256 = \"hunter2\"\npermissions = [\"read\"]"),
            "t.toml:19:10: `sha256` is not 64 hexadecimal digits; write what `printf %s \"$TOKEN\" | sha256sum` prints",
        ),
        (
            with("[[api_token]]\nname = \"a\"\ntoken = { value = \" hunter2\" }\npermissions = [\"read\"]"),
            "t.toml:19:9: `token` begins or ends with a space, or has a line break or a letter outside ASCII: no request can \
             match it; use letters and digits, as `openssl rand -hex 32` prints them",
        ),
        (
            with(
                "[[api_token]]\nname = \"a\"\ntoken = { value = \"0123456789abcdef\" }\npermissions = [\"read\"]\n\
                 [[api_token]]\nname = \"b\"\nsha256 = \"9f9f5111f7b27a781f1f1ddde5ebc2dd2b796bfc7365c9c28b548e564176929f\"\n\
                 permissions = [\"admin\"]",
            ),
            "t.toml:23:10: the token of `b` is also that of `a`: give each its own",
        ),
    ]);
}

#[test]
fn invalid_toml_is_not_quoted() {
    check(&[
        (
            with("[server]\nlisten = hunter2\n[[receiver]\nsecret = { value = \"hunter2 }"),
            "t.toml:18:10: this is not TOML: string values must be quoted, expected literal string\n\
             t.toml:19:12: this is not TOML: unclosed array table, expected `]`\n\
             t.toml:20:30: this is not TOML: unclosed inline table, expected `}`",
        ),
        (with("[server]\n[server]"), "t.toml:18:2: this is not TOML: duplicate key"),
    ]);
}

#[test]
fn sections_are_checked_against_each_other() {
    check(&[
        (
            changed("name = \"production\"", "name = \"staging\""),
            "t.toml:11:8: the name `staging` is taken by the [[environment]] on line 6\n\
             t.toml:13:17: `promote_from`: `staging` is the environment itself",
        ),
        (
            with("[server]\nlisten = \"127.0.0.1:9090\"\noperations_listen = \"0.0.0.0:9090\""),
            "t.toml:19:21: `operations_listen` is the address of `listen`, 127.0.0.1:9090; use another port, or leave \
             `operations_listen` out to serve everything on one",
        ),
        (
            with("[server]\noperations_listen = \"127.0.0.1:8080\""),
            "t.toml:18:21: `operations_listen` is the address of `listen`, 127.0.0.1:8080; use another port, or leave \
             `operations_listen` out to serve everything on one",
        ),
        (
            with(
                "[[image]]\nrepository = \"docker.io/uyou/user-service\"\n[[image]]\nrepository = \"docker.io/uyou/*\"",
            ),
            "t.toml:18:14: the rule for `docker.io/uyou/user-service` is never reached: the rule on line 15 comes \
             first; the first rule that matches applies; put the narrower one above\n\
             t.toml:20:14: the rule for `docker.io/uyou/*` is never reached: the rule on line 15 comes first; the first rule that matches applies; put the narrower one above",
        ),
        (
            with("[[registry]]\nhost = \"ghcr.io\"\n[[registry]]\nhost = \"ghcr.io\""),
            "t.toml:20:8: the host `ghcr.io` is taken by the [[registry]] on line 18",
        ),
        (
            changed("promote_from = [\"staging\"]", "promote_from = [\"staging\", \"staging\"]"),
            "t.toml:13:28: `promote_from` names `staging` twice",
        ),
        (
            // A faulty repository is not also reported as unknown.
            changed("name = \"platform\"", "name = \"platform\"\nauthor = \"nobody\""),
            "t.toml:3:10: `author`: `nobody` is not a name and an address; write \"Tagrelay <tagrelay@example.com>\"",
        ),
    ]);
}

#[test]
fn invalid_patterns_and_paths_are_refused() {
    check(&[
        (
            changed("docker.io/uyou/*", "docker.io/uyou/*:latest"),
            "t.toml:16:14: `docker.io/uyou/*:latest` matches no repository: a repository has no tag or digest; leave out `:latest` \
             after `*`, and write `tag` in [[image]]",
        ),
        (
            changed("docker.io/uyou/*", "uyou/*"),
            "t.toml:16:14: `uyou/*` matches no repository: `uyou` is not a registry host; for Docker Hub write \
             `docker.io/uyou/*`",
        ),
        (
            changed("environments/staging/**", "../staging/**"),
            "t.toml:7:10: `paths`: `../staging/**` leaves the repository by `..`",
        ),
        (
            changed("environments/staging/**", "environments/[staging"),
            "t.toml:7:10: `paths`: `environments/[staging` is not a glob: unclosed character class; missing ']'",
        ),
        (
            changed("paths = [\"environments/staging/**\"]", "paths = [\"a\", \"a/\", \"\", 1]"),
            "t.toml:7:15: `paths` names `a` twice\n\
             t.toml:7:21: an empty string in `paths`\n\
             t.toml:7:25: `paths` in [[environment]] must be a list of strings, not a number",
        ),
        (
            with("tag = { prefix = \"sha:\", suffix = \"+\", min_length = 6 }"),
            "t.toml:17:18: `prefix`: no tag can have `sha:` there; tags consist of letters, digits and `_`, and after the first character also `.` and `-`\n\
             t.toml:17:35: `suffix`: no tag can have `+` there; tags consist of letters, digits and `_`, and after the first character also `.` and `-`\n\
             t.toml:17:53: `min_length` in `tag` of [[image]] must be 7 to 40",
        ),
        (
            with("tag = { kind = \"regex\" }"),
            "t.toml:17:7: `pattern` is missing in `tag` of [[image]]; write \
             pattern = \"(?<number>[0-9]+)-(?<sha>[0-9a-f]{7,40})\"",
        ),
        (
            with("tag = { kind = \"regex\", pattern = '(?<sha>[0-9a-f]{7}', prefix = \"a\" }"),
            "t.toml:17:35: no tag can match: the pattern does not parse: unclosed group\n\
             t.toml:17:66: `prefix` has no effect with the tag kind `regex`; it is for `commit-sha`, `semver`, `calver`",
        ),
        (
            with("tag = { kind = \"regex\", pattern = '(?<build>.*)' }"),
            "t.toml:17:35: no tag can match: unknown group `build`; the known groups are `sha`, `number`, `time`, \
             `version`",
        ),
        (
            with("tag = { kind = \"semver\", range = \"1.x.y.z\" }"),
            "t.toml:17:34: `range`: `1.x.y.z` is not a version range: unexpected character after wildcard in version \
             req; write \">=1.2, <2\", \"^1.2\" or \"1.*\"",
        ),
        (
            with("tag = { kind = \"semver\", range = \">=2, <1\" }"),
            "t.toml:17:7: no tag can match: the range `>=2, <1` contains no version",
        ),
        (
            with(&format!("tag = {{ kind = \"digest\", name = \"sha256-{}\" }}", "a".repeat(64))),
            "t.toml:17:33: no tag can match: it is the tag of a signature, an attestation or an SBOM",
        ),
        (
            with("tag = { kind = \"calver\", format = \"DD.MM.YYYY\" }"),
            "t.toml:17:35: `DD.MM.YYYY` is not a calendar format: it begins with a year (YYYY, YY, 0Y), and MM, 0M, WW, \
             0W, DD, 0D, MAJOR, MINOR and MICRO may follow, with `.`, `_` and `-` between them",
        ),
        (
            with("tag = { kind = \"digest\", name = \"a b\" }\nallow_older = 1"),
            "t.toml:17:33: tag `a b` has an invalid character (valid: letters, digits and `_`, then also `.` and \
             `-`)\n\
             t.toml:18:15: `allow_older` in [[image]] must be true or false, not a number",
        ),
        (
            with("tag = { prefix = \"{branch}-\" }"),
            "t.toml:17:18: `prefix`: no tag can have `{branch}-` there; tags consist of letters, digits and `_`, and after the first character also `.` and `-`",
        ),
        (
            with(&format!("tag = {{ prefix = \"{}\" }}", "a".repeat(100))),
            "t.toml:17:7: no tag can match: a tag has 140 bytes, and at most 128 are allowed",
        ),
        (
            with(
                "[[registry]]\nhost = \"https://harbor.example.com/v2/\"\n[[registry]]\nhost = \"index.docker.io\"\n\
                  [[registry]]\nhost = \"harbor\"\n[[registry]]\nhost = \"a b\"",
            ),
            "t.toml:18:8: a registry is named by its host, not by a URL; write \"harbor.example.com\"\n\
             t.toml:20:8: image references name the registry `index.docker.io` differently; write \"docker.io\"\n\
             t.toml:22:8: no image reference can name the registry `harbor`: it has neither a dot nor a port; write \"harbor:80\" \
             or \"harbor:443\", as the references do\n\
             t.toml:24:8: `a b` is not a registry host; write \"host\" or \"host:port\"",
        ),
        (
            with(
                "[[registry]]\nhost = \"*.com\"\n[[registry]]\nhost = \"*.a b\"\n\
                  [[registry]]\nhost = \"*.example.com\"\nplain_http = true",
            ),
            "t.toml:18:8: the pattern `*.com` matches hosts of unrelated owners; write \"*.registry.example.com\": `*` stands \
             for one label or a part of it\n\
             t.toml:20:8: `*.a b` is not a pattern of registry hosts; write \"*.registry.example.com\": `*` stands for one \
             label or a part of it\n\
             t.toml:23:14: `plain_http` needs one host, not a pattern; write a [[registry]] for each host without TLS",
        ),
        (
            with(
                "[[registry]]\nhost = \"ghcr.io\"\nlogin = \"aws\"\n[[registry]]\nhost = \"*.azurecr.io\"\nlogin = \"azur\"\n\
                 [[registry]]\nhost = \"gcr.io\"\nlogin = \"google\"\nplain_http = true\n[[registry]]\nhost = \"eu.gcr.io\"\n\
                 login = \"google\"\nusername = \"a\"\npassword = { value = \"hunter2\" }",
            ),
            "t.toml:19:9: login = \"aws\" cannot be used for the host `ghcr.io`; its hosts are \"*.dkr.ecr.*.amazonaws.com\" or \
             \"public.ecr.aws\"\n\
             t.toml:22:9: `login`: unknown value `azur`; did you mean `azure`?\n\
             t.toml:26:14: `login` needs HTTPS: remove `plain_http`\n\
             t.toml:30:12: `login` and `username` contradict each other; keep one of them",
        ),
        (
            with("[registries]\ndocker_config = \"/no/such/config.json\""),
            "t.toml:18:17: `docker_config`: the file /no/such/config.json cannot be read: No such file or directory (os error 2)",
        ),
        (
            with("[[receiver]]\nname = \"hub/a\"\nkind = \"docker-hub\"\nunauthenticated = true"),
            "t.toml:18:8: `hub/a` cannot be the name of [[receiver]]; use up to 63 letters, digits, `.`, `_` and `-`",
        ),
        (
            changed("promote_from =", "branch = \"refs/heads/production\"\npromote_from ="),
            "t.toml:13:10: `branch`: `refs/heads/production` is a reference; write branch = \"production\"",
        ),
        (
            changed("promote_from =", "branch = \"a..b\"\npromote_from ="),
            "t.toml:13:10: `branch`: `a..b` is not a valid name of a branch",
        ),
    ]);
}

/// The faults of a config repository with these lines.
fn repository(lines: &str) -> String {
    changed("url = \"file:///srv/git/platform.git\"", lines)
}

#[test]
fn credentials_must_fit_the_url() {
    let folder = tempfile::tempdir().unwrap();
    let garbage = folder.path().join("ca.pem");
    std::fs::write(&garbage, "hunter2").unwrap();
    let https = "url = \"https://git.example.com/a.git\"\n";
    let ssh = "url = \"ssh://git@git.example.com/a.git\"\n";
    check(&[
        (
            repository("url = \"https://tagrelay:hunter2@git.example.com/a.git\""),
            "t.toml:3:7: `url`: it contains a password; remove it, and write password = { env = \"NAME\" } beside the URL",
        ),
        (
            repository("url = \"git@git.example.com:uyou/platform.git\""),
            "t.toml:3:7: `url`: write a URL instead of user@host:path; write \"ssh://git@git.example.com/uyou/platform.git\"",
        ),
        (
            repository(&format!("{https}username = \"tagrelay\"")),
            "t.toml:4:12: `username` has no `password`; write password = { env = \"NAME\" }",
        ),
        (
            repository(&format!("{https}password = {{ env = \"TOKEN\" }}\nssh_key = {{ env = \"KEY\" }}")),
            "t.toml:4:12: `password` has no `username`; write one; with a token most hosts accept any user name\n\
             t.toml:5:11: `ssh_key` does not fit the URL; https uses `username` and `password`, or `github_app`",
        ),
        (
            repository(&format!("{ssh}username = \"tagrelay\"")),
            "t.toml:1:1: `ssh_key` is missing in [[config_repository]], whose URL is ssh; write ssh_key = { file = \
             \"/run/secrets/ssh_key\" }\n\
             t.toml:1:1: `known_hosts` is missing in [[config_repository]], whose URL is ssh; write what `ssh-keyscan \
             HOST` prints into a file, check it, and name the file\n\
             t.toml:4:12: `username` does not fit the URL; ssh uses `ssh_key` and `known_hosts`, and the user name in \
             the URL",
        ),
        (
            repository(&format!("{ssh}ssh_key = {{ env = \"TOKEN\" }}\nknown_hosts = \"/no/such/file\"")),
            "t.toml:4:11: `ssh_key` is not a private key in OpenSSH or PEM format\n\
             t.toml:5:15: `known_hosts`: the file /no/such/file cannot be read: No such file or directory (os error 2)",
        ),
        (
            repository("url = \"file:///srv/a.git\"\nusername = \"a\"\npassword = { env = \"TOKEN\" }"),
            "t.toml:4:12: `username` does not fit the URL; a file URL uses no credentials\n\
             t.toml:5:12: `password` does not fit the URL; a file URL uses no credentials",
        ),
        (
            repository(&format!("{https}ca_bundle = '{}'", garbage.display())),
            &format!("t.toml:4:13: `ca_bundle`: the file {} contains no PEM certificate", garbage.display()),
        ),
    ]);
}

#[test]
fn receivers_need_a_secret_unless_unauthenticated() {
    let receiver = |more: &str| with(&format!("[[receiver]]\nname = \"r\"\nkind = \"generic\"\n{more}"));
    check(&[
        (receiver("unauthenticated = true"), "none"),
        (
            receiver("unauthenticated = true\nsecret = { env = \"TOKEN\" }"),
            "t.toml:21:10: `secret` has no effect with unauthenticated = true; leave one of them out",
        ),
        (
            receiver("unauthenticated = true\nprevious_secret = { env = \"TOKEN\" }"),
            "t.toml:21:19: `previous_secret` needs `secret`",
        ),
        (
            receiver("secret = { env = \"TOKEN\" }\nregistry = \"registry\""),
            "t.toml:21:12: no image reference can name the registry `registry`: it has neither a dot nor a port; write \
             \"registry:80\" or \"registry:443\", as the references do",
        ),
    ]);
}

#[test]
fn limits_of_receivers_have_bounds() {
    let receiver = |more: &str| {
        with(&format!("[[receiver]]\nname = \"r\"\nkind = \"generic\"\nsecret = {{ env = \"TOKEN\" }}\n{more}"))
    };
    check(&[
        (receiver("rate_limit = \"600/m\"\nduplicate_window = \"1d 12h\""), "none"),
        (
            receiver("rate_limit = \"fast\""),
            "t.toml:21:14: `fast` is not a rate limit: write a whole number above zero and `/s`, `/m` or `/h`, as in \"50/s\"",
        ),
        (
            receiver("duplicate_window = \"5s\""),
            "t.toml:21:20: `duplicate_window`: `5s` is not a span of time from 1m to 3650d; write \"24h\" or \"7d\"",
        ),
    ]);
}

#[test]
fn environments_need_matching_argo_cd_settings() {
    let argocd = |lines: &str| with(&format!("[argocd]\n{lines}"));
    let gated = |lines: &str, argocd: &str| {
        let environments =
            "[[environment]]\nname = \"a\"\npaths = [\"a\"]\n\n[[environment]]\nname = \"b\"\npaths = [\"b\"]\n";
        with(&format!("{environments}{lines}\n{argocd}"))
    };
    let url = "url = \"https://argocd.example.com\"\n";
    let token = format!("[argocd]\n{url}token = {{ value = \"t\" }}");
    check(&[
        (argocd(url), "none"),
        (argocd(&format!("{url}token = {{ value = \"t\" }}\ntimeout = \"1h\"")), "none"),
        (argocd(&format!("{url}webhook = {{ secret = {{ value = \"s\" }} }}")), "none"),
        (argocd(""), "t.toml:17:1: `url` is missing in [argocd]; write url = \"https://argocd.example.com\""),
        (
            argocd("url = \"https://admin:hunter2@argocd.example.com\""),
            "t.toml:18:7: `url` in [argocd]: it contains a user name or a password; write url = \"https://argocd.example.com\"",
        ),
        (
            argocd("url = \"argocd.example.com\""),
            "t.toml:18:7: `url` in [argocd]: this is not a URL; write url = \"https://argocd.example.com\"",
        ),
        (
            argocd(&format!("{url}token = {{ value = \"t\" }}\nwebhook = {{ secret = {{ value = \"s\" }} }}")),
            "t.toml:20:11: `webhook` has no effect with `token`: the API is used instead; leave one of them out",
        ),
        (
            argocd(&format!("{url}timeout = \"1s\"")),
            "t.toml:19:11: `timeout`: `1s` is not a span of time from 10s to 1d; write \"24h\" or \"7d\"",
        ),
        (gated("promote_from = [\"a\"]\npromote_when = \"healthy\"\nsoak = \"30m\"", &token), "none"),
        (
            gated("promote_from = [\"a\"]\nsoak = \"30m\"\ngate = \"environment\"\nuntracked = \"allow\"", &token),
            "none",
        ),
        (
            gated("promote_from = [\"a\"]\nsoak = \"30m\"\ngate = \"versions\"", &token),
            "t.toml:26:8: `gate`: unknown value `versions`; did you mean `version`?",
        ),
        (
            gated("soak = \"30m\"\nuntracked = \"ignore\"", &token),
            "t.toml:25:13: `untracked`: unknown value `ignore`; known: `refuse`, `allow`",
        ),
        (
            gated("gate = \"version\"", &token),
            "t.toml:24:8: `gate` has no effect: the environment has no gate; add `promote_when = \"healthy\"`, or remove it",
        ),
        (
            argocd(&format!("{url}token = {{ value = \"t\" }}\napplicationset_webhook = {{ url = \"http://a/b\" }}")),
            "none",
        ),
        (
            argocd(&format!("{url}applicationset_webhook = {{ secret = {{ value = \"s\" }} }}")),
            "t.toml:19:26: `url` is missing in `applicationset_webhook` of [argocd]; write { url = \
             \"http://argocd-applicationset-controller.argocd.svc:7000/api/webhook\" }",
        ),
        (gated("argocd = { app = \"argocd/b\" }", &token), "none"),
        (gated("argocd = { app = [\"b\", \"c\"] }", &token), "none"),
        (
            gated("promote_from = [\"a\"]\npromote_when = \"healthy\"", &format!("[argocd]\n{url}")),
            "t.toml:25:16: `promote_when` needs the health of applications, which only Argo CD's API provides; write \
             [argocd] with `url` and `token`",
        ),
        (gated("promote_when = \"healthy\"", &token), "none"),
        (
            gated("promote_from = [\"a\"]\npromote_when = \"helthy\"", &token),
            "t.toml:25:16: `promote_when`: unknown value `helthy`; did you mean `healthy`?",
        ),
        (
            gated("argocd = { app = \"Platform\" }", &token),
            "t.toml:24:18: `Platform` is not an application's name: write NAME or NAMESPACE/NAME",
        ),
        (
            gated("argocd = { app = \"a\", labels = \"b=c\" }", &token),
            "t.toml:24:10: `app` and `labels` are both set; leave one of them out",
        ),
        (
            gated("argocd = { app = \"a\" }", ""),
            "t.toml:24:10: there is no [argocd]; write [argocd] with `url` and `token`",
        ),
    ]);
}

#[test]
fn identity_tokens_need_an_account() {
    let receiver = |kind: &str, token: &str| {
        with(&format!("[[receiver]]\nname = \"r\"\nkind = \"{kind}\"\nidentity_token = {{ {token} }}"))
    };
    let right = "issuer = \"i\", audience = \"a\", account = \"b\"";
    let keys = "keys = { url = \"https://keys.example.com/\" }";
    let value = "keys = { value = '{\"keys\": [{\"kty\": \"RSA\", \"n\": \"AQAB\", \"e\": \"AQAB\"}]}' }";
    check(&[
        (receiver("gar", &format!("{right}, {keys}")), "none"),
        (receiver("acr", &format!("{right}, {value}")), "none"),
        (receiver("generic", &format!("{right}, {value}")), "none"),
        (
            receiver("harbor", &format!("{right}, {keys}")),
            "t.toml:20:18: Harbor sends no OpenID Connect tokens; use `secret`",
        ),
        (
            receiver("gar", &format!("issuer = \"i\", audience = \"a\", {keys}")),
            "t.toml:20:18: `account` is missing in `identity_token` of [[receiver]]; write account = \"…\", the address or the \
             id of the sender's account",
        ),
        (
            receiver("gar", &format!("{right}, keys = {{ url = \"http://keys.example.com/\" }}")),
            "t.toml:20:80: `url` of the keys must be an https address without user name and password",
        ),
        (
            receiver("gar", &format!("{right}, keys = {{ value = '{{\"keys\": []}}' }}")),
            "t.toml:20:82: `keys`: no RSA key for signatures in the key set (RFC 7517): it has no such key",
        ),
        (
            receiver("gar", &format!("issuer = \"https://u:p@i\", audience = \"a\", account = \"b\", {keys}")),
            "t.toml:20:29: this address must not contain a user name or password",
        ),
        (
            receiver("gar", right),
            "t.toml:20:18: `keys` is missing in `identity_token` of [[receiver]]; write keys = { url = \
             \"https://www.googleapis.com/oauth2/v3/certs\" } or { file = \"/etc/tagrelay/keys.json\" }",
        ),
    ]);
}

#[test]
fn site_rules_are_checked_with_position() {
    let rule = |lines: &str| changed("[[image]]", &format!("[[environment.site]]\n{lines}\n\n[[image]]"));
    let file = "file = \"environments/production/a.yaml\"";
    check(&[
        (rule(&format!("{file}\npath = \"$.a\"\nrepository = \"a/b\"")), "none"),
        (
            rule(&format!("{file}\npath = \"$.a..b\"\nrepository = \"a/b\"")),
            "t.toml:17:14: `path` is invalid at byte 5: `..` is not known here: name every level, or write `[*]`",
        ),
        (
            rule(&format!("{file}\npath = \"$.a\"\npart = \"tag\"")),
            "t.toml:15:1: `repository` is missing: a tag or digest does not contain its repository",
        ),
        (
            rule(&format!("{file}\npath = \"$.a\"\npart = \"tags\"")),
            "t.toml:18:8: `part`: there is no part called `tags`; did you mean `tag`?",
        ),
        (
            rule("file = \"environments/staging/a.yaml\"\npath = \"$.a\""),
            "t.toml:16:8: `file`: `environments/staging/a.yaml` is in none of the environment's `paths`; only files of the environment are edited",
        ),
        (
            changed("promote_from =", "pin = \"digests\"\npromote_from ="),
            "t.toml:13:7: `pin`: unknown value `digests`; did you mean `digest`?",
        ),
    ]);
}

#[test]
fn image_names_are_unique() {
    let image = |lines: &str| with(&format!("\n[[image]]\nrepository = \"ghcr.io/x/api\"\n{lines}\n"));
    check(&[
        (image("name = \"api\"\nflux_policy = \"flux-system:api\""), "none"),
        (
            changed("[[image]]", "[[image]]\nname = \"api\""),
            "t.toml:16:8: `name`: `api` would name every repository that the pattern matches; give it to an [[image]] whose \
             `repository` has no wildcard",
        ),
        (
            image("name = \"a:b\""),
            "t.toml:20:8: `a:b` cannot be the name of an image; use letters, digits, `.`, `_` and `-`",
        ),
        (image("flux_policy = \"api\""), "t.toml:20:15: `api` is not a Flux image policy; write `namespace:name`"),
        (
            image("name = \"api\"\n\n[[image]]\nrepository = \"ghcr.io/x/web\"\nname = \"api\""),
            "t.toml:24:8: `name`: `api` is already another image; each name must be unique",
        ),
    ]);
}

#[test]
fn invalid_freezes_are_reported() {
    let freeze = |windows: &str| changed("\"automatic\"", &format!("\"automatic\"\nfreeze = [{windows}]"));
    let valid = |windows: &str| assert_eq!(freeze(windows), "none", "{windows}");
    valid("{ from = \"2026-12-18T16:00:00+01:00\", until = 2027-01-04T08:00:00+01:00, reason = \"holidays\" }");
    valid("{ from = \"2026-12-18T16:00\", until = 2027-01-04T08:00:00, time_zone = \"America/New_York\" }");
    valid("{ from = \"Fri 16:00\", until = \"Mon 08:00\", time_zone = \"Europe/Berlin\" }");
    // Windows may overlap, and 2:30 does not exist in Berlin on 2026-03-29.
    valid(
        "{ from = \"Sunday 2:30\", until = \"sun 23:00\", time_zone = \"Europe/Berlin\" },
         { from = \"Sun 12:00\", until = \"Mon 00:00\", time_zone = \"UTC\" },
         { from = \"2026-03-29T02:30:00\", until = \"2026-03-29T05:00:00\", time_zone = \"Europe/Berlin\" }",
    );
    check(&[
        (
            freeze("{ from = \"Frj 16:00\", until = \"Mon 8\", time_zone = \"Europe/Berln\" }, { until = \"soon\" }"),
            "t.toml:9:20: `from`: there is no day called `Frj`; did you mean `Fri`?\n\
             t.toml:9:41: `until`: `8` is not a time of day; write it as in \"Fri 16:00\"\n\
             t.toml:9:62: `time_zone`: there is no time zone called `Europe/Berln`; did you mean `Europe/Berlin`?\n\
             t.toml:9:80: `from` is missing in `freeze` of [[environment]]; write from = \"Fri 16:00\"\n\
             t.toml:9:90: `until`: there is no day called `soon`; \
             known: `Mon`, `Tue`, `Wed`, `Thu`, `Fri`, `Sat`, `Sun`",
        ),
        (
            freeze("{ from = \"Fri 16:00\", until = \"Mon 08:00\" }"),
            "t.toml:9:20: a time without an offset needs a `time_zone`; write time_zone = \"Europe/Berlin\"",
        ),
        (
            freeze("{ from = \"Fri 16:00\", until = \"Friday 16:00\", time_zone = \"UTC\" }"),
            "t.toml:9:41: `from` and `until` of a freeze are both `Fri 16:00`",
        ),
        (
            freeze("{ from = \"Fri 16:00\", until = \"2026-12-18\", time_zone = \"UTC\" }"),
            "t.toml:9:41: `from` and `until` of a freeze must both be times of the week, or both be dates; \
             write \"2026-12-18T16:00:00+01:00\", or \"Fri 16:00\" with a `time_zone`",
        ),
        (
            freeze("{ from = \"2026-12-18T16:00:00Z\", until = \"2026-12-18T17:00:00+01:00\" }"),
            "t.toml:9:52: `until` of a freeze is not after its `from`",
        ),
        (
            freeze("{ from = \"2026-12-18T16:00:00Z\", until = \"2026-12-19T16:00:00Z\", time_zone = \"UTC\" }"),
            "t.toml:9:88: `time_zone` has no effect: both times have an offset; leave one of the two out",
        ),
        (
            freeze("{ from = \"2026-02-30T16:00:00Z\", until = 7 }"),
            "t.toml:9:20: `from`: `2026-02-30T16:00:00Z` is not a time; \
             write \"2026-12-18T16:00:00+01:00\", or \"Fri 16:00\" with a `time_zone`\n\
             t.toml:9:52: `until` in `freeze` of [[environment]] must be a string, not a number",
        ),
        (
            freeze(
                "{ from = \"Mon 00:00\", until = \"Fri 00:00\", time_zone = \"UTC\" },
                    { from = \"Thu 00:00\", until = \"Mon 00:00\", time_zone = \"UTC\", raison = \"x\" }",
            ),
            "t.toml:9:10: the weekly windows of `freeze` never end; leave some time free, or write update = \"manual\"\n\
             t.toml:10:83: unknown key `raison` in `freeze` of [[environment]]; did you mean `reason`?",
        ),
        (
            freeze("{ from = \"Fri 16:00\", until = \"Mon 08:00\", time_zone = \"Mars\", reason = \"\" }"),
            "t.toml:9:66: `time_zone`: there is no time zone called `Mars`; \
             write the name of an IANA time zone, as in \"Europe/Berlin\"\n\
             t.toml:9:83: `reason` in `freeze` of [[environment]] is empty",
        ),
    ]);
}
