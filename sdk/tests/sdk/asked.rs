//! Hooks, routes, secrets, and requests over HTTP.

use vespiary_sdk::http::HttpError;
use vespiary_sdk::prelude::*;
use vespiary_sdk::testing::{Delivery, TestHost};

plugin! {
    name: "gatekeeper",
    handlers: [moved],
    hooks: [named, known, second_factor, plant, all, cleaned, shouted, narrowed, redacted],
    routes: [asset, assets, moved_by_hand, fails, panics, gives_up, anything],
    publishes: ["assets/+/place"],
    secrets: ["pepper", "token"],
    http_hosts: ["https://cmdb.example.com", "http://*.plant.example"],
}

#[authenticate(priority = -5, deadline_ms = 50, on_failure = "allow")]
fn named(client: &Client) -> Authentication {
    if client.id == "root" { Authentication::deny("nobody is root") } else { Authentication::Pass }
}

#[authenticate]
fn known(cx: &Context, credentials: &Credentials) -> Result<Authentication> {
    let Some(user) = &credentials.client.user else { return Ok(Authentication::Pass) };
    if user == "broken" {
        cx.state().set("user/broken", "x")?;
    }
    let pepper = cx.secret("pepper")?;
    assert_eq!(format!("{pepper:?}"), "Secret(pepper)");
    let expected = cx.state().get::<String>(format!("user/{user}"))?.map(|password| password + &pepper.reveal());
    info!("{user}: {}", pepper.reveal());
    match expected.is_some_and(|expected| Some(expected.as_bytes()) == credentials.password.as_deref()) {
        true => Ok(Authentication::allow_as(user.to_uppercase())),
        false => Ok(Authentication::deny("wrong password")),
    }
}

#[auth_step(method = "TWICE")]
fn second_factor(step: &Step) -> Progress {
    match step.state.as_deref() {
        None => Progress::Continue { data: b"again".into(), next: b"once".into() },
        Some(b"once") => Progress::Success { data: None, user: Some("twice".into()) },
        Some(_) => Progress::deny("too often"),
    }
}

#[authorize("plant/#", actions = [publish])]
fn plant(access: &Access, client: &Client) -> Authorization {
    if client.user.is_some() || access.qos == Qos::AtMostOnce { Authorization::Allow } else { Authorization::Pass }
}

#[authorize(actions = [publish, subscribe])]
fn all(cx: &Context, access: &Access) -> Result<Authorization> {
    assert_eq!(cx.config().get("open"), None);
    Ok(if access.topic.starts_with("secret") { Authorization::deny("it is secret") } else { Authorization::Pass })
}

#[intercept_publish("raw/{device}/#")]
fn cleaned(device: &str, message: &Message) -> PublishVerdict {
    match message.payload.as_slice() {
        b"" => PublishVerdict::Drop,
        b"panic" => panic!("no such message"),
        _ => PublishVerdict::Replace(Message { topic: format!("clean/{device}"), ..message.clone() }),
    }
}

#[intercept_publish("clean/+")]
fn shouted(message: &Message) -> Result<PublishVerdict> {
    let text = message.text()?.to_uppercase();
    Ok(PublishVerdict::Replace(Message { payload: text.into_bytes(), ..message.clone() }))
}

#[intercept_subscribe("plant/#")]
fn narrowed(subscription: &Subscription) -> SubscribeVerdict {
    match subscription.filter.as_str() {
        "#" => SubscribeVerdict::deny("not everything"),
        _ => SubscribeVerdict::Replace(Subscription { qos: Qos::AtMostOnce, ..subscription.clone() }),
    }
}

#[intercept_deliver("reports/{name}")]
fn redacted(name: &str, client: &Client, message: &Message) -> DeliverVerdict {
    match (name, client.user.as_deref()) {
        ("internal", None) => DeliverVerdict::Drop,
        (_, None) => DeliverVerdict::Replace(Message { payload: b"-".to_vec(), ..message.clone() }),
        (_, Some(_)) => DeliverVerdict::Keep,
    }
}

/// Where something is.
#[derive(Serialize, Deserialize)]
struct Place {
    hall: u8,
}

#[http(GET, "/assets/{asset}")]
fn asset(cx: &Context, asset: &str) -> Result<Option<Json<Place>>> {
    Ok(cx.state().get(asset)?.map(Json))
}

#[http(GET, "/assets")]
fn assets(cx: &Context, query: Query<'_>) -> Result<Json<Vec<String>>> {
    let limit = query.parse::<usize>("limit")?.unwrap_or(100);
    let places = cx.state().scan_page::<Place>(query.get("prefix").unwrap_or_default(), None, limit)?;
    Ok(Json(places.into_iter().map(|(key, _)| key).collect()))
}

#[http(PUT, "/assets/{asset}")]
fn moved_by_hand(cx: &mut Context, asset: &str, Json(place): Json<Place>, request: &Incoming) -> Result<()> {
    cx.state().set(asset, &place)?;
    let by = request.header("X-User").unwrap_or("somebody");
    cx.publish(format!("assets/{asset}/place"), Json(json!({ "hall": place.hall, "by": by })))
}

