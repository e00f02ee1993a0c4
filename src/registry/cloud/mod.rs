//! Short-lived accounts at the registries of AWS, Google and Azure, from the identity that the cluster gives to the pod.
//!
//! Input: a registry's host and the environment variables of the process. Output: an account with its end.
//!
//! - [`Cloud`]: which hosts belong to a cloud, `host.rs`;
//! - [`CloudEnvironment`]: the variables in which clusters describe an identity, `environment.rs`;
//! - [`CloudLogin`]: one account for all requests to a host: renewed, kept, dropped, `login.rs`; [`CloudToken`]: an account with
//!   its end;
//! - `aws.rs` with `sigv4.rs`, `google.rs`, `azure.rs`: the requests of each cloud;
//! - `services.rs`: HTTP to token services and metadata servers, and their refusals in words.
//!
//! An account is sent only to hosts of its cloud, over HTTPS, and never after a redirect. Token services are called at fixed
//! hosts of the cloud. Metadata servers speak plain HTTP at fixed addresses of the node, or at those of the cloud's own
//! environment variables.

mod aws;
mod azure;
mod environment;
mod google;
mod host;
mod login;
mod services;
mod sigv4;
mod token;

pub use environment::CloudEnvironment;
pub use host::Cloud;
pub(super) use login::CloudLogin;
pub(super) use services::{METADATA_LIMIT, Services};
pub(super) use token::CloudToken;
