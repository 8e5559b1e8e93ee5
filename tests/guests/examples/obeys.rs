//! Does what each event's payload says, one command a line; how tests drive the host's functions one at a time.
//!
//! State: `set KEY VALUE`, `set-for MS KEY VALUE`, `cas KEY EXPECTED VALUE` (`-` for none), `add KEY AMOUNT`, `get KEY`, `delete KEY`,
//! `scan PREFIX AFTER LIMIT` (`-` for no AFTER), `fill KEY BYTES`. Broker: `publish TOPIC PAYLOAD`,
//! `expiring SECONDS TOPIC PAYLOAD`, `request MS TOPIC PAYLOAD`, `disconnect CLIENT`, `retained TOPIC`, `timer NAME AT PAYLOAD`,
//! `big-timer NAME BYTES`, `schedule NAME CRON`, `cancel NAME`. Around: `log LEVEL TEXT`, `print TEXT`, `complain TEXT` (stderr),
//! `config KEY`, `secret NAME` (reveals and prints it), `count NAME AMOUNT LABELS` and `gauge NAME VALUE` (labels as `A=B`),
//! `show` and `captures` (of the event), `sleep MS`, `spin`, `look` (around in the system), `exit CODE`, `panic TEXT`. Transactions:
//! `begin EVENT`, `rollback`, `retry REASON`, `later MS`, `reject REASON`, and `forget` (gives no outcome). What a command finds out is
//! published to `out/COMMAND`. What the broker tells of clients is published to `out/client` with its topic, and that a request was
//! not answered to `out/unanswered`.

#![cfg(target_arch = "wasm32")]

use guests::{Event, Guest, Outcome, Property, Retry, broker, logging, metrics, secrets, state, timers, transaction};

struct Plugin;

impl Guest for Plugin {
    fn handle(events: Vec<Event>) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        for event in events {
            transaction::begin(event.id);
            let mut commands = String::from_utf8_lossy(&event.payload).into_owned();
            if event.topic.starts_with("$clients/") && commands.starts_with('{') {
                tell("client", &format!("{} {commands}", event.topic));
                commands.clear();
            } else if event.topic.starts_with("$reply/") && commands.is_empty() {
                tell("unanswered", &show(&event));
            }
            let mut outcome = Some(Outcome::Done);
            for line in commands.lines() {
                let (command, rest) = line.split_once(' ').unwrap_or((line, ""));
                match command {
                    "retry" => outcome = Some(guests::retry(rest)),
                    "later" => {
                        outcome = Some(Outcome::Retry(Retry { reason: String::new(), after_ms: rest.parse().ok() }))
                    }
                    "captures" => tell("captures", &format!("{:?} {:?} {:?}", event.captures, event.kind, event.user)),
                    "reject" => outcome = Some(Outcome::Reject(rest.into())),
                    "forget" => outcome = None,
                    "show" => tell("show", &show(&event)),
                    _ => obey(command, rest),
                }
            }
            outcomes.extend(outcome);
        }
        outcomes
    }
}

fn obey(command: &str, rest: &str) {
    let (first, second) = rest.split_once(' ').unwrap_or((rest, ""));
    match command {
        "set" => told("set", state::set(first, second.as_bytes())),
        "fill" => told("fill", state::set(first, &vec![b'x'; second.parse().expect("bytes")])),
        "delete" => told("delete", state::delete(first)),
        "get" => match state::get(first) {
            Ok(Some(value)) => tell("get", &String::from_utf8_lossy(&value)),
            Ok(None) => tell("get", "none"),
            Err(error) => tell("get", &format!("{error:?}")),
        },
        "scan" => tell("scan", &scan(rest)),
        "publish" => told("publish", guests::publish(first, second.as_bytes())),
        "log" => logging::log(level(first), "obeys", second),
        "print" => println!("{rest}"),
        "complain" => eprintln!("{rest}"),
        "config" => tell("config", &format!("{:?}", guests::store::get(first))),
        "set-for" | "cas" | "add" => change(command, rest),
        "expiring" | "request" | "disconnect" | "retained" => ask(command, rest),
        "timer" | "big-timer" | "schedule" | "cancel" => set_timer(command, rest),
        "count" => {
            metrics::count(first, &labels(second), second.split(' ').next().map_or(0, |n| n.parse().unwrap_or(0)))
        }
        "gauge" => metrics::gauge(first, &[], second.parse().expect("a number")),
        "secret" => match secrets::get(rest) {
            Ok(secret) => println!("the secret is {}", secret.reveal()),
            Err(error) => tell("secret", &format!("{error:?}")),
        },
        "sleep" => std::thread::sleep(std::time::Duration::from_millis(rest.parse().expect("milliseconds"))),
        "spin" => loop {
            std::hint::black_box(rest);
        },
        "look" => tell("look", &look()),
        "exit" => std::process::exit(rest.parse().expect("a code")),
        "panic" => panic!("{rest}"),
        "begin" => transaction::begin(rest.parse().expect("an event")),
        "rollback" => transaction::rollback(),
        _ => panic!("unknown command {command}"),
    }
}

