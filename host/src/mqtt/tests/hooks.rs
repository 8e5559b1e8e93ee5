//! Hooks in the path of a client's packets, with closures in the place of plugins.

mod admitting;
mod delivering;
mod methods;
mod publishing;
mod sandboxed;
mod subscribing;

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};

use vespiary_core::Topic;
use vespiary_core::event::PluginName;

use super::*;
use crate::plugins::hooks::testing::{declaration, install};
use crate::plugins::hooks::{Answer, Hooks, Question};
use crate::plugins::manifest::{Action, Hook, HookDeclaration, OnFailure};
use crate::wasm::hooks::{
    AuthProgress, Authentication, Authorization, DeliverVerdict, Passing, PublishVerdict, Refusal, SubscribeVerdict,
};
use vespiary_core::Message;

/// A broker whose hooks are these.
fn served_with_hooks(hooks: &Hooks) -> Served {
    served_with(1, MqttOptions { hooks: hooks.clone(), ..MqttOptions::default() }, Limits::default())
}

fn refusal(code: u8) -> Refusal {
    Refusal { code, reason: "because".to_owned() }
}

/// Makes a hook wait.
fn gate() -> (Sender<()>, impl Fn()) {
    let (open, gate): (Sender<()>, Receiver<()>) = channel();
    let gate = Mutex::new(gate);
    (open, move || {
        // A sender that is gone has opened it for good.
        let _ = gate.lock().unwrap().recv_timeout(PATIENCE);
    })
}

/// The message with another topic and another payload.
fn changed(passing: &Passing, topic: &str, payload: &[u8]) -> Box<Message> {
    let topic = Topic::parse(topic).unwrap();
    Box::new(Message { topic, payload: payload.into(), ..(*passing.message).clone() })
}

/// A client of this level that has subscribed.
fn subscriber(served: &Served, level: u8, name: &str, filter: &str, qos: u8) -> Client {
    let mut client = client(served, level, name);
    client.send(&subscribe(level, 1, filter, qos));
    let suback = client.packet();
    assert_eq!((suback[0], suback[suback.len() - 1]), (0x90, qos), "{suback:02x?}");
    client
}

fn client(served: &Served, level: u8, name: &str) -> Client {
    if level == 5 { served.v5(name) } else { served.v3(name) }
}

/// CONNECT with a clean session, a user name and a password.
fn connect_as(level: u8, client_id: &str, user: &str, password: &str) -> Vec<u8> {
    let mut packet = connect(level, 0xC2, 0, client_id);
    for field in [user, password] {
        packet.extend((field.len() as u16).to_be_bytes());
        packet.extend(field.bytes());
    }
    packet[1] = packet.len() as u8 - 2;
    packet
}
