//! Configuration files, whole and wrong.

use super::*;

#[test]
fn an_empty_file_is_the_default() {
    assert_eq!(Config::parse("", Path::new("x")).unwrap(), Config::default());
    Config::default().check().unwrap();
}

#[test]
fn errors_name_file_line_and_column() {
    for (text, expected) in [
        ("[mqtt]\nlisten = \"127.0.0.1:1883\"\nlissten = 1\n", "x.toml:3:1: unknown field `lissten`"),
        ("[mqtt]\nlisten = \"nowhere\"\n", "x.toml:2:10: invalid socket address"),
        ("a = \n", "x.toml:1:5: "),
        ("[plugin.p]\npublishes = [\"a/#/b\"]\n", "\"a/#/b\" is not a topic filter: '#' must be the whole last level"),
        ("[plugins]\ngrants = \"all\"\n", "x.toml:2:10: unknown variant `all`"),
        ("[mqtt]\ntopic_aliases = 65536\n", "x.toml:2:17: invalid value: integer `65536`"),
        (
            "[mqtt]\nshared_subscriptions = \"any\"\n",
            "x.toml:2:24: unknown variant `any`, expected one of `round-robin`",
        ),
        ("[mqtt]\ndenied_subscriptions = [\"a+\"]\n", "x.toml:2:24: \"a+\" is not a topic filter: '+' must be"),
        ("[mqtt]\nserver_reference = \"a:b\"\n", "x.toml:2:20: \"a:b\" does not name a server: write \"host:port\""),
        ("[mqtt]\nresponse_information = \"a/#\"\n", "x.toml:2:24: \"a/#\" is no topic name for clients to append to"),
    ] {
        let error = Config::parse(text, Path::new("x.toml")).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }
}

#[test]
fn a_filter_covers_what_it_contains() {
    for (wide, narrow, expected) in [
        ("#", "a/b", true),
        ("#", "#", true),
        ("#", "$SYS/x", false),
        ("a/#", "a", true),
        ("a/#", "a/+/b", true),
        ("a/+", "a/#", false),
        ("a/+", "a/+", true),
        ("a/b", "a/+", false),
        ("a/b", "#", false),
        ("a/+/c", "a/b/c", true),
        ("a/+/c", "a/b", false),
        ("a", "a/b", false),
        ("$SYS/#", "$SYS/x", true),
        ("+/x", "$SYS/x", false),
    ] {
        let narrow = TopicFilter::parse(narrow).unwrap();
        assert_eq!(Filter(TopicFilter::parse(wide).unwrap()).covers(&narrow), expected, "{wide} covers {narrow}");
    }
}

#[test]
fn a_server_reference_names_servers_as_the_specification_does() {
    for (text, expected) in [
        ("example.org", true),
        ("example.org:1883", true),
        ("192.0.2.1:1883 [2001:db8::1]:8883", true),
        ("[2001:db8::1]", true),
        ("", false),
        ("a  b", false),
        ("a:", false),
        ("a:0", false),
        ("a:65536", false),
        ("2001:db8::1", false),
        ("[nowhere]:1", false),
        ("a/b", false),
    ] {
        let parsed = Config::parse(&format!("[mqtt]\nserver_reference = \"{text}\""), Path::new("x"));
        assert_eq!(parsed.is_ok(), expected, "{text:?}");
    }
}

#[test]
fn nothing_is_opened_to_other_machines_by_accident() {
    for (text, expected) in [
        ("[http]\nlisten = \"0.0.0.0:8080\"", "no authentication"),
        ("[mqtt]\nlisten = \"0.0.0.0:1883\"", "mqtt.allow_anonymous"),
        (
            "[mqtt]\nlisten = \"0.0.0.0:1883\"\nallow_anonymous = true\n[plugins]\ngrants = \"as-requested\"",
            "use \"explicit\"",
        ),
        ("[plugins]\nbatch_events = 0", "plugins.batch_events = 0"),
    ] {
        let error = Config::parse(text, Path::new("x")).unwrap().check().unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn other_machines_mean_explicit_grants() {
    let open = Config::parse("[mqtt]\nlisten = \"0.0.0.0:1883\"\nallow_anonymous = true", Path::new("x")).unwrap();
    open.check().unwrap();
    assert_eq!(open.grant_policy(), GrantPolicy::Explicit);
    let closed = Config::parse("[mqtt]\nlisten = \"0.0.0.0:1883\"\nallow_anonymous = false", Path::new("x")).unwrap();
    closed.check().unwrap();
    assert_eq!((closed.mqtt.allow_anonymous, Config::default().mqtt.allow_anonymous), (Some(false), None));
    assert_eq!(Config::default().grant_policy(), GrantPolicy::AsRequested);
}
