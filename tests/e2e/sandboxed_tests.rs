//! `vespiary test` and `vespiary test --wasm`: the same tests of a crate natively and against its component.

use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::harness::{binary, run_limited, target};

/// How long a run may take: the first compiles the crate's dependencies.
const LIMIT: Duration = Duration::from_secs(600);

/// A plugin with hooks of each kind, of which the first tells where it runs; and its tests.
const GATE: &str = r##"//! Hooks of each kind, and where they run.

use vespiary_sdk::prelude::*;

plugin! {
    name: "gate",
    handlers: [enrolled],
    hooks: [who, twice, may, cleaned, narrowed, redacted],
}

#[on("enrolled/{user}")]
fn enrolled(cx: &mut Context, user: &str) -> Result<()> {
    Ok(cx.state().set(user, &true)?)
}

#[authenticate]
fn who(cx: &Context, credentials: &Credentials) -> Result<Authentication> {
    let user = credentials.client.user.as_deref().unwrap_or_default();
    match user {
        "fails" => return Err(Error::retry("it is out of order")),
        "panics" => panic!("told to"),
        "writes" => cx.state().set("written", &true)?,
        _ => {}
    }
    let place = if cfg!(target_family = "wasm") { "component" } else { "native" };
    let limit = cx.config().get("limit").unwrap_or_default();
    Ok(match (cx.state().get::<bool>(user)?, credentials.password.as_deref()) {
        (None, _) => Authentication::Pass,
        (Some(_), Some(b"right")) => Authentication::allow_as(format!("{place}{limit}")),
        (Some(_), _) => Authentication::deny("wrong password"),
    })
}

#[auth_step(method = "TWICE")]
fn twice(step: &Step) -> Progress {
    match (step.state.as_deref(), step.data.as_deref()) {
        (None, _) => Progress::Continue { data: b"again".into(), next: b"once".into() },
        (Some(b"once"), Some(data)) => Progress::Success { data: Some(data.into()), user: Some("twice".into()) },
        (Some(_), _) => Progress::deny("too often"),
    }
}

#[authorize("plant/#", actions = [publish, will])]
fn may(access: &Access, client: &Client) -> Authorization {
    match (client.protocol, access.retain) {
        (4, _) => Authorization::deny("it speaks 3.1.1"),
        (_, true) => Authorization::Allow,
        (_, false) => Authorization::Pass,
    }
}

#[intercept_publish("raw/{device}")]
fn cleaned(device: &str, message: &Message) -> PublishVerdict {
    match message.payload.as_slice() {
        b"" => PublishVerdict::Drop,
        b"no" => PublishVerdict::deny("no"),
        b"same" => PublishVerdict::Keep,
        _ => PublishVerdict::Replace(Message { topic: format!("clean/{device}"), ..message.clone() }),
    }
}

#[intercept_subscribe("plant/#")]
fn narrowed(subscription: &Subscription) -> SubscribeVerdict {
    match subscription.filter.as_str() {
        "#" => SubscribeVerdict::deny("not everything"),
        _ => SubscribeVerdict::Replace(Subscription { qos: Qos::AtMostOnce, ..subscription.clone() }),
    }
}

