//! `#[on(..)]`: a function becomes a handler.
//!
//! The function stays as it is. Beside it, in the namespace of types, where its name is free, stands an empty enum of the
//! same name whose `DECLARATION` is all that the plugin needs: filter, QoS, pattern and a function that fetches the
//! parameters and calls it. So `handlers: [path::to::function]` finds both. After an error the declaration is still there, so that
//! the one mistake gives one message.

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream};
use syn::spanned::Spanned;
use syn::{Error, FnArg, Ident, ItemFn, LitInt, LitStr, Pat, PatType, Result, Token, Type};

use crate::plugin::json_string;
use crate::topic::{Level, Pattern};

/// What stands between the parentheses.
struct Arguments {
    /// The topic pattern.
    pattern: Pattern,
    /// The QoS of the subscription.
    qos: u8,
}

impl Parse for Arguments {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        if input.is_empty() {
            return Err(input.error("the topic is missing: #[on(\"assets/{asset}/vibration\")]"));
        }
        let topic: LitStr = input.parse()?;
        let pattern = Pattern::parse(&topic.value())
            .map_err(|error| Error::new(topic.span(), format!("this is no topic to subscribe to: {error}")))?;
        let mut qos = None;
        while !input.is_empty() {
            input.parse::<Token![,]>()?;
            if input.is_empty() {
                break;
            }
            let key = input.call(Ident::parse_any)?;
            if key != "qos" {
                return Err(Error::new(key.span(), format!("unknown key `{key}`; the only one is `qos`")));
            }
            if qos.is_some() {
                return Err(Error::new(key.span(), "`qos` is given twice"));
            }
            input.parse::<Token![=]>()?;
            let value: LitInt = input.parse()?;
            qos = Some(match value.base10_digits() {
                "0" => 0,
                "1" => 1,
                "2" => 2,
                _ => return Err(Error::new(value.span(), "the QoS is 0, 1 or 2")),
            });
        }
        Ok(Self { pattern, qos: qos.unwrap_or(1) })
    }
}

