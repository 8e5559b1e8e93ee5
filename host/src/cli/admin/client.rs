//! A client of the admin API.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, bail};

/// How long one request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(120);
/// How long a deploy may: an interpreter of another language is compiled for minutes on a small machine.
const DEPLOY_TIMEOUT: Duration = Duration::from_secs(900);

/// Nobody answers.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(in crate::cli) struct NoBroker(String);

/// The broker says no.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub(in crate::cli) struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// Its line.
    reason: String,
}

/// A client of the admin API.
pub(in crate::cli) struct AdminClient {
    agent: ureq::Agent,
    base: String,
}

#[derive(serde::Deserialize)]
struct ErrorAnswer {
    error: String,
}

impl AdminClient {
    /// A client of the API at an address.
    pub(in crate::cli) fn at(address: SocketAddr) -> Self {
        let agent = ureq::Agent::config_builder()
            .timeout_global(Some(REQUEST_TIMEOUT))
            .http_status_as_error(false)
            .proxy(None)
            .build()
            .into();
        Self { agent, base: format!("http://{address}") }
    }

    /// Deploys a component; `query` is empty or begins with `?`.
    pub(in crate::cli) fn post_component(&self, component: &[u8], query: &str) -> anyhow::Result<String> {
        let request = self.agent.post(format!("{}/api/v1/plugins{query}", self.base));
        let request = request.config().timeout_global(Some(DEPLOY_TIMEOUT)).build();
        self.answer(request.header("content-type", "application/wasm").send(component))
    }

    /// What a path answers.
    pub(in crate::cli) fn get(&self, path: &str) -> anyhow::Result<String> {
        self.answer(self.agent.get(format!("{}{path}", self.base)).call())
    }

    /// The same with POST and no body.
    pub(in crate::cli) fn post(&self, path: &str) -> anyhow::Result<String> {
        self.answer(self.agent.post(format!("{}{path}", self.base)).send_empty())
    }

    /// The same with DELETE.
    pub(in crate::cli) fn delete(&self, path: &str) -> anyhow::Result<String> {
        self.answer(self.agent.delete(format!("{}{path}", self.base)).call())
    }

    /// The same with POST and a body in JSON.
    pub(in crate::cli) fn post_json(&self, path: &str, body: &serde_json::Value) -> anyhow::Result<String> {
        let request = self.agent.post(format!("{}{path}", self.base));
        self.answer(request.header("content-type", "application/json").send(&*body.to_string()))
    }

    /// What a path answers, as it comes and for as long as it comes.
    pub(in crate::cli) fn stream(&self, path: &str) -> anyhow::Result<impl BufRead + use<>> {
        let request = self.agent.get(format!("{}{path}", self.base));
        let unlimited = request.config().timeout_global(None).timeout_recv_response(Some(REQUEST_TIMEOUT)).build();
        let response = self.good(unlimited.call())?;
        Ok(BufReader::new(response.into_body().into_reader()))
    }

    /// The body of a good answer, or the error that a bad one carries.
    fn answer(&self, response: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> anyhow::Result<String> {
        self.good(response)?.body_mut().read_to_string().context("the broker's answer broke off")
    }

    fn good(
        &self,
        response: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> anyhow::Result<ureq::http::Response<ureq::Body>> {
        let mut response = response.map_err(|error| {
            NoBroker(format!(
                "no broker answers at {} ({error}): start one with `vespiary serve` or name it with --http",
                self.base
            ))
        })?;
        if response.status().is_success() {
            return Ok(response);
        }
        let body = response.body_mut().read_to_string().context("the broker's answer broke off")?;
        match serde_json::from_str::<ErrorAnswer>(&body) {
            Ok(answer) => Err(Refusal { status: response.status().as_u16(), reason: answer.error }.into()),
            Err(_) => bail!("{} answered with status {}: is it a Vespiary broker?", self.base, response.status()),
        }
    }
}
