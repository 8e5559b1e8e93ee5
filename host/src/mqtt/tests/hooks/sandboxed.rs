//! A real component that decides, from socket to socket.

use sha2::{Digest, Sha256};
use vespiary_core::event::SessionId;

use super::*;
use crate::plugins::hooks::SandboxCode;
use crate::wasm::{InstanceContext, Runtime, WasmLimits};

/// AUTH or, with 0x10 as `first`, CONNECT by the method `count`.
fn by_count(first: u8, reason: u8, data: &[u8]) -> Vec<u8> {
    let properties = [&[0x15, 0, 5][..], b"count", &[0x16, 0, data.len() as u8], data].concat();
    if first == 0x10 {
        return connect_with("me", &properties);
    }
    frame(first, &[&[reason, properties.len() as u8][..], &properties].concat())
}

#[test]
fn a_component_decides_in_the_path_of_packets() {
    let hooks = Hooks::default();
    let served = served_with_hooks(&hooks);
    let directory = tempfile::tempdir().unwrap();
    let runtime = Arc::new(Runtime::new(WasmLimits::default(), directory.path()).unwrap());
    let component = crate::wasm::tests::guest("decides");
    let compiled = runtime.compile(&Sha256::digest(&component).into(), &component).unwrap();
    let plugin = PluginName("decides".into());
    let code = SandboxCode {
        runtime,
        compiled,
        context: InstanceContext::without_grants(plugin.clone()),
        store: served.driver.store().clone(),
        state: SessionId(1),
    };
    let publishes = HookDeclaration { actions: vec![Action::Publish], ..declaration(Hook::Authorize, &["guarded"]) };
    let declarations = [
        declaration(Hook::Authenticate, &[]),
        HookDeclaration { methods: vec!["count".to_owned()], ..declaration(Hook::AuthStep, &[]) },
        publishes,
        declaration(Hook::InterceptPublish, &["in"]),
        declaration(Hook::InterceptSubscribe, &["mine"]),
        declaration(Hook::InterceptDeliver, &["secret"]),
    ];
    hooks.install(&plugin, Arc::new(code), Arc::new(drop), &declarations);

    let mut refused = served.socket();
    refused.send(&connect_as(5, "me", "me", "wrong"));
    let connack = refused.packet();
    assert_eq!((connack[3], connack.ends_with(b"not so, me")), (0x86, true), "{connack:02x?}");

    let mut client = served.socket();
    client.send(&by_count(0x10, 0, b"1"));
    client.expect(&by_count(0xF0, 0x18, b"1 left"));
    client.send(&by_count(0xF0, 0x18, b""));
    assert_eq!(client.packet()[3], 0);
    let mut from = served.socket();
    from.send(&connect_as(4, "from", "me", "as bob"));
    from.expect(&[0x20, 2, 0, 0]);

    client.send(&subscribe(5, 1, "mine", 2));
    assert_eq!(client.packet().last(), Some(&0));
    from.send(&publish(4, 0x30, "tenants/count/mine", 0, b"x"));
    client.expect(&publish(5, 0x30, "tenants/count/mine", 0, b"x"));
    for filter in ["in", "secret"] {
        client.send(&subscribe(5, 2, filter, 0));
        assert_eq!(client.packet()[0], 0x90);
    }
    for (topic, payload, expected) in [("in", "a", "a (seen)"), ("in", "keep", "keep"), ("secret", "a", "***")] {
        from.send(&publish(4, 0x30, topic, 0, payload.as_bytes()));
        assert_eq!(client.packet(), publish(5, 0x30, topic, 0, expected.as_bytes()), "{topic} {payload}");
    }
    client.send(&publish(5, 0x32, "in", 7, b"deny"));
    assert_eq!(client.packet()[4], 0x99);
    client.send(&publish(5, 0x32, "guarded", 7, b""));
    assert_eq!(client.packet()[4], 0x87);
    client.expect_silence();
    let (_, counts) = hooks.counts().remove(0);
    assert_eq!((counts.failed, counts.late), (0, 0), "{counts:?}");
}
