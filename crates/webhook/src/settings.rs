use std::num::NonZeroU32;
use std::time::Duration;

use super::identity::IdentityTokens;
use super::senders::Kind;
use tagrelay_secret::Secret;

/// For how long a delivery that was seen before is a duplicate where the settings do not say: 7 days.
///
/// As long as the slowest sender repeats what it could not deliver (Pub/Sub keeps messages for 7 days, GitHub lets
/// people repeat deliveries of 3 days, EventBridge and SNS try for a day).
pub const DEFAULT_DUPLICATE_WINDOW: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// One configured webhook target: `POST /webhooks/{name}`.
#[derive(Debug, Clone)]
pub struct ReceiverSettings {
    /// The last part of the URL.
    pub name: String,
    /// Who sends.
    pub kind: Kind,
    /// What the sender must know. `None` only where `identity_token` is set or `unauthenticated` says that this is
    /// meant.
    pub secret: Option<Secret>,
    /// A second secret that is valid during a rotation.
    pub previous_secret: Option<Secret>,
    /// The OpenID Connect token that the sender must show with every request, beside the secret where there is one.
    pub identity_token: Option<IdentityTokens>,
    /// Everybody may send. Only for networks where nobody else can.
    pub unauthenticated: bool,
    /// The registry's host, for senders whose body names none.
    pub registry: Option<String>,
    /// The config repository whose branches the sender tells of, for senders that tell of commits.
    pub config_repository: Option<String>,
    /// For how long a delivery that was seen before is a duplicate. Afterwards it is a new event.
    pub duplicate_window: Duration,
    /// How many requests are taken; `None`: as many as come.
    pub rate_limit: Option<RateLimit>,
}

impl ReceiverSettings {
    /// Returns the settings of a receiver of which nothing but its name and its sender is known. It has no secret,
    /// so that it is no receiver yet.
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

/// How many requests a receiver takes in a span of time: `50/s`, `600/m`, `1000/h`.
///
/// So many may also come at once; after that they are taken one by one as the time allows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    /// How many requests.
    pub requests: NonZeroU32,
    /// In which time.
    pub per: Duration,
}

/// A text is no rate limit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is no rate limit: write a whole number above zero and `/s`, `/m` or `/h`, as in \"50/s\"", .0.escape_debug())]
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
    fn rate_limits_are_written_as_people_say_them() {
        for text in ["1/s", "600/m", "100000/h"] {
            assert_eq!(text.parse::<RateLimit>().unwrap().to_string(), text);
        }
        for text in ["", "5", "0/s", "-1/s", "5/d", "5 / s", "1.5/s", "/s", "9999999999/s"] {
            assert!(text.parse::<RateLimit>().is_err(), "{text}");
        }
    }
}
