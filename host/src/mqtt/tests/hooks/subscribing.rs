//! Subscriptions: what a hook refuses, and what it makes of them.

use super::*;

#[test]
fn a_hook_decides_about_each_filter_by_itself() {
    let hooks = Hooks::default();
    let authorize = HookDeclaration { actions: vec![Action::Subscribe], ..declaration(Hook::Authorize, &["#"]) };
    install(&hooks, "p", &[authorize, declaration(Hook::InterceptSubscribe, &["mine/#", "low"])], |question| {
        Ok(match question {
            Question::Authorize(access) if access.topic.starts_with("secret") => {
                Answer::Authorize(Authorization::Deny(refusal(0x97)))
            }
            Question::Authorize(_) => Answer::Authorize(Authorization::Pass),
            Question::Subscribe(subscribing) => {
                let (filter, qos) = match subscribing.filter.as_str() {
                    "low" => ("low", vespiary_core::Qos::AtMostOnce),
                    "mine/denied" => ("denied/x", vespiary_core::Qos::AtMostOnce),
                    _ => ("7/mine", vespiary_core::Qos::ExactlyOnce),
                };
                let filter = vespiary_core::TopicFilter::parse(filter).unwrap();
                Answer::Subscribe(SubscribeVerdict::Replace { filter, qos })
            }
            _ => return Err("another question".to_owned()),
        })
    });
    let denied = crate::config::Filter(vespiary_core::TopicFilter::parse("denied/#").unwrap());
    let options = MqttOptions { hooks: hooks.clone(), denied_subscriptions: vec![denied], ..MqttOptions::default() };
    let served = served_with(1, options, Limits::default());
    let filters = ["plain", "secret/x", "mine/+", "low", "mine/denied"];
    for (level, reasons) in [(4, [1, 0x80, 1, 0, 0x80]), (5, [1, 0x97, 1, 0, 0x80])] {
        let mut to = client(&served, level, "to");
        let mut body = vec![0, 9];
        if level == 5 {
            body.push(0);
        }
        for filter in filters {
            body.extend([0, filter.len() as u8]);
            body.extend(filter.bytes());
            body.push(1);
        }
        // A publish of its own that comes behind, and a ping.
        to.send(&[frame(0x82, &body), publish(level, 0x30, "7/mine", 0, b"x"), vec![0xC0, 0]].concat());
        let suback = to.packet();
        assert_eq!((suback[0], &suback[suback.len() - 5..]), (0x90, &reasons[..]), "{suback:02x?}");
        let (mut message, mut pong) = (to.packet(), to.packet());
        if message[0] == 0xD0 {
            std::mem::swap(&mut message, &mut pong);
        }
        assert_eq!((message, pong), (publish(level, 0x30, "7/mine", 0, b"x"), vec![0xD0, 0]));
    }
}

#[test]
fn a_filter_that_mqtt_does_not_allow_is_nobody_s_question() {
    let hooks = Hooks::default();
    install(&hooks, "p", &[declaration(Hook::InterceptSubscribe, &["a/#"])], |question| {
        let Question::Subscribe(subscribing) = question else { return Err("another question".to_owned()) };
        assert_eq!(subscribing.filter.as_str(), "a/b");
        Ok(Answer::Subscribe(SubscribeVerdict::Keep))
    });
    let served = served_with_hooks(&hooks);
    let mut client = served.v5("me");
    let body = [&[0, 1, 0, 0, 5][..], b"a/#/b", &[0, 0, 3], b"a/b", &[0]].concat();
    client.send(&frame(0x82, &body));
    let suback = client.packet();
    assert_eq!(suback[suback.len() - 2..], [0x8F, 0], "{suback:02x?}");
}
