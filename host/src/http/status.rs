//! `GET /api/v1/status`: counters of broker, connections, drops, store and plugins, as JSON.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use vespiary_core::Broker;
use vespiary_core::event::DropReason;

use super::Api;
use crate::store::{Durability, Store};

/// Everything that is counted.
pub(super) async fn status(State(api): State<Api>) -> Response {
    // Waits for a checkpoint.
    let database = api.driver.store().clone();
    let stored = tokio::task::spawn_blocking(move || database.stored_messages().ok()).await.ok().flatten();
    let broker = api.driver.inspect(Broker::statistics);
    let connections: serde_json::Map<String, Value> =
        (api.counters)().into_iter().map(|(name, count)| (name.to_owned(), count.into())).collect();
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
        "connections": connections,
        "dropped": dropped,
        "store": store(api.driver.store(), stored),
        "plugins": api.plugins.list(&super::inboxes(&api.driver)),
    }))
    .into_response()
}

/// What the store does and how it is. `stored_messages` is null while it cannot be read.
fn store(store: &Store, stored_messages: Option<u64>) -> Value {
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
        "checkpoints": commits.checkpoints,
        "changes": commits.changes,
        "backlog_bytes": store.backlog_bytes(),
        "stored_messages": stored_messages,
        "loads": loads.loads,
        "load_mean_us": u64::try_from(loads.mean.as_micros()).unwrap_or(u64::MAX),
    })
}
