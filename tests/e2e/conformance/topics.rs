//! Topic names, topic filters and which matches which (section 4.7).

use super::LEVELS;
use super::packets::{Connect, packet, publish, string, subscribe};
use super::peer::Peer;
use crate::harness::Broker;

/// Publishes to each topic; the filter sees those that are marked, and no other.
#[track_caller]
fn check_matches(level: u8, filter: &str, topics: &[(&str, bool)]) {
    let mut peer = Peer::new(level, &super::unique("topics"));
    peer.subscribe(filter, 0);
    for (topic, matches) in topics {
        peer.send(&publish(level, 0x30, topic, 0, topic.as_bytes()));
        if *matches {
            peer.expect_publish(topic, topic.as_bytes());
        }
        peer.expect_silence();
    }
}

#[test]
fn a_hash_matches_the_rest_and_its_parent() {
    for level in LEVELS {
        let root = format!("topics/hash/{level}");
        let [parent, child, deep, empty, near, other] =
            ["", "/ranking", "/score/wimbledon", "/", "x", "/../other"].map(|end| format!("{root}{end}"));
        check_matches(
            level,
            &format!("{root}/#"),
            &[(&parent, true), (&child, true), (&deep, true), (&empty, true), (&near, false), (&other, true)],
        );
    }
}

#[test]
fn a_plus_matches_one_level() {
    for level in LEVELS {
        let root = format!("topics-plus/a/{level}");
        let [none, empty, one, two] = ["", "/", "/a", "/a/b"].map(|end| format!("{root}{end}"));
        check_matches(level, &format!("{root}/+"), &[(&none, false), (&empty, true), (&one, true), (&two, false)]);
        let [short, middle, long] = ["/c", "/a/c", "/a/b/c"].map(|end| format!("{root}{end}"));
        check_matches(level, &format!("{root}/+/c"), &[(&short, false), (&middle, true), (&long, false)]);
        check_matches(level, &format!("topics-plus/+/{level}/+/#"), &[(&none, false), (&one, true), (&two, true)]);
    }
}

#[test]
fn levels_may_be_empty_and_count() {
    for level in LEVELS {
        check_matches(level, "/topics-finance", &[("/topics-finance", true), ("topics-finance", false)]);
        check_matches(level, "+/topics-finance", &[("/topics-finance", true), ("topics-finance", false)]);
        check_matches(level, "topics-empty//+", &[("topics-empty//a", true), ("topics-empty/a", false)]);
    }
}

#[test]
fn wildcards_at_the_first_level_leave_a_dollar_alone() -> anyhow::Result<()> {
    // A broker of its own: these filters match what other tests publish.
    let directory = tempfile::tempdir()?;
    let broker = Broker::start(&directory.path().join("data"))?;
    for level in LEVELS {
        let (mut peer, _) = Peer::join_at(broker.mqtt, &Connect::new(level, "watcher"));
        for filter in ["#", "+/x", "+/#"] {
            peer.subscribe(filter, 0);
        }
        let (mut sender, _) = Peer::join_at(broker.mqtt, &Connect::new(level, "sender"));
        sender.send(&publish(level, 0x31, "$SYS/x", 0, b"reserved"));
        sender.send(&publish(level, 0x31, "$x", 0, b"reserved"));
        sender.publish_acknowledged("marker", b"x");
        peer.expect_publish("marker", b"x");
        peer.expect_silence();
    }
    Ok(())
}

#[test]
fn filters_with_misplaced_wildcards_are_refused() {
    for (level, refused) in [(4, 0x80), (5, 0x8F)] {
        let mut peer = Peer::new(level, &format!("topics-misplaced-{level}"));
        for filter in ["a#", "a/#/b", "#/a", "a/b#", "##", "a+", "+a", "a/+b/c", "a/b+/c", "++", "#+", "+#"] {
            peer.send(&subscribe(level, 1, &[(filter, 1)]));
            assert_eq!(peer.reasons(0x90, 1), [refused], "{filter}");
        }
        for filter in
            ["topics-placed/#", "topics-placed/+", "topics-placed/+/#", "+/topics-placed/+", "topics-placed//#"]
        {
            peer.send(&subscribe(level, 1, &[(filter, 1)]));
            assert_eq!(peer.reasons(0x90, 1), [1], "{filter}");
        }
    }
}

#[test]
fn nothing_is_normalized() {
    for level in LEVELS {
        let root = format!("topics/exact/{level}");
        let exact = format!("{root}/\u{e5}");
        let others = [
            format!("{root}/a\u{30a}"), // the same letter, decomposed
            format!("{root}/\u{c5}"),   // upper case
            format!("{root}/\u{e5}/"),  // a level more
            format!("{root}//\u{e5}"),  // an empty level more
            format!("{root}/ \u{e5}"),  // a space
            format!("{root}/./\u{e5}"), // a path
            format!("{root}/%C3%A5"),   // an escape
            format!("{root}/\u{212b}"), // another code point of the same look
        ];
        let mut topics: Vec<(&str, bool)> = others.iter().map(|topic| (&topic[..], false)).collect();
        topics.push((&exact, true));
        check_matches(level, &exact, &topics);
        // All of them are topics, and arrive byte for byte.
        let topics: Vec<(&str, bool)> = others.iter().map(|topic| (&topic[..], true)).collect();
        check_matches(level, &format!("{root}/#"), &topics);
    }
}

#[test]
fn topics_and_filters_have_at_least_one_character() {
    for level in LEVELS {
        let mut peer = Peer::new(level, &super::unique("topics-empty"));
        peer.send(&publish(level, 0x30, "", 0, b"x"));
        peer.expect_disconnect(&[0x82]);
        let mut peer = Peer::new(level, &super::unique("topics-empty"));
        peer.send(&subscribe(level, 1, &[("", 0)]));
        peer.expect_disconnect(&[0x81, 0x82, 0x8F]);
        check_matches(level, "/", &[("/", true)]);
    }
}

#[test]
fn characters_that_are_allowed_arrive() {
    // Control characters and non-characters may be refused (section 1.5.4), and need not be; these may not.
    for level in LEVELS {
        let root = format!("topics/allowed/{level}");
        let topics = ["a b", "A", "\u{4e2d}", "\u{10ffff}", "\u{1F41D}", "!\"\\%&'()*,-.:;<=>?@[]^_`{|}~", "$x"];
        for name in topics {
            let topic = format!("{root}/{name}");
            check_matches(level, &topic, &[(&topic, true)]);
            let mut peer = Peer::new(level, &super::unique("topics-allowed"));
            peer.subscribe(&format!("{root}/+"), 0);
            let body = [&string(&topic)[..], if level == 5 { &[0] } else { &[] }].concat();
            peer.send(&packet(0x30, &body));
            peer.expect_publish(&topic, b"");
        }
    }
}
