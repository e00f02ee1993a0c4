//! A YAML file as a flat list of nodes.
//!
//! `nodes.rs` has the nodes and the ways through them, `parse.rs` makes them with a parser of all of YAML, `quick.rs` does
//! the same several times as fast for the YAML of most manifests, and `line_breaks.rs` refuses characters that only some
//! readers take for the end of a line.

mod line_breaks;
mod nodes;
mod parse;
mod quick;

pub(crate) use nodes::{Kind, MAX_NODES, Node, NodeId, TEMPLATE_HINT, Tree, is_in, outermost};
