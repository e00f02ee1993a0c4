//! `tagrelay webhook`: sends a test request to a receiver.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use http::StatusCode;
use jiff::Timestamp;
use url::Url;

use super::output::{self, BAD, Cell, GOOD, PLAIN, Table, WARN, clean};
use crate::api::{DeliveryState, Problem, WebhookAnswer};
use crate::registry::install_tls_provider;
use tagrelay_image::ImageReference;
use tagrelay_secret::{ExposeSecret as _, Secret};
use tagrelay_webhook::{Kind, SamplePush};

/// How long to wait for the response. Most senders wait for only a second.
const ANSWER_TIME: Duration = Duration::from_secs(30);

/// The size of the largest accepted response. Receivers of Tagrelay send less.
const MAX_ANSWER_BYTES: usize = 256 * 1024;

/// Tests receivers.
#[derive(Args)]
#[command(disable_help_subcommand = true, arg_required_else_help = true)]
#[command(after_help = "\
Example:
  tagrelay webhook send --kind harbor --image harbor.example.com/uyou/user-service:1a2b3c4d… \\
      --url http://127.0.0.1:8080/webhooks/harbor --secret-file harbor-secret")]
pub(super) struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Send(SendOptions),
}

/// Sends a receiver the webhook that a registry sends for a push, with its signature.
///
/// The image need not be new. Exit code 0: the receiver accepted an event. 1: it did not, with the reason.
#[derive(Args)]
#[command(after_help = "\
Examples:
  tagrelay webhook send --kind harbor --image harbor.example.com/uyou/user-service:1a2b3c4d… \\
      --url https://tagrelay.example.com/webhooks/harbor --secret-file harbor-secret
  HUB_SECRET=… tagrelay webhook send --kind docker-hub --image uyou/user-service:1a2b3c4d… \\
      --url http://127.0.0.1:8080/webhooks/hub --secret-env HUB_SECRET

Kinds: docker-hub, harbor, distribution, ghcr, quay, acr, ecr, gar, artifactory, nexus, gitea, \
forgejo, zot, gitlab-registry, aliyun-acr, tencent-tcr, huawei-swr, mirantis-msr, cloudevents, \
cdevents, generic.
If the sender puts the secret into the URL, it is added to --url. `tagrelay events show ID` shows the state of the event.")]
struct SendOptions {
    /// The kind of sender: the `kind` of the receiver
    #[arg(long)]
    kind: Kind,
    /// The pushed image: HOST/REPOSITORY:TAG[@DIGEST]
    #[arg(long, value_name = "IMAGE", value_parser = parse_image)]
    image: ImageReference,
    /// The URL of the receiver
    // Not parsed by clap, whose errors would repeat a URL with a secret.
    #[arg(long, value_name = "URL")]
    url: String,
    /// A file that holds the receiver's secret
    #[arg(long, value_name = "FILE", conflicts_with = "secret_env")]
    secret_file: Option<PathBuf>,
    /// An environment variable that holds the secret [default: no secret is sent]
    #[arg(long, value_name = "NAME")]
    secret_env: Option<String>,
    /// The sender's id of the event; repeating it makes a redelivery [default: a new id]
    #[arg(long)]
    id: Option<String>,
    /// Print the receiver's JSON
    #[arg(long)]
    json: bool,
}

fn parse_image(text: &str) -> Result<ImageReference, String> {
    let image: ImageReference = text.parse().map_err(|error| format!("{error}"))?;
    match image.tag {
        Some(_) => Ok(image),
        None => Err("it needs a tag: webhooks announce pushed tags".to_owned()),
    }
}