/// The first words, and the rest.
fn words<const N: usize>(text: &str) -> [&str; N] {
    let mut words = text.splitn(N, ' ');
    std::array::from_fn(|_| words.next().unwrap_or(""))
}

fn change(command: &str, rest: &str) {
    let [first, second, third] = words(rest);
    match command {
        "set-for" => told("set-for", state::set_for(second, third.as_bytes(), first.parse().expect("milliseconds"))),
        "add" => tell("add", &format!("{:?}", state::add(first, second.parse().expect("an amount")))),
        _ => {
            let value = |text: &str| (text != "-").then(|| text.as_bytes().to_vec());
            let swapped = state::compare_and_set(first, value(second).as_deref(), value(third).as_deref());
            tell("cas", &format!("{swapped:?}"));
        }
    }
}

fn ask(command: &str, rest: &str) {
    let [first, second, third] = words(rest);
    match command {
        "expiring" => {
            let mut message = guests::message(second, third.as_bytes());
            message.properties.push(Property { name: "message-expiry".into(), value: first.into() });
            told("expiring", broker::publish(&message));
        }
        "request" => {
            let message = guests::message(second, third.as_bytes());
            tell("request", &format!("{:?}", broker::request(&message, first.parse().expect("milliseconds"))));
        }
        "disconnect" => told("disconnect", broker::disconnect(rest)),
        _ => match broker::retained(rest) {
            Ok(Some(message)) => {
                let text = String::from_utf8_lossy(&message.payload).into_owned();
                tell("retained", &format!("{} {text} {} {:?}", message.topic, message.retain, message.properties));
            }
            other => tell("retained", &format!("{other:?}")),
        },
    }
}

fn set_timer(command: &str, rest: &str) {
    let [first, second, third] = words(rest);
    match command {
        "timer" => told("timer", timers::set(first, second.parse().expect("a time"), third.as_bytes())),
        "big-timer" => told("big-timer", timers::set(first, 0, &vec![0; second.parse().expect("bytes")])),
        "schedule" => told("schedule", timers::schedule(first, &rest[first.len() + 1..], b"")),
        _ => told("cancel", timers::cancel(rest)),
    }
}

fn labels(text: &str) -> Vec<metrics::Label> {
    let pair = |word: &str| {
        word.split_once('=').map(|(name, value)| metrics::Label { name: name.into(), value: value.into() })
    };
    text.split(' ').filter_map(pair).collect()
}

fn scan(arguments: &str) -> String {
    let mut arguments = arguments.split(' ');
    let prefix = arguments.next().unwrap_or("");
    let after = arguments.next().filter(|after| *after != "-");
    let limit = arguments.next().map_or(1000, |limit| limit.parse().expect("a limit"));
    match state::scan(prefix, after, limit) {
        Ok(entries) => {
            let show = |entry: &state::Entry| format!("{}={}", entry.key, String::from_utf8_lossy(&entry.value));
            entries.iter().map(show).collect::<Vec<_>>().join(" ")
        }
        Err(error) => format!("{error:?}"),
    }
}

fn show(event: &Event) -> String {
    let Event { id, topic, qos, retain, publisher, received_at, attempt, properties, .. } = event;
    format!("{id} {topic} {qos:?} {retain} {publisher} {received_at} {attempt} {properties:?}")
}

/// What of the world around it a guest can see.
fn look() -> String {
    let variables = std::env::vars().count();
    let arguments = std::env::args().count();
    let files = std::fs::read_dir("/").map_err(|error| error.kind());
    let written = std::fs::write("/tmp/escaped", "x").map_err(|error| error.kind());
    let network = std::net::TcpStream::connect("127.0.0.1:1883").map_err(|error| error.kind());
    let epoch = std::time::SystemTime::UNIX_EPOCH.elapsed().is_ok_and(|since| since.as_secs() > 1_700_000_000);
    format!("{variables} {arguments} {} {} {} {epoch}", files.is_ok(), written.is_ok(), network.is_ok())
}

fn level(name: &str) -> logging::Level {
    match name {
        "trace" => logging::Level::Trace,
        "debug" => logging::Level::Debug,
        "warn" => logging::Level::Warn,
        "error" => logging::Level::Error,
        "critical" => logging::Level::Critical,
        _ => logging::Level::Info,
    }
}

/// Publishes what went wrong, and nothing if nothing did.
fn told<E: std::fmt::Debug>(command: &str, result: Result<(), E>) {
    if let Err(error) = result {
        tell(command, &format!("{error:?}"));
    }
}

fn tell(command: &str, text: &str) {
    guests::publish(&format!("out/{command}"), text.as_bytes()).expect("out/# is granted");
}

guests::guest!(
    Plugin,
    br#"{"manifest":1,"name":"obeys","version":"0.1.0","description":"A guest of the sandbox's tests.","subscribes":[{"filter":"in/#","qos":1}],"publishes":["out/#"]}"#
);
