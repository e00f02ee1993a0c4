/// Who sends: the `kind` of a `[[receiver]]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Docker Hub.
    DockerHub,
    /// Harbor 1.9 and later.
    Harbor,
    /// CNCF Distribution, the `registry` image.
    Distribution,
    /// GitHub's container registry.
    Ghcr,
    /// A CI job that tells what it has pushed.
    Generic,
}

/// No sender of that name is known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no sender is called `{0}`")]
pub struct UnknownKind(pub String);

impl Kind {
    /// Every sender, in the order of the documentation.
    pub const ALL: &[Self] = &[Self::DockerHub, Self::Harbor, Self::Distribution, Self::Ghcr, Self::Generic];

    /// Returns the name in the settings.
    pub fn name(self) -> &'static str {
        match self {
            Self::DockerHub => "docker-hub",
            Self::Harbor => "harbor",
            Self::Distribution => "distribution",
            Self::Ghcr => "ghcr",
            Self::Generic => "generic",
        }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Kind {
    type Err = UnknownKind;

    fn from_str(text: &str) -> Result<Self, UnknownKind> {
        Self::ALL.iter().copied().find(|kind| kind.name() == text).ok_or_else(|| UnknownKind(text.to_owned()))
    }
}
