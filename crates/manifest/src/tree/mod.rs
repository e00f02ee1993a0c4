//! A YAML file as a flat list of nodes.
//!
//! `nodes.rs` has the nodes and their traversal. `parse.rs` creates nodes with a full YAML parser. `quick.rs` is several times as
//! fast, for the YAML of most manifests. `line_breaks.rs` refuses characters that are line breaks for some readers only.

mod line_breaks;
mod nodes;
mod parse;
mod quick;

pub(crate) use nodes::{Kind, MAX_NODES, Node, NodeId, TEMPLATE_HINT, Tree, is_in, outermost};
