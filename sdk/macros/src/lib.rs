//! The macros of the Vespiary plugin SDK: `plugin!` and the attributes of the functions that it lists.
//!
//! They are documented and used through `vespiary_sdk`, whose hidden `__private` module is all that the generated code
//! names. What a function declares stays with the function (`on`, `hook`, `http`, `migrate`, on the common ground of
//! `function`); which functions count is decided where the plugin is declared (`plugin`). Errors point at the token that is
//! wrong.

mod plugin;

mod hook;
mod http;
mod migrate;
mod on;

mod arguments;
mod function;
mod json;
mod topic;

use proc_macro::TokenStream;

/// Makes a function a handler of the events published to a topic: `#[on("assets/{asset}/vibration", qos = 1)]`.
///
/// The function becomes part of the plugin when `plugin!` lists it under `handlers`.
///
/// # Topic
/// `{name}` captures one level, and `{name..}` at the end captures the rest; `+` and `#` match without capturing.
///
/// # Parameters, in any order, each optional
/// - `cx: &mut Context` (or `&Context`);
/// - a parameter named like a capture: `&str`, or any `T: FromStr` (what does not parse is rejected);
/// - anything else is an extractor, a type that implements `FromEvent`: `Json<T>`, `&[u8]`, `Raw`, `Text`, `Properties`,
///   `&Event`.
///
/// # Result
/// `Result<()>`, or nothing.
///
/// # Keys
/// `qos`: the QoS of the subscription, 0, 1 (the default) or 2.
#[proc_macro_attribute]
pub fn on(arguments: TokenStream, item: TokenStream) -> TokenStream {
    function::expand::<on::Topic>(&on::kind("on"), arguments.into(), item.into()).into()
}

/// Makes a function a handler of what happens to clients: `#[on_client("connected")]`.
///
/// Listed under `handlers`. Parameters are as those of `#[on(..)]`; `event: ClientEvent` is what is told, and `client: &str`
/// the level of the topic that names the client, in which `/`, `+`, `#` and `%` are written `%2F`, `%2B`, `%23` and `%25`.
/// `"#"` takes all events.
#[proc_macro_attribute]
pub fn on_client(arguments: TokenStream, item: TokenStream) -> TokenStream {
    function::expand::<on::ClientTopic>(&on::kind("on_client"), arguments.into(), item.into()).into()
}

/// Makes a function a handler of the plugin's own timers: `#[on_timer("orders/{order}/overdue")]`.
///
/// Listed under `handlers`. The names of timers may have levels, as topics have; parameters are as those of `#[on(..)]`. The
/// payload is what the timer was set with.
#[proc_macro_attribute]
pub fn on_timer(arguments: TokenStream, item: TokenStream) -> TokenStream {
    function::expand::<on::Timer>(&on::kind("on_timer"), arguments.into(), item.into()).into()
}

/// Makes a function run by the clock: `#[schedule("0 3 * * *", name = "nightly")]`.
///
/// Listed under `handlers`. A cron expression in UTC: five fields (minute, hour, day of month, month, day of week) or six,
/// seconds first. Times that pass while the broker is down, or while an event waits, come as one.
///
/// # Keys
/// `name`: the timer's name, the function's if it is left out; `payload`: the payload of its events.
#[proc_macro_attribute]
pub fn schedule(arguments: TokenStream, item: TokenStream) -> TokenStream {
    function::expand::<on::Schedule>(&on::kind("schedule"), arguments.into(), item.into()).into()
}

/// Makes a function a handler of answers to the plugin's requests: `#[on_response("location/{order}")]`.
///
/// Listed under `handlers`. The text is matched against the tag that the request was sent with; without one, the handler takes
/// answers to requests without a tag. Parameters are as those of `#[on(..)]`; `answer: Answer<Json<T>>` says whether there
/// is an answer or none came in time, and `request: RequestId` which request it is about.
#[proc_macro_attribute]
pub fn on_response(arguments: TokenStream, item: TokenStream) -> TokenStream {
    function::expand::<on::Response>(&on::kind("on_response"), arguments.into(), item.into()).into()
}

/// Makes a function a hook that says who a client is: `#[authenticate] fn(credentials: &Credentials) -> Authentication`.
///
/// Listed under `hooks`. It may take `cx: &Context` and `client: &Client` too, and return a `Result`.
///
/// # Keys
/// `priority`: lower comes first among plugins, 0 if it is left out; `deadline_ms`: how long the client may be kept waiting, 100 if it
/// is left out; `on_failure`: "deny" (if it is left out) or "allow", for a hook that fails or is late.
#[proc_macro_attribute]
pub fn authenticate(arguments: TokenStream, item: TokenStream) -> TokenStream {
    expand_hook::<hook::Authenticate>(arguments, item)
}

/// Makes a function a hook that takes a step of an authentication exchange:
/// `#[auth_step(method = "SCRAM-SHA-256")] fn(step: &Step) -> Progress`.
///
/// Listed under `hooks`. `methods = ["A", "B"]` takes several. Further parameters and keys as those of `#[authenticate]`.
#[proc_macro_attribute]
pub fn auth_step(arguments: TokenStream, item: TokenStream) -> TokenStream {
    expand_hook::<hook::AuthStep>(arguments, item)
}

/// Makes a function a hook that says what a client may do:
/// `#[authorize("plant/#", actions = [publish])] fn(access: &Access) -> Authorization`.
///
/// Listed under `hooks`. Without a topic filter it is asked for all topics, without actions for all of `publish`,
/// `subscribe` and `will`. Further parameters and keys as those of `#[authenticate]`.
#[proc_macro_attribute]
pub fn authorize(arguments: TokenStream, item: TokenStream) -> TokenStream {
    expand_hook::<hook::Authorize>(arguments, item)
}

