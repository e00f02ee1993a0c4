use axum::Json;
use axum::extract::State;
use http::StatusCode;
use tokio::sync::{mpsc, oneshot};

use super::{App, Caller, Problem};
use crate::access::Permission;
use crate::api::{Reloaded, SectionChange};
use crate::settings::{ChangedSection, Faults};

/// Sends requests to reload the settings to the task that does it.
#[derive(Clone)]
pub struct Reloads(mpsc::Sender<ReloadRequest>);

/// A request to reload the settings: the sender for its result.
pub type ReloadRequest = oneshot::Sender<Result<Vec<ChangedSection>, Faults>>;

impl Reloads {
    /// Returns the sending and the receiving end.
    pub fn new() -> (Self, mpsc::Receiver<ReloadRequest>) {
        let (sender, receiver) = mpsc::channel(16);
        (Self(sender), receiver)
    }

    async fn reload(&self) -> Option<Result<Vec<ChangedSection>, Faults>> {
        let (reply, answer) = oneshot::channel();
        self.0.send(reply).await.ok()?;
        answer.await.ok()
    }
}

/// Reads the settings again and puts them in force, unless one has a fault.
#[utoipa::path(post, path = "/reload", responses(
    (status = 200, body = Reloaded),
    (status = 422, description = "The settings have faults; the old ones stay in force", body = Problem, content_type = "application/problem+json"),
    (status = 503, body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn create(State(app): State<App>, caller: Caller) -> Result<Json<Reloaded>, Problem> {
    caller.must(&Permission::Admin)?;
    let Some(reloads) = &app.0.reloads else {
        return Err(Problem::new(StatusCode::CONFLICT, "this server was not started from a settings file"));
    };
    match reloads.reload().await {
        Some(Ok(changes)) => {
            let view = |change: ChangedSection| SectionChange {
                section: change.section,
                name: change.name,
                change: change.change.as_str().to_owned(),
            };
            Ok(Json(Reloaded { changes: changes.into_iter().map(view).collect() }))
        }
        Some(Err(faults)) => Err(Problem::faulty_settings(faults)),
        None => Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the service is stopping")),
    }
}
