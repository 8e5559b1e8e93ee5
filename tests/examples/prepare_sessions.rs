//! Fills a broker with durable sessions that are away and have messages waiting, so that its next start can be measured.
//!
//! ```text
//! cargo build --release
//! printf '[limits]\nsessions = 1000000\nqueued_messages = 1000000\n' > large.toml
//! target/release/vespiary serve --config large.toml --mqtt 127.0.0.1:1883 --data large &
//! cargo run --release -p e2e --example prepare_sessions -- \
//!     --mqtt 127.0.0.1:1883 --sessions 100000 --messages 1000000
//! ```
//!
//! `--messages` counts entries of queues. `--sharing N` (default 1) gives N sessions the same subscription, so that N
//! entries have one payload; `--payload BYTES` (default 256) is its size. Sessions are called `prepared-NUMBER` and
//! subscribe to `prepared/GROUP/+` at QoS 1.
//!
//! To measure the start, end the broker and start it again: after `kill -TERM`, and, for a start after a crash, after
//! `kill -KILL`. The time is that from the start to the line `vespiary ready`; memory is `VmRSS` (now) and `VmHWM` (the
//! most so far) of `/proc/PID/status`:
//!
//! ```text
//! kill -TERM $!; wait
//! start=$(date +%s%N)
//! target/release/vespiary serve --config large.toml --data large > ready &
//! until grep -q ready ready; do sleep 0.01; done; echo $((($(date +%s%N) - start) / 1000000)) ms
//! grep -E 'VmRSS|VmHWM' /proc/$!/status
//! curl -s 127.0.0.1:8080/api/v1/status
//! ```
//!
//! The status must show the sessions under `broker.sessions` and the messages under `broker.queued_messages`. The file
//! system's cache holds the database after the first time; `echo 3 > /proc/sys/vm/drop_caches` empties it.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};

/// Connections open at one time; their changes share commits. Fewer than wait for a listener that has the common backlog
/// of 128: one more would be tried again after a second only.
const BATCH: usize = 100;
/// Publishes sent before their PUBACKs are awaited.
const WINDOW: usize = 1_000;
/// What the broker answers to a CONNECT without a session and to a SUBSCRIBE with QoS 1, in 3.1.1.
const WELCOME: [u8; 9] = [0x20, 2, 0, 0, 0x90, 3, 0, 1, 1];
/// DISCONNECT.
const DISCONNECT: [u8; 2] = [0xE0, 0];

/// What was asked for.
struct Arguments {
    mqtt: SocketAddr,
    sessions: usize,
    messages: usize,
    sharing: usize,
    payload: usize,
}

fn main() -> Result<()> {
    let arguments = Arguments::read()?;
    let started = Instant::now();
    for first in (0..arguments.sessions).step_by(BATCH) {
        let numbers = first..arguments.sessions.min(first + BATCH);
        connect_all(&arguments, numbers.clone())?;
        if numbers.end % 10_000 < BATCH {
            println!("{} sessions in {:.1?}", numbers.end, started.elapsed());
        }
    }
    println!("{} sessions in {:.1?}", arguments.sessions, started.elapsed());
    let started = Instant::now();
    let published = publish_all(&arguments, started)?;
    println!("{published} publishes for {} messages in {:.1?}", published * arguments.sharing, started.elapsed());
    Ok(())
}

impl Arguments {
    fn read() -> Result<Self> {
        let mqtt = SocketAddr::from(([127, 0, 0, 1], 1883));
        let mut read = Self { mqtt, sessions: 100_000, messages: 1_000_000, sharing: 1, payload: 256 };
        let mut arguments = std::env::args().skip(1);
        while let Some(name) = arguments.next() {
            let value = arguments.next().with_context(|| format!("{name} without a value"))?;
            match name.as_str() {
                "--mqtt" => read.mqtt = value.parse().context("--mqtt ADDR:PORT")?,
                "--sessions" => read.sessions = value.parse().context("--sessions NUMBER")?,
                "--messages" => read.messages = value.parse().context("--messages NUMBER")?,
                "--sharing" => read.sharing = value.parse().context("--sharing NUMBER")?,
                "--payload" => read.payload = value.parse().context("--payload BYTES")?,
                other => bail!("unknown argument {other}"),
            }
        }
        ensure!(read.sharing > 0 && read.sessions.is_multiple_of(read.sharing), "--sharing must divide --sessions");
        ensure!(read.sessions > 0 && read.payload < 1 << 20, "no sessions, or a payload of a megabyte");
        Ok(read)
    }