/// Makes a function a hook that sees what clients publish:
/// `#[intercept_publish("raw/{device}/#")] fn(device: &str, message: &Message) -> PublishVerdict`.
///
/// Listed under `hooks`. Further parameters and keys as those of `#[authenticate]`.
#[proc_macro_attribute]
pub fn intercept_publish(arguments: TokenStream, item: TokenStream) -> TokenStream {
    expand_hook::<hook::InterceptPublish>(arguments, item)
}

/// Makes a function a hook that sees what clients subscribe to:
/// `#[intercept_subscribe("plant/#")] fn(subscription: &Subscription) -> SubscribeVerdict`.
///
/// Listed under `hooks`. It is asked about filters that overlap the one given. Further parameters and keys as those of
/// `#[authenticate]`.
#[proc_macro_attribute]
pub fn intercept_subscribe(arguments: TokenStream, item: TokenStream) -> TokenStream {
    expand_hook::<hook::InterceptSubscribe>(arguments, item)
}

/// Makes a function a hook that sees what is about to leave for a client:
/// `#[intercept_deliver("reports/#")] fn(client: &Client, message: &Message) -> DeliverVerdict`.
///
/// Listed under `hooks`. Further parameters and keys as those of `#[authenticate]`.
#[proc_macro_attribute]
pub fn intercept_deliver(arguments: TokenStream, item: TokenStream) -> TokenStream {
    expand_hook::<hook::InterceptDeliver>(arguments, item)
}

fn expand_hook<K: hook::HookKind>(arguments: TokenStream, item: TokenStream) -> TokenStream {
    function::expand::<hook::HookArguments<K>>(&hook::kind::<K>(), arguments.into(), item.into()).into()
}

/// Makes a function a route of the service's own HTTP API: `#[http(GET, "/assets/{id}")]`.
///
/// Listed under `routes`. Paths are those below where the broker mounts the service. `{name}` captures one level, decoded,
/// `{name..}` at the end the rest.
///
/// # Parameters, in any order, each optional
/// - `cx: &mut Context` (or `&Context`): state, messages and timers, in one transaction that the response ends;
/// - a parameter named like a capture: `&str`, or any `T: FromStr` (what does not parse is answered with 400);
/// - anything else is an extractor, a type that implements `FromRequest`: `Json<T>`, `Query`, `&[u8]`, `Raw`, `Text`,
///   `&Incoming`.
///
/// # Result
/// `Response`, `Json<T>`, text, nothing (204), an `Option` of these (404), or a `Result` of them: what is rejected is
/// answered with 400 and the reason, any other error with 500.
#[proc_macro_attribute]
pub fn http(arguments: TokenStream, item: TokenStream) -> TokenStream {
    function::expand::<http::RouteArguments>(&http::kind(), arguments.into(), item.into()).into()
}

/// Makes a function a migration of the plugin's state:
/// `#[migrate("health/{asset}", from = 1)] fn(Json(old): Json<HealthV1>) -> Json<Health>`.
///
/// Listed under `migrations`. It gets the entries whose keys match the pattern, as state version `from` left them, and gives
/// what they are in the next one: `Json<T>` or `Raw` under the same key, `Entry` under another, several, or none. It may
/// depend on nothing but the entry: there is no context. What no migration takes stays as it is.
#[proc_macro_attribute]
pub fn migrate(arguments: TokenStream, item: TokenStream) -> TokenStream {
    function::expand::<migrate::MigrationArguments>(&migrate::kind(), arguments.into(), item.into()).into()
}

/// Declares the plugin of this crate, usually at the top of `lib.rs`; a component has one.
///
/// Makes `pub fn plugin() -> Plugin` for tests and, compiled to WebAssembly, the component's exports and its manifest. A
/// component exports what is declared here and nothing else.
///
/// # Keys
/// - `name` (required): 1 to 64 of `a-z`, `0-9` and `-`, beginning with a letter;
/// - `version`: the crate's version if it is left out, as it nearly always should be;
/// - `description`: one line; the crate's description if it is left out;
/// - `handlers`: functions marked `#[on(..)]`, `#[on_client(..)]`, `#[on_timer(..)]`, `#[schedule(..)]` or
///   `#[on_response(..)]`, in the order in which they run where several match;
/// - `hooks`: functions marked `#[authenticate]`, `#[authorize(..)]` and the like, in the order in which they are asked;
/// - `routes`: functions marked `#[http(..)]`. One of handlers, hooks and routes has to be there;
/// - `publishes`: the topic filters that the plugin asks to publish to; none if it is left out;
/// - `concurrency`: `{ lanes: 4, key: "topic" }`: how many events are handled at a time, and what keeps their order: "topic",
///   "client" (the publisher) or `level(1)` (a level of the topic). One at a time if it is left out;
/// - `secrets`: names of the secrets that it asks for;
/// - `http_hosts`: servers that it asks to reach, such as `"https://cmdb.example.com"`;
/// - `disconnects`: whether it asks to disconnect clients;
/// - `state_version`: version of the form of its state, 1 if it is left out; with `migrations`: functions marked
///   `#[migrate(..)]` that lead there from the versions before;
/// - `init`: a `fn(&Config) -> Result<()>`, called once on each new instance;
/// - `health`: a `fn(&Config) -> Result<()>`, called after `init` on a deploy. An error of either refuses the deploy.
#[proc_macro]
pub fn plugin(input: TokenStream) -> TokenStream {
    plugin::expand(input.into()).into()
}
