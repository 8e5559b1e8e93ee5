//! `GET /metrics`: what the broker counts, and what its plugins measure, in Prometheus's text form.
//!
//! The broker's counters are read when they are asked for; nothing is counted twice for this page. Its own series of plugins
//! begin with `vespiary_plugins_`, those that plugins measure with `vespiary_plugin_`.

use std::fmt;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use vespiary_core::Broker;
use vespiary_core::event::DropReason;

use super::{Api, Failure, inboxes};
use crate::plugins::metrics::escaped;
use crate::store::Durability;

/// The statuses of plugins.
const STATUSES: [&str; 6] = ["running", "probing", "swapping", "paused", "stopped", "broken"];

/// What was read for one page.
#[derive(Debug, Default)]
struct Page(Vec<Family>);

/// Series of one name.
#[derive(Debug)]
struct Family {
    name: &'static str,
    help: &'static str,
    counts: bool,
    samples: Vec<(Vec<(&'static str, String)>, f64)>,
}

/// The page.
pub(super) async fn metrics(State(api): State<Api>, headers: HeaderMap) -> Result<Response, Failure> {
    let asks_for_open_metrics = headers
        .get_all(header::ACCEPT)
        .iter()
        .any(|accept| accept.to_str().is_ok_and(|accept| accept.contains("application/openmetrics-text")));
    let content_type = if asks_for_open_metrics {
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
    } else {
        "text/plain; version=0.0.4; charset=utf-8"
    };
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Arc::clone(api.plugins.metrics())));
    registry.register_collector(Box::new(page(&api)));
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry)
        .map_err(|_| Failure(StatusCode::INTERNAL_SERVER_ERROR, "the measurements cannot be written".into()))?;
    Ok(([(header::CONTENT_TYPE, content_type)], text).into_response())
}

fn page(api: &Api) -> Page {
    let mut page = Page::default();
    let broker = api.driver.inspect(Broker::statistics);
    for (name, help, value) in [
        ("vespiary_connections", "Clients connected.", broker.connections as f64),
        ("vespiary_sessions", "Sessions of clients, connected or not.", broker.sessions as f64),
        ("vespiary_subscriptions", "Subscriptions of clients and plugins.", broker.subscriptions as f64),
        ("vespiary_retained_messages", "Retained messages.", broker.retained_messages as f64),
        ("vespiary_retained_bytes", "Weight of the retained messages.", broker.retained_bytes as f64),
        ("vespiary_inflight_messages", "Messages sent and not acknowledged.", broker.inflight_messages as f64),
        ("vespiary_queued_messages", "Messages in clients' queues.", broker.queued_messages as f64),
        ("vespiary_queued_bytes", "Weight of the messages in clients' queues.", broker.queued_bytes as f64),
        ("vespiary_inbox_events", "Events in all inboxes.", broker.inbox_events as f64),
    ] {
        page.gauge(name, help, vec![(Vec::new(), value)]);
    }
    let connections =
        (api.counters)().into_iter().map(|(name, count)| (vec![("event", name.to_owned())], count as f64));
    page.counter("vespiary_connection_events", "What happened to connections, by kind.", connections.collect());
    let one = |count: u64| vec![(Vec::new(), count as f64)];
    page.counter("vespiary_published_messages", "Publishes from clients.", one(api.driver.published()));
    page.counter("vespiary_delivered_messages", "Publishes to clients.", one(api.driver.delivered()));
    let dropped = DropReason::ALL.iter();
    let dropped = dropped.map(|&(reason, name)| (vec![("reason", name.to_owned())], api.driver.dropped(reason) as f64));
    page.counter("vespiary_dropped_messages", "Messages dropped, by reason.", dropped.collect());
    store(api, &mut page);
    plugins(api, &mut page);
    page
}

fn store(api: &Api, page: &mut Page) {
    let store = api.driver.store();
    let (commits, loads) = (store.commits(), store.loads());
    let up = matches!(&*store.watch().borrow(), Durability::UpTo(_));
    let one = |value: f64| vec![(Vec::new(), value)];
    page.gauge("vespiary_store_up", "1 while commits reach the disk.", one(f64::from(u8::from(up))));
    page.gauge("vespiary_store_backlog_bytes", "Handed over and not yet on disk.", one(store.backlog_bytes() as f64));
    page.counter("vespiary_store_commits", "Frames written to the log.", one(commits.commits as f64));
    page.counter("vespiary_store_changes", "Changes that became durable.", one(commits.changes as f64));
    page.counter("vespiary_store_checkpoints", "Transactions of the database.", one(commits.checkpoints as f64));
    page.counter("vespiary_store_failures", "Commits that failed and were tried again.", one(commits.failures as f64));
    page.counter("vespiary_store_loads", "Parts of queues read back.", one(loads.loads as f64));
}

