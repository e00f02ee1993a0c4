//! Finds the environments and the image rule of a site.

use serde::Serialize;

use super::FoundSite;
use crate::config_repo::{EnvironmentPaths, OpenError, Territory};
use crate::policy::{ImageRule, rule_for};
use crate::settings::EnvironmentSettings;

/// The management of a site.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Management {
    /// The environments that the file belongs to.
    pub(super) environments: Vec<String>,
    /// The pattern of the image rule; `None`: not managed.
    pub(super) rule: Option<String>,
    /// Why the site is not managed, or a remark.
    pub(super) reason: Option<String>,
}

impl Management {
    pub(super) fn of(site: &FoundSite, rules: &[ImageRule], territory: &Territory) -> Self {
        let environments = environments_of(territory, &site.path);
        let rule = rule_for(rules, &site.repository);
        let (rule, reason) = match rule {
            _ if environments.is_empty() => (None, Some("it is in the paths of no [[environment]]".to_owned())),
            None => (None, Some("no [[image]] rule matches the repository".to_owned())),
            Some(rule) => {
                let tag = site.tag.as_deref().and_then(|tag| tag.parse().ok());
                let refused = tag.and_then(|tag| rule.check_tag(&tag).err());
                let reason = refused.map(|refused| format!("it does not match this tag: {}", refused.rule));
                (Some(rule.pattern.as_str().to_owned()), reason)
            }
        };
        Self { environments, rule, reason }
    }
}

/// Compiles the paths of all environments.
///
/// # Errors
///
/// If a path is not a glob. The settings have checked that.
pub(super) fn territory<'a>(
    environments: impl IntoIterator<Item = &'a EnvironmentSettings>,
) -> Result<Territory, OpenError> {
    let paths: Vec<EnvironmentPaths> = environments.into_iter().map(EnvironmentSettings::in_repository).collect();
    Territory::new(&paths)
}

/// Returns the names of the environments that a file belongs to, in the order of the settings.
pub(super) fn environments_of(territory: &Territory, path: &str) -> Vec<String> {
    territory.owners_of(path.as_bytes()).into_iter().map(|owner| territory.names()[owner].clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;
    use tagrelay_manifest::Format;

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
    fn site_has_environments_and_rule() {
        let settings = Settings::parse("t.toml", SETTINGS, &|_| Err(std::env::VarError::NotPresent)).unwrap();
        let territory = territory(&settings.environments).unwrap();
        let of = |path: &str, repository: &str, tag: &str| {
            let version = tagrelay_image::Version::tagged(tag.parse().unwrap(), None);
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
