//! Topic names and topic filters, parsed once and trusted from then on.
//!
//! A [`Topic`] or a [`TopicFilter`] that exists is valid: nobody below the edge checks it again. Both are cheap to
//! clone (one reference count). Source: MQTT 5.0 section 4.7, MQTT 3.1.1 section 4.7.

use std::fmt;
use std::sync::Arc;

/// Longest topic name or filter in bytes: its length is a two-byte field on the wire [MQTT-4.7.3-3].
pub const MAX_TOPIC_BYTES: usize = 65_535;

/// Most levels that a topic name or filter may have. MQTT sets no bound; walking the subscription tree needs one.
pub const MAX_TOPIC_LEVELS: usize = 128;

/// A topic name: what a message is published to. Not empty, without wildcards and without U+0000.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Topic(Arc<str>);

/// A topic filter: what a subscription asks for. `+` stands for one level, `#` for the rest.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicFilter(Arc<str>);

/// Why a string is not a topic name or not a topic filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidTopic {
    /// The string is empty [MQTT-4.7.3-1].
    Empty,
    /// The string is longer than [`MAX_TOPIC_BYTES`] [MQTT-4.7.3-3].
    TooLong,
    /// The string has more than [`MAX_TOPIC_LEVELS`] levels.
    TooManyLevels,
    /// The string holds U+0000 [MQTT-4.7.3-2].
    Nul,
    /// A topic name holds `+` or `#` [MQTT-3.3.2-2].
    WildcardInName,
    /// `#` is not the last character, or does not stand alone in its level [MQTT-4.7.1-1].
    MisplacedHash,
    /// `+` does not stand alone in its level [MQTT-4.7.1-2].
    MisplacedPlus,
}

impl Topic {
    /// Parses a topic name.
    pub fn parse(name: &str) -> Result<Self, InvalidTopic> {
        check_common(name)?;
        if name.bytes().any(|byte| byte == b'+' || byte == b'#') {
            return Err(InvalidTopic::WildcardInName);
        }
        Ok(Self(name.into()))
    }

    /// The topic name as it stands on the wire.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The levels, in order; at least one, each possibly empty.
    pub fn levels(&self) -> std::str::Split<'_, char> {
        self.0.split('/')
    }

    /// Whether the name begins with `$`, which wildcards at the first level do not match [MQTT-4.7.2-1].
    pub fn is_reserved(&self) -> bool {
        self.0.starts_with('$')
    }
}

impl TopicFilter {
    /// Parses a topic filter. `$share/...` is not treated specially here; see [`Self::shared`].
    pub fn parse(filter: &str) -> Result<Self, InvalidTopic> {
        check_common(filter)?;
        let mut levels = filter.split('/').peekable();
        while let Some(level) = levels.next() {
            if level.contains('#') && (level.len() > 1 || levels.peek().is_some()) {
                return Err(InvalidTopic::MisplacedHash);
            }
            if level.contains('+') && level.len() > 1 {
                return Err(InvalidTopic::MisplacedPlus);
            }
        }
        Ok(Self(filter.into()))
    }

    /// The filter as it stands on the wire.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The levels, in order; at least one, each possibly empty.
    pub fn levels(&self) -> std::str::Split<'_, char> {
        self.0.split('/')
    }

    /// The name of the group and the filter proper, where this is a shared subscription: `$share/NAME/FILTER`
    /// (section 4.8.2).
    pub fn shared(&self) -> Option<(&str, Self)> {
        let (name, filter) = self.0.strip_prefix("$share/")?.split_once('/')?;
        let valid = !name.is_empty() && !name.contains(['+', '#']) && !filter.is_empty();
        valid.then(|| (name, Self(filter.into())))
    }

    /// Whether messages published to `topic` are for this filter.
    pub fn matches(&self, topic: &Topic) -> bool {
        let mut names = topic.levels();
        let mut first = true;
        for level in self.levels() {
            let reserved = first && topic.is_reserved();
            match (level, names.next()) {
                ("#", _) => return !reserved,
                ("+", Some(_)) if !reserved => {}
                (level, Some(name)) if level == name => {}
                _ => return false,
            }
            first = false;
        }
        names.next().is_none()
    }
}

