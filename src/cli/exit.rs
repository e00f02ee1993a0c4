//! Exit codes. They are a contract: scripts rely on them.

/// Done, or there was nothing to do.
pub(super) const DONE: u8 = 0;
/// Refused, with the reason.
pub(super) const REFUSED: u8 = 1;
/// Invalid arguments.
pub(super) const USAGE: u8 = 2;
/// Still waiting, or the time to wait is over.
pub(super) const WAITING: u8 = 3;
/// The server cannot be reached, or refused the credential.
pub(super) const UNREACHABLE: u8 = 4;
/// A part was done, and a part was not.
pub(super) const PARTLY: u8 = 5;

/// Joins the codes of several steps.
pub(super) fn join(codes: impl IntoIterator<Item = u8>) -> u8 {
    let codes: Vec<u8> = codes.into_iter().collect();
    match codes.split_first() {
        None => DONE,
        Some((first, rest)) if rest.iter().all(|code| code == first) => *first,
        Some(_) if codes.contains(&DONE) || codes.contains(&PARTLY) => PARTLY,
        Some(_) => codes.into_iter().min().unwrap_or(REFUSED),
    }
}

/// An error in the arguments.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(super) struct Usage {
    message: String,
}

/// Returns an error about the arguments.
pub(super) fn usage(message: impl Into<String>) -> anyhow::Error {
    Usage { message: message.into() }.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_several_steps_are_joined() {
        assert_eq!(join([]), DONE);
        assert_eq!(join([DONE, DONE]), DONE);
        assert_eq!(join([REFUSED, REFUSED]), REFUSED);
        assert_eq!(join([WAITING, WAITING]), WAITING);
        assert_eq!(join([DONE, REFUSED]), PARTLY);
        assert_eq!(join([PARTLY, REFUSED]), PARTLY);
        assert_eq!(join([REFUSED, WAITING]), REFUSED);
    }
}
