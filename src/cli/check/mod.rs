//! `tagrelay check`: whether the settings would do what they are meant to do.

mod argocd;
mod registries;
mod remotes;
mod report;
mod sources;
mod storage;
mod trial;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::output;
use crate::argocd::ArgoCd;
use crate::registry::{Registries, install_tls_provider};
use crate::settings::{Faults, Settings};
use crate::webhook::Receiver;
use report::Report;

/// Checks the settings, and whether what they name is there.
///
/// For CI, and before the service starts. Reads the settings with their secrets. Then looks whether the store can be
/// written, each config repository and each source of an image read and each registry and Argo CD asked, and whether
/// every [[image]] rule meets a site, every environment has one that is managed, and
/// managed sites would take a new version.
/// Changes nothing.
#[derive(Args)]
#[command(after_help = "\
Examples:
  tagrelay check                                   tagrelay.toml in this folder
  tagrelay check --config /etc/tagrelay/tagrelay.toml
  tagrelay check --offline                         the settings and their secrets only

Exit code 0: nothing is wrong, though there may be warnings. 1: something is, and each fault is told.")]
pub(super) struct Options {
    /// The settings
    #[arg(long, value_name = "FILE", default_value = super::DEFAULT_SETTINGS)]
    config: PathBuf,
    /// Ask nobody: check the settings and their secrets only
    #[arg(long)]
    offline: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(options: Options) -> anyhow::Result<ExitCode> {
    let Options { config, offline, json } = options;
    let mut report = Report::new(&config);
    match Settings::load(&config) {
        Ok(settings) => check(&settings, offline, &mut report).await?,
        Err(Faults(faults)) => faults.iter().for_each(|fault| report.settings_fault(fault)),
    }
    if json {
        output::print_json(&report)?;
    } else {
        output::print(&report.render())?;
    }
    Ok(if report.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn check(settings: &Settings, offline: bool, report: &mut Report) -> anyhow::Result<()> {
    install_tls_provider();
    report.ok("settings", summary(settings));
    settings.warnings.iter().for_each(|warning| report.settings_warning(warning));
    warn_of_silence(settings, report);
    for receiver in &settings.receivers {
        if let Err(error) = Receiver::new(receiver.clone()) {
            report.fault(&format!("receiver {}", receiver.name), error.to_string());
        }
    }
    let registries = match Registries::new(settings.registries.clone()) {
        Ok(registries) => Some(registries),
        Err(error) => {
            report.fault("registries", error.to_string());
            None
        }
    };
    let argocd = settings.argocd.clone().map(ArgoCd::new).transpose();
    if let Err(error) = &argocd {
        report.fault("Argo CD", error.to_string());
    }
    if offline {
        return Ok(());
    }
    storage::check(settings, report).await;
    let read = remotes::read(settings, report).await?;
    remotes::check_environments(settings, &read, report);
    remotes::check_rules(settings, &read, report);
    if let Some(registries) = registries {
        registries::check(settings, &registries, &read, report).await;
    }
    sources::check(settings, &read, report).await;
    if let Ok(Some(argocd)) = argocd {
        argocd::check(settings, &argocd, &read, report).await;
    }
    Ok(())
}

fn summary(settings: &Settings) -> String {
    let count = |count: usize, one: &str, many: &str| format!("{count} {}", if count == 1 { one } else { many });
    let parts = [
        count(settings.config_repositories.len(), "config repository", "config repositories"),
        count(settings.environments.len(), "environment", "environments"),
        count(settings.images.len(), "image rule", "image rules"),
        count(settings.receivers.len(), "receiver", "receivers"),
        count(settings.api_tokens.len(), "API token", "API tokens"),
    ];
    parts.join(", ")
}

/// What is allowed, and leaves Tagrelay deaf.
fn warn_of_silence(settings: &Settings, report: &mut Report) {
    if settings.receivers.is_empty() {
        report.warning("receivers", "there is no [[receiver]]: no registry can tell of a push".to_owned());
    }
    if settings.api_tokens.is_empty() {
        let message = "there is no [[api_token]]: the API says 401 to everybody, so nobody can promote";
        report.warning("API", message.to_owned());
    }
}
