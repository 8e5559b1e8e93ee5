//! Assembly: from a configuration to a running broker, and back to nothing without losing anything.
//!
//! Start: listeners, store, broker, plugins, then traffic. Stop: traffic first, then plugins, then the store, which
//! commits what waits. What is running is a [`Running`]; dropping it stops it.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use tokio::sync::watch;
use vespiary_core::{Broker, Limits};

use crate::config::{Config, ConfigError};
use crate::driver::Driver;
use crate::http::{HttpOptions, Listeners};
use crate::mqtt::{self, MqttOptions};
use crate::plugins::hooks::Hooks;
use crate::plugins::{Deployed, Links, Plugins};
use crate::store::{Store, StoreError, StoreOptions};
use crate::wasm::{Runtime, RuntimeError, WasmLimits};

/// How long the admin API's last requests may take once the broker stops.
const HTTP_GRACE: Duration = Duration::from_secs(2);

/// How long the body of a request to a service may take to arrive.
const SERVICE_BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Connections that the system keeps until they are accepted: a fleet that comes back at once. The system may allow less.
const WAITING_CONNECTIONS: i32 = 4096;

/// Why the broker cannot start or had to stop; one line that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The configuration contradicts itself.
    #[error("{0}")]
    Config(#[from] ConfigError),
    /// An address cannot be listened on.
    #[error("cannot listen on {address} for {purpose}: {source}; choose another with {flag}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// `MQTT`, `the admin API` or `services`.
        purpose: &'static str,
        /// The flag or the key that changes it.
        flag: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// The data directory cannot be used.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// The sandbox cannot be set up.
    #[error("{0}")]
    Sandbox(#[from] RuntimeError),
    /// The system refused something else.
    #[error("cannot {what}: {source}")]
    System {
        /// What was attempted.
        what: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// The store failed while running: nothing more can be promised.
    #[error("the store failed and the broker stopped, so that nothing is acknowledged that is not on disk: {0}")]
    StoreFailed(Arc<str>),
    /// A defect of the broker.
    #[error("a thread of the broker panicked; this is a defect of the broker: see its log")]
    Panicked,
}

/// A running broker.
#[derive(Debug)]
pub struct Running {
    /// Where it listens for MQTT.
    pub mqtt: SocketAddr,
    /// Where its admin API listens.
    pub http: SocketAddr,
    /// Where services listen by themselves, if they do.
    pub services: Option<SocketAddr>,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<Result<(), ServeError>>>,
}

/// Starts a broker; when this returns, both listeners take connections.
pub fn start(config: &Config) -> Result<Running, ServeError> {
    config.check()?;
    let authorities = config.plugins.http_authorities()?;
    let mqtt_listener = listen(config.mqtt.listen, "MQTT", "--mqtt ADDR:PORT")?;
    let http_listener = listen(config.http.listen, "the admin API", "--http ADDR:PORT")?;
    let services_listener = match config.http.services_listen {
        Some(address) => Some(listen(address, "services", "http.services_listen")?),
        None => None,
    };
    let system = |what| move |source| ServeError::System { what, source };
    let services = match &services_listener {
        Some(listener) => Some(listener.local_addr().map_err(system("read the services' address"))?),
        None => None,
    };
    let mqtt = mqtt_listener.local_addr().map_err(system("read the MQTT address"))?;
    let http = http_listener.local_addr().map_err(system("read the admin API's address"))?;

    let directory = &config.data.0;
    let opened =
        Store::open(directory, &StoreOptions { cache_bytes: config.store.cache_bytes, ..StoreOptions::default() })?;
    let store = opened.store;
    let seed = fastrand::u64(..);
    let limits = core_limits(config);
    let broker = Broker::restore(limits.clone(), seed, opened.changes);
    let runtime = Runtime::new(wasm_limits(config), &directory.join("cache"))?.trusting(authorities);
    let deployed = broker.plugins().map(|plugin| Deployed {
        name: plugin.plugin.clone(),
        session: plugin.session,
        state: plugin.state,
        revision: plugin.revision.clone(),
        probation: plugin.probation.map(|(revision, handled)| (revision.clone(), handled)),
        lanes: plugin.lanes,
    });
    let deployed = deployed.collect();
    let hooks = Hooks::default();
    let plugins = Plugins::new(config, runtime, store.clone(), hooks.clone());
    let options = MqttOptions { hooks, ..mqtt_options(config) };
    let workers = if config.mqtt.workers == 0 { mqtt::default_workers() } else { config.mqtt.workers };
    let outbound = Arc::clone(&plugins);
    let sink = Box::new(move |effect| outbound.effect(effect));
    let driver = Arc::new(Driver::new(broker, limits, store.clone(), workers, sink));
    plugins.start(links(&driver), deployed);

    let (stop, stopped) = watch::channel(false);
    let assembled = Assembled {
        store,
        plugins,
        driver,
        options,
        mqtt_listener,
        http_listener,
        services_listener,
        http_options: HttpOptions {
            component_bytes: config.plugins.component_bytes,
            body_bytes: config.plugins.http_body_bytes,
            body_timeout: SERVICE_BODY_TIMEOUT,
        },
        stop: stop.clone(),
        stopped,
    };
    let thread = std::thread::Builder::new()
        .name("vespiary-server".to_owned())
        .spawn(move || assembled.run())
        .map_err(system("start a thread"))?;
    Ok(Running { mqtt, http, services, stop, thread: Some(thread) })
}

impl Running {
    /// Asks it to stop and waits until it has.
    pub fn stop(mut self) -> Result<(), ServeError> {
        self.request_stop();
        self.join()
    }

    /// Waits until it has stopped, by a request or by a failure.
    pub fn wait(mut self) -> Result<(), ServeError> {
        self.join()
    }

    /// Something that asks it to stop, also from a signal handler.
    pub fn stopper(&self) -> impl Fn() + Send + 'static {
        let stop = self.stop.clone();
        move || {
            stop.send_replace(true);
        }
    }

    fn request_stop(&self) {
        self.stop.send_replace(true);
    }

    fn join(&mut self) -> Result<(), ServeError> {
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(ServeError::Panicked),
            None => Ok(()),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.request_stop();
        if let Err(error) = self.join() {
            tracing::error!("{error}");
        }
    }
}

/// All parts, before and while traffic flows.
struct Assembled {
    store: Store,
    plugins: Arc<Plugins>,
    driver: Arc<Driver>,
    options: MqttOptions,
    mqtt_listener: TcpListener,
    http_listener: TcpListener,
    services_listener: Option<TcpListener>,
    http_options: HttpOptions,
    stop: watch::Sender<bool>,
    stopped: watch::Receiver<bool>,
}

impl Assembled {
    fn run(self) -> Result<(), ServeError> {
        let http = self.spawn_http()?;
        mqtt::serve(Arc::clone(&self.driver), self.mqtt_listener, self.options, self.stopped).map_err(|error| {
            match error {
                mqtt::ServeError::SetUp(source) => ServeError::System { what: "serve MQTT", source },
                mqtt::ServeError::StoreFailed(reason) => ServeError::StoreFailed(reason),
            }
        })?;
        self.stop.send_replace(true);
        self.plugins.stop();
        let http = http.join().map_err(|_| ServeError::Panicked)?;
        let closed = self.store.close();
        http?;
        Ok(closed?)
    }

    /// The thread of the admin API; it also watches the store, whose failure stops everything.
    fn spawn_http(&self) -> Result<JoinHandle<Result<(), ServeError>>, ServeError> {
        let system = |what| move |source| ServeError::System { what, source };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(system("start the admin API's runtime"))?;
        let listener = self.http_listener.try_clone().map_err(system("share the admin API's socket"))?;
        let (driver, plugins) = (Arc::clone(&self.driver), Arc::clone(&self.plugins));
        let services = match &self.services_listener {
            Some(listener) => Some(listener.try_clone().map_err(system("share the services' socket"))?),
            None => None,
        };
        let (stop, mut stopped, options) = (self.stop.clone(), self.stopped.clone(), self.http_options);
        let mut ended = self.store.ended();
        let mqtt = Arc::clone(&self.options.counters);
        let counters: crate::http::Counters = Arc::new(move || mqtt.list());
        let body = async move {
            let tokio = |listener| tokio::net::TcpListener::from_std(listener).map_err(system("serve HTTP"));
            let listeners = Listeners { admin: tokio(listener)?, services: services.map(tokio).transpose()? };
            let api = crate::http::serve(listeners, driver, plugins, options, counters, stopped.clone());
            tokio::pin!(api);
            let failure = tokio::select! {
                served = &mut api => return served.map_err(system("serve the admin API")),
                // An error means that the store is closed, which is no failure.
                reason = ended.wait_for(Option::is_some) => reason.ok().and_then(|reason| reason.clone()),
                _ = stopped.wait_for(|stop| *stop) => None,
            };
            stop.send_replace(true);
            // A request that does not end in time, such as a deploy, is cut off.
            let _ = tokio::time::timeout(HTTP_GRACE, api).await;
            failure.map_or(Ok(()), |reason| Err(ServeError::StoreFailed(reason)))
        };
        std::thread::Builder::new()
            .name("vespiary-http".to_owned())
            .spawn(move || {
                let result = runtime.block_on(body);
                runtime.shutdown_background();
                result
            })
            .map_err(system("start a thread"))
    }
}

fn listen(address: SocketAddr, purpose: &'static str, flag: &'static str) -> Result<TcpListener, ServeError> {
    bind(address).map_err(|source| ServeError::Listen { address, purpose, flag, source })
}

fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(WAITING_CONNECTIONS)?;
    Ok(socket.into())
}

