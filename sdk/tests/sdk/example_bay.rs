//! The example that does something of everything. With `VESPIARY_TEST_COMPONENT`, as a component.

use std::time::Duration;

use vespiary_sdk::prelude::*;
use vespiary_sdk::testing::TestHost;

use crate::bay::plugin;

#[test]
fn a_truck_is_weighed_watched_and_shown() {
    let mut host = TestHost::new(plugin());
    host.publish_bytes("gates/1/arrived", "B-EE 1");
    host.answer("scales/ask", Json(7_500));
    assert_eq!(host.get("/gates/1").body_text(), r#"{"plate":"B-EE 1","weight_kg":7500}"#);
    host.publish_bytes("gates/2/arrived", "B-EE 2");
    host.advance(Duration::from_secs(1_800));
    assert_eq!(host.published("bay/+/too-long").len(), 2);
    host.publish_bytes("gates/1/left", "");
    assert_eq!(host.get("/gates/1").code(), 404);
    host.assert_state("departures", 1);
    host.assert_no_dead_letters();
}

#[test]
fn an_impostor_is_sent_away() {
    let mut host = TestHost::new(plugin());
    for client in ["scales", "scales/2", "scales"] {
        host.client_event("connected", client, json!({}));
    }
    assert_eq!(host.disconnected(), ["scales/2"]);
}

#[test]
fn trucks_of_version_1_stay() {
    let mut host = TestHost::upgrade_from(plugin(), 1, [("gate/1", json!("B-EE 1")), ("departures", json!(3))]);
    assert_eq!(host.get("/gates/1").body_text(), r#"{"plate":"B-EE 1","weight_kg":null}"#);
    host.assert_state("departures", 3);
}

#[test]
fn the_yard_is_told_each_night() {
    // A component reaches no server in tests.
    if std::env::var_os("VESPIARY_TEST_COMPONENT").is_some() {
        return;
    }
    let mut host = TestHost::new(plugin()).with_secret("yard-token", "t0ken");
    host.answer_http(|request| {
        assert_eq!((request.header("authorization"), request.body.as_slice()), (Some("t0ken"), &b"0"[..]));
        Ok(Response::new(204))
    });
    host.advance(Duration::from_secs(86_400));
    host.assert_published("bay/report", 0);
}
