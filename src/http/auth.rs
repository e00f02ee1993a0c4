use axum::extract::{FromRequestParts, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::request::Parts;
use http::{HeaderMap, StatusCode, header};

use super::{App, Problem};
use crate::settings::{EnvironmentScope, Permission};

/// The bearer of an API token that is known.
#[derive(Clone)]
pub(super) struct Caller {
    /// The name of the token.
    pub(super) name: String,
    permissions: Vec<Permission>,
}

impl Caller {
    /// Returns an error unless the caller may do this.
    pub(super) fn must(&self, needed: &Permission) -> Result<(), Problem> {
        if self.permissions.iter().any(|permission| permission.covers(needed)) {
            Ok(())
        } else {
            let detail = format!("the token `{}` lacks the permission `{needed}`", self.name);
            Err(Problem::new(StatusCode::FORBIDDEN, detail))
        }
    }

    pub(super) fn must_read(&self) -> Result<(), Problem> {
        self.must(&Permission::Read)
    }

    /// Returns an error unless the caller may read, or may change this environment and so must see what that does.
    pub(super) fn must_follow(&self, environment: &str) -> Result<(), Problem> {
        let changes = [Permission::Promote(one(environment)), Permission::Rollback(one(environment))];
        if changes.iter().any(|needed| self.must(needed).is_ok()) { Ok(()) } else { self.must_read() }
    }
}

pub(super) fn one(environment: &str) -> EnvironmentScope {
    EnvironmentScope::One(environment.to_owned())
}

impl FromRequestParts<App> for Caller {
    type Rejection = Problem;

    /// Returns whom [`authenticate`] has found.
    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Problem> {
        parts.extensions.get::<Self>().cloned().ok_or_else(Problem::unauthorized)
    }
}

/// Lets nobody in without a token that is known. Handlers get its bearer as a [`Caller`].
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
    /// Compares the presented token with every token that there is, so that the time tells nothing.
    fn of(headers: &HeaderMap, app: &App) -> Result<Self, Problem> {
        let presented = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let presented = presented.and_then(bearer).ok_or_else(Problem::unauthorized)?;
        let mut found = None;
        for token in &app.0.tokens {
            match token.secret.matches(presented) {
                Ok(true) => found = Some(token),
                Ok(false) => {}
                Err(error) => tracing::error!(token = token.name, %error, "an API token cannot be read"),
            }
        }
        let token = found.ok_or_else(Problem::unauthorized)?;
        Ok(Self { name: token.name.clone(), permissions: token.permissions.clone() })
    }
}

/// Returns the token behind the scheme, whose letter case does not matter (RFC 9110, section 11.1).
fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scheme_is_bearer_in_any_case() {
        assert_eq!(bearer("Bearer abc"), Some("abc"));
        assert_eq!(bearer("bearer  abc "), Some("abc"));
        for header in ["Basic abc", "Bearer", "Bearer ", "abc", ""] {
            assert_eq!(bearer(header), None, "{header}");
        }
    }
}