#[intercept_deliver("reports/{name}")]
fn redacted(name: &str, message: &Message) -> DeliverVerdict {
    match name {
        "open" => DeliverVerdict::Keep,
        "internal" => DeliverVerdict::Drop,
        _ => DeliverVerdict::Replace(Message { payload: b"-".to_vec(), ..message.clone() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vespiary_sdk::testing::TestHost;

    #[test]
    fn hooks_answer() {
        let place = if std::env::var_os("VESPIARY_TEST_COMPONENT").is_some() { "component" } else { "native" };
        let mut host = TestHost::new(plugin()).with_config([("limit", "7")]);
        let shows = |user: &str, password: &str| Credentials::of("x", user, password);
        assert_eq!(host.authenticate(&shows("ada", "right")), Ok(Authentication::Pass));
        host.publish_bytes("enrolled/ada", "");
        assert_eq!(host.authenticate(&shows("ada", "right")), Ok(Authentication::allow_as(format!("{place}7"))));
        assert_eq!(host.authenticate(&shows("ada", "left")), Ok(Authentication::deny("wrong password")));
        assert_eq!(host.authenticate(&shows("fails", "")), Err("it is out of order".to_owned()));
        assert!(host.authenticate(&shows("panics", "")).unwrap_err().contains("told to"));
        assert!(host.authenticate(&shows("writes", "")).is_err(), "hooks only read");

        let mut step = Step { client: Client::of("x"), method: "TWICE".into(), data: None, state: None };
        let again = Progress::Continue { data: b"again".into(), next: b"once".into() };
        assert_eq!(host.auth_step(&step), Ok(again));
        (step.data, step.state) = (Some(b"me".into()), Some(b"once".into()));
        let success = Progress::Success { data: Some(b"me".into()), user: Some("twice".into()) };
        assert_eq!(host.auth_step(&step), Ok(success));
        step.data = None;
        assert_eq!(host.auth_step(&step), Ok(Progress::deny("too often")));

        for (protocol, action, retain, expected) in [
            (4, Action::Will, false, Authorization::deny("it speaks 3.1.1")),
            (5, Action::Publish, true, Authorization::Allow),
            (5, Action::Publish, false, Authorization::Pass),
            (4, Action::Subscribe, false, Authorization::Pass),
        ] {
            let client = Client { protocol, ..Client::of("x") };
            let access = Access { client, action, topic: "plant/a".into(), qos: Qos::AtLeastOnce, retain };
            assert_eq!(host.authorize(&access), Ok(expected));
        }

        let client = Client::of("x");
        let raw = |payload: &str| Message { retain: true, ..Message::of("raw/pump", payload) };
        assert_eq!(host.intercept_publish(&client, &raw("")), Ok(PublishVerdict::Drop));
        assert_eq!(host.intercept_publish(&client, &raw("no")), Ok(PublishVerdict::deny("no")));
        assert_eq!(host.intercept_publish(&client, &raw("same")), Ok(PublishVerdict::Keep));
        let clean = PublishVerdict::Replace(Message { topic: "clean/pump".into(), ..raw("1") });
        assert_eq!(host.intercept_publish(&client, &raw("1")), Ok(clean));

        let wanted = |filter: &str, qos| Subscription { filter: filter.into(), qos };
        let all = host.intercept_subscribe(&client, &wanted("#", Qos::ExactlyOnce));
        assert_eq!(all, Ok(SubscribeVerdict::deny("not everything")));
        let narrower = SubscribeVerdict::Replace(wanted("plant/+", Qos::AtMostOnce));
        assert_eq!(host.intercept_subscribe(&client, &wanted("plant/+", Qos::ExactlyOnce)), Ok(narrower));
        let other = host.intercept_subscribe(&client, &wanted("other", Qos::ExactlyOnce));
        assert_eq!(other, Ok(SubscribeVerdict::Keep));

        for (name, expected) in [
            ("open", DeliverVerdict::Keep),
            ("internal", DeliverVerdict::Drop),
            ("other", DeliverVerdict::Replace(Message::of("reports/other", "-"))),
        ] {
            let report = Message::of(format!("reports/{name}"), "12");
            assert_eq!(host.intercept_deliver(&client, &report), Ok(expected));
        }
    }
}
"##;

#[test]
fn hooks_answer_in_the_component_as_they_do_natively() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let mut new = Command::new(binary());
    new.args(["new", "gate", "--template", "hook"]).current_dir(directory.path());
    let made = run_limited(&mut new, LIMIT)?;
    ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let crate_directory = directory.path().join("gate");
    std::fs::write(crate_directory.join("src/lib.rs"), GATE)?;
    for arguments in [&["test"][..], &["test", "--wasm"]] {
        let mut test = Command::new(binary());
        // The dependencies of all crates that these tests make are compiled once.
        test.args(arguments).current_dir(&crate_directory).env("CARGO_TARGET_DIR", target().join("dev-crates"));
        let tested = run_limited(&mut test, LIMIT)?;
        let (stdout, stderr) = (String::from_utf8_lossy(&tested.stdout), String::from_utf8_lossy(&tested.stderr));
        ensure!(tested.status.success() && stdout.contains("1 passed"), "{arguments:?}: {stdout}\n{stderr}");
    }
    Ok(())
}
