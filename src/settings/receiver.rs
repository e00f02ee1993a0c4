use std::time::Duration;

use url::Url;

use super::names::Names;
use super::nearest::hint;
use super::reader::Section;
use super::registry::check_host;
use super::report::At;
use super::{duration, keys};
use tagrelay_webhook::{DEFAULT_DUPLICATE_WINDOW, IdentityTokens, Kind, RateLimit, ReceiverSettings, SigningKeys};

const IDENTITY_EXAMPLE: &str = "{ issuer = \"…\", audience = \"…\", account = \"…\", keys = { url = \"…\" } }";
const KEYS_EXAMPLE: &str =
    "{ url = \"https://www.googleapis.com/oauth2/v3/certs\" } or { file = \"/etc/tagrelay/keys.json\" }";

/// A shorter window would treat redeliveries as new. A longer one than ten years is a mistake.
const DUPLICATE_WINDOWS: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(60)..=Duration::from_secs(3650 * 24 * 60 * 60);

pub(super) fn read(section: Section<'_>, names: &Names) -> Option<ReceiverSettings> {
    let name = section.name();
    let kind = read_kind(section);
    let unauthenticated = section.boolean("unauthenticated");
    let open = unauthenticated.is_some_and(|open| open.value);
    let identity_token = section.table("identity_token", &keys::IDENTITY_TOKEN, IDENTITY_EXAMPLE);
    let secret = if open || unauthenticated.is_none() && section.has("unauthenticated") || section.has("identity_token")
    {
        section.secret("secret")
    } else {
        let why = "without it any client could announce images (set unauthenticated = true to allow that)";
        section.required_secret("secret", why)
    };
    for key in ["secret", "identity_token"] {
        if open && section.has(key) {
            let message = format!("`{key}` has no effect with unauthenticated = true");
            section.report().fault_with_hint(section.offset_of(key), message, "leave one of them out".to_owned());
        }
    }
    if let (Some(kind), Some(token)) = (kind, identity_token)
        && !kind.sends_identity_tokens()
    {
        let message = format!("{} sends no OpenID Connect tokens", kind.title());
        section.report().fault_with_hint(token.offset, message, "use `secret`".to_owned());
    }
    let identity_token = match identity_token {
        Some(table) => Some(read_identity_token(table)?),
        None => None,
    };
    let previous_secret = section.secret("previous_secret");
    if section.has("previous_secret") && !section.has("secret") {
        section.report().fault(section.offset_of("previous_secret"), "`previous_secret` needs `secret`");
    }
    let registry = match section.text("registry") {
        Some(host) => Some(check_host(section, host)?.value),
        None => None,
    };
    if let Some(kind) = kind.filter(|kind: &Kind| kind.needs_registry() && !section.has("registry")) {
        let message = format!("the events of {} do not name their registry", kind.title());
        section.report().fault_with_hint(section.offset_of("kind"), message, "set `registry` to its host".to_owned());
    }
    let config_repository = kind.and_then(|kind| read_config_repository(section, kind, names));
    let duplicate_window = duration::read(section, "duplicate_window", DUPLICATE_WINDOWS);
    let rate_limit = section.text("rate_limit").and_then(|text| section.parse(text));
    Some(ReceiverSettings {
        secret,
        previous_secret,
        identity_token,
        duplicate_window: duplicate_window.unwrap_or(DEFAULT_DUPLICATE_WINDOW),
        rate_limit: rate_limit.map(|limit: At<RateLimit>| limit.value),
        unauthenticated: open,
        registry,
        config_repository,
        ..ReceiverSettings::new(name?.value, kind?)
    })
}

/// Returns the config repository that the receiver's pushes concern; `None`: the receiver announces images.
fn read_config_repository(section: Section<'_>, kind: Kind, names: &Names) -> Option<String> {
    let useless: &[&str] =
        if kind.announces_images() { &["config_repository"] } else { &["registry", "duplicate_window"] };
    for key in useless.iter().filter(|key| section.has(key)) {
        let announced = if kind.announces_images() { "images" } else { "commits" };
        let message = format!("`{key}` has no effect for the kind `{kind}`, which announces {announced}");
        section.report().fault_with_hint(section.offset_of(key), message, "leave it out".to_owned());
    }
    if kind.announces_images() { None } else { names.config_repository_of(section) }
}

