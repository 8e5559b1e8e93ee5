//! The export `hooks`: questions in, verdicts out. A hook that fails traps, so that its `on_failure` decides.

use self::bindings::exports::vespiary::plugin::hooks as host;
use self::bindings::vespiary::plugin::types;
use super::Imports;
use crate::error::Error;
use crate::event::{Property, Qos};
use crate::hooks::{
    self, Access, Action, Authentication, Authorization, Client, Credentials, DeliverVerdict, InFlight, Progress,
    PublishVerdict, Refusal, Step, SubscribeVerdict, Subscription, Wanted,
};
use crate::message::Message;
use crate::plugin::Plugin;

/// What `wit-bindgen` makes of the export.
#[expect(missing_docs, reason = "generated; the documentation is in wit/")]
pub mod bindings {
    wit_bindgen::generate!({
        inline: "
            package vespiary:sdk-hooks;
            world exporting-hooks { export vespiary:plugin/hooks@0.1.0; }
        ",
        path: "wit",
        world: "vespiary:sdk-hooks/exporting-hooks",
        generate_all,
        pub_export_macro: true,
        default_bindings_module: "::vespiary_sdk::__private::guest::hooks::bindings",
        runtime_path: "::vespiary_sdk::__private::guest::wit_bindgen::rt",
    });
}

/// Exports `hooks`.
#[doc(hidden)]
#[macro_export]
macro_rules! __export_hooks {
    ($plugin:expr) => {
        const _: () = {
            use bindings::exports::vespiary::plugin::hooks::{
                Access, Authentication, Authorization, Client, Credentials, DeliverVerdict, Guest, Progress,
                PublishVerdict, Step, SubscribeVerdict, Subscription,
            };
            use bindings::vespiary::plugin::types::Message;
            use $crate::__private::guest::hooks::{self, bindings};

            struct Component;

            impl Guest for Component {
                fn authenticate(credentials: Credentials) -> Authentication {
                    hooks::authenticate(&$plugin, credentials)
                }

                fn auth_step(step: Step) -> Progress {
                    hooks::auth_step(&$plugin, step)
                }

                fn authorize(access: Access) -> Authorization {
                    hooks::authorize(&$plugin, access)
                }

                fn intercept_publish(client: Client, message: Message) -> PublishVerdict {
                    hooks::intercept_publish(&$plugin, client, message)
                }

                fn intercept_subscribe(client: Client, subscription: Subscription) -> SubscribeVerdict {
                    hooks::intercept_subscribe(&$plugin, client, subscription)
                }

                fn intercept_deliver(client: Client, message: Message) -> DeliverVerdict {
                    hooks::intercept_deliver(&$plugin, client, message)
                }
            }

    bindings::export!(Component with_types_in bindings);
        };
    };
}

/// `hooks.authenticate`.
pub fn authenticate(plugin: &Plugin, credentials: host::Credentials) -> host::Authentication {
    let credentials = Credentials {
        client: client(credentials.client),
        password: credentials.password,
        clean_start: credentials.clean_start,
    };
    match answered(hooks::authenticate(plugin.declaration().hooks, &Imports, &credentials)) {
        Authentication::Allow(user) => host::Authentication::Allow(user),
        Authentication::Deny(reason) => host::Authentication::Deny(refusal(reason)),
        Authentication::Pass => host::Authentication::Pass,
    }
}

/// `hooks.auth-step`.
pub fn auth_step(plugin: &Plugin, step: host::Step) -> host::Progress {
    let step = Step { client: client(step.client), method: step.method, data: step.data, state: step.state };
    match answered(hooks::auth_step(plugin.declaration().hooks, &Imports, &step)) {
        Progress::Continue { data, next } => host::Progress::Continue(host::Challenge { data, next }),
        Progress::Success { data, user } => host::Progress::Success(host::Success { data, user }),
        Progress::Deny(reason) => host::Progress::Deny(refusal(reason)),
    }
}

