//! Tagrelay relays image tags from a container registry to the Git repository that Argo CD watches.
//!
//! The rooms, in the order in which an event walks through them (`docs/architecture.md` has the picture):
//!
//! | room | takes -> gives |
//! |---|---|
//! | [`image`] | text -> repositories, tags, digests, references. Pure |
//! | [`manifest`] | YAML bytes -> sites; sites and versions -> new bytes and changes, with proof. Pure |
//! | [`policy`] | is this tag allowed, is it newer, may it go now. Pure |
//! | [`secret`] | a place named in the settings -> a secret that no log can show |
//! | [`clock`] | what time it is |
//! | [`settings`] | `tagrelay.toml` -> typed settings for each room |
//! | [`webhook`] | authenticated request -> push events |
//! | [`registry`] | unverified image -> verified image |
//! | [`config_repo`] | versions wanted -> commit -> pushed branch |
//! | [`source_repo`] | two commits -> which of them is the newer one |
//! | [`argocd`] | commit -> applications refreshed, and what became of it |
//! | [`store`] | durable events, updates, promotions, holds, history |
//! | [`relay`] | the pipeline that joins them: intake, writer |
//! | [`telemetry`] | logs and metrics |
//! | [`http`] | routes: webhooks, API, operations |
//! | [`cli`] | commands |

// The tests see the inside of the daemon; nothing else depends on it.
#![allow(missing_docs)]

pub mod argocd;
pub mod cli;
pub mod clock;
pub mod config_repo;
pub mod http;
pub mod manifest;
pub mod policy;
pub mod registry;
pub mod relay;
pub mod settings;
pub mod source_repo;
pub mod store;
pub mod telemetry;
pub mod webhook;

pub use tagrelay_image as image;
pub use tagrelay_secret as secret;
