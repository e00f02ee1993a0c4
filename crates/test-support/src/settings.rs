//! Texts of settings for tests.

use std::path::Path;

/// The secret of the receiver `ci` of a fleet. No output may contain it.
pub const GENERIC_SECRET: &str = "generic-secret-5f1c";
/// The API token `release-managers` of a fleet.
pub const API_TOKEN: &str = "api-token-93ab";
/// The API token `reader` of a fleet.
pub const READ_TOKEN: &str = "read-token-77de";

/// The smallest valid settings.
pub const SMALLEST: &str = r#"[[config_repository]]
name = "platform"
url = "file:///srv/git/platform.git"

[[environment]]
name = "staging"
paths = ["environments/staging/**"]
update = "automatic"

[[environment]]
name = "production"
paths = ["environments/production/**"]
promote_from = ["staging"]

[[image]]
repository = "docker.io/uyou/*"
"#;

/// Settings for commands: two environments, one image rule, one receiver and one token, on any free port. `{folder}` is the
/// test's folder.
pub const COMMANDS: &str = r#"
[server]
listen = "127.0.0.1:0"

[store]
url = "sqlite:{folder}/data/tagrelay.db"

[[config_repository]]
name = "platform"
url = "file://{folder}/platform.git"
author = "Tagrelay <tagrelay@example.com>"

[[environment]]
name = "staging"
paths = ["environments/staging/**"]
update = "automatic"

[[environment]]
name = "production"
paths = ["environments/production/**"]
promote_from = ["staging"]

[[image]]
repository = "docker.io/uyou/*"
verify = { exists = false }

[[receiver]]
name = "ci"
kind = "generic"
secret = { value = "sesame" }

[[api_token]]
name = "tester"
token = { value = "the token" }
permissions = ["admin"]
"#;

/// A third, automatic environment, `qa`.
pub const QA: &str = "\n[[environment]]\nname = \"qa\"\npaths = [\"environments/qa\"]\nupdate = \"automatic\"\n";

/// The variable parts of a fleet's settings. Texts are additional lines of the section that they are named after.
pub(crate) struct FleetSettings<'a> {
    pub(crate) port: u16,
    pub(crate) folder: &'a Path,
    /// The registry's host.
    pub(crate) registry: &'a str,
    /// The config repository's URL.
    pub(crate) url: &'a str,
    /// Transport settings of the config repository.
    pub(crate) remote: &'a str,
    pub(crate) server: &'a str,
    pub(crate) repository: &'a str,
    pub(crate) staging: &'a str,
    pub(crate) production: &'a str,
    pub(crate) image: &'a str,
    pub(crate) receivers: &'a str,
    /// Appended to the file.
    pub(crate) extra: &'a str,
}

/// A fleet's settings: staging is automatic, production accepts promotions from it.
pub(crate) fn fleet(settings: &FleetSettings<'_>) -> String {
    let FleetSettings {
        port,
        folder,
        registry,
        url,
        remote,
        server,
        repository,
        staging,
        production,
        image,
        receivers,
        extra,
    } = settings;
    let folder = folder.display();
    format!(
        r#"[server]
listen = "127.0.0.1:{port}"
{server}

[store]
url = "sqlite:{folder}/tagrelay.db"

[[config_repository]]
name = "platform"
url = "{url}"
{remote}
{repository}
[[environment]]
name = "staging"
paths = ["environments/staging"]
update = "automatic"
{staging}

[[environment]]
name = "production"
paths = ["environments/production/**"]
update = "manual"
promote_from = ["staging"]
{production}

[[image]]
repository = "{registry}/uyou/*"
{image}
[[registry]]
host = "{registry}"
plain_http = true

[[receiver]]
name = "ci"
kind = "generic"
secret = {{ value = "{GENERIC_SECRET}" }}
{receivers}
[[api_token]]
name = "release-managers"
token = {{ value = "{API_TOKEN}" }}
permissions = ["read", "replay", "promote:production", "rollback:*", "hold:*"]

[[api_token]]
name = "reader"
token = {{ value = "{READ_TOKEN}" }}
permissions = ["read"]
{extra}"#
    )
}
