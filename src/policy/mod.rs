//! Tag rules, the order of two builds, and freeze windows. Pure.
//!
//! - [`ImageRule`]: which repositories are managed; [`TagRule`]: which of their tags are versions;
//! - [`TagFacts`]: what a tag contains: commit, number, time, version;
//! - [`compare`]: which of two builds is newer, criterion by criterion ([`Criterion`]);
//! - [`GatePolicy`]: what a promotion needs from the environment that it comes from;
//! - [`FreezeCalendar`]: which environments are frozen by their settings, and until when.

mod calendar;
pub mod compare;
mod freeze;
mod gate;
mod range;
mod rule;
mod shape;
mod tag_rule;

pub use calendar::{CalendarFormat, InvalidCalendarFormat};
pub use compare::Criterion;
pub use freeze::{FreezeCalendar, FreezeSchedule, FreezeSpan, FreezeWindow, InvalidWeekTime, WeekTime, frozen_until};
pub use gate::{GatePolicy, GateScope};
pub use rule::{ImageRule, InvalidPattern, RepositoryPattern, TagRefused, Verification, rule_for};
pub use shape::{InvalidTagRule, Shape};
pub use tag_rule::{TagFacts, TagRule, TagVersion, is_attachment};