/// Expands the attribute; on an error, the function, its empty declaration and the error.
pub(crate) fn expand(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let function: ItemFn = match syn::parse2(item.clone()) {
        Ok(function) => function,
        Err(_) => {
            let error = Error::new(Span::call_site(), "#[on(..)] marks a function").into_compile_error();
            return quote!(#item #error);
        }
    };
    let declared = syn::parse2::<Arguments>(arguments).and_then(|arguments| {
        check_signature(&function)?;
        let body = call(&function, &arguments.pattern)?;
        Ok(declaration(&function, &arguments, &body))
    });
    let declared = declared.unwrap_or_else(|error| {
        let nothing = Arguments { pattern: Pattern { levels: Vec::new() }, qos: 0 };
        let empty = declaration(&function, &nothing, &quote!(::core::result::Result::Ok(())));
        let error = error.into_compile_error();
        quote!(#empty #error)
    });
    quote!(#function #declared)
}

fn check_signature(function: &ItemFn) -> Result<()> {
    let signature = &function.sig;
    if let Some(again) = function.attrs.iter().find(|attribute| attribute.path().is_ident("on")) {
        return Err(Error::new(again.span(), "a function handles one topic: write a second function for the other"));
    }
    if let Some(token) = &signature.asyncness {
        return Err(Error::new(token.span(), "a handler is not async: it has the event's transaction for itself"));
    }
    if let Some(token) = &signature.unsafety {
        return Err(Error::new(token.span(), "a handler is not unsafe"));
    }
    if !signature.generics.params.is_empty() {
        return Err(Error::new(signature.generics.span(), "a handler has no generic parameters"));
    }
    Ok(())
}

/// The body of the function that fetches the parameters and calls the handler.
fn call(function: &ItemFn, pattern: &Pattern) -> Result<TokenStream> {
    let mut fetches = TokenStream::new();
    let mut values = Vec::new();
    for (index, parameter) in function.sig.inputs.iter().enumerate() {
        let parameter = match parameter {
            FnArg::Typed(parameter) => parameter,
            FnArg::Receiver(receiver) => return Err(Error::new(receiver.span(), "a handler is a free function")),
        };
        let ty = &*parameter.ty;
        if is_context(ty) {
            values.push(quote!(cx));
            continue;
        }
        let value = Ident::new(&format!("parameter_{index}"), Span::mixed_site());
        let fetch = fetch(parameter, pattern)?;
        fetches.extend(quote_spanned!(ty.span()=> let #value = #fetch;));
        values.push(quote!(#value));
    }
    let name = &function.sig.ident;
    let returned = match &function.sig.output {
        syn::ReturnType::Default => name.span(),
        syn::ReturnType::Type(_, ty) => ty.span(),
    };
    let result = quote_spanned!(returned=> ::vespiary_sdk::__private::into_result(result));
    Ok(quote! {
        #fetches
        let result = #name(#(#values),*);
        #result
    })
}

/// The expression that gives one parameter.
fn fetch(parameter: &PatType, pattern: &Pattern) -> Result<TokenStream> {
    let ty = &*parameter.ty;
    let name = match &*parameter.pat {
        Pat::Ident(ident) => Some(ident.ident.unraw().to_string()),
        _ => None,
    };
    let index = name
        .as_deref()
        .and_then(|name| pattern.wildcards().position(|wildcard| wildcard.is_some_and(|wildcard| wildcard == name)));
    match (index, name) {
        (Some(index), _) if is_str(ty) => Ok(quote_spanned!(ty.span()=> captures[#index])),
        (Some(index), Some(name)) => Ok(quote_spanned! {ty.span()=>
            ::vespiary_sdk::__private::parse_capture::<#ty>(#name, captures[#index])?
        }),
        (_, name) if only_captured(ty) => {
            let name = name.map_or_else(String::new, |name| format!("`{name}` "));
            let names = pattern.names();
            let message = format!("{name}is not captured by the topic, which captures {names}");
            Err(Error::new(parameter.pat.span(), message))
        }
        _ => Ok(quote_spanned! {ty.span()=>
            <#ty as ::vespiary_sdk::FromEvent<'_>>::from_event(event)?
        }),
    }
}

/// The enum beside the function, with all that the plugin needs of it.
fn declaration(function: &ItemFn, arguments: &Arguments, body: &TokenStream) -> TokenStream {
    let visibility = &function.vis;
    let name = &function.sig.ident;
    let text = name.unraw().to_string();
    let filter = arguments.pattern.filter();
    let filter_json = json_string(&filter);
    let qos = arguments.qos;
    let levels = arguments.pattern.levels.iter().map(|level| match level {
        Level::Exact(text) => quote!(::vespiary_sdk::__private::Level::Exact(#text)),
        Level::One(_) => quote!(::vespiary_sdk::__private::Level::One),
        Level::Rest(_) => quote!(::vespiary_sdk::__private::Level::Rest),
    });
    quote! {
        #[doc(hidden)]
        #[allow(non_camel_case_types, reason = "stands beside the function in the namespace of types")]
        #visibility enum #name {}

        impl #name {
            #[doc(hidden)]
            pub(crate) const DECLARATION: ::vespiary_sdk::__private::Handler = {
                #[allow(unused_variables, clippy::unit_arg, clippy::let_unit_value, reason = "not every handler needs all")]
                fn run(
                    cx: &mut ::vespiary_sdk::Context,
                    event: &::vespiary_sdk::Event,
                    captures: &[&str],
                ) -> ::vespiary_sdk::Result<()> {
                    #body
                }
                ::vespiary_sdk::__private::Handler {
                    name: #text,
                    filter: #filter,
                    filter_json: #filter_json,
                    qos: #qos,
                    levels: &[#(#levels),*],
                    run,
                }
            };
        }
    }
}

/// Whether a parameter of this type is the context.
fn is_context(ty: &Type) -> bool {
    match ty {
        Type::Reference(reference) => reference.mutability.is_some() || last_segment_is(&reference.elem, &["Context"]),
        _ => false,
    }
}

fn is_str(ty: &Type) -> bool {
    matches!(ty, Type::Reference(reference) if last_segment_is(&reference.elem, &["str"]))
}

/// Whether this is a type that only a capture can give, so that another name is a mistake worth a message of its own.
fn only_captured(ty: &Type) -> bool {
    const PLAIN: [&str; 17] = [
        "String", "bool", "char", "f32", "f64", "i8", "i16", "i32", "i64", "i128", "isize", "u8", "u16", "u32", "u64",
        "u128", "usize",
    ];
    is_str(ty) || last_segment_is(ty, &PLAIN)
}

fn last_segment_is(ty: &Type, names: &[&str]) -> bool {
    match ty {
        Type::Path(path) => {
            path.path.segments.last().is_some_and(|segment| names.iter().any(|name| segment.ident == name))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(arguments: &str, function: &str) -> String {
        expand(arguments.parse().unwrap(), function.parse().unwrap()).to_string()
    }

    #[test]
    fn mistakes_are_named() {
        for (arguments, function, part) in [
            ("", "fn f() {}", "the topic is missing"),
            (r#""a/b", retries = 3"#, "fn f() {}", "unknown key `retries`"),
            (r#""a/b", qos = 3"#, "fn f() {}", "the QoS is 0, 1 or 2"),
            (r#""a/b", qos = 1, qos = 1"#, "fn f() {}", "given twice"),
            (r#""a/#/b""#, "fn f() {}", "this is no topic to subscribe to"),
            (r#""a/{x}""#, "fn f(y: &str) {}", "`y` is not captured by the topic, which captures `x`"),
            (r#""a/b""#, "fn f(n: u32) {}", "`n` is not captured by the topic, which captures nothing"),
            (r#""a/b""#, "async fn f() {}", "not async"),
            (r#""a/b""#, "unsafe fn f() {}", "not unsafe"),
            (r#""a/b""#, "fn f<T>() {}", "no generic parameters"),
            (r#""a/b""#, "fn f(&self) {}", "free function"),
            (r#""a/b""#, r#"#[on("c")] fn f() {}"#, "one topic"),
            (r#""a/b""#, "struct F;", "marks a function"),
        ] {
            let expanded = expanded(arguments, function);
            assert!(expanded.contains("compile_error"), "{arguments} {function}");
            assert!(expanded.contains(part), "{arguments} {function}: {expanded}");
        }
    }

    #[test]
    fn captures_that_are_not_used_and_extractors_are_no_mistake() {
        for function in [
            "fn f() {}",
            "fn f(cx: &mut Context, x: &str) {}",
            "fn f(mut x: u32, Json(reading): Json<Reading>, bytes: &[u8], event: &Event) {}",
            "fn f(cx: &Context, r#x: String) {}",
        ] {
            let expanded = expanded(r#""a/{x}/{y..}", qos = 2,"#, function);
            assert!(!expanded.contains("compile_error"), "{function}: {expanded}");
        }
    }
}
