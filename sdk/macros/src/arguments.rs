//! What stands between an attribute's parentheses: a text first, perhaps, and then `key = value`.

use proc_macro2::Span;
use syn::ext::IdentExt;
use syn::parse::ParseStream;
use syn::spanned::Spanned;
use syn::{Error, Ident, Lit, LitStr, Result, Token, bracketed, token};

use crate::topic::Pattern;

/// A value behind a key.
pub(crate) enum Value {
    /// A literal.
    Literal(Lit),
    /// A negative number.
    Number(i64, Span),
    /// `[publish, subscribe]`, or literals in brackets.
    List(Vec<(String, Span)>, Span),
}

/// Keys with their values, each at most once.
pub(crate) struct Pairs {
    /// What was written.
    pairs: Vec<(Ident, Value)>,
}

impl Pairs {
    /// Parses what is left: `, key = value` again and again. `first` says that no comma comes first.
    pub(crate) fn parse(input: ParseStream<'_>, keys: &[&str], mut first: bool) -> Result<Self> {
        let mut pairs: Vec<(Ident, Value)> = Vec::new();
        while !input.is_empty() {
            if !first {
                input.parse::<Token![,]>()?;
                if input.is_empty() {
                    break;
                }
            }
            first = false;
            if input.peek(Lit) {
                return Err(input.error("a key stands here, as in `key = value`"));
            }
            let key = input.call(Ident::parse_any)?;
            if !keys.iter().any(|known| key == known) {
                let known: Vec<String> = keys.iter().map(|key| format!("`{key}`")).collect();
                let known = match known.as_slice() {
                    [] => "there are no keys".to_owned(),
                    [only] => format!("the only one is {only}"),
                    several => format!("the keys are {}", several.join(", ")),
                };
                return Err(Error::new(key.span(), format!("unknown key `{key}`; {known}")));
            }
            if pairs.iter().any(|(earlier, _)| *earlier == key) {
                return Err(Error::new(key.span(), format!("`{key}` is given twice")));
            }
            input.parse::<Token![=]>()?;
            pairs.push((key, value(input)?));
        }
        Ok(Self { pairs })
    }

    /// The value of a key as text.
    pub(crate) fn text(&self, key: &str) -> Result<Option<LitStr>> {
        match self.find(key) {
            None => Ok(None),
            Some(Value::Literal(Lit::Str(text))) => Ok(Some(text.clone())),
            Some(other) => Err(Error::new(other.span(), format!("`{key}` is a text in quotes"))),
        }
    }

    /// The value of a key as an integer.
    pub(crate) fn integer(&self, key: &str) -> Result<Option<(i64, Span)>> {
        match self.find(key) {
            None => Ok(None),
            Some(Value::Literal(Lit::Int(number))) => Ok(Some((number.base10_parse()?, number.span()))),
            Some(Value::Number(number, span)) => Ok(Some((*number, *span))),
            Some(other) => Err(Error::new(other.span(), format!("`{key}` is a whole number"))),
        }
    }

    /// The value of a key as a list of words.
    pub(crate) fn list(&self, key: &str) -> Result<Option<Vec<(String, Span)>>> {
        match self.find(key) {
            None => Ok(None),
            Some(Value::List(words, span)) if words.is_empty() => Err(Error::new(*span, format!("`{key}` is empty"))),
            Some(Value::List(words, _)) => Ok(Some(words.clone())),
            Some(other) => Err(Error::new(other.span(), format!("`{key}` is a list: `[..]`"))),
        }
    }

    fn find(&self, key: &str) -> Option<&Value> {
        self.pairs.iter().find(|(other, _)| other == key).map(|(_, value)| value)
    }
}

impl Value {
    fn span(&self) -> Span {
        match self {
            Self::Literal(literal) => literal.span(),
            Self::Number(_, span) | Self::List(_, span) => *span,
        }
    }
}

fn value(input: ParseStream<'_>) -> Result<Value> {
    if input.peek(token::Bracket) {
        let content;
        let brackets = bracketed!(content in input);
        let mut words = Vec::new();
        while !content.is_empty() {
            if content.peek(LitStr) {
                let text: LitStr = content.parse()?;
                words.push((text.value(), text.span()));
            } else {
                let word = content.call(Ident::parse_any)?;
                words.push((word.unraw().to_string(), word.span()));
            }
            if !content.is_empty() {
                content.parse::<Token![,]>()?;
            }
        }
        return Ok(Value::List(words, brackets.span.join()));
    }
    if let Some(minus) = input.parse::<Option<Token![-]>>()? {
        let number: syn::LitInt = input.parse()?;
        return Ok(Value::Number(-number.base10_parse::<i64>()?, minus.span()));
    }
    input.parse().map(Value::Literal)
}

/// The text that an attribute begins with; `example` is shown where it is missing.
pub(crate) fn leading_text(input: ParseStream<'_>, what: &str, example: &str) -> Result<LitStr> {
    if input.is_empty() {
        return Err(input.error(format!("{what} is missing: {example}")));
    }
    if !input.peek(LitStr) {
        return Err(input.error(format!("{what} comes first, in quotes: {example}")));
    }
    input.parse()
}

/// Parses a pattern; `what` completes "this is no ..".
pub(crate) fn pattern(text: &LitStr, what: &str) -> Result<Pattern> {
    Pattern::parse(&text.value()).map_err(|error| Error::new(text.span(), format!("this is no {what}: {error}")))
}
