//! `#[http(GET, "/assets/{id}")]`: a function becomes a route.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream};
use syn::spanned::Spanned;
use syn::{Error, Ident, ItemFn, LitStr, Result, Token, Type};

use crate::function::{Arguments, Kind, levels};
use crate::topic::{Level, Pattern};

/// The methods.
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// A route.
pub(crate) fn kind() -> Kind {
    fn extract(ty: &Type) -> TokenStream {
        quote_spanned!(ty.span()=> <#ty as ::vespiary_sdk::__private::FromRequest<'_>>::from_request(source)?)
    }
    Kind {
        attribute: "http",
        what: "a route",
        captured_from: "the path",
        context: true,
        declaration: quote!(::vespiary_sdk::__private::Route),
        source: quote!(::vespiary_sdk::http::Incoming),
        extract,
        returns: quote!(::vespiary_sdk::Result<::vespiary_sdk::http::Response>),
        convert: quote!(::vespiary_sdk::__private::into_response(returned)),
    }
}

/// What stands between the parentheses.
pub(crate) struct RouteArguments {
    /// The method, in capitals.
    method: String,
    /// The path, without its first `/`.
    pattern: Pattern,
}

impl Parse for RouteArguments {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        const EXAMPLE: &str = "#[http(GET, \"/assets/{asset}\")]";
        if input.is_empty() || input.peek(LitStr) {
            return Err(input.error(format!("the method comes first: {EXAMPLE}")));
        }
        let method = input.call(Ident::parse_any)?;
        let name = method.unraw().to_string();
        if !METHODS.contains(&name.as_str()) {
            return Err(Error::new(method.span(), format!("no method `{name}`; there are {}", METHODS.join(", "))));
        }
        if input.is_empty() {
            return Err(input.error(format!("the path is missing: {EXAMPLE}")));
        }
        input.parse::<Token![,]>()?;
        let path: LitStr = input.parse()?;
        let wrong = |error: &str| Error::new(path.span(), format!("this is no path: {error}"));
        let text = path.value();
        let rest = text.strip_prefix('/').ok_or_else(|| wrong("it begins with `/`"))?;
        if rest.contains(['?', '#', '%', '+']) {
            return Err(wrong("it holds `?`, `#`, `%` or `+`; write a capture as `{name}`, the rest as `{name..}`"));
        }
        let pattern = match rest {
            "" => Pattern { levels: vec![Level::Exact(String::new())] },
            rest => Pattern::parse(rest).map_err(|error| wrong(&error))?,
        };
        if input.parse::<Option<Token![,]>>()?.is_some() && !input.is_empty() {
            return Err(input.error("nothing follows the path"));
        }
        Ok(Self { method: name, pattern })
    }
}

impl Arguments for RouteArguments {
    fn pattern(&self) -> Option<&Pattern> {
        Some(&self.pattern)
    }

    fn fields(&self, _: &ItemFn) -> TokenStream {
        let method = &self.method;
        let levels = levels(&self.pattern);
        quote!(method: #method, levels: #levels,)
    }

    fn nothing() -> Self {
        Self { method: String::new(), pattern: Pattern { levels: Vec::new() } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::function::expand;

    fn expanded(arguments: &str, function: &str) -> String {
        expand::<RouteArguments>(&kind(), arguments.parse().unwrap(), function.parse().unwrap()).to_string()
    }

    #[test]
    fn mistakes_are_named() {
        for (arguments, function, part) in [
            ("", "fn f() {}", "the method comes first"),
            (r#""/a""#, "fn f() {}", "the method comes first"),
            (r#"FETCH, "/a""#, "fn f() {}", "no method `FETCH`"),
            ("GET", "fn f() {}", "the path is missing"),
            (r#"GET, "a""#, "fn f() {}", "it begins with `/`"),
            (r#"GET, "/a?x""#, "fn f() {}", "it holds `?`"),
            (r#"GET, "/{a..}/b""#, "fn f() {}", "must be the last level"),
            (r#"GET, "/{a}""#, "fn f(b: &str) {}", "`b` is not captured by the path, which captures `a`"),
        ] {
            let expanded = expanded(arguments, function);
            assert!(expanded.contains("compile_error"), "{arguments} {function}");
            assert!(expanded.contains(part), "{arguments} {function}: {expanded}");
        }
        assert!(!expanded(r#"GET, "/""#, "fn f(cx: &mut Context) {}").contains("compile_error"));
        assert!(!expanded(r#"POST, "/a/{b}","#, "fn f(b: u32, Json(c): Json<C>) {}").contains("compile_error"));
    }
}
