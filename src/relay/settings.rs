use std::time::Duration;

use crate::policy::{FreezeSchedule, TagRule};

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
    /// How long the source of a promotion must have been healthy; zero: being healthy now is enough. `None`: no soak time.
    ///
    /// Applies to promotions into this environment if it has `promote_from`, otherwise to promotions out of it.
    pub soak: Option<Duration>,
    /// When it is frozen.
    pub freezes: FreezeSchedule,
}

impl Environment {
    /// Returns the soak time for promotions from `source` to this environment; `None`: health is not checked.
    pub(super) fn soak_of(&self, source: Option<&Environment>) -> Option<Duration> {
        let own = self.soak.filter(|_| !self.promote_from.is_empty());
        let of_source = source.filter(|source| source.promote_from.is_empty()).and_then(|source| source.soak);
        own.max(of_source)
    }
}

/// Which updates an environment accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpdateMode {
    /// Push events, promotions and rollbacks.
    Automatic,
    /// Promotions and rollbacks.
    Manual,
}

impl UpdateMode {
    /// Returns the word in the settings and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Automatic => "automatic",
            Self::Manual => "manual",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(promote_from: &[&str], soak: Option<u64>) -> Environment {
        Environment {
            name: "x".to_owned(),
            mode: UpdateMode::Manual,
            tag: None,
            promote_from: promote_from.iter().map(|name| (*name).to_owned()).collect(),
            soak: soak.map(Duration::from_secs),
            freezes: FreezeSchedule::default(),
        }
    }

    #[test]
    fn soak_time_of_source_or_target_applies() {
        let soak = |to: &Environment, from: &Environment| to.soak_of(Some(from)).map(|soak| soak.as_secs());
        let (plain, first) = (environment(&["x"], None), environment(&[], None));
        assert_eq!(soak(&plain, &first), None);
        assert_eq!(soak(&environment(&["x"], Some(60)), &first), Some(60));
        assert_eq!(soak(&plain, &environment(&[], Some(0))), Some(0));
        assert_eq!(soak(&environment(&["x"], Some(60)), &environment(&[], Some(90))), Some(90));
        // The soak time of an environment in the middle applies to promotions into it only.
        assert_eq!(soak(&plain, &environment(&["x"], Some(60))), None);
        assert_eq!(environment(&["x"], Some(60)).soak_of(None), Some(Duration::from_secs(60)));
    }
}
