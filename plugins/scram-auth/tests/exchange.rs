//! Exchanges between a client and the plugin, and the example of RFC 7677.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac as _};
use scram_auth::plugin;
use scram_auth::scram::{ClientFirst, Failure, Verifier};
use sha2::{Digest as _, Sha256};
use vespiary_sdk::prelude::*;
use vespiary_sdk::testing::{Delivery, TestHost};

/// The salt of the example.
const SALT: &str = "W22ZaJ0SNY7soEsUEjb6gQ==";

/// The server's nonce in the example.
const SERVER_NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";

fn verifier(password: &str) -> Verifier {
    Verifier::of_password(password, &STANDARD.decode(SALT).unwrap(), 4096).unwrap()
}

fn ask(host: &mut TestHost, data: &str, state: Option<Vec<u8>>) -> Progress {
    let data = Some(data.as_bytes().to_vec());
    host.auth_step(&Step { client: Client::of("c"), method: "SCRAM-SHA-256".into(), data, state }).unwrap()
}

/// The client's last message.
fn proof(password: &str, first_bare: &str, server_first: &str) -> String {
    let field = |name: &str| server_first.split(',').find_map(|field| field.strip_prefix(name)).unwrap();
    let hmac = |key: &[u8], text: &[u8]| {
        Hmac::<Sha256>::new_from_slice(key).unwrap().chain_update(text).finalize().into_bytes()
    };
    let mut salted = [0; 32];
    let salt = STANDARD.decode(field("s=")).unwrap();
    pbkdf2::pbkdf2_hmac::<Sha256>(password.as_bytes(), &salt, field("i=").parse().unwrap(), &mut salted);
    let client_key = hmac(&salted, b"Client Key");
    let without_proof = format!("c=biws,r={}", field("r="));
    let signed = format!("{first_bare},{server_first},{without_proof}");
    let signature = hmac(&Sha256::digest(client_key), signed.as_bytes());
    let proof: Vec<u8> = client_key.iter().zip(signature).map(|(key, signature)| key ^ signature).collect();
    format!("{without_proof},p={}", STANDARD.encode(proof))
}

/// Begins an exchange and gives the server's first message and what it remembers.
fn begun(host: &mut TestHost, user: &str) -> (String, Vec<u8>) {
    let Progress::Continue { data, next } = ask(host, &format!("n,,n={user},r=abc"), None) else { panic!() };
    (String::from_utf8(data).unwrap(), next)
}

#[test]
fn the_example_of_rfc_7677_is_met_to_the_letter() {
    let first = ClientFirst::parse(b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO").unwrap();
    assert_eq!(first.user, "user");
    let verifier = verifier("pencil");
    let (message, pending) = first.challenge(&verifier, SERVER_NONCE);
    assert_eq!(message, format!("r=rOprNGfwEbeRWgbNEkqO{SERVER_NONCE},s={SALT},i=4096"));
    let last = format!("c=biws,r=rOprNGfwEbeRWgbNEkqO{SERVER_NONCE},p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=");
    let answer = pending.finish(last.as_bytes(), &verifier);
    assert_eq!(answer.as_deref(), Ok("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="));
    assert_eq!(pending.finish(last.as_bytes(), &self::verifier("pen")), Err(Failure::NotProven));
    for (wrong, part) in [
        (last.replace("biws", "eSws"), "channel binding"),
        (last.replace("%hvY", "%hvZ"), "nonce"),
        (last.replace(",p=", ",x="), "proof"),
        (last.replace("p=dHzb", "p=!"), "proof"),
    ] {
        let failure = pending.finish(wrong.as_bytes(), &verifier).unwrap_err();
        assert!(failure.to_string().contains(part), "{wrong}: {failure}");
    }
}

#[test]
fn a_user_logs_in_and_is_known_by_name() {
    let mut host = TestHost::new(plugin());
    host.publish("scram/users/ann", json!({ "password": "open sesame" }));
    let (server_first, next) = begun(&mut host, "ann");
    let last = proof("open sesame", "n=ann,r=abc", &server_first);
    let Progress::Success { data, user } = ask(&mut host, &last, Some(next.clone())) else { panic!() };
    assert_eq!(user.as_deref(), Some("ann"));
    assert!(data.unwrap().starts_with(b"v="));
    let wrong = proof("open wheat", "n=ann,r=abc", &server_first);
    assert_eq!(ask(&mut host, &wrong, Some(next)), Progress::deny("the user or the proof is wrong"));
    let (again, _) = begun(&mut host, "ann");
    assert_ne!(again, server_first, "each exchange has a nonce of its own");
    assert!(!format!("{:?}", host.logs()).contains("sesame"));
}

#[test]
fn an_unknown_user_looks_like_a_known_one() {
    let mut host = TestHost::new(plugin()).with_secret("scram-pepper", "black");
    let salt = |message: &str| message.split(',').nth(1).map(str::to_owned);
    let (first, next) = begun(&mut host, "bob");
    let (second, _) = begun(&mut host, "bob");
    assert_eq!(salt(&first), salt(&second));
    assert_ne!(salt(&first), salt(&begun(&mut host, "eve").0));
    let last = proof("anything", "n=bob,r=abc", &first);
    assert_eq!(ask(&mut host, &last, Some(next)), Progress::deny("the user or the proof is wrong"));
}

#[test]
fn users_come_with_their_keys_and_go() {
    let mut host = TestHost::new(plugin());
    host.publish("scram/users/ann", verifier("pencil"));
    assert_eq!(host.state::<Verifier>("user/ann"), Some(verifier("pencil")));
    for (payload, part) in [
        (json!({ "password": 7, "secret": "pencil" }), "neither a password nor its keys"),
        (json!(Verifier { iterations: 1, ..verifier("pencil") }), "iterations"),
        (json!(Verifier { salt: "AA==".into(), ..verifier("pencil") }), "the salt"),
        (json!(Verifier { server_key: String::new(), ..verifier("pencil") }), "the keys"),
        (json!({ "password": "a\u{7}b" }), "SASLprep"),
    ] {
        let Delivery::Reject(reason) = host.publish("scram/users/ann", &payload) else { panic!("{payload}") };
        assert!(reason.contains(part) && !reason.contains("pencil"), "{reason}");
    }
    host.publish_bytes("scram/users/ann", "");
    host.assert_state("user/ann", json!(null));
}

#[test]
fn messages_that_are_none_are_denied() {
    let mut host = TestHost::new(plugin());
    for (message, part) in [
        ("", "GS2"),
        ("n,,", "user name"),
        ("p=tls-unique,,n=a,r=b", "channel binding"),
        ("n,a=root,n=a,r=b", "authorization identity"),
        ("n,,n=a=b,r=c", "`=` in the user name"),
        ("n,,n=,r=c", "empty"),
        ("n,,n=a,r=", "nonce"),
        ("n,,m=x,n=a,r=c", "user name"),
    ] {
        let Progress::Deny(refusal) = ask(&mut host, message, None) else { panic!("{message}") };
        assert!(refusal.reason.contains(part), "{message}: {}", refusal.reason);
    }
    assert_eq!(ClientFirst::parse(b"y,,n=a=2Cb=3D,r=c").unwrap().user, "a,b=");
}
