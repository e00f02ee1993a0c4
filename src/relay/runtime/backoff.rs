//! The pauses of the stages after failures.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// The first and the longest pause between two requests to a registry about an image.
const REGISTRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));

/// The first and the longest pause of a branch writer.
const REMOTE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(60));

/// The first and the longest pause before a rejected push is retried, and when it is refused.
pub(in crate::relay) const REJECTED: (Duration, Duration, Duration) =
    (Duration::from_secs(30), Duration::from_secs(15 * 60), Duration::from_secs(24 * 60 * 60));

/// Returns the pause before the next request to a registry: the pause that it asked for, otherwise 1 s, doubled with
/// each failure up to 5 min. Up to a quarter is added as jitter, so that images that failed together are not retried
/// together.
pub(in crate::relay) fn registry(failures: u32, asked: Option<Duration>) -> Duration {
    let base = asked.unwrap_or_else(|| doubled(REGISTRY, failures));
    base + base.mul_f64(jitter() / 4.0)
}

/// Returns the pause of a branch writer: 0.5 s, doubled with each failure up to 1 min, minus a jitter of up to a
/// quarter. Never less than the pause that the remote asks for. `failures` is at least 1.
pub(in crate::relay) fn remote(failures: u32, asked: Option<Duration>) -> Duration {
    let pause = doubled(REMOTE, failures.saturating_sub(1)).mul_f64(0.75 + jitter() / 4.0);
    pause.max(asked.unwrap_or_default())
}

fn doubled((first, longest): (Duration, Duration), times: u32) -> Duration {
    first.saturating_mul(2u32.saturating_pow(times.min(16))).min(longest)
}

/// Returns a random number from 0 to 1.
pub(in crate::relay) fn jitter() -> f64 {
    // The keys of `RandomState` are random, and differ from call to call.
    (RandomState::new().hash_one(0u8) >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registry_pauses_grow_to_a_bound_and_respect_the_registry() {
        let at_most = |base: u64| Duration::from_millis(base * 1250);
        for (failures, seconds) in [(0, 1), (1, 2), (5, 32), (8, 256), (9, 300), (u32::MAX, 300)] {
            let pause = registry(failures, None);
            assert!(pause >= Duration::from_secs(seconds) && pause <= at_most(seconds), "{failures}: {pause:?}");
        }
        assert!(registry(0, Some(Duration::from_secs(90))) >= Duration::from_secs(90));
    }

    #[test]
    fn remote_pauses_grow_to_a_minute_and_respect_the_remote() {
        for (failures, milliseconds) in [(1, 500), (2, 1000), (7, 32_000), (9, 60_000), (u32::MAX, 60_000)] {
            let pause = remote(failures, None);
            let longest = Duration::from_millis(milliseconds);
            assert!(pause <= longest && pause >= longest.mul_f64(0.75), "{failures}: {pause:?}");
        }
        assert_eq!(remote(1, Some(Duration::from_secs(90))), Duration::from_secs(90));
    }
}
