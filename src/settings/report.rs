use std::cell::RefCell;

use super::{Fault, Faults, Position};

/// A value with its byte offset in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) offset: usize,
}

impl<T> At<T> {
    pub(super) fn map<U>(self, change: impl FnOnce(T) -> U) -> At<U> {
        At { value: change(self.value), offset: self.offset }
    }
}

/// Collects faults and warnings while the settings are read, so that all are reported together.
pub(super) struct Report<'a> {
    file: &'a str,
    text: &'a str,
    faults: RefCell<Vec<Fault>>,
    warnings: RefCell<Vec<Fault>>,
}

impl<'a> Report<'a> {
    pub(super) fn new(file: &'a str, text: &'a str) -> Self {
        Self { file, text, faults: RefCell::default(), warnings: RefCell::default() }
    }

    pub(super) fn position(&self, offset: usize) -> Position {
        let before = self.text.get(..offset).unwrap_or(self.text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or(before).chars().filter(|c| *c != '\u{feff}').count() + 1;
        Position { line: count(line), column: count(column) }
    }

    pub(super) fn line(&self, offset: usize) -> u32 {
        self.position(offset).line
    }

    /// Returns the name and the line of a header `[name]` before the header `[[name]]` at an offset; `None`: there is none.
    pub(super) fn table_before_list(&self, offset: usize) -> Option<(&'a str, usize)> {
        let index = self.line(offset) as usize - 1;
        let name = self.text.lines().nth(index)?.trim_start().strip_prefix("[[")?.split(']').next()?;
        let is_table =
            |line: &str| line.trim_start().strip_prefix('[').and_then(|rest| rest.split(']').next()) == Some(name);
        let table = self.text.lines().take(index).position(is_table)?;
        Some((name, table + 1))
    }

    /// Reports a fault at an offset.
    pub(super) fn fault(&self, offset: usize, message: impl Into<String>) {
        self.push(Some(offset), message.into(), None);
    }

    /// Reports a fault at an offset, with a hint what to write instead.
    pub(super) fn fault_with_hint(&self, offset: usize, message: impl Into<String>, hint: impl Into<Option<String>>) {
        self.push(Some(offset), message.into(), hint.into());
    }

    /// Reports a fault of the file as a whole.
    pub(super) fn fault_of_file(&self, message: impl Into<String>, hint: impl Into<Option<String>>) {
        self.push(None, message.into(), hint.into());
    }

    /// Reports a valid but doubtful setting.
    pub(super) fn warning(&self, offset: usize, message: impl Into<String>, hint: impl Into<Option<String>>) {
        let warning = self.make(Some(offset), message.into(), hint.into());
        self.warnings.borrow_mut().push(warning);
    }

    fn push(&self, offset: Option<usize>, message: String, hint: Option<String>) {
        let fault = self.make(offset, message, hint);
        self.faults.borrow_mut().push(fault);
    }

    fn make(&self, offset: Option<usize>, message: String, hint: Option<String>) -> Fault {
        let position = offset.map(|offset| self.position(offset));
        Fault { file: self.file.to_owned(), position, message, hint }
    }

    pub(super) fn is_clean(&self) -> bool {
        self.faults.borrow().is_empty()
    }

    /// Returns the warnings, or the faults if there are any, in the order of the file.
    pub(super) fn finish(self) -> Result<Vec<Fault>, Faults> {
        if self.is_clean() { Ok(in_order(self.warnings.into_inner())) } else { Err(self.into_faults()) }
    }

    /// Returns the faults in the order of the file. The caller has reported at least one.
    pub(super) fn into_faults(self) -> Faults {
        Faults(in_order(self.faults.into_inner()))
    }
}

/// Sorts by position. Faults of the file as a whole come last.
fn in_order(mut faults: Vec<Fault>) -> Vec<Fault> {
    faults.sort_by_key(|fault| (fault.position.is_none(), fault.position));
    faults
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
