//! Matching topics against patterns and filters (MQTT 5.0 section 4.7).
//!
//! A pattern is compiled by `#[on(..)]` into levels; no check is repeated here.

/// Most wildcards in a pattern; `#[on(..)]` refuses more.
pub(crate) const MAX_WILDCARDS: usize = 16;

/// One level of a pattern.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level<'text> {
    /// This text.
    Exact(&'text str),
    /// Any one level, captured.
    One,
    /// All that follows, captured; also nothing.
    Rest,
}

/// Matches a topic; on success, what the wildcards stand for, in order, is in `captures`.
pub(crate) fn matches<'pattern, 'topic>(
    levels: impl IntoIterator<Item = Level<'pattern>>,
    topic: &'topic str,
    captures: &mut [&'topic str; MAX_WILDCARDS],
) -> bool {
    let mut remaining = Some(topic);
    let mut captured = 0;
    for (index, level) in levels.into_iter().enumerate() {
        // Wildcards at the first level do not match topics that begin with `$` [MQTT-4.7.2-1].
        if index == 0 && topic.starts_with('$') && !matches!(level, Level::Exact(_)) {
            return false;
        }
        let capture = match level {
            Level::Rest => remaining.take().unwrap_or_default(),
            Level::Exact(_) | Level::One => {
                let Some(text) = remaining else { return false };
                let name = match text.split_once('/') {
                    Some((name, rest)) => {
                        remaining = Some(rest);
                        name
                    }
                    None => {
                        remaining = None;
                        text
                    }
                };
                match level {
                    Level::Exact(exact) if exact == name => continue,
                    Level::Exact(_) => return false,
                    Level::One | Level::Rest => name,
                }
            }
        };
        if let Some(slot) = captures.get_mut(captured) {
            *slot = capture;
        }
        captured += 1;
    }
    remaining.is_none()
}

/// Whether some topic could match both a pattern and a topic filter.
pub(crate) fn overlap(levels: &[Level<'_>], filter: &str) -> bool {
    let mut levels = levels.iter();
    let mut others = filter.split('/').enumerate();
    loop {
        match (levels.next(), others.next()) {
            (None, None) => return true,
            (Some(Level::Rest), other) => {
                return !other.is_some_and(|(index, text)| index == 0 && text.starts_with('$'));
            }
            (None, Some((_, other))) => return other == "#",
            // `a` and `a/#` share the topic `a`.
            (Some(_), None) => return false,
            (Some(level), Some((index, other))) => match (level, other) {
                (level, "#") => return index > 0 || !matches!(level, Level::Exact(text) if text.starts_with('$')),
                (Level::Exact(text), "+") if index == 0 && text.starts_with('$') => return false,
                (Level::One, text) if index == 0 && text.starts_with('$') => return false,
                (Level::One | Level::Rest, _) | (Level::Exact(_), "+") => {}
                (Level::Exact(text), other) if *text == other => {}
                (Level::Exact(_), _) => return false,
            },
        }
    }
}

/// Whether a topic filter, known to be valid, matches a topic.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) fn filter_matches(filter: &str, topic: &str) -> bool {
    matches(levels(filter), topic, &mut [""; MAX_WILDCARDS])
}

/// The levels of a topic filter.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) fn levels(filter: &str) -> impl Iterator<Item = Level<'_>> {
    filter.split('/').map(|level| match level {
        "+" => Level::One,
        "#" => Level::Rest,
        text => Level::Exact(text),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

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
            ("a/b/c", "a/b", false),
        ] {
            assert_eq!(filter_matches(filter, topic), expected, "{filter} against {topic}");
        }
    }

    #[test]
    fn filters_overlap_if_some_topic_matches_both() {
        for (pattern, filter, expected) in [
            ("plant/#", "plant/1/x", true),
            ("plant/#", "plant", true),
            ("plant/#", "#", true),
            ("plant/#", "+/1", true),
            ("plant/+/x", "plant/1/+", true),
            ("plant/+/x", "plant/1/y", false),
            ("plant/1", "plant/1/#", true),
            ("plant/1", "plant/1/2", false),
            ("plant/1/2", "plant/1", false),
            ("#", "$SYS/x", false),
            ("$SYS/#", "#", false),
            ("$SYS/#", "+/x", false),
            ("$SYS/#", "$SYS/x", true),
        ] {
            let levels: Vec<Level<'_>> = levels(pattern).collect();
            assert_eq!(overlap(&levels, filter), expected, "{pattern} and {filter}");
        }
    }

    #[test]
    fn wildcards_capture_in_order() {
        let levels = [Level::One, Level::Exact("assets"), Level::One, Level::Rest];
        for (topic, expected) in [
            ("north/assets/pump/a/b", ["north", "pump", "a/b"]),
            ("north/assets/pump/", ["north", "pump", ""]),
            ("north/assets/pump", ["north", "pump", ""]),
            ("/assets//x", ["", "", "x"]),
        ] {
            let mut captures = [""; MAX_WILDCARDS];
            assert!(matches(levels, topic, &mut captures), "{topic}");
            assert_eq!(captures[..3], expected, "{topic}");
        }
        assert!(!matches(levels, "north/assets", &mut [""; MAX_WILDCARDS]));
    }
}
