//! `vespiary sub`: prints messages as they come, until a count, a time or ^C.
//!
//! A message is acknowledged once it is printed, so what is not printed stays with the broker in a durable session.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use base64::Engine as _;
use serde_json::{Map, Value, json};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;
use vespiary_core::Qos;
use vespiary_core::message::MessageProperties;

use super::connection::{ConnectionArgs, parse_qos};
use crate::mqtt::client::{Backoff, Client, ConnectOptions, Delivery};

/// Exit code where -W ran out, the one that `mosquitto_sub` has.
const TIMED_OUT: u8 = 27;

/// Flags of `sub`.
#[derive(Debug, clap::Args)]
pub(super) struct SubscribeArgs {
    #[command(flatten)]
    connection: ConnectionArgs,
    /// Topic filter; may be repeated
    #[arg(short, long = "topic", value_name = "FILTER", required = true)]
    topics: Vec<String>,
    /// Highest quality of service: 0, 1 or 2
    #[arg(short, long, value_name = "QOS", default_value = "0", value_parser = parse_qos)]
    qos: Qos,
    /// Print the topic before each message
    #[arg(short, long)]
    verbose: bool,
    /// Print each message as one JSON object, with all that is known of it
    #[arg(long)]
    json: bool,
    /// End after so many messages
    #[arg(short = 'C', long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// End after so many seconds, with exit code 27 unless -C is reached
    #[arg(short = 'W', long, value_name = "SECONDS", value_parser = parse_seconds)]
    timeout: Option<Duration>,
    /// Leave out retained messages
    #[arg(short = 'R', long)]
    no_retained: bool,
}

/// Why printing ended.
enum End {
    /// -C is reached.
    Counted,
    /// -W ran out.
    TimedOut,
    /// ^C, SIGTERM, or nobody reads our output any more.
    Stopped,
}

/// Subscribes and prints.
pub(super) async fn run(args: SubscribeArgs) -> anyhow::Result<ExitCode> {
    let deadline = args.timeout.map(|timeout| Instant::now() + timeout);
    let options = ConnectOptions {
        manual_acknowledge: true,
        reconnect: Some(Backoff::default()),
        ..args.connection.options("sub")
    };
    let mut client = Client::connect(options).await?;
    for filter in &args.topics {
        client.subscribe(filter, args.qos).await?;
    }
    let end = print(&mut client, &args, deadline).await?;
    // Without an answer the broker finds out by itself; nobody should wait long for the end of a ^C.
    match tokio::time::timeout(Duration::from_secs(2), client.disconnect()).await {
        Ok(result) => result?,
        Err(_) => client.abort().await,
    }
    Ok(match end {
        End::Counted | End::Stopped => ExitCode::SUCCESS,
        End::TimedOut => ExitCode::from(TIMED_OUT),
    })
}

async fn print(client: &mut Client, args: &SubscribeArgs, deadline: Option<Instant>) -> anyhow::Result<End> {
    let mut interrupted = signal(SignalKind::interrupt())?;
    let mut terminated = signal(SignalKind::terminate())?;
    let mut stdout = io::BufWriter::new(io::stdout());
    let mut printed = 0;
    loop {
        let first = tokio::select! {
            delivery = client.receive() => delivery?,
            () = sleep_until(deadline) => return Ok(End::TimedOut),
            _ = interrupted.recv() => return Ok(End::Stopped),
            _ = terminated.recv() => return Ok(End::Stopped),
        };
        let mut batch = vec![first];
        while batch.len() < 256 && args.count.is_none_or(|count| printed + (batch.len() as u64) < count) {
            match client.try_receive() {
                Some(delivery) => batch.push(delivery),
                None => break,
            }
        }
        for delivery in batch.iter().filter(|delivery| !(args.no_retained && delivery.retain)) {
            match write(&mut stdout, args, delivery) {
                Ok(()) => printed += 1,
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(End::Stopped),
                Err(error) => return Err(error).context("cannot write to stdout"),
            }
        }
        match stdout.flush() {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(End::Stopped),
            Err(error) => return Err(error).context("cannot write to stdout"),
        }
        for delivery in &batch {
            client.acknowledge(delivery).await?;
        }
        if args.count.is_some_and(|count| printed >= count) {
            return Ok(End::Counted);
        }
    }
}

