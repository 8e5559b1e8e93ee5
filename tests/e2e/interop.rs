//! Other people's clients against the broker: what a user has today works unchanged.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::client::Client;
use super::harness::{Broker, PATIENCE, eventually, run_limited};
use super::tools;

/// How long a foreign client may take for a whole scenario.
const LIMIT: Duration = Duration::from_secs(120);

#[test]
fn mosquitto_clients_publish_and_subscribe() -> Result<()> {
    let Some(_) = tools::mosquitto("mosquitto_sub") else { return Ok(()) };
    let directory = tempfile::tempdir()?;
    let broker = Broker::start(&directory.path().join("data"))?;
    for version in ["mqttv311", "mqttv5"] {
        for qos in ["0", "1", "2"] {
            mosquitto_round(&broker, version, qos).with_context(|| format!("{version}, QoS {qos}"))?;
        }
    }
    Ok(())
}

fn mosquitto_round(broker: &Broker, version: &str, qos: &str) -> Result<()> {
    let (host, port) = (broker.mqtt.ip().to_string(), broker.mqtt.port().to_string());
    let address = ["-h", &host, "-p", &port, "-V", version, "-q", qos];
    let before = broker.status()?["broker"]["subscriptions"].as_u64();
    let subscriber = tools::mosquitto("mosquitto_sub")
        .context("it was there")?
        .args(address)
        .args(["-t", "assets/#", "-v", "-C", "3"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    eventually("the subscription stands", || Ok(broker.status()?["broker"]["subscriptions"].as_u64() > before))?;
    for payload in ["one", "two", "three"] {
        let mut publisher = tools::mosquitto("mosquitto_pub").context("it was there")?;
        let output = run_limited(publisher.args(address).args(["-t", "assets/pump-1", "-m", payload]), LIMIT)?;
        ensure!(output.status.success(), "mosquitto_pub: {}", String::from_utf8_lossy(&output.stderr));
    }
    let printed = String::from_utf8(subscriber.wait_with_output()?.stdout)?;
    ensure!(printed == "assets/pump-1 one\nassets/pump-1 two\nassets/pump-1 three\n", "{printed}");
    Ok(())
}

#[test]
fn paho_speaks_both_versions() -> Result<()> {
    let Some(python) = tools::paho() else { return Ok(()) };
    let directory = tempfile::tempdir()?;
    let broker = Broker::start(&directory.path().join("data"))?;
    foreign_scenario(Command::new(python).arg("e2e/scenarios/paho_scenario.py"), &broker)
}

#[test]
fn gmqtt_speaks_both_versions() -> Result<()> {
    let Some(python) = tools::gmqtt() else { return Ok(()) };
    let directory = tempfile::tempdir()?;
    let broker = Broker::start(&directory.path().join("data"))?;
    foreign_scenario(Command::new(python).arg("e2e/scenarios/gmqtt_scenario.py"), &broker)
}

#[test]
fn aiomqtt_speaks_both_versions() -> Result<()> {
    let Some(python) = tools::aiomqtt() else { return Ok(()) };
    let directory = tempfile::tempdir()?;
    let broker = Broker::start(&directory.path().join("data"))?;
    foreign_scenario(Command::new(python).arg("e2e/scenarios/aiomqtt_scenario.py"), &broker)
}

#[test]
fn mqtt_js_speaks_both_versions() -> Result<()> {
    let Some(folder) = tools::mqtt_js() else { return Ok(()) };
    let directory = tempfile::tempdir()?;
    let broker = Broker::start(&directory.path().join("data"))?;
    foreign_scenario(
        Command::new("node").arg("e2e/scenarios/mqtt_js_scenario.js").env("NODE_PATH", folder.join("node_modules")),
        &broker,
    )
}

/// Runs a script that ends with 0 when everything that it expects came true.
fn foreign_scenario(command: &mut Command, broker: &Broker) -> Result<()> {
    command.arg(broker.mqtt.ip().to_string()).arg(broker.mqtt.port().to_string());
    let output = run_limited(command.current_dir(env!("CARGO_MANIFEST_DIR")), LIMIT)?;
    ensure!(
        output.status.success(),
        "{}{}\nbroker: {}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
        broker.log()
    );
    Ok(())
}

#[test]
fn our_own_pub_and_sub_understand_each_other() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let broker = Broker::start(&directory.path().join("data"))?;
    for version in ["3.1.1", "5"] {
        for qos in ["0", "1", "2"] {
            let topic = format!("own/{version}/{qos}");
            broker.ok(&["pub", "-t", &topic, "-m", "kept", "-q", qos, "-r", "-V", version])?;
            let seen = broker.ok(&["sub", "-t", "own/+/#", "-q", qos, "-V", version, "-C", "1", "-W", "30", "-v"])?;
            ensure!(seen == format!("{topic} kept\n"), "{seen:?}");
            broker.ok(&["pub", "-t", &topic, "-m", "", "-q", qos, "-r", "-V", version])?;
        }
    }
    Ok(())
}

#[test]
fn an_idle_broker_answers_pings() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let broker = Broker::start(&directory.path().join("data"))?;
    let mut client = Client::connect(broker.mqtt, "pinger", true)?;
    client.send_raw(&[0xC0, 0x00])?;
    ensure!(client.receive(PATIENCE)? == Some(super::client::Packet::Pingresp));
    Ok(())
}
