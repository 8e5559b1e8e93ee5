//! Manifests, fuzzed: a component's author writes them, and whoever deploys it reads what is wrong with them.

use serde_json::json;
use vespiary_core::event::EventKey;
use vespiary_core::{Qos, TopicFilter};

use super::manifest::{Action, Hook, HookDeclaration, Manifest, Schedule, parse_name};

/// Takes `bytes` for the manifest section of a component.
///
/// It is refused with one line, or what it says is valid, and says the same when it is written down again.
pub fn manifest(bytes: &[u8]) {
    let manifest = match Manifest::parse(bytes) {
        Ok(manifest) => manifest,
        Err(error) => {
            let text = error.to_string();
            assert!(!text.is_empty() && !text.chars().any(char::is_control), "not one line: {text:?}");
            return;
        }
    };
    assert_eq!(parse_name(&manifest.name.0).as_ref(), Ok(&manifest.name));
    for text in [&manifest.version, &manifest.description] {
        assert!(text.len() <= bytes.len() && !text.chars().any(char::is_control), "{text:?}");
    }
    let filters = manifest.subscribes.iter().map(|(filter, _)| filter).chain(&manifest.publishes);
    for filter in filters {
        assert_eq!(TopicFilter::parse(filter.as_str()).as_ref(), Ok(filter));
        assert_eq!(filter.shared(), None, "a plugin shares nothing");
    }
    let subscription = |(filter, qos): &(TopicFilter, Qos)| json!({ "filter": filter.as_str(), "qos": *qos as u8 });
    let written = json!({
        "manifest": 1,
        "name": &*manifest.name.0,
        "version": manifest.version,
        "description": manifest.description,
        "subscribes": manifest.subscribes.iter().map(subscription).collect::<Vec<_>>(),
        "publishes": manifest.publishes.iter().map(TopicFilter::as_str).collect::<Vec<_>>(),
        "state_version": manifest.state_version,
        "concurrency": { "lanes": manifest.lanes.count, "key": key(manifest.lanes.key) },
        "schedules": manifest.schedules.iter().map(schedule).collect::<Vec<_>>(),
        "secrets": manifest.secrets,
        "http_hosts": manifest.http_hosts.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "disconnects": manifest.disconnects,
        "hooks": manifest.hooks.iter().map(hook).collect::<Vec<_>>(),
    });
    assert_eq!(Manifest::parse(written.to_string().as_bytes()).as_ref(), Ok(&manifest), "{written}");
}

fn key(key: EventKey) -> serde_json::Value {
    match key {
        EventKey::Topic => json!("topic"),
        EventKey::Publisher => json!("client"),
        EventKey::Level(level) => json!({ "level": level }),
    }
}

fn schedule(schedule: &Schedule) -> serde_json::Value {
    let payload = std::str::from_utf8(&schedule.payload).expect("it came as text");
    json!({ "name": schedule.name, "cron": schedule.cron, "payload": payload })
}

