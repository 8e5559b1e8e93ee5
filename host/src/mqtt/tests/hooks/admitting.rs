//! Who is let in, by which name, and with which will.

use super::*;

/// A plugin that knows some users by their password.
fn install_users(hooks: &Hooks) {
    install(hooks, "users", &[declaration(Hook::Authenticate, &[])], |question| {
        let Question::Authenticate(credentials) = question else { return Err("another question".to_owned()) };
        assert!(credentials.client.address.starts_with("127.0.0.1:") && credentials.clean_start);
        Ok(Answer::Authenticate(match credentials.password.as_deref() {
            Some(b"right") => Authentication::Allow(None),
            Some(b"bob's") => Authentication::Allow(Some("bob".to_owned())),
            Some(b"wrong") => Authentication::Deny(refusal(0x86)),
            Some(b"stolen") => Authentication::Deny(refusal(0x8A)),
            _ => Authentication::Pass,
        }))
    });
}

#[test]
fn a_hook_lets_clients_in_or_refuses_them_and_the_configuration_decides_about_others() {
    for anonymous in [true, false] {
        let hooks = Hooks::default();
        install_users(&hooks);
        let options = MqttOptions { hooks: hooks.clone(), anonymous, ..MqttOptions::default() };
        let served = served_with(1, options, Limits::default());
        let nobody = if anonymous { (0, 0) } else { (5, 0x87) };
        for (password, (v3, v5)) in
            [("right", (0, 0)), ("bob's", (0, 0)), ("wrong", (4, 0x86)), ("stolen", (5, 0x87)), ("?", nobody)]
        {
            for (level, code) in [(4, v3), (5, v5)] {
                let mut client = served.socket();
                client.send(&connect_as(level, "me", "me", password));
                let connack = client.packet();
                assert_eq!((connack[0], connack[3]), (0x20, code), "{password}: {connack:02x?}");
                if code == 0 {
                    client.expect_silence();
                } else {
                    assert_eq!(level == 5 && password != "?", connack.ends_with(b"because"), "{connack:02x?}");
                    client.expect_end();
                }
            }
        }
        let refused = if anonymous { 4 } else { 6 };
        assert_eq!(served.counters.failed_authentications.value(), refused);
        // Without the plugin, only the configuration decides.
        hooks.remove(&PluginName("users".into()));
        let mut client = served.socket();
        client.send(&connect_as(5, "me", "me", "wrong"));
        assert_eq!(client.packet()[3], nobody.1);
    }
}

#[test]
fn a_hook_that_fails_closed_tells_clients_to_try_again_later() {
    for (on_failure, v3, v5) in [(OnFailure::Deny, 3, 0x88), (OnFailure::Allow, 0, 0)] {
        let hooks = Hooks::default();
        let declaration = HookDeclaration { on_failure, ..declaration(Hook::Authenticate, &[]) };
        install(&hooks, "p", &[declaration], |_| Err("trap".to_owned()));
        let served = served_with_hooks(&hooks);
        for (level, code) in [(4, v3), (5, v5)] {
            let mut client = served.socket();
            client.send(&connect(level, 2, 0, "me"));
            assert_eq!(client.packet()[3], code);
        }
    }
}

#[test]
fn messages_and_wills_carry_the_name_that_a_hook_gave_or_the_one_in_connect() {
    let hooks = Hooks::default();
    install_users(&hooks);
    install(&hooks, "rights", &[declaration(Hook::Authorize, &["t/#"])], |question| {
        let Question::Authorize(access) = question else { return Err("another question".to_owned()) };
        let is_own = access.topic.strip_prefix("t/") == access.client.user.as_deref();
        Ok(Answer::Authorize(if is_own { Authorization::Allow } else { Authorization::Deny(refusal(0x87)) }))
    });
    // What a plugin sees of the message itself.
    install(&hooks, "seen", &[declaration(Hook::InterceptPublish, &["t/#"])], |question| {
        let Question::Publish(passing) = question else { return Err("another question".to_owned()) };
        let user = passing.message.user.as_deref().unwrap_or("nobody");
        Ok(Answer::Publish(PublishVerdict::Replace(changed(passing, "seen", user.as_bytes()))))
    });
    let served = served_with_hooks(&hooks);
    let mut witness = subscriber(&served, 4, "witness", "seen", 0);
    for (level, password, name) in [(4, "right", "alice"), (5, "bob's", "bob"), (5, "?", "alice")] {
        let mut client = served.socket();
        client.send(&connect_as(level, "me", "alice", password));
        assert_eq!(client.packet()[3], 0);
        client.send(&publish(level, 0x30, &format!("t/{name}"), 0, b""));
        witness.expect(&publish(4, 0x30, "seen", 0, name.as_bytes()));
    }
    assert_eq!(served.counters.denied_by_hooks.value(), 0);
}

#[test]
fn a_will_that_a_hook_refuses_refuses_its_client() {
    let hooks = Hooks::default();
    let wills = HookDeclaration { actions: vec![Action::Will], ..declaration(Hook::Authorize, &["#"]) };
    install(&hooks, "p", &[wills], |question| {
        let Question::Authorize(access) = question else { return Err("another question".to_owned()) };
        assert_eq!((access.action, access.retain), (crate::wasm::hooks::Action::Will, true));
        let is_taken = &*access.topic == "yes";
        Ok(Answer::Authorize(if is_taken { Authorization::Pass } else { Authorization::Deny(refusal(0x90)) }))
    });
    let served = served_with_hooks(&hooks);
    for (level, topic, code) in [(4, "yes", 0), (5, "yes", 0), (4, "no", 5), (5, "no", 0x90)] {
        let mut packet = connect(level, 0x26, 0, "me");
        if level == 5 {
            packet.push(0);
        }
        packet.extend([0, topic.len() as u8]);
        packet.extend(topic.bytes());
        packet.extend([0, 1, b'!']);
        packet[1] = packet.len() as u8 - 2;
        let mut client = served.socket();
        client.send(&packet);
        assert_eq!(client.packet()[3], code, "{topic} {level}");
        // Publishes are nobody's business here.
        if code == 0 {
            client.send(&publish(level, 0x30, "no", 0, b""));
            client.expect_silence();
            client.send(&[0xE0, 0]);
        }
        client.expect_end();
    }
}

#[test]
fn what_comes_with_a_connect_waits_with_it_and_its_deadline_runs_on() {
    let hooks = Hooks::default();
    let (open, wait) = gate();
    install(&hooks, "p", &[declaration(Hook::Authenticate, &[])], move |_| {
        wait();
        Ok(Answer::Authenticate(Authentication::Allow(None)))
    });
    let options = MqttOptions { hooks: hooks.clone(), connect_timeout_ms: 3_000, ..MqttOptions::default() };
    let served = served_with(1, options, Limits::default());
    for level in [4, 5] {
        let mut client = served.socket();
        client.send(&[connect(level, 2, 0, "me"), subscribe(level, 7, "t", 1), vec![0xC0, 0]].concat());
        assert_eq!(served.driver.inspect(|broker| broker.statistics().connections), 0);
        open.send(()).unwrap();
        assert_eq!(client.packet()[0], 0x20);
        assert_eq!(client.packet()[0], 0x90);
        client.expect(&[0xD0, 0]);
        client.send(&[0xE0, 0]);
        client.expect_end();
    }
    // Nobody says anything to these.
    let mut client = served.socket();
    client.send(&connect(5, 2, 0, "me"));
    client.expect_gone();
    assert_eq!(served.counters.timeouts.value(), 1);
    drop(open);
    let mut client = served.v5("other");
    client.expect_silence();
}
