//! The macros of the Vespiary plugin SDK: `#[on(..)]` and `plugin!`.
//!
//! They are documented and used through `vespiary_sdk`, whose hidden `__private` module is all that the generated code
//! names. What a handler declares stays with the handler (`on`); which handlers count is decided where the plugin is
//! declared (`plugin`). Errors point at the token that is wrong.

mod on;
mod plugin;
mod topic;

use proc_macro::TokenStream;

/// Makes a function a handler of the events published to a topic: `#[on("assets/{asset}/vibration", qos = 1)]`.
///
/// The function becomes part of the plugin when `plugin!` lists it.
///
/// # Topic
/// `{name}` captures one level, and `{name..}` at the end captures the rest; `+` and `#` match without capturing.
///
/// # Parameters, in any order, each optional
/// - `cx: &mut Context` (or `&Context`);
/// - a parameter named like a capture: `&str`, or any `T: FromStr` (what does not parse is rejected);
/// - anything else is an extractor, a type that implements `FromEvent`: `Json<T>`, `&[u8]`, `Raw`, `Text`, `&Event`.
///
/// # Result
/// `Result<()>`, or nothing.
///
/// # Keys
/// `qos`: the QoS of the subscription, 0, 1 (the default) or 2.
#[proc_macro_attribute]
pub fn on(arguments: TokenStream, item: TokenStream) -> TokenStream {
    on::expand(arguments.into(), item.into()).into()
}

/// Declares the plugin of this crate, usually at the top of `lib.rs`; a component has one.
///
/// Makes `pub fn plugin() -> Plugin` for tests and, compiled to WebAssembly, the component's exports and its manifest.
///
/// # Keys
/// - `name` (required): 1 to 64 of `a-z`, `0-9` and `-`, beginning with a letter;
/// - `version`: the crate's version if it is left out, as it nearly always should be;
/// - `description`: one line; the crate's description if it is left out;
/// - `handlers` (required): functions marked `#[on(..)]`, in the order in which they run where several match;
/// - `publishes`: the topic filters that the plugin asks to publish to; none if it is left out;
/// - `init`: a `fn(&Config) -> Result<()>`, called once on each new instance;
/// - `health`: a `fn(&Config) -> Result<()>`, called after `init` on a deploy. An error of either refuses the deploy.
#[proc_macro]
pub fn plugin(input: TokenStream) -> TokenStream {
    plugin::expand(input.into()).into()
}
