//! A broker's admin API, as far as benchmarks of deployment need it.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde::Deserialize;

/// How long one request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(120);

/// A client of the API.
#[derive(Clone)]
pub(super) struct Remote {
    agent: ureq::Agent,
    plugins: String,
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

impl Remote {
    /// A client of the API at an address.
    pub(super) fn at(address: SocketAddr) -> Self {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(REQUEST_TIMEOUT))
            .http_status_as_error(false)
            .proxy(None)
            .build();
        Self { agent: config.into(), plugins: format!("http://{address}/api/v1/plugins") }
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