#[http(POST, "/fails")]
fn fails(cx: &mut Context) -> Result<Response> {
    cx.state().set("x", &1)?;
    Err(Error::retry("the store is shut"))
}

#[http(POST, "/panics")]
fn panics(cx: &mut Context) -> Result<Response> {
    cx.state().set("x", &1)?;
    panic!("told to")
}

#[http(POST, "/gives-up")]
fn gives_up(cx: &mut Context) -> Result<Response> {
    cx.state().set("x", &1)?;
    Ok(Response::new(500))
}

#[http(GET, "/files/{rest..}")]
fn anything(rest: &str) -> Response {
    Response::text(rest).status(418).header("x-kind", "teapot")
}

#[on("assets/{asset}/moved")]
fn moved(cx: &mut Context, asset: &str, Text(server): Text) -> Result<()> {
    let token = cx.secret("token")?.reveal();
    let call = cx.http().post(format!("{server}/places/{asset}?x=1")).header("Authorization", token);
    let place: Place = call.json(&json!({ "asset": asset }))?.send()?.success()?.body_json()?;
    Ok(cx.state().set(asset, &place)?)
}

fn host() -> TestHost {
    TestHost::new(plugin()).with_secret("pepper", "!").with_secret("token", "t0ken")
}

#[test]
fn the_first_hook_that_knows_answers() {
    let mut host = host();
    host.set_state("user/ann", "secret");
    assert_eq!(
        host.authenticate(&Credentials::of("root", "ann", "secret!")),
        Ok(Authentication::deny("nobody is root"))
    );
    assert_eq!(host.authenticate(&Credentials::of("a", "ann", "secret!")), Ok(Authentication::allow_as("ANN")));
    assert_eq!(host.authenticate(&Credentials::of("a", "ann", "other")), Ok(Authentication::deny("wrong password")));
    let anonymous = Credentials { client: Client::of("a"), password: None, clean_start: true };
    assert_eq!(host.authenticate(&anonymous), Ok(Authentication::Pass));
    assert_eq!(host.logs()[0].message, "ann: [secret]", "a secret is blotted out");
}

#[test]
fn a_hook_that_writes_or_panics_has_failed() {
    let mut host = host();
    let reason = host.authenticate(&Credentials::of("a", "broken", "x")).unwrap_err();
    assert!(reason.contains("a hook reads only"), "{reason}");
    let reason = host.intercept_publish(&Client::of("a"), &Message::of("raw/7/x", "panic")).unwrap_err();
    assert!(reason.ends_with(": no such message"), "{reason}");
}

#[test]
fn an_exchange_goes_step_by_step() {
    let mut host = host();
    let mut step = Step { client: Client::of("a"), method: "TWICE".into(), data: None, state: None };
    let Ok(Progress::Continue { next, .. }) = host.auth_step(&step) else { panic!() };
    step.state = Some(next);
    assert_eq!(host.auth_step(&step), Ok(Progress::Success { data: None, user: Some("twice".into()) }));
    step.method = "THRICE".into();
    assert_eq!(host.auth_step(&step), Ok(Progress::deny("no such method: THRICE")));
}

#[test]
fn authorize_is_asked_for_its_topics_and_actions() {
    let mut host = host();
    let mut ask = |action, topic: &str, user: Option<&str>| {
        let client = user.map_or(Client::of("a"), |user| Client::of("a").with_user(user));
        let access = Access { client, action, topic: topic.into(), qos: Qos::AtLeastOnce, retain: false };
        host.authorize(&access).unwrap()
    };
    assert_eq!(ask(Action::Publish, "plant/1", Some("ann")), Authorization::Allow);
    assert_eq!(ask(Action::Publish, "plant/1", None), Authorization::Pass);
    assert_eq!(ask(Action::Subscribe, "plant/#", Some("ann")), Authorization::Pass);
    assert_eq!(ask(Action::Subscribe, "secret/+", None), Authorization::deny("it is secret"));
    assert_eq!(ask(Action::Will, "secret/x", None), Authorization::Pass);
}

#[test]
fn messages_are_replaced_dropped_and_denied() {
    let mut host = host();
    let client = Client::of("a");
    let Ok(PublishVerdict::Replace(message)) = host.intercept_publish(&client, &Message::of("raw/7/x", "abc")) else {
        panic!()
    };
    assert_eq!((message.topic.as_str(), message.text()), ("clean/7", Ok("ABC")), "the second sees what the first made");
    assert_eq!(host.intercept_publish(&client, &Message::of("raw/7/x", "")), Ok(PublishVerdict::Drop));
    assert_eq!(host.intercept_publish(&client, &Message::of("other", "")), Ok(PublishVerdict::Keep));
    let wanted = |filter: &str| Subscription { filter: filter.into(), qos: Qos::ExactlyOnce };
    let narrow = Subscription { qos: Qos::AtMostOnce, ..wanted("plant/+") };
    assert_eq!(host.intercept_subscribe(&client, &wanted("plant/+")), Ok(SubscribeVerdict::Replace(narrow)));
    assert_eq!(host.intercept_subscribe(&client, &wanted("#")), Ok(SubscribeVerdict::deny("not everything")));
    assert_eq!(host.intercept_subscribe(&client, &wanted("other/#")), Ok(SubscribeVerdict::Keep));
    let report = Message::of("reports/internal", "x");
    assert_eq!(host.intercept_deliver(&client, &report), Ok(DeliverVerdict::Drop));
    assert_eq!(host.intercept_deliver(&client.clone().with_user("ann"), &report), Ok(DeliverVerdict::Keep));
}

