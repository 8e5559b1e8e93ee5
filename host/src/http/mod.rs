//! What answers over HTTP/1.1: the admin API and `/metrics` on loopback, and the plugins' own HTTP under `/services/`.
//!
//! The admin API has no authentication, so it answers only on loopback and only to programs: a request that a browser's page
//! made (`Origin`, `Sec-Fetch-Site`) or whose `Host` is not a loopback name (DNS rebinding) is refused. Services are on the
//! same listener under the same guard, and on a listener of their own, if there is one, without it.
//!
//! | request | answer |
//! |---|---|
//! | `GET /api/v1/health` | `{"status":"ok"}` while the broker runs |
//! | `GET /api/v1/status` | counters of broker, store and plugins |
//! | `GET /api/v1/plugins` | every plugin, in short |
//! | `POST /api/v1/plugins` with a component (`application/wasm`) | deploys it; `?canary=10`, `?dry_run=true`, `?probation=off` |
//! | `GET /api/v1/plugins/NAME` | everything about one plugin |
//! | `DELETE /api/v1/plugins/NAME` | removes it with inbox, dead letters and state |
//! | `POST /api/v1/plugins/NAME/rollback?to=N` | makes an earlier revision's code active |
//! | `POST /api/v1/plugins/NAME/promote`, `.../abort` | makes a canary active, or ends it |
//! | `GET /api/v1/plugins/NAME/dead?after=EVENT&limit=N`, `.../dead/EVENT` | dead letters, or one whole |
//! | `POST /api/v1/plugins/NAME/dead/replay`, `.../drop` | hands letters out again, or forgets them |
//! | `POST /api/v1/plugins/NAME/pause`, `.../resume` | stops or resumes handing events out |
//! | `GET /api/v1/plugins/NAME/logs?tail=N` | the last lines of its log; `&follow=true`: and those to come |
//! | `GET /metrics` | counters of broker and plugins, for Prometheus |
//! | any `/services/NAME/...` | what the plugin answers |
//!
//! An error is `{"error": "one line"}` with a fitting status.

mod plugins;

mod dead;

mod logs;

mod status;

mod metrics;

mod services;

mod listener;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, Request};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use axum::{Json, Router};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::driver::Driver;
use crate::plugins::Plugins;
use crate::plugins::view::Inboxes;

/// What a request reaches.
#[derive(Clone)]
struct Api {
    driver: Arc<Driver>,
    plugins: Arc<Plugins>,
    counters: Counters,
    stop: watch::Receiver<bool>,
    options: HttpOptions,
}

/// Bounds of requests.
#[derive(Debug, Clone, Copy)]
pub struct HttpOptions {
    /// Bytes of a component that is uploaded.
    pub component_bytes: usize,
    /// Bytes of the body of a request to a service.
    pub body_bytes: usize,
    /// How long the body of a request to a service may take to arrive.
    pub body_timeout: Duration,
}

/// Where requests come in.
#[derive(Debug)]
pub struct Listeners {
    /// For everything; loopback.
    pub admin: TcpListener,
    /// For services alone.
    pub services: Option<TcpListener>,
}

/// An answer that says what went wrong.
#[derive(Debug)]
struct Failure(StatusCode, String);

/// Gives what was counted of connections, by name.
pub type Counters = Arc<dyn Fn() -> Vec<(&'static str, u64)> + Send + Sync>;

/// Serves until `stop` says so.
pub async fn serve(
    listeners: Listeners,
    driver: Arc<Driver>,
    plugins: Arc<Plugins>,
    options: HttpOptions,
    counters: Counters,
    stop: watch::Receiver<bool>,
) -> std::io::Result<()> {
    let api = Api { driver, plugins, counters, stop: stop.clone(), options };
    let admin = axum::serve(listener::Bounded::new(listeners.admin), admin_router(api.clone()))
        .with_graceful_shutdown(stopped(stop.clone()));
    let Some(services) = listeners.services else { return admin.await };
    let services =
        axum::serve(listener::Bounded::new(services), services_router(api)).with_graceful_shutdown(stopped(stop));
    let (admin, services) = tokio::join!(admin.into_future(), services.into_future());
    admin.and(services)
}

async fn stopped(mut stop: watch::Receiver<bool>) {
    // An error means that whoever would say so is gone, which says it too.
    let _ = stop.wait_for(|stop| *stop).await;
}

fn admin_router(api: Api) -> Router {
    // A little more than the limit is read, so that the answer can say what the limit is.
    let uploads = DefaultBodyLimit::max(api.options.component_bytes.saturating_add(1 << 20));
    Router::new()
        .route("/api/v1/health", get(async || Json(json!({ "status": "ok" }))))
        .route("/api/v1/status", get(status::status))
        .route("/api/v1/plugins", get(plugins::list).post(plugins::deploy).layer(uploads))
        .route("/api/v1/plugins/{name}", get(plugins::show).delete(plugins::remove))
        .route("/api/v1/plugins/{name}/rollback", post(plugins::rollback))
        .route("/api/v1/plugins/{name}/pause", post(async |state, name| plugins::pause(state, name, true).await))
        .route("/api/v1/plugins/{name}/resume", post(async |state, name| plugins::pause(state, name, false).await))
        .route("/api/v1/plugins/{name}/promote", post(plugins::promote))
        .route("/api/v1/plugins/{name}/abort", post(plugins::abort))
        .route("/api/v1/plugins/{name}/logs", get(logs::logs))
        .route("/api/v1/plugins/{name}/dead", get(dead::list))
        .route("/api/v1/plugins/{name}/dead/{event}", get(dead::show))
        .route(
            "/api/v1/plugins/{name}/dead/replay",
            post(async |state, name, which| dead::change(state, name, which, dead::Action::Replay).await),
        )
        .route(
            "/api/v1/plugins/{name}/dead/drop",
            post(async |state, name, which| dead::change(state, name, which, dead::Action::Drop).await),
        )
        .route("/metrics", get(metrics::metrics))
        .merge(services_routes())
        .fallback(async || Failure(StatusCode::NOT_FOUND, "there is nothing here: see docs/guide/admin-api.md".into()))
        .layer(axum::middleware::from_fn(only_local_programs))
        .with_state(api)
}

fn services_router(api: Api) -> Router {
    let nothing = "there is nothing here: services are under /services/NAME/";
    services_routes().fallback(async move || Failure(StatusCode::NOT_FOUND, nothing.into())).with_state(api)
}

fn services_routes() -> Router<Api> {
    Router::new()
        .route("/services/{name}", any(services::serve))
        .route("/services/{name}/", any(services::serve))
        .route("/services/{name}/{*rest}", any(services::serve))
}

async fn only_local_programs(request: Request, next: Next) -> Response {
    let headers = request.headers();
    // A page of a service on this very listener is of the same origin and sends no `Origin` with GET; what the user typed
    // is `none`.
    let fetched = headers.get("sec-fetch-site").is_some_and(|site| site != "none");
    let of_a_service = request.uri().path().starts_with("/services/");
    if headers.contains_key(header::ORIGIN) || (fetched && !of_a_service) {
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

/// Events that wait in each plugin's inbox.
fn inboxes(driver: &Driver) -> Inboxes {
    driver.inspect(|broker| broker.plugins().map(|plugin| (plugin.plugin.clone(), (&plugin).into())).collect())
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.0, Json(json!({ "error": self.1 }))).into_response()
    }
}
