//! Time limits for conversations with a Git server.

use std::time::Duration;

/// The longest silence of a server. Long, because hooks of the host run before it answers.
pub(super) const SILENCE_LIMIT: Duration = Duration::from_secs(120);

/// The slowest link that is still served, in bytes per second.
const SLOWEST_LINK: u64 = 4 << 10;

/// The longest silence of a server that is sent this many bytes: an upload shows no progress.
pub(super) fn silence_limit_for(bytes: usize) -> Duration {
    SILENCE_LIMIT + Duration::from_secs(bytes as u64 / SLOWEST_LINK)
}

/// The longest duration of a push, plus the upload time over a slow link. It ends a push whose server sends keep-alive
/// packets forever.
pub(super) const PUSH_LIMIT: Duration = Duration::from_secs(10 * 60);

/// The longest time to establish a connection.
pub(super) const CONNECT_LIMIT: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_upload_gets_time_for_a_slow_link() {
        assert_eq!(silence_limit_for(500), SILENCE_LIMIT);
        // 20 MiB at 20 KiB/s take 1,024 seconds.
        assert!(silence_limit_for(20 << 20) > SILENCE_LIMIT + Duration::from_secs(1_024));
    }
}