fn read_kind(section: Section<'_>) -> Option<Kind> {
    let text = section.required_text("kind", "kind = \"docker-hub\"")?;
    if let Ok(kind) = text.value.parse() {
        return Some(kind);
    }
    let message = format!("there is no sender called `{}`", text.value.escape_debug());
    let names: Vec<&str> = Kind::ALL.iter().map(|kind| kind.name()).collect();
    let meant = OTHER_NAMES.iter().find(|(other, _)| text.value.eq_ignore_ascii_case(other));
    let hint = match meant {
        Some((_, kind)) => Some(format!("did you mean `{kind}`?")),
        None => hint(text.value, names),
    };
    section.report().fault_with_hint(text.offset, message, hint);
    None
}

/// Other names of senders, and their kinds.
const OTHER_NAMES: [(&str, &str); 18] = [
    ("docker", "docker-hub"),
    ("dockerhub", "docker-hub"),
    ("docker_hub", "docker-hub"),
    ("gitlab", "gitlab-registry"),
    ("github", "ghcr"),
    ("github-packages", "ghcr"),
    ("gcr", "gar"),
    ("google", "gar"),
    ("artifact-registry", "gar"),
    ("aws", "ecr"),
    ("amazon", "ecr"),
    ("azure", "acr"),
    ("aliyun", "aliyun-acr"),
    ("alibaba", "aliyun-acr"),
    ("jfrog", "artifactory"),
    ("sonatype", "nexus"),
    ("registry", "distribution"),
    ("docker-registry", "distribution"),
];

fn read_identity_token(table: Section<'_>) -> Option<IdentityTokens> {
    let issuer = table.required_text("issuer", "issuer = \"https://accounts.google.com\"");
    let audience = table.required_text("audience", "audience = \"…\", as the sender's subscription has it");
    // The issuer signs tokens for any audience on request, so only the account identifies the sender.
    let account = table.required_text("account", "account = \"…\", the address or the id of the sender's account");
    let keys = read_keys(table);
    for text in [issuer, audience].into_iter().flatten() {
        if Url::parse(text.value).is_ok_and(|url| holds_user(&url)) {
            table.report().fault(text.offset, "this address must not contain a user name or password");
        }
    }
    Some(IdentityTokens {
        issuer: issuer?.value.to_owned(),
        audience: audience?.value.to_owned(),
        account: Some(account?.value.to_owned()),
        keys: keys?,
    })
}

/// Returns the signing keys. Keys in a file are read now.
fn read_keys(table: Section<'_>) -> Option<SigningKeys> {
    if !table.has("keys") {
        let message = format!("`keys` is missing in {}", table.section_name());
        table.report().fault_with_hint(table.offset, message, format!("write keys = {KEYS_EXAMPLE}"));
    }
    let keys = table.table("keys", &keys::IDENTITY_KEYS, KEYS_EXAMPLE)?;
    let given: Vec<&str> = keys::IDENTITY_KEYS.keys.iter().copied().filter(|name| keys.has(name)).collect();
    let &[place] = given.as_slice() else {
        let message = format!("`keys` names {} sources of keys instead of one", given.len());
        keys.report().fault_with_hint(keys.offset, message, format!("write {KEYS_EXAMPLE}"));
        return None;
    };
    let text = keys.text(place)?;
    let refuse = |message: String| keys.report().fault(text.offset, message);
    match place {
        "url" => match Url::parse(text.value)
            .ok()
            .filter(|url| url.scheme() == "https" && url.has_host() && !holds_user(url))
        {
            Some(address) => Some(SigningKeys::at(address)),
            None => {
                refuse("`url` of the keys must be an https address without user name and password".to_owned());
                None
            }
        },
        "file" => SigningKeys::from_file(text.value).map_err(|error| refuse(format!("`keys`: {error}"))).ok(),
        _ => SigningKeys::from_key_set(text.value.as_bytes()).map_err(|error| refuse(format!("`keys`: {error}"))).ok(),
    }
}

/// Returns whether a URL contains a user name or password, which messages would show.
fn holds_user(url: &Url) -> bool {
    !url.username().is_empty() || url.password().is_some()
}
