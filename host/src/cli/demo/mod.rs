//! `vespiary demo`: the broker, the asset-management services and twenty simulated machines, and what happens.
//!
//! Everything is real: machines are MQTT clients over TCP, services are components built from source and deployed
//! through the admin API, one of them is replaced under traffic, and at the end an audit compares what each machine sent
//! with what the service committed. Exit code 0 says: nothing lost, nothing doubled, nothing out of order.

mod audit;
mod it_system;
mod machine;
mod plant;
mod story;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::json;
use vespiary_core::Qos;

use self::audit::Audit;
use self::it_system::{ItSystem, TECHNICIANS};
use self::plant::{Plant, PlantOptions};
use self::story::Story;
use super::admin::AdminClient;
use super::build::Build;
use crate::clock::wall_clock;
use crate::config::{Config, DataDirectory};
use crate::mqtt::client::{Client, ConnectOptions, Publish};
use crate::plugins::deploy::DeployReport;
use crate::server::{self, Running};

/// Flags of `demo`.
#[derive(Debug, clap::Args)]
pub(super) struct DemoArgs {
    /// Leave the broker up after the story, until ^C
    #[arg(long)]
    keep_running: bool,
    /// Seconds of traffic, 20 at least
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u64).range(20..=3_600))]
    seconds: u64,
    /// Readings a second of each machine
    #[arg(long, default_value_t = 25, value_parser = clap::value_parser!(u64).range(10..=500))]
    rate: u64,
    /// Another seed is another plant: another machine fails
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// The checkout that holds the services' sources
    #[arg(long, value_name = "DIR", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/.."))]
    source: PathBuf,
}

/// A service to deploy.
struct Service {
    /// Its directory under `plugins/`.
    name: &'static str,
    /// Cargo features that make another version of it.
    features: Option<&'static str>,
}

/// The services, in the order in which they are deployed first.
const SERVICES: [Service; 4] = [
    Service { name: "asset-monitoring", features: None },
    Service { name: "asset-health", features: None },
    Service { name: "work-orders", features: None },
    Service { name: "maintenance-schedule", features: None },
];
/// The version of `asset-health` that takes over half-way.
const BETTER_HEALTH: Service = Service { name: "asset-health", features: Some("trend") };

