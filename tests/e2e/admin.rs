//! What operators and scripts use beside MQTT: logs that are followed, measurements, services, dead letters.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::client::{Client, Packet};
use super::harness::{Broker, PATIENCE, binary, eventually, guest};

/// An HTTP answer.
struct Answer {
    status: u16,
    head: String,
    body: String,
}

/// Sends a request, with these headers and a body.
fn request(at: SocketAddr, first_line: &str, headers: &str, body: &str) -> Result<Answer> {
    let mut stream = TcpStream::connect(at)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let length = body.len();
    write!(stream, "{first_line} HTTP/1.1\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
    let status = head.split(' ').nth(1).context("no status")?.parse()?;
    Ok(Answer { status, head: head.to_ascii_lowercase(), body: body.to_owned() })
}

/// A command that goes on, and what it printed so far.
struct Following {
    child: Child,
    output: std::path::PathBuf,
}

impl Following {
    fn start(http: SocketAddr, output: std::path::PathBuf, arguments: &[&str]) -> Result<Self> {
        let child = Command::new(binary())
            .args(arguments)
            .env("VESPIARY_HTTP", http.to_string())
            .stdin(Stdio::null())
            .stdout(std::fs::File::create(&output)?)
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self { child, output })
    }

    fn printed(&self) -> Result<String> {
        Ok(std::fs::read_to_string(&self.output)?)
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        // Already gone is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_log_is_followed_over_a_restart_of_the_broker_without_a_line_twice() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let data = directory.path().join("data");
    let broker = Broker::start(&data)?;
    broker.deploy(&guest("obeys"))?;
    let http = broker.http;
    let following = Following::start(http, directory.path().join("lines"), &["logs", "obeys", "-f"])?;
    let json = Following::start(http, directory.path().join("json"), &["plugin", "logs", "obeys", "-f", "--json"])?;
    let mut publisher = Client::connect(broker.mqtt, "one", true)?;
    publisher.publish_acknowledged("in/a", b"log warn before")?;
    eventually("the line is printed", || Ok(following.printed()?.contains("obeys: before\n")))?;
    eventually("the line is printed", || Ok(json.printed()?.contains("\"message\":\"obeys: before\"")))?;
    broker.stop()?;
    let broker = Broker::start_with(&data, &["--http", &http.to_string()])?;
    let mut publisher = Client::connect(broker.mqtt, "two", true)?;
    publisher.publish_acknowledged("in/a", b"log warn after")?;
    eventually("it goes on", || Ok(following.printed()?.contains("obeys: after\n")))?;
    ensure!(following.printed()?.matches("before").count() == 1, "{}", following.printed()?);
    let mut last = 0;
    for line in json.printed()?.lines() {
        let entry: Value = serde_json::from_str(line)?;
        let sequence = entry["sequence"].as_u64().context("no sequence")?;
        ensure!(sequence > last, "{}", json.printed()?);
        last = sequence;
    }
    ensure!(broker.refused(&["logs", "nobody", "-f"])?.contains("no plugin \"nobody\" is deployed"));
    // Who follows does not keep the broker from stopping.
    let (status, time) = broker.stop()?;
    ensure!(status.success() && time.as_secs() < 5, "{status} {time:?}");
    Ok(())
}

#[test]
fn what_broker_and_plugins_count_is_there_for_prometheus() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let broker = Broker::start(&directory.path().join("data"))?;
    broker.deploy(&guest("obeys"))?;
    let mut publisher = Client::connect(broker.mqtt, "one", true)?;
    publisher
        .publish_acknowledged("in/a", b"count readings 3 asset=pump\ngauge level 1.5\ncount readings 4 asset=pump")?;
    publisher.publish_acknowledged("in/a", b"reject not today")?;
    broker.wait_plugin("obeys", "done", |shown| shown["counts"]["dead_lettered"] == 1)?;
    let host = format!("Host: {}\r\n", broker.http);
    let page = request(broker.http, "GET /metrics", &host, "")?;
    ensure!(page.status == 200 && page.head.contains("content-type: text/plain; version=0.0.4"), "{}", page.head);
    for line in [
        "vespiary_plugin_readings_total{plugin=\"obeys\",asset=\"pump\"} 7",
        "vespiary_plugin_level{plugin=\"obeys\"} 1.5",
        "vespiary_plugins_dead_total{plugin=\"obeys\"} 1.0",
        "vespiary_plugins_status{plugin=\"obeys\",status=\"running\"} 1.0",
        "vespiary_dropped_messages_total{reason=\"queue_full\"}",
        "vespiary_store_up",
        "vespiary_store_commits_total",
        "vespiary_store_checkpoints_total",
        "vespiary_connections",
    ] {
        ensure!(page.body.contains(line), "{line} is not there:\n{}", page.body);
    }
    let open = request(broker.http, "GET /metrics", &format!("{host}Accept: application/openmetrics-text\r\n"), "")?;
    ensure!(open.head.contains("application/openmetrics-text") && open.body.contains("# EOF"), "{}", open.head);
    broker.ok(&["plugin", "remove", "obeys"])?;
    let page = request(broker.http, "GET /metrics", &host, "")?;
    ensure!(!page.body.contains("obeys"), "{}", page.body);
    Ok(())
}

#[test]
fn the_admin_api_answers_no_page_of_a_browser() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let broker = Broker::start(&directory.path().join("data"))?;
    let host = format!("Host: {}\r\n", broker.http);
    for (headers, expected) in [
        (host.clone(), 200),
        (format!("{host}Sec-Fetch-Site: none\r\n"), 200),
        (format!("{host}Sec-Fetch-Site: same-origin\r\n"), 403),
        (format!("{host}Origin: http://evil.example\r\n"), 403),
        ("Host: evil.example\r\n".to_owned(), 403),
    ] {
        let answer = request(broker.http, "GET /api/v1/plugins", &headers, "")?;
        ensure!(answer.status == expected, "{headers}: {}", answer.head);
    }
    Ok(())
}