/// `hooks.authorize`.
pub fn authorize(plugin: &Plugin, access: host::Access) -> host::Authorization {
    let access = Access {
        client: client(access.client),
        action: match access.action {
            host::Action::Publish => Action::Publish,
            host::Action::Subscribe => Action::Subscribe,
            host::Action::Will => Action::Will,
        },
        topic: access.topic,
        qos: qos(access.qos),
        retain: access.retain,
    };
    match answered(hooks::authorize(plugin.declaration().hooks, &Imports, &access)) {
        Authorization::Allow => host::Authorization::Allow,
        Authorization::Deny(reason) => host::Authorization::Deny(refusal(reason)),
        Authorization::Pass => host::Authorization::Pass,
    }
}

/// `hooks.intercept-publish`.
pub fn intercept_publish(plugin: &Plugin, from: host::Client, published: types::Message) -> host::PublishVerdict {
    let asked = InFlight { client: client(from), message: message(published) };
    match answered(hooks::intercept_publish(plugin.declaration().hooks, &Imports, asked)) {
        PublishVerdict::Keep => host::PublishVerdict::Keep,
        PublishVerdict::Replace(message) => host::PublishVerdict::Replace(host_message(message)),
        PublishVerdict::Drop => host::PublishVerdict::Drop,
        PublishVerdict::Deny(reason) => host::PublishVerdict::Deny(refusal(reason)),
    }
}

/// `hooks.intercept-subscribe`.
pub fn intercept_subscribe(plugin: &Plugin, from: host::Client, wanted: host::Subscription) -> host::SubscribeVerdict {
    let subscription = Subscription { filter: wanted.filter, qos: qos(wanted.qos) };
    let asked = Wanted { client: client(from), subscription };
    match answered(hooks::intercept_subscribe(plugin.declaration().hooks, &Imports, asked)) {
        SubscribeVerdict::Keep => host::SubscribeVerdict::Keep,
        SubscribeVerdict::Replace(Subscription { filter, qos }) => {
            host::SubscribeVerdict::Replace(host::Subscription { filter, qos: host_qos(qos) })
        }
        SubscribeVerdict::Deny(reason) => host::SubscribeVerdict::Deny(refusal(reason)),
    }
}

/// `hooks.intercept-deliver`.
pub fn intercept_deliver(plugin: &Plugin, to: host::Client, delivered: types::Message) -> host::DeliverVerdict {
    let asked = InFlight { client: client(to), message: message(delivered) };
    match answered(hooks::intercept_deliver(plugin.declaration().hooks, &Imports, asked)) {
        DeliverVerdict::Keep => host::DeliverVerdict::Keep,
        DeliverVerdict::Replace(message) => host::DeliverVerdict::Replace(host_message(message)),
        DeliverVerdict::Drop => host::DeliverVerdict::Drop,
    }
}

fn answered<T>(answer: Result<T, Error>) -> T {
    match answer {
        Ok(answer) => answer,
        Err(error) => panic!("the hook failed: {error}"),
    }
}

fn client(client: host::Client) -> Client {
    Client { id: client.id, user: client.user, address: client.address, protocol: client.protocol }
}

fn refusal(refusal: Refusal) -> host::Refusal {
    host::Refusal { code: refusal.code, reason: refusal.reason }
}

fn host_message(message: Message) -> types::Message {
    let property = |property: Property| types::Property { name: property.name, value: property.value };
    types::Message {
        topic: message.topic,
        payload: message.payload,
        qos: host_qos(message.qos),
        retain: message.retain,
        properties: message.properties.into_iter().map(property).collect(),
    }
}

fn message(message: types::Message) -> Message {
    let property = |property: types::Property| Property { name: property.name, value: property.value };
    Message {
        topic: message.topic,
        payload: message.payload,
        qos: qos(message.qos),
        retain: message.retain,
        properties: message.properties.into_iter().map(property).collect(),
    }
}

fn qos(qos: types::Qos) -> Qos {
    match qos {
        types::Qos::AtMostOnce => Qos::AtMostOnce,
        types::Qos::AtLeastOnce => Qos::AtLeastOnce,
        types::Qos::ExactlyOnce => Qos::ExactlyOnce,
    }
}

fn host_qos(qos: Qos) -> types::Qos {
    match qos {
        Qos::AtMostOnce => types::Qos::AtMostOnce,
        Qos::AtLeastOnce => types::Qos::AtLeastOnce,
        Qos::ExactlyOnce => types::Qos::ExactlyOnce,
    }
}
