//! `plugin! { .. }`: the declaration of a plugin.
//!
//! Only what is written here and what the listed functions declare becomes the plugin; the manifest is put together by constant
//! evaluation, so it cannot differ from the code. Keys are checked, each with its own message.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, quote};
use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::{Error, Expr, Ident, LitBool, LitInt, LitStr, Path, Result, Token, braced, bracketed, parenthesized};

use crate::json::json_string;
use crate::topic::check_filter;

/// The keys, for messages.
const KEYS: &str = "`name`, `version`, `description`, `handlers`, `hooks`, `routes`, `publishes`, `concurrency`, `secrets`, \
                    `http_hosts`, `disconnects`, `state_version`, `migrations`, `init`, `health`";

/// Longest plugin name in bytes.
const MAX_NAME_BYTES: usize = 64;

/// Most lanes of one plugin.
const MAX_LANES: u32 = 64;

/// What stands between the braces.
#[derive(Default)]
struct Declaration {
    /// The plugin's name.
    name: Option<LitStr>,
    /// Its version, if it is not the crate's.
    version: Option<LitStr>,
    /// What it does, in one line.
    description: Option<LitStr>,
    /// The handlers, in the order in which they run.
    handlers: Option<Vec<Path>>,
    /// The hooks, in the order in which they are asked.
    hooks: Option<Vec<Path>>,
    /// The routes.
    routes: Option<Vec<Path>>,
    /// The topic filters that it asks to publish to.
    publishes: Option<Vec<LitStr>>,
    /// How many events it handles at a time, as a member of the manifest.
    concurrency: Option<String>,
    /// Secrets that it asks for.
    secrets: Option<Vec<LitStr>>,
    /// Servers that it asks to reach.
    http_hosts: Option<Vec<LitStr>>,
    /// Whether it asks to disconnect clients.
    disconnects: Option<LitBool>,
    /// Version of the form of its state.
    state_version: Option<LitInt>,
    /// The migrations.
    migrations: Option<Vec<Path>>,
    /// Called once on each new instance.
    init: Option<Expr>,
    /// Called after `init` on a deploy.
    health: Option<Expr>,
}

impl Parse for Declaration {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let mut declaration = Self::default();
        while !input.is_empty() {
            let key = input.call(Ident::parse_any)?;
            let text = key.unraw().to_string();
            if !KEYS.contains(&format!("`{text}`")) {
                return Err(Error::new(key.span(), format!("unknown key `{text}`; the keys are {KEYS}")));
            }
            input.parse::<Token![:]>()?;
            if declaration.take(&text, input)? {
                return Err(Error::new(key.span(), format!("`{text}` is given twice")));
            }
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        Ok(declaration)
    }
}

impl Declaration {
    /// Takes the value of a key; gives whether there was one before.
    fn take(&mut self, key: &str, input: ParseStream<'_>) -> Result<bool> {
        Ok(match key {
            "name" => self.name.replace(plugin_name(input)?).is_some(),
            "version" => self.version.replace(plugin_version(input)?).is_some(),
            "description" => self.description.replace(input.parse()?).is_some(),
            "handlers" => self.handlers.replace(functions(input, "handlers", "#[on(..)]")?).is_some(),
            "hooks" => self.hooks.replace(functions(input, "hooks", "#[authorize(..)]")?).is_some(),
            "routes" => self.routes.replace(functions(input, "routes", "#[http(..)]")?).is_some(),
            "publishes" => self.publishes.replace(filters(input)?).is_some(),
            "concurrency" => self.concurrency.replace(concurrency(input)?).is_some(),
            "secrets" => self.secrets.replace(secrets(input)?).is_some(),
            "http_hosts" => self.http_hosts.replace(http_hosts(input)?).is_some(),
            "disconnects" => self.disconnects.replace(input.parse()?).is_some(),
            "state_version" => self.state_version.replace(state_version(input)?).is_some(),
            "migrations" => self.migrations.replace(functions(input, "migrations", "#[migrate(..)]")?).is_some(),
            "init" => self.init.replace(input.parse()?).is_some(),
            _ => self.health.replace(input.parse()?).is_some(),
        })
    }

