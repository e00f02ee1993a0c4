use crate::policy::{FreezeSchedule, GatePolicy, TagRule};

/// An environment, as the pipeline uses it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment {
    pub name: String,
    /// Which updates it accepts.
    pub mode: UpdateMode,
    /// Which tags are versions here; `None`: those of the image rules.
    pub tag: Option<TagRule>,
    /// The environments whose versions may be promoted to it.
    pub promote_from: Vec<String>,
    /// What a promotion needs; `None`: no gate.
    ///
    /// Applies to promotions into this environment if it has `promote_from`, otherwise to promotions out of it.
    pub gate: Option<GatePolicy>,
    /// When it is frozen.
    pub freezes: FreezeSchedule,
}

impl Environment {
    /// Returns the gate for promotions from `source` to this environment; `None`: health is not checked.
    pub(super) fn gate_of(&self, source: Option<&Environment>) -> Option<GatePolicy> {
        let own = self.gate.filter(|_| !self.promote_from.is_empty());
        let of_source = source.filter(|source| source.promote_from.is_empty()).and_then(|source| source.gate);
        match (own, of_source) {
            (Some(own), Some(of_source)) => Some(own.and(of_source)),
            (own, of_source) => own.or(of_source),
        }
    }
}

/// Which updates an environment accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpdateMode {
    /// Push events, promotions and rollbacks.
    Automatic,
    /// Promotions and rollbacks.
    Manual,
    /// As manual. Versions of the environments in `promote_from` move on by themselves when their gate opens.
    Follow,
}

impl UpdateMode {
    /// Returns the word in the settings and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Automatic => "automatic",
            Self::Manual => "manual",
            Self::Follow => "follow",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::policy::GateScope;

    fn environment(promote_from: &[&str], soak: Option<u64>) -> Environment {
        Environment {
            name: "x".to_owned(),
            mode: UpdateMode::Manual,
            tag: None,
            promote_from: promote_from.iter().map(|name| (*name).to_owned()).collect(),
            gate: soak.map(|soak| GatePolicy {
                soak: Duration::from_secs(soak),
                scope: GateScope::Version,
                allow_untracked: false,
                wait_timeout: GatePolicy::DEFAULT_WAIT_TIMEOUT,
            }),
            freezes: FreezeSchedule::default(),
        }
    }

    #[test]
    fn soak_time_of_source_or_target_applies() {
        let soak = |to: &Environment, from: &Environment| to.gate_of(Some(from)).map(|gate| gate.soak.as_secs());
        let (plain, first) = (environment(&["x"], None), environment(&[], None));
        assert_eq!(soak(&plain, &first), None);
        assert_eq!(soak(&environment(&["x"], Some(60)), &first), Some(60));
        assert_eq!(soak(&plain, &environment(&[], Some(0))), Some(0));
        assert_eq!(soak(&environment(&["x"], Some(60)), &environment(&[], Some(90))), Some(90));
        // The soak time of an environment in the middle applies to promotions into it only.
        assert_eq!(soak(&plain, &environment(&["x"], Some(60))), None);
        let alone = environment(&["x"], Some(60)).gate_of(None);
        assert_eq!(alone.map(|gate| gate.soak), Some(Duration::from_secs(60)));
    }
    #[test]
    fn stricter_scope_applies_and_either_environment_may_let_untracked_versions_pass() {
        let with = |promote_from: &[&str], scope, allow_untracked| {
            let gate = Some(GatePolicy {
                soak: Duration::ZERO,
                scope,
                allow_untracked,
                wait_timeout: GatePolicy::DEFAULT_WAIT_TIMEOUT,
            });
            Environment { gate, ..environment(promote_from, None) }
        };
        let (to, from) = (with(&["x"], GateScope::Version, true), with(&[], GateScope::Environment, false));
        let gate = to.gate_of(Some(&from)).unwrap();
        assert_eq!((gate.scope, gate.allow_untracked), (GateScope::Environment, true));
    }
}
