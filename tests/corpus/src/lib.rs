//! Fuzzing without a fuzzer: a function is run over the files of its corpus and over variants of them, within a test.
//!
//! It knows nothing of coverage, so it finds less than `cargo fuzz` does with the same functions; but it runs with every
//! `cargo test`, on any toolchain, and always with the same inputs. An input that fails is printed so that it can be
//! written to a file of the corpus, where it stays.

use std::fs;
use std::path::{Path, PathBuf};

use fastrand::Rng;

/// Most bytes of a file: what does not fit is not one thing any more, and slows all variants down.
const FILE_BYTES: usize = 4_096;

/// Variants of the corpus that are run if [`RUNS`] does not say.
const DEFAULT_RUNS: u64 = 4_000;

/// The variable that says how many variants are run.
const RUNS: &str = "VESPIARY_FUZZ_RUNS";

/// The variable that decides the variants.
const SEED: &str = "VESPIARY_SEED";

/// The variable with which the seeds are written into the corpus, whatever it holds.
const WRITE: &str = "VESPIARY_WRITE_CORPUS";

/// What a corpus begins with: the name of each file, and its bytes.
pub type Seeds = Vec<(String, Vec<u8>)>;

/// Runs `run` over every file of `fuzz/corpus/TARGET/`, then over variants of them.
///
/// Panics if the folder is missing or empty, if a file is too large, and where `run` does.
pub fn check(target: &str, seeds: impl FnOnce() -> Seeds, run: impl Fn(&[u8])) {
    let folder = root().join("fuzz/corpus").join(target);
    if std::env::var_os(WRITE).is_some() {
        write(&folder, seeds());
    }
    let corpus = read(&folder);
    for (name, bytes) in &corpus {
        watched(&format!("{target}/{name}"), bytes, &run);
    }
    let seed = number(SEED).unwrap_or(0);
    let mut rng = Rng::with_seed(seed);
    for number in 0..number(RUNS).unwrap_or(DEFAULT_RUNS) {
        let variant = vary(&mut rng, &corpus);
        watched(&format!("variant {number} of {target} with {SEED}={seed}"), &variant, &run);
    }
}

/// Runs once; if that panics, the input is printed.
fn watched(name: &str, bytes: &[u8], run: &impl Fn(&[u8])) {
    struct Watch<'a>(&'a str, &'a [u8]);
    impl Drop for Watch<'_> {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("{} failed; its bytes, for `printf '%b'`:\n{}", self.0, octal(self.1));
            }
        }
    }
    let _watch = Watch(name, bytes);
    run(bytes);
}

fn octal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("\\0{byte:03o}")).collect()
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is {text:?}, which is not a number")))
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("a repository").to_path_buf()
}

fn write(folder: &Path, seeds: Seeds) {
    fs::create_dir_all(folder).expect("create the folder");
    for (name, bytes) in seeds {
        fs::write(folder.join(name), bytes).expect("write a seed");
    }
}

/// The files of a folder in the order of their names.
fn read(folder: &Path) -> Seeds {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut corpus: Seeds = entries
        .map(|entry| {
            let path = entry.expect("an entry").path();
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            (name, fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
        })
        .collect();
    assert!(!corpus.is_empty(), "{} is empty", folder.display());
    for (name, bytes) in &corpus {
        assert!(bytes.len() <= FILE_BYTES, "{}/{name} is larger than {FILE_BYTES} bytes", folder.display());
    }
    corpus.sort();
    corpus
}

/// A file of the corpus, changed in one to four places.
fn vary(rng: &mut Rng, corpus: &Seeds) -> Vec<u8> {
    let mut bytes = pick(rng, corpus).to_vec();
    for _ in 0..rng.usize(1..=4) {
        let at = rng.usize(..=bytes.len());
        let to = at + rng.usize(..=(bytes.len() - at).min(16));
        match rng.u8(0..7) {
            // Flip a bit, or replace a byte by one that means something somewhere.
            0 | 1 if at < bytes.len() => bytes[at] ^= 1 << rng.u8(0..8),
            2 if at < bytes.len() => bytes[at] = telling(rng),
            // Cut something out, or cut the end off.
            3 => drop(bytes.drain(at..to)),
            4 => bytes.truncate(at),
            // Repeat what is there, or insert what is not.
            5 => drop(bytes.splice(at..at, bytes[at..to].to_vec())),
            6 => {
                let other = pick(rng, corpus);
                let from = rng.usize(..=other.len());
                bytes.splice(at..to, other[from..].iter().copied());
            }
            _ => bytes.insert(at, telling(rng)),
        }
    }
    bytes.truncate(2 * FILE_BYTES);
    bytes
}

fn pick<'a>(rng: &mut Rng, corpus: &'a Seeds) -> &'a [u8] {
    &corpus[rng.usize(..corpus.len())].1
}

/// A byte at the edge of some range, or any.
fn telling(rng: &mut Rng) -> u8 {
    const TELLING: &[u8] = &[0, 1, 2, 3, 4, 5, 0x10, 0x20, 0x26, 0x7F, 0x80, 0xC0, 0xFF, b'#', b'+', b'/', b'$', b'"'];
    match rng.usize(..=TELLING.len()) {
        any if any == TELLING.len() => rng.u8(..),
        known => TELLING[known],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variants_depend_on_the_seed_alone_and_differ() {
        let corpus = vec![("a".to_owned(), b"some bytes".to_vec()), ("b".to_owned(), Vec::new())];
        let variants = |seed| {
            let mut rng = Rng::with_seed(seed);
            (0..200).map(|_| vary(&mut rng, &corpus)).collect::<Vec<_>>()
        };
        assert_eq!(variants(1), variants(1));
        assert_ne!(variants(1), variants(2));
        let distinct: std::collections::BTreeSet<_> = variants(1).into_iter().collect();
        assert!(distinct.len() > 100, "{}", distinct.len());
    }

    #[test]
    #[should_panic(expected = "no-such-target")]
    fn a_corpus_that_is_missing_is_a_failure() {
        check("no-such-target", Seeds::new, |_| {});
    }
}
