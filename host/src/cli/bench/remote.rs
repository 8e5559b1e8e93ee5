//! A broker's admin API, as far as benchmarks of deployment need it.

use std::net::SocketAddr;
use std::ops::{Add, Sub};
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

/// How long one request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(120);

/// A client of the API.
#[derive(Clone)]
pub(super) struct Remote {
    agent: ureq::Agent,
    /// Where plugins are.
    plugins: String,
    /// Where measurements are.
    metrics: String,
}

/// What a deploy answers.
#[derive(Debug, Deserialize)]
pub(super) struct Deployed {
    /// The plugin's name.
    pub(super) plugin: String,
    /// Milliseconds of compiling, or of reading from the cache.
    pub(super) compile_ms: f64,
    /// Milliseconds without dispatch.
    pub(super) pause_ms: f64,
}

/// One line of the list.
#[derive(Debug, Deserialize)]
pub(super) struct Listed {
    /// `running`, if it is.
    pub(super) status: String,
}

/// Questions to a plugin's hooks, by what came of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(super) struct Questions {
    /// In time.
    pub(super) answered: u64,
    /// The hook failed.
    failed: u64,
    /// There was no answer within the deadline.
    late: u64,
    /// Too many waited.
    crowded_out: u64,
    /// The hook was given a rest, because it had failed too often.
    paused: u64,
}

impl Remote {
    /// A client of the API at an address.
    pub(super) fn at(address: SocketAddr) -> Self {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(REQUEST_TIMEOUT))
            .http_status_as_error(false)
            .proxy(None)
            .build();
        Self {
            agent: config.into(),
            plugins: format!("http://{address}/api/v1/plugins"),
            metrics: format!("http://{address}/metrics"),
        }
    }

    /// Deploys a component.
    pub(super) fn deploy(&self, component: &[u8]) -> anyhow::Result<Deployed> {
        let request = self.agent.post(&self.plugins).header("content-type", "application/wasm");
        let answer = self.answer(request.send(component)).context("cannot deploy")?;
        serde_json::from_str(&answer).context("the answer to a deploy")
    }

    /// All plugins.
    pub(super) fn list(&self) -> anyhow::Result<Vec<Listed>> {
        serde_json::from_str(&self.answer(self.agent.get(&self.plugins).call())?).context("the list of plugins")
    }

    /// Removes a plugin with its state.
    pub(super) fn remove(&self, name: &str) -> anyhow::Result<()> {
        let answer = self.answer(self.agent.delete(format!("{}/{name}", self.plugins)).call());
        answer.map(drop).with_context(|| format!("cannot remove {name}"))
    }

    /// What a plugin's hooks were asked since the broker's start.
    pub(super) fn questions(&self, plugin: &str) -> anyhow::Result<Questions> {
        let page = self.answer(self.agent.get(&self.metrics).call()).context("cannot read the metrics")?;
        Ok(Questions::read(&page, plugin))
    }

    fn answer(&self, response: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> anyhow::Result<String> {
        let mut response = response.with_context(|| format!("no broker answers at {}", self.plugins))?;
        // The list of a thousand plugins is longer than what is read unless told.
        let body = response.body_mut().with_config().limit(64 << 20).read_to_string()?;
        if !response.status().is_success() {
            bail!("{}: {body}", response.status());
        }
        Ok(body)
    }
}

impl Questions {
    /// From the page of metrics.
    fn read(page: &str, plugin: &str) -> Self {
        let count = |outcome: &str| {
            let series = format!("vespiary_plugins_hooks_total{{plugin=\"{plugin}\",outcome=\"{outcome}\"}} ");
            let value = page.lines().find_map(|line| line.strip_prefix(&series)?.parse::<f64>().ok());
            // A plugin that was never asked need not be there.
            value.unwrap_or(0.0) as u64
        };
        Self {
            answered: count("answered"),
            failed: count("failed"),
            late: count("late"),
            crowded_out: count("crowded-out"),
            paused: count("paused"),
        }
    }

    /// All of them.
    pub(super) fn all(self) -> u64 {
        let Self { answered, failed, late, crowded_out, paused } = self;
        answered + failed + late + crowded_out + paused
    }

    /// For people.
    pub(super) fn describe(self) -> String {
        let Self { answered, failed, late, crowded_out, paused } = self;
        format!("{answered} answered, {failed} failed, {late} late, {crowded_out} crowded out, {paused} in a pause")
    }

    fn with(self, other: Self, count: fn(u64, u64) -> u64) -> Self {
        Self {
            answered: count(self.answered, other.answered),
            failed: count(self.failed, other.failed),
            late: count(self.late, other.late),
            crowded_out: count(self.crowded_out, other.crowded_out),
            paused: count(self.paused, other.paused),
        }
    }
}

impl Add for Questions {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        self.with(other, u64::add)
    }
}

impl Sub for Questions {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        self.with(earlier, u64::saturating_sub)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_those_of_the_plugin() {
        let page = "# TYPE vespiary_plugins_hooks counter\n\
            vespiary_plugins_hooks_total{plugin=\"b\",outcome=\"answered\"} 7.0\n\
            vespiary_plugins_hooks_total{plugin=\"a\",outcome=\"answered\"} 12.0\n\
            vespiary_plugins_hooks_total{plugin=\"a\",outcome=\"crowded-out\"} 3\n";
        let questions = Questions::read(page, "a");
        assert_eq!(questions, Questions { answered: 12, crowded_out: 3, ..Questions::default() });
        assert_eq!((questions.all(), Questions::read(page, "c").all()), (15, 0));
        let more = questions + Questions { late: 2, ..Questions::read(page, "b") };
        assert_eq!(more - questions, Questions { answered: 7, late: 2, ..Questions::default() });
    }
}