/// Runs the demo.
pub(super) fn run(args: &DemoArgs) -> anyhow::Result<ExitCode> {
    let sources = args.source.join("plugins");
    ensure!(
        sources.is_dir(),
        "the services' sources are not at {}: name a checkout of Vespiary with --source",
        sources.display()
    );
    println!("Vespiary: twenty machines, four services, one broker, one process.\n");
    let started = Instant::now();
    let components = SERVICES.iter().map(|service| service.build(&sources)).collect::<anyhow::Result<Vec<_>>>()?;
    let better_health = BETTER_HEALTH.build(&sources)?;
    println!("Built four services and a second version of asset-health in {:.1} s.", started.elapsed().as_secs_f64());

    let directory = TemporaryDirectory::new()?;
    let mut config = Config { data: DataDirectory(directory.0.join("data")), ..Config::default() };
    config.mqtt.listen.set_port(0);
    config.http.listen.set_port(0);
    let broker = server::start(&config)?;
    println!("The broker listens: MQTT on {}, admin API on {}.", broker.mqtt, broker.http);
    let api = AdminClient::at(broker.http);
    for component in &components {
        let deployed = deploy(&api, component)?;
        println!(
            "Deployed {} {} ({} KiB, compiled in {:.0} ms).",
            deployed.plugin,
            deployed.version,
            component.len().div_ceil(1024),
            deployed.compile_ms
        );
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let audit = runtime.block_on(tell(args, &broker, better_health))?;
    audit.print();
    print_what_to_try(&broker, args.keep_running);
    if args.keep_running {
        super::serve::stop_on_signals(broker.stopper())?;
        broker.wait()?;
    } else {
        broker.stop()?;
    }
    Ok(if audit.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The story itself: machines send, services react, a better service takes over, and an audit compares.
async fn tell(args: &DemoArgs, broker: &Running, better_health: Vec<u8>) -> anyhow::Result<Audit> {
    let ticks = args.seconds * args.rate;
    let interval = Duration::from_micros(1_000_000 / args.rate);
    let options = PlantOptions::for_run(args.seed, wall_clock().0, 1_000 / args.rate, ticks);
    let plant = Arc::new(Plant::new(options));
    let address = broker.mqtt.to_string();
    register(&address, &plant).await?;
    let it_system = ItSystem::begin(&address, Arc::clone(&plant)).await?;
    let story = Story::begin(&address).await?;
    story.tell(&format!(
        "{} machines connect and send {} readings a second, for {} seconds. Each learns first what is normal for it.",
        plant.machines().len(),
        plant.machines().len() as u64 * args.rate,
        args.seconds
    ));
    let started = Instant::now();
    let machines: Vec<_> = (0..plant.machines().len())
        .map(|number| {
            let (plant, address) = (Arc::clone(&plant), address.clone());
            let schedule = machine::Schedule { started, interval, ticks };
            tokio::spawn(async move { machine::run(&plant, number, &address, schedule).await })
        })
        .collect();
    let reporter = tokio::spawn(story::report_progress(story.clone(), Arc::clone(&plant), started, interval, ticks));

    tokio::time::sleep_until((started + interval * u32::try_from(ticks / 2)?).into()).await;
    story.tell("A better detector is ready: asset-health 2 is deployed over version 1, while readings flow.");
    let api = AdminClient::at(broker.http);
    let swapped = tokio::task::spawn_blocking(move || deploy(&api, &better_health)).await??;
    story.tell(&format!(
        "asset-health went from revision {} to {} (version {}); no event was handed out for {:.2} ms, none was refused.",
        swapped.replaced.unwrap_or(0),
        swapped.revision,
        swapped.version,
        swapped.pause_ms
    ));
    let mut sent = Vec::new();
    for machine in machines {
        sent.push(machine.await??);
    }
    reporter.abort();
    let audit = Audit::run(&address, &plant, sent, swapped.pause_ms, story.counts(), it_system.reserved()).await?;
    story.end().await;
    it_system.end().await;
    Ok(audit)
}

/// Tells the services what machines there are; retained, as an operator's system would do it.
async fn register(address: &str, plant: &Plant) -> anyhow::Result<()> {
    let mut client = Client::connect(ConnectOptions::new(address).client_id("demo-registry")).await?;
    for machine in plant.machines() {
        let payload = serde_json::to_vec(machine)?;
        let topic = format!("registry/assets/{}", machine.asset);
        client.publish(Publish::new(topic, payload).qos(Qos::AtLeastOnce).retained()).await?;
    }
    for (id, name, skills) in TECHNICIANS {
        let payload = json!({ "name": name, "skills": skills, "shift": { "from": "00:00", "to": "24:00" } });
        let topic = format!("registry/technicians/{id}");
        client.publish(Publish::new(topic, payload.to_string()).qos(Qos::AtLeastOnce).retained()).await?;
    }
    client.disconnect().await?;
    Ok(())
}

fn deploy(api: &AdminClient, component: &[u8]) -> anyhow::Result<DeployReport> {
    Ok(serde_json::from_str(&api.post_component(component, "")?)?)
}

fn print_what_to_try(broker: &Running, keep_running: bool) {
    let (mqtt, http) = (broker.mqtt, broker.http);
    if keep_running {
        println!("\nThe broker stays up until ^C. Try:");
    } else {
        println!("\nRun `vespiary demo --keep-running` (its ports are printed) and try:");
    }
    println!(
        "  mosquitto_sub -h {} -p {} -v -t 'assets/+/alerts' -t 'workorders/#' -t 'checks/#'",
        mqtt.ip(),
        mqtt.port()
    );
    println!("  mosquitto_pub -h {} -p {} -q 1 -t 'assets/PUMP-01/health/query' -n", mqtt.ip(), mqtt.port());
    println!("  vespiary plugin show asset-health --http {http}");
    println!("  vespiary new my-plugin && cd my-plugin && vespiary build");
    println!("  vespiary deploy --http {http} target/wasm32-wasip2/component/my_plugin.wasm");
}

impl Service {
    /// Compiles it and gives the component.
    fn build(&self, sources: &Path) -> anyhow::Result<Vec<u8>> {
        println!("Building {}{} ...", self.name, self.features.map_or("", |_| ", second version"));
        let directory = sources.join(self.name);
        let build = Build { directory: &directory, package: None, profile: "component", features: self.features };
        let component = build.run()?;
        std::fs::read(&component).with_context(|| format!("cannot read {}", component.display()))
    }
}

/// A directory that goes with the demo.
struct TemporaryDirectory(PathBuf);

impl TemporaryDirectory {
    fn new() -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(format!("vespiary-demo-{}", std::process::id()));
        std::fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for TemporaryDirectory {
    fn drop(&mut self) {
        // What cannot be removed is left to the system's own cleaning of temporary files.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
