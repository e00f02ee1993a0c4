use std::time::Duration;

use toml::de::DeValue;
use url::Url;

use super::reader::Section;
use super::remote_url::is_loopback;
use super::report::At;
use super::{duration, keys};
use crate::argocd::{Access, ApplicationName, ArgoCdSettings, Selection, Webhook};

const EXAMPLE: &str = "[argocd]";
const URL_EXAMPLE: &str = "url = \"https://argocd.example.com\"";

/// A rollout takes at least some seconds. A rollout that takes a day needs attention.
const TIMEOUTS: std::ops::RangeInclusive<Duration> = Duration::from_secs(10)..=Duration::from_secs(24 * 60 * 60);

pub(super) fn read(top: Section<'_>) -> Option<ArgoCdSettings> {
    let section = top.table("argocd", &keys::ARGOCD, EXAMPLE)?;
    let url = section.required_text("url", URL_EXAMPLE).and_then(|text| read_url(section, text));
    let token = section.secret("token");
    let ca_bundle = section.ca_bundle();
    let timeout = duration::read(section, "timeout", TIMEOUTS).unwrap_or(ArgoCdSettings::DEFAULT_TIMEOUT);
    let webhook = section.table("webhook", &keys::ARGOCD_WEBHOOK, "{ secret = { env = \"NAME\" } }");
    let other = webhook.and_then(|webhook| webhook.text("url").and_then(|text| read_url(webhook, text)));
    let secret = webhook.and_then(|webhook| webhook.secret("secret"));
    let set_webhook = read_set_webhook(section);
    if section.has("token") && section.has("webhook") {
        let message = "`webhook` has no effect with `token`: the API is used instead";
        section.report().fault_with_hint(section.offset_of("webhook"), message, "leave one of them out".to_owned());
    }
    let url = url?;
    if let (Some(_), "http", false) = (&token, url.scheme(), is_loopback(url.host())) {
        let message = "the token of Argo CD is sent unencrypted over http";
        section.report().warning(section.offset_of("url"), message, "use https".to_owned());
    }
    let access = match token {
        Some(token) => Access::Token(token),
        None if section.has("token") => return None,
        None => Access::Webhook(Webhook { url: other.unwrap_or_else(|| webhook_of(&url)), secret }),
    };
    Some(ArgoCdSettings { url, access, set_webhook, ca_bundle, timeout })
}

/// Reads the webhook of the ApplicationSet controller. It has no default: the controller has no fixed address.
fn read_set_webhook(section: Section<'_>) -> Option<Webhook> {
    let example = "{ url = \"http://argocd-applicationset-controller.argocd.svc:7000/api/webhook\" }";
    let webhook = section.table("applicationset_webhook", &keys::ARGOCD_SET_WEBHOOK, example)?;
    let secret = webhook.secret("secret");
    let url = webhook.required_text("url", example)?;
    Some(Webhook { url: read_url(webhook, url)?, secret })
}

fn webhook_of(url: &Url) -> Url {
    let mut url = url.clone();
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.pop_if_empty().extend(["api", "webhook"]);
    }
    url
}

/// Returns the URL of a server. Messages do not quote it, because it may contain a password.
fn read_url(section: Section<'_>, text: At<&str>) -> Option<Url> {
    let fault = |message: &str| {
        let message = format!("`url` in {}: {message}", section.section_name());
        section.report().fault_with_hint(text.offset, message, format!("write {URL_EXAMPLE}"));
        None
    };
    let Ok(url) = Url::parse(text.value) else { return fault("this is not a URL") };
    if !matches!(url.scheme(), "https" | "http") || url.host_str().is_none_or(str::is_empty) {
        return fault("it must be https:// or http:// with a host");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return fault("it contains a user name or a password");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return fault("it contains `?` or `#`");
    }
    Some(url)
}

/// Returns the URL of a config repository in Argo CD's applications.
pub(super) fn read_repository_url(section: Section<'_>) -> Option<Url> {
    let text = section.text("argocd_url")?;
    match super::remote_url::parse(text.value) {
        Ok((url, _)) => Some(url),
        Err(error) => {
            let message = error.message.replacen("`url`", "`argocd_url`", 1);
            section.report().fault_with_hint(text.offset, message, error.hint);
            None
        }
    }
}

/// Returns which applications belong to an environment.
pub(super) fn read_selection(environment: Section<'_>) -> Selection {
    let example = "{ app = \"platform-staging\" } or { labels = \"team=a\" }";
    let Some(section) = environment.table("argocd", &keys::ENVIRONMENT_ARGOCD, example) else {
        return Selection::Paths;
    };
    if section.has("app") && section.has("labels") {
        let message = "`app` and `labels` are both set";
        section.report().fault_with_hint(section.offset, message, "leave one of them out".to_owned());
    }
    if let Some(labels) = section.text("labels") {
        return Selection::Labels(labels.value.to_owned());
    }
    let names: Vec<ApplicationName> =
        names(section).into_iter().filter_map(|text| section.parse(text)).map(|name| name.value).collect();
    if names.is_empty() { Selection::Paths } else { Selection::Named(names) }
}

/// Returns the names in `app`, which is a string or a list of strings.
fn names(section: Section<'_>) -> Vec<At<&str>> {
    match section.value("app").map(|found| found.value) {
        Some(DeValue::Array(_)) => section.required_texts("app", "app = [\"platform-staging\"]").unwrap_or_default(),
        Some(_) => section.text("app").into_iter().collect(),
        None => Vec::new(),
    }
}
