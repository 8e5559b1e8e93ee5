//! `plugin! { .. }`: the declaration of a plugin.
//!
//! Only what is written here and what the listed handlers declare becomes the plugin; the manifest is put together by constant
//! evaluation, so it cannot differ from the code. Keys are checked, each with its own message.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, quote};
use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::{Error, Expr, Ident, LitStr, Path, Result, Token, bracketed};

use crate::topic::check_filter;

/// The keys, for messages.
const KEYS: &str = "`name`, `version`, `description`, `handlers`, `publishes`, `init`, `health`";

/// Longest plugin name in bytes.
const MAX_NAME_BYTES: usize = 64;

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
    /// The topic filters that it asks to publish to.
    publishes: Option<Vec<LitStr>>,
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
            let twice = match text.as_str() {
                "name" => declaration.name.replace(plugin_name(input)?).is_some(),
                "version" => declaration.version.replace(plugin_version(input)?).is_some(),
                "description" => declaration.description.replace(input.parse()?).is_some(),
                "handlers" => declaration.handlers.replace(handlers(input)?).is_some(),
                "publishes" => declaration.publishes.replace(filters(input)?).is_some(),
                "init" => declaration.init.replace(input.parse()?).is_some(),
                _ => declaration.health.replace(input.parse()?).is_some(),
            };
            if twice {
                return Err(Error::new(key.span(), format!("`{text}` is given twice")));
            }
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        Ok(declaration)
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

fn handlers(input: ParseStream<'_>) -> Result<Vec<Path>> {
    let content;
    let brackets = bracketed!(content in input);
    let paths = Punctuated::<Path, Token![,]>::parse_terminated(&content)?;
    if paths.is_empty() {
        return Err(Error::new(
            brackets.span.join(),
            "a plugin without handlers does nothing: list functions marked #[on(..)]",
        ));
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

fn filters(input: ParseStream<'_>) -> Result<Vec<LitStr>> {
    let content;
    bracketed!(content in input);
    let filters = Punctuated::<LitStr, Token![,]>::parse_terminated(&content)?;
    for filter in &filters {
        check_filter(&filter.value())
            .map_err(|error| Error::new(filter.span(), format!("this is no topic filter to publish to: {error}")))?;
    }
    Ok(filters.into_iter().collect())
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
    let handlers = declaration.handlers.as_ref().ok_or_else(|| missing("handlers"))?;
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
    let middle = format!("\",\"description\":{},\"subscribes\":[", json_string(&description));
    let grants: Vec<String> = publishes.iter().map(|filter| json_string(filter)).collect();
    let tail = format!("],\"publishes\":[{}]}}", grants.join(","));
    let init = function(declaration.init.as_ref());
    let health = function(declaration.health.as_ref());
    Ok(quote! {
        /// The plugin that this crate declares.
        pub fn plugin() -> ::vespiary_sdk::Plugin {
            __VESPIARY_PLUGIN
        }

        #[doc(hidden)]
        const __VESPIARY_HANDLERS: &[::vespiary_sdk::__private::Handler] = &[#(<#handlers>::DECLARATION),*];

        #[doc(hidden)]
        const __VESPIARY_MANIFEST: &[u8] = {
            // Named so that a changed description is noticed.
            const _: ::core::option::Option<&str> = ::core::option_env!("CARGO_PKG_DESCRIPTION");
            const HEAD: &str = ::core::concat!(#head, #version, #middle);
            const LENGTH: usize = ::vespiary_sdk::__private::manifest_length(HEAD, __VESPIARY_HANDLERS, #tail);
            &::vespiary_sdk::__private::manifest::<LENGTH>(HEAD, __VESPIARY_HANDLERS, #tail)
        };

        #[doc(hidden)]
        const __VESPIARY_PLUGIN: ::vespiary_sdk::Plugin = ::vespiary_sdk::__private::plugin(
            #name,
            #version,
            __VESPIARY_MANIFEST,
            __VESPIARY_HANDLERS,
            &[#(#publishes),*],
            #init,
            #health,
        );

        #[cfg(target_arch = "wasm32")]
        ::vespiary_sdk::__export_plugin!(__VESPIARY_PLUGIN, __VESPIARY_MANIFEST);
    })
}

fn function(expression: Option<&Expr>) -> TokenStream {
    match expression {
        Some(expression) => quote!(::core::option::Option::Some(#expression)),
        None => quote!(::core::option::Option::None),
    }
}

/// A JSON string literal.
pub(crate) fn json_string(text: &str) -> String {
    let mut json = String::with_capacity(text.len() + 2);
    json.push('"');
    for character in text.chars() {
        match character {
            '"' => json.push_str("\\\""),
            '\\' => json.push_str("\\\\"),
            control if control < ' ' => json.push_str(&format!("\\u{:04x}", u32::from(control))),
            other => json.push(other),
        }
    }
    json.push('"');
    json
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_strings_are_escaped() {
        assert_eq!(json_string("a\"b\\c\n"), r#""a\"b\\c\u000a""#);
    }

    #[test]
    fn mistakes_are_named() {
        for (input, part) in [
            (quote!(name: "a", handlers: [f], colour: "red"), "unknown key `colour`"),
            (quote!(name: "a", name: "b"), "given twice"),
            (quote!(name: "Asset Health", handlers: [f]), "plugin's name"),
            (quote!(name: "a", version: "1.2", handlers: [f]), "three numbers"),
            (quote!(name: "a", version: "1.2.0\"", handlers: [f]), "three numbers"),
            (quote!(name: "a", handlers: []), "without handlers"),
            (quote!(name: "a", handlers: [f, f]), "listed twice"),
            (quote!(name: "a", handlers: [f], publishes: ["a/{x}"]), "write `+`"),
            (quote!(name: "a", handlers: [f], publishes: ["a/#/b"]), "must be the last"),
            (quote!(handlers: [f]), "`name` is missing"),
            (quote!(name: "a"), "`handlers` is missing"),
        ] {
            let expanded = expand(input.clone()).to_string();
            assert!(expanded.contains("compile_error"), "{input}");
            assert!(expanded.contains(part), "{input}: {expanded}");
        }
    }
}
