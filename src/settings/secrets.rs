use super::keys;
use super::reader::Section;
use tagrelay_secret::{Secret, SecretError};

const EXAMPLE: &str = "{ env = \"NAME\" } or { file = \"/run/secrets/name\" }";

impl Section<'_> {
    /// Returns the secret that the table under `key` describes, after reading it once.
    pub(super) fn secret(&self, key: &str) -> Option<Secret> {
        let table = self.table(key, &keys::SECRET, EXAMPLE)?;
        let given: Vec<&str> = keys::SECRET.keys.iter().copied().filter(|name| table.has(name)).collect();
        let &[place] = given.as_slice() else {
            let message = match given.len() {
                0 => format!("`{key}` names no source of the secret"),
                count => format!("`{key}` names {count} sources of the secret instead of one"),
            };
            self.report().fault_with_hint(table.offset, message, format!("write {EXAMPLE}"));
            return None;
        };
        let text = table.text(place)?;
        let secret = match place {
            "env" => Secret::from_lookup(text.value, self.context.environment),
            "file" => Secret::from_file(text.value),
            _ => Secret::inline(text.value.to_owned()),
        };
        match secret {
            Ok(secret) => Some(secret),
            Err(error) => {
                self.report().fault(text.offset, format!("`{key}`: {}", describe(&error)));
                None
            }
        }
    }

    /// Returns a required secret; `why` explains in the message why it is needed.
    pub(super) fn required_secret(&self, key: &str, why: &str) -> Option<Secret> {
        if !self.has(key) {
            let message = format!("`{key}` is missing in {}: {why}", self.section_name());
            self.report().fault_with_hint(self.offset, message, format!("write {key} = {EXAMPLE}"));
        }
        self.secret(key)
    }
}

/// Returns the message of an error. It omits the name or path if that may be the secret itself under the wrong key.
fn describe(error: &SecretError) -> String {
    match error {
        SecretError::NotSet(name) if !looks_like_variable(name) => {
            "`env` names no variable of the environment (names are capital letters, digits and `_`)".to_owned()
        }
        SecretError::Unreadable { path, reason } if !looks_like_path(&path.to_string_lossy()) => {
            format!("the secret file cannot be read: {reason}")
        }
        _ => error.to_string(),
    }
}

fn looks_like_variable(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
}

fn looks_like_path(path: &str) -> bool {
    ["/", "./", "../"].iter().any(|start| path.starts_with(start))
}
