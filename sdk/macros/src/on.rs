//! `#[on(..)]`, `#[on_client(..)]`, `#[on_timer(..)]`, `#[schedule(..)]` and `#[on_response(..)]`: a function becomes a handler.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream};
use syn::spanned::Spanned;
use syn::{Error, ItemFn, LitStr, Result, Type};

use crate::arguments::{Pairs, leading_text, pattern};
use crate::function::{Arguments, Kind, levels};
use crate::json::json_string;
use crate::topic::Pattern;

/// A handler, marked with this attribute.
pub(crate) fn kind(attribute: &'static str) -> Kind {
    fn extract(ty: &Type) -> TokenStream {
        quote_spanned!(ty.span()=> <#ty as ::vespiary_sdk::FromEvent<'_>>::from_event(source)?)
    }
    Kind {
        attribute,
        what: "a handler",
        captured_from: match attribute {
            "on_timer" | "schedule" => "the timer's name",
            "on_response" => "the request's tag",
            _ => "the topic",
        },
        context: true,
        declaration: quote!(::vespiary_sdk::__private::Handler),
        source: quote!(::vespiary_sdk::Event),
        extract,
        returns: quote!(::vespiary_sdk::Result<()>),
        convert: quote!(::vespiary_sdk::__private::into_result(returned)),
    }
}

/// What stands in `#[on(..)]` and `#[on_client(..)]`.
pub(crate) struct Topic {
    /// The topic pattern.
    pattern: Pattern,
    /// The QoS of the subscription.
    qos: u8,
}

impl Topic {
    fn with_qos(input: ParseStream<'_>, pattern: Pattern) -> Result<Self> {
        let qos = match Pairs::parse(input, &["qos"], false)?.integer("qos")? {
            None => 1,
            Some((0, _)) => 0,
            Some((1, _)) => 1,
            Some((2, _)) => 2,
            Some((_, span)) => return Err(Error::new(span, "the QoS is 0, 1 or 2")),
        };
        Ok(Self { pattern, qos })
    }
}

impl Parse for Topic {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let text = leading_text(input, "the topic", "#[on(\"assets/{asset}/vibration\")]")?;
        let pattern = pattern(&text, "topic to subscribe to")?;
        Self::with_qos(input, pattern)
    }
}

impl Arguments for Topic {
    fn pattern(&self) -> Option<&Pattern> {
        Some(&self.pattern)
    }

    fn fields(&self, _: &ItemFn) -> TokenStream {
        let filter = self.pattern.filter();
        let filter_json = json_string(&filter);
        let qos = self.qos;
        let levels = levels(&self.pattern);
        quote! {
            trigger: ::vespiary_sdk::__private::Trigger::Topic {
                filter: #filter,
                filter_json: #filter_json,
                qos: #qos,
                levels: #levels,
            },
        }
    }

    fn nothing() -> Self {
        Self { pattern: Pattern { levels: Vec::new() }, qos: 0 }
    }
}

/// What stands in `#[on_client(..)]`.
pub(crate) struct ClientTopic(Topic);

impl Parse for ClientTopic {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let event = leading_text(input, "the event", "#[on_client(\"connected\")]")?;
        let text = event.value();
        if text.is_empty() || text.contains(['/', '+', '{', '}', '\0']) || (text.contains('#') && text != "#") {
            return Err(Error::new(
                event.span(),
                "an event of clients is one word, such as \"connected\", or \"#\" for all",
            ));
        }
        let pattern =
            Pattern::parse(&format!("$clients/{{client}}/{text}")).map_err(|error| Error::new(event.span(), error))?;
        Topic::with_qos(input, pattern).map(Self)
    }
}

impl Arguments for ClientTopic {
    fn pattern(&self) -> Option<&Pattern> {
        self.0.pattern()
    }

    fn fields(&self, function: &ItemFn) -> TokenStream {
        self.0.fields(function)
    }

    fn nothing() -> Self {
        Self(Topic::nothing())
    }
}

/// What stands in `#[on_timer(..)]`.
pub(crate) struct Timer(Pattern);

