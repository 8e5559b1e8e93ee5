//! Inspecting, compiling and keeping components.

use super::*;

#[test]
fn a_manifest_is_found_inside_of_the_component() {
    for (name, expected) in [("echo", r#""name":"echo""#), ("asks_for_more", r##""subscribes":[{"filter":"#""##)] {
        let manifest = Runtime::inspect(&guest(name)).unwrap().manifest.expect("guests have a manifest");
        let manifest = String::from_utf8(manifest).unwrap();
        assert!(manifest.starts_with(r#"{"manifest":1,"#) && manifest.contains(expected), "{manifest}");
    }
}

#[test]
fn imports_and_exports_are_known_by_name() {
    let inspection = Runtime::inspect(&guest("echo")).unwrap();
    let has = |names: &[String], name: &str| names.iter().any(|known| known == name);
    for name in ["vespiary:plugin/broker@0.1.0", "vespiary:plugin/state@0.1.0"] {
        assert!(has(&inspection.imports, name), "{:?}", inspection.imports);
    }
    for name in ["vespiary:plugin/handler@0.1.0", "vespiary:plugin/lifecycle@0.1.0"] {
        assert!(has(&inspection.exports, name), "{:?}", inspection.exports);
    }
}

#[test]
fn what_cannot_be_a_plugin_is_refused_by_name() {
    let bed = Bed::new();
    for (name, expected) in [
        (
            "no_handler",
            "it exports none of `vespiary:plugin/handler@0.1.0`, `vespiary:plugin/hooks@0.1.0` and \
             `wasi:http/incoming-handler@0.2.0`, so nothing would ever call it",
        ),
        (
            "old_contract",
            "it is made for `vespiary:plugin/lifecycle@0.0.9`, and this broker offers version 0.1 of `vespiary:plugin`; \
             build it anew",
        ),
        ("imports_more", "it imports `acme:machines/gpio@1.0.0`, which the host does not offer to plugins"),
    ] {
        assert_eq!(Runtime::inspect(&guest(name)).unwrap_err().to_string(), expected);
        assert_eq!(bed.compile(name).map(drop).unwrap_err().to_string(), expected);
    }
}

#[test]
fn a_component_that_is_too_large_or_damaged_is_refused() {
    let bytes = guest("echo");
    let bed = Bed::with(WasmLimits { component_bytes: bytes.len() - 1, ..small() });
    let limit_bytes = bytes.len() - 1;
    assert_eq!(bed.compile("echo").map(drop), Err(ComponentError::TooLarge { bytes: bytes.len(), limit_bytes }));
    let bed = Bed::new();
    for cut in [9, bytes.len() / 2, bytes.len() - 1] {
        let failed = bed.runtime.compile(&[0; 32], &bytes[..cut]).map(drop);
        assert!(matches!(failed, Err(ComponentError::Malformed { .. })), "{cut} bytes: {failed:?}");
    }
}

#[test]
fn a_component_that_needs_more_memory_than_it_may_have_is_refused() {
    let bed = Bed::with(WasmLimits { memory_bytes: 1 << 20, ..small() });
    let Err(ComponentError::Compile { reason }) = bed.compile("echo").map(drop) else { panic!("it was compiled") };
    assert!(reason.contains("exceeds the limit of 0x100000 bytes"), "{reason}");
}

/// Counts how often a component is compiled anew, by the time at which its file in the cache was last written.
struct CacheBed {
    directory: tempfile::TempDir,
    bytes: Vec<u8>,
}

impl CacheBed {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), bytes: guest("asks_for_more") }
    }

    fn cache(&self) -> PathBuf {
        self.directory.path().join("cache")
    }

    /// Compiles with these limits in a runtime of its own, and runs what came out.
    fn compile(&self, limits: WasmLimits) {
        let runtime = Runtime::new(limits, &self.cache()).unwrap();
        let compiled = runtime.compile(&Sha256::digest(&self.bytes).into(), &self.bytes).unwrap();
        runtime.instantiate(&compiled, Bed::new().context()).unwrap().init().unwrap();
    }

    fn files(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.cache()).unwrap();
        let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    }
}

#[test]
fn a_compiled_component_is_kept_for_nobody_else_and_found_again() {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    let bed = CacheBed::new();
    bed.compile(small());
    let [file] = &bed.files()[..] else { panic!("{:?}", bed.files()) };
    let first = std::fs::metadata(file).unwrap();
    assert_eq!(first.permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::metadata(bed.cache()).unwrap().permissions().mode() & 0o777, 0o700);
    bed.compile(small());
    assert_eq!(std::fs::metadata(file).unwrap().ino(), first.ino(), "it was compiled again");
}

