//! `tagrelay check`: checks the settings, and the systems that they name.

mod argocd;
mod expected;
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
use crate::http::Tls;
use crate::registry::{Registries, install_tls_provider};
use crate::settings::{Faults, Settings};
use expected::ExpectedStore;
use report::Report;
use tagrelay_webhook::Receiver;

/// Checks the settings and the systems that they name. Changes nothing.
///
/// For CI, and before the service starts. Reads the settings with their secrets. Then checks that the store can be written,
/// that config repositories, source repositories, registries and Argo CD can be reached, that every [[image]] rule matches a
/// site, that every environment has a managed site, and that managed sites would accept a new version.
#[derive(Args)]
#[command(after_help = "\
Examples:
  tagrelay check                                   tagrelay.toml in this folder
  tagrelay check --config /etc/tagrelay/tagrelay.toml
  tagrelay check --offline                         the settings and their secrets only
  tagrelay check --offline --expect-store=sqlite:/var/lib/tagrelay
                                                   a fault unless the store's file is in this folder

Exit code 0: no faults, perhaps warnings. 1: there are faults.")]
pub(super) struct Options {
    /// The settings file
    #[arg(long, value_name = "FILE", default_value = super::DEFAULT_SETTINGS)]
    config: PathBuf,
    /// Check only the settings and their secrets, without any connection
    #[arg(long)]
    offline: bool,
    /// Report a fault unless the store is of this kind: sqlite, sqlite:FOLDER (the file is in this folder) or postgres
    #[arg(long, value_name = "KIND")]
    expect_store: Option<ExpectedStore>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(options: Options) -> anyhow::Result<ExitCode> {
    let Options { config, offline, expect_store, json } = options;
    let mut report = Report::new(&config);
    match Settings::load(&config) {
        Ok(settings) => {
            if let Some(expected) = expect_store {
                expected.check(&settings.store, &mut report);
            }
            check(&settings, offline, &mut report).await?;
        }
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
    if let Some(tls) = settings.server.tls.clone()
        && let Err(error) = Tls::load(tls.certificate, tls.key)
    {
        report.fault("[server] tls", error.to_string());
    }
    let registries = match Registries::open(settings.registries.clone()) {
        Ok(registries) => {
            for host in settings.registry_hosts() {
                if let Some(login) = registries.automatic_login(host) {
                    report.ok(&format!("registry {host}"), login.to_string());
                }
            }
            Some(registries)
        }
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

/// Warns about settings that are valid but leave Tagrelay without events or API.
fn warn_of_silence(settings: &Settings, report: &mut Report) {
    if settings.receivers.is_empty() {
        report.warning("receivers", "there is no [[receiver]]: no registry can announce a push".to_owned());
    }
    if settings.api_tokens.is_empty() {
        let message = "there is no [[api_token]]: the API rejects every request, so promotions are impossible";
        report.warning("API", message.to_owned());
    }
}
