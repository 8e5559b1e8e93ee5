//! A login by SCRAM-SHA-256 over MQTT 5's AUTH, with the plugin of `plugins/scram-auth`; the client's side is computed here, apart
//! from the plugin's own code.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

use super::super::conformance::packets::{self, Connect, packet, property, string};
use super::super::conformance::peer::{Peer, Properties, properties_behind};
use super::super::harness::Broker;
use super::{Plant, heard, listener, publish};

const METHOD: &str = "SCRAM-SHA-256";

/// A client's side of one exchange (RFC 5802, section 3).
struct Exchange {
    bare: String,
    password: &'static str,
}

impl Exchange {
    fn begin(user: &str, password: &'static str) -> (Self, String) {
        let bare = format!("n={user},r=fyko+d2lbbFgONRv9qkxdawL");
        let first = format!("n,,{bare}");
        (Self { bare, password }, first)
    }

    /// The client's last message, and the server's signature that has to come back.
    fn answer(&self, server_first: &str) -> Result<(String, String)> {
        let attribute =
            |name: &str| server_first.split(',').find_map(|part| part.strip_prefix(name)).context("attribute");
        let (nonce, salt, iterations) =
            (attribute("r=")?, STANDARD.decode(attribute("s=")?)?, attribute("i=")?.parse()?);
        ensure!(nonce.starts_with("fyko+d2lbbFgONRv9qkxdawL") && nonce.len() > 40, "{server_first}");
        ensure!(iterations >= 4096, "{server_first}");
        let salted = stretched(self.password.as_bytes(), &salt, iterations);
        let without_proof = format!("c={},r={nonce}", STANDARD.encode("n,,"));
        let signed = format!("{},{server_first},{without_proof}", self.bare);
        let client_key = hmac(&salted, b"Client Key");
        let signature = hmac(&Sha256::digest(client_key), signed.as_bytes());
        let proof: Vec<u8> = client_key.iter().zip(signature).map(|(key, signature)| key ^ signature).collect();
        let of_server = hmac(&hmac(&salted, b"Server Key"), signed.as_bytes());
        Ok((format!("{without_proof},p={}", STANDARD.encode(proof)), format!("v={}", STANDARD.encode(of_server))))
    }
}

/// RFC 2104.
fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut block = [0; 64];
    block[..key.len()].copy_from_slice(key);
    let inner = Sha256::digest([&block.map(|byte| byte ^ 0x36)[..], message].concat());
    Sha256::digest([&block.map(|byte| byte ^ 0x5C)[..], &inner].concat()).into()
}

/// `Hi` of RFC 5802.
fn stretched(password: &[u8], salt: &[u8], iterations: u32) -> [u8; 32] {
    let mut last = hmac(password, &[salt, &[0, 0, 0, 1]].concat());
    let mut sum = last;
    for _ in 1..iterations {
        last = hmac(password, &last);
        sum.iter_mut().zip(last).for_each(|(sum, last)| *sum ^= last);
    }
    sum
}

fn connect(client_id: &str, data: &str) -> Connect {
    Connect::new(5, client_id)
        .property(property::AUTHENTICATION_METHOD, &string(METHOD))
        .property(property::AUTHENTICATION_DATA, &string(data))
}

fn auth(reason: u8, data: &str) -> Vec<u8> {
    let method = [&[property::AUTHENTICATION_METHOD][..], &string(METHOD)].concat();
    let data = [&[property::AUTHENTICATION_DATA][..], &string(data)].concat();
    let length = packets::variable(method.len() + data.len());
    packet(0xF0, &[&[reason][..], &length, &method, &data].concat())
}

/// The text in Authentication Data.
fn data_of(properties: &Properties) -> Result<String> {
    let data = properties.one(property::AUTHENTICATION_DATA).context("no data")?;
    Ok(String::from_utf8(data[2..].to_vec())?)
}

/// The next packet is AUTH with this reason; gives its data.
fn challenge(peer: &mut Peer, reason: u8) -> Result<String> {
    let packet = peer.packet();
    ensure!(packet[0] == 0xF0 && packet[2] == reason, "{packet:02x?} is no AUTH with {reason:#x}");
    data_of(&properties_behind(&packet, 0))
}

