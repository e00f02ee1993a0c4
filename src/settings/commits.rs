//! The keys of `[[config_repository]]` that concern commits.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::nearest::hint;
use super::pipeline::{MessageSettings, WritingSettings};
use super::reader::Section;
use super::template::MessageTemplate;
use super::{duration, keys};
use crate::config_repo::{CommitSettings, Grouping, Identity, SignatureFormat, Signer};

/// No update should be delayed by more than a minute.
const QUIET_PERIODS: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(60);

const SIGNING_EXAMPLE: &str = "{ format = \"ssh\", key = { file = \"/run/secrets/signing-key\" } }";
const MESSAGE_EXAMPLE: &str = "{ subject = \"deploy({{ environment }}): {{ summary }}\" }";

const FORMATS: [(&str, SignatureFormat); 2] = [("ssh", SignatureFormat::Ssh), ("openpgp", SignatureFormat::OpenPgp)];
const GROUPINGS: [(&str, Grouping); 2] = [("per-environment", Grouping::PerEnvironment), ("single", Grouping::Single)];

/// Reads author, committer, signature and grouping.
pub(super) fn read(section: Section<'_>) -> Option<CommitSettings> {
    let usual = CommitSettings::default();
    let author = read_person(section, "author");
    let committer = read_person(section, "committer");
    let grouping = read_word(section, "commit", &GROUPINGS);
    let signer = read_signer(section);
    let is_whole = |key: &str, found: bool| found || !section.has(key);
    let whole = is_whole("author", author.is_some()) && is_whole("committer", committer.is_some());
    (whole && is_whole("commit", grouping.is_some()) && is_whole("signing", signer.is_some())).then(|| CommitSettings {
        author: author.unwrap_or(usual.author),
        committer,
        grouping: grouping.unwrap_or(usual.grouping),
        signer,
    })
}

/// Reads the quiet period and the message. `commits` provides the name to sign off with; `None`: it has a fault.
pub(super) fn read_writing(section: Section<'_>, commits: Option<&CommitSettings>) -> WritingSettings {
    let signs_off = section.boolean("signed_off_by").is_some_and(|signs_off| signs_off.value);
    let message = section.table("message", &keys::MESSAGE, MESSAGE_EXAMPLE);
    let template = |key: &str| message.and_then(|message| read_template(message, key));
    WritingSettings {
        quiet_period: duration::read(section, "quiet_period", QUIET_PERIODS).unwrap_or_default(),
        message: MessageSettings {
            subject: template("subject"),
            body: template("body"),
            signed_off_by: commits.filter(|_| signs_off).map(|commits| commits.committer().clone()),
        },
    }
}

fn read_template(message: Section<'_>, key: &str) -> Option<MessageTemplate> {
    let text = message.text(key)?;
    match MessageTemplate::new(text.value) {
        Ok(template) => Some(template),
        Err(error) => {
            let hint = "docs/settings.md lists the names for templates".to_owned();
            message.report().fault_with_hint(text.offset, format!("`{key}` of `message`: {error}"), hint);
            None
        }
    }
}

/// Returns the signing key, loaded and unlocked.
fn read_signer(section: Section<'_>) -> Option<Signer> {
    let signing = section.table("signing", &keys::SIGNING, SIGNING_EXAMPLE)?;
    if !signing.has("format") {
        let message = "`format` is missing in `signing` of [[config_repository]]";
        signing.report().fault_with_hint(signing.offset, message, "write format = \"ssh\"".to_owned());
    }
    let format = read_word(signing, "format", &FORMATS);
    let key = signing.required_secret("key", "it is the key to sign with");
    let passphrase = signing.secret("passphrase");
    let passphrase = if signing.has("passphrase") { Some(passphrase?) } else { None };
    match Signer::new(format?, key?, passphrase) {
        Ok(signer) => Some(signer),
        Err(error) => {
            signing.report().fault(signing.offset_of("key"), format!("`signing`: {error}"));
            None
        }
    }
}

/// Returns the value of one of `words`.
fn read_word<T: Copy>(section: Section<'_>, key: &str, words: &[(&str, T)]) -> Option<T> {
    let text = section.text(key)?;
    if let Some((_, meaning)) = words.iter().find(|(word, _)| *word == text.value) {
        return Some(*meaning);
    }
    let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
    let shown = text.value.escape_debug();
    let message = format!("`{key}`: unknown value `{shown}`");
    section.report().fault_with_hint(text.offset, message, hint(text.value, known));
    None
}

fn read_person(section: Section<'_>, key: &str) -> Option<Identity> {
    let text = section.text(key)?;
    let person = parse_person(text.value);
    if person.is_none() {
        let message = format!("`{key}`: `{}` is not a name and an address", text.value.escape_debug());
        let hint = "write \"Tagrelay <tagrelay@example.com>\"".to_owned();
        section.report().fault_with_hint(text.offset, message, hint);
    }
    person
}

/// Parses `Name <address>`. Git accepts any name and address without `<`, `>` and control characters; here neither may
/// be empty.
fn parse_person(text: &str) -> Option<Identity> {
    let (name, rest) = text.split_once('<')?;
    let (name, email) = (name.trim(), rest.strip_suffix('>')?);
    let clean = |part: &str| !part.is_empty() && !part.contains(['<', '>']);
    let one_line = !text.contains(char::is_control);
    let is_person = one_line && clean(name) && clean(email) && !email.contains(char::is_whitespace);
    is_person.then(|| Identity { name: name.to_owned(), email: email.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_have_a_name_and_an_address() {
        let person = parse_person("Tag Relay  <tagrelay@example.com>").unwrap();
        assert_eq!((person.name.as_str(), person.email.as_str()), ("Tag Relay", "tagrelay@example.com"));
        for text in
            ["Tagrelay", "<a@b>", "Tagrelay <>", "Tagrelay <a@b", "T <a@b> x", "T <a<b>", "T\n <a@b>", "T <a b>"]
        {
            assert_eq!(parse_person(text), None, "{text}");
        }
    }
}
