//! Templates for the subject and the body of commit messages.

use minijinja::value::Serde;
use minijinja::{Environment, ErrorKind, UndefinedBehavior, Value};
use serde::Serialize;

/// The most instructions of a template: some hundred for each update of the largest batch.
const FUEL: u64 = 1_000_000;

/// A template of the subject or the body of a commit message, in the language of Jinja
/// (<https://docs.rs/minijinja/latest/minijinja/syntax/>).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageTemplate(String);

/// Why a template cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidTemplate(String);

/// The variables of a template.
#[derive(Debug, Clone, Serialize)]
pub struct Fields {
    /// The environments, joined with commas.
    pub environment: String,
    pub environments: Vec<String>,
    /// The default subject without the environment.
    pub summary: String,
    pub changes: Vec<ChangeFields>,
}

/// One changed image in one environment.
#[derive(Debug, Clone, Serialize)]
pub struct ChangeFields {
    pub environment: String,
    pub repository: String,
    /// The last part of the repository.
    pub name: String,
    /// The tag before, or the digest if there was no tag.
    pub old: String,
    pub old_short: String,
    pub new: String,
    pub new_short: String,
    /// The new digest; empty if it is not known.
    pub digest: String,
    /// `push`, `catch-up`, `promotion` or `rollback`.
    pub cause: String,
    pub cause_id: String,
    /// The receiver, or the name of the API token.
    pub actor: String,
    /// The reason of the promotion or rollback; empty for events.
    pub reason: String,
    pub files: Vec<String>,
}

impl MessageTemplate {
    /// Checks that a template renders with one change and with several.
    ///
    /// # Errors
    ///
    /// Why it does not, or that its result is empty.
    pub fn new(source: &str) -> Result<Self, InvalidTemplate> {
        let template = Self(source.to_owned());
        for fields in [Fields::sample(1), Fields::sample(2)] {
            let text = template.render(&fields)?;
            if text.trim().is_empty() {
                return Err(InvalidTemplate("it is empty".to_owned()));
            }
        }
        Ok(template)
    }

    pub fn render(&self, fields: &Fields) -> Result<String, InvalidTemplate> {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_fuel(Some(FUEL));
        let context = Value::from(Serde(fields));
        environment.render_str(&self.0, context).map_err(|error| describe(&error))
    }
}

fn describe(error: &minijinja::Error) -> InvalidTemplate {
    let mut reason = match error.kind() {
        ErrorKind::UndefinedError => "it uses an unknown name".to_owned(),
        ErrorKind::OutOfFuel => "it takes too long".to_owned(),
        kind => kind.to_string(),
    };
    if let Some(detail) = error.detail() {
        reason.push_str(&format!(" ({detail})"));
    }
    if let Some(line) = error.line() {
        reason.push_str(&format!(", in its line {line}"));
    }
    InvalidTemplate(reason)
}

impl Fields {
    fn sample(changes: usize) -> Self {
        let change = ChangeFields {
            environment: "staging".to_owned(),
            repository: "docker.io/uyou/user-service".to_owned(),
            name: "user-service".to_owned(),
            old: "1a2b3c4d".to_owned(),
            old_short: "1a2b3c4".to_owned(),
            new: "9f8e7d6c".to_owned(),
            new_short: "9f8e7d6".to_owned(),
            digest: String::new(),
            cause: "push".to_owned(),
            cause_id: "01J".to_owned(),
            actor: "hub".to_owned(),
            reason: String::new(),
            files: vec!["environments/staging/user-service/deployment.yaml".to_owned()],
        };
        Self {
            environment: "staging".to_owned(),
            environments: vec!["staging".to_owned()],
            summary: "user-service 1a2b3c4 -> 9f8e7d6".to_owned(),
            changes: vec![change; changes],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_that_cannot_be_used_are_refused_at_once() {
        for (source, complaint) in [
            ("{{ enviroment }}", "uses an unknown name"),
            ("{% for change in changes %}{{ change.tag }}{% endfor %}", "uses an unknown name"),
            ("{% if %}", "syntax error"),
            ("{{ summary", "syntax error"),
            ("{% for a in range(100000) %}{% for b in range(100000) %}x{% endfor %}{% endfor %}", "too long"),
            ("{# nothing #} ", "is empty"),
        ] {
            let error = MessageTemplate::new(source).unwrap_err().to_string();
            assert!(error.contains(complaint), "{source}: {error}");
        }
    }

    #[test]
    fn templates_see_every_change() {
        let source = "{{ environment }}: {{ changes | length }} {% for c in changes %}[{{ c.name }} {{ c.old_short }} \
                      {{ c.new }} {{ c.files | join(',') }}]{% endfor %}";
        let text = MessageTemplate::new(source).unwrap().render(&Fields::sample(2)).unwrap();
        let one = "[user-service 1a2b3c4 9f8e7d6c environments/staging/user-service/deployment.yaml]";
        assert_eq!(text, format!("staging: 2 {one}{one}"));
    }
}
