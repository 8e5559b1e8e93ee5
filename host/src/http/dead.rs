//! Dead letters over HTTP: listed, shown whole, handed out again, dropped.

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;
use serde_json::{Value, json};

use super::plugins::{blocking, known};
use super::{Api, Failure};
use crate::plugins::dead_letters::DeadSelection;
use crate::plugins::view::DeadLetterContent;

/// Letters that are listed when nothing is said.
const LISTED: usize = 100;

#[derive(Deserialize)]
pub(super) struct ListQuery {
    /// Only letters of events after this one.
    after: Option<u64>,
    /// How many at most.
    limit: Option<usize>,
}

/// Which letters: `{"all":true}` or `{"events":[17,18]}`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Selection {
    #[serde(default)]
    all: bool,
    #[serde(default)]
    events: Vec<u64>,
}

/// What is done to letters.
#[derive(Clone, Copy)]
pub(super) enum Action {
    /// They are handed out again.
    Replay,
    /// They are forgotten.
    Drop,
}

pub(super) async fn list(
    State(api): State<Api>,
    Path(name): Path<String>,
    Query(query): Query<ListQuery>,
) -> Result<Response, Failure> {
    let name = known(&name)?;
    blocking(move || api.plugins.dead_letters(&name, query.after, query.limit.unwrap_or(LISTED))).await
}

pub(super) async fn show(
    State(api): State<Api>,
    Path((name, event)): Path<(String, String)>,
) -> Result<Response, Failure> {
    let plugin = known(&name)?;
    let event: u64 = event
        .parse()
        .map_err(|_| Failure(StatusCode::BAD_REQUEST, format!("{event:?} is not an event: it is a number")))?;
    let letter = tokio::task::spawn_blocking(move || api.plugins.dead_letter(&plugin, event))
        .await
        .map_err(|_| Failure(StatusCode::INTERNAL_SERVER_ERROR, "the request failed inside the broker".into()))?
        .map_err(|error| Failure(super::plugins::status_of(&error), error.to_string()))?;
    match letter {
        Some(letter) => Ok(Json(described(letter)).into_response()),
        None => {
            let see = format!("see `vespiary plugin dead list {name}`");
            Err(Failure(StatusCode::NOT_FOUND, format!("plugin {name} has no dead letter of event {event}: {see}")))
        }
    }
}

pub(super) async fn change(
    State(api): State<Api>,
    Path(name): Path<String>,
    selection: Result<Json<Selection>, JsonRejection>,
    action: Action,
) -> Result<Response, Failure> {
    let name = known(&name)?;
    let bad = |reason: String| Failure(StatusCode::BAD_REQUEST, reason);
    let Json(selection) = selection.map_err(|rejection| bad(rejection.body_text()))?;
    let selection = match (selection.all, selection.events) {
        (true, events) if events.is_empty() => DeadSelection::All,
        (false, events) if !events.is_empty() => DeadSelection::Events(events),
        _ => return Err(bad("say which letters: {\"all\":true} or {\"events\":[17,18]}".to_owned())),
    };
    blocking(move || {
        let letters = match action {
            Action::Replay => api.plugins.replay_dead(&name, selection)?,
            Action::Drop => api.plugins.drop_dead(&name, selection)?,
        };
        Ok(json!({ "letters": letters }))
    })
    .await
}

/// A letter as JSON. A payload that is no UTF-8 stands in `payload_base64`.
fn described(letter: DeadLetterContent) -> Value {
    let payload = match std::str::from_utf8(&letter.payload) {
        Ok(text) => ("payload", text.to_owned()),
        Err(_) => ("payload_base64", BASE64.encode(&letter.payload)),
    };
    let mut value = json!(letter);
    if let Some(object) = value.as_object_mut() {
        object.remove("payload");
        object.insert(payload.0.to_owned(), payload.1.into());
    }
    value
}
