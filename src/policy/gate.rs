use std::time::Duration;

/// What a promotion needs from the environment that it comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GatePolicy {
    /// How long the version must have run healthy; zero: it must be healthy now.
    pub soak: Duration,
    pub scope: GateScope,
    /// Whether versions pass that no application of Argo CD runs.
    pub allow_untracked: bool,
    /// How long a promotion may wait for the gate.
    pub wait_timeout: Duration,
}

/// Which applications a gate is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GateScope {
    /// Those that run the promoted version.
    Version,
    /// All applications of the environment.
    Environment,
}

impl GateScope {
    pub const ALL: &[Self] = &[Self::Version, Self::Environment];

    /// Returns the word in the settings.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Version => "version",
            Self::Environment => "environment",
        }
    }
}

impl GatePolicy {
    /// Default of [`Self::wait_timeout`].
    pub const DEFAULT_WAIT_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);

    /// Joins this policy of the target with that of the source: the stricter soak time and scope. Untracked versions pass if either allows it.
    pub fn and(self, other: Self) -> Self {
        let is_whole = [self.scope, other.scope].contains(&GateScope::Environment);
        Self {
            soak: self.soak.max(other.soak),
            scope: if is_whole { GateScope::Environment } else { GateScope::Version },
            allow_untracked: self.allow_untracked || other.allow_untracked,
            wait_timeout: self.wait_timeout,
        }
    }
}