fn check_common(text: &str) -> Result<(), InvalidTopic> {
    if text.is_empty() {
        return Err(InvalidTopic::Empty);
    }
    if text.len() > MAX_TOPIC_BYTES {
        return Err(InvalidTopic::TooLong);
    }
    let mut levels = 1;
    for byte in text.bytes() {
        match byte {
            0 => return Err(InvalidTopic::Nul),
            b'/' => levels += 1,
            _ => {}
        }
    }
    if levels > MAX_TOPIC_LEVELS {
        return Err(InvalidTopic::TooManyLevels);
    }
    Ok(())
}

impl fmt::Display for InvalidTopic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(f, "it is empty"),
            Self::TooLong => write!(f, "it is longer than {MAX_TOPIC_BYTES} bytes"),
            Self::TooManyLevels => write!(f, "it has more than {MAX_TOPIC_LEVELS} levels"),
            Self::Nul => write!(f, "it holds the character U+0000"),
            Self::WildcardInName => write!(f, "a topic name holds no wildcard"),
            Self::MisplacedHash => write!(f, "'#' must be the whole last level"),
            Self::MisplacedPlus => write!(f, "'+' must be a whole level"),
        }
    }
}

impl std::error::Error for InvalidTopic {}

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TopicFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for TopicFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_filters_are_parsed_as_the_specification_says() {
        let long = "a".repeat(MAX_TOPIC_BYTES + 1);
        let deep = "/".repeat(MAX_TOPIC_LEVELS);
        for (text, name, filter) in [
            ("a/b", Ok(()), Ok(())),
            ("/", Ok(()), Ok(())),
            ("$SYS/x", Ok(()), Ok(())),
            ("", Err(InvalidTopic::Empty), Err(InvalidTopic::Empty)),
            ("a\0b", Err(InvalidTopic::Nul), Err(InvalidTopic::Nul)),
            (&long, Err(InvalidTopic::TooLong), Err(InvalidTopic::TooLong)),
            (&deep, Err(InvalidTopic::TooManyLevels), Err(InvalidTopic::TooManyLevels)),
            ("#", Err(InvalidTopic::WildcardInName), Ok(())),
            ("+/a/#", Err(InvalidTopic::WildcardInName), Ok(())),
            ("a/#/b", Err(InvalidTopic::WildcardInName), Err(InvalidTopic::MisplacedHash)),
            ("a/b#", Err(InvalidTopic::WildcardInName), Err(InvalidTopic::MisplacedHash)),
            ("a+/b", Err(InvalidTopic::WildcardInName), Err(InvalidTopic::MisplacedPlus)),
        ] {
            assert_eq!(Topic::parse(text).map(drop), name, "name {text:?}");
            assert_eq!(TopicFilter::parse(text).map(drop), filter, "filter {text:?}");
        }
    }

    #[test]
    fn filters_match_as_the_examples_of_the_specification_do() {
        for (filter, topic, expected) in [
            ("sport/tennis/player1/#", "sport/tennis/player1", true),
            ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true),
            ("sport/#", "sport", true),
            ("sport/tennis/+", "sport/tennis/player1", true),
            ("sport/tennis/+", "sport/tennis/player1/ranking", false),
            ("sport/+", "sport", false),
            ("sport/+", "sport/", true),
            ("+/+", "/finance", true),
            ("/+", "/finance", true),
            ("+", "/finance", false),
            ("#", "$SYS/monitor", false),
            ("+/monitor", "$SYS/monitor", false),
            ("$SYS/#", "$SYS/monitor", true),
            ("$SYS/+", "$SYS/monitor", true),
            ("a/b", "a/b", true),
            ("a/b", "A/b", false),
            ("a/b", "a/b/c", false),
        ] {
            let matched = TopicFilter::parse(filter).unwrap().matches(&Topic::parse(topic).unwrap());
            assert_eq!(matched, expected, "{filter} against {topic}");
        }
    }
}
