use super::nearest::hint;
use super::reader::Section;
use super::registry::check_host;
use crate::webhook::{Kind, ReceiverSettings};

pub(super) fn read(section: Section<'_>) -> Option<ReceiverSettings> {
    let name = section.name();
    let kind = read_kind(section);
    let unauthenticated = section.boolean("unauthenticated");
    let open = unauthenticated.is_some_and(|open| open.value);
    let secret = if open || unauthenticated.is_none() && section.has("unauthenticated") {
        section.secret("secret")
    } else {
        let why = "without it everybody could announce images (unauthenticated = true, if that is meant)";
        section.required_secret("secret", why)
    };
    if open && section.has("secret") {
        let message = "`secret` has no use with unauthenticated = true";
        section.report().fault_with_hint(section.offset_of("secret"), message, "leave one of them out".to_owned());
    }
    let previous_secret = section.secret("previous_secret");
    if section.has("previous_secret") && !section.has("secret") {
        section.report().fault(section.offset_of("previous_secret"), "`previous_secret` stands without `secret`");
    }
    let registry = match section.text("registry") {
        Some(host) => Some(check_host(section, host)?.value),
        None => None,
    };
    if let Some(kind) = kind.filter(|kind: &Kind| kind.needs_registry() && !section.has("registry")) {
        let message = format!("{} does not say which registry it is", kind.title());
        section.report().fault_with_hint(section.offset_of("kind"), message, "set `registry` to its host".to_owned());
    }
    Some(ReceiverSettings {
        secret,
        previous_secret,
        unauthenticated: open,
        registry,
        ..ReceiverSettings::new(name?.value, kind?)
    })
}

fn read_kind(section: Section<'_>) -> Option<Kind> {
    let text = section.required_text("kind", "kind = \"docker-hub\"")?;
    if let Ok(kind) = text.value.parse() {
        return Some(kind);
    }
    let message = format!("no sender is called `{}`", text.value.escape_debug());
    let names: Vec<&str> = Kind::ALL.iter().map(|kind| kind.name()).collect();
    section.report().fault_with_hint(text.offset, message, hint(text.value, names));
    None
}
