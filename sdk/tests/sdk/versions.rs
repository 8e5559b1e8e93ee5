//! State of earlier versions becomes that of later ones.

use vespiary_sdk::prelude::*;
use vespiary_sdk::testing::TestHost;

mod first {
    use vespiary_sdk::prelude::*;

    plugin! { name: "health", handlers: [reading] }

    #[on("assets/{asset}/reading")]
    fn reading(cx: &mut Context, asset: &str, Json(value): Json<f64>) -> Result<()> {
        cx.state().update(format!("health/{asset}"), |values: &mut Vec<f64>| values.push(value))?;
        cx.state().add("readings", 1)?;
        Ok(())
    }
}

plugin! {
    name: "health",
    handlers: [reading],
    state_version: 3,
    migrations: [summed_up, split, forgotten],
}

/// What version 2 kept of an asset.
#[derive(Serialize, Deserialize)]
struct Summary {
    count: u64,
    sum: f64,
}

#[migrate("health/{asset}", from = 1)]
fn summed_up(Json(values): Json<Vec<f64>>) -> Result<Json<Summary>> {
    if values.iter().any(|value| value.is_sign_negative()) {
        return Err(Error::reject("a negative value"));
    }
    Ok(Json(Summary { count: values.len() as u64, sum: values.iter().sum() }))
}

#[migrate("health/{asset}", from = 2)]
fn split(asset: &str, Json(summary): Json<Summary>) -> Result<Vec<Entry>> {
    Ok(vec![Entry::json(format!("count/{asset}"), &summary.count)?, Entry::json(format!("sum/{asset}"), &summary.sum)?])
}

#[migrate("old/#", from = 2)]
fn forgotten() -> Option<Entry> {
    None
}

#[on("assets/{asset}/reading")]
fn reading(cx: &mut Context, asset: &str) -> Result<()> {
    cx.state().add(format!("count/{asset}"), 1)?;
    Ok(())
}

#[test]
fn an_upgrade_takes_the_state_along_through_all_versions() {
    let mut host = TestHost::new(first::plugin());
    for (asset, value) in [("pump", 1.5), ("pump", 2.5), ("fan", 4.0)] {
        host.publish(format!("assets/{asset}/reading"), value);
    }
    host.set_state("old/x", 1);
    host.upgrade(plugin());
    host.publish("assets/pump/reading", 1);
    assert_eq!(host.state_keys(""), ["count/fan", "count/pump", "readings", "sum/fan", "sum/pump"]);
    host.assert_state("count/pump", 3);
    host.assert_state("sum/pump", 4.0);
    host.assert_state("readings", 3);
}

#[test]
fn a_migration_that_fails_refuses_the_deploy_and_changes_nothing() {
    let mut host = TestHost::new(first::plugin());
    host.publish("assets/pump/reading", -1);
    let reason = host.try_upgrade(plugin()).unwrap_err();
    assert_eq!(reason, "migration `summed_up` from state version 1, `health/pump`: a negative value");
    host.publish("assets/pump/reading", 2);
    host.assert_state("health/pump", [-1.0, 2.0]);
}

#[test]
fn state_can_be_given_in_any_version() {
    let host = TestHost::upgrade_from(plugin(), 2, [("health/pump", json!({ "count": 2, "sum": 3.0 }))]);
    host.assert_state("count/pump", 2);
    assert!(TestHost::new(plugin()).try_upgrade(first::plugin()).unwrap_err().contains("its state version is 1"));
}

#[test]
#[should_panic(expected = "no migration begins at state version 7")]
fn a_version_that_no_migration_knows_fails() {
    TestHost::upgrade_from(plugin(), 7, [("x", 1)]);
}

#[test]
fn the_manifest_says_the_state_version() {
    let manifest: serde_json::Value = serde_json::from_str(plugin().manifest()).unwrap();
    assert_eq!((&manifest["state_version"], plugin().state_version()), (&json!(3), 3));
}
