//! Topic names and filters against a reading of MQTT 5.0 section 4.7 that is as plain as can be.

use crate::topic::{InvalidTopic, MAX_TOPIC_BYTES, MAX_TOPIC_LEVELS, Topic, TopicFilter};

/// Takes the first line of `bytes` for a topic filter and the rest for a topic name.
///
/// Both are parsed as both. What parses is as valid as it says and displays as it was; what does not parse is invalid in
/// the way that is reported. A name and a filter match exactly if a naive matcher says so, and a shared subscription is
/// taken apart as it is put together.
pub fn topics(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (first, second) = text.split_once('\n').unwrap_or((&text, ""));
    let mut names = Vec::new();
    let mut filters = Vec::new();
    for text in [first, second] {
        let fault = fault_of_both(text);
        let name = Topic::parse(text);
        check_name(text, fault.or(fault_of_name(text)), &name);
        let filter = TopicFilter::parse(text);
        check_filter(text, fault.or(fault_of_filter(text)), &filter);
        names.extend(name);
        filters.extend(filter);
    }
    for filter in &filters {
        for name in &names {
            let levels: [Vec<&str>; 2] = [filter.as_str().split('/').collect(), name.as_str().split('/').collect()];
            // [MQTT-4.7.2-1].
            let hidden = name.as_str().starts_with('$') && ["+", "#"].contains(&levels[0][0]);
            let expected = !hidden && matches(&levels[0], &levels[1]);
            assert_eq!(filter.matches(name), expected, "{filter:?} against {name:?}");
        }
    }
}

fn check_name(text: &str, fault: Option<InvalidTopic>, name: &Result<Topic, InvalidTopic>) {
    assert_eq!(name.as_ref().err().copied(), fault, "name {text:?}");
    let Ok(name) = name else { return };
    assert_eq!([name.as_str(), &name.to_string(), &name.levels().collect::<Vec<_>>().join("/")], [text; 3]);
    assert_eq!(format!("{name:?}"), format!("{text:?}"));
    assert_eq!(name.is_reserved(), text.starts_with('$'));
    let filter = TopicFilter::parse(text).expect("a name is a filter");
    assert!(filter.matches(name), "{name:?} against itself");
}

fn check_filter(text: &str, fault: Option<InvalidTopic>, filter: &Result<TopicFilter, InvalidTopic>) {
    assert_eq!(filter.as_ref().err().copied(), fault, "filter {text:?}");
    let Ok(filter) = filter else { return };
    assert_eq!([filter.as_str(), &filter.to_string(), &filter.levels().collect::<Vec<_>>().join("/")], [text; 3]);
    assert_eq!(format!("{filter:?}"), format!("{text:?}"));
    let mut parts = text.splitn(3, '/');
    let expected = match (parts.next(), parts.next(), parts.next()) {
        // [MQTT-4.8.2-1] [MQTT-4.8.2-2].
        (Some("$share"), Some(group), Some(inner)) if !group.is_empty() && !inner.is_empty() => {
            (!group.contains(['+', '#'])).then_some((group, inner))
        }
        _ => None,
    };
    let shared = filter.shared();
    assert_eq!(shared.as_ref().map(|(group, inner)| (*group, inner.as_str())), expected, "{text:?}");
    if let Some((_, inner)) = shared {
        assert_eq!(TopicFilter::parse(inner.as_str()), Ok(inner));
    }
}

/// What is wrong with a text as a name and as a filter alike; what comes first is reported.
fn fault_of_both(text: &str) -> Option<InvalidTopic> {
    if text.is_empty() {
        Some(InvalidTopic::Empty)
    } else if text.len() > MAX_TOPIC_BYTES {
        Some(InvalidTopic::TooLong)
    } else if text.contains('\0') {
        Some(InvalidTopic::Nul)
    } else if text.split('/').count() > MAX_TOPIC_LEVELS {
        Some(InvalidTopic::TooManyLevels)
    } else {
        None
    }
}

