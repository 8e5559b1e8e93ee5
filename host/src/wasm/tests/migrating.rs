//! State in the form of an earlier revision, and migrations that go wrong.

use super::*;

type Migrated = Result<Vec<Vec<(String, Vec<u8>)>>, CallError>;

fn migrate(instance: &mut Instance, keys: &[&str]) -> Migrated {
    let entries: Vec<_> = keys.iter().map(|key| (key.to_string(), b"x".to_vec())).collect();
    instance.migrate(1, &entries)
}

#[test]
fn each_entry_becomes_none_one_or_several() {
    let mut instance = Bed::new().start("migrates");
    let migrated = migrate(&mut instance, &["a", "drop", "split"]).unwrap();
    let keys: Vec<Vec<&str>> =
        migrated.iter().map(|entries| entries.iter().map(|(key, _)| key.as_str()).collect()).collect();
    assert_eq!(keys, [vec!["v1/a"], vec![], vec!["split/a", "split/b"]]);
    assert!(migrated.iter().flatten().all(|(_, value)| value == b"x"));
    assert_eq!(migrate(&mut instance, &[]), Ok(Vec::new()));
}

#[test]
fn a_migration_that_goes_wrong_says_how() {
    let mut instance = Bed::new().start("migrates");
    for (keys, expected) in [
        (&["a", "short"][..], "migrate failed: it gave what becomes of 0 entries, and was handed 2"),
        (&["twice", "again"], r#"migrate failed: it gave the key "same" twice"#),
        (&["long"], "of 513 bytes; 1 to 512 are allowed"),
        // Neither state nor broker are there for a migration.
        (&["error"], "migrate failed: no form for error: Err(Error::Unavailable("),
    ] {
        let error = migrate(&mut instance, keys).unwrap_err();
        assert!(!error.is_fatal() && error.to_string().contains(expected), "{keys:?}: {error}");
    }
    let error = migrate(&mut instance, &["panic"]).unwrap_err();
    assert!(error.is_fatal() && error.to_string().contains("cannot stand the key panic"), "{error}");
    let error = migrate(&mut Bed::new().start("echo"), &["a"]).unwrap_err();
    assert_eq!(error.to_string(), "it does not export `vespiary:plugin/migration@0.1.0`");
}