fn plugins(api: &Api, page: &mut Page) {
    let counted = api.plugins.counted();
    let of = |name: &vespiary_core::event::PluginName| vec![("plugin", name.0.to_string())];
    let waiting = inboxes(&api.driver).into_iter().map(|(name, inbox)| (of(&name), inbox.events as f64));
    page.gauge("vespiary_plugins_inbox_events", "Events that wait in a plugin's inbox.", waiting.collect());
    let statuses = counted.iter().flat_map(|(name, status, _)| {
        let labels = move |one: &str| vec![("plugin", name.0.to_string()), ("status", one.to_owned())];
        STATUSES.iter().map(move |one| (labels(one), f64::from(u8::from(one == status))))
    });
    page.gauge("vespiary_plugins_status", "1 for the status that a plugin has.", statuses.collect());
    type Read = fn(&crate::plugins::Counts) -> f64;
    let counters: [(&'static str, &'static str, Read); 8] = [
        ("vespiary_plugins_handled", "Events handled.", |counts| counts.handled as f64),
        ("vespiary_plugins_retried", "Times an event failed and was put back.", |counts| counts.retried as f64),
        ("vespiary_plugins_dead", "Events given up.", |counts| counts.dead_lettered as f64),
        ("vespiary_plugins_calls", "Calls of the handler.", |counts| counts.calls as f64),
        ("vespiary_plugins_failed_calls", "Calls that failed as a whole.", |counts| counts.failed_calls as f64),
        ("vespiary_plugins_call_seconds", "Time spent in calls.", |counts| counts.call_us as f64 / 1e6),
        ("vespiary_plugins_published", "Messages published.", |counts| counts.published as f64),
        ("vespiary_plugins_denied", "Publishes refused for want of a grant.", |counts| counts.denied as f64),
    ];
    for (name, help, read) in counters {
        page.counter(name, help, counted.iter().map(|(plugin, _, counts)| (of(plugin), read(counts))).collect());
    }
    let questions = api.plugins.hook_counts().into_iter().flat_map(|(name, counts)| {
        [
            ("answered", counts.answered),
            ("failed", counts.failed),
            ("late", counts.late),
            ("crowded-out", counts.crowded_out),
            ("paused", counts.paused),
        ]
        .map(|(outcome, count)| (vec![("plugin", name.0.to_string()), ("outcome", outcome.to_owned())], count as f64))
    });
    page.counter("vespiary_plugins_hooks", "Questions to hooks, by what came of them.", questions.collect());
    let dropped = api.plugins.metrics().dropped();
    let dropped = dropped.iter().flat_map(|(name, dropped)| {
        [("over-limit", dropped.over_limit), ("conflicting", dropped.conflicting)].map(|(reason, count)| {
            let labels = vec![("plugin", name.0.to_string()), ("reason", reason.to_owned())];
            (labels, count as f64)
        })
    });
    page.counter("vespiary_plugins_dropped_measurements", "Measurements dropped, by reason.", dropped.collect());
}

impl Page {
    fn gauge(&mut self, name: &'static str, help: &'static str, samples: Vec<(Vec<(&'static str, String)>, f64)>) {
        self.0.push(Family { name, help, counts: false, samples });
    }

    /// A counter; its samples are exposed as `NAME_total`.
    fn counter(&mut self, name: &'static str, help: &'static str, samples: Vec<(Vec<(&'static str, String)>, f64)>) {
        self.0.push(Family { name, help, counts: true, samples });
    }
}

impl Collector for Page {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for family in &self.0 {
            let kind = if family.counts { MetricType::Counter } else { MetricType::Gauge };
            let mut metric = encoder.encode_descriptor(family.name, family.help, None, kind)?;
            for (labels, value) in &family.samples {
                let labels: Vec<(&str, String)> = labels.iter().map(|(name, value)| (*name, escaped(value))).collect();
                let sample = metric.encode_family(&labels)?;
                match family.counts {
                    true => ConstCounter::new(*value).encode(sample)?,
                    false => ConstGauge::new(*value).encode(sample)?,
                }
            }
        }
        Ok(())
    }
}
