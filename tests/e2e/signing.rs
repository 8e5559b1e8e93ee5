//! Signatures of components, through the shipped binary: keys, signing, and a broker that asks for one.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use super::harness::{Broker, guest};

/// Starts a broker that takes what one of these keys signed.
fn broker_that_asks(directory: &Path, data: &str, keys: &[&str]) -> Result<Broker> {
    let config = directory.join("vespiary.toml");
    std::fs::write(&config, format!("[plugins]\nsigned_by = {keys:?}\n"))?;
    Broker::start_with(&directory.join(data), &["--config", config.to_str().context("path")?])
}

#[test]
fn a_broker_that_asks_for_a_signature_takes_no_component_without() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let path = |name: &str| directory.path().join(name).to_str().map(str::to_owned).context("path");
    let without = Broker::start(&directory.path().join("open"))?;
    let (ours, theirs) = (path("ours.key")?, path("theirs.key")?);
    let our_public = without.ok(&["sign", "--new-key", &ours])?.trim_end().to_owned();
    let their_public = without.ok(&["sign", "--new-key", &theirs])?.trim_end().to_owned();
    ensure!(our_public.starts_with("ed25519:") && our_public != their_public, "{our_public} {their_public}");
    ensure!(std::fs::metadata(&ours)?.permissions().mode() & 0o777 == 0o600);
    let unsigned = guest("obeys").to_str().context("path")?.to_owned();
    let (signed, foreign, tampered) = (path("signed.wasm")?, path("foreign.wasm")?, path("tampered.wasm")?);
    without.ok(&["sign", "--key", &ours, "-o", &signed, &unsigned])?;
    without.ok(&["sign", "--key", &theirs, "-o", &foreign, &unsigned])?;
    let mut bytes = std::fs::read(&signed)?;
    let at = bytes.windows(5).position(|bytes| bytes == b"obeys").context("the name is in it")?;
    bytes[at] = b'a';
    std::fs::write(&tampered, bytes)?;

    let broker = broker_that_asks(directory.path(), "asking", &[&our_public])?;
    for (file, expected) in [
        (&unsigned, "the component is not signed, and plugins.signed_by asks for a signature"),
        (&foreign, &*format!("signed by {their_public}, which plugins.signed_by does not name")),
        (&tampered, "does not fit the component"),
    ] {
        let refused = broker.refused(&["deploy", file])?;
        ensure!(refused.contains(expected), "{refused}");
    }
    ensure!(broker.ok(&["plugin", "list", "--json"])?.trim() == "[]");
    broker.deploy(Path::new(&signed))?;
    let shown = broker.show("obeys")?;
    ensure!(shown["signed_by"] == our_public.as_str(), "{shown:#}");

    // A broker that does not ask takes all of them but the one that was changed.
    without.deploy(Path::new(&foreign))?;
    without.deploy(Path::new(&unsigned))?;
    let refused = without.refused(&["deploy", &tampered])?;
    ensure!(refused.contains("does not fit the component"), "{refused}");
    Ok(())
}

#[test]
fn a_key_that_is_taken_back_stops_what_it_signed_at_the_next_start() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let path = |name: &str| directory.path().join(name).to_str().map(str::to_owned).context("path");
    let broker = Broker::start(&directory.path().join("data"))?;
    let public = broker.ok(&["sign", "--new-key", &path("key")?])?.trim_end().to_owned();
    broker.deploy(&guest("obeys"))?;
    broker.stop()?;
    let broker = broker_that_asks(directory.path(), "data", &[&public])?;
    let shown = broker.show("obeys")?;
    ensure!(shown["status"] == "broken", "{shown:#}");
    ensure!(shown["reason"].as_str().is_some_and(|reason| reason.contains("not signed")), "{shown:#}");
    let signed = path("signed.wasm")?;
    broker.ok(&["sign", "--key", &path("key")?, "-o", &signed, guest("obeys").to_str().context("path")?])?;
    broker.deploy(Path::new(&signed))?;
    ensure!(broker.show("obeys")?["status"] == "running");
    Ok(())
}

#[test]
fn bad_keys_are_refused_with_one_line() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let path = |name: &str| directory.path().join(name).to_str().map(str::to_owned).context("path");
    let broker = Broker::start(&directory.path().join("data"))?;
    let (key, config) = (path("key")?, path("vespiary.toml")?);
    broker.ok(&["sign", "--new-key", &key])?;
    ensure!(broker.refused(&["sign", "--new-key", &key])?.contains("cannot make the key"));
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644))?;
    let component = guest("obeys").to_str().context("path")?.to_owned();
    ensure!(broker.refused(&["sign", "--key", &key, "-o", &path("x")?, &component])?.contains("chmod 600"));
    std::fs::write(&config, "[plugins]\nsigned_by = [\"ed25519:AAAA\"]\n")?;
    let refused = broker.refused(&["check", "--config", &config])?;
    ensure!(refused.contains("vespiary.toml:2:") && refused.contains("is not a public key"), "{refused}");
    Ok(())
}
