//! Config and source repositories over every transport, with Git's programs as the server.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod faults;
mod file;
mod github_app;
mod hostile;
mod http;
mod lost_answers;
mod overlays;
mod property;
mod setup;
mod signing;
mod source;
mod ssh;
