//! `tagrelay webhook`: a sender's request, for trying a receiver.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use http::StatusCode;
use jiff::Timestamp;
use url::Url;

use super::output::{self, BAD, Cell, GOOD, PLAIN, Table, WARN, clean};
use crate::api::{Answer, DeliveryState, Problem};
use crate::image::ImageReference;
use crate::registry::install_tls_provider;
use crate::secret::{ExposeSecret as _, Secret};
use crate::webhook::{Kind, SamplePush};

/// How long the receiver may take. Most senders wait for a second only.
const ANSWER_TIME: Duration = Duration::from_secs(30);

/// The largest answer that is read: more than any of ours.
const MAX_ANSWER_BYTES: usize = 256 * 1024;

/// Tries receivers out.
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

/// Sends a receiver what a registry would send for a push, signed as the registry would sign it.
///
/// The image need not be new: Tagrelay asks the registry for it and says what became of it. Exit code 0: the receiver has
/// taken an event. 1: it has not, with the reason.
#[derive(Args)]
#[command(after_help = "\
Examples:
  tagrelay webhook send --kind harbor --image harbor.example.com/uyou/user-service:1a2b3c4d… \\
      --url https://tagrelay.example.com/webhooks/harbor --secret-file harbor-secret
  HUB_SECRET=… tagrelay webhook send --kind docker-hub --image uyou/user-service:1a2b3c4d… \\
      --url http://127.0.0.1:8080/webhooks/hub --secret-env HUB_SECRET

Kinds: docker-hub, harbor, distribution, ghcr, quay, acr, ecr, gar, artifactory, nexus, gitea,
forgejo, zot, gitlab-registry, aliyun-acr, tencent-tcr, huawei-swr, mirantis-msr, cloudevents,
cdevents, generic.
A secret that the sender shows in its URL is added to the URL. What became of the event:
tagrelay events show ID.")]
struct SendOptions {
    /// Who seems to send: the `kind` of the receiver
    #[arg(long)]
    kind: Kind,
    /// The image that seems to have been pushed: HOST/REPOSITORY:TAG[@DIGEST]
    #[arg(long, value_name = "IMAGE", value_parser = parse_image)]
    image: ImageReference,
    /// The receiver
    // Not parsed by clap, which repeats what it refuses, and that may hold a secret.
    #[arg(long, value_name = "URL")]
    url: String,
    /// A file that holds the receiver's secret
    #[arg(long, value_name = "FILE", conflicts_with = "secret_env")]
    secret_file: Option<PathBuf>,
    /// A variable of the environment that holds it [default: none is shown]
    #[arg(long, value_name = "NAME")]
    secret_env: Option<String>,
    /// The sender's id of the event; the same one again is a repeated delivery [default: a new one]
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
        None => Err("it needs a tag: senders tell of tags that were pushed".to_owned()),
    }
}

fn parse_url(text: &str) -> Result<Url, String> {
    let url: Url = text.parse().map_err(|error| format!("{error}; write http://HOST:PORT/webhooks/NAME"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err("write http://HOST:PORT/webhooks/NAME or https://HOST/webhooks/NAME".to_owned());
    }
    if url.password().is_some() || url.query().is_some() {
        return Err(
            "it must hold no secret, which everybody who lists processes would see: use --secret-file".to_owned()
        );
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
    // The address may hold the secret, so errors are told without it.
    let answer = answer.map_err(reqwest::Error::without_url).with_context(|| format!("{url} does not answer"))?;
    let status = answer.status();
    let body = read(answer).await.with_context(|| format!("the answer of {url} broke off"))?;
    report(status, &body, &url, json)
}

async fn read(mut answer: reqwest::Response) -> anyhow::Result<Vec<u8>> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(reqwest::Error::without_url)? {
        body.extend_from_slice(&chunk);
        if body.len() > MAX_ANSWER_BYTES {
            bail!("it has more than {MAX_ANSWER_BYTES} bytes: this is no receiver of Tagrelay");
        }
    }
    Ok(body)
}

/// Prints what the receiver has said, and returns whether it has taken an event.
fn report(status: StatusCode, body: &[u8], url: &Url, json: bool) -> anyhow::Result<ExitCode> {
    if !status.is_success() {
        let reason = serde_json::from_slice::<Problem>(body).map(|problem| problem.detail);
        let reason = reason.unwrap_or_else(|_| "(it says no more)".to_owned());
        bail!("{url} says {status}: {}{}", clean(&reason), advice(status));
    }
    let taken: Answer =
        serde_json::from_slice(body).with_context(|| format!("{url} says {status}, but is no receiver of Tagrelay"))?;
    if json {
        output::print(&format!("{}\n", String::from_utf8_lossy(body).trim_end()))?;
    } else {
        let mut table = Table::bare();
        for event in &taken.events {
            let image = format!("{}:{}", event.repository, event.tag);
            let style = if event.state == DeliveryState::Queued { GOOD } else { WARN };
            table.row(vec![Cell::new(event.state.as_str(), style), Cell::plain(&event.id), Cell::plain(&image)]);
        }
        for ignored in &taken.ignored {
            let style = if ignored.class == "malformed" { BAD } else { PLAIN };
            table.row(vec![Cell::new("ignored", style), Cell::plain(&ignored.class), Cell::plain(&ignored.reason)]);
        }
        output::print(&table.render(0))?;
    }
    Ok(if taken.events.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn advice(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED => "; is it the receiver's kind and secret? Its log says what was wrong",
        StatusCode::NOT_FOUND => "; the URL ends with /webhooks/ and the name of a [[receiver]]",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_is_taken_from_the_command_line() {
        for url in ["http://h/webhooks/hub?token=x", "http://u:p@h/webhooks/hub", "ftp://h/", "webhooks/hub"] {
            assert!(parse_url(url).is_err(), "{url}");
        }
        assert!(parse_url("https://tagrelay.example.com/webhooks/hub").is_ok());
    }

    #[test]
    fn every_kind_is_in_the_help() {
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