fn hook(declaration: &HookDeclaration) -> serde_json::Value {
    let HookDeclaration { hook, filters, methods, actions, priority, deadline_ms, on_failure } = declaration;
    let (priority, on_failure) = (*priority, on_failure.name());
    let mut written =
        json!({ "hook": hook.name(), "priority": priority, "deadline_ms": deadline_ms, "on_failure": on_failure });
    let filters: Vec<&str> = filters.iter().map(TopicFilter::as_str).collect();
    match hook {
        Hook::Authenticate => {}
        Hook::AuthStep => written["methods"] = json!(methods),
        Hook::Authorize => {
            written["filters"] = json!(filters);
            written["actions"] = json!(actions.iter().copied().map(Action::name).collect::<Vec<_>>());
        }
        Hook::InterceptPublish | Hook::InterceptSubscribe | Hook::InterceptDeliver => {
            written["filters"] = json!(filters);
        }
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifests_are_valid_or_refused_with_one_line() {
        corpus::check("manifest", seeds, manifest);
    }

    fn seeds() -> corpus::Seeds {
        let health = r#"{"manifest":1,"name":"asset-health","version":"2.0.0","description":"Learns each asset's normal vibration and reports what departs from it.","subscribes":[{"filter":"assets/+/vibration","qos":1},{"filter":"assets/+/maintained","qos":1},{"filter":"registry/assets/+","qos":1},{"filter":"assets/+/health/query","qos":1}],"publishes":["assets/+/alerts","assets/+/health"]}"#;
        let orders = r#"{"manifest":1,"name":"work-orders","version":"0.1.0","description":"Opens exactly one work order for each fault of each asset.","subscribes":[{"filter":"assets/+/alerts","qos":1},{"filter":"workorders/+/close","qos":1},{"filter":"registry/assets/+","qos":1}],"publishes":["workorders/+","assets/+/maintained"]}"#;
        let table = [
            ("asset-health", health),
            ("work-orders", orders),
            (
                "everything",
                r##"{"manifest":1,"name":"a","version":"0","subscribes":[{"filter":"#","qos":2}],"publishes":["#"]}"##,
            ),
            (
                "platform",
                r#"{"manifest":1,"name":"a","version":"0","state_version":2,"concurrency":{"lanes":4,"key":{"level":1}},"schedules":[{"name":"n","cron":"0 3 * * *","payload":"x"}],"secrets":["t"],"http_hosts":["https://*.a.com","http://[::1]:80"],"disconnects":true,"hooks":[{"hook":"authenticate","on_failure":"allow"},{"hook":"auth-step","methods":["M"]},{"hook":"authorize","actions":["will"]},{"hook":"intercept-publish","filters":["raw/#"],"priority":-1}]}"#,
            ),
            ("least", r#"{"manifest":1,"name":"a","version":""}"#),
            ("empty", ""),
            ("null", "null"),
            ("a-list", r#"[1,"a","1","",[],[]]"#),
            ("next-form", r#"{"manifest":2,"name":"a","other":true}"#),
            ("huge-form", r#"{"manifest":4294967296}"#),
            ("negative-form", r#"{"manifest":-1}"#),
            ("form-twice", r#"{"manifest":1,"manifest":1,"name":"a","version":"1"}"#),
            ("name-twice", r#"{"manifest":1,"name":"a","name":"b","version":"1"}"#),
            ("unknown-field", "{\"manifest\":1,\n\"nam\":1}"),
            ("unknown-field-of-two-lines", r#"{"manifest":1,"a\nb":1}"#),
            ("unknown-field-at-line", r#"{"manifest":1," at line 9":1}"#),
            ("escape-for-a-terminal", r#"{"manifest":1,"name":"a","version":"1","\u001b[2J":1}"#),
            ("wrong-type-with-escape", r#"{"manifest":1,"name":"a","version":"1","publishes":"\u001b\n"}"#),
            ("bad-name", r#"{"manifest":1,"name":"Bad","version":"1"}"#),
            ("name-of-two-lines", r#"{"manifest":1,"name":"a\nb","version":"1"}"#),
            ("controls", r#"{"manifest":1,"name":"a","version":"1\u0007"}"#),
            ("qos-3", r#"{"manifest":1,"name":"a","version":"1","subscribes":[{"filter":"a","qos":3}]}"#),
            ("qos-256", r#"{"manifest":1,"name":"a","version":"1","subscribes":[{"filter":"a","qos":256}]}"#),
            ("qos-real", r#"{"manifest":1,"name":"a","version":"1","subscribes":[{"filter":"a","qos":1.0}]}"#),
            ("bad-filter", r#"{"manifest":1,"name":"a","version":"1","subscribes":[{"filter":"a/#/b","qos":1}]}"#),
            ("filter-with-nul", r#"{"manifest":1,"name":"a","version":"1","publishes":["a\u0000"]}"#),
            ("shared", r#"{"manifest":1,"name":"a","version":"1","publishes":["$share/g/a"]}"#),
            ("half-shared", r#"{"manifest":1,"name":"a","version":"1","publishes":["$share"]}"#),
            ("surrogate", r#"{"manifest":1,"name":"a","version":"\ud800"}"#),
            ("trailing", r#"{"manifest":1,"name":"a","version":"1"} x"#),
            ("nested", &"[".repeat(200)),
            ("nested-unknown", &format!(r#"{{"x":{}"#, "{\"a\":".repeat(150))),
        ];
        let mut seeds: corpus::Seeds = table.map(|(name, text)| (name.to_owned(), text.into())).into();
        seeds.push(("not-utf8".to_owned(), b"{\"manifest\":1,\"name\":\"\xFF\"}".to_vec()));
        seeds
    }
}
