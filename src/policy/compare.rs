//! Decides which of two builds is newer, by their tags and build times.

use std::cmp::Ordering;

use jiff::{SignedDuration, Timestamp};

use super::TagFacts;

/// A criterion for which of two builds is newer. The first that distinguishes them decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Criterion {
    /// One commit descends from the other in the source repository.
    Ancestry,
    /// The number in the tag.
    Number,
    /// The time in the tag.
    Time,
    /// The version in the tag.
    Version,
    /// The build time that the image states.
    BuildTime,
    /// The later announcement.
    Arrival,
}

impl Criterion {
    /// All criteria, in the order in which they apply.
    pub const ALL: [Self; 6] =
        [Self::Ancestry, Self::Number, Self::Time, Self::Version, Self::BuildTime, Self::Arrival];

    /// Returns the criterion's name in the store and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ancestry => "ancestry",
            Self::Number => "number",
            Self::Time => "time",
            Self::Version => "version",
            Self::BuildTime => "build_time",
            Self::Arrival => "arrival",
        }
    }
}

impl std::fmt::Display for Criterion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Compares two tags by number, time and version. `None`: none of them is in both tags, or all are equal.
pub fn by_tag(new: &TagFacts, old: &TagFacts) -> Option<(Ordering, Criterion)> {
    let number = new.number.zip(old.number).map(|(new, old)| (new.cmp(&old), Criterion::Number));
    let time = new.time.zip(old.time).map(|(new, old)| (new.cmp(&old), Criterion::Time));
    let version = new.version.as_ref().zip(old.version.as_ref()).and_then(|(new, old)| new.compare(old));
    let version = version.map(|ordering| (ordering, Criterion::Version));
    [number, time, version].into_iter().flatten().find(|(ordering, _)| ordering.is_ne())
}

/// 2013-01-01. An earlier date is an invention of a reproducible build, such as 0001-01-01, 1970-01-01 or 1980-01-01,
/// because container images did not exist yet.
const FIRST_IMAGE: Timestamp = Timestamp::constant(1_356_998_400, 0);

/// How far a builder's clock may be ahead of ours. A build dated in the far future would otherwise stay the newest.
const CLOCKS_APART: SignedDuration = SignedDuration::from_hours(24);

/// Returns `at` if it is a plausible build time: after 2012, and at most 24 hours after `now`.
pub fn plausible_build_time(at: Timestamp, now: Timestamp) -> Option<Timestamp> {
    let is_future = at.duration_since(now) > CLOCKS_APART;
    (at >= FIRST_IMAGE && !is_future).then_some(at)
}

/// Compares two build times. `None`: one is unknown, or they are equal.
pub fn by_build_time(new: Option<Timestamp>, old: Option<Timestamp>) -> Option<Ordering> {
    new.zip(old).map(|(new, old)| new.cmp(&old)).filter(|ordering| ordering.is_ne())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{TagRule, TagVersion};

    fn facts(number: Option<u128>, time: Option<i64>, version: Option<&str>) -> TagFacts {
        TagFacts {
            sha: None,
            number,
            time: time.map(|second| Timestamp::from_second(second).unwrap()),
            version: version.map(|version| TagVersion::Semantic(version.parse().unwrap())),
        }
    }

    #[test]
    fn first_criterion_that_differs_decides() {
        use Criterion::{Number, Time, Version};
        use Ordering::{Greater, Less};
        for (new, old, expected) in [
            (facts(Some(10), Some(1), None), facts(Some(9), Some(2), None), Some((Greater, Number))),
            (facts(Some(9), Some(1), None), facts(Some(9), Some(2), None), Some((Less, Time))),
            (facts(None, Some(3), None), facts(Some(9), Some(2), None), Some((Greater, Time))),
            (facts(None, None, Some("1.10.0")), facts(None, None, Some("1.9.0")), Some((Greater, Version))),
            (facts(None, None, Some("1.9.0-rc.1")), facts(None, None, Some("1.9.0")), Some((Less, Version))),
            (facts(Some(1), None, None), facts(Some(1), None, None), None),
            (facts(Some(1), None, None), facts(None, Some(1), Some("1.0.0")), None),
        ] {
            assert_eq!(by_tag(&new, &old), expected, "{new:?} {old:?}");
        }
    }

    #[test]
    fn calendar_and_semantic_versions_are_not_compared() {
        let read = |rule: &TagRule, tag: &str| rule.read(&tag.parse().unwrap()).unwrap();
        let calver = TagRule::calver("", "", None).unwrap();
        let semver = TagRule::semver("", "", None, false).unwrap();
        let newer = by_tag(&read(&calver, "2026.11.10"), &read(&calver, "2026.11.9"));
        assert_eq!(newer, Some((Ordering::Greater, Criterion::Version)));
        assert_eq!(by_tag(&read(&calver, "2026.11.10"), &read(&semver, "2026.11.9")), None);
    }

    #[test]
    fn implausible_build_times_are_ignored() {
        let now: Timestamp = "2026-11-23T08:00:00Z".parse().unwrap();
        for text in ["0001-01-01T00:00:00Z", "1970-01-01T00:00:00Z", "1980-01-01T00:00:01Z", "2026-11-25T08:00:00Z"] {
            assert_eq!(plausible_build_time(text.parse().unwrap(), now), None, "{text}");
        }
        let real: Timestamp = "2026-11-23T07:00:00Z".parse().unwrap();
        assert_eq!(plausible_build_time(real, now), Some(real));
        assert_eq!(by_build_time(Some(real), None), None);
        assert_eq!(by_build_time(Some(real), Some(real)), None);
        assert_eq!(by_build_time(Some(now), Some(real)), Some(Ordering::Greater));
    }
}
