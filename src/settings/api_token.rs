use super::names::Names;
use super::nearest::{hint, nearest};
use super::reader::Section;
use crate::access::{ApiToken, EnvironmentScope, InvalidPermission, Permission, TokenSecret};

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
    let permissions = read_permissions(section, names);
    Some(ApiToken { name: name?.value, secret: secret?, permissions: permissions? })
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
