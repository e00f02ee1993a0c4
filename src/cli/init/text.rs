//! The settings file, and what remains to be done.

use std::fmt::Write as _;

use url::Url;

use super::survey::{Environment, Rule};
use crate::registry::Cloud;
use tagrelay_webhook::Kind;

/// Everything that the settings say.
pub(super) struct Plan {
    pub(super) repository: Url,
    pub(super) branch: String,
    pub(super) environments: Vec<Environment>,
    pub(super) rules: Vec<Rule>,
    pub(super) webhooks: Vec<Webhook>,
}

/// A receiver of a registry.
pub(super) struct Webhook {
    name: String,
    kind: Kind,
    host: String,
}

impl Webhook {
    /// Creates the receiver with a name that no other one has.
    pub(super) fn new(kind: Kind, host: &str, others: &[Self]) -> Self {
        let base = kind.to_string();
        let is_taken = |name: &str| others.iter().any(|other| other.name == name);
        let mut name = base.clone();
        let mut number = 2;
        while is_taken(&name) {
            name = format!("{base}-{number}");
            number += 1;
        }
        Self { name, kind, host: host.to_owned() }
    }

    /// Returns the kind that a registry's host shows.
    pub(super) fn kind_of(host: &str) -> Option<Kind> {
        match host {
            "docker.io" => return Some(Kind::DockerHub),
            "ghcr.io" => return Some(Kind::Ghcr),
            "quay.io" => return Some(Kind::Quay),
            _ => {}
        }
        let of_cloud = Cloud::of_host(host).map(|cloud| match cloud {
            Cloud::Aws => Kind::Ecr,
            Cloud::Google => Kind::Gar,
            Cloud::Azure => Kind::Acr,
        });
        of_cloud.or_else(|| host.split('.').any(|label| label == "harbor").then_some(Kind::Harbor))
    }

    fn variable(&self) -> String {
        format!("{}_WEBHOOK_SECRET", self.name.to_ascii_uppercase().replace('-', "_"))
    }
}

/// Writes a TOML string.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

impl Plan {
    /// Returns the settings file.
    pub(super) fn settings(&self) -> String {
        let mut text = String::from(
            "# Written by `tagrelay init`. docs/settings.md explains every key, and config.example.toml shows all of them.\n\n\
             [server]\nlisten = \"0.0.0.0:8080\"\n",
        );
        self.add_repository(&mut text);
        for environment in &self.environments {
            add_environment(&mut text, environment);
        }
        for rule in &self.rules {
            let _ = write!(text, "\n[[image]]\nrepository = {}\n", quoted(&rule.repository));
            if let Some(tag) = &rule.tag {
                let _ = writeln!(text, "tag = {tag}");
            }
        }
        for webhook in &self.webhooks {
            webhook.add_registry(&mut text);
        }
        for webhook in &self.webhooks {
            let (name, kind, variable) = (&webhook.name, webhook.kind, webhook.variable());
            let _ = write!(
                text,
                "\n[[receiver]]\nname = \"{name}\"\nkind = \"{kind}\"\nsecret = {{ env = \"{variable}\" }}\n"
            );
            if webhook.kind.needs_registry() {
                let _ = writeln!(text, "registry = {}", quoted(&webhook.host));
            }
        }
        text.push_str(
            "\n[[api_token]]\nname = \"release-managers\"\ntoken = { env = \"RELEASE_TOKEN\" }\n\
             permissions = [\"read\", \"promote:*\", \"rollback:*\", \"hold:*\"]\n",
        );
        text
    }

    fn add_repository(&self, text: &mut String) {
        let url = quoted(self.repository.as_str());
        let _ = write!(
            text,
            "\n[[config_repository]]\nname = \"platform\"\nurl = {url}\nbranch = {}\n",
            quoted(&self.branch)
        );
        match self.repository.scheme() {
            "http" | "https" => {
                text.push_str("username = \"tagrelay\"   # most hosts accept any name with a token\n");
                text.push_str(
                    "password = { env = \"GIT_PASSWORD\" }   # a token that may push to this repository only\n",
                );
            }
            "ssh" => {
                text.push_str("ssh_key = { env = \"GIT_SSH_KEY\" }   # a deploy key with write access\n");
                text.push_str("known_hosts = \"known_hosts\"   # output of `ssh-keyscan HOST`, after checking it\n");
            }
            _ => {}
        }
    }

