//! Names in requests: whole names, last components and globs, and the nearest names for an error.

use globset::{GlobBuilder, GlobMatcher};

use super::RequestError;
use crate::settings::nearest_names;
use tagrelay_image::Repository;

/// How many names an error lists.
const LISTED: usize = 3;

/// Names and globs, separated by commas. Without any, everything matches.
#[derive(Debug, Clone, Default)]
pub struct Names(Vec<Name>);

#[derive(Debug, Clone)]
struct Name {
    text: String,
    kind: Kind,
}

#[derive(Debug, Clone)]
enum Kind {
    Word,
    Glob(GlobMatcher),
}

impl Names {
    /// Reads names and globs.
    ///
    /// # Errors
    ///
    /// If a glob is invalid.
    pub fn read(text: Option<&str>) -> Result<Self, RequestError> {
        let names = text.unwrap_or_default().split(',').map(str::trim).filter(|name| !name.is_empty());
        names.map(Name::read).collect::<Result<_, _>>().map(Self)
    }

    /// Whether everything matches.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether an environment is selected.
    pub fn has_environment(&self, name: &str) -> bool {
        self.0.is_empty() || self.0.iter().any(|wanted| wanted.is(name))
    }

    /// Whether a repository is selected: by its whole name, its last component, or a glob over either.
    pub fn has_repository(&self, repository: &Repository) -> bool {
        self.0.is_empty() || self.0.iter().any(|wanted| wanted.is_repository(repository))
    }

    /// Checks that each name and glob selects one of the environments.
    ///
    /// # Errors
    ///
    /// With the nearest environments.
    pub(super) fn check_environments<'a>(
        &self,
        known: impl Iterator<Item = &'a str> + Clone,
    ) -> Result<(), RequestError> {
        match self.0.iter().find(|wanted| !known.clone().any(|name| wanted.is(name))) {
            None => Ok(()),
            Some(unknown) => Err(unknown_environment(&unknown.text, known)),
        }
    }

    /// Checks that each name and glob selects one of the repositories. `place` says which ones these are.
    ///
    /// # Errors
    ///
    /// With the nearest repositories.
    pub(super) fn check_repositories<'a>(
        &self,
        place: &str,
        known: impl Iterator<Item = &'a Repository> + Clone,
    ) -> Result<(), RequestError> {
        match self.0.iter().find(|wanted| !known.clone().any(|repository| wanted.is_repository(repository))) {
            None => Ok(()),
            Some(unknown) => Err(unknown_repository(place, &unknown.text, known)),
        }
    }
}

impl Name {
    fn read(text: &str) -> Result<Self, RequestError> {
        let kind = if text.contains(['*', '?', '[', '{']) {
            let glob = GlobBuilder::new(text).literal_separator(true).build();
            Kind::Glob(glob.map_err(|_| RequestError::BadGlob(text.to_owned()))?.compile_matcher())
        } else {
            Kind::Word
        };
        Ok(Self { text: text.to_owned(), kind })
    }

    fn is(&self, name: &str) -> bool {
        match &self.kind {
            Kind::Word => self.text == name,
            Kind::Glob(glob) => glob.is_match(name),
        }
    }

    fn is_repository(&self, repository: &Repository) -> bool {
        let is_whole = || match &self.kind {
            Kind::Word if self.text.contains('/') => {
                self.text.parse::<Repository>().is_ok_and(|named| named == *repository)
            }
            Kind::Word | Kind::Glob(_) => false,
        };
        self.is(repository.as_str()) || self.is(repository.name()) || is_whole()
    }
}

/// Returns the error of an unknown environment.
pub(super) fn unknown_environment<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> RequestError {
    RequestError::UnknownEnvironment { name: name.to_owned(), known: listed(name, known) }
}

/// Returns the error of an unknown repository.
pub(super) fn unknown_repository<'a>(
    place: &str,
    name: &str,
    known: impl Iterator<Item = &'a Repository>,
) -> RequestError {
    RequestError::UnknownRepository {
        environment: place.to_owned(),
        repository: name.to_owned(),
        known: listed(name, known.map(Repository::as_str)),
    }
}

/// Lists a few known names: all, or the nearest and the number of the others.
fn listed<'a>(text: &str, known: impl Iterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.collect();
    match known.len() {
        0 => "none".to_owned(),
        1..=LISTED => known.join(", "),
        count => {
            let nearest = nearest_names(text, known.iter().copied(), LISTED);
            format!("{} and {} more", nearest.join(", "), count - nearest.len())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository(name: &str) -> Repository {
        name.parse().unwrap()
    }

    #[test]
    fn repository_is_selected_by_whole_name_last_component_or_glob() {
        let user = repository("docker.io/uyou/user-service");
        for (names, is_selected) in [
            ("", true),
            ("user-service", true),
            ("uyou/user-service", true),
            ("docker.io/uyou/user-service", true),
            ("user-*", true),
            ("docker.io/uyou/*", true),
            ("order-service, user-service", true),
            ("user", false),
            ("service", false),
            ("docker.io/*", false),
            ("order-*", false),
        ] {
            assert_eq!(Names::read(Some(names)).unwrap().has_repository(&user), is_selected, "{names}");
        }
        assert!(Names::read(None).unwrap().has_repository(&user));
        assert!(Names::read(Some("a[")).unwrap_err().to_string().starts_with("`a[` is not a valid glob"));
    }

    #[test]
    fn unknown_name_is_answered_with_the_three_nearest() {
        let all: Vec<Repository> = (0..200).map(|n| repository(&format!("docker.io/uyou/service-{n}"))).collect();
        let names = Names::read(Some("service-1*")).unwrap();
        assert!(names.check_repositories("production", all.iter()).is_ok());
        let error = Names::read(Some("servce-42")).unwrap().check_repositories("production", all.iter()).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("docker.io/uyou/service-42, ") && text.ends_with(" and 197 more"), "{text}");
        assert!(text.len() < 250, "{text}");
        let error = Names::read(Some("prod")).unwrap().check_environments(["staging", "production"].into_iter());
        assert_eq!(error.unwrap_err().to_string(), "there is no environment `prod`; there are staging, production");
    }
}
