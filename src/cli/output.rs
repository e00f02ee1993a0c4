//! What commands print: tables, colours, short forms.

use std::io::Write as _;

use anstyle::{AnsiColor, Style};

use crate::settings::Faults;

/// Something went wrong, or would go.
pub(super) const BAD: Style = AnsiColor::Red.on_default();

/// Prints everything that is wrong with the settings to standard error.
pub(super) fn print_faults(faults: &Faults) {
    let mut stderr = anstream::stderr().lock();
    for fault in &faults.0 {
        // Standard error is the last place where anything can be said.
        let _ = writeln!(stderr, "{BAD}error:{BAD:#} {fault}");
    }
}
