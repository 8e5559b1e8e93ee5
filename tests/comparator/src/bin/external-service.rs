//! The service as a process beside a broker; see the library.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use comparator::service::Service;
use comparator::store::Store;
use comparator::{group, tuned};

/// The vibration service as a client of an MQTT broker. Prints `ready` when its subscriptions stand.
#[derive(Debug, Parser)]
struct Args {
    /// Address of the broker
    #[arg(long, value_name = "ADDR:PORT")]
    broker: SocketAddr,
    /// Directory of its records
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// How it speaks to the broker
    #[arg(long, value_enum)]
    client: Client,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Client {
    /// rumqttc and a worker with group commit
    Group,
    /// A codec by hand, on one thread
    Tuned,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let service = Service::new(Store::open(&args.data)?);
    match args.client {
        Client::Group => group::run(args.broker, service),
        Client::Tuned => tuned::run(args.broker, service),
    }
}