    /// Returns the secrets in the order of the file.
    fn variables(&self) -> Vec<String> {
        let git = match self.repository.scheme() {
            "http" | "https" => Some("GIT_PASSWORD".to_owned()),
            "ssh" => Some("GIT_SSH_KEY".to_owned()),
            _ => None,
        };
        let webhooks = self.webhooks.iter().map(Webhook::variable);
        git.into_iter().chain(webhooks).chain(["RELEASE_TOKEN".to_owned()]).collect()
    }

    /// Returns what was written.
    pub(super) fn summary(&self, file: &str) -> String {
        let mut text = format!("Wrote {file}:\n");
        for environment in &self.environments {
            let mode = match (&environment.promote_from, environment.is_automatic) {
                (_, true) => "automatic".to_owned(),
                (Some(from), false) => format!("manual, promoted from {from}"),
                (None, false) => "manual".to_owned(),
            };
            let _ = writeln!(text, "  {}: {mode} ({})", environment.name, environment.paths.join(", "));
        }
        for rule in &self.rules {
            let tag = rule.tag.as_deref().unwrap_or("{ kind = \"commit-sha\" }");
            let _ = writeln!(text, "  {} with tags {tag}", rule.repository);
        }
        text
    }

    /// Returns the webhook URLs and the next three commands.
    pub(super) fn next_steps(&self, file: &str, public_url: &Url) -> String {
        let mut text =
            String::from("Webhooks, each with the secret of its variable (docs/registries.md has the steps):\n");
        let base = public_url.as_str().trim_end_matches('/');
        for webhook in &self.webhooks {
            let query =
                if webhook.kind == Kind::DockerHub { format!("?token=${}", webhook.variable()) } else { String::new() };
            let _ = writeln!(text, "  {}: {base}/webhooks/{}{query}", webhook.host, webhook.name);
        }
        text.push_str("\nNext:\n  export");
        for variable in self.variables() {
            let value = if variable.starts_with("GIT_") { "…" } else { "\"$(openssl rand -hex 32)\"" };
            let _ = write!(text, " {variable}={value}");
        }
        let _ = write!(text, "\n  tagrelay check --config {file}\n  tagrelay serve --config {file}\n");
        text
    }
}

fn add_environment(text: &mut String, environment: &Environment) {
    let paths: Vec<String> = environment.paths.iter().map(|path| quoted(path)).collect();
    let update = if environment.is_automatic { "automatic" } else { "manual" };
    let (name, paths) = (quoted(&environment.name), paths.join(", "));
    let _ = write!(text, "\n[[environment]]\nname = {name}\npaths = [{paths}]\nupdate = \"{update}\"\n");
    if let Some(from) = &environment.promote_from {
        let _ = writeln!(text, "promote_from = [{}]", quoted(from));
    }
    if let Some(prefix) = &environment.prefix {
        let _ = writeln!(text, "tag = {{ kind = \"commit-sha\", prefix = {} }}", quoted(prefix));
    }
}

impl Webhook {
    fn add_registry(&self, text: &mut String) {
        let host = quoted(&self.host);
        match Cloud::of_host(&self.host) {
            Some(cloud) => {
                let _ = write!(text, "\n[[registry]]\nhost = {host}\nlogin = \"{cloud}\"   # the pod's own identity\n");
            }
            None => {
                let _ = write!(
                    text,
                    "\n#[[registry]]   # for private images\n#host = {host}\n#username = \"reader\"\n\
                     #password = {{ env = \"REGISTRY_PASSWORD\" }}\n"
                );
            }
        }
    }
}
