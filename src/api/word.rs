use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

use crate::domain::{Cause, EventState, RequestKind, RequestState, UpdateState};
use crate::store::RolloutState;

/// A closed list of words that stand for the values of `Self` on the wire.
pub trait Words: Copy + PartialEq + 'static {
    /// Every value, in the order of the lists in the documentation.
    fn all() -> &'static [Self];

    /// Returns the word of a value.
    fn word(self) -> &'static str;
}

/// A word on the wire: a value of `T`, or an unknown word from a newer server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Word<T> {
    /// A value that this version knows.
    Known(T),
    /// Any other word.
    Other(String),
}

impl<T: Words> Word<T> {
    /// Reads a word. An unknown word is kept as it is.
    pub fn read(word: &str) -> Self {
        let known = T::all().iter().find(|value| value.word() == word);
        known.map_or_else(|| Self::Other(word.to_owned()), |value| Self::Known(*value))
    }

    /// Returns the word as it is written.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Known(value) => value.word(),
            Self::Other(word) => word,
        }
    }
}

impl<T> From<T> for Word<T> {
    fn from(value: T) -> Self {
        Self::Known(value)
    }
}

impl<T: Words> PartialEq<T> for Word<T> {
    fn eq(&self, other: &T) -> bool {
        matches!(self, Self::Known(value) if value == other)
    }
}

impl<T: Words> fmt::Display for Word<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl<T: Words> Serialize for Word<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de, T: Words> Deserialize<'de> for Word<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<'de, str>::deserialize(deserializer).map(|word| Self::read(&word))
    }
}

/// Makes enums usable as a [`Word`], and lists their words in the OpenAPI document.
macro_rules! words {
    ($($name:ident),* $(,)?) => {$(
        impl Words for $name {
            fn all() -> &'static [Self] {
                Self::ALL
            }

            fn word(self) -> &'static str {
                self.as_str()
            }
        }

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                let words = Self::ALL.iter().map(|value| value.as_str());
                ObjectBuilder::new().schema_type(Type::String).enum_values(Some(words)).into()
            }
        }

        impl ToSchema for $name {}
    )*};
}

words!(Cause, EventState, RolloutState, RequestKind, RequestState, UpdateState);
words!(DeliveryState, DiffState, Direction, FreezeKind, HealthState, PreviewState);

/// Defines an enum of words that are used only on the wire.
macro_rules! wire_words {
    ($($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $word:literal,)* })*) => {$(
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($(#[$doc])* $variant,)* }

        impl $name {
            /// Every value.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// Returns the word on the wire.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }
    )*};
}

wire_words! {
    /// Whether a delivery made a new event.
    DeliveryState {
        Queued = "queued",
        /// The delivery repeats an earlier one. The answer names the event of the earlier delivery.
        Duplicate = "duplicate",
    }

    /// The effect of a promotion on a repository.
    DiffState {
        /// The repository would get the new version.
        Moves = "moves",
        /// Both environments run the same version.
        Same = "same",
        /// The repository would stay as it is, with a reason.
        Skipped = "skipped",
    }

    /// The order of a version and the version that it would replace.
    Direction {
        Newer = "newer",
        Older = "older",
        /// No known criterion orders the two.
        Unknown = "unknown",
    }

    /// The origin of a freeze.
    FreezeKind {
        /// The settings.
        Window = "window",
        /// The API.
        Freeze = "freeze",
    }

    /// The health of an environment in Argo CD.
    HealthState {
        /// Every application is Synced and Healthy.
        Healthy = "healthy",
        Unhealthy = "unhealthy",
    }

    /// The effect of a promotion or rollback on one repository.
    PreviewState {
        /// The manifests of the repository would change.
        Changed = "changed",
        /// The manifests of the repository would change when a freeze ends.
        Waiting = "waiting",
        /// The environment runs the version already.
        Unchanged = "unchanged",
        Refused = "refused",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_reads_back_as_its_value() {
        for state in EventState::ALL {
            let json = serde_json::to_string(&Word::from(*state)).unwrap();
            assert_eq!(json, format!("\"{}\"", state.as_str()));
            assert_eq!(serde_json::from_str::<Word<EventState>>(&json).unwrap(), *state);
        }
    }

    #[test]
    fn word_of_newer_server_is_kept() {
        let word: Word<RequestState> = serde_json::from_str("\"on-the-moon\"").unwrap();
        assert_eq!(word, Word::Other("on-the-moon".to_owned()));
        assert_eq!(serde_json::to_string(&word).unwrap(), "\"on-the-moon\"");
    }

    /// Checks the lists of words in the documentation.
    ///
    /// A list of the words of the enum NAME is between `<!-- words: NAME -->` and `<!-- /words -->`. With `NAME, final` it contains
    /// only final words. Of a table, the first column counts.
    #[test]
    fn lists_of_words_in_the_documentation_are_complete() {
        let lists = [
            ("Cause", words_of(Cause::ALL)),
            ("EventState", words_of(EventState::ALL)),
            ("RolloutState", words_of(RolloutState::ALL)),
            ("RequestState", words_of(RequestState::ALL)),
            ("UpdateState", words_of(UpdateState::ALL)),
        ];
        let mut seen = std::collections::BTreeSet::new();
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let pages = std::fs::read_dir(folder.join("docs")).unwrap().map(|entry| entry.unwrap().path());
        for page in pages.chain([folder.join("README.md")]).filter(|page| page.extension() == Some("md".as_ref())) {
            let text = std::fs::read_to_string(&page).unwrap();
            for part in text.split("<!-- words: ").skip(1) {
                let (name, rest) = part.split_once(" -->").unwrap();
                let (listed, _) = rest.split_once("<!-- /words -->").unwrap();
                let (name, is_final) = name.strip_suffix(", final").map_or((name, false), |name| (name, true));
                let (name, words) = lists.iter().find(|(known, _)| *known == name).unwrap();
                let open = ["queued", "unverified", "pending", "waiting", "following"];
                let expected: Vec<&str> =
                    words.iter().copied().filter(|word| !is_final || !open.contains(word)).collect();
                let mut listed = backticked(listed);
                listed.sort_by_key(|word| expected.iter().position(|known| known == word));
                assert_eq!(listed, expected, "{name} in {}", page.display());
                seen.insert(*name);
            }
        }
        assert_eq!(seen.len(), lists.len(), "only {seen:?} are listed");
    }

    fn words_of<T: Words>(values: &[T]) -> Vec<&'static str> {
        values.iter().map(|value| value.word()).collect()
    }

    fn backticked(text: &str) -> Vec<&str> {
        let cells = text.lines().map(|line| match line.strip_prefix('|') {
            // Without the heading.
            Some(row) if row.trim_start().starts_with('`') && !row.contains("meaning") => {
                row.split('|').next().unwrap_or_default()
            }
            Some(_) => "",
            None => line,
        });
        cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect()
    }
}
