//! `#[authenticate]`, `#[auth_step(..)]`, `#[authorize(..)]`, `#[intercept_publish(..)]`, `#[intercept_subscribe(..)]` and
//! `#[intercept_deliver(..)]`: a function becomes a hook.

use std::marker::PhantomData;

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::parse::{Parse, ParseStream};
use syn::spanned::Spanned;
use syn::{Error, Ident, ItemFn, LitStr, Result, Token, Type};

use crate::arguments::{Pairs, leading_text, pattern};
use crate::function::{Arguments, Kind, levels};
use crate::json::json_string;
use crate::topic::Pattern;

/// The keys that all hooks have.
const SETTINGS: [&str; 3] = ["priority", "deadline_ms", "on_failure"];

/// Longest deadline that a hook can have: a client waits meanwhile.
const MAX_DEADLINE_MS: i64 = 60_000;

/// A kind of hook.
pub(crate) trait HookKind {
    /// The attribute, and the hook's name in the manifest but for `-`.
    const ATTRIBUTE: &'static str;
    /// The variant of `HookRun`.
    const VARIANT: &'static str;
    /// Type of what it is asked.
    const QUESTION: &'static str;
    /// Type of its answer.
    const VERDICT: &'static str;
    /// Whether it has a topic filter, and `#` where it is left out.
    const FILTER: Option<Filter>;
}

/// What a hook's topic filter is.
#[derive(PartialEq, Eq)]
pub(crate) enum Filter {
    /// It has to be there, and captures.
    Captures,
    /// It has to be there; what is asked is a filter itself, so nothing is captured.
    Overlaps,
    /// It may be left out.
    Optional,
}

/// Declares the kinds.
macro_rules! kinds {
    ($($name:ident: $attribute:literal, $variant:literal, $question:literal, $verdict:literal, $filter:expr;)+) => {$(
        #[doc = concat!("`#[", $attribute, "]`")]
        pub(crate) struct $name;

        impl HookKind for $name {
            const ATTRIBUTE: &'static str = $attribute;
            const VARIANT: &'static str = $variant;
            const QUESTION: &'static str = $question;
            const VERDICT: &'static str = $verdict;
            const FILTER: Option<Filter> = $filter;
        }
    )+};
}

kinds! {
    Authenticate: "authenticate", "Authenticate", "Credentials", "Authentication", None;
    AuthStep: "auth_step", "AuthStep", "Step", "Progress", None;
    Authorize: "authorize", "Authorize", "Access", "Authorization", Some(Filter::Optional);
    InterceptPublish: "intercept_publish", "InterceptPublish", "InFlight", "PublishVerdict", Some(Filter::Captures);
    InterceptSubscribe: "intercept_subscribe", "InterceptSubscribe", "Wanted", "SubscribeVerdict", Some(Filter::Overlaps);
    InterceptDeliver: "intercept_deliver", "InterceptDeliver", "InFlight", "DeliverVerdict", Some(Filter::Captures);
}

