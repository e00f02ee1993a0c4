//! Is this tag allowed, which environments take it, is it newer than what runs. Pure.

mod rule;

pub use rule::{ImageRule, InvalidPattern, RepositoryPattern, TagRefused, TagRule, Verification, rule_for};
