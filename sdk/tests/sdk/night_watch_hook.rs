//! Lets a machine publish below its own name only, and keeps implausible speeds out.

use vespiary_sdk::prelude::*;

plugin! {
    name: "night-watch",
    hooks: [own_topics, plausible],
}

/// The highest speed that is believed, in revolutions a minute; the configuration may say another.
const HIGHEST: f64 = 3_000.0;

#[authorize("machines/#", actions = [publish, will])]
fn own_topics(access: &Access, client: &Client) -> Authorization {
    match access.topic.split('/').nth(1) {
        Some(machine) if machine == client.id => Authorization::Pass,
        _ => Authorization::deny(format!("{} is not {}'s", access.topic, client.id)),
    }
}

#[intercept_publish("machines/{machine}/speed", deadline_ms = 50, on_failure = "allow")]
fn plausible(cx: &Context, machine: &str, message: &Message) -> Result<PublishVerdict> {
    let highest = cx.config().parse_or("highest", HIGHEST)?;
    let Some(speed) = message.text().ok().and_then(|text| text.parse::<f64>().ok()) else {
        return Ok(PublishVerdict::deny("a speed is a number"));
    };
    if speed > highest {
        warn!("{machine} claims to run at {speed}");
        return Ok(PublishVerdict::Drop);
    }
    Ok(PublishVerdict::Keep)
}

#[cfg(test)]
mod tests {
    use super::*;
    use vespiary_sdk::testing::TestHost;

    #[test]
    fn a_machine_publishes_below_its_own_name() {
        let mut host = TestHost::new(plugin());
        let mut ask = |topic: &str| {
            let client = Client::of("press");
            let (topic, qos) = (topic.to_owned(), Qos::AtLeastOnce);
            host.authorize(&Access { client, action: Action::Publish, topic, qos, retain: false })
        };
        assert_eq!(ask("machines/press/speed"), Ok(Authorization::Pass));
        assert_eq!(ask("machines/lathe/speed"), Ok(Authorization::deny("machines/lathe/speed is not press's")));
    }

    #[test]
    fn implausible_speeds_are_kept_out() {
        let mut host = TestHost::new(plugin()).with_config([("highest", "2000")]);
        let mut show =
            |speed: &str| host.intercept_publish(&Client::of("press"), &Message::of("machines/press/speed", speed));
        assert_eq!(show("1500"), Ok(PublishVerdict::Keep));
        assert_eq!(show("2500"), Ok(PublishVerdict::Drop));
        assert_eq!(show("fast"), Ok(PublishVerdict::deny("a speed is a number")));
    }
}