/// Logs in; gives the client and the reason of CONNACK, after checking the server's signature.
fn login(broker: &Broker, client_id: &str, user: &str, password: &'static str) -> Result<(Peer, u8)> {
    let (exchange, first) = Exchange::begin(user, password);
    let mut peer = Peer::socket_at(broker.mqtt, 5);
    peer.send(&connect(client_id, &first).bytes());
    let (last, of_server) = exchange.answer(&challenge(&mut peer, 0x18)?)?;
    peer.send(&auth(0x18, &last));
    let connack = peer.connack();
    if connack.reason == 0 {
        ensure!(data_of(&connack.properties)? == of_server, "the server does not prove that it knows the user");
    } else {
        peer.expect_end();
    }
    Ok((peer, connack.reason))
}

/// The component, built as an operator would.
fn component(broker: &Broker) -> Result<PathBuf> {
    let directory = super::super::harness::root().join("plugins/scram-auth");
    Ok(PathBuf::from(broker.ok(&["build", super::text(&directory)?])?.trim_end()))
}

#[test]
fn the_clients_side_computes_what_rfc_7677_says() -> Result<()> {
    let exchange = Exchange { bare: "n=user,r=rOprNGfwEbeRWgbNEkqO".into(), password: "pencil" };
    let salted = stretched(b"pencil", &STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==")?, 4096);
    let signed = format!(
        "{},r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,\
         c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0",
        exchange.bare
    );
    let of_server = hmac(&hmac(&salted, b"Server Key"), signed.as_bytes());
    ensure!(STANDARD.encode(of_server) == "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
    Ok(())
}

#[test]
fn a_client_logs_in_by_scram_sha_256_and_again_on_the_same_connection() -> Result<()> {
    let mut plant = Plant::start("")?;
    let (mut early, connack) = Peer::join_at(plant.broker().mqtt, &connect("early", "n,,n=ann,r=abc"));
    ensure!(connack.reason == 0x8C, "{connack:?}");
    early.expect_end();
    plant.broker().deploy(&component(plant.broker())?)?;
    publish(plant.broker(), "scram/users/ann", r#"{"password":"pencil"}"#)?;
    publish(plant.broker(), "scram/users/bea", r#"{"password":"crayon"}"#)?;
    plant.broker().wait_plugin("scram-auth", "told of both", |shown| shown["counts"]["handled"] == 2)?;

    // From here on nobody is let in for whom nobody vouches; what was registered is on disk.
    plant.restart("[mqtt]\nallow_anonymous = false\n")?;
    let broker = plant.broker();
    let (_, anonymous) = Peer::join_at(broker.mqtt, &Connect::new(5, "anonymous"));
    ensure!(anonymous.reason == 0x87, "{anonymous:?}");
    for (user, password) in [("ann", "crayon"), ("nobody", "pencil")] {
        let (_, reason) = login(broker, "liar", user, password)?;
        ensure!(reason == 0x86 || reason == 0x87, "{user} {password}: {reason:#x}");
    }
    let (mut ann, reason) = login(broker, "client", "ann", "pencil")?;
    ensure!(reason == 0, "{reason:#x}");
    ann.publish_completely("a/b", b"1", 2);

    // Again by another name, on the connection that is there [MQTT-4.12.1-1].
    let (exchange, first) = Exchange::begin("bea", "crayon");
    ann.send(&auth(0x19, &first));
    let (last, of_server) = exchange.answer(&challenge(&mut ann, 0x18)?)?;
    ann.send(&auth(0x18, &last));
    ensure!(challenge(&mut ann, 0)? == of_server);
    ann.publish_completely("a/b", b"1", 1);
    // And a wrong proof ends it.
    let (exchange, first) = Exchange::begin("bea", "pencil");
    ann.send(&auth(0x19, &first));
    let (last, _) = exchange.answer(&challenge(&mut ann, 0x18)?)?;
    ann.send(&auth(0x18, &last));
    ann.expect_disconnect(&[0x86, 0x87]);
    Ok(())
}

#[test]
fn other_plugins_know_a_client_by_the_name_that_it_proved() -> Result<()> {
    let plant = Plant::start("")?;
    let broker = plant.broker();
    broker.deploy(&component(broker)?)?;
    plant.deploy("obeys", "obeys", super::OBEYS)?;
    publish(broker, "scram/users/ann", r#"{"password":"pencil"}"#)?;
    broker.wait_plugin("scram-auth", "told", |shown| shown["counts"]["handled"] == 1)?;
    let mut listening = listener(broker, "listener")?;
    let (mut ann, reason) = login(broker, "client", "ann", "pencil")?;
    ensure!(reason == 0, "{reason:#x}");
    ann.publish_completely("in/a", b"captures", 1);
    let seen = heard(&mut listening, "out/captures")?;
    ensure!(seen.ends_with("Some(\"ann\")"), "{seen}");
    Ok(())
}
