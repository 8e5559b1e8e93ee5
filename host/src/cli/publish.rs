//! `vespiary pub`: publishes one message, or one a line of stdin. Done when the broker has acknowledged all.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use tokio::sync::mpsc;
use vespiary_core::Qos;
use vespiary_core::message::MessageProperties;

use super::connection::{ConnectionArgs, parse_property, parse_qos};
use crate::mqtt::client::{Client, Publish, Receipt};

/// Longest line of stdin, and largest file, in bytes: what fits into a packet.
const PAYLOAD_BYTES: u64 = 256 << 20;

/// Flags of `pub`.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("payload").required(true))]
pub(super) struct PublishArgs {
    #[command(flatten)]
    connection: ConnectionArgs,
    /// Topic to publish to
    #[arg(short, long)]
    topic: String,
    /// The message
    #[arg(short, long, value_name = "TEXT", group = "payload")]
    message: Option<String>,
    /// A file that holds the message; `-` for stdin
    #[arg(short, long, group = "payload")]
    file: Option<PathBuf>,
    /// Publish each line of stdin as a message
    #[arg(short = 'l', long, group = "payload")]
    lines: bool,
    /// Publish an empty message; with --retain it clears the topic
    #[arg(short, long, group = "payload")]
    null_message: bool,
    /// Quality of service: 0, 1 or 2
    #[arg(short, long, value_name = "QOS", default_value = "0", value_parser = parse_qos)]
    qos: Qos,
    /// Let the broker retain the message
    #[arg(short, long)]
    retain: bool,
    /// User property (5.0); may be repeated
    #[arg(short = 'D', long = "user-property", value_name = "NAME=VALUE", value_parser = parse_property)]
    user_properties: Vec<(Box<str>, Box<str>)>,
    /// Content type (5.0)
    #[arg(long, value_name = "TYPE")]
    content_type: Option<Box<str>>,
    /// Seconds after which the message is not worth delivering (5.0)
    #[arg(long, value_name = "SECONDS")]
    expiry: Option<u32>,
}

/// Publishes.
pub(super) async fn run(args: PublishArgs) -> anyhow::Result<ExitCode> {
    // What can be wrong with the message is said before anybody is bothered with a connection.
    let single = if args.lines { None } else { Some(payload(&args)?) };
    let mut client = Client::connect(args.connection.options("pub")).await?;
    match single {
        Some(payload) => {
            client.publish(args.publish(payload)).await?;
        }
        None => publish_lines(&client, &args).await?,
    }
    client.disconnect().await?;
    Ok(ExitCode::SUCCESS)
}

/// Publishes each line; the acknowledgements of as many as the window holds are awaited meanwhile.
async fn publish_lines(client: &Client, args: &PublishArgs) -> anyhow::Result<()> {
    let (sender, mut lines) = mpsc::channel(64);
    // Not tokio's stdin: a blocking read in its pool would keep the process from ending.
    std::thread::spawn(move || read_lines(&sender));
    let mut receipts: VecDeque<Receipt> = VecDeque::new();
    let mut published = 0_u64;
    while let Some(line) = lines.recv().await {
        let line = line.context("cannot read stdin")?;
        let receipt = client.start(args.publish(line)).await;
        receipts.push_back(receipt.with_context(|| format!("after {published} lines"))?);
        if receipts.len() > 256
            && let Some(receipt) = receipts.pop_front()
        {
            receipt.done().await.with_context(|| format!("after {published} lines"))?;
            published += 1;
        }
    }
    for receipt in receipts {
        receipt.done().await.with_context(|| format!("after {published} lines"))?;
        published += 1;
    }
    Ok(())
}

fn read_lines(sender: &mpsc::Sender<std::io::Result<Vec<u8>>>) {
    let mut input = BufReader::new(std::io::stdin());
    loop {
        let mut line = Vec::new();
        let result = match input.by_ref().take(PAYLOAD_BYTES).read_until(b'\n', &mut line) {
            Ok(0) => return,
            Ok(_) => {
                let end = line.strip_suffix(b"\n").map_or(&line[..], |line| line.strip_suffix(b"\r").unwrap_or(line));
                let length = end.len();
                line.truncate(length);
                Ok(line)
            }
            Err(error) => Err(error),
        };
        let failed = result.is_err();
        if sender.blocking_send(result).is_err() || failed {
            return;
        }
    }
}

fn payload(args: &PublishArgs) -> anyhow::Result<Vec<u8>> {
    let Some(path) = &args.file else {
        return Ok(args.message.clone().unwrap_or_default().into_bytes());
    };
    let mut payload = Vec::new();
    if path.as_os_str() == "-" {
        std::io::stdin().take(PAYLOAD_BYTES).read_to_end(&mut payload).context("cannot read stdin")?;
    } else {
        let file = std::fs::File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        file.take(PAYLOAD_BYTES)
            .read_to_end(&mut payload)
            .with_context(|| format!("cannot read {}", path.display()))?;
    }
    Ok(payload)
}

impl PublishArgs {
    fn publish(&self, payload: Vec<u8>) -> Publish {
        let properties = MessageProperties {
            content_type: self.content_type.clone(),
            user_properties: self.user_properties.clone(),
            ..MessageProperties::default()
        };
        Publish {
            topic: self.topic.clone(),
            payload,
            qos: self.qos,
            retain: self.retain,
            expiry_s: self.expiry,
            properties: (properties != MessageProperties::default()).then(|| Box::new(properties)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: PublishArgs,
    }

    #[test]
    fn flags_are_read_as_users_of_mosquitto_pub_expect() {
        for (line, accepted) in [
            ("pub -t a -m x", true),
            ("pub -t a -m x -q 2 -r -i me -V 3.1.1", true),
            ("pub -t a -l -q 1 -D k=v -D k=w --expiry 5", true),
            ("pub -t a -f /etc/hostname --clean false --id me", true),
            ("pub -t a -n -r", true),
            ("pub -t a", false),
            ("pub -m x", false),
            ("pub -t a -m x -l", false),
            ("pub -t a -m x -q 3", false),
            ("pub -t a -m x -V 4.0", false),
            ("pub -t a -m x -D novalue", false),
            ("pub -t a -m x --clean false", false),
        ] {
            let parsed = Line::try_parse_from(line.split(' '));
            assert_eq!(parsed.is_ok(), accepted, "{line}: {parsed:?}");
        }
    }

    #[test]
    fn flags_make_the_message_and_the_session() {
        let line = "pub -t a/b -m hello -q 1 -r -D k=v=w --content-type text/plain -i me --clean false";
        let args = Line::try_parse_from(line.split(' ')).unwrap().args;
        let publish = args.publish(payload(&args).unwrap());
        assert_eq!(
            (&*publish.topic, &*publish.payload, publish.qos, publish.retain),
            ("a/b", &b"hello"[..], Qos::AtLeastOnce, true)
        );
        let properties = publish.properties.unwrap();
        assert_eq!(properties.user_properties, [("k".into(), "v=w".into())]);
        assert_eq!(properties.content_type.as_deref(), Some("text/plain"));
        let options = args.connection.options("pub");
        assert_eq!((&*options.client_id, options.clean_start, options.session_expiry_s), ("me", false, u32::MAX));
    }
}