    /// Sessions that have the same subscription.
    fn group(&self, session: usize) -> usize {
        session / self.sharing
    }
}

/// Makes sessions with a subscription each, and leaves them.
fn connect_all(arguments: &Arguments, sessions: std::ops::Range<usize>) -> Result<()> {
    let mut streams = Vec::new();
    for session in sessions {
        let mut stream = TcpStream::connect(arguments.mqtt)?;
        // Nothing forbids to subscribe before CONNACK is here.
        let name = string(&format!("prepared-{session}"));
        let filter = string(&format!("prepared/{}/+", arguments.group(session)));
        let connect = packet(0x10, &[&b"\x00\x04MQTT\x04\x00\x00\x00"[..], &name].concat());
        let subscribe = packet(0x82, &[&[0, 1][..], &filter, &[1]].concat());
        stream.write_all(&[connect, subscribe].concat())?;
        streams.push((session, stream));
    }
    for (session, mut stream) in streams {
        let mut answer = [0; WELCOME.len()];
        stream.read_exact(&mut answer).with_context(|| format!("session {session} is not let in"))?;
        ensure!(answer == WELCOME, "session {session} is not new, or refused: {answer:02x?}");
        stream.write_all(&DISCONNECT)?;
    }
    Ok(())
}

/// Publishes to one group after the other until there are as many messages as asked for; gives how often.
fn publish_all(arguments: &Arguments, started: Instant) -> Result<usize> {
    let mut stream = TcpStream::connect(arguments.mqtt)?;
    stream.set_nodelay(true)?;
    let name = string("prepares-sessions");
    stream.write_all(&packet(0x10, &[&b"\x00\x04MQTT\x04\x02\x00\x00"[..], &name].concat()))?;
    let mut connack = [0; 4];
    stream.read_exact(&mut connack)?;
    ensure!(connack == [0x20, 2, 0, 0], "the publisher is not let in: {connack:02x?}");
    let (groups, publishes) = (arguments.sessions / arguments.sharing, arguments.messages / arguments.sharing);
    for first in (0..publishes).step_by(WINDOW) {
        let last = publishes.min(first + WINDOW);
        let window = first..last;
        let packets: Vec<Vec<u8>> = window.clone().map(|number| publish(arguments, number, groups)).collect();
        stream.write_all(&packets.concat())?;
        let mut acknowledgements = vec![0; 4 * window.len()];
        stream.read_exact(&mut acknowledgements).context("the broker does not acknowledge")?;
        let (chunks, _) = acknowledgements.as_chunks::<4>();
        ensure!(chunks.iter().all(|chunk| chunk[..2] == [0x40, 2]), "something else than PUBACK came");
        if last % 100_000 < WINDOW {
            println!("{last} publishes in {:.1?}", started.elapsed());
        }
    }
    stream.write_all(&DISCONNECT)?;
    Ok(publishes)
}

/// A PUBLISH with QoS 1 whose payload nobody else has.
fn publish(arguments: &Arguments, number: usize, groups: usize) -> Vec<u8> {
    let topic = string(&format!("prepared/{}/{}", number % groups, number / groups));
    let mut payload = number.to_string().into_bytes();
    payload.resize(arguments.payload.max(payload.len()), b'.');
    let packet_id = (number % WINDOW + 1) as u16;
    packet(0x32, &[&topic[..], &packet_id.to_be_bytes(), &payload].concat())
}

fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u16).to_be_bytes()[..], text.as_bytes()].concat()
}

/// First byte, remaining length, and the rest.
fn packet(first_byte: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![first_byte];
    let mut length = body.len();
    while length > 0x7F {
        packet.push((length & 0x7F) as u8 | 0x80);
        length >>= 7;
    }
    packet.push(length as u8);
    packet.extend(body);
    packet
}
