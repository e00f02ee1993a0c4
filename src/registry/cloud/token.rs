use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::Cloud;
use crate::registry::docker_config::Account;

/// An account is not used during this last part of its life, or a tenth of it if that is less.
const LAST_PART: Duration = Duration::from_secs(10);

/// An account that seems to end earlier is used this long. Otherwise a wrong clock would cause a login for each request; an
/// account that has really ended is refused and dropped.
const SHORTEST_LIFE: Duration = Duration::from_secs(60);

/// A short-lived account with its end.
pub(in crate::registry) struct CloudToken {
    pub(in crate::registry) cloud: Cloud,
    pub(in crate::registry) account: Account,
    /// From then on it is renewed in the background.
    pub(super) renew_at: Instant,
    pub(super) until: Instant,
}

impl CloudToken {
    /// Creates a token that was requested at `asked_at`, because its life starts before the answer arrives.
    pub(super) fn new(cloud: Cloud, account: Account, asked_at: Instant, life: Duration) -> Self {
        let life = life.max(SHORTEST_LIFE);
        let renew_at = asked_at + life * 3 / 4;
        Self { cloud, account, renew_at, until: asked_at + life - (life / 10).min(LAST_PART) }
    }
}

/// Returns the time until an expiry, by the clock of the service that named it.
pub(super) fn life_until(expiry: Timestamp, date: Timestamp) -> Duration {
    Duration::try_from(expiry.duration_since(date)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_is_renewed_after_three_quarters_of_its_life() {
        let account = || Account::IdentityToken("t".into());
        let now = Instant::now();
        let seconds = |life: u64| {
            let token = CloudToken::new(Cloud::Azure, account(), now, Duration::from_secs(life));
            ((token.renew_at - now).as_secs(), (token.until - now).as_secs())
        };
        assert_eq!(seconds(12 * 3600), (9 * 3600, 12 * 3600 - 10));
        assert_eq!(seconds(3600), (2700, 3590));
        assert_eq!(seconds(0), (45, 54));
    }
}
