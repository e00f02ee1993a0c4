//! Environments and repositories on the command line: `production user-service`, `production/user-service`, `-e production`.

use clap::Args;

use super::api::Api;
use super::exit::usage;
use crate::api::{CellView, EnvironmentView, Matrix};

/// An environment and repositories.
#[derive(Args)]
pub(super) struct PlaceOptions {
    /// The environment; ENVIRONMENT/REPOSITORY works, too
    #[arg(value_name = "ENVIRONMENT")]
    first: Option<String>,
    /// Repositories in it: whole names, last components or globs
    #[arg(value_name = "REPOSITORY")]
    rest: Vec<String>,
    /// The environment
    #[arg(short, long, value_name = "ENVIRONMENT")]
    environment: Option<String>,
    /// A repository (may be given several times)
    #[arg(short, long = "repository", value_name = "REPOSITORY")]
    repositories: Vec<String>,
    /// All repositories of the environment
    #[arg(long)]
    all: bool,
}

/// The environment and repositories that the caller named.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Places {
    pub(super) environment: String,
    /// Names and globs; empty: all of the environment.
    pub(super) repositories: Vec<String>,
}

/// One repository in one environment, as the server knows it.
pub(super) struct Place {
    pub(super) environment: String,
    pub(super) cell: CellView,
}

impl PlaceOptions {
    /// Whether nothing was named.
    pub(super) fn is_empty(&self) -> bool {
        self.first.is_none() && self.environment.is_none() && self.repositories.is_empty()
    }

    /// Returns the only name, if it is an id.
    pub(super) fn id(&self) -> Option<&str> {
        match (&self.first, self.rest.as_slice(), &self.environment, self.repositories.as_slice()) {
            (Some(name), [], None, []) if is_id(name) => Some(name),
            _ => None,
        }
    }

    /// Separates the environment from the repositories. `verb` is the command in error messages.
    ///
    /// # Errors
    ///
    /// If no environment is named, or all repositories are meant without `--all`.
    pub(super) fn read(self, verb: &str) -> anyhow::Result<Places> {
        let Self { first, rest, environment, repositories, all } = self;
        let names = first.into_iter().chain(rest).collect();
        let places = sort(names, environment, repositories)
            .ok_or_else(|| usage(format!("name an environment, as in `tagrelay {verb} production user-service`")))?;
        match (places.repositories.is_empty(), all) {
            (true, false) => Err(usage(format!(
                "name repositories, as in `tagrelay {verb} {} user-service`, or use --all for the whole environment",
                places.environment
            ))),
            (false, true) => Err(usage("--all and names of repositories exclude each other")),
            _ => Ok(places),
        }
    }
}

/// Returns the environment and the repositories; `None`: there is no environment.
fn sort(names: Vec<String>, environment: Option<String>, mut repositories: Vec<String>) -> Option<Places> {
    let mut names = names.into_iter();
    let environment = match environment {
        Some(environment) => environment,
        None => {
            let first = names.next()?;
            // Names of environments have no slash.
            match first.split_once('/') {
                Some((environment, repository)) => {
                    repositories.insert(0, repository.to_owned());
                    environment.to_owned()
                }
                None => first,
            }
        }
    };
    repositories.extend(names.map(|name| match name.strip_prefix(&format!("{environment}/")) {
        Some(rest) if !rest.contains('/') => rest.to_owned(),
        _ => name,
    }));
    Some(Places { environment, repositories })
}

impl Places {
    /// Asks the server for the places. It knows last components and globs, and answers an unknown name with the nearest.
    pub(super) async fn find(&self, api: &Api) -> anyhow::Result<Vec<Place>> {
        let mut query = vec![("environment", self.environment.clone())];
        if !self.repositories.is_empty() {
            query.push(("repository", self.repositories.join(",")));
        }
        let matrix: Matrix = api.get(&["environments"], &query).await?.read()?;
        let of = |environment: EnvironmentView| {
            let name = environment.name;
            environment.repositories.into_iter().map(move |cell| Place { environment: name.clone(), cell })
        };
        Ok(matrix.environments.into_iter().flat_map(of).collect())
    }

    /// Whether repositories are named and none is a glob, so that they need not be looked up first.
    pub(super) fn are_words(&self) -> bool {
        !self.repositories.is_empty() && !self.repositories.iter().any(|name| name.contains(['*', '?', '[', '{']))
    }
}

/// Whether a word has the form of an id: a ULID.
pub(super) fn is_id(word: &str) -> bool {
    word.len() == 26 && word.parse::<ulid::Ulid>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(names: &[&str], environment: Option<&str>, repositories: &[&str]) -> Option<Places> {
        let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        sort(owned(names), environment.map(str::to_owned), owned(repositories))
    }

    #[test]
    fn environment_and_repositories_are_sorted() {
        let expected = |repositories: &[&str]| {
            let repositories = repositories.iter().map(|&name| name.to_owned()).collect();
            Some(Places { environment: "production".to_owned(), repositories })
        };
        assert_eq!(places(&["production"], None, &[]), expected(&[]));
        assert_eq!(places(&["production", "a", "b-*"], None, &[]), expected(&["a", "b-*"]));
        assert_eq!(places(&["production/a"], None, &[]), expected(&["a"]));
        assert_eq!(places(&["production/a", "production/b"], None, &[]), expected(&["a", "b"]));
        assert_eq!(places(&["production", "docker.io/uyou/a"], None, &[]), expected(&["docker.io/uyou/a"]));
        assert_eq!(places(&["a"], Some("production"), &["b"]), expected(&["b", "a"]));
        assert_eq!(places(&[], Some("production"), &[]), expected(&[]));
        assert_eq!(places(&[], None, &["a"]), None);
    }

    #[test]
    fn whole_environment_needs_all() {
        let options = |names: &[&str], all| PlaceOptions {
            first: names.first().map(|&name| name.to_owned()),
            rest: names.iter().skip(1).map(|&name| name.to_owned()).collect(),
            environment: None,
            repositories: Vec::new(),
            all,
        };
        assert!(options(&["production"], false).read("hold").unwrap_err().to_string().contains("--all"));
        assert!(options(&["production"], true).read("hold").unwrap().repositories.is_empty());
        assert!(options(&["production", "a"], true).read("hold").is_err());
        assert!(options(&[], false).read("hold").unwrap_err().to_string().contains("name an environment"));
        assert_eq!(options(&["01KAJ6G3V4ZJ5Q7WQ0T9E8H2XN"], false).id(), Some("01KAJ6G3V4ZJ5Q7WQ0T9E8H2XN"));
        assert_eq!(options(&["production"], false).id(), None);
    }
}
