//! The admin API's requests about plugins: deploy, look, pause, roll back, remove.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;
use vespiary_core::event::PluginName;

use super::{Api, Failure, inboxes};
use crate::plugins::deploy::{DeployError, DeployOptions};
use crate::plugins::manifest::parse_name;

#[derive(Deserialize)]
pub(super) struct RollbackQuery {
    to: Option<u32>,
}

#[derive(Deserialize)]
pub(super) struct DeployQuery {
    /// As a canary, with this share in percent.
    canary: Option<u8>,
    /// Only as a rehearsal.
    #[serde(default)]
    dry_run: bool,
    /// `off`, or `EVENTS,SECONDS`.
    probation: Option<String>,
}

impl DeployQuery {
    fn options(self) -> Result<DeployOptions, String> {
        if self.canary.is_some_and(|percent| !(1..=99).contains(&percent)) {
            return Err("canary is a share from 1 to 99 percent".to_owned());
        }
        let probation = match self.probation.as_deref() {
            None => None,
            Some("off") => Some((0, 0)),
            Some(text) => {
                let parts = text
                    .split_once(',')
                    .and_then(|(events, seconds)| Some((events.parse().ok()?, seconds.parse().ok()?)));
                Some(parts.ok_or("probation is off, or EVENTS,SECONDS")?)
            }
        };
        Ok(DeployOptions { canary_percent: self.canary, dry_run: self.dry_run, probation })
    }
}

pub(super) async fn list(State(api): State<Api>) -> Response {
    Json(api.plugins.list(&inboxes(&api.driver))).into_response()
}

pub(super) async fn show(State(api): State<Api>, Path(name): Path<String>) -> Result<Response, Failure> {
    let name = known(&name)?;
    blocking(move || api.plugins.show(&name, &inboxes(&api.driver))).await
}

pub(super) async fn deploy(
    State(api): State<Api>,
    Query(query): Query<DeployQuery>,
    headers: HeaderMap,
    component: Bytes,
) -> Result<Response, Failure> {
    let options = query.options().map_err(|reason| Failure(StatusCode::BAD_REQUEST, reason))?;
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if content_type != Some("application/wasm") {
        let message = "send the component as Content-Type: application/wasm".to_owned();
        return Err(Failure(StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
    }
    blocking(move || api.plugins.deploy(&component, &options)).await
}

pub(super) async fn promote(State(api): State<Api>, Path(name): Path<String>) -> Result<Response, Failure> {
    let name = known(&name)?;
    blocking(move || api.plugins.promote(&name)).await
}

pub(super) async fn abort(State(api): State<Api>, Path(name): Path<String>) -> Result<Response, Failure> {
    let plugin = known(&name)?;
    blocking(move || api.plugins.abort(&plugin).map(|()| json!({ "aborted": name }))).await
}

pub(super) async fn rollback(
    State(api): State<Api>,
    Path(name): Path<String>,
    Query(query): Query<RollbackQuery>,
) -> Result<Response, Failure> {
    let name = known(&name)?;
    blocking(move || api.plugins.rollback(&name, query.to)).await
}

pub(super) async fn remove(State(api): State<Api>, Path(name): Path<String>) -> Result<Response, Failure> {
    let plugin = known(&name)?;
    blocking(move || api.plugins.remove(&plugin).map(|()| json!({ "removed": name }))).await
}

pub(super) async fn pause(State(api): State<Api>, Path(name): Path<String>, paused: bool) -> Result<Response, Failure> {
    let plugin = known(&name)?;
    blocking(move || api.plugins.pause(&plugin, paused).map(|()| json!({ "plugin": name, "paused": paused }))).await
}

/// The plugin's name, if it is one.
pub(super) fn known(name: &str) -> Result<PluginName, Failure> {
    parse_name(name).map_err(|reason| Failure(StatusCode::BAD_REQUEST, reason))
}

/// Runs what may wait for guests and disks off the runtime's own thread.
pub(super) async fn blocking<T: serde::Serialize + Send + 'static>(
    work: impl FnOnce() -> Result<T, DeployError> + Send + 'static,
) -> Result<Response, Failure> {
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(answer)) => Ok(Json(answer).into_response()),
        Ok(Err(error)) => Err(Failure(status_of(&error), error.to_string())),
        Err(error) => {
            tracing::error!("an admin request panicked; this is a defect of the broker: {error}");
            Err(Failure(StatusCode::INTERNAL_SERVER_ERROR, "the request failed inside the broker: see its log".into()))
        }
    }
}

pub(super) fn status_of(error: &DeployError) -> StatusCode {
    match error {
        DeployError::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        DeployError::Component(_)
        | DeployError::Manifest(_)
        | DeployError::NotExported { .. }
        | DeployError::NoMigration { .. }
        | DeployError::Migration { .. }
        | DeployError::DoesNotStart { .. } => StatusCode::UNPROCESSABLE_ENTITY,
        DeployError::NotGranted(_) | DeployError::Signature(_) => StatusCode::FORBIDDEN,
        DeployError::Refused(_) => StatusCode::CONFLICT,
        DeployError::HasCanary(_)
        | DeployError::NoCanary(_)
        | DeployError::NotNow { .. }
        | DeployError::OtherState { .. } => StatusCode::CONFLICT,
        DeployError::Busy(_) | DeployError::TooMany(_) | DeployError::NoRevision { .. } => StatusCode::CONFLICT,
        DeployError::Unknown(_) | DeployError::MissingComponent { .. } => StatusCode::NOT_FOUND,
        DeployError::Store(error) if error.is_passing() => StatusCode::SERVICE_UNAVAILABLE,
        DeployError::DoesNotRest(_) | DeployError::Store(_) | DeployError::Unconfirmed(_) => {
            StatusCode::INTERNAL_SERVER_ERROR
        }
    }
}