#[test]
fn the_manifest_names_each_kind_of_hook_once() {
    let manifest: serde_json::Value = serde_json::from_str(plugin().manifest()).unwrap();
    assert_eq!(
        manifest["hooks"],
        json!([
            { "hook": "authenticate", "priority": -5, "deadline_ms": 50, "on_failure": "allow" },
            { "hook": "auth-step", "methods": ["TWICE"] },
            { "hook": "authorize", "filters": ["plant/#", "#"], "actions": ["publish", "subscribe"] },
            { "hook": "intercept-publish", "filters": ["raw/+/#", "clean/+"] },
            { "hook": "intercept-subscribe", "filters": ["plant/#"] },
            { "hook": "intercept-deliver", "filters": ["reports/+"] },
        ])
    );
    assert_eq!(manifest["secrets"], json!(["pepper", "token"]));
    assert_eq!(manifest["http_hosts"], json!(["https://cmdb.example.com", "http://*.plant.example"]));
}

#[test]
fn routes_read_write_and_publish() {
    let mut host = host();
    assert_eq!(host.get("/assets/pump").code(), 404);
    let response = host.call_http("PUT", "/assets/pump%201").header("X-User", "ann").json(json!({ "hall": 3 })).send();
    assert_eq!((response.code(), response.body()), (204, &b""[..]));
    let response = host.get("/assets/pump%201");
    assert_eq!(response.header_value("Content-Type"), Some("application/json"));
    assert_eq!(response.body_json::<Place>().unwrap().hall, 3);
    assert_eq!(host.get("/assets?prefix=pump+&limit=5").body_text(), r#"["pump 1"]"#);
    assert_eq!(host.get("/files/a/b").body_text(), "a/b");
}

#[test]
#[should_panic(expected = "published to `assets/a/b/place`, which it was not granted")]
fn a_route_without_a_grant_fails_the_test() {
    let put = |host: &mut TestHost, asset: &str| host.call_http("PUT", asset).json(json!({ "hall": 3 })).send();
    let mut host = host();
    put(&mut host, "/assets/fan");
    host.assert_published("assets/fan/place", json!({ "hall": 3, "by": "somebody" }));
    put(&mut host, "/assets/a%2Fb");
}

#[test]
fn what_cannot_be_answered_has_the_right_status() {
    let mut host = host();
    assert_eq!(host.get("/nothing").code(), 404);
    let response = host.call_http("DELETE", "/assets/pump").send();
    assert_eq!((response.code(), response.header_value("allow")), (405, Some("GET, PUT")));
    let response = host.call_http("PUT", "/assets/pump").json(json!({ "hall": "x" })).send();
    assert_eq!(response.code(), 400);
    assert!(response.body_text().ends_with("(in hall)"), "{}", response.body_text());
    assert_eq!(host.get("/assets?limit=x").body_text(), "`limit` is `x`: invalid digit found in string");
    for path in ["/fails", "/panics", "/gives-up"] {
        let response = host.post(path, json!({}));
        assert_eq!((response.code(), host.state::<u8>("x")), (500, None), "{path} leaves nothing behind");
    }
    assert!(host.logs().iter().any(|line| line.message == "route `fails` failed: the store is shut"));
}

#[test]
fn requests_over_http_go_to_granted_servers() {
    let mut host = host().tolerating_denied();
    host.answer_http(|request| match request.url.as_str() {
        "https://cmdb.example.com/places/pump?x=1" => {
            assert_eq!((request.method.as_str(), request.header("authorization")), ("POST", Some("t0ken")));
            assert_eq!(request.body, br#"{"asset":"pump"}"#);
            Response::json(&Place { hall: 7 }).map_err(|error| HttpError::Failed(error.to_string()))
        }
        _ => Ok(Response::text("who?").status(404)),
    });
    assert_eq!(host.publish_bytes("assets/pump/moved", "https://cmdb.example.com"), Delivery::Done);
    host.assert_state("pump", json!({ "hall": 7 }));
    for (server, part) in [
        ("http://a.plant.example", "the server answered 404: who?"),
        ("https://evil.example.com", "the plugin may not reach this server"),
        ("http://cmdb.example.com", "the plugin may not reach this server"),
    ] {
        let Delivery::Retry(reason) = host.publish_bytes(format!("assets/{}/moved", server.len()), server) else {
            panic!()
        };
        assert!(reason.starts_with(part), "{reason}");
    }
}
