//! Text from a Git server, for logs and error messages.

use crate::error::RemoteError;

const MAX_CHARACTERS: usize = 1000;

/// Returns the text as one line of a log: without control characters, white space as single spaces, at most 1,000
/// characters.
pub(super) fn one_line(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let clean = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>();
    let words: Vec<&str> = clean.split_whitespace().collect();
    words.join(" ").chars().take(MAX_CHARACTERS).collect()
}

/// Prefixes that Git and hosts add to each line of a message.
const LINE_PREFIXES: [&str; 3] = ["remote:", "error:", "fatal:"];

/// Lines that explain nothing: progress, and Git's repetition of the reason.
const NOISE: [&str; 7] = [
    "hook declined to update",
    "Resolving deltas:",
    "Unpacking objects:",
    "Checking connectivity",
    "Processing references:",
    "Processed ",
    "Processing changes:",
];

/// Returns the output of hooks as one line of at most 1,000 characters.
///
/// Removes prefixes such as `remote:` and `error:`, list marks, progress, empty, repeated and decorative lines, and
/// terminal colours. Lines that do not continue a sentence are separated by semicolons.
pub(super) fn hook_output(text: &[u8]) -> String {
    let text = without_escapes(&String::from_utf8_lossy(text));
    let mut lines: Vec<String> = Vec::new();
    for line in text.split(['\n', '\r']) {
        let line = one_line(message_of(line).as_bytes());
        let is_text = line.chars().any(char::is_alphanumeric);
        let is_noise = NOISE.iter().any(|noise| line.starts_with(noise));
        if is_text && !is_noise && !lines.contains(&line) {
            lines.push(line);
        }
    }
    let mut output = String::new();
    for line in lines {
        let ends_sentence = output.ends_with(['.', ',', ':', ';', '!', '?']);
        let goes_on = line.starts_with(char::is_lowercase);
        match output.as_str() {
            "" => {}
            _ if ends_sentence || goes_on => output.push(' '),
            _ => output.push_str("; "),
        }
        output.push_str(&line);
    }
    output.chars().take(MAX_CHARACTERS).collect()
}

/// Removes prefixes and list marks from a line.
fn message_of(line: &str) -> &str {
    let mut message = line.trim();
    while let Some(prefix) = LINE_PREFIXES
        .iter()
        .find(|prefix| message.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix)))
    {
        message = message[prefix.len()..].trim_start();
    }
    ["- ", "* "].iter().find_map(|mark| message.strip_prefix(mark)).unwrap_or(message)
}

/// Removes ANSI escape sequences: `ESC [`, parameters, and a final letter.
fn without_escapes(text: &str) -> String {
    let mut parts = text.split("\u{1b}[");
    let mut clean = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let mut rest = part.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';').chars();
        rest.next();
        clean.push_str(rest.as_str());
    }
    clean
}