impl Parse for Timer {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let text = leading_text(input, "the timer's name", "#[on_timer(\"orders/{order}/overdue\")]")?;
        let pattern = pattern(&text, "timer name")?;
        Pairs::parse(input, &[], false)?;
        Ok(Self(pattern))
    }
}

impl Arguments for Timer {
    fn pattern(&self) -> Option<&Pattern> {
        Some(&self.0)
    }

    fn fields(&self, _: &ItemFn) -> TokenStream {
        let levels = levels(&self.0);
        quote!(trigger: ::vespiary_sdk::__private::Trigger::Timer { levels: #levels },)
    }

    fn nothing() -> Self {
        Self(Pattern { levels: Vec::new() })
    }
}

/// What stands in `#[schedule(..)]`.
pub(crate) struct Schedule {
    /// The cron expression.
    cron: String,
    /// The timer's name; the function's if it is left out.
    name: Option<String>,
    /// The payload of its events.
    payload: String,
}

impl Parse for Schedule {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let cron = leading_text(input, "the cron expression", "#[schedule(\"0 3 * * *\")]")?;
        check_cron(&cron)?;
        let pairs = Pairs::parse(input, &["name", "payload"], false)?;
        let name = pairs.text("name")?;
        if let Some(name) = &name
            && (name.value().is_empty() || name.value().len() > 256 || name.value().starts_with('$'))
        {
            return Err(Error::new(name.span(), "a timer's name has 1 to 256 bytes and does not begin with `$`"));
        }
        let payload = pairs.text("payload")?.map_or_else(String::new, |payload| payload.value());
        Ok(Self { cron: cron.value(), name: name.map(|name| name.value()), payload })
    }
}

impl Arguments for Schedule {
    fn pattern(&self) -> Option<&Pattern> {
        None
    }

    fn fields(&self, function: &ItemFn) -> TokenStream {
        let name = self.name.clone().unwrap_or_else(|| function.sig.ident.unraw().to_string());
        let Self { cron, payload, .. } = self;
        let json = format!(
            "{{\"name\":{},\"cron\":{},\"payload\":{}}}",
            json_string(&name),
            json_string(cron),
            json_string(payload)
        );
        quote! {
            trigger: ::vespiary_sdk::__private::Trigger::Schedule {
                name: #name,
                cron: #cron,
                payload: #payload,
                json: #json,
            },
        }
    }

    fn nothing() -> Self {
        Self { cron: String::new(), name: None, payload: String::new() }
    }
}

/// Finds what is plainly no cron expression; the host knows the rest.
fn check_cron(cron: &LitStr) -> Result<()> {
    let text = cron.value();
    let count = text.split_whitespace().count();
    if text.starts_with('@') {
        return Ok(());
    }
    if !(5..=6).contains(&count) {
        let message = format!(
            "a cron expression has five fields (minute, hour, day of month, month, day of week) or six with seconds first, \
             not {count}"
        );
        return Err(Error::new(cron.span(), message));
    }
    let numbers = [("second", 0, 59), ("minute", 0, 59), ("hour", 0, 23), ("day of month", 1, 31), ("month", 1, 12)];
    let fields = text.split_whitespace();
    let named = numbers.iter().skip(6 - count);
    for (field, (name, least, most)) in fields.zip(named) {
        for number in field.split(['-', ',']).filter_map(|part| part.split('/').next()) {
            if let Ok(number) = number.parse::<u32>()
                && !(*least..=*most).contains(&number)
            {
                return Err(Error::new(cron.span(), format!("the {name} is {least} to {most}, not {number}")));
            }
        }
    }
    Ok(())
}

/// What stands in `#[on_response(..)]`.
pub(crate) struct Response(Option<Pattern>);

impl Parse for Response {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        if input.is_empty() {
            return Ok(Self(None));
        }
        let text = leading_text(input, "the request's tag", "#[on_response(\"location/{order}\")]")?;
        let pattern = pattern(&text, "tag of a request")?;
        Pairs::parse(input, &[], false)?;
        Ok(Self(Some(pattern)))
    }
}

impl Arguments for Response {
    fn pattern(&self) -> Option<&Pattern> {
        self.0.as_ref()
    }

