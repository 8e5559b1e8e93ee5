//! Decides in the path of packets, by what it is asked; reads the state key `allowed`, and tries to write.

#![cfg(target_arch = "wasm32")]

mod bindings {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "hook-plugin",
        generate_all,
        default_bindings_module: "bindings",
        export_macro_name: "export",
    });
}

use bindings::exports::vespiary::plugin::hooks::{
    Access, Action, Authentication, Authorization, Challenge, Client, Credentials, DeliverVerdict, Guest, Message,
    Progress, PublishVerdict, Refusal, Step, SubscribeVerdict, Subscription, Success,
};
use bindings::exports::vespiary::plugin::lifecycle;
use bindings::vespiary::plugin::types::Qos;
use bindings::vespiary::plugin::{broker, state, timers};
use bindings::wasi::config::store;

#[used]
#[unsafe(link_section = "vespiary:manifest")]
static MANIFEST: [u8; MANIFEST_TEXT.len()] = *MANIFEST_TEXT;
const MANIFEST_TEXT: &[u8; 197] =
    br##"{"manifest":1,"name":"decides","version":"0.1.0","description":"A guest of the sandbox's tests.","hooks":[{"hook":"authenticate"},{"hook":"authorize"},{"hook":"intercept-publish","filters":["#"]}]}"##;

struct Plugin;

impl lifecycle::Guest for Plugin {
    fn init() -> Result<(), String> {
        Ok(())
    }

    fn health() -> Result<(), String> {
        Ok(())
    }
}

fn refusal(code: u8, reason: &str) -> Refusal {
    Refusal { code, reason: reason.into() }
}

impl Guest for Plugin {
    /// By the password: `right`, `as NAME`, `wrong`, `odd` (no error code), `spin`, `panic`; none passes.
    fn authenticate(credentials: Credentials) -> Authentication {
        let password = credentials.password.map(|password| String::from_utf8_lossy(&password).into_owned());
        match password.as_deref() {
            None => Authentication::Pass,
            Some("right") => Authentication::Allow(None),
            Some("odd") => Authentication::Deny(refusal(0, "odd")),
            Some("spin") => loop {
                std::hint::black_box(&credentials.client.id);
            },
            Some("panic") => panic!("no password like that"),
            Some(other) => match other.strip_prefix("as ") {
                Some(name) => Authentication::Allow(Some(name.into())),
                None => Authentication::Deny(refusal(0x86, &format!("not so, {}", credentials.client.id))),
            },
        }
    }

    /// Counts down from the number in the first data, and is content at 0.
    fn auth_step(step: Step) -> Progress {
        let bytes = step.state.or(step.data).unwrap_or_default();
        match String::from_utf8_lossy(&bytes).parse::<u32>() {
            Ok(0) => Progress::Success(Success { data: Some(b"welcome".to_vec()), user: Some(step.method) }),
            Ok(left) => {
                let next = (left - 1).to_string().into_bytes();
                Progress::Continue(Challenge { data: format!("{left} left").into_bytes(), next })
            }
            Err(_) => Progress::Deny(refusal(0x87, "no number")),
        }
    }

    /// Publishing is decided by the state, subscribing is denied, wills are for others to decide. What it may not do it tries, and
    /// tells in its refusal.
    fn authorize(access: Access) -> Authorization {
        match access.action {
            Action::Publish => match state::get("allowed") {
                Ok(Some(topic)) if topic == access.topic.as_bytes() => Authorization::Allow,
                Ok(_) => Authorization::Deny(refusal(0x87, "not in the state")),
                Err(error) => Authorization::Deny(refusal(0x80, &format!("{error:?}"))),
            },
            Action::Subscribe => {
                let message = Message {
                    topic: "out/a".into(),
                    payload: Vec::new(),
                    qos: Qos::AtMostOnce,
                    retain: false,
                    properties: Vec::new(),
                };
                let tried = [
                    format!("{:?}", state::set("a", b"1")),
                    format!("{:?}", state::add("a", 1)),
                    format!("{:?}", broker::publish(&message)),
                    format!("{:?}", broker::request(&message, 1)),
                    format!("{:?}", broker::disconnect("someone")),
                    format!("{:?}", timers::cancel("a")),
                ];
                Authorization::Deny(refusal(0x87, &tried.join("; ")))
            }
            Action::Will => Authorization::Pass,
        }
    }

    /// By the payload: `keep`, `drop`, `deny`, `move` (another topic), `wrong` (no topic name), `spin`, `panic`; others get a mark,
    /// which is `seen` or what the configuration says.
    fn intercept_publish(client: Client, mut message: Message) -> PublishVerdict {
        match &*String::from_utf8_lossy(&message.payload) {
            "keep" => PublishVerdict::Keep,
            "drop" => PublishVerdict::Drop,
            "deny" => PublishVerdict::Deny(refusal(0x99, &client.address)),
            "move" => {
                message.topic = format!("moved/{}", message.topic);
                PublishVerdict::Replace(message)
            }
            "wrong" => {
                message.topic = "a/+".into();
                PublishVerdict::Replace(message)
            }
            "spin" => loop {
                std::hint::black_box(&client.id);
            },
            "panic" => panic!("no payload like that"),
            _ => {
                let mark = store::get("mark").ok().flatten().unwrap_or_else(|| "seen".into());
                message.payload.extend_from_slice(format!(" ({mark})").as_bytes());
                PublishVerdict::Replace(message)
            }
        }
    }

    /// `#` is refused, `wrong` is replaced by what is no filter, others are brought below `tenants/`.
    fn intercept_subscribe(client: Client, subscription: Subscription) -> SubscribeVerdict {
        match subscription.filter.as_str() {
            "#" => SubscribeVerdict::Deny(refusal(0x8f, "too much")),
            "wrong" => SubscribeVerdict::Replace(Subscription { filter: "a/#/b".into(), ..subscription }),
            filter if filter.starts_with("tenants/") => SubscribeVerdict::Keep,
            filter => {
                let filter = format!("tenants/{}/{filter}", client.user.unwrap_or_default());
                SubscribeVerdict::Replace(Subscription { filter, qos: Qos::AtMostOnce })
            }
        }
    }

    /// By the payload: `keep`, `drop`; others are hidden.
    fn intercept_deliver(_client: Client, mut message: Message) -> DeliverVerdict {
        match &*String::from_utf8_lossy(&message.payload) {
            "keep" => DeliverVerdict::Keep,
            "drop" => DeliverVerdict::Drop,
            _ => {
                message.payload = b"***".to_vec();
                DeliverVerdict::Replace(message)
            }
        }
    }
}

bindings::export!(Plugin with_types_in bindings);
