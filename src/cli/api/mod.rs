//! What the commands that speak to a running server share: the client, and what its answers look like.

mod client;
mod order;
mod wire;

pub(super) use client::{Answer, Api, ServerOptions};
pub(super) use order::{FollowOptions, follow, state_style};
pub(super) use wire::*;