fn fault_of_name(text: &str) -> Option<InvalidTopic> {
    text.contains(['+', '#']).then_some(InvalidTopic::WildcardInName)
}

fn fault_of_filter(text: &str) -> Option<InvalidTopic> {
    let levels: Vec<&str> = text.split('/').collect();
    let last = levels.len() - 1;
    levels.iter().enumerate().find_map(|(index, &level)| match level {
        "+" => None,
        "#" if index == last => None,
        level if level.contains('#') => Some(InvalidTopic::MisplacedHash),
        level if level.contains('+') => Some(InvalidTopic::MisplacedPlus),
        _ => None,
    })
}

/// Whether the levels of a filter match those of a name, `$` aside.
fn matches(filter: &[&str], name: &[&str]) -> bool {
    match (filter, name) {
        (["#"], _) | ([], []) => true,
        ([level, filter @ ..], [own, name @ ..]) if *level == "+" || level == own => matches(filter, name),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_and_filters_are_what_the_specification_says() {
        corpus::check("topics", seeds, topics);
    }

    fn seeds() -> corpus::Seeds {
        let deep = "/".repeat(MAX_TOPIC_LEVELS - 1);
        let too_deep = "/".repeat(MAX_TOPIC_LEVELS);
        let table = [
            ("all-of-sport", "sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon"),
            ("parent", "sport/tennis/#", "sport/tennis"),
            ("one-level", "sport/+/player1", "sport/tennis/player1"),
            ("last-level", "sport/+", "sport/"),
            ("no-last-level", "sport/+", "sport"),
            ("empty-levels", "/+/+", "//x"),
            ("everything", "#", "a/b"),
            ("hidden", "#", "$SYS/monitor"),
            ("hidden-from-plus", "+/monitor/#", "$SYS/monitor/Clients"),
            ("named", "$SYS/+/#", "$SYS/monitor/Clients"),
            ("dollar-below", "+/#", "a/$SYS"),
            ("exact", "Accounts/a b", "Accounts/a b"),
            ("shared", "$share/group/assets/+/vibration", "assets/7/vibration"),
            ("shared-slash", "$share/group//", "/"),
            ("shared-all", "$share/group/#", "$share/group/a"),
            ("shared-no-group", "$share//a", "a"),
            ("shared-no-filter", "$share/group/", "$share/group"),
            ("shared-wildcard-group", "$share/+/a", "a"),
            ("shared-hash", "$share/#", "$share/x/y"),
            ("hash-within", "a/#/b", "a/x/b"),
            ("hash-behind", "a/b#", "a/b"),
            ("hashes", "##", "#"),
            ("plus-behind", "a+/b", "a+/b"),
            ("plus-hash", "+#", "a"),
            ("empty", "", ""),
            ("nul", "a/\0", "\0"),
            ("nul-and-hash", "#/\0", "#\0"),
            ("not-ascii", "Öl/+/°C", "Öl/温度/°C"),
            ("byte-order-mark", "\u{FEFF}a", "\u{FEFF}a"),
            ("not-character", "\u{FFFF}/+", "\u{FFFF}/\u{FFFE}"),
            ("controls", "\u{7}/#", "\u{7}\n\u{1b}"),
            ("deep", &deep, &deep),
            ("too-deep", &too_deep, &too_deep),
        ];
        let seed = |(name, filter, topic): (&str, &str, &str)| (name.to_owned(), format!("{filter}\n{topic}").into());
        let mut seeds: corpus::Seeds = table.into_iter().map(seed).collect();
        seeds.push(("not-utf8".to_owned(), b"a/\xFF\xED\xA0\x80\n\xC0\x80".to_vec()));
        seeds
    }

    #[test]
    fn lengths_are_bounded_where_the_specification_says() {
        for length in [MAX_TOPIC_BYTES, MAX_TOPIC_BYTES + 1] {
            topics(format!("{}\n{}", "a".repeat(length), "a".repeat(length)).as_bytes());
        }
    }
}
