//! Servers of a plant, whose certificates the plant's own authority has signed: trusted where the operator says so.
//!
//! `tls/` holds such an authority and a server's certificate and key, for `localhost` and 127.0.0.1, valid until 2120. They are
//! good for nothing but these tests.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::super::harness::{binary, one_line_of_failure};
use super::{Plant, request};

/// The authority's certificate.
const AUTHORITY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/e2e/platform/tls/authority.pem");

/// Lets `/fetch` reach the server under three names, of which its certificate has two.
fn fetches(port: u16) -> String {
    let hosts = ["localhost", "127.0.0.1", "127.0.0.2"].map(|host| format!("\"https://{host}:{port}\""));
    format!(r#""publishes":["out/#"],"http_hosts":[{}]"#, hosts.join(","))
}

/// A server that says `pong` to everybody who believes its certificate; gives its port.
fn server() -> Result<u16> {
    let certificates =
        CertificateDer::pem_slice_iter(include_bytes!("tls/server.pem")).collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_slice(include_bytes!("tls/server.key"))?;
    let config = Arc::new(ServerConfig::builder().with_no_client_auth().with_single_cert(certificates, key)?);
    let listener = TcpListener::bind("0.0.0.0:0")?;
    let port = listener.local_addr()?.port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (Ok(stream), Ok(connection)) = (stream, ServerConnection::new(Arc::clone(&config))) else { return };
            let mut stream = StreamOwned::new(connection, stream);
            // Who does not believe the certificate ends the handshake.
            if stream.read(&mut [0; 4096]).is_ok_and(|count| count > 0) {
                let _sent = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\npong");
            }
            stream.conn.send_close_notify();
            let _flushed = stream.flush();
        }
    });
    Ok(port)
}

fn fetch(plant: &Plant, host: &str, port: u16) -> Result<(u16, String)> {
    let url = format!("X-Url: https://{host}:{port}/a\r\n");
    request(plant.broker().http, "GET /services/serves/fetch", &url, b"")
}

#[test]
fn a_private_authority_is_trusted_where_the_operator_names_its_file() -> Result<()> {
    let port = server()?;
    let open = "[plugin.serves]\nprivate_addresses = true\n";
    let mut plant = Plant::start(open)?;
    plant.deploy("serves", "serves", &fetches(port))?;
    for host in ["localhost", "127.0.0.1"] {
        let (status, body) = fetch(&plant, host, port)?;
        ensure!(status == 502 && body.contains("UnknownIssuer"), "{host} without the key: {status} {body}");
    }

    plant.restart(&format!("[plugins]\nhttp_ca_file = {AUTHORITY:?}\n{open}"))?;
    for host in ["localhost", "127.0.0.1", "localhost"] {
        let (status, body) = fetch(&plant, host, port)?;
        ensure!((status, &*body) == (200, "pong"), "{host} with the key: {status} {body}");
    }
    // The word of the authority holds for the names in the certificate, and no others.
    let (status, body) = fetch(&plant, "127.0.0.2", port)?;
    ensure!(status == 502 && body.contains("not valid for name"), "{status} {body}");
    Ok(())
}

#[test]
fn a_file_of_authorities_that_cannot_be_used_is_one_line_that_says_where() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let path = |name: &str| directory.path().join(name).to_str().map(str::to_owned).context("path");
    let (file, config) = (path("plant.pem")?, path("vespiary.toml")?);
    std::fs::write(&config, format!("[plugins]\nhttp_ca_file = {file:?}\n"))?;
    let authority = std::fs::read_to_string(AUTHORITY)?;
    let second = authority.lines().count() + 1;
    let broken = format!("{authority}-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    for (text, expected) in [
        (None, "it cannot be read: No such file or directory".to_owned()),
        (Some("".to_owned()), "it holds no certificate: it has to hold those of authorities in PEM".to_owned()),
        (Some(broken), format!("certificate 2, at line {second}, cannot be used (BadEncoding): take it out")),
        (Some("#".repeat(2 << 20)), "it has more than 1048576 bytes".to_owned()),
    ] {
        if let Some(text) = text {
            std::fs::write(&file, text)?;
        }
        let data = path("data")?;
        let serve = ["serve", "--mqtt", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data", &data, "--config", &config];
        for arguments in [&serve[..], &["check", "--config", &config]] {
            let refused = one_line_of_failure(&Command::new(binary()).args(arguments).output()?)?;
            let expected = format!("plugins.http_ca_file = {file:?}: {expected}");
            ensure!(refused.contains(&expected), "{arguments:?}: {refused}");
        }
        ensure!(!Path::new(&data).exists(), "nothing was begun");
    }
    std::fs::write(&file, authority)?;
    let output = Command::new(binary()).args(["check", "--config", &config]).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
