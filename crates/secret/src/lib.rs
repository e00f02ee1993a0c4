//! Secrets and their redaction.
//!
//! A room that needs a credential holds a [`Secret`] and reveals its text only for the time of use. A file is read at each
//! use, so a rotated Kubernetes secret needs no restart.

#![warn(unreachable_pub)]

mod redact;

use std::path::PathBuf;

use secrecy::SecretString;

pub use redact::Redaction;
pub use secrecy::ExposeSecret;

/// A secret, identified by its source. `Debug` shows the source and never the text.
#[derive(Clone)]
pub struct Secret(Source);

#[derive(Clone)]
enum Source {
    /// Read from the environment once, when the settings were read.
    Environment { name: String, text: SecretString },
    /// Read from the file at each use.
    File(PathBuf),
    /// Written in the settings, for local trials.
    Inline(SecretString),
}

/// Why a secret cannot be read. The message names the source and never quotes the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// The environment variable does not exist.
    #[error("the environment variable {0} is not set: set it for the process, or name another one")]
    NotSet(String),
    /// The variable's value is not UTF-8.
    #[error("the environment variable {0} is not valid UTF-8")]
    NotText(String),
    /// The file cannot be read.
    #[error("the secret file {path} cannot be read: {reason}")]
    Unreadable {
        /// The file as named in the settings.
        path: PathBuf,
        /// The operating system's error.
        reason: String,
    },
    /// The text is empty. An HMAC with an empty key would protect nothing.
    #[error("the secret from {0} is empty")]
    Empty(String),
}

impl Secret {
    /// Reads the secret in the environment variable `name`.
    ///
    /// # Errors
    ///
    /// [`SecretError::NotSet`], [`SecretError::NotText`] or [`SecretError::Empty`].
    pub fn from_environment(name: &str) -> Result<Self, SecretError> {
        Self::from_lookup(name, &|name| std::env::var(name))
    }

    /// Reads the secret in the variable `name` with a lookup function.
    ///
    /// # Errors
    ///
    /// The errors of [`from_environment`](Self::from_environment).
    pub fn from_lookup(
        name: &str,
        lookup: &dyn Fn(&str) -> Result<String, std::env::VarError>,
    ) -> Result<Self, SecretError> {
        match lookup(name) {
            Ok(text) if text.is_empty() => Err(SecretError::Empty(format!("the environment variable {name}"))),
            Ok(text) => Ok(Self(Source::Environment { name: name.to_owned(), text: text.into() })),
            Err(std::env::VarError::NotPresent) => Err(SecretError::NotSet(name.to_owned())),
            Err(std::env::VarError::NotUnicode(_)) => Err(SecretError::NotText(name.to_owned())),
        }
    }

    /// Creates the secret in the file `path`. Reads the file once to report errors early.
    ///
    /// # Errors
    ///
    /// [`SecretError::Unreadable`] or [`SecretError::Empty`].
    pub fn from_file(path: impl Into<PathBuf>) -> Result<Self, SecretError> {
        let secret = Self(Source::File(path.into()));
        secret.reveal()?;
        Ok(secret)
    }

    /// Creates a secret from its text.
    ///
    /// # Errors
    ///
    /// [`SecretError::Empty`].
    pub fn inline(text: impl Into<SecretString>) -> Result<Self, SecretError> {
        let text = text.into();
        if text.expose_secret().is_empty() {
            return Err(SecretError::Empty("the settings".to_owned()));
        }
        Ok(Self(Source::Inline(text)))
    }

    /// Returns the current text, without newlines at the end of a file.
    ///
    /// May be called on an async thread, because the file is small, and mounted secrets are in memory.
    ///
    /// # Errors
    ///
    /// [`SecretError::Unreadable`] or [`SecretError::Empty`] if the file has changed.
    pub fn reveal(&self) -> Result<SecretString, SecretError> {
        match &self.0 {
            Source::Environment { text, .. } | Source::Inline(text) => Ok(text.clone()),
            Source::File(path) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|error| SecretError::Unreadable { path: path.clone(), reason: error.to_string() })?;
                let trimmed = text.trim_end_matches(['\r', '\n']);
                if trimmed.is_empty() {
                    return Err(SecretError::Empty(path.display().to_string()));
                }
                Ok(trimmed.to_owned().into())
            }
        }
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            Source::Environment { name, .. } => write!(f, "Secret(env {name})"),
            Source::File(path) => write!(f, "Secret(file {})", path.display()),
            Source::Inline(_) => f.write_str("Secret(inline)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_is_read_at_each_use_without_trailing_newlines() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, "one\r\n").unwrap();
        let secret = Secret::from_file(&path).unwrap();
        assert_eq!(secret.reveal().unwrap().expose_secret(), "one");
        std::fs::write(&path, "two").unwrap();
        assert_eq!(secret.reveal().unwrap().expose_secret(), "two");
        std::fs::write(&path, "\n").unwrap();
        assert!(matches!(secret.reveal(), Err(SecretError::Empty(_))));
    }

    #[test]
    fn variable_is_read_with_the_lookup_function() {
        let lookup = |name: &str| match name {
            "TOKEN" => Ok("one".to_owned()),
            "EMPTY" => Ok(String::new()),
            _ => Err(std::env::VarError::NotPresent),
        };
        let secret = Secret::from_lookup("TOKEN", &lookup).unwrap();
        assert_eq!(secret.reveal().unwrap().expose_secret(), "one");
        assert_eq!(format!("{secret:?}"), "Secret(env TOKEN)");
        assert!(matches!(Secret::from_lookup("EMPTY", &lookup), Err(SecretError::Empty(_))));
        assert!(matches!(Secret::from_lookup("OTHER", &lookup), Err(SecretError::NotSet(_))));
    }

    #[test]
    fn debug_omits_the_text() {
        let secret = Secret::inline("hunter2".to_owned()).unwrap();
        assert_eq!(format!("{secret:?}"), "Secret(inline)");
    }

    #[test]
    fn missing_and_empty_secrets_are_refused() {
        assert_eq!(
            Secret::from_environment("TAGRELAY_NO_SUCH_VARIABLE").unwrap_err().to_string(),
            "the environment variable TAGRELAY_NO_SUCH_VARIABLE is not set: set it for the process, or name another one"
        );
        assert!(matches!(Secret::from_file("/no/such/file"), Err(SecretError::Unreadable { .. })));
        assert!(matches!(Secret::inline(String::new()), Err(SecretError::Empty(_))));
    }
}
