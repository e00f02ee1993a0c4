//! Is this tag allowed, what does it say about its build, is it newer than what runs. Pure.
//!
//! - [`ImageRule`] says which repositories are managed, and [`TagRule`] which of their tags are versions;
//! - a tag that is one is read into [`TagFacts`]: commit, number, time, version;
//! - [`compare`] compares the facts of two builds, criterion by criterion ([`Criterion`]);
//! - [`FreezeCalendar`] says when which environment is frozen by its settings.

mod calendar;
pub mod compare;
mod freeze;
mod range;
mod rule;
mod shape;
mod tag_rule;

pub use calendar::{CalendarFormat, InvalidCalendarFormat};
pub use compare::Criterion;
pub use freeze::{FreezeCalendar, FreezeSchedule, FreezeSpan, FreezeWindow, InvalidWeekTime, WeekTime, frozen_until};
pub use rule::{ImageRule, InvalidPattern, RepositoryPattern, TagRefused, Verification, rule_for};
pub use shape::Shape;
pub use tag_rule::{InvalidTagRule, TagFacts, TagRule, TagVersion, is_attachment};
