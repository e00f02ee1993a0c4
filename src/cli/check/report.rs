//! The findings of a check.

use std::path::Path;

use serde::Serialize;

use super::super::output::{BAD, Cell, DIM, GOOD, Table, WARN};
use crate::settings::Fault;

/// The findings, in the order of the checks.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    ok: bool,
    /// The settings file.
    file: String,
    findings: Vec<Finding>,
}

/// The result of one check.
#[derive(Debug, Serialize)]
struct Finding {
    level: Level,
    subject: String,
    message: String,
    /// The line of the settings, counted from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u32>,
    /// The column, counted from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    column: Option<u32>,
    /// What to write instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Level {
    Ok,
    /// Not checked, which is no fault.
    Skipped,
    Warning,
    Fault,
}

impl Report {
    pub(super) fn new(file: &Path) -> Self {
        Self { ok: true, file: file.display().to_string(), findings: Vec::new() }
    }

    /// Returns whether there is no fault.
    pub(super) fn is_good(&self) -> bool {
        self.ok
    }

    pub(super) fn ok(&mut self, subject: &str, message: String) {
        self.add(Level::Ok, subject, message, None);
    }

    pub(super) fn skipped(&mut self, subject: &str, reason: &str) {
        self.add(Level::Skipped, subject, format!("not checked: {reason}"), None);
    }

    pub(super) fn warning(&mut self, subject: &str, message: String) {
        self.add(Level::Warning, subject, message, None);
    }

    pub(super) fn fault(&mut self, subject: &str, message: String) {
        self.add(Level::Fault, subject, message, None);
    }

    /// Adds a fault with the line of the settings that it is about.
    pub(super) fn fault_at(&mut self, line: u32, subject: &str, message: String) {
        self.add(Level::Fault, subject, message, Some(line));
    }

    pub(super) fn settings_fault(&mut self, fault: &Fault) {
        self.add_settings(Level::Fault, fault);
    }

    pub(super) fn settings_warning(&mut self, warning: &Fault) {
        self.add_settings(Level::Warning, warning);
    }

    fn add(&mut self, level: Level, subject: &str, message: String, line: Option<u32>) {
        self.push(Finding { level, subject: subject.to_owned(), message, line, column: None, hint: None });
    }

    fn add_settings(&mut self, level: Level, fault: &Fault) {
        self.push(Finding {
            level,
            subject: "settings".to_owned(),
            message: fault.message.clone(),
            line: fault.position.map(|position| position.line),
            column: fault.position.map(|position| position.column),
            hint: fault.hint.clone(),
        });
    }

    fn push(&mut self, finding: Finding) {
        self.ok &= finding.level != Level::Fault;
        self.findings.push(finding);
    }

    /// Returns the findings as text, with a summary in the last line.
    pub(super) fn render(&self) -> String {
        let mut table = Table::bare();
        for finding in &self.findings {
            let (mark, style) = match finding.level {
                Level::Ok => ("ok", GOOD),
                Level::Skipped => ("skipped", DIM),
                Level::Warning => ("warning", WARN),
                Level::Fault => ("fault", BAD),
            };
            let message = format!("{}{}", self.place(finding), finding.text());
            table.row(vec![Cell::new(mark, style), Cell::plain(&finding.subject), Cell::plain(&message)]);
        }
        let count = |level| self.findings.iter().filter(|finding| finding.level == level).count();
        let (faults, warnings) = (count(Level::Fault), count(Level::Warning));
        let (style, verdict) = if self.ok { (GOOD, "good") } else { (BAD, "not good") };
        let file = super::super::output::clean(&self.file);
        format!("{}\n{style}{file} is {verdict}{style:#}: faults {faults}, warnings {warnings}\n", table.render(0))
    }

    /// Returns `file:line:column: `, the notation that editors understand.
    fn place(&self, finding: &Finding) -> String {
        match (finding.line, finding.column) {
            (Some(line), Some(column)) => format!("{}:{line}:{column}: ", self.file),
            (Some(line), None) => format!("{}:{line}: ", self.file),
            (None, _) => String::new(),
        }
    }
}

impl Finding {
    fn text(&self) -> String {
        match &self.hint {
            Some(hint) => format!("{}; {hint}", self.message),
            None => self.message.clone(),
        }
    }
}
