//! What all attributes do: a function stays as it is and gets a declaration beside it.
//!
//! In the namespace of types, where the function's name is free, stands an empty enum of the same name whose `DECLARATION`
//! is all that the plugin needs. So `handlers: [path::to::function]` finds both. After an error the declaration is still
//! there, so that the one mistake gives one message.

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::ext::IdentExt;
use syn::parse::Parse;
use syn::spanned::Spanned;
use syn::{Error, FnArg, Ident, ItemFn, Pat, PatType, Result, Type};

use crate::topic::{Level, Pattern};

/// One kind of marked function, and what its generated code names.
pub(crate) struct Kind {
    /// The attribute, such as `on`.
    pub(crate) attribute: &'static str,
    /// What the function is, such as "a handler".
    pub(crate) what: &'static str,
    /// What captures are made from, such as "the topic".
    pub(crate) captured_from: &'static str,
    /// Whether it may take a context.
    pub(crate) context: bool,
    /// Type of the declaration.
    pub(crate) declaration: TokenStream,
    /// Type of what parameters are taken from.
    pub(crate) source: TokenStream,
    /// What fetches a parameter of this type from `source`, as an expression that may use `?`.
    pub(crate) extract: fn(&Type) -> TokenStream,
    /// Type that the call gives.
    pub(crate) returns: TokenStream,
    /// What makes this type of `returned`.
    pub(crate) convert: TokenStream,
}

/// What an attribute's arguments say.
pub(crate) trait Arguments: Parse {
    /// The pattern whose captures are parameters; none if nothing is captured.
    fn pattern(&self) -> Option<&Pattern>;

    /// The fields of the declaration but for `name` and `run`.
    fn fields(&self, function: &ItemFn) -> TokenStream;

    /// The value of the field `run`.
    fn run(&self) -> TokenStream {
        quote!(run)
    }

    /// Stands in after an error.
    fn nothing() -> Self;
}