/// Returns the permanent error that the text describes; `None` if the failure may be transient.
///
/// SSH servers report errors only as text. The phrases are those of Git, GitHub, GitLab and Gitea.
pub(super) fn permanent_error(text: &str) -> Option<RemoteError> {
    const MISSING: [&str; 5] =
        ["not found", "does not exist", "not exported", "does not appear to be a git repository", "no such repository"];
    const FORBIDDEN: [&str; 7] =
        ["permission", "read only", "read-only", "not allowed", "access denied", "unauthorized", "write access"];
    let lower = text.to_ascii_lowercase();
    let any = |phrases: &[&str]| phrases.iter().any(|phrase| lower.contains(phrase));
    if any(&MISSING) {
        Some(RemoteError::NotFound { reason: text.to_owned() })
    } else if any(&FORBIDDEN) {
        Some(RemoteError::Unauthorized { reason: text.to_owned() })
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_permanent_errors_are_recognised() {
        for text in [
            "ERROR: Repository not found. fatal: Could not read from remote repository.",
            "fatal: '/srv/x.git' does not appear to be a git repository",
        ] {
            assert!(matches!(permanent_error(text), Some(RemoteError::NotFound { .. })), "{text}");
        }
        for text in [
            "ERROR: The key you are authenticating with has been marked as read only.",
            "ERROR: Permission to uyou/config.git denied to tagrelay.",
            "remote: ERROR: This deploy key does not have write access to this project.",
            "Gitea: Unauthorized",
        ] {
            assert!(matches!(permanent_error(text), Some(RemoteError::Unauthorized { .. })), "{text}");
        }
        assert!(permanent_error("error: remote server is shutting down").is_none());
    }

    #[test]
    fn text_becomes_one_line() {
        assert_eq!(one_line(b"two\r\n\tlines \x1b[1m \xff"), "two lines [1m \u{fffd}");
        assert_eq!(one_line(&[b'x'; 5000]).len(), 1000);
    }

    /// The raw output of hosts for a rejected push.
    #[test]
    fn output_of_hosts_is_shortened_to_its_message() {
        for (output, expected) in [
            (
                "\nerror: \nerror: Not allowed to push to protected branch main\nerror: \n",
                "Not allowed to push to protected branch main",
            ),
            ("error: User permission denied for writing.\n", "User permission denied for writing."),
            (
                "\nGitea: Not allowed to push to protected branch main\n",
                "Gitea: Not allowed to push to protected branch main",
            ),
            (
                "Resolving deltas:   0% (0/3)\rResolving deltas: 100% (3/3)\rResolving deltas: 100% (3/3), completed with 3 \
                 local objects.\nerror: GH006: Protected branch update failed for refs/heads/main.\n\n- Changes must be made \
                 through a pull request.\n",
                "GH006: Protected branch update failed for refs/heads/main. Changes must be made through a pull request.",
            ),
            (
                "error: GH006: Protected branch update failed for refs/heads/main.\nerror: Required status check \"ci\" is \
                 expected.\n",
                "GH006: Protected branch update failed for refs/heads/main. Required status check \"ci\" is expected.",
            ),
            (
                "error: GH013: Repository rule violations found for refs/heads/main.\nReview all repository rules at \
                 https://github.com/uyou/config/rules?ref=refs%2Fheads%2Fmain\n\n- Changes must be made through a pull \
                 request.\n\n- Commits must have verified signatures.\n  Found 1 violation:\n\n",
                "GH013: Repository rule violations found for refs/heads/main. Review all repository rules at \
                 https://github.com/uyou/config/rules?ref=refs%2Fheads%2Fmain; Changes must be made through a pull \
                 request. Commits must have verified signatures. Found 1 violation:",
            ),
            (
                "GitLab: You are not allowed to push code to protected branches on this project.\n",
                "GitLab: You are not allowed to push code to protected branches on this project.",
            ),
            (
                "\n========================================================================\n\nERROR: You are not allowed to \
                 push code to protected branches on this project.\n\n\
                 ========================================================================\n\n",
                "You are not allowed to push code to protected branches on this project.",
            ),
            // Bitbucket Cloud and Data Center
            ("Permission denied to update branch main.\n", "Permission denied to update branch main."),
            (
                "\n-------------------------------------------------------------------------\nBranch refs/heads/main can only be \
                 modified through pull requests.\nCheck your branch permissions configuration with the project \
                 administrator.\n-------------------------------------------------------------------------\n\n",
                "Branch refs/heads/main can only be modified through pull requests. Check your branch permissions configuration \
                 with the project administrator.",
            ),
            // Hooks
            ("not on a Friday\nerror: hook declined to update refs/heads/main\n", "not on a Friday"),
            ("remote: no deployments\nremote: on Fridays\nno deployments\n", "no deployments on Fridays"),
            ("\u{1b}[31mPolicy violated\u{1b}[0m\nAsk the platform team\n", "Policy violated; Ask the platform team"),
            ("*** \n###\n", ""),
        ] {
            assert_eq!(hook_output(output.as_bytes()), expected);
        }
    }

    #[test]
    fn long_output_is_cut() {
        let output: String = (0..400).map(|number| format!("line {number}\n")).collect();
        let cut = hook_output(output.as_bytes());
        assert!(cut.starts_with("line 0 line 1") && cut.chars().count() == MAX_CHARACTERS, "{cut}");
    }
}
