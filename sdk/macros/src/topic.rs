//! Topic patterns and topic filters as they are written in the macros.
//!
//! A pattern is a topic filter in which wildcards may have names. The rules are those of MQTT 5.0 section 4.7 and of the
//! broker; whatever parses here is a valid filter there. Messages complete the sentence "the topic ... :".

/// Most wildcards in one pattern: the SDK's matcher keeps them in an array of this length.
const MAX_WILDCARDS: usize = 16;

/// Most levels, as in the broker.
const MAX_LEVELS: usize = 128;

/// Longest filter in bytes [MQTT-4.7.3-3].
const MAX_BYTES: usize = 65_535;

/// One level of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Level {
    /// This text.
    Exact(String),
    /// Any one level; the name under which it is captured, if any.
    One(Option<String>),
    /// All that follows; the name under which it is captured, if any.
    Rest(Option<String>),
}

/// A parsed pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pattern {
    /// Its levels, in order; at least one.
    pub(crate) levels: Vec<Level>,
}

impl Pattern {
    /// Parses a pattern; the error says what is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        check_common(text)?;
        let count = text.split('/').count();
        let mut levels = Vec::with_capacity(count);
        for (index, level) in text.split('/').enumerate() {
            levels.push(parse_level(level, index + 1 == count)?);
        }
        let pattern = Self { levels };
        let wildcards: Vec<Option<&str>> = pattern.wildcards().collect();
        if wildcards.len() > MAX_WILDCARDS {
            return Err(format!("it has more than {MAX_WILDCARDS} wildcards"));
        }
        for (index, name) in wildcards.iter().enumerate() {
            if name.is_some() && wildcards[..index].contains(name) {
                return Err(format!("it captures `{}` twice", name.unwrap_or_default()));
            }
        }
        Ok(pattern)
    }

    /// The topic filter: `+` for each capture, `#` for the rest.
    pub(crate) fn filter(&self) -> String {
        let levels: Vec<&str> = self
            .levels
            .iter()
            .map(|level| match level {
                Level::Exact(text) => text.as_str(),
                Level::One(_) => "+",
                Level::Rest(_) => "#",
            })
            .collect();
        levels.join("/")
    }

    /// The wildcards in order, with their names.
    pub(crate) fn wildcards(&self) -> impl Iterator<Item = Option<&str>> {
        self.levels.iter().filter_map(|level| match level {
            Level::Exact(_) => None,
            Level::One(name) | Level::Rest(name) => Some(name.as_deref()),
        })
    }

    /// The names of the captures, for messages.
    pub(crate) fn names(&self) -> String {
        let names: Vec<String> = self.wildcards().flatten().map(|name| format!("`{name}`")).collect();
        if names.is_empty() { "nothing".into() } else { names.join(", ") }
    }
}

/// Checks a plain topic filter; the error says what is wrong with it.
pub(crate) fn check_filter(text: &str) -> Result<(), String> {
    if text.contains(['{', '}']) {
        return Err("a grant is a topic filter without names: write `+` for one level and `#` for the rest".into());
    }
    Pattern::parse(text).map(drop)
}

fn check_common(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err("it is empty".into());
    }
    if text.len() > MAX_BYTES {
        return Err(format!("it is longer than {MAX_BYTES} bytes"));
    }
    if text.contains('\0') {
        return Err("it holds the character U+0000".into());
    }
    if text.split('/').count() > MAX_LEVELS {
        return Err(format!("it has more than {MAX_LEVELS} levels"));
    }
    if text.starts_with("$share/") {
        return Err("a plugin's subscriptions are not shared: leave out `$share/..`".into());
    }
    Ok(())
}

fn parse_level(level: &str, last: bool) -> Result<Level, String> {
    if level == "#" {
        return if last { Ok(Level::Rest(None)) } else { Err("`#` must be the last level".into()) };
    }
    if level == "+" {
        return Ok(Level::One(None));
    }
    let Some(inside) = level.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) else {
        return match level.find(['{', '}', '+', '#']) {
            None => Ok(Level::Exact(level.into())),
            Some(_) if level.contains(['{', '}']) => {
                Err(format!("a capture must be a whole level, as in `{{name}}`, not `{level}`"))
            }
            Some(_) => Err(format!("a wildcard must be a whole level, not `{level}`")),
        };
    };
    let (name, rest) = match inside.strip_suffix("..") {
        Some(name) => (name, true),
        None => (inside, false),
    };
    if syn::parse_str::<syn::Ident>(name).is_err() {
        return Err(format!("`{{{inside}}}` does not name a parameter; write `{{name}}`, or `{{name..}}` at the end"));
    }
    match (rest, last) {
        (false, _) => Ok(Level::One(Some(name.into()))),
        (true, true) => Ok(Level::Rest(Some(name.into()))),
        (true, false) => Err(format!("`{{{name}..}}` captures the rest and must be the last level")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_become_filters() {
        for (pattern, filter, names) in [
            ("assets/{asset}/vibration", "assets/+/vibration", vec![Some("asset")]),
            ("{site}/assets/{rest..}", "+/assets/#", vec![Some("site"), Some("rest")]),
            ("a/+/#", "a/+/#", vec![None, None]),
            ("/a//b/", "/a//b/", vec![]),
            ("#", "#", vec![None]),
        ] {
            let parsed = Pattern::parse(pattern).unwrap();
            assert_eq!(parsed.filter(), filter, "{pattern}");
            assert_eq!(parsed.wildcards().collect::<Vec<_>>(), names, "{pattern}");
        }
    }

    #[test]
    fn patterns_that_mqtt_or_rust_does_not_allow_are_refused() {
        let wide = ["+"; MAX_WILDCARDS + 1].join("/");
        for (pattern, part) in [
            ("", "empty"),
            ("a\0", "U+0000"),
            ("a/#/b", "`#` must be the last"),
            ("a/b#", "whole level"),
            ("a/sensor-{id}", "whole level"),
            ("a/{}", "does not name"),
            ("a/{1}", "does not name"),
            ("a/{rest..}/b", "must be the last"),
            ("a/{x}/{x}", "twice"),
            ("$share/g/a", "not shared"),
            (&wide, "wildcards"),
        ] {
            let error = Pattern::parse(pattern).unwrap_err();
            assert!(error.contains(part), "{pattern}: {error}");
        }
        assert!(check_filter("a/{x}").unwrap_err().contains("without names"));
    }
}