    /// The members of the manifest that are written only where they say something.
    fn further_members(&self) -> String {
        let mut members = String::new();
        if let Some(version) = &self.state_version {
            members.push_str(&format!(",\"state_version\":{}", version.base10_digits()));
        }
        if let Some(concurrency) = &self.concurrency {
            members.push_str(concurrency);
        }
        for (name, values) in [("secrets", &self.secrets), ("http_hosts", &self.http_hosts)] {
            let values: Vec<String> = values.iter().flatten().map(|value| json_string(&value.value())).collect();
            if !values.is_empty() {
                members.push_str(&format!(",\"{name}\":[{}]", values.join(",")));
            }
        }
        if self.disconnects.as_ref().is_some_and(LitBool::value) {
            members.push_str(",\"disconnects\":true");
        }
        members
    }
}

fn plugin_name(input: ParseStream<'_>) -> Result<LitStr> {
    let name: LitStr = input.parse()?;
    let text = name.value();
    let valid = text.starts_with(|first: char| first.is_ascii_lowercase())
        && text.len() <= MAX_NAME_BYTES
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    if !valid {
        let rule = "a plugin's name is 1 to 64 of `a-z`, `0-9` and `-`, beginning with a letter";
        return Err(Error::new(name.span(), rule));
    }
    Ok(name)
}

fn plugin_version(input: ParseStream<'_>) -> Result<LitStr> {
    let version: LitStr = input.parse()?;
    let text = version.value();
    let core = text.split(['-', '+']).next().unwrap_or_default();
    let numbers = core.split('.').filter(|part| part.parse::<u64>().is_ok()).count();
    let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-+".contains(&byte));
    if numbers != 3 || core.split('.').count() != 3 || !plain {
        return Err(Error::new(version.span(), "a version is three numbers, such as `1.2.0`, as in Cargo.toml"));
    }
    Ok(version)
}

fn state_version(input: ParseStream<'_>) -> Result<LitInt> {
    let version: LitInt = input.parse()?;
    if version.base10_parse::<u32>().ok().is_none_or(|version| version == 0) {
        return Err(Error::new(version.span(), "state versions count from 1"));
    }
    Ok(version)
}

/// A list of functions that were marked.
fn functions(input: ParseStream<'_>, key: &str, attribute: &str) -> Result<Vec<Path>> {
    let content;
    let brackets = bracketed!(content in input);
    let paths = Punctuated::<Path, Token![,]>::parse_terminated(&content)?;
    if paths.is_empty() {
        let message = format!("`{key}` is empty: list functions marked {attribute}, or leave it out");
        return Err(Error::new(brackets.span.join(), message));
    }
    let mut seen = Vec::new();
    for path in &paths {
        let text = path.to_token_stream().to_string();
        if seen.contains(&text) {
            return Err(Error::new(path.span(), format!("`{text}` is listed twice")));
        }
        seen.push(text);
    }
    Ok(paths.into_iter().collect())
}

/// `{ lanes: 4, key: "topic" }`, `key: "client"` or `key: level(1)`.
fn concurrency(input: ParseStream<'_>) -> Result<String> {
    let content;
    let braces = braced!(content in input);
    let (mut lanes, mut key) = (None, None);
    while !content.is_empty() {
        let name = content.call(Ident::parse_any)?;
        content.parse::<Token![:]>()?;
        match name.to_string().as_str() {
            "lanes" => {
                let value: LitInt = content.parse()?;
                let count = value.base10_parse::<u32>()?;
                if !(1..=MAX_LANES).contains(&count) {
                    return Err(Error::new(value.span(), format!("a plugin has 1 to {MAX_LANES} lanes")));
                }
                lanes = Some(count);
            }
            "key" if content.peek(LitStr) => {
                let value: LitStr = content.parse()?;
                if !["topic", "client"].contains(&value.value().as_str()) {
                    return Err(Error::new(value.span(), "the key is \"topic\", \"client\" or level(1)"));
                }
                key = Some(json_string(&value.value()));
            }
            "key" => {
                let word = content.call(Ident::parse_any)?;
                if word != "level" {
                    return Err(Error::new(word.span(), "the key is \"topic\", \"client\" or level(1)"));
                }
                let inside;
                parenthesized!(inside in content);
                let level: LitInt = inside.parse()?;
                key = Some(format!("{{\"level\":{}}}", level.base10_parse::<u8>()?));
            }
            other => {
                return Err(Error::new(name.span(), format!("unknown key `{other}`; the keys are `lanes` and `key`")));
            }
        }
        if !content.is_empty() {
            content.parse::<Token![,]>()?;
        }
    }
    let lanes =
        lanes.ok_or_else(|| Error::new(braces.span.join(), "`lanes` is missing: { lanes: 4, key: \"topic\" }"))?;
    let key = key.unwrap_or_else(|| "\"topic\"".into());
    Ok(format!(",\"concurrency\":{{\"lanes\":{lanes},\"key\":{key}}}"))
}

