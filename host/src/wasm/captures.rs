//! What the wildcards of a plugin's filters stand for in a topic.

use vespiary_core::topic::{Topic, TopicFilter};

/// The captures of several topics, without an allocation where nothing is captured.
#[derive(Debug, Default)]
pub(super) struct Captures<'a> {
    /// All captures, topic by topic.
    levels: Vec<&'a str>,
    /// Where those of each topic end; empty as long as no topic has any.
    ends: Vec<usize>,
}

impl<'a> Captures<'a> {
    /// The captures of each topic, by the first of the filters that matches it.
    pub(super) fn of(filters: &[TopicFilter], topics: impl Iterator<Item = &'a Topic>) -> Self {
        let mut captures = Self::default();
        if filters.iter().all(|filter| !filter.as_str().ends_with(['+', '#']) && !filter.as_str().contains("+/")) {
            return captures;
        }
        for topic in topics {
            let begin = captures.levels.len();
            // A filter that does not match may have captured something before it was clear.
            let matches = |filter: &&TopicFilter| {
                captures.levels.truncate(begin);
                capture(filter.as_str(), topic, &mut captures.levels)
            };
            if filters.iter().find(matches).is_none() {
                captures.levels.truncate(begin);
            }
            captures.ends.push(captures.levels.len());
        }
        captures
    }

    /// Those of one topic, by its place.
    pub(super) fn get(&self, place: usize) -> &[&'a str] {
        let Some(&end) = self.ends.get(place) else { return &[] };
        let begin = if place == 0 { 0 } else { self.ends[place - 1] };
        &self.levels[begin..end]
    }
}

/// Whether a filter matches, as [`TopicFilter::matches`]; notes what its wildcards stand for.
fn capture<'a>(filter: &str, topic: &'a Topic, levels: &mut Vec<&'a str>) -> bool {
    let mut rest = Some(topic.as_str());
    for (place, level) in filter.split('/').enumerate() {
        let reserved = place == 0 && topic.is_reserved();
        if level == "#" {
            levels.extend(rest);
            return !reserved;
        }
        let Some(text) = rest else { return false };
        let (name, further) = match text.split_once('/') {
            Some((name, further)) => (name, Some(further)),
            None => (text, None),
        };
        match level {
            "+" if !reserved => levels.push(name),
            level if level == name => {}
            _ => return false,
        }
        rest = further;
    }
    rest.is_none()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn wildcards_stand_for_levels_and_the_first_filter_counts() {
        let check = |filters: &[&str], topic: &str, expected: &[&str]| {
            let filters: Vec<_> = filters.iter().map(|filter| TopicFilter::parse(filter).unwrap()).collect();
            let topic = Topic::parse(topic).unwrap();
            assert_eq!(Captures::of(&filters, std::iter::once(&topic)).get(0), expected, "{filters:?} {topic}");
        };
        check(&["assets/+/vibration"], "assets/7/vibration", &["7"]);
        check(&["+/+/#"], "a/b/c/d", &["a", "b", "c/d"]);
        check(&["a/#"], "a", &[]);
        check(&["a/#"], "a/", &[""]);
        check(&["#"], "a/b", &["a/b"]);
        check(&["#"], "$clients/a", &[]);
        check(&["$clients/+/connected"], "$clients/a/connected", &["a"]);
        check(&["a/+/x", "a/#"], "a/b/c", &["b/c"]);
        check(&["a/b", "a/+"], "a/b", &[]);
        check(&["a/+", "a/b"], "a/b", &["b"]);
        check(&["a/+"], "other", &[]);
        check(&[], "other", &[]);
    }

    #[test]
    fn each_topic_has_its_own() {
        let filters = [TopicFilter::parse("a/+").unwrap(), TopicFilter::parse("b/+/+").unwrap()];
        let topics = ["a/1", "c", "b/2/3"].map(|topic| Topic::parse(topic).unwrap());
        let captures = Captures::of(&filters, topics.iter());
        assert_eq!((captures.get(0), captures.get(1), captures.get(2)), (&["1"][..], &[][..], &["2", "3"][..]));
        assert_eq!(Captures::of(&[], topics.iter()).get(2), &[] as &[&str]);
    }

    proptest! {
        #[test]
        fn a_filter_captures_where_it_matches(
            filter in "(\\$?[ab]?|\\+)(/(a|b||\\+)){0,3}(/#)?", topic in "\\$?[ab]?(/[ab]?){0,4}",
        ) {
            if let (Ok(filter), Ok(topic)) = (TopicFilter::parse(&filter), Topic::parse(&topic)) {
                prop_assert_eq!(capture(filter.as_str(), &topic, &mut Vec::new()), filter.matches(&topic));
            }
        }
    }
}
