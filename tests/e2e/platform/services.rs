//! HTTP services of plugins: a request is a transaction, an answer means that it is on disk, and calls go out only where granted.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, Result, ensure};

use super::super::harness::Broker;
use super::{Plant, heard, listener, request, silence};

fn get(broker: &Broker, path: &str, headers: &str) -> Result<(u16, String)> {
    request(broker.http, &format!("GET /services/serves{path}"), headers, b"")
}

fn visits(broker: &Broker) -> Result<u32> {
    let (status, body) = get(broker, "/visits", "")?;
    ensure!(status == 200, "{status} {body}");
    Ok(body.trim().parse()?)
}

#[test]
fn responses_that_a_component_without_a_handler_asked_for_do_not_stop_it() -> Result<()> {
    let mut plant = Plant::start("[plugins]\nattempts = 1\nbreaker_failures = 2\n")?;
    // A message that waits for a revision with a handler is not lost with it.
    plant.deploy("obeys", "serves", super::OBEYS)?;
    plant.broker().ok(&["plugin", "pause", "serves"])?;
    super::publish(plant.broker(), "in/a", "log info x")?;
    plant.broker().deploy(&plant.made("serves", "serves", "2.0.0", SERVES)?)?;
    plant.broker().ok(&["plugin", "resume", "serves"])?;
    plant.broker().wait_plugin("serves", "through", |shown| shown["usage"]["dead_letters"] == 1)?;
    for _ in 0..5 {
        ensure!(get(plant.broker(), "/count", "")?.0 == 200);
    }
    // Each count asks somebody who does not answer, for a second.
    let shown = plant.broker().wait_plugin("serves", "through", |shown| shown["counts"]["handled"] == 5)?;
    ensure!(shown["breaker"].is_null() && shown["status"] == "running", "{shown:#}");
    ensure!(shown["inbox_events"] == 0 && shown["usage"]["timers"] == 0, "{shown:#}");
    plant.restart("")?;
    ensure!(visits(plant.broker())? == 5);
    Ok(())
}

/// Without what `/fetch` may reach.
const SERVES: &str = r#""publishes":["out/#"]"#;

#[test]
fn a_request_that_fails_leaves_nothing_and_one_that_is_answered_is_on_disk() -> Result<()> {
    let mut plant = Plant::start("")?;
    plant.deploy("serves", "serves", SERVES)?;
    let mut listening = listener(plant.broker(), "listener")?;
    for (path, answered, expected) in [("/count", 200, 1), ("/fail", 500, 1), ("/fall", 502, 1), ("/count", 200, 2)] {
        let (status, body) = get(plant.broker(), path, "")?;
        ensure!(status == answered || (answered == 502 && (500..=504).contains(&status)), "{path}: {status} {body}");
        ensure!(visits(plant.broker())? == expected, "{path}");
        if answered == 200 {
            // Published, and asked as a request, in the same transaction.
            for _ in 0..2 {
                ensure!(heard(&mut listening, "out/visits")? == expected.to_string());
            }
        }
        silence(&mut listening)?;
    }
    for round in 0..6 {
        for _ in 0..3 {
            ensure!(get(plant.broker(), "/count", "")?.0 == 200);
        }
        plant.restart("")?;
        ensure!(visits(plant.broker())? == 2 + 3 * (round + 1), "round {round}: an answer went out too early");
    }
    let shown = plant.broker().show("serves")?;
    ensure!(shown["serves"] == true && shown["counts"]["failed_requests"] == 0, "{shown:#}");
    Ok(())
}

#[test]
fn requests_at_the_same_time_are_counted_one_by_one() -> Result<()> {
    let plant = Plant::start("")?;
    plant.deploy("serves", "serves", SERVES)?;
    let broker = plant.broker();
    std::thread::scope(|scope| -> Result<()> {
        let callers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| -> Result<()> {
                    for _ in 0..15 {
                        let (status, body) = get(broker, "/count", "")?;
                        ensure!(status == 200, "{status} {body}");
                    }
                    Ok(())
                })
            })
            .collect();
        callers.into_iter().try_for_each(|caller| caller.join().expect("a caller does not panic"))
    })?;
    ensure!(visits(broker)? == 60);
    Ok(())
}