/// What leads from the plugins to the broker, which owns them.
fn links(driver: &Arc<Driver>) -> Links {
    let (posting, asking) = (Arc::downgrade(driver), Arc::downgrade(driver));
    Links {
        post: Box::new(move |input| {
            if let Some(driver) = posting.upgrade() {
                driver.post(input);
            }
        }),
        retained: Arc::new(move |topic| asking.upgrade()?.inspect(|broker| broker.retained_message(topic))),
    }
}

fn core_limits(config: &Config) -> Limits {
    let limits = config.limits.resolve();
    Limits {
        shared_strategy: config.mqtt.shared_subscriptions.into(),
        probation_events: limits.probation_events.max(config.plugins.probation_events as usize),
        ..limits
    }
}

fn mqtt_options(config: &Config) -> MqttOptions {
    let settings = &config.mqtt;
    MqttOptions {
        packet_bytes: settings.packet_bytes,
        connect_timeout_ms: u64::from(settings.connect_timeout_s) * 1_000,
        keep_alive_maximum_s: (settings.keep_alive_maximum_s > 0).then_some(settings.keep_alive_maximum_s),
        stalled_timeout_ms: u64::from(settings.stalled_timeout_s) * 1_000,
        topic_aliases: settings.topic_aliases,
        denied_subscriptions: settings.denied_subscriptions.clone(),
        anonymous: settings.allow_anonymous.unwrap_or(true),
        server_reference: settings.server_reference.as_ref().map(|reference| reference.0.as_str().into()),
        response_information: settings.response_information.as_ref().map(|topic| topic.0.as_str().into()),
        ..MqttOptions::default()
    }
}

