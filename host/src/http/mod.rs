//! The admin API: JSON over HTTP/1.1 on loopback, for the command line and for scripts.
//!
//! It has no authentication, so it answers only on loopback and only to programs: a request that carries `Origin` (a
//! browser's page made it) or whose `Host` is not a loopback name (DNS rebinding) is refused.
//!
//! | request | answer |
//! |---|---|
//! | `GET /api/v1/health` | `{"status":"ok"}` while the broker runs |
//! | `GET /api/v1/status` | counters of broker, store and plugins |
//! | `GET /api/v1/plugins` | every plugin, in short |
//! | `POST /api/v1/plugins` with a component (`application/wasm`) | deploys it |
//! | `GET /api/v1/plugins/NAME` | everything about one plugin |
//! | `DELETE /api/v1/plugins/NAME` | removes it with inbox, dead letters and state |
//! | `POST /api/v1/plugins/NAME/rollback?to=N` | makes an earlier revision's code active |
//! | `POST /api/v1/plugins/NAME/pause`, `.../resume` | stops or resumes handing events out |
//! | `GET /api/v1/plugins/NAME/logs?tail=N` | the last lines of its log |
//!
//! An error is `{"error": "one line"}` with a fitting status.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::watch;
use vespiary_core::Broker;
use vespiary_core::event::{DropReason, PluginName};

use crate::driver::Driver;
use crate::plugins::Plugins;
use crate::plugins::deploy::DeployError;
use crate::plugins::manifest::parse_name;
use crate::plugins::view::Inboxes;
use crate::store::{Durability, Store};

/// What the API reaches.
#[derive(Clone)]
struct Api {
    driver: Arc<Driver>,
    plugins: Arc<Plugins>,
}

/// An answer that says what went wrong.
struct Failure(StatusCode, String);

#[derive(Deserialize)]
struct RollbackQuery {
    to: Option<u32>,
}

#[derive(Deserialize)]
struct LogsQuery {
    tail: Option<usize>,
}

/// Serves the API until `stop` says so. `component_bytes` bounds an upload.
pub async fn serve(
    listener: tokio::net::TcpListener,
    driver: Arc<Driver>,
    plugins: Arc<Plugins>,
    component_bytes: usize,
    mut stop: watch::Receiver<bool>,
) -> std::io::Result<()> {
    // A little more than the limit is read, so that the answer can say what the limit is.
    let uploads = DefaultBodyLimit::max(component_bytes.saturating_add(1 << 20));
    let router = Router::new()
        .route("/api/v1/health", get(async || Json(json!({ "status": "ok" }))))
        .route("/api/v1/status", get(status))
        .route("/api/v1/plugins", get(list).post(deploy).layer(uploads))
        .route("/api/v1/plugins/{name}", get(show).delete(remove))
        .route("/api/v1/plugins/{name}/rollback", post(rollback))
        .route("/api/v1/plugins/{name}/pause", post(async |state, name| pause(state, name, true).await))
        .route("/api/v1/plugins/{name}/resume", post(async |state, name| pause(state, name, false).await))
        .route("/api/v1/plugins/{name}/logs", get(logs))
        .fallback(async || Failure(StatusCode::NOT_FOUND, "there is nothing here: see docs/guide/admin-api.md".into()))
        .layer(axum::middleware::from_fn(only_local_programs))
        .with_state(Api { driver, plugins });
    axum::serve(listener, router)
        .with_graceful_shutdown(async move {
            // An error means that whoever would say so is gone, which says it too.
            let _ = stop.wait_for(|stop| *stop).await;
        })
        .await
}

async fn only_local_programs(request: Request, next: Next) -> Response {
    let headers = request.headers();
    if headers.contains_key(header::ORIGIN) {
        return Failure(StatusCode::FORBIDDEN, "requests from web pages are not answered".into()).into_response();
    }
    if !has_loopback_host(headers) {
        return Failure(StatusCode::FORBIDDEN, "the Host header does not name this machine's loopback".into())
            .into_response();
    }
    next.run(request).await
}

fn has_loopback_host(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST).and_then(|host| host.to_str().ok()) else { return false };
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name == "localhost" || name.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback())
}

async fn status(State(api): State<Api>) -> Response {
    let broker = api.driver.inspect(Broker::statistics);
    let dropped: serde_json::Map<String, Value> =
        DropReason::ALL.iter().map(|&(reason, name)| (name.to_owned(), api.driver.dropped(reason).into())).collect();
    Json(json!({
        "broker": {
            "connections": broker.connections,
            "sessions": broker.sessions,
            "subscriptions": broker.subscriptions,
            "retained_messages": broker.retained_messages,
            "retained_bytes": broker.retained_bytes,
            "inflight_messages": broker.inflight_messages,
            "queued_messages": broker.queued_messages,
            "queued_bytes": broker.queued_bytes,
            "inbox_events": broker.inbox_events,
        },
        "dropped": dropped,
        "store": store(api.driver.store()),
        "plugins": api.plugins.list(&inboxes(&api.driver)),
    }))
    .into_response()
}

