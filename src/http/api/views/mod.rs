//! Makes the wire types of rows and decisions. The room `api` has the types.
//!
//! In: rows of `store`, the matrix of `relay`. Out: values of `api`. `row` has updates, requests, holds and freezes, `event`
//! push events with their explanation, `environment` the matrix.

mod environment;
mod event;
mod row;

pub(super) use environment::environment_view;
pub(super) use event::{event_detail, event_view};
pub(super) use row::request_view;