    fn fields(&self, _: &ItemFn) -> TokenStream {
        let levels = match &self.0 {
            None => quote!(::core::option::Option::None),
            Some(pattern) => {
                let levels = levels(pattern);
                quote!(::core::option::Option::Some(#levels))
            }
        };
        quote!(trigger: ::vespiary_sdk::__private::Trigger::Response { levels: #levels },)
    }

    fn nothing() -> Self {
        Self(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::function::expand;

    fn expanded(attribute: &'static str, arguments: &str, function: &str) -> String {
        let (arguments, function) = (arguments.parse().unwrap(), function.parse().unwrap());
        let kind = kind(attribute);
        match attribute {
            "on" => expand::<Topic>(&kind, arguments, function),
            "on_client" => expand::<ClientTopic>(&kind, arguments, function),
            "on_timer" => expand::<Timer>(&kind, arguments, function),
            "schedule" => expand::<Schedule>(&kind, arguments, function),
            _ => expand::<Response>(&kind, arguments, function),
        }
        .to_string()
    }

    #[test]
    fn mistakes_are_named() {
        for (attribute, arguments, function, part) in [
            ("on", "", "fn f() {}", "the topic is missing"),
            ("on", "qos = 1", "fn f() {}", "the topic comes first, in quotes"),
            ("on", r#""a/b", retries = 3"#, "fn f() {}", "unknown key `retries`; the only one is `qos`"),
            ("on", r#""a/b", qos = 3"#, "fn f() {}", "the QoS is 0, 1 or 2"),
            ("on", r#""a/b", qos = "1""#, "fn f() {}", "`qos` is a whole number"),
            ("on", r#""a/b", qos = 1, qos = 1"#, "fn f() {}", "given twice"),
            ("on", r#""a/#/b""#, "fn f() {}", "this is no topic to subscribe to"),
            ("on", r#""a/{x}""#, "fn f(y: &str) {}", "`y` is not captured by the topic, which captures `x`"),
            ("on", r#""a/b""#, "fn f(n: u32) {}", "`n` is not captured by the topic, which captures nothing"),
            ("on", r#""a/b""#, "async fn f() {}", "not async"),
            ("on", r#""a/b""#, "unsafe fn f() {}", "not unsafe"),
            ("on", r#""a/b""#, "fn f<T>() {}", "no generic parameters"),
            ("on", r#""a/b""#, "fn f(&self) {}", "free function"),
            ("on", r#""a/b""#, r#"#[on("c")] fn f() {}"#, "one topic"),
            ("on", r#""a/b""#, "struct F;", "marks a function"),
            ("on_client", r#""a/b""#, "fn f() {}", "one word"),
            ("on_client", r#""connected""#, "fn f(name: &str) {}", "which captures `client`"),
            ("on_timer", "", "fn f() {}", "the timer's name is missing"),
            ("on_timer", r#""a", qos = 1"#, "fn f() {}", "unknown key `qos`; there are no keys"),
            ("on_timer", r#""{a}""#, "fn f(b: &str) {}", "not captured by the timer's name, which captures `a`"),
            ("schedule", r#""0 3 * *""#, "fn f() {}", "five fields"),
            ("schedule", r#""0 25 * * *""#, "fn f() {}", "the hour is 0 to 23, not 25"),
            ("schedule", r#""0 3 * * *", name = "$x""#, "fn f() {}", "does not begin with `$`"),
            ("on_response", "7", "fn f() {}", "the request's tag comes first, in quotes"),
            ("on_response", "", "fn f(x: &str) {}", "`x` is not captured by the request's tag, which captures nothing"),
        ] {
            let expanded = expanded(attribute, arguments, function);
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
            for (attribute, arguments) in
                [("on", r#""a/{x}/{y..}", qos = 2,"#), ("on_timer", r#""{x}/{y}""#), ("on_response", r#""{x}/{y}""#)]
            {
                let expanded = expanded(attribute, arguments, function);
                assert!(!expanded.contains("compile_error"), "{function}: {expanded}");
            }
        }
        assert!(!expanded("schedule", r#""0 0 3 * * MON-FRI", name = "x""#, "fn f() {}").contains("compile_error"));
        assert!(!expanded("on_client", r#""connected""#, "fn f(client: &str) {}").contains("compile_error"));
    }
}