/// A server on a free port that says this to everybody; gives its address, and how many came.
fn server(answer: String) -> Result<(String, Arc<AtomicUsize>)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let (address, asked) = (listener.local_addr()?.to_string(), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&asked);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            count.fetch_add(1, Ordering::Relaxed);
            let _request = stream.read(&mut [0; 4096]);
            let _sent = stream.write_all(answer.as_bytes());
        }
    });
    Ok((address, asked))
}

#[test]
fn a_plugin_calls_the_hosts_that_were_granted_to_it_and_no_other() -> Result<()> {
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\npong";
    let (granted, asked) = server(answer.to_owned())?;
    let (other, asked_other) = server(answer.to_owned())?;
    let location =
        format!("HTTP/1.1 302 Found\r\nLocation: http://{other}/\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    let (redirecting, asked_redirecting) = server(location)?;
    let open = "[plugin.serves]\nprivate_addresses = true\n";
    let mut plant = Plant::start(open)?;
    let hosts = format!(r#"{SERVES},"http_hosts":["http://{granted}","http://{redirecting}"]"#);
    plant.deploy("serves", "serves", &hosts)?;
    let fetch = |plant: &Plant, url: &str| get(plant.broker(), "/fetch", &format!("X-Url: {url}\r\n"));
    let (status, body) = fetch(&plant, &format!("http://{granted}/a"))?;
    ensure!((status, &*body) == (200, "pong"), "{status} {body}");
    ensure!(asked.load(Ordering::Relaxed) == 1);
    let (status, body) = fetch(&plant, &format!("http://{redirecting}/a"))?;
    ensure!(status == 302 && asked_redirecting.load(Ordering::Relaxed) == 1, "{status} {body}");
    let denied = |plant: &Plant| -> Result<u64> {
        plant.broker().show("serves")?["counts"]["denied"].as_u64().context("it is counted")
    };
    ensure!(denied(&plant)? == 0);
    let port = granted.rsplit(':').next().context("a port")?;
    for (count, url) in
        [format!("http://{other}/a"), format!("https://{granted}/a"), format!("http://localhost:{port}/a")]
            .iter()
            .enumerate()
    {
        let (status, body) = fetch(&plant, url)?;
        ensure!(status == 502 && body.contains("Denied"), "{url}: {status} {body}");
        ensure!(denied(&plant)? == count as u64 + 1, "{url} is not counted");
    }
    ensure!(asked_other.load(Ordering::Relaxed) == 0, "a redirect or a call went where nothing was granted");
    let logged = plant.broker().ok(&["plugin", "logs", "serves"])?;
    ensure!(logged.contains(&other), "what was denied is not in the log: {logged}");

    // A granted name does not reach a private address by itself.
    plant.restart("")?;
    let (status, body) = fetch(&plant, &format!("http://{granted}/a"))?;
    ensure!(status == 502 && asked.load(Ordering::Relaxed) == 1, "{status} {body}");
    Ok(())
}

#[test]
fn a_service_that_never_ends_or_never_answers_is_cut_off_and_serves_the_next() -> Result<()> {
    let plant = Plant::start("[plugins]\ncall_deadline_ms = 500\nhttp_call_deadline_ms = 500\n")?;
    plant.deploy("serves", "serves", SERVES)?;
    let broker = plant.broker();
    for path in ["/spin", "/silent", "/unfinished", "/panic"] {
        let (status, body) = get(broker, path, "")?;
        ensure!((500..=504).contains(&status), "{path}: {status} {body}");
        ensure!(get(broker, "/count", "")?.0 == 200, "after {path}");
    }
    ensure!(visits(broker)? == 4);
    broker.ok(&["plugin", "remove", "serves"])?;
    ensure!(get(broker, "/count", "")?.0 == 404);
    Ok(())
}