#[test]
fn a_service_answers_on_both_listeners_and_the_second_has_nothing_else() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let config = directory.path().join("vespiary.toml");
    std::fs::write(&config, "[http]\nservices_listen = \"127.0.0.1:0\"\n")?;
    let broker = Broker::start_with(&directory.path().join("data"), &["--config", config.to_str().context("path")?])?;
    let services = broker.services.context("it does not say where services listen")?;
    broker.deploy(&guest("serves"))?;
    let own = format!("Host: {}\r\n", broker.http);
    // The admin listener keeps its guard; the other takes whatever name and page asks.
    let foreign = "Host: factory.example\r\nOrigin: https://factory.example\r\n";
    for (at, headers) in [(broker.http, &*own), (services, foreign)] {
        let headers = format!("{headers}X-Kept: yes\r\nX-Dropped: 1\r\nConnection: x-dropped\r\n");
        let answer = request(at, "PUT /services/serves/echo", &headers, "hello")?;
        ensure!(answer.status == 201, "{}\n{}", answer.head, answer.body);
        ensure!(answer.head.contains("x-kept: yes") && !answer.head.contains("x-dropped"), "{}", answer.head);
        ensure!(answer.head.contains("x-forwarded-prefix: /services/serves"), "{}", answer.head);
        ensure!(answer.body.contains("hello") && answer.body.contains("Put"), "{}", answer.body);
    }
    let guarded = request(broker.http, "GET /services/serves/echo", foreign, "")?;
    ensure!(guarded.status == 403, "{}", guarded.head);
    for (path, expected) in [
        ("/services/serves/nothing-here", 404),
        ("/services/nobody/", 404),
        ("/services/Bad%20Name/", 400),
        ("/api/v1/plugins", 404),
        ("/metrics", 404),
        ("/", 404),
    ] {
        let answer = request(services, &format!("GET {path}"), foreign, "")?;
        ensure!(answer.status == expected, "{path}: {}\n{}", answer.head, answer.body);
    }
    let large = "x".repeat((1 << 20) + 1);
    ensure!(request(services, "POST /services/serves/echo", foreign, &large)?.status == 413);
    for path in ["/panic", "/silent"] {
        let answer = request(services, &format!("GET /services/serves{path}"), foreign, "")?;
        ensure!((500..=504).contains(&answer.status), "{path}: {}", answer.head);
    }
    // What a request wrote is there for the next.
    let mut subscriber = Client::connect(broker.mqtt, "visits", true)?;
    subscriber.subscribe("out/visits", 1)?;
    for expected in ["1", "2", "3"] {
        let answer = request(services, "GET /services/serves/count", foreign, "")?;
        ensure!(answer.status == 200, "{}", answer.head);
        // It publishes the sum, and then asks whoever listens about it.
        for _ in 0..2 {
            let Packet::Publish { payload, packet_id, .. } = subscriber.expect()? else { anyhow::bail!("no publish") };
            subscriber.puback(packet_id)?;
            ensure!(payload == expected.as_bytes(), "{payload:?} instead of {expected}");
        }
    }
    Ok(())
}

#[test]
fn dead_letters_are_listed_shown_handed_out_again_and_dropped() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let broker = Broker::start(&directory.path().join("data"))?;
    broker.deploy(&guest("obeys"))?;
    let mut publisher = Client::connect(broker.mqtt, "one", true)?;
    for number in 0..3 {
        publisher.publish_acknowledged(&format!("in/{number}"), format!("reject number {number}").as_bytes())?;
    }
    publisher.publish_acknowledged("in/bytes", b"reject \xff")?;
    broker.wait_plugin("obeys", "done", |shown| shown["counts"]["dead_lettered"] == 4)?;
    let listed: Value = serde_json::from_str(&broker.ok(&["plugin", "dead", "list", "obeys", "--json"])?)?;
    let events: Vec<String> =
        listed.as_array().context("a list")?.iter().map(|letter| letter["event"].to_string()).collect();
    ensure!(events.len() == 4, "{listed:#}");
    let shown = broker.ok(&["plugin", "dead", "show", "obeys", &events[1]])?;
    ensure!(shown.contains("in/1") && shown.contains("reject number 1"), "{shown}");
    let bytes = broker.ok(&["plugin", "dead", "show", "obeys", &events[3]])?;
    ensure!(bytes.contains("bytes that are no text"), "{bytes}");

    let began = Instant::now();
    broker.ok(&["plugin", "dead", "replay", "obeys", &events[0], &events[1]])?;
    // They are rejected once more, and are dead letters again.
    broker.wait_plugin("obeys", "done again", |shown| shown["counts"]["dead_lettered"] == 6)?;
    ensure!(began.elapsed() < PATIENCE);
    broker.ok(&["plugin", "dead", "drop", "obeys", &events[2]])?;
    ensure!(broker.ok(&["plugin", "dead", "list", "obeys"])?.lines().count() == 3);
    broker.ok(&["replay", "obeys"])?;
    broker.wait_plugin("obeys", "done once more", |shown| shown["counts"]["dead_lettered"] == 9)?;
    broker.ok(&["plugin", "dead", "drop", "obeys", "--all"])?;
    ensure!(broker.ok(&["plugin", "dead", "list", "obeys"])?.contains("has no dead letters"));
    ensure!(broker.refused(&["plugin", "dead", "show", "obeys", &events[2]])?.contains(&events[2]));
    ensure!(broker.refused(&["replay", "nobody"])?.contains("no plugin \"nobody\" is deployed"));
    Ok(())
}