fn parse_url(text: &str) -> Result<Url, String> {
    let url: Url = text.parse().map_err(|error| format!("{error}; write http://HOST:PORT/webhooks/NAME"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err("write http://HOST:PORT/webhooks/NAME or https://HOST/webhooks/NAME".to_owned());
    }
    if url.password().is_some() || url.query().is_some() {
        return Err("it must not contain a secret, which would be visible in the list of processes: use --secret-file"
            .to_owned());
    }
    Ok(url)
}

pub(super) async fn run(options: Options) -> anyhow::Result<ExitCode> {
    match options.command {
        Command::Send(options) => send(options).await,
    }
}

async fn send(options: SendOptions) -> anyhow::Result<ExitCode> {
    let SendOptions { kind, image, url, secret_file, secret_env, id, json } = options;
    let url = parse_url(&url).map_err(|error| anyhow::anyhow!("--url: {error}"))?;
    let secret = match (secret_file, secret_env) {
        (Some(path), _) => Some(Secret::from_file(path)?),
        (None, Some(name)) => Some(Secret::from_environment(&name)?),
        (None, None) => None,
    };
    let secret = secret.map(|secret| secret.reveal()).transpose()?;
    let ImageReference { repository, tag: Some(tag), digest } = image else {
        bail!("the image has no tag");
    };
    let pushed_at = Timestamp::now();
    let id = id.unwrap_or_else(|| format!("tagrelay-sample-{}", ulid::Ulid::new()));
    let push = SamplePush { repository, tag, digest, pushed_at, id };
    let request = kind.sample(&push, secret.as_ref().map(|secret| secret.expose_secret()))?;
    let mut address = url.clone();
    if let Some((parameter, value)) = &request.query {
        address.query_pairs_mut().append_pair(parameter, value);
    }
    install_tls_provider();
    let client = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(ANSWER_TIME)
        .build()
        .context("no HTTPS client can be made; install the system's CA certificates (Debian: ca-certificates)")?;
    let answer = client.post(address).headers(request.headers).body(request.body).send().await;
    // The address may contain the secret.
    let answer = answer.map_err(reqwest::Error::without_url).with_context(|| format!("{url} does not respond"))?;
    let status = answer.status();
    let body = read(answer).await.with_context(|| format!("the response of {url} is incomplete"))?;
    report(status, &body, &url, json)
}

async fn read(mut answer: reqwest::Response) -> anyhow::Result<Vec<u8>> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(reqwest::Error::without_url)? {
        body.extend_from_slice(&chunk);
        if body.len() > MAX_ANSWER_BYTES {
            bail!("it has more than {MAX_ANSWER_BYTES} bytes: this is not a receiver of Tagrelay");
        }
    }
    Ok(body)
}

/// Prints the response. Exit code 0: the receiver accepted an event.
fn report(status: StatusCode, body: &[u8], url: &Url, json: bool) -> anyhow::Result<ExitCode> {
    if !status.is_success() {
        let reason = serde_json::from_slice::<Problem>(body).map(|problem| problem.detail);
        let reason = reason.unwrap_or_else(|_| "(without a reason)".to_owned());
        bail!("{url} answered {status}: {}{}", clean(&reason), advice(status));
    }
    let answer: WebhookAnswer = serde_json::from_slice(body)
        .with_context(|| format!("{url} answered {status}, but is not a receiver of Tagrelay"))?;
    if json {
        output::print(&format!("{}\n", String::from_utf8_lossy(body).trim_end()))?;
    } else {
        let mut table = Table::bare();
        for event in &answer.events {
            let image = format!("{}:{}", event.repository, event.tag);
            let style = if event.state == DeliveryState::Queued { GOOD } else { WARN };
            table.row(vec![Cell::new(event.state.as_str(), style), Cell::plain(&event.id), Cell::plain(&image)]);
        }
        for ignored in &answer.ignored {
            let style = if ignored.class == "malformed" { BAD } else { PLAIN };
            table.row(vec![Cell::new("ignored", style), Cell::plain(&ignored.class), Cell::plain(&ignored.reason)]);
        }
        output::print(&table.render(0))?;
    }
    Ok(if answer.events.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn advice(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED => "; check --kind and the secret; the server's log has the reason",
        StatusCode::NOT_FOUND => "; the URL ends with /webhooks/ and the name of a [[receiver]]",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn url_with_a_secret_is_rejected() {
        for url in ["http://h/webhooks/hub?token=x", "http://u:p@h/webhooks/hub", "ftp://h/", "webhooks/hub"] {
            assert!(parse_url(url).is_err(), "{url}");
        }
        assert!(parse_url("https://tagrelay.example.com/webhooks/hub").is_ok());
    }

    #[test]
    fn help_lists_every_kind() {
        use clap::Args as _;
        let mut command = SendOptions::augment_args(clap::Command::new("send"));
        let help = command.render_long_help().to_string();
        let (_, kinds) = help.split_once("Kinds: ").unwrap();
        for kind in Kind::ALL.iter().filter(|kind| kind.announces_images()) {
            let named = |word: &str| word.trim_end_matches(['.', ',']) == kind.name();
            assert!(kinds.split_whitespace().any(named), "{kind} is not in the help");
        }
    }
}
