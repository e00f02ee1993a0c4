use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::names::Names;
use super::nearest::hint;
use super::reader::Section;
use super::{EnvironmentScope, Permission};
use crate::secret::{ExposeSecret, Secret, SecretError};

/// `[[api_token]]`: a token for the API.
#[derive(Debug, Clone)]
pub struct ApiTokenSettings {
    /// The name of the bearer, shown in commits and history.
    pub name: String,
    /// The token or its hash.
    pub secret: TokenSecret,
    /// What the bearer may do.
    pub permissions: Vec<Permission>,
}

/// An API token or its hash.
#[derive(Debug, Clone)]
pub enum TokenSecret {
    /// The token itself.
    Secret(Secret),
    /// The SHA-256 of the token. Safe for a long random token.
    Sha256([u8; 32]),
}

impl ApiTokenSettings {
    /// Returns whether one of the permissions covers `needed`.
    pub fn may(&self, needed: &Permission) -> bool {
        self.permissions.iter().any(|permission| permission.covers(needed))
    }
}

impl TokenSecret {
    /// Returns whether `presented` is the token. Compares in constant time.
    ///
    /// # Errors
    ///
    /// [`SecretError`] if the token's file cannot be read any more.
    pub fn matches(&self, presented: &str) -> Result<bool, SecretError> {
        let expected: [u8; 32] = match self {
            Self::Secret(secret) => Sha256::digest(secret.reveal()?.expose_secret()).into(),
            Self::Sha256(hash) => *hash,
        };
        let presented: [u8; 32] = Sha256::digest(presented).into();
        Ok(expected.ct_eq(&presented).into())
    }
}

pub(super) fn read(section: Section<'_>, names: &Names) -> Option<ApiTokenSettings> {
    let name = section.name();
    let secret = match (section.has("token"), section.has("sha256")) {
        (_, false) => section.required_secret("token", "no request could match it").map(TokenSecret::Secret),
        (false, true) => read_sha256(section).map(TokenSecret::Sha256),
        (true, true) => {
            let message = "`token` and `sha256` are both set";
            section.report().fault_with_hint(section.offset_of("sha256"), message, "leave one out".to_owned());
            // Read it all the same, to report its faults.
            section.secret("token").map(TokenSecret::Secret)
        }
    };
    let permissions = read_permissions(section, names);
    Some(ApiTokenSettings { name: name?.value, secret: secret?, permissions: permissions? })
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
        let Some(permission) = section.parse::<Permission>(text) else { continue };
        if let Some(EnvironmentScope::One(name)) = permission.value.scope()
            && !names.environments.contains(name)
        {
            let message = format!("the permission `{}` names no [[environment]]", permission.value);
            let hint = hint(name, names.environments.iter().map(String::as_str));
            section.report().fault_with_hint(text.offset, message, hint);
        }
        permissions.push(permission.value);
    }
    Some(permissions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_known_again() {
        let plain = TokenSecret::Secret(Secret::inline("s3cret".to_owned()).unwrap());
        let hashed = TokenSecret::Sha256(Sha256::digest("s3cret").into());
        for token in [plain, hashed] {
            assert!(token.matches("s3cret").unwrap());
            for wrong in ["", "s3cre", "s3cret ", "S3cret"] {
                assert!(!token.matches(wrong).unwrap(), "{wrong}");
            }
        }
    }

    #[test]
    fn a_token_file_that_is_gone_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, "s3cret\n").unwrap();
        let token = TokenSecret::Secret(Secret::from_file(&path).unwrap());
        assert!(token.matches("s3cret").unwrap());
        std::fs::remove_file(&path).unwrap();
        assert!(token.matches("s3cret").is_err());
    }
}
