//! Who manages a site: its environments by the paths, its rule by the repository.

use globset::{Glob, GlobBuilder, GlobSet, GlobSetBuilder};
use serde::Serialize;

use super::FoundSite;
use crate::policy::{ImageRule, rule_for};
use crate::settings::EnvironmentSettings;

/// Whether a site is managed, and why not.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Management {
    /// The environments that the file belongs to.
    pub(super) environments: Vec<String>,
    /// The pattern of the rule that manages the site; `None`: nobody does.
    pub(super) rule: Option<String>,
    /// Why nobody does, or what is odd about it.
    pub(super) reason: Option<String>,
}

impl Management {
    pub(super) fn of(site: &FoundSite, rules: &[ImageRule], territory: &Territory) -> Self {
        let environments = territory.environments_of(&site.path);
        let rule = rule_for(rules, &site.repository);
        let (rule, reason) = match rule {
            _ if environments.is_empty() => (None, Some("it is in the paths of no [[environment]]".to_owned())),
            None => (None, Some("no [[image]] rule takes the repository".to_owned())),
            Some(rule) => {
                let tag = site.tag.as_deref().and_then(|tag| tag.parse().ok());
                let refused = tag.and_then(|tag| rule.check_tag(&tag).err());
                let reason = refused.map(|refused| format!("it does not take this tag: {}", refused.rule));
                (Some(rule.pattern.as_str().to_owned()), reason)
            }
        };
        Self { environments, rule, reason }
    }
}

/// Which environments a file belongs to.
pub(super) struct Territory {
    globs: GlobSet,
    /// The environment of each glob of the set.
    owners: Vec<String>,
}

impl Territory {
    /// Returns the territory of these environments.
    ///
    /// # Errors
    ///
    /// When a path is no glob, which the settings have checked before.
    pub(super) fn new<'a>(
        environments: impl IntoIterator<Item = &'a EnvironmentSettings>,
    ) -> Result<Self, globset::Error> {
        let mut set = GlobSetBuilder::new();
        let mut owners = Vec::new();
        for environment in environments {
            for path in &environment.paths {
                // A folder means everything below it.
                for pattern in [path.clone(), format!("{path}/**")] {
                    set.add(glob(&pattern)?);
                    owners.push(environment.name.clone());
                }
            }
        }
        Ok(Self { globs: set.build()?, owners })
    }

    /// Returns the names of the environments.
    pub(super) fn names(&self) -> std::collections::BTreeSet<&str> {
        self.owners.iter().map(String::as_str).collect()
    }

    pub(super) fn environments_of(&self, path: &str) -> Vec<String> {
        let mut environments: Vec<String> = Vec::new();
        for index in self.globs.matches(path) {
            if let Some(name) = self.owners.get(index).filter(|name| !environments.contains(name)) {
                environments.push(name.clone());
            }
        }
        environments
    }
}

fn glob(pattern: &str) -> Result<Glob, globset::Error> {
    GlobBuilder::new(pattern).literal_separator(true).build()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Format;
    use crate::settings::Settings;

    const SETTINGS: &str = r#"
        config_repository = [{ name = "p", url = "file:///srv/p.git", author = "A <a@example.com>" }]
        environment = [
            { name = "staging", paths = ["environments/staging/**"] },
            { name = "production", paths = ["environments/production", "shared/*.yaml"] },
            { name = "all", paths = ["environments/**"] },
        ]
        image = [{ repository = "docker.io/uyou/*" }]
    "#;

    #[test]
    fn a_site_has_its_environments_and_its_rule() {
        let settings = Settings::parse("t.toml", SETTINGS, &|_| Err(std::env::VarError::NotPresent)).unwrap();
        let territory = Territory::new(&settings.environments).unwrap();
        let of = |path: &str, repository: &str, tag: &str| {
            let version = crate::image::Version::tagged(tag.parse().unwrap(), None);
            let site = FoundSite::new(path, 1, Format::Kubernetes, &repository.parse().unwrap(), &version);
            Management::of(&site, &settings.images, &territory)
        };
        let sha = "9f8e7d6c5b4a39281706f5e4d3c2b1a098765432";
        let managed = of("environments/production/a/b.yaml", "uyou/api", sha);
        assert_eq!(managed.environments, ["production", "all"]);
        assert_eq!((managed.rule.as_deref(), managed.reason), (Some("docker.io/uyou/*"), None));
        assert_eq!(of("shared/a.yaml", "uyou/api", sha).environments, ["production"]);
        assert!(of("shared/deep/a.yaml", "uyou/api", sha).reason.unwrap().contains("[[environment]]"));
        assert!(of("environments/staging/a.yaml", "redis", "7").reason.unwrap().contains("[[image]]"));
        assert!(of("environments/staging/a.yaml", "uyou/api", "latest").reason.unwrap().contains("commit-sha"));
    }
}