fn wasm_limits(config: &Config) -> WasmLimits {
    let settings = &config.plugins;
    WasmLimits {
        memory_bytes: settings.memory_bytes,
        call_deadline_ms: settings.call_deadline_ms,
        publishes_per_call: settings.publishes_per_call,
        publish_bytes_per_call: settings.publish_bytes_per_call,
        write_bytes_per_call: settings.write_bytes_per_call,
        component_bytes: settings.component_bytes,
        log_lines_per_s: settings.log_lines_per_s,
        http_call_deadline_ms: settings.http_call_deadline_ms,
        http_body_bytes: settings.http_body_bytes,
        state_bytes: settings.state_bytes,
        ..WasmLimits::default()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn what_the_configuration_says_of_clients_reaches_the_listener() {
        let text = "[mqtt]\nkeep_alive_maximum_s = 60\ntopic_aliases = 3\ndenied_subscriptions = [\"a/#\"]\n\
                    server_reference = \"there:1883\"\nresponse_information = \"reply/to\"\n";
        let options = mqtt_options(&Config::parse(text, Path::new("x")).unwrap());
        assert_eq!((options.keep_alive_maximum_s, options.topic_aliases), (Some(60), 3));
        assert_eq!(options.denied_subscriptions[0].0.as_str(), "a/#");
        assert_eq!(options.server_reference.as_deref(), Some("there:1883"));
        assert_eq!(options.response_information.as_deref(), Some("reply/to"));

        let default = mqtt_options(&Config::default());
        assert_eq!((default.keep_alive_maximum_s, default.topic_aliases), (None, 32));
        assert!(default.denied_subscriptions.is_empty());
        assert!(default.anonymous);
        let closed = Config::parse("[mqtt]\nallow_anonymous = false\n", Path::new("x")).unwrap();
        assert!(!mqtt_options(&closed).anonymous);
        assert_eq!((default.server_reference, default.response_information), (None, None));
    }
}