/// A hook of a kind.
pub(crate) fn kind<K: HookKind>() -> Kind {
    fn extract<K: HookKind>(ty: &Type) -> TokenStream {
        let question = Ident::new(K::QUESTION, ty.span());
        quote_spanned! {ty.span()=>
            <#ty as ::vespiary_sdk::hooks::FromQuestion<'_, ::vespiary_sdk::hooks::#question>>::from_question(source)
        }
    }
    let question = Ident::new(K::QUESTION, Span::call_site());
    let verdict = Ident::new(K::VERDICT, Span::call_site());
    Kind {
        attribute: K::ATTRIBUTE,
        what: "a hook",
        captured_from: "the topic",
        context: true,
        declaration: quote!(::vespiary_sdk::__private::Hook),
        source: quote!(::vespiary_sdk::hooks::#question),
        extract: extract::<K>,
        returns: quote!(::vespiary_sdk::Result<::vespiary_sdk::hooks::#verdict>),
        convert: quote!(::vespiary_sdk::__private::into_verdict::<::vespiary_sdk::hooks::#verdict>(returned)),
    }
}

/// What stands between a hook's parentheses.
pub(crate) struct HookArguments<K> {
    /// The topic filter.
    pattern: Option<Pattern>,
    /// Authentication methods.
    methods: Vec<String>,
    /// Actions to authorize.
    actions: Vec<String>,
    /// Priority and the like, as members of a JSON object.
    settings: String,
    /// Which hook it is.
    kind: PhantomData<K>,
}

impl<K: HookKind> Parse for HookArguments<K> {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let mut arguments = Self::nothing();
        let mut keys = SETTINGS.to_vec();
        let mut first = true;
        if K::ATTRIBUTE == "auth_step" {
            let example = "#[auth_step(method = \"SCRAM-SHA-256\")]";
            if input.is_empty() {
                return Err(input.error(format!("the method is missing: {example}")));
            }
            keys.extend(["method", "methods"]);
        }
        if K::ATTRIBUTE == "authorize" {
            keys.push("actions");
        }
        let filter_follows = match K::FILTER {
            None => false,
            Some(Filter::Optional) => input.peek(LitStr),
            Some(Filter::Captures | Filter::Overlaps) => true,
        };
        if filter_follows {
            let example = format!("#[{}(\"raw/{{device}}/#\")]", K::ATTRIBUTE);
            let text = leading_text(input, "the topic filter", &example)?;
            arguments.pattern = Some(pattern(&text, "topic filter")?);
            first = false;
        } else if K::FILTER == Some(Filter::Optional) {
            arguments.pattern = Some(Pattern::parse("#").expect("`#` is a filter"));
        } else if input.peek(Token![,]) {
            return Err(input.error("a key comes first"));
        }
        let pairs = Pairs::parse(input, &keys, first)?;
        if K::ATTRIBUTE == "auth_step" {
            let one = pairs.text("method")?.map(|method| vec![method.value()]);
            let several = pairs.list("methods")?.map(|methods| methods.into_iter().map(|(method, _)| method).collect());
            arguments.methods = one.or(several).ok_or_else(|| {
                Error::new(Span::call_site(), "the method is missing: #[auth_step(method = \"SCRAM-SHA-256\")]")
            })?;
        }
        for (action, span) in pairs.list("actions")?.unwrap_or_default() {
            if !["publish", "subscribe", "will"].contains(&action.as_str()) {
                return Err(Error::new(
                    span,
                    format!("no action `{action}`: there are `publish`, `subscribe` and `will`"),
                ));
            }
            arguments.actions.push(action);
        }
        arguments.settings = settings(&pairs)?;
        Ok(arguments)
    }
}

fn settings(pairs: &Pairs) -> Result<String> {
    let mut settings = String::new();
    if let Some((priority, span)) = pairs.integer("priority")? {
        let priority = i32::try_from(priority).map_err(|_| Error::new(span, "a priority has 32 bits"))?;
        settings.push_str(&format!(",\"priority\":{priority}"));
    }
    if let Some((deadline, span)) = pairs.integer("deadline_ms")? {
        if !(1..=MAX_DEADLINE_MS).contains(&deadline) {
            return Err(Error::new(span, format!("a deadline is 1 to {MAX_DEADLINE_MS} milliseconds")));
        }
        settings.push_str(&format!(",\"deadline_ms\":{deadline}"));
    }
    if let Some(on_failure) = pairs.text("on_failure")? {
        let value = on_failure.value();
        if value != "allow" && value != "deny" {
            return Err(Error::new(on_failure.span(), "`on_failure` is \"allow\" or \"deny\""));
        }
        settings.push_str(&format!(",\"on_failure\":\"{value}\""));
    }
    Ok(settings)
}

impl<K: HookKind> Arguments for HookArguments<K> {
    fn pattern(&self) -> Option<&Pattern> {
        match K::FILTER {
            Some(Filter::Captures) => self.pattern.as_ref(),
            Some(Filter::Overlaps | Filter::Optional) | None => None,
        }
    }

    fn fields(&self, _: &ItemFn) -> TokenStream {
        let kind = K::ATTRIBUTE.replace('_', "-");
        let filter_json = self.pattern.as_ref().map_or_else(String::new, |pattern| json_string(&pattern.filter()));
        let levels = self.pattern.as_ref().map_or_else(|| quote!(&[]), levels);
        let methods = self.methods.iter().map(|method| json_string(method));
        let actions = self.actions.iter().map(|action| json_string(action));
        let settings = &self.settings;
        quote! {
            kind: #kind,
            filter_json: #filter_json,
            levels: #levels,
            methods: &[#(#methods),*],
            actions: &[#(#actions),*],
            settings: #settings,
        }
    }

    fn run(&self) -> TokenStream {
        let variant = Ident::new(K::VARIANT, Span::call_site());
        quote!(::vespiary_sdk::__private::HookRun::#variant(run))
    }

    fn nothing() -> Self {
        Self { pattern: None, methods: Vec::new(), actions: Vec::new(), settings: String::new(), kind: PhantomData }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::function::expand;

    fn expanded(attribute: &str, arguments: &str, function: &str) -> String {
        fn of<K: HookKind>(arguments: &str, function: &str) -> TokenStream {
            expand::<HookArguments<K>>(&kind::<K>(), arguments.parse().unwrap(), function.parse().unwrap())
        }
        match attribute {
            "authenticate" => of::<Authenticate>(arguments, function),
            "auth_step" => of::<AuthStep>(arguments, function),
            "authorize" => of::<Authorize>(arguments, function),
            "intercept_publish" => of::<InterceptPublish>(arguments, function),
            "intercept_subscribe" => of::<InterceptSubscribe>(arguments, function),
            _ => of::<InterceptDeliver>(arguments, function),
        }
        .to_string()
    }

    #[test]
    fn mistakes_are_named() {
        for (attribute, arguments, part) in [
            ("authenticate", r#""a/b""#, "a key stands here"),
            (
                "authenticate",
                "filter = 1",
                "unknown key `filter`; the keys are `priority`, `deadline_ms`, `on_failure`",
            ),
            ("authenticate", r#"on_failure = "retry""#, "`on_failure` is \\\"allow\\\" or \\\"deny\\\""),
            ("authenticate", "deadline_ms = 0", "a deadline is 1 to 60000 milliseconds"),
            ("auth_step", "", "the method is missing"),
            ("auth_step", "priority = 1", "the method is missing"),
            ("authorize", r#""a/#", actions = [read]"#, "no action `read`"),
            ("authorize", r#""a/#", actions = []"#, "`actions` is empty"),
            ("authorize", r#""a/#", actions = "publish""#, "`actions` is a list"),
            ("intercept_publish", "", "the topic filter is missing"),
            ("intercept_publish", "priority = 1", "the topic filter comes first"),
            ("intercept_deliver", r#""a/#/b""#, "this is no topic filter"),
        ] {
            let expanded = expanded(attribute, arguments, "fn f() {}");
            assert!(expanded.contains("compile_error"), "{attribute} {arguments}");
            assert!(expanded.contains(part), "{attribute} {arguments}: {expanded}");
        }
        let expanded = expanded("intercept_subscribe", r#""a/{x}""#, "fn f(x: &str) {}");
        assert!(expanded.contains("`x` is not captured by the topic, which captures nothing"), "{expanded}");
    }

    #[test]
    fn what_is_right_is_taken() {
        for (attribute, arguments, function) in [
            ("authenticate", "", "fn f(credentials: &Credentials) {}"),
            ("authenticate", r#"priority = -10, deadline_ms = 50, on_failure = "allow","#, "fn f(cx: &Context) {}"),
            ("auth_step", r#"method = "SCRAM-SHA-256", priority = 1"#, "fn f(step: &Step) {}"),
            ("auth_step", r#"methods = ["A", "B"]"#, "fn f(step: &Step) {}"),
            ("authorize", "", "fn f(access: &Access) {}"),
            ("authorize", r#""plant/#", actions = [publish, will]"#, "fn f(access: &Access) {}"),
            ("intercept_publish", r#""raw/{device}/#""#, "fn f(device: &str, message: &Message) {}"),
            ("intercept_subscribe", r##""#""##, "fn f(subscription: &Subscription) {}"),
        ] {
            let expanded = expanded(attribute, arguments, function);
            assert!(!expanded.contains("compile_error"), "{attribute} {arguments}: {expanded}");
        }
    }
}
