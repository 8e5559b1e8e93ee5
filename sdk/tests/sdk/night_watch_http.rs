//! Counts what passes through each gate, and answers for it over HTTP.

use vespiary_sdk::prelude::*;

plugin! {
    name: "night-watch",
    handlers: [passed],
    routes: [gates, gate, reset],
    publishes: ["gates/+/reset"],
}

/// A gate and what passed through it.
#[derive(Serialize)]
struct Gate {
    /// Its name.
    gate: String,
    /// How many have passed.
    count: i64,
}

#[on("gates/{gate}/passed")]
fn passed(cx: &mut Context, gate: &str) -> Result<()> {
    cx.state().add(gate, 1)?;
    Ok(())
}

#[http(GET, "/gates")]
fn gates(cx: &Context, query: Query<'_>) -> Result<Json<Vec<Gate>>> {
    let least = query.parse("least")?.unwrap_or(0);
    let gates = cx.state().scan("")?.into_iter().map(|(gate, count)| Gate { gate, count });
    Ok(Json(gates.filter(|gate| gate.count >= least).collect()))
}

#[http(GET, "/gates/{gate}")]
fn gate(cx: &Context, gate: &str) -> Result<Option<Json<Gate>>> {
    let count = cx.state().get(gate)?;
    Ok(count.map(|count| Json(Gate { gate: gate.into(), count })))
}

#[http(POST, "/gates/{gate}/reset")]
fn reset(cx: &mut Context, gate: &str) -> Result<()> {
    cx.state().delete(gate)?;
    cx.publish(format!("gates/{gate}/reset"), "")
}

#[cfg(test)]
mod tests {
    use super::*;
    use vespiary_sdk::testing::TestHost;

    #[test]
    fn what_passed_is_answered_for() {
        let mut host = TestHost::new(plugin());
        for gate in ["north", "south", "north"] {
            host.publish_bytes(format!("gates/{gate}/passed"), "");
        }
        assert_eq!(host.get("/gates/north").body_text(), r#"{"gate":"north","count":2}"#);
        assert_eq!(host.get("/gates?least=2").body_text(), r#"[{"gate":"north","count":2}]"#);
        assert_eq!(host.get("/gates/east").code(), 404);
    }

    #[test]
    fn a_gate_can_be_reset() {
        let mut host = TestHost::new(plugin());
        host.publish_bytes("gates/north/passed", "");
        assert_eq!(host.post("/gates/north/reset", json!({})).code(), 204);
        assert_eq!(host.published("gates/north/reset").len(), 1);
        host.assert_state("north", json!(null));
    }
}
