/// A permission of an API token.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Permission {
    /// Read all data.
    Read,
    /// Request promotions to an environment.
    Promote(EnvironmentScope),
    /// Request rollbacks in an environment.
    Rollback(EnvironmentScope),
    /// Make and release holds in an environment.
    Hold(EnvironmentScope),
    /// Freeze and thaw an environment.
    Freeze(EnvironmentScope),
    /// Promote into an environment in spite of a closed gate or a freeze.
    Override(EnvironmentScope),
    /// Replay events.
    Replay,
    /// All permissions.
    Admin,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum EnvironmentScope {
    /// `*`: all environments, including later ones.
    All,
    One(String),
}

/// Why a text is not a permission.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPermission {
    #[error("there is no permission `{0}`")]
    Unknown(String),
    #[error("the permission `{0}` names no environment; write `{0}:NAME`, or `{0}:*` for each")]
    MissingEnvironment(&'static str),
    #[error("the permission `{0}` takes no environment")]
    UnexpectedEnvironment(&'static str),
}

const PLAIN: [&str; 3] = ["read", "replay", "admin"];
const SCOPED: [&str; 5] = ["promote", "rollback", "hold", "freeze", "override"];

impl EnvironmentScope {
    /// Returns the scope of one environment.
    pub fn one(environment: &str) -> Self {
        Self::One(environment.to_owned())
    }

    /// Returns whether this scope contains the other scope.
    pub fn covers(&self, other: &Self) -> bool {
        match self {
            Self::All => true,
            Self::One(name) => matches!(other, Self::One(other) if other == name),
        }
    }
}

impl Permission {
    /// Returns the names of all permissions, without their environments.
    pub fn names() -> impl Iterator<Item = &'static str> + Clone {
        PLAIN.into_iter().chain(SCOPED)
    }

    /// Returns the scope; `None` for a permission without environments.
    pub fn scope(&self) -> Option<&EnvironmentScope> {
        match self {
            Self::Promote(scope)
            | Self::Rollback(scope)
            | Self::Hold(scope)
            | Self::Freeze(scope)
            | Self::Override(scope) => Some(scope),
            Self::Read | Self::Replay | Self::Admin => None,
        }
    }

    /// Returns whether this permission includes `needed`.
    pub fn covers(&self, needed: &Self) -> bool {
        match (self, needed) {
            (Self::Admin, _) | (Self::Read, Self::Read) | (Self::Replay, Self::Replay) => true,
            (Self::Promote(scope), Self::Promote(needed))
            | (Self::Rollback(scope), Self::Rollback(needed))
            | (Self::Hold(scope), Self::Hold(needed))
            | (Self::Freeze(scope), Self::Freeze(needed))
            | (Self::Override(scope), Self::Override(needed)) => scope.covers(needed),
            _ => false,
        }
    }
}

impl std::str::FromStr for Permission {
    type Err = InvalidPermission;

    fn from_str(text: &str) -> Result<Self, InvalidPermission> {
        let (name, environment) = match text.split_once(':') {
            Some((name, environment)) => (name, Some(environment)),
            None => (text, None),
        };
        if let Some(name) = PLAIN.into_iter().find(|plain| *plain == name) {
            if environment.is_some() {
                return Err(InvalidPermission::UnexpectedEnvironment(name));
            }
            return Ok(match name {
                "read" => Self::Read,
                "replay" => Self::Replay,
                _ => Self::Admin,
            });
        }
        let Some(name) = SCOPED.into_iter().find(|scoped| *scoped == name) else {
            return Err(InvalidPermission::Unknown(text.to_owned()));
        };
        let scope = match environment {
            None | Some("") => return Err(InvalidPermission::MissingEnvironment(name)),
            Some("*") => EnvironmentScope::All,
            Some(environment) => EnvironmentScope::One(environment.to_owned()),
        };
        Ok(match name {
            "promote" => Self::Promote(scope),
            "rollback" => Self::Rollback(scope),
            "hold" => Self::Hold(scope),
            "freeze" => Self::Freeze(scope),
            _ => Self::Override(scope),
        })
    }
}

impl std::fmt::Display for EnvironmentScope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::All => "*",
            Self::One(name) => name,
        })
    }
}

/// Writes the permission in the notation of the settings: `promote:production`.
impl std::fmt::Display for Permission {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Read => f.write_str("read"),
            Self::Promote(scope) => write!(f, "promote:{scope}"),
            Self::Rollback(scope) => write!(f, "rollback:{scope}"),
            Self::Hold(scope) => write!(f, "hold:{scope}"),
            Self::Freeze(scope) => write!(f, "freeze:{scope}"),
            Self::Override(scope) => write!(f, "override:{scope}"),
            Self::Replay => f.write_str("replay"),
            Self::Admin => f.write_str("admin"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permission(text: &str) -> Permission {
        text.parse().unwrap()
    }

    #[test]
    fn every_permission_reads_back_as_written() {
        for text in [
            "read",
            "promote:production",
            "promote:*",
            "rollback:staging",
            "hold:*",
            "freeze:production",
            "override:production",
            "replay",
            "admin",
        ] {
            assert_eq!(permission(text).to_string(), text);
        }
    }

    #[test]
    fn invalid_permissions_are_explained() {
        for (text, message) in [
            ("raed", "there is no permission `raed`"),
            ("promote", "the permission `promote` names no environment; write `promote:NAME`, or `promote:*` for each"),
            ("hold:", "the permission `hold` names no environment; write `hold:NAME`, or `hold:*` for each"),
            ("read:staging", "the permission `read` takes no environment"),
        ] {
            assert_eq!(text.parse::<Permission>().unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn permission_covers_only_its_own_kind_and_scope() {
        let covers = |has: &str, needed: &str| permission(has).covers(&permission(needed));
        assert!(covers("promote:production", "promote:production"));
        assert!(covers("promote:*", "promote:production"));
        assert!(covers("admin", "rollback:production"));
        assert!(covers("admin", "read"));
        assert!(covers("replay", "replay"));
        assert!(!covers("promote:production", "promote:*"));
        assert!(!covers("promote:production", "promote:staging"));
        assert!(!covers("promote:*", "rollback:production"));
        assert!(!covers("promote:*", "read"));
        assert!(!covers("read", "admin"));
        assert!(!covers("read", "replay"));
    }
}
