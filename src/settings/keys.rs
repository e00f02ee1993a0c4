/// The keys of one kind of table in the settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeySet {
    /// The table's name in messages and documentation: `[[image]]`, `tag of [[image]]`.
    pub section: &'static str,
    /// The keys that this version reads.
    pub keys: &'static [&'static str],
    /// Keys of later versions. They are refused with a message of their own, because a setting must not be ignored
    /// silently.
    pub later: &'static [&'static str],
}

const fn key_set(section: &'static str, keys: &'static [&'static str]) -> KeySet {
    KeySet { section, keys, later: &[] }
}

pub(super) const TOP: KeySet = key_set(
    "the settings",
    &[
        "server",
        "store",
        "config_repository",
        "environment",
        "argocd",
        "image",
        "registries",
        "registry",
        "receiver",
        "api_token",
    ],
);
pub(super) const SERVER: KeySet = key_set(
    "[server]",
    &[
        "listen",
        "operations_listen",
        "max_body_bytes",
        "max_connections",
        "stop_timeout",
        "tls",
        "catch_up",
        "catch_up_concurrency",
    ],
);
pub(super) const SERVER_TLS: KeySet = key_set("`tls` of [server]", &["certificate", "key"]);
pub(super) const STORE: KeySet =
    KeySet { section: "[store]", keys: &["url", "keep", "keep_history"], later: &["password"] };
pub(super) const CONFIG_REPOSITORY: KeySet = key_set(
    "[[config_repository]]",
    &[
        "name",
        "url",
        "branch",
        "username",
        "password",
        "github_app",
        "ssh_key",
        "ssh_key_passphrase",
        "known_hosts",
        "ca_bundle",
        "author",
        "committer",
        "signed_off_by",
        "signing",
        "message",
        "commit",
        "quiet_period",
        "mirror",
        "argocd_url",
    ],
);
pub(super) const GITHUB_APP: KeySet =
    key_set("`github_app` of [[config_repository]]", &["app_id", "installation_id", "private_key", "api_url"]);
pub(super) const SIGNING: KeySet = key_set("`signing` of [[config_repository]]", &["format", "key", "passphrase"]);
pub(super) const MESSAGE: KeySet = key_set("`message` of [[config_repository]]", &["subject", "body"]);
pub(super) const ENVIRONMENT: KeySet = key_set(
    "[[environment]]",
    &[
        "name",
        "config_repository",
        "branch",
        "paths",
        "update",
        "tag",
        "promote_from",
        "promote_when",
        "soak",
        "gate",
        "untracked",
        "wait_timeout",
        "freeze",
        "argocd",
        "pin",
        "site",
    ],
);
pub(super) const SITE: KeySet = key_set("[[environment.site]]", &["file", "path", "repository", "part"]);
pub(super) const FREEZE: KeySet = key_set("`freeze` of [[environment]]", &["from", "until", "time_zone", "reason"]);
pub(super) const ENVIRONMENT_ARGOCD: KeySet = key_set("`argocd` of [[environment]]", &["app", "labels"]);
pub(super) const ARGOCD: KeySet =
    key_set("[argocd]", &["url", "token", "ca_bundle", "timeout", "webhook", "applicationset_webhook"]);
pub(super) const ARGOCD_SET_WEBHOOK: KeySet = key_set("`applicationset_webhook` of [argocd]", &["url", "secret"]);
pub(super) const ARGOCD_WEBHOOK: KeySet = key_set("`webhook` of [argocd]", &["url", "secret"]);
pub(super) const IMAGE: KeySet = key_set(
    "[[image]]",
    &["repository", "tag", "verify", "name", "flux_policy", "source", "source_branches", "allow_older", "untracked"],
);
pub(super) const TAG: KeySet = key_set(
    "`tag` of [[image]]",
    &["kind", "prefix", "suffix", "min_length", "pattern", "range", "prereleases", "format", "name"],
);
/// Not in [`KEY_SETS`]: these are the keys of [`TAG`] in another place.
pub(super) const ENVIRONMENT_TAG: KeySet = key_set("`tag` of [[environment]]", TAG.keys);
pub(super) const SOURCE: KeySet = key_set(
    "`source` of [[image]]",
    &["url", "username", "password", "ssh_key", "ssh_key_passphrase", "known_hosts", "ca_bundle"],
);
pub(super) const VERIFY: KeySet = KeySet {
    section: "`verify` of [[image]]",
    keys: &["exists"],
    later: &["revision_label", "platforms", "signature"],
};
pub(super) const REGISTRIES: KeySet = key_set("[registries]", &["docker_config"]);
pub(super) const REGISTRY: KeySet =
    key_set("[[registry]]", &["host", "plain_http", "username", "password", "login", "ca_bundle"]);
pub(super) const RECEIVER: KeySet = key_set(
    "[[receiver]]",
    &[
        "name",
        "kind",
        "secret",
        "previous_secret",
        "identity_token",
        "unauthenticated",
        "registry",
        "config_repository",
        "duplicate_window",
        "rate_limit",
    ],
);
pub(super) const IDENTITY_TOKEN: KeySet =
    key_set("`identity_token` of [[receiver]]", &["issuer", "audience", "account", "keys"]);
pub(super) const IDENTITY_KEYS: KeySet = key_set("`keys` of `identity_token`", &["url", "file", "value"]);
pub(super) const API_TOKEN: KeySet = key_set("[[api_token]]", &["name", "token", "sha256", "permissions"]);
pub(super) const SECRET: KeySet = key_set("a secret", &["env", "file", "value"]);

/// All tables of the settings, in the order of the documentation.
pub const KEY_SETS: &[KeySet] = &[
    TOP,
    SERVER,
    SERVER_TLS,
    STORE,
    CONFIG_REPOSITORY,
    GITHUB_APP,
    SIGNING,
    MESSAGE,
    ENVIRONMENT,
    FREEZE,
    SITE,
    ENVIRONMENT_ARGOCD,
    ARGOCD,
    ARGOCD_WEBHOOK,
    ARGOCD_SET_WEBHOOK,
    IMAGE,
    TAG,
    SOURCE,
    VERIFY,
    REGISTRIES,
    REGISTRY,
    RECEIVER,
    IDENTITY_TOKEN,
    IDENTITY_KEYS,
    API_TOKEN,
    SECRET,
];

/// Returns the section that a key belongs to, if there is exactly one.
pub(super) fn section_of(key: &str) -> Option<&'static str> {
    let mut sections = KEY_SETS.iter().filter(|set| set.keys.contains(&key));
    match (sections.next(), sections.next()) {
        (Some(only), None) => Some(only.section),
        _ => None,
    }
}
