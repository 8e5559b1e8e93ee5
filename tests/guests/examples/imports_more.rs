//! Imports an interface that the host does not offer to plugins.

#![cfg(target_arch = "wasm32")]

use guests::{Event, Guest, Outcome};

mod more {
    wit_bindgen::generate!({
        inline: "
            package test:more;

            world more {
                import acme:machines/gpio@1.0.0;
            }

            package acme:machines@1.0.0 {
                interface gpio {
                    read: func(pin: string) -> list<u8>;
                }
            }
        ",
        generate_all,
    });
}

struct Plugin;

impl Guest for Plugin {
    fn event(event: Event) -> Outcome {
        let answer = more::acme::machines::gpio::read(&event.topic);
        Outcome::Reject(format!("it answered with {} bytes", answer.len()))
    }
}

guests::guest!(
    Plugin,
    br#"{"manifest":1,"name":"imports-more","version":"0.1.0","description":"A guest of the sandbox's tests.","subscribes":[{"filter":"in/#","qos":1}],"publishes":[]}"#
);
