//! The manifest is exactly what the declaration and the listed handlers say.

use vespiary_sdk::prelude::*;

plugin! {
    name: "sample-2",
    description: "Says \"so\\so\".\n",
    handlers: [first, nested::second, again, third],
    publishes: ["a/+/alerts", "b/#"],
}

#[on("a/{x}/{rest..}", qos = 0)]
fn first() {}

mod nested {
    use super::*;

    #[on("+/\"quoted\"/{y}", qos = 2)]
    pub(crate) fn second() {}
}

#[on("a/{other}/#")]
fn again() {}

#[on("a/{x}/{rest..}", qos = 0)]
fn third() {}

#[on("not/listed")]
#[expect(dead_code, reason = "a handler that is not listed is not part of the plugin")]
fn unlisted() {}

#[test]
fn the_manifest_is_derived_from_the_listed_handlers() {
    assert_eq!(
        plugin().manifest(),
        concat!(
            r#"{"manifest":1,"name":"sample-2","version":""#,
            env!("CARGO_PKG_VERSION"),
            r#"","description":"Says \"so\\so\".\u000a","subscribes":[{"filter":"a/+/#","qos":1},"#,
            r#"{"filter":"+/\"quoted\"/+","qos":2}],"publishes":["a/+/alerts","b/#"]}"#
        )
    );
    let parsed: serde_json::Value = serde_json::from_str(plugin().manifest()).unwrap();
    assert_eq!(parsed["description"], "Says \"so\\so\".\n");
}

#[test]
fn what_is_left_out_is_the_crates_or_empty() {
    mod bare {
        use vespiary_sdk::prelude::*;
        plugin! { name: "bare", handlers: [nothing] }
        #[on("a")]
        fn nothing() {}
    }
    mod versioned {
        use vespiary_sdk::prelude::*;
        plugin! { name: "bare", version: "2.0.0-rc.1", handlers: [nothing] }
        #[on("a")]
        fn nothing() {}
    }
    let manifest: serde_json::Value = serde_json::from_str(bare::plugin().manifest()).unwrap();
    assert_eq!(manifest["description"], env!("CARGO_PKG_DESCRIPTION"));
    assert_eq!(manifest["publishes"], json!([]));
    assert_eq!(bare::plugin().version(), env!("CARGO_PKG_VERSION"));
    assert_eq!(versioned::plugin().version(), "2.0.0-rc.1");
    assert!(versioned::plugin().manifest().contains(r#""version":"2.0.0-rc.1""#));
}
