//! Authentication methods that come and go with plugins.

use super::*;

/// Authentication Method and Authentication Data.
fn properties(data: Option<&[u8]>) -> Vec<u8> {
    let mut properties = vec![0x15, 0, 1, b'm'];
    if let Some(data) = data {
        properties.extend([0x16, 0, data.len() as u8]);
        properties.extend(data);
    }
    properties
}

/// AUTH.
fn auth(reason: u8, data: Option<&[u8]>) -> Vec<u8> {
    let properties = properties(data);
    frame(0xF0, &[&[reason, properties.len() as u8][..], &properties].concat())
}

/// A plugin that asks for what it has just said, and knows the client by the data of its first packet.
fn install_method(hooks: &Hooks) {
    let step = HookDeclaration { methods: vec!["m".to_owned()], ..declaration(Hook::AuthStep, &[]) };
    install(hooks, "p", &[step, declaration(Hook::InterceptPublish, &["who"])], |question| {
        Ok(match question {
            Question::AuthStep(step) => Answer::AuthStep(match (&step.data, &step.state) {
                (Some(name), None) => {
                    let challenge = [b"say ", &name[..]].concat();
                    AuthProgress::Continue { data: challenge, next: name.clone() }
                }
                (Some(answer), Some(name)) if answer == name => {
                    let user = Some(String::from_utf8(name.clone()).unwrap());
                    AuthProgress::Success { data: Some(b"welcome".to_vec()), user }
                }
                (Some(_), Some(_)) => AuthProgress::Deny(refusal(0x86)),
                (None, _) => return Err("no data".to_owned()),
            }),
            Question::Publish(passing) => {
                let user = passing.client.user.as_deref().unwrap_or("nobody");
                Answer::Publish(PublishVerdict::Replace(changed(passing, "is", user.as_bytes())))
            }
            _ => return Err("another question".to_owned()),
        })
    });
}

#[test]
fn a_client_authenticates_by_a_method_of_a_plugin_and_again_by_another_name() {
    let hooks = Hooks::default();
    install_method(&hooks);
    // Who is vouched for by a method is not asked for credentials.
    install(&hooks, "others", &[declaration(Hook::Authenticate, &[])], |_| {
        Ok(Answer::Authenticate(Authentication::Deny(refusal(0x87))))
    });
    let options = MqttOptions { hooks: hooks.clone(), anonymous: false, ..MqttOptions::default() };
    let served = served_with(1, options, Limits::default());
    let mut client = served.socket();
    client.send(&connect_with("me", &properties(Some(b"ann"))));
    client.expect(&auth(0x18, Some(b"say ann")));
    client.send(&auth(0x18, Some(b"ann")));
    let connack = client.packet();
    assert_eq!((connack[0], connack[3]), (0x20, 0));
    assert!(connack.ends_with(&properties(Some(b"welcome"))), "{connack:02x?}");
    client.send(&subscribe(5, 1, "is", 0));
    client.packet();
    client.send(&publish(5, 0x30, "who", 0, b""));
    client.expect(&publish(5, 0x30, "is", 0, b"ann"));
    client.send(&auth(0x19, Some(b"bea")));
    client.expect(&auth(0x18, Some(b"say bea")));
    client.send(&auth(0x18, Some(b"bea")));
    client.expect(&auth(0x00, Some(b"welcome")));
    client.send(&publish(5, 0x30, "who", 0, b""));
    client.expect(&publish(5, 0x30, "is", 0, b"bea"));
    // An AUTH behind a publish that waits.
    client.send(&[publish(5, 0x30, "who", 0, b""), auth(0x19, Some(b"cat")), vec![0xC0, 0]].concat());
    client.expect(&publish(5, 0x30, "is", 0, b"bea"));
    let (mut challenge, mut pong) = (client.packet(), client.packet());
    if challenge[0] == 0xD0 {
        std::mem::swap(&mut challenge, &mut pong);
    }
    assert_eq!((challenge, pong), (auth(0x18, Some(b"say cat")), vec![0xD0, 0]));
    client.send(&auth(0x18, Some(b"dog")));
    client.expect_disconnect(0x87);
    client.expect_end();
}

#[test]
fn methods_come_and_go_with_their_plugins() {
    let hooks = Hooks::default();
    let served = served_with_hooks(&hooks);
    let connect = || connect_with("me", &properties(Some(b"ann")));
    let refused = |connect: Vec<u8>, reason| {
        let mut client = served.socket();
        client.send(&connect);
        assert_eq!(client.packet()[3], reason);
        client.expect_end();
    };
    refused(connect(), 0x8C);
    install_method(&hooks);
    refused(connect_with("me", &properties(None)), 0x88);
    let mut begun = served.socket();
    begun.send(&connect());
    begun.expect(&auth(0x18, Some(b"say ann")));
    let mut inside = served.socket();
    inside.send(&connect_with("inside", &properties(Some(b"ann"))));
    inside.packet();
    inside.send(&auth(0x18, Some(b"ann")));
    assert_eq!(inside.packet()[3], 0);
    hooks.remove(&PluginName("p".into()));
    refused(connect(), 0x8C);
    begun.send(&auth(0x18, Some(b"ann")));
    assert_eq!(begun.packet()[3], 0x8C);
    begun.expect_end();
    inside.expect_silence();
    inside.send(&auth(0x19, Some(b"ann")));
    inside.expect_disconnect(0x87);
    inside.expect_end();
}