fn texts(input: ParseStream<'_>) -> Result<Vec<LitStr>> {
    let content;
    bracketed!(content in input);
    Ok(Punctuated::<LitStr, Token![,]>::parse_terminated(&content)?.into_iter().collect())
}

fn secrets(input: ParseStream<'_>) -> Result<Vec<LitStr>> {
    let names = texts(input)?;
    for name in &names {
        let text = name.value();
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if text.is_empty() || text.len() > MAX_NAME_BYTES || !text.bytes().all(plain) {
            return Err(Error::new(name.span(), "a secret's name is 1 to 64 of letters, digits, `-`, `_` and `.`"));
        }
    }
    Ok(names)
}

fn http_hosts(input: ParseStream<'_>) -> Result<Vec<LitStr>> {
    let hosts = texts(input)?;
    for host in &hosts {
        let text = host.value();
        let authority = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
        if authority.is_none_or(|authority| authority.is_empty() || authority.contains(['/', '?', '#', '@', ' '])) {
            let message = "a server is written `https://cmdb.example.com` or `http://10.0.0.7:8080`, without a path";
            return Err(Error::new(host.span(), message));
        }
    }
    Ok(hosts)
}

fn filters(input: ParseStream<'_>) -> Result<Vec<LitStr>> {
    let filters = texts(input)?;
    for filter in &filters {
        check_filter(&filter.value())
            .map_err(|error| Error::new(filter.span(), format!("this is no topic filter to publish to: {error}")))?;
    }
    Ok(filters)
}

/// Expands the declaration; on an error, the error and a `plugin()` that compiles.
pub(crate) fn expand(input: TokenStream) -> TokenStream {
    match syn::parse2::<Declaration>(input).and_then(|declaration| expand_declaration(&declaration)) {
        Ok(expanded) => expanded,
        Err(error) => {
            let error = error.into_compile_error();
            quote! {
                #error
                #[doc(hidden)]
                pub fn plugin() -> ::vespiary_sdk::Plugin {
                    ::core::unreachable!()
                }
            }
        }
    }
}