/// What the store does and how it is. `stored_messages` is null while it cannot be read.
fn store(store: &Store) -> Value {
    let (commits, loads) = (store.commits(), store.loads());
    let (state, reason) = match &*store.watch().borrow() {
        Durability::UpTo(_) => ("ok", None),
        Durability::Failing(reason) => ("failing", Some(reason.to_string())),
        Durability::Failed(reason) => ("failed", Some(reason.to_string())),
    };
    json!({
        "state": state,
        "reason": reason,
        "failures": commits.failures,
        "commits": commits.commits,
        "changes": commits.changes,
        "backlog_bytes": store.backlog_bytes(),
        "stored_messages": store.stored_messages().ok(),
        "loads": loads.loads,
        "load_mean_us": u64::try_from(loads.mean.as_micros()).unwrap_or(u64::MAX),
    })
}

/// Events that wait in each plugin's inbox.
fn inboxes(driver: &Driver) -> Inboxes {
    driver.inspect(|broker| broker.plugins().map(|plugin| (plugin.plugin.clone(), plugin.inbox_events)).collect())
}

async fn list(State(api): State<Api>) -> Response {
    Json(api.plugins.list(&inboxes(&api.driver))).into_response()
}

async fn show(State(api): State<Api>, Path(name): Path<String>) -> Result<Response, Failure> {
    let name = known(&name)?;
    blocking(move || api.plugins.show(&name, &inboxes(&api.driver))).await
}

async fn deploy(State(api): State<Api>, headers: HeaderMap, component: Bytes) -> Result<Response, Failure> {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if content_type != Some("application/wasm") {
        let message = "send the component as Content-Type: application/wasm".to_owned();
        return Err(Failure(StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
    }
    blocking(move || api.plugins.deploy(&component)).await
}

async fn rollback(
    State(api): State<Api>,
    Path(name): Path<String>,
    Query(query): Query<RollbackQuery>,
) -> Result<Response, Failure> {
    let name = known(&name)?;
    blocking(move || api.plugins.rollback(&name, query.to)).await
}

async fn remove(State(api): State<Api>, Path(name): Path<String>) -> Result<Response, Failure> {
    let plugin = known(&name)?;
    blocking(move || api.plugins.remove(&plugin).map(|()| json!({ "removed": name }))).await
}

async fn pause(State(api): State<Api>, Path(name): Path<String>, paused: bool) -> Result<Response, Failure> {
    let plugin = known(&name)?;
    blocking(move || api.plugins.pause(&plugin, paused).map(|()| json!({ "plugin": name, "paused": paused }))).await
}

async fn logs(
    State(api): State<Api>,
    Path(name): Path<String>,
    Query(query): Query<LogsQuery>,
) -> Result<Response, Failure> {
    let name = known(&name)?;
    blocking(move || api.plugins.logs(&name, query.tail.unwrap_or(100))).await
}

fn known(name: &str) -> Result<PluginName, Failure> {
    parse_name(name).map_err(|reason| Failure(StatusCode::BAD_REQUEST, reason))
}

/// Runs what may wait for guests and disks off the runtime's own thread.
async fn blocking<T: serde::Serialize + Send + 'static>(
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

fn status_of(error: &DeployError) -> StatusCode {
    match error {
        DeployError::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        DeployError::Component(_) | DeployError::Manifest(_) | DeployError::DoesNotStart { .. } => {
            StatusCode::UNPROCESSABLE_ENTITY
        }
        DeployError::NotGranted(_) => StatusCode::FORBIDDEN,
        DeployError::Refused(_) => StatusCode::CONFLICT,
        DeployError::Busy(_) | DeployError::TooMany(_) | DeployError::NoRevision { .. } => StatusCode::CONFLICT,
        DeployError::Unknown(_) | DeployError::MissingComponent { .. } => StatusCode::NOT_FOUND,
        DeployError::Store(error) if error.is_passing() => StatusCode::SERVICE_UNAVAILABLE,
        DeployError::DoesNotRest(_) | DeployError::Store(_) | DeployError::Unconfirmed(_) => {
            StatusCode::INTERNAL_SERVER_ERROR
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.0, Json(json!({ "error": self.1 }))).into_response()
    }
}
