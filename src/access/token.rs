use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::{EnvironmentScope, Permission};
use tagrelay_secret::{ExposeSecret, Secret, SecretError};

/// An API token: its secret and its permissions.
#[derive(Debug, Clone)]
pub struct ApiToken {
    /// The name of the bearer, which appears in commits and in the history.
    pub name: String,
    pub secret: TokenSecret,
    pub permissions: Vec<Permission>,
}

/// The secret of an API token, in clear or as a hash.
#[derive(Debug, Clone)]
pub enum TokenSecret {
    /// The token itself.
    Secret(Secret),
    /// The SHA-256 of the token. Not salted, so the token must be long and random.
    Sha256([u8; 32]),
}

/// The SHA-256 of a token, as requests present it.
#[derive(Clone)]
pub struct PresentedToken([u8; 32]);

impl PresentedToken {
    pub fn new(token: &str) -> Self {
        Self(Sha256::digest(token).into())
    }
}

impl ApiToken {
    /// Returns whether the bearer has the permission.
    pub fn may(&self, needed: &Permission) -> bool {
        self.permissions.iter().any(|permission| permission.covers(needed))
    }

    /// Returns whether the bearer has a permission of this kind for at least one environment.
    pub fn may_somewhere(&self, kind: fn(EnvironmentScope) -> Permission) -> bool {
        let wanted = std::mem::discriminant(&kind(EnvironmentScope::All));
        let is_wanted = |permission: &Permission| std::mem::discriminant(permission) == wanted;
        self.permissions.iter().any(|permission| *permission == Permission::Admin || is_wanted(permission))
    }

    /// Returns whether the bearer may see the promotions and rollbacks of an environment.
    ///
    /// Needs `read`, or the permission to request promotions or rollbacks there.
    pub fn may_see_requests(&self, environment: &str) -> bool {
        let scope = EnvironmentScope::one(environment);
        self.may(&Permission::Read)
            || self.may(&Permission::Promote(scope.clone()))
            || self.may(&Permission::Rollback(scope))
    }
}

impl TokenSecret {
    /// Returns whether the presented token is the API token. The comparison takes constant time.
    ///
    /// # Errors
    ///
    /// If the file or variable of the token can no longer be read.
    pub fn matches(&self, presented: &PresentedToken) -> Result<bool, SecretError> {
        Ok(self.hash()?.0.ct_eq(&presented.0).into())
    }

    /// Returns the hash of the token.
    ///
    /// # Errors
    ///
    /// If the file or variable of the token can no longer be read.
    pub fn hash(&self) -> Result<PresentedToken, SecretError> {
        Ok(match self {
            Self::Secret(secret) => PresentedToken::new(secret.reveal()?.expose_secret()),
            Self::Sha256(hash) => PresentedToken(*hash),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_visible_to_readers_and_requesters() {
        let token = |permission: &str| ApiToken {
            name: "x".to_owned(),
            secret: TokenSecret::Sha256([0; 32]),
            permissions: vec![permission.parse().unwrap()],
        };
        for permission in ["read", "admin", "promote:production", "rollback:*"] {
            assert!(token(permission).may_see_requests("production"), "{permission}");
        }
        for permission in ["replay", "hold:production", "promote:staging"] {
            assert!(!token(permission).may_see_requests("production"), "{permission}");
        }
    }

    #[test]
    fn only_the_same_token_matches() {
        let plain = TokenSecret::Secret(Secret::inline("s3cret".to_owned()).unwrap());
        let hashed = TokenSecret::Sha256(Sha256::digest("s3cret").into());
        for token in [plain, hashed] {
            assert!(token.matches(&PresentedToken::new("s3cret")).unwrap());
            for wrong in ["", "s3cre", "s3cret ", "S3cret"] {
                assert!(!token.matches(&PresentedToken::new(wrong)).unwrap(), "{wrong}");
            }
        }
    }

    #[test]
    fn missing_token_file_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, "s3cret\n").unwrap();
        let token = TokenSecret::Secret(Secret::from_file(&path).unwrap());
        let presented = PresentedToken::new("s3cret");
        assert!(token.matches(&presented).unwrap());
        std::fs::remove_file(&path).unwrap();
        assert!(token.matches(&presented).is_err());
    }
}
