//! Does what each event's payload says, one command a line; how tests drive the host's functions one at a time.
//!
//! `set KEY VALUE`, `get KEY`, `delete KEY`, `scan PREFIX AFTER LIMIT` (`-` for no AFTER), `fill KEY BYTES`,
//! `publish TOPIC PAYLOAD`, `log LEVEL TEXT`, `print TEXT`, `complain TEXT` (stderr), `config KEY`, `show` (the event),
//! `sleep MS`, `spin`, `look` (around in the system), `exit CODE`, `panic TEXT`, `begin EVENT`, `rollback`, `retry REASON`, `reject REASON`, and `forget` (gives no
//! outcome). What a command finds out is published to `out/COMMAND`.

#![cfg(target_arch = "wasm32")]

use guests::{Event, Guest, Outcome, logging, state, transaction};

struct Plugin;

impl Guest for Plugin {
    fn handle(events: Vec<Event>) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        for event in events {
            transaction::begin(event.id);
            let commands = String::from_utf8_lossy(&event.payload).into_owned();
            let mut outcome = Some(Outcome::Done);
            for line in commands.lines() {
                let (command, rest) = line.split_once(' ').unwrap_or((line, ""));
                match command {
                    "retry" => outcome = Some(Outcome::Retry(rest.into())),
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
