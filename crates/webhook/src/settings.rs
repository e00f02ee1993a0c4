use std::num::NonZeroU32;
use std::time::Duration;

use super::identity::IdentityTokens;
use super::senders::Kind;
use tagrelay_secret::Secret;

/// Default of [`ReceiverSettings::duplicate_window`]: 7 days.
///
/// The longest time in which a sender retries: Pub/Sub keeps messages for 7 days, GitHub allows redelivery for 3 days,
/// EventBridge and SNS retry for a day.
pub const DEFAULT_DUPLICATE_WINDOW: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// One configured webhook target: `POST /webhooks/{name}`.
#[derive(Debug, Clone)]
pub struct ReceiverSettings {
    /// The last part of the URL.
    pub name: String,
    /// The sender.
    pub kind: Kind,
    /// The sender's secret; `None` only with `identity_token` or `unauthenticated`.
    pub secret: Option<Secret>,
    /// A second secret that is valid while the first is being replaced.
    pub previous_secret: Option<Secret>,
    /// The OpenID Connect token that every request must have, in addition to the secret if there is one.
    pub identity_token: Option<IdentityTokens>,
    /// Accepts every request. For isolated networks only.
    pub unauthenticated: bool,
    /// The registry's host; overrides the one in the body.
    pub registry: Option<String>,
    /// The config repository that the sender's pushes concern, for senders that announce commits.
    pub config_repository: Option<String>,
    /// How long a redelivery is recognised. Later it is a new event.
    pub duplicate_window: Duration,
    /// Limit of requests; `None`: no limit.
    pub rate_limit: Option<RateLimit>,
}

impl ReceiverSettings {
    /// Creates settings without a secret, which must be completed.
    pub fn new(name: impl Into<String>, kind: Kind) -> Self {
        Self {
            name: name.into(),
            kind,
            secret: None,
            previous_secret: None,
            identity_token: None,
            unauthenticated: false,
            registry: None,
            config_repository: None,
            duplicate_window: DEFAULT_DUPLICATE_WINDOW,
            rate_limit: None,
        }
    }
}

/// A rate limit: `50/s`, `600/m`, `1000/h`. The number is also the burst.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    /// The number of requests.
    pub requests: NonZeroU32,
    /// The span of time.
    pub per: Duration,
}

/// The text is not a rate limit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is not a rate limit: write a whole number above zero and `/s`, `/m` or `/h`, as in \"50/s\"", .0.escape_debug())]
pub struct InvalidRateLimit(String);

const UNITS: [(&str, u64); 3] = [("s", 1), ("m", 60), ("h", 3600)];

impl std::str::FromStr for RateLimit {
    type Err = InvalidRateLimit;

    fn from_str(text: &str) -> Result<Self, InvalidRateLimit> {
        let parse = || {
            let (requests, unit) = text.split_once('/')?;
            let (_, seconds) = UNITS.iter().find(|(name, _)| *name == unit)?;
            Some(Self { requests: requests.parse().ok()?, per: Duration::from_secs(*seconds) })
        };
        parse().ok_or_else(|| InvalidRateLimit(text.to_owned()))
    }
}

impl std::fmt::Display for RateLimit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let unit = UNITS.iter().find(|(_, seconds)| *seconds == self.per.as_secs()).map_or("?", |(name, _)| name);
        write!(f, "{}/{unit}", self.requests)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_limits_are_parsed() {
        for text in ["1/s", "600/m", "100000/h"] {
            assert_eq!(text.parse::<RateLimit>().unwrap().to_string(), text);
        }
        for text in ["", "5", "0/s", "-1/s", "5/d", "5 / s", "1.5/s", "/s", "9999999999/s"] {
            assert!(text.parse::<RateLimit>().is_err(), "{text}");
        }
    }
}
