//! Warnings about settings that are valid, but hardly meant.

use super::Settings;
use super::reader::Section;

pub(super) fn warn(settings: &Settings, receivers: &[Section<'_>], registries: &[Section<'_>]) {
    check_open_receivers(settings, receivers);
    check_unused_registries(settings, registries);
}

/// Warns of receivers that anybody on the network can call.
fn check_open_receivers(settings: &Settings, receivers: &[Section<'_>]) {
    if settings.server.listen.ip().is_loopback() {
        return;
    }
    for (receiver, section) in settings.receivers.iter().zip(receivers).filter(|(receiver, _)| receiver.unauthenticated)
    {
        let message = format!("`{}` accepts webhooks of anybody who reaches {}", receiver.name, settings.server.listen);
        let hint = "set `secret`, or listen on a loopback address".to_owned();
        section.report().warning(section.offset_of("unauthenticated"), message, hint);
    }
}

/// Warns of registries whose images no rule manages.
fn check_unused_registries(settings: &Settings, registries: &[Section<'_>]) {
    let is_literal = |host: &str| !host.contains(['*', '?', '[', '{']);
    let hosts: Vec<&str> =
        settings.images.iter().filter_map(|rule| Some(rule.pattern.as_str().split_once('/')?.0)).collect();
    for (registry, section) in settings.registries.sections.iter().zip(registries) {
        let may_be_used = !is_literal(&registry.host)
            || hosts.len() < settings.images.len()
            || hosts.iter().any(|host| !is_literal(host) || *host == registry.host);
        if !may_be_used {
            let message = format!("no [[image]] rule has a repository at {}", registry.host);
            let hint = "remove the [[registry]], or add the rule".to_owned();
            section.report().warning(section.offset, message, hint);
        }
    }
}