/// Expands an attribute; on an error, the function, an empty declaration and the error.
pub(crate) fn expand<A: Arguments>(kind: &Kind, arguments: TokenStream, item: TokenStream) -> TokenStream {
    let Ok(function) = syn::parse2::<ItemFn>(item.clone()) else {
        let error = Error::new(Span::call_site(), format!("#[{}(..)] marks a function", kind.attribute));
        let error = error.into_compile_error();
        return quote!(#item #error);
    };
    let declared = syn::parse2::<A>(arguments).and_then(|arguments| {
        check_signature(kind, &function)?;
        let body = call(kind, &function, arguments.pattern())?;
        Ok(declaration(kind, &function, &arguments, &body))
    });
    let declared = declared.unwrap_or_else(|error| {
        let empty = declaration(kind, &function, &A::nothing(), &quote!(::core::unreachable!()));
        let error = error.into_compile_error();
        quote!(#empty #error)
    });
    quote!(#function #declared)
}

fn check_signature(kind: &Kind, function: &ItemFn) -> Result<()> {
    let signature = &function.sig;
    let Kind { attribute, what, .. } = kind;
    if let Some(again) = function.attrs.iter().find(|other| other.path().is_ident(attribute)) {
        let message = match *attribute {
            "on" => "a function handles one topic: write a second function for the other".to_owned(),
            _ => format!("a function is {what} for one thing: write a second function for the other"),
        };
        return Err(Error::new(again.span(), message));
    }
    if let Some(token) = &signature.asyncness {
        return Err(Error::new(token.span(), format!("{what} is not async: it has its transaction for itself")));
    }
    if let Some(token) = &signature.unsafety {
        return Err(Error::new(token.span(), format!("{what} is not unsafe")));
    }
    if !signature.generics.params.is_empty() {
        return Err(Error::new(signature.generics.span(), format!("{what} has no generic parameters")));
    }
    Ok(())
}

/// The body of the function that fetches the parameters and calls the marked one.
fn call(kind: &Kind, function: &ItemFn, pattern: Option<&Pattern>) -> Result<TokenStream> {
    let mut fetches = TokenStream::new();
    let mut values = Vec::new();
    for (index, parameter) in function.sig.inputs.iter().enumerate() {
        let parameter = match parameter {
            FnArg::Typed(parameter) => parameter,
            FnArg::Receiver(receiver) => {
                return Err(Error::new(receiver.span(), format!("{} is a free function", kind.what)));
            }
        };
        let ty = &*parameter.ty;
        if is_context(ty) {
            if !kind.context {
                return Err(Error::new(
                    ty.span(),
                    format!("{} has no context: it depends on its entry alone", kind.what),
                ));
            }
            values.push(quote!(cx));
            continue;
        }
        let value = Ident::new(&format!("parameter_{index}"), Span::mixed_site());
        let fetch = fetch(kind, parameter, pattern)?;
        fetches.extend(quote_spanned!(ty.span()=> let #value = #fetch;));
        values.push(quote!(#value));
    }
    let name = &function.sig.ident;
    let spanned = match &function.sig.output {
        syn::ReturnType::Default => name.span(),
        syn::ReturnType::Type(_, ty) => ty.span(),
    };
    let convert = &kind.convert;
    let convert: TokenStream = convert
        .clone()
        .into_iter()
        .map(|mut token| {
            token.set_span(token.span().located_at(spanned));
            token
        })
        .collect();
    let convert = quote_spanned!(spanned=> #convert);
    Ok(quote! {
        #fetches
        let returned = #name(#(#values),*);
        #convert
    })
}

/// The expression that gives one parameter.
fn fetch(kind: &Kind, parameter: &PatType, pattern: Option<&Pattern>) -> Result<TokenStream> {
    let ty = &*parameter.ty;
    let name = match &*parameter.pat {
        Pat::Ident(ident) => Some(ident.ident.unraw().to_string()),
        _ => None,
    };
    let index = name.as_deref().zip(pattern).and_then(|(name, pattern)| {
        pattern.wildcards().position(|wildcard| wildcard.is_some_and(|wildcard| wildcard == name))
    });
    match (index, name) {
        (Some(index), _) if is_str(ty) => Ok(quote_spanned!(ty.span()=> captures[#index])),
        (Some(index), Some(name)) => Ok(quote_spanned! {ty.span()=>
            ::vespiary_sdk::__private::parse_capture::<#ty>(#name, captures[#index])?
        }),
        (_, name) if only_captured(ty) => {
            let name = name.map_or_else(String::new, |name| format!("`{name}` "));
            let from = kind.captured_from;
            let names = pattern.map_or_else(|| "nothing".to_owned(), Pattern::names);
            let message = format!("{name}is not captured by {from}, which captures {names}");
            Err(Error::new(parameter.pat.span(), message))
        }
        _ => Ok((kind.extract)(ty)),
    }
}

/// The enum beside the function, with all that the plugin needs of it.
fn declaration<A: Arguments>(kind: &Kind, function: &ItemFn, arguments: &A, body: &TokenStream) -> TokenStream {
    let visibility = &function.vis;
    let name = &function.sig.ident;
    let text = name.unraw().to_string();
    let Kind { declaration, source, returns, .. } = kind;
    let fields = arguments.fields(function);
    let run = arguments.run();
    let context = if kind.context { quote!(cx: &mut ::vespiary_sdk::Context,) } else { TokenStream::new() };
    quote! {
        #[doc(hidden)]
        #[allow(non_camel_case_types, reason = "stands beside the function in the namespace of types")]
        #visibility enum #name {}

        impl #name {
            #[doc(hidden)]
            pub(crate) const DECLARATION: #declaration = {
                #[allow(
                    unused_variables, unreachable_code, clippy::unit_arg, clippy::let_unit_value,
                    reason = "not every function needs all"
                )]
                fn run(#context source: &#source, captures: &[&str]) -> #returns {
                    #body
                }
                #declaration { name: #text, #fields run: #run }
            };
        }
    }
}

/// The levels of a pattern, as the SDK's matcher takes them.
pub(crate) fn levels(pattern: &Pattern) -> TokenStream {
    let levels = pattern.levels.iter().map(|level| match level {
        Level::Exact(text) => quote!(::vespiary_sdk::__private::Level::Exact(#text)),
        Level::One(_) => quote!(::vespiary_sdk::__private::Level::One),
        Level::Rest(_) => quote!(::vespiary_sdk::__private::Level::Rest),
    });
    quote!(&[#(#levels),*])
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
