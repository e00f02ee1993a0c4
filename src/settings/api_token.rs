use super::names::Names;
use super::nearest::{hint, nearest};
use super::reader::Section;
use crate::access::{ApiToken, EnvironmentScope, InvalidPermission, Permission, PresentedToken, TokenSecret};
use tagrelay_secret::{ExposeSecret, Secret};

/// A token with fewer characters can be guessed.
const SHORT: usize = 16;

const ADVICE: &str = "use letters and digits, as `openssl rand -hex 32` prints them";

pub(super) fn read(section: Section<'_>, names: &Names) -> Option<ApiToken> {
    let name = section.name();
    let secret = match (section.has("token"), section.has("sha256")) {
        (_, false) => section.required_secret("token", "no request could match it").map(TokenSecret::Secret),
        (false, true) => read_sha256(section).map(TokenSecret::Sha256),
        (true, true) => {
            let message = "`token` and `sha256` are both set";
            section.report().fault_with_hint(section.offset_of("sha256"), message, "leave one out".to_owned());
            // Read `token` nevertheless, to report its faults.
            section.secret("token").map(TokenSecret::Secret)
        }
    };
    if let Some(TokenSecret::Secret(secret)) = &secret {
        check_usable(section, secret);
    }
    let permissions = read_permissions(section, names);
    Some(ApiToken { name: name?.value, secret: secret?, permissions: permissions? })
}

/// Reports a token that no request can present: a header value is visible ASCII with spaces, but not around it (RFC 9110, section
/// 5.5).
fn check_usable(section: Section<'_>, secret: &Secret) {
    // An unreadable one was reported.
    let Ok(text) = secret.reveal() else { return };
    let text = text.expose_secret();
    if text.trim() == text && text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') {
        if text.len() < SHORT {
            let message = format!("`token` has fewer than {SHORT} characters, so that it can be guessed");
            section.report().warning(section.offset_of("token"), message, Some(ADVICE.to_owned()));
        }
        return;
    }
    let message =
        "`token` begins or ends with a space, or has a line break or a letter outside ASCII: no request can match it";
    section.report().fault_with_hint(section.offset_of("token"), message, ADVICE.to_owned());
}

/// Reports tokens that are equal: only the last one would count.
pub(super) fn check_distinct(tokens: &[ApiToken], sections: &[Section<'_>]) {
    let hashes: Vec<Option<PresentedToken>> = tokens.iter().map(|token| token.secret.hash().ok()).collect();
    for (index, (token, section)) in tokens.iter().zip(sections).enumerate() {
        let Some(Some(hash)) = hashes.get(index) else { continue };
        let is_equal = |other: &&ApiToken| other.secret.matches(hash).unwrap_or(false);
        if let Some(other) = tokens.iter().take(index).find(is_equal) {
            let key = if section.has("token") { "token" } else { "sha256" };
            let message = format!("the token of `{}` is also that of `{}`: give each its own", token.name, other.name);
            section.report().fault(section.offset_of(key), message);
        }
    }
}

/// Reads `sha256`. The message does not quote it, because it may be the token itself.
fn read_sha256(section: Section<'_>) -> Option<[u8; 32]> {
    let text = section.text("sha256")?;
    let mut hash = [0; 32];
    if hex::decode_to_slice(text.value, &mut hash).is_ok() {
        return Some(hash);
    }
    let hint = "write what `printf %s \"$TOKEN\" | sha256sum` prints".to_owned();
    section.report().fault_with_hint(text.offset, "`sha256` is not 64 hexadecimal digits", hint);
    None
}

fn read_permissions(section: Section<'_>, names: &Names) -> Option<Vec<Permission>> {
    let texts = section.required_texts("permissions", "permissions = [\"read\"]")?;
    let mut permissions = Vec::new();
    for text in texts {
        let permission = match text.value.parse::<Permission>() {
            Ok(permission) => permission,
            Err(error) => {
                let hint = matches!(error, InvalidPermission::Unknown(_)).then(|| meant(text.value));
                section.report().fault_with_hint(text.offset, error.to_string(), hint);
                continue;
            }
        };
        if let Some(EnvironmentScope::One(name)) = permission.scope()
            && !names.environments.contains(name)
        {
            let message = format!("the permission `{permission}` names no [[environment]]");
            let hint = hint(name, names.environments.iter().map(String::as_str));
            section.report().fault_with_hint(text.offset, message, hint);
        }
        permissions.push(permission);
    }
    Some(permissions)
}

/// Returns the hint for an unknown permission: the nearest one with the same environment, otherwise all of them.
fn meant(text: &str) -> String {
    let (name, environment) = text.split_once(':').map_or((text, None), |(name, scope)| (name, Some(scope)));
    match (nearest(name, Permission::names()), environment) {
        (Some(near), Some(environment)) if format!("{near}:{environment}").parse::<Permission>().is_ok() => {
            format!("did you mean `{near}:{environment}`?")
        }
        (Some(near), _) => format!("did you mean `{near}`?"),
        (None, _) => {
            "known: read, promote:NAME, rollback:NAME, hold:NAME, freeze:NAME, override:NAME, replay, admin".to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_permission_is_suggested_with_its_environment() {
        assert_eq!(meant("promot:production"), "did you mean `promote:production`?");
        assert_eq!(meant("raed"), "did you mean `read`?");
        assert_eq!(meant("raed:production"), "did you mean `read`?");
        assert!(meant("write").starts_with("known: read, promote:NAME, "));
    }
}
