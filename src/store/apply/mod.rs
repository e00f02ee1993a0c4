//! The one place that changes states.
//!
//! In: inputs to updates and events. Each input is looked up in the transition tables of `domain` with the current row. Its effects
//! are executed, and the outbox gets an entry. Many rows are handled at once, because handing a statement to SQLite costs more than
//! executing most statements.
//!
//! In reading order:
//!
//! - `step`: an input and its values;
//! - `review`: the blocks that waiting updates wait for;
//! - `effects`: the effects of transitions of updates;
//! - `settle`: the states of events, which follow from their updates;
//! - `updates`, `events`: transitions;
//! - `insert`: new updates.

mod effects;
mod events;
mod insert;
mod review;
mod settle;
mod step;
mod updates;

pub(super) use events::{EventStep, apply_events, apply_loaded_events};
pub(super) use insert::{NewUpdate, insert};
pub(super) use review::{Scope, review};
pub(super) use step::Step;
pub(super) use updates::apply;

#[cfg(test)]
pub(super) fn statements() -> Vec<super::statements::Listed> {
    [
        effects::STATEMENTS,
        events::STATEMENTS,
        insert::STATEMENTS,
        review::STATEMENTS,
        settle::STATEMENTS,
        updates::STATEMENTS,
    ]
    .concat()
}
