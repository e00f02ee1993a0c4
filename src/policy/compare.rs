//! Which of two builds is newer, by what their tags and their images say.

use std::cmp::Ordering;

use jiff::{SignedDuration, Timestamp};

use super::TagFacts;

/// What decided which of two builds is newer, in the order in which they are asked.
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
    /// When the images were built, as they say themselves.
    BuildTime,
    /// Which of them was announced later.
    Arrival,
}

impl Criterion {
    /// Every criterion, in the order in which they are asked.
    pub const ALL: [Self; 6] =
        [Self::Ancestry, Self::Number, Self::Time, Self::Version, Self::BuildTime, Self::Arrival];

    /// Returns the word in the store and the API.
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

/// Compares what two tags say: number, time, version. `None` where they say nothing, or the same.
pub fn by_tag(new: &TagFacts, old: &TagFacts) -> Option<(Ordering, Criterion)> {
    let number = new.number.zip(old.number).map(|(new, old)| (new.cmp(&old), Criterion::Number));
    let time = new.time.zip(old.time).map(|(new, old)| (new.cmp(&old), Criterion::Time));
    let version = new.version.as_ref().zip(old.version.as_ref()).and_then(|(new, old)| new.compare(old));
    let version = version.map(|ordering| (ordering, Criterion::Version));
    [number, time, version].into_iter().flatten().find(|(ordering, _)| ordering.is_ne())
}

/// Nothing was put into a container image before this: it is a date that a reproducible build has made up, such as
/// 0001-01-01, 1970-01-01 or 1980-01-01.
const FIRST_IMAGE: Timestamp = Timestamp::constant(1_356_998_400, 0);

/// How far a builder's clock may be ahead of ours. What is dated later would be the newest for ever.
const CLOCKS_APART: SignedDuration = SignedDuration::from_hours(24);

/// Returns a build time if it can be one; `now` is the time of the question.
pub fn plausible_build_time(at: Timestamp, now: Timestamp) -> Option<Timestamp> {
    let is_future = at.duration_since(now) > CLOCKS_APART;
    (at >= FIRST_IMAGE && !is_future).then_some(at)
}

/// Compares when two images were built. `None` where one does not say, or they say the same.
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
    fn the_first_that_differs_decides() {
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
    fn calendars_are_no_semantic_versions() {
        let read = |rule: &TagRule, tag: &str| rule.read(&tag.parse().unwrap()).unwrap();
        let calver = TagRule::calver("", "", None).unwrap();
        let semver = TagRule::semver("", "", None, false).unwrap();
        let newer = by_tag(&read(&calver, "2026.11.10"), &read(&calver, "2026.11.9"));
        assert_eq!(newer, Some((Ordering::Greater, Criterion::Version)));
        assert_eq!(by_tag(&read(&calver, "2026.11.10"), &read(&semver, "2026.11.9")), None);
    }

    #[test]
    fn made_up_dates_decide_nothing() {
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
