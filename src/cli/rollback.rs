//! `tagrelay rollback`.

use std::process::ExitCode;

use clap::Args;

use super::api::{Api, FollowOptions, ServerOptions, follow};
use super::exit::{self, usage};
use super::output::{self, DIM, clean};
use super::places::{PlaceOptions, Places};
use super::preview;
use crate::api::{PreviewView, RequestView, RollbackBody};
use crate::domain::UpdateState;

/// Returns an environment to earlier versions, and holds them there.
///
/// A hold keeps automation from overwriting the rollback; `tagrelay release` ends it. Exit code 0: the versions are on the
/// branch. 1: refused, with the reason. 3: still waiting. 5: a part of them.
#[derive(Args)]
#[command(after_help = "\
Examples:
  tagrelay rollback production user-service --dry-run
  tagrelay rollback production user-service --hold-for 4h --reason 'it leaks'
  tagrelay rollback production user-service --to 1a2b3c4d5e6f7a8b9c0d1e2f3a4b5c6d7e8f9a0b
  tagrelay rollback production 'user-*' order-service
  tagrelay rollback production --all
  tagrelay rollback --promotion 01KAJ6G3V4ZJ5Q7WQ0T9E8H2XN     everything that it moved

`tagrelay history production user-service` shows the versions to go back to.
The token needs the permission rollback:ENVIRONMENT.")]
pub(super) struct Options {
    #[command(flatten)]
    places: PlaceOptions,
    /// Go back behind this promotion: everything that it moved gets the version from before
    #[arg(long, value_name = "ID", conflicts_with_all = ["first", "environment", "repositories", "all", "to"])]
    promotion: Option<String>,
    /// The tag to go back to; needs exactly one repository [default: the previous version]
    #[arg(long, value_name = "TAG")]
    to: Option<String>,
    /// How long the holds last, as 30m, 4h or 2d [default: until they are released]
    #[arg(long, value_name = "TIME")]
    hold_for: Option<String>,
    /// Show the change without making it
    #[arg(long)]
    dry_run: bool,
    /// The reason, for the history
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Print the API's JSON, one document for each repository
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    follow: FollowOptions,
    #[command(flatten)]
    server: ServerOptions,
}

/// One repository to roll back.
struct Target {
    environment: String,
    repository: String,
    to: Option<String>,
}

pub(super) async fn run(options: Options) -> anyhow::Result<ExitCode> {
    let Options { places, promotion, to, hold_for, dry_run, reason, json, follow: how, server } = options;
    let (api, targets) = match promotion {
        Some(id) => {
            let api = Api::new(server)?;
            let targets = of_promotion(&api, &id).await?;
            (api, targets)
        }
        None => {
            let places = places.read("rollback")?;
            if to.is_some() && (places.repositories.len() != 1 || !places.are_words()) {
                return Err(usage("--to is the tag of one repository: roll back one by one"));
            }
            let api = Api::new(server)?;
            let targets = of_places(&api, &places, to).await?;
            (api, targets)
        }
    };
    let is_single = targets.len() == 1;
    let mut codes = Vec::new();
    for Target { environment, repository, to } in targets {
        let body =
            RollbackBody { environment, repository, to, hold_for: hold_for.clone(), reason: reason.clone(), dry_run };
        let code = if dry_run { show(&api, &body, json).await } else { roll_back(&api, &body, &how, json).await };
        codes.push(match code {
            Ok(code) => code,
            Err(error) if is_single || !is_refusal(&error) => return Err(error),
            // The others are independent of this one.
            Err(error) => {
                output::note(&format!("{}: {}", clean(&body.repository), clean(&format!("{error:#}"))));
                exit::REFUSED
            }
        });
    }
    Ok(ExitCode::from(exit::join(codes)))
}

fn is_refusal(error: &anyhow::Error) -> bool {
    let refusal = |error: &super::api::ApiError| error.exit_code() == exit::REFUSED;
    error.chain().any(|cause| cause.downcast_ref().is_some_and(refusal))
}

async fn of_places(api: &Api, places: &Places, to: Option<String>) -> anyhow::Result<Vec<Target>> {
    let target = |environment: &str, repository: &str| Target {
        environment: environment.to_owned(),
        repository: repository.to_owned(),
        to: to.clone(),
    };
    if places.are_words() {
        return Ok(places.repositories.iter().map(|repository| target(&places.environment, repository)).collect());
    }
    let found = places.find(api).await?;
    Ok(found.iter().map(|place| target(&place.environment, &place.cell.repository)).collect())
}

async fn of_promotion(api: &Api, id: &str) -> anyhow::Result<Vec<Target>> {
    let request: RequestView = api.get(&["promotions", id], &[]).await?.read()?;
    let moved = request.updates.iter().filter(|update| update.state == UpdateState::Committed);
    let mut targets = Vec::new();
    for update in moved {
        let old = update.changes.first().and_then(|change| change.old.tag.clone());
        match old {
            Some(tag) => targets.push(Target {
                environment: update.environment.clone(),
                repository: update.repository.clone(),
                to: Some(tag),
            }),
            None => {
                output::note(&format!("{}: skipped, because the version before has no tag", clean(&update.repository)))
            }
        }
    }
    anyhow::ensure!(!targets.is_empty(), "{} {id} moved nothing that can be rolled back", request.kind);
    Ok(targets)
}

async fn show(api: &Api, body: &RollbackBody, json: bool) -> anyhow::Result<u8> {
    let answer = api.post(&["rollbacks"], body).await?;
    let shown: PreviewView = answer.read()?;
    if json {
        answer.print()?;
    } else {
        output::print(&preview::render(&shown, &body.environment, output::screen_width()))?;
    }
    Ok(preview::exit_code(&shown))
}

async fn roll_back(api: &Api, body: &RollbackBody, how: &FollowOptions, json: bool) -> anyhow::Result<u8> {
    let followed = follow(api, "rollbacks", body, how, json).await?;
    if !json && followed.code == exit::DONE {
        let repository = followed.request.updates.first().map_or(&body.repository, |update| &update.repository);
        let name = repository.rsplit('/').next().unwrap_or(repository);
        let place = clean(&format!("{}/{name}", body.environment)).into_owned();
        let until = match &body.hold_for {
            Some(time) => format!("for {}", clean(time)),
            None => "until you release it".to_owned(),
        };
        output::print(&format!("{DIM}held {until}: `tagrelay release {place}`{DIM:#}\n"))?;
    }
    Ok(followed.code)
}
