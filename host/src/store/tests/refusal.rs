//! Directories that are not to be opened, are opened with care, or hold what a crash left.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use redb::Database;

use super::model::Model;
use super::{commit_and_close, one_of_each, open};
use crate::store::{Store, StoreError, StoreOptions, tables};
use vespiary_core::event::ChangeNumber;

fn open_error(directory: &Path) -> StoreError {
    Store::open(directory, &StoreOptions::default()).expect_err("the directory should have been refused")
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn a_directory_is_made_private_and_made_so_again() {
    let parent = tempfile::tempdir().unwrap();
    let data = parent.path().join("deep/data");
    drop(open(&data));
    for path in [&data, &data.join("components")] {
        assert_eq!(mode(path), 0o700, "{}", path.display());
        fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
    }
    drop(open(&data));
    assert_eq!(mode(&data), 0o700);
    assert_eq!(mode(&data.join("components")), 0o700);
    assert_eq!(mode(&data.join("vespiary.redb")), 0o600);
}

#[test]
fn a_directory_in_use_is_refused_naming_it_and_the_process() {
    let data = tempfile::tempdir().unwrap();
    let opened = open(data.path());
    let expected =
        format!("data directory {} is in use by another process (pid {})", data.path().display(), std::process::id());
    assert_eq!(open_error(data.path()).to_string(), expected);
    drop(opened);
    drop(open(data.path()));
}

#[test]
fn a_newer_format_is_refused_naming_both_versions_and_left_as_it_is() {
    let data = tempfile::tempdir().unwrap();
    drop(open(data.path()));
    let file = data.path().join("vespiary.redb");
    let database = Database::open(&file).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(tables::META).unwrap().insert(tables::META_FORMAT_VERSION, 7).unwrap();
    transaction.commit().unwrap();
    database.close().unwrap();
    for _ in 0..2 {
        let error = open_error(data.path());
        assert!(matches!(error, StoreError::Newer { found: 7, supported: tables::FORMAT_VERSION, .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains(&data.path().display().to_string()), "{text}");
        assert!(text.contains("version 7") && text.contains("version 4:"), "{text}");
    }
}

#[test]
fn a_database_of_something_else_is_refused() {
    let data = tempfile::tempdir().unwrap();
    let database = Database::create(data.path().join("vespiary.redb")).unwrap();
    database.close().unwrap();
    let error = open_error(data.path());
    assert!(error.to_string().contains("it has no format version"), "{error}");
}

#[test]
fn a_torn_file_is_reported_and_left_as_it_is() {
    let data = tempfile::tempdir().unwrap();
    let file = data.path().join("vespiary.redb");
    commit_and_close(open(data.path()), [one_of_each()]);
    let whole = fs::read(&file).unwrap();
    for length in [0, 1, 100, 4096, whole.len() / 2, whole.len() - 1] {
        fs::write(&file, &whole[..length]).unwrap();
        let error = open_error(data.path());
        assert!(matches!(error, StoreError::Damaged { .. }), "cut to {length} bytes: {error:?}");
        assert!(error.to_string().contains(&file.display().to_string()), "{error}");
        assert_eq!(fs::read(&file).unwrap(), &whole[..length], "cut to {length} bytes");
    }
    fs::write(&file, b"this is not a database, it only has its name ".repeat(1000)).unwrap();
    assert!(matches!(open_error(data.path()), StoreError::Damaged { .. }));
}

#[test]
fn altered_bytes_are_reported_or_do_no_harm() {
    let data = tempfile::tempdir().unwrap();
    let file = data.path().join("vespiary.redb");
    let model = Model::of(&one_of_each());
    commit_and_close(open(data.path()), [one_of_each()]);
    let whole = fs::read(&file).unwrap();
    let (mut reported, mut harmless) = (0, 0);
    let mut random = fastrand::Rng::with_seed(5);
    let header = (0..320).step_by(3);
    let anywhere: Vec<usize> = (0..150).map(|_| random.usize(0..whole.len())).collect();
    for offset in header.chain(anywhere) {
        let mut altered = whole.clone();
        altered[offset] ^= random.u8(1..);
        fs::write(&file, &altered).unwrap();
        match Store::open(data.path(), &StoreOptions::default()) {
            Ok(opened) => {
                model.check(&opened);
                harmless += 1;
            }
            Err(error @ (StoreError::Damaged { .. } | StoreError::Database { .. })) => {
                assert!(error.to_string().contains(&file.display().to_string()), "{error}");
                reported += 1;
            }
            Err(error) => panic!("byte {offset}: {error}"),
        }
    }
    assert!(reported > 20 && harmless > 20, "{reported} reported, {harmless} harmless");
    let mut altered = whole;
    altered[0] ^= 1;
    fs::write(&file, &altered).unwrap();
    assert!(matches!(open_error(data.path()), StoreError::Damaged { .. }));
    assert_eq!(fs::read(&file).unwrap(), altered);
}

#[test]
fn what_a_crash_left_half_made_is_removed() {
    let data = tempfile::tempdir().unwrap();
    fs::create_dir(data.path().join("components")).unwrap();
    let left = [data.path().join("vespiary.redb.new"), data.path().join("components/00ff.3.tmp")];
    for path in &left {
        fs::write(path, b"half").unwrap();
    }
    let opened = open(data.path());
    assert_eq!(opened.changes, []);
    for path in &left {
        assert!(!path.exists(), "{}", path.display());
    }
}

#[test]
fn components_are_kept_by_digest_and_verified() {
    let data = tempfile::tempdir().unwrap();
    let opened = open(data.path());
    let components = opened.store.components();
    assert_eq!(components.list().unwrap(), Vec::<[u8; 32]>::new());
    let (one, two) = (components.put(b"one").unwrap(), components.put(b"two").unwrap());
    assert_eq!(components.put(b"one").unwrap(), one);
    let mut expected = vec![one, two];
    expected.sort_unstable();
    assert_eq!(components.list().unwrap(), expected);
    assert_eq!(components.get(&one).unwrap().as_deref(), Some(&b"one"[..]));
    assert_eq!(components.get(&[0; 32]).unwrap(), None);
    // SHA-256 of "two".
    let name = "3fc4ccfe745870e2c0d99f71f30ff0656c8dedd41cc1d7d3d376b0dbe685e2f3.wasm";
    let file = data.path().join("components").join(name);
    assert_eq!(fs::read(&file).unwrap(), b"two");

    fs::write(&file, b"twO").unwrap();
    let error = components.get(&two).unwrap_err();
    assert!(matches!(error, StoreError::ComponentDamaged { .. }), "{error}");
    assert!(error.to_string().contains(name), "{error}");
    // Putting it again mends it.
    components.put(b"two").unwrap();
    assert_eq!(components.get(&two).unwrap().as_deref(), Some(&b"two"[..]));
    assert!(components.remove(&two).unwrap());
    assert!(!components.remove(&two).unwrap());
    assert_eq!(components.list().unwrap(), [one]);
    assert_eq!(fs::read_dir(data.path().join("components")).unwrap().count(), 1);
}

#[test]
fn a_log_that_is_damaged_missing_or_without_its_database_is_reported_and_left_as_it_is() {
    type Damage<'a> = (&'a dyn Fn(&Path), &'a str, &'a str);
    let damages: [Damage<'_>; 3] = [
        (
            &|data| {
                let file = data.join("vespiary.wal.0");
                let mut bytes = fs::read(&file).unwrap();
                bytes[42] ^= 1;
                fs::write(&file, bytes).unwrap();
            },
            "vespiary.wal.0",
            "at byte 0: ",
        ),
        (&|data| fs::remove_file(data.join("vespiary.wal.1")).unwrap(), "vespiary.wal.1", "is missing"),
        (
            &|data| fs::remove_file(data.join("vespiary.redb")).unwrap(),
            "vespiary.redb",
            "the file is missing, and its log",
        ),
    ];
    for (damage, file, expected) in damages {
        let (data, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let opened = open(data.path());
        for number in 1..=3 {
            opened.store.commit(&mut vec![super::state(1, "k", Some(&[number]))], ChangeNumber(number.into()));
            super::wait(&opened.store, ChangeNumber(number.into()));
        }
        // As a crash leaves it.
        for name in ["vespiary.redb", "vespiary.wal.0", "vespiary.wal.1"] {
            fs::copy(data.path().join(name), copy.path().join(name)).unwrap();
        }
        damage(copy.path());
        let listed = || {
            let names = ["vespiary.redb", "vespiary.wal.0", "vespiary.wal.1"].map(|name| copy.path().join(name));
            names.map(|path| fs::read(path).ok())
        };
        let before = listed();
        for _ in 0..2 {
            let text = open_error(copy.path()).to_string();
            assert!(text.contains(&copy.path().join(file).display().to_string()), "{text}");
            assert!(text.contains(expected) && text.contains("left as it is"), "{text}");
            assert_eq!(listed()[1..], before[1..], "{file}");
        }
    }
}