fn write(output: &mut impl Write, args: &SubscribeArgs, delivery: &Delivery) -> io::Result<()> {
    if args.json {
        return writeln!(output, "{}", describe(delivery));
    }
    if args.verbose {
        write!(output, "{} ", delivery.topic)?;
    }
    output.write_all(&delivery.payload)?;
    output.write_all(b"\n")
}

/// A message as JSON. A payload that is no UTF-8 stands in `payload_base64`.
fn describe(delivery: &Delivery) -> Value {
    let mut object = Map::new();
    object.insert("topic".into(), json!(delivery.topic));
    match std::str::from_utf8(&delivery.payload) {
        Ok(text) => object.insert("payload".into(), json!(text)),
        Err(_) => object.insert("payload_base64".into(), json!(base64(&delivery.payload))),
    };
    object.insert("qos".into(), json!(delivery.qos as u8));
    object.insert("retain".into(), json!(delivery.retain));
    object.insert("dup".into(), json!(delivery.dup));
    if let Some(seconds) = delivery.expiry_s {
        object.insert("expiry_s".into(), json!(seconds));
    }
    if let Some(properties) = &delivery.properties {
        describe_properties(properties, &mut object);
    }
    Value::Object(object)
}

fn describe_properties(properties: &MessageProperties, object: &mut Map<String, Value>) {
    if let Some(content_type) = &properties.content_type {
        object.insert("content_type".into(), json!(content_type));
    }
    if let Some(topic) = &properties.response_topic {
        object.insert("response_topic".into(), json!(topic.as_str()));
    }
    if let Some(data) = &properties.correlation_data {
        object.insert("correlation_data_base64".into(), json!(base64(data)));
    }
    if !properties.user_properties.is_empty() {
        object.insert("user_properties".into(), json!(properties.user_properties));
    }
}

fn base64(bytes: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "a number of seconds".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: SubscribeArgs,
    }

    #[test]
    fn flags_are_read_as_users_of_mosquitto_sub_expect() {
        for (line, accepted) in [
            ("sub -t #", true),
            ("sub -t a -t b -q 2 -v -C 1 -W 0.5 -V 3.1.1 -i me", true),
            ("sub -t $share/g/a --json --clean false --id me --session-expiry 60", true),
            ("sub", false),
            ("sub -t a -C 0", false),
            ("sub -t a -W -1", false),
            ("sub -t a --clean false", false),
        ] {
            let parsed = Line::try_parse_from(line.split(' '));
            assert_eq!(parsed.is_ok(), accepted, "{line}: {parsed:?}");
        }
    }

    #[test]
    fn messages_are_printed_plainly_or_as_json() {
        let mut delivery = Delivery {
            topic: "a/b".into(),
            payload: b"21.5".to_vec(),
            qos: Qos::AtLeastOnce,
            retain: true,
            dup: false,
            packet_id: None,
            properties: Some(Box::new(MessageProperties {
                user_properties: vec![("k".into(), "v".into())],
                ..MessageProperties::default()
            })),
            expiry_s: None,
            subscription_identifiers: Vec::new(),
        };
        let printed = |line: &str, delivery: &Delivery| {
            let mut output = Vec::new();
            write(&mut output, &Line::try_parse_from(line.split(' ')).unwrap().args, delivery).unwrap();
            String::from_utf8(output).unwrap()
        };
        assert_eq!(printed("sub -t #", &delivery), "21.5\n");
        assert_eq!(printed("sub -t # -v", &delivery), "a/b 21.5\n");
        let object: Value = serde_json::from_str(&printed("sub -t # --json", &delivery)).unwrap();
        let expected = json!({
            "topic": "a/b", "payload": "21.5", "qos": 1, "retain": true, "dup": false, "user_properties": [["k", "v"]]
        });
        assert_eq!(object, expected);
        delivery.payload = vec![0xff, 0];
        assert!(printed("sub -t # --json", &delivery).contains(r#""payload_base64":"/wA=""#));
    }
}
