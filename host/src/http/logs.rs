//! A plugin's log over HTTP: its last lines, and those to come, one JSON object a line.
//!
//! Who follows and is cut off goes on with `after=SEQUENCE` of the last line that came: what was written meanwhile comes first,
//! as far as it is kept. An empty line every few seconds says that both ends are there.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use http_body::Frame;
use serde::Deserialize;
use tokio::sync::{broadcast, mpsc, watch};
use vespiary_core::event::PluginName;

use super::plugins::{blocking, known, status_of};
use super::{Api, Failure};
use crate::plugins::{Entry, Plugins};

/// Lines given when nothing is said.
const TAIL: usize = 100;
/// How often an empty line is sent while nothing happens.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// Lines that wait for a follower's socket; then its own receiver falls behind.
const UNSENT: usize = 64;

#[derive(Deserialize)]
pub(super) struct LogsQuery {
    /// How many of the last lines.
    tail: Option<usize>,
    /// Only lines after the one with this sequence.
    after: Option<u64>,
    /// Whether to go on with the lines to come.
    #[serde(default)]
    follow: bool,
}

/// A body whose lines come from a channel.
struct Lines(mpsc::Receiver<Bytes>);

/// The last lines as a JSON array, or a stream of lines.
pub(super) async fn logs(
    State(api): State<Api>,
    Path(name): Path<String>,
    Query(query): Query<LogsQuery>,
) -> Result<Response, Failure> {
    let name = known(&name)?;
    let tail = query.tail.unwrap_or(TAIL);
    let after = query.after.unwrap_or(0);
    let plugins = api.plugins;
    if !query.follow {
        let last = move || Ok(kept_after(plugins.logs(&name, tail)?, after));
        return blocking(last).await;
    }
    let refused = |error| Failure(status_of(&error), error.to_string());
    // Subscribed first: a line that is written between the two is in both, and sent once.
    let receiver = plugins.follow_logs(&name).map_err(refused)?;
    let kept = kept_after(plugins.logs(&name, tail).map_err(refused)?, after);
    let (sender, lines) = mpsc::channel(UNSENT);
    tokio::spawn(follow(plugins, name, (kept, after), receiver, sender, api.stop));
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], Body::new(Lines(lines))).into_response())
}

/// Sends lines until nobody reads them, the plugin is removed or the broker stops.
async fn follow(
    plugins: std::sync::Arc<Plugins>,
    name: PluginName,
    (kept, mut last): (Vec<Entry>, u64),
    mut receiver: broadcast::Receiver<Entry>,
    sender: mpsc::Sender<Bytes>,
    stop: watch::Receiver<bool>,
) {
    let mut entries = kept;
    loop {
        for entry in entries.drain(..) {
            if entry.sequence <= last {
                continue;
            }
            let mut line = serde_json::to_vec(&entry).unwrap_or_default();
            line.push(b'\n');
            if sender.send(line.into()).await.is_err() {
                return;
            }
            last = entry.sequence;
        }
        tokio::select! {
            received = receiver.recv() => match received {
                Ok(entry) => entries.push(entry),
                Err(broadcast::error::RecvError::Lagged(_)) => match plugins.logs(&name, usize::MAX) {
                    Ok(kept) => entries = kept,
                    Err(_) => return,
                },
                Err(broadcast::error::RecvError::Closed) => return,
            },
            () = tokio::time::sleep(HEARTBEAT) => {
                if sender.send(Bytes::from_static(b"\n")).await.is_err() {
                    return;
                }
            }
            () = sender.closed() => return,
            () = super::stopped(stop.clone()) => return,
        }
    }
}

fn kept_after(mut entries: Vec<Entry>, after: u64) -> Vec<Entry> {
    entries.retain(|entry| entry.sequence > after);
    entries
}

impl http_body::Body for Lines {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|line| line.map(|line| Ok(Frame::data(line))))
    }
}
