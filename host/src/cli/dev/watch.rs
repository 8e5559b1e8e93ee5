//! Which files a component is made of, and that one of them was saved.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};

use super::is_source;

/// Watches directories; files come and go in them, also where an editor saves by renaming.
pub(super) struct Watch {
    watcher: RecommendedWatcher,
    watched: BTreeSet<PathBuf>,
}

impl Watch {
    /// Watches a crate; `changed` is called, from a thread, whenever something in it was written.
    pub(super) fn new(directory: &Path, changed: impl Fn() + Send + 'static) -> anyhow::Result<Self> {
        let on_event = move |event: notify::Result<notify::Event>| {
            // An error may be that events were lost: better one build too many.
            if event.as_ref().map_or(true, is_a_save) {
                changed();
            }
        };
        let watcher = notify::recommended_watcher(on_event).context("cannot watch files")?;
        let mut watch = Self { watcher, watched: BTreeSet::new() };
        watch.directory(directory, RecursiveMode::NonRecursive)?;
        let sources = directory.join("src");
        if sources.is_dir() {
            watch.directory(&sources, RecursiveMode::Recursive)?;
        }
        Ok(watch)
    }

    /// Watches whatever else a component was made of, which cargo says in a file beside it.
    pub(super) fn sources_of(&mut self, component: &Path) -> anyhow::Result<()> {
        let listed = std::fs::read_to_string(component.with_extension("d")).unwrap_or_default();
        for file in sources(&listed) {
            if let Some(directory) = file.parent().filter(|directory| directory.is_dir()) {
                self.directory(directory, RecursiveMode::NonRecursive)?;
            }
        }
        Ok(())
    }

    fn directory(&mut self, directory: &Path, mode: RecursiveMode) -> anyhow::Result<()> {
        let whole = directory.canonicalize().with_context(|| format!("cannot watch {}", directory.display()))?;
        if self.watched.contains(&whole) {
            return Ok(());
        }
        self.watcher.watch(&whole, mode).with_context(|| format!("cannot watch {}", directory.display()))?;
        if mode == RecursiveMode::Recursive {
            self.within(&whole);
        }
        self.watched.insert(whole);
        Ok(())
    }

    /// Notes the directories within one that is watched with all in it, so that none is watched twice.
    fn within(&mut self, directory: &Path) {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                self.within(&entry.path());
                self.watched.insert(entry.path());
            }
        }
    }
}

fn is_a_save(event: &notify::Event) -> bool {
    let written = match event.kind {
        EventKind::Create(_) | EventKind::Remove(_) | EventKind::Any | EventKind::Other => true,
        EventKind::Modify(what) => !matches!(what, notify::event::ModifyKind::Metadata(_)),
        // The compiler reads.
        EventKind::Access(_) => false,
    };
    written && (event.paths.is_empty() || event.paths.iter().any(|path| is_source(path)))
}

/// The files of a dependency list as make has it: `TARGET: FILE FILE`, with `\ ` for a space.
fn sources(listed: &str) -> Vec<PathBuf> {
    let files = listed.lines().next().and_then(|line| line.split_once(": ")).map_or("", |(_, files)| files);
    let spaces_marked = files.replace("\\ ", "\0");
    spaces_marked
        .split(' ')
        .filter(|file| !file.is_empty())
        .map(|file| PathBuf::from(file.replace('\0', " ")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_a_component_are_read_from_what_cargo_lists() {
        let listed = "/t/a.wasm: /src/lib.rs /with\\ space/b.rs /src/c.rs\n";
        let expected = ["/src/lib.rs", "/with space/b.rs", "/src/c.rs"].map(PathBuf::from);
        assert_eq!(sources(listed), expected);
        assert!(sources("").is_empty());
    }

    #[test]
    fn a_save_is_told_and_reading_is_not() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("src")).unwrap();
        let file = directory.path().join("src/lib.rs");
        std::fs::write(&file, "one").unwrap();
        let (sender, changes) = std::sync::mpsc::channel();
        let _watch = Watch::new(directory.path(), move || sender.send(()).unwrap_or(())).unwrap();
        std::fs::read(&file).unwrap();
        std::fs::write(directory.path().join("Cargo.lock"), "cargo's own").unwrap();
        std::fs::write(directory.path().join("src/.lib.rs.swp"), "an editor's own").unwrap();
        // Each of these would have been told before the next is: events come in order.
        std::fs::write(directory.path().join("src/.marker"), "").unwrap();
        std::fs::rename(directory.path().join("src/.marker"), directory.path().join("src/new.rs")).unwrap();
        changes.recv_timeout(std::time::Duration::from_secs(30)).unwrap();
        std::fs::write(&file, "two").unwrap();
        changes.recv_timeout(std::time::Duration::from_secs(30)).unwrap();
    }
}
