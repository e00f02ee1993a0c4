use std::sync::Arc;

use axum::extract::{FromRequestParts, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::request::Parts;
use http::{HeaderMap, StatusCode, header};

use super::{App, Problem};
use crate::access::{ApiToken, EnvironmentScope, Permission, PresentedToken};

/// The bearer of a known API token.
#[derive(Clone)]
pub(super) struct Caller {
    token: Arc<ApiToken>,
    presented: PresentedToken,
}

impl Caller {
    /// Returns the name of the token.
    pub(super) fn name(&self) -> &str {
        &self.token.name
    }

    /// Returns a 403 unless the caller has the permission.
    pub(super) fn must(&self, needed: &Permission) -> Result<(), Problem> {
        if self.token.may(needed) { Ok(()) } else { Err(self.lacks(needed)) }
    }

    pub(super) fn must_read(&self) -> Result<(), Problem> {
        self.must(&Permission::Read)
    }

    /// Returns a 403 unless the caller has one of these permissions for some environment. Called before an id is looked up, so that
    /// the answer does not tell whether it exists.
    pub(super) fn must_somewhere(&self, kinds: &[fn(EnvironmentScope) -> Permission]) -> Result<(), Problem> {
        match kinds {
            [first, ..] if !kinds.iter().any(|kind| self.token.may_somewhere(*kind)) => {
                Err(self.lacks(&first(EnvironmentScope::All)))
            }
            _ => Ok(()),
        }
    }

    /// Returns a 403 unless the caller may see the promotions and rollbacks of an environment.
    pub(super) fn must_see_requests(&self, environment: &str) -> Result<(), Problem> {
        if self.token.may_see_requests(environment) { Ok(()) } else { Err(self.lacks(&Permission::Read)) }
    }

    fn lacks(&self, needed: &Permission) -> Problem {
        let detail = format!("the token `{}` lacks the permission `{needed}`", self.name());
        Problem::new(StatusCode::FORBIDDEN, detail)
    }
}

impl FromRequestParts<App> for Caller {
    type Rejection = Problem;

    /// Returns the caller that [`authenticate`] found.
    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Problem> {
        parts.extensions.get::<Self>().cloned().ok_or_else(Problem::unauthorized)
    }
}

/// Rejects requests without a known token. Handlers get the bearer as a [`Caller`].
pub(super) async fn authenticate(
    State(app): State<App>,
    mut request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let caller = Caller::of(request.headers(), &app)?;
    request.extensions_mut().insert(caller);
    Ok(next.run(request).await)
}

impl Caller {
    /// Compares the presented token with every known one, so that the time does not depend on the match.
    fn of(headers: &HeaderMap, app: &App) -> Result<Self, Problem> {
        let presented = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let presented = PresentedToken::new(presented.and_then(bearer).ok_or_else(Problem::unauthorized)?);
        let token = find(&presented, &app.0.tokens.borrow()).ok_or_else(Problem::unauthorized)?;
        Ok(Self { token, presented })
    }

    /// Returns when a reload has taken the token away, or its permission to read.
    pub(super) async fn loses_read(self, app: App) {
        let keeps_it = |token: Arc<ApiToken>| token.may(&Permission::Read);
        let mut tokens = app.0.tokens.subscribe();
        // An error means that the server is gone.
        let _ = tokens.wait_for(|tokens| !find(&self.presented, tokens).is_some_and(keeps_it)).await;
    }
}

fn find(presented: &PresentedToken, tokens: &[Arc<ApiToken>]) -> Option<Arc<ApiToken>> {
    let mut found = None;
    for token in tokens {
        match token.secret.matches(presented) {
            Ok(true) => found = Some(token),
            Ok(false) => {}
            Err(error) => tracing::error!(token = token.name, %error, "API token cannot be read"),
        }
    }
    found.map(Arc::clone)
}

/// Returns the token of an `Authorization` header. The case of the scheme does not matter (RFC 9110, section 11.1).
fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scheme_is_bearer_in_any_case() {
        assert_eq!(bearer("Bearer abc"), Some("abc"));
        assert_eq!(bearer("bearer  abc "), Some("abc"));
        for header in ["Basic abc", "Bearer", "Bearer ", "abc", ""] {
            assert_eq!(bearer(header), None, "{header}");
        }
    }
}
