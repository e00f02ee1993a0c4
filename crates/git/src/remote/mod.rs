//! Remote repositories: read a branch, fetch a commit at depth 1, push with the expected old commit, read histories.
//!
//! This is our own client instead of libgit2's, to save round trips: a push is one request on a kept connection. Also,
//! libgit2's push to `file` URLs neither compares the old commit nor runs hooks, so `file` remotes run Git's own programs
//! and use the same protocol as all others.

mod address;
mod cooldown;
mod duplex;
mod history;
mod http;
mod http_error;
mod installation_tokens;
mod limits;
mod local;
mod pktline;
mod protocol;
mod push;
mod reading;
mod report;
mod repository;
mod server_text;
mod ssh;
mod stream;

pub use address::Address;
pub use history::{Fetched, HistoryReading, HistoryRequest};
pub use push::Push;
pub use reading::Reading;
pub use repository::Remote;