fn expand_declaration(declaration: &Declaration) -> Result<TokenStream> {
    let missing = |key: &str| Error::new(Span::call_site(), format!("`{key}` is missing"));
    let name = declaration.name.as_ref().ok_or_else(|| missing("name"))?;
    check_parts(declaration)?;
    let lists = lists(declaration);
    let description = match &declaration.description {
        Some(description) => description.value(),
        None => std::env::var("CARGO_PKG_DESCRIPTION").unwrap_or_default(),
    };
    let publishes: Vec<String> = declaration.publishes.iter().flatten().map(LitStr::value).collect();
    let version = match &declaration.version {
        Some(version) => quote!(#version),
        None => quote!(::core::env!("CARGO_PKG_VERSION")),
    };
    let head = format!("{{\"manifest\":1,\"name\":{},\"version\":\"", json_string(&name.value()));
    let description = format!("\",\"description\":{},\"subscribes\":[", json_string(&description));
    let grants: Vec<String> = publishes.iter().map(|filter| json_string(filter)).collect();
    let middle = format!("],\"publishes\":[{}]{}", grants.join(","), declaration.further_members());
    let secrets = declaration.secrets.iter().flatten();
    let http_hosts = declaration.http_hosts.iter().flatten();
    let disconnects = declaration.disconnects.as_ref().is_some_and(LitBool::value);
    let state_version = match &declaration.state_version {
        Some(version) => version.base10_parse::<u32>()?,
        None => 1,
    };
    let init = function(declaration.init.as_ref());
    let health = function(declaration.health.as_ref());
    let exports = exports(declaration);
    Ok(quote! {
        /// The plugin that this crate declares.
        pub fn plugin() -> ::vespiary_sdk::Plugin {
            __VESPIARY_PLUGIN
        }

        #lists

        const _: () = ::vespiary_sdk::__private::check_migrations(#state_version, __VESPIARY_MIGRATIONS);

        #[doc(hidden)]
        const __VESPIARY_MANIFEST: &[u8] = {
            // Named so that a changed description is noticed.
            const _: ::core::option::Option<&str> = ::core::option_env!("CARGO_PKG_DESCRIPTION");
            const PARTS: ::vespiary_sdk::__private::Parts = ::vespiary_sdk::__private::Parts {
                head: ::core::concat!(#head, #version, #description),
                handlers: __VESPIARY_HANDLERS,
                middle: #middle,
                hooks: __VESPIARY_HOOKS,
            };
            const LENGTH: usize = ::vespiary_sdk::__private::manifest_length(&PARTS);
            &::vespiary_sdk::__private::manifest::<LENGTH>(&PARTS)
        };

        #[doc(hidden)]
        const __VESPIARY_PLUGIN: ::vespiary_sdk::Plugin =
            ::vespiary_sdk::__private::plugin(&::vespiary_sdk::__private::Declaration {
                name: #name,
                version: #version,
                manifest: __VESPIARY_MANIFEST,
                handlers: __VESPIARY_HANDLERS,
                hooks: __VESPIARY_HOOKS,
                routes: __VESPIARY_ROUTES,
                migrations: __VESPIARY_MIGRATIONS,
                state_version: #state_version,
                publishes: &[#(#publishes),*],
                secrets: &[#(#secrets),*],
                http_hosts: &[#(#http_hosts),*],
                disconnects: #disconnects,
                init: #init,
                health: #health,
            });

        #exports
    })
}

/// Checks what belongs together.
fn check_parts(declaration: &Declaration) -> Result<()> {
    if declaration.handlers.is_none() && declaration.hooks.is_none() && declaration.routes.is_none() {
        let message = "`handlers` is missing: a plugin lists functions marked #[on(..)], or `hooks`, or `routes`";
        return Err(Error::new(Span::call_site(), message));
    }
    let version = match &declaration.state_version {
        Some(version) => version.base10_parse::<u32>()?,
        None => 1,
    };
    match (&declaration.migrations, &declaration.state_version) {
        (None, Some(given)) if version > 1 => {
            let message =
                format!("`migrations` is missing: list functions marked #[migrate(\"..\", from = {})]", version - 1);
            Err(Error::new(given.span(), message))
        }
        (Some(migrations), None) => {
            let message = "`state_version` is missing: the version that the migrations lead to, from 2 on";
            Err(Error::new(migrations[0].span(), message))
        }
        (Some(_), Some(given)) if version < 2 => Err(Error::new(
            given.span(),
            "with migrations, the state version is 2 or more: they lead from the one before",
        )),
        (Some(_) | None, Some(_)) | (None, None) => Ok(()),
    }
}

/// The listed functions' declarations.
fn lists(declaration: &Declaration) -> TokenStream {
    let handlers = declaration.handlers.iter().flatten();
    let hooks = declaration.hooks.iter().flatten();
    let routes = declaration.routes.iter().flatten();
    let migrations = declaration.migrations.iter().flatten();
    quote! {
        #[doc(hidden)]
        const __VESPIARY_HANDLERS: &[::vespiary_sdk::__private::Handler] = &[#(<#handlers>::DECLARATION),*];
        #[doc(hidden)]
        const __VESPIARY_HOOKS: &[::vespiary_sdk::__private::Hook] = &[#(<#hooks>::DECLARATION),*];
        #[doc(hidden)]
        const __VESPIARY_ROUTES: &[::vespiary_sdk::__private::Route] = &[#(<#routes>::DECLARATION),*];
        #[doc(hidden)]
        const __VESPIARY_MIGRATIONS: &[::vespiary_sdk::__private::Migration] = &[#(<#migrations>::DECLARATION),*];
    }
}

/// What the component exports: what is declared, and nothing else.
fn exports(declaration: &Declaration) -> TokenStream {
    let mut exports = quote! {
        #[cfg(target_arch = "wasm32")]
        ::vespiary_sdk::__embed_manifest!(__VESPIARY_MANIFEST);
        #[cfg(target_arch = "wasm32")]
        ::vespiary_sdk::__export_lifecycle!(__VESPIARY_PLUGIN);
    };
    let optional = [
        (declaration.handlers.is_some(), "__export_handler"),
        (declaration.hooks.is_some(), "__export_hooks"),
        (declaration.migrations.is_some(), "__export_migration"),
        (declaration.routes.is_some(), "__export_http"),
    ];
    for (_, name) in optional.iter().filter(|(declared, _)| *declared) {
        let name = Ident::new(name, Span::call_site());
        exports.extend(quote! {
            #[cfg(target_arch = "wasm32")]
            ::vespiary_sdk::#name!(__VESPIARY_PLUGIN);
        });
    }
    exports
}

fn function(expression: Option<&Expr>) -> TokenStream {
    match expression {
        Some(expression) => quote!(::core::option::Option::Some(#expression)),
        None => quote!(::core::option::Option::None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_are_named() {
        for (input, part) in [
            (quote!(name: "a", handlers: [f], colour: "red"), "unknown key `colour`"),
            (quote!(name: "a", name: "b"), "given twice"),
            (quote!(name: "Asset Health", handlers: [f]), "plugin's name"),
            (quote!(name: "a", version: "1.2", handlers: [f]), "three numbers"),
            (quote!(name: "a", version: "1.2.0\"", handlers: [f]), "three numbers"),
            (quote!(name: "a", handlers: []), "`handlers` is empty"),
            (quote!(name: "a", handlers: [f, f]), "listed twice"),
            (quote!(name: "a", handlers: [f], publishes: ["a/{x}"]), "write `+`"),
            (quote!(name: "a", handlers: [f], publishes: ["a/#/b"]), "must be the last"),
            (quote!(handlers: [f]), "`name` is missing"),
            (quote!(name: "a"), "`handlers` is missing"),
            (quote!(name: "a", handlers: [f], state_version: 0), "count from 1"),
            (quote!(name: "a", handlers: [f], state_version: 2), "`migrations` is missing"),
            (quote!(name: "a", handlers: [f], migrations: [m]), "`state_version` is missing"),
            (quote!(name: "a", handlers: [f], migrations: [m], state_version: 1), "2 or more"),
            (quote!(name: "a", handlers: [f], concurrency: { lanes: 0 }), "1 to 64 lanes"),
            (quote!(name: "a", handlers: [f], concurrency: { key: "topic" }), "`lanes` is missing"),
            (quote!(name: "a", handlers: [f], concurrency: { lanes: 4, key: "asset" }), "the key is"),
            (quote!(name: "a", handlers: [f], concurrency: { threads: 4 }), "unknown key `threads`"),
            (quote!(name: "a", handlers: [f], secrets: ["a b"]), "a secret's name"),
            (quote!(name: "a", handlers: [f], http_hosts: ["cmdb.example.com"]), "a server is written"),
            (quote!(name: "a", handlers: [f], http_hosts: ["https://cmdb.example.com/x"]), "without a path"),
        ] {
            let expanded = expand(input.clone()).to_string();
            assert!(expanded.contains("compile_error"), "{input}");
            assert!(expanded.contains(part), "{input}: {expanded}");
        }
    }
}
