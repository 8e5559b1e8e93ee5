//! Counts what passes through each gate and announces every tenth.

use vespiary_sdk::prelude::*;

plugin! {
    name: "night-watch",
    handlers: [passed],
    publishes: ["gates/+/tenth"],
}

/// What a gate sends.
#[derive(Deserialize)]
struct Passage {
    /// Who or what passed.
    who: String,
}

/// What is announced.
#[derive(Serialize)]
struct Tenth<'a> {
    /// Who or what passed.
    who: &'a str,
    /// How many have passed now.
    count: u64,
}

#[on("gates/{gate}/passed")]
fn passed(cx: &mut Context, gate: &str, Json(passage): Json<Passage>) -> Result<()> {
    let count = cx.state().get_or_default::<u64>(gate)? + 1;
    cx.state().set(gate, &count)?;
    if count % 10 == 0 {
        info!("{} is number {count} at {gate}", passage.who);
        cx.publish(format!("gates/{gate}/tenth"), Json(Tenth { who: &passage.who, count }))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use vespiary_sdk::testing::TestHost;

    #[test]
    fn every_tenth_is_announced() {
        let mut host = TestHost::new(plugin());
        for number in 1..=10 {
            host.publish("gates/north/passed", json!({ "who": format!("wasp {number}") }));
        }
        host.assert_published("gates/north/tenth", json!({ "who": "wasp 10", "count": 10 }));
        assert_eq!(host.state::<u64>("north"), Some(10));
    }
}