#[test]
fn other_settings_of_the_engine_do_not_use_each_others_code() {
    let bed = CacheBed::new();
    bed.compile(small());
    bed.compile(WasmLimits { memory_bytes: 128 << 20, ..small() });
    assert_eq!(bed.files().len(), 2);
}

#[test]
fn a_damaged_file_of_the_cache_is_replaced() {
    let bed = CacheBed::new();
    bed.compile(small());
    let file = bed.files().remove(0);
    let good = std::fs::read(&file).unwrap();
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 1;
    for damaged in [&flipped[..], &good[..good.len() - 100], b"", b"short"] {
        std::fs::write(&file, damaged).unwrap();
        bed.compile(small());
        assert_eq!(std::fs::read(&file).unwrap().len(), good.len());
    }
    assert_eq!(bed.files(), [file], "temporary files are left");
}

#[test]
fn code_of_another_engine_under_the_right_name_is_replaced() {
    let bed = CacheBed::new();
    bed.compile(small());
    let file = bed.files().remove(0);
    bed.compile(WasmLimits { memory_bytes: 128 << 20, ..small() });
    let other = bed.files().into_iter().find(|other| *other != file).unwrap();
    std::fs::copy(&other, &file).unwrap();
    bed.compile(small());
    assert_ne!(std::fs::read(&file).unwrap(), std::fs::read(&other).unwrap());
}

#[test]
fn what_is_padded_beyond_the_limit_is_refused() {
    let bed = Bed::new();
    let mut bytes = guest("echo");
    // A custom section of 20 MiB: its length in LEB128, a name of no bytes, and nothing of use.
    bytes.extend([0, 0x81, 0x80, 0x80, 0x0a, 0]);
    bytes.resize(bytes.len() + (20 << 20), 0);
    assert!(Runtime::inspect(&bytes).is_ok(), "only its size is wrong");
    let refused = bed.runtime.compile(&[0; 32], &bytes).map(drop);
    assert_eq!(refused, Err(ComponentError::TooLarge { bytes: bytes.len(), limit_bytes: 16 << 20 }));
}

#[test]
fn an_export_of_another_shape_is_refused_by_name() {
    let bed = Bed::new();
    let compiled = bed.compile("old_shape").unwrap();
    let error = bed.runtime.instantiate(&compiled, bed.context()).map(drop).unwrap_err().to_string();
    let expected =
        "the plugin broke its contract: its `vespiary:plugin/handler@0.1.0` has other types than this broker's: ";
    assert!(error.starts_with(expected), "{error}");
}

#[test]
fn a_component_says_what_it_is_for() {
    let kinds = |name: &str| {
        let inspection = Runtime::inspect(&guest(name)).unwrap();
        [inspection.has_handler(), inspection.has_hooks(), inspection.has_migration(), inspection.has_http()]
    };
    assert_eq!(kinds("echo"), [true, false, false, false]);
    assert_eq!(kinds("decides"), [false, true, false, false]);
    assert_eq!(kinds("migrates"), [true, false, true, false]);
    assert_eq!(kinds("serves"), [false, false, false, true]);
}

#[test]
fn pruning_leaves_what_is_kept_for_this_engine() {
    let bed = CacheBed::new();
    bed.compile(small());
    let file = bed.files().remove(0);
    bed.compile(WasmLimits { memory_bytes: 128 << 20, ..small() });
    std::fs::write(bed.cache().join("0000-0000.cwasm"), b"of a component that is gone").unwrap();
    std::fs::write(bed.cache().join("0000-0000.7.tmp"), b"half").unwrap();
    std::fs::write(bed.cache().join("notes.txt"), b"somebody else's").unwrap();
    let runtime = Runtime::new(small(), &bed.cache()).unwrap();
    assert_eq!(runtime.prune(&[Sha256::digest(&bed.bytes).into()]).unwrap(), 3);
    assert_eq!(bed.files(), [file, bed.cache().join("notes.txt")]);
    assert_eq!(runtime.prune(&[]).unwrap(), 1);
}

#[test]
fn an_idle_instance_costs_less_than_a_mebibyte() {
    let count = 200;
    let bed = Bed::with(WasmLimits { instances: Some(count), ..small() });
    let compiled = bed.compile("echo").unwrap();
    let resident = || {
        let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
        pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
    };
    let before = resident();
    let instances: Vec<_> = (0..count)
        .map(|_| {
            let mut instance = bed.runtime.instantiate(&compiled, bed.context()).unwrap();
            instance.init().unwrap();
            instance.handle(Timestamp(0), MapState::default(), &[event(1, "in/a", "x")]).unwrap();
            instance
        })
        .collect();
    let each = resident().saturating_sub(before) / instances.len();
    assert!(each < 1 << 20, "{each} bytes");
}
