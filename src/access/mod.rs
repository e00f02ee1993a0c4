//! API tokens and their permissions. Pure.
//!
//! `settings` parses `[[api_token]]` into [`ApiToken`]. `http` finds the token that a request presents and checks whether the token
//! has the [`Permission`] that the route needs, for example to promote to an environment.

mod permission;
mod token;

pub use permission::{EnvironmentScope, InvalidPermission, Permission};
pub use token::{ApiToken, PresentedToken, TokenSecret};
