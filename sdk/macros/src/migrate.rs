//! `#[migrate("health/{asset}", from = 1)]`: a function becomes a migration.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::parse::{Parse, ParseStream};
use syn::spanned::Spanned;
use syn::{Error, ItemFn, Result, Type};

use crate::arguments::{Pairs, leading_text, pattern};
use crate::function::{Arguments, Kind, levels};
use crate::topic::Pattern;

/// How it is written, for messages.
const EXAMPLE: &str = "#[migrate(\"health/{asset}\", from = 1)]";

/// A migration.
pub(crate) fn kind() -> Kind {
    fn extract(ty: &Type) -> TokenStream {
        quote_spanned!(ty.span()=> <#ty as ::vespiary_sdk::__private::FromEntry<'_>>::from_entry(source)?)
    }
    Kind {
        attribute: "migrate",
        what: "a migration",
        captured_from: "the key",
        context: false,
        declaration: quote!(::vespiary_sdk::__private::Migration),
        source: quote!(::vespiary_sdk::migration::Entry),
        extract,
        returns: quote!(::vespiary_sdk::Result<::std::vec::Vec<::vespiary_sdk::migration::Entry>>),
        convert: quote!(::vespiary_sdk::__private::into_entries(returned, &source.key)),
    }
}

/// What stands between the parentheses.
pub(crate) struct MigrationArguments {
    /// The pattern of keys.
    pattern: Pattern,
    /// The state version that it starts from.
    from: u32,
}

impl Parse for MigrationArguments {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let text = leading_text(input, "the pattern of keys", EXAMPLE)?;
        let pattern = pattern(&text, "pattern of keys")?;
        let pairs = Pairs::parse(input, &["from"], false)?;
        let Some((from, span)) = pairs.integer("from")? else {
            return Err(Error::new(
                text.span(),
                format!("`from` is missing: the state version that is left: {EXAMPLE}"),
            ));
        };
        let from = u32::try_from(from).ok().filter(|from| *from > 0);
        let from = from.ok_or_else(|| Error::new(span, "state versions count from 1"))?;
        Ok(Self { pattern, from })
    }
}

impl Arguments for MigrationArguments {
    fn pattern(&self) -> Option<&Pattern> {
        Some(&self.pattern)
    }

    fn fields(&self, _: &ItemFn) -> TokenStream {
        let from = self.from;
        let levels = levels(&self.pattern);
        quote!(from: #from, levels: #levels,)
    }

    fn nothing() -> Self {
        Self { pattern: Pattern { levels: Vec::new() }, from: 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::function::expand;

    fn expanded(arguments: &str, function: &str) -> String {
        expand::<MigrationArguments>(&kind(), arguments.parse().unwrap(), function.parse().unwrap()).to_string()
    }

    #[test]
    fn mistakes_are_named() {
        for (arguments, function, part) in [
            ("", "fn f() {}", "the pattern of keys is missing"),
            ("from = 1", "fn f() {}", "the pattern of keys comes first"),
            (r#""a""#, "fn f() {}", "`from` is missing"),
            (r#""a", from = 0"#, "fn f() {}", "state versions count from 1"),
            (r#""a", from = 1"#, "fn f(cx: &mut Context) {}", "a migration has no context"),
            (r#""a/{x}", from = 1"#, "fn f(y: &str) {}", "`y` is not captured by the key, which captures `x`"),
        ] {
            let expanded = expanded(arguments, function);
            assert!(expanded.contains("compile_error"), "{arguments} {function}");
            assert!(expanded.contains(part), "{arguments} {function}: {expanded}");
        }
        assert!(!expanded(r##""#", from = 1"##, "fn f(entry: &Entry) {}").contains("compile_error"));
    }
}
