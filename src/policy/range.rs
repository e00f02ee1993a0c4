//! Detects version ranges that contain no version.

use semver::{Comparator, Op, VersionReq};

/// Major, minor and patch. A pre-release counts as its release, as in `check_range` of `tag_rule.rs`.
type Numbers = (u64, u64, u64);

/// Returns whether the range contains no version, such as `>=2, <1`.
pub(super) fn is_empty(range: &VersionReq) -> bool {
    let (mut from, mut until): (Numbers, Option<Numbers>) = ((0, 0, 0), None);
    for (lower, upper) in range.comparators.iter().map(bounds) {
        from = from.max(lower);
        until = until.into_iter().chain(upper).min();
    }
    until.is_some_and(|until| from >= until)
}

/// Returns the lowest version that a comparator accepts and the lowest above it that it does not accept
/// (<https://doc.rust-lang.org/cargo/reference/specifying-dependencies.html>).
fn bounds(comparator: &Comparator) -> (Numbers, Option<Numbers>) {
    let Comparator { op, major, minor, patch, pre } = comparator;
    let (major, first) = (*major, (*major, minor.unwrap_or(0), patch.unwrap_or(0)));
    let next_major = || (major.saturating_add(1), 0, 0);
    let next_minor = |minor: u64| (major, minor.saturating_add(1), 0);
    // The lowest version above all that the comparator names.
    let behind = match (minor, patch) {
        (None, _) => next_major(),
        (Some(minor), None) => next_minor(*minor),
        (Some(minor), Some(patch)) => (major, *minor, patch.saturating_add(1)),
    };
    match op {
        Op::Exact | Op::Wildcard => (first, Some(behind)),
        // A release is greater than its pre-releases.
        Op::Greater if !pre.is_empty() => (first, None),
        Op::Greater => (behind, None),
        Op::GreaterEq => (first, None),
        Op::Less if !pre.is_empty() => ((0, 0, 0), Some(behind)),
        Op::Less => ((0, 0, 0), Some(first)),
        Op::LessEq => ((0, 0, 0), Some(behind)),
        Op::Tilde => (first, Some(minor.map_or_else(next_major, next_minor))),
        Op::Caret => {
            let until = match (major, minor, patch) {
                (1.., _, _) | (0, None, _) => next_major(),
                (0, Some(minor @ 1..), _) | (0, Some(minor), None) => next_minor(*minor),
                (0, Some(0), Some(_)) => behind,
            };
            (first, Some(until))
        }
        // An operator that a later version of the crate may add: assume that it accepts everything.
        _ => ((0, 0, 0), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_without_a_version_are_detected() {
        for text in [
            ">=2, <1",
            ">=1.2, <1.2",
            ">1, <2",
            ">1.2.3, <1.2.4",
            "^1, ^2",
            "~1.2, >=1.3",
            "1.*, >=2",
            "=1.2.3, =1.2.4",
            "^0.1, >=0.2",
            "^0.0.3, >0.0.3",
            "<0.0.0",
            "<=1, >1",
        ] {
            assert!(is_empty(&text.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn ranges_with_a_version_are_not_empty() {
        for (text, version) in [
            ("*", "1.2.3"),
            (">=1.2, <2", "1.2.0"),
            (">1, <3", "2.0.0"),
            (">=1.2.3, <1.2.4", "1.2.3"),
            ("^1.2, <1.3", "1.2.9"),
            ("~1.2, >=1.2.9", "1.2.9"),
            ("1.*, >=1.9", "1.9.0"),
            ("^0.1, >=0.1.9", "0.1.9"),
            ("^0.0.3", "0.0.3"),
            ("^0, >=0.9", "0.9.0"),
            ("<=1, >=1", "1.4.0"),
            (">1.2.3-rc.1, <1.2.4", "1.2.3"),
        ] {
            let range: VersionReq = text.parse().unwrap();
            assert!(range.matches(&version.parse().unwrap()), "{text}");
            assert!(!is_empty(&range), "{text}");
        }
    }
}
