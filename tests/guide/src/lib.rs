//! The Rust blocks of `docs/guide/` and of `README.md`, each compiled and run by itself as a documentation test of this crate.
//!
//! Not in the SDK, which `vespiary new` copies into crates that have no guide beside them. Shell, configuration and manifests of
//! the guide are checked by the command line's own tests, in `host/src/cli/guide.rs`.

/// Declares the pages, and which there are.
macro_rules! pages {
    ($($page:ident = $file:literal;)+) => {
        $(
            #[cfg(doctest)]
            #[doc = include_str!(concat!("../../../docs/guide/", $file))]
            pub struct $page;
        )+

        /// Files of the pages whose blocks are compiled.
        #[cfg(test)]
        const PAGES: &[&str] = &[$($file),+];
    };
}

pages! {
    AdminApi = "admin-api.md";
    AssetManagement = "asset-management.md";
    Configuration = "configuration.md";
    FirstPlugin = "first-plugin.md";
    Hooks = "hooks.md";
    HotSwapAndMigration = "hot-swap-and-migration.md";
    Http = "http.md";
    Languages = "languages.md";
    LimitsAndGrants = "limits-and-grants.md";
    Index = "README.md";
    Readme = "../../README.md";
    Reference = "reference.md";
    Signing = "signing.md";
    StateAndTransactions = "state-and-transactions.md";
    Testing = "testing.md";
    Wit = "wit.md";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::{Path, PathBuf};

    use super::PAGES;

    fn guide() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/guide")
    }

    fn page(file: &str) -> String {
        fs::read_to_string(guide().join(file)).unwrap()
    }

    #[test]
    fn every_page_of_the_guide_is_compiled() {
        let files = fs::read_dir(guide()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let files: BTreeSet<String> = files.filter(|file| file.ends_with(".md")).collect();
        let compiled = PAGES.iter().filter(|file| !file.contains('/'));
        assert_eq!(files, compiled.map(|file| (*file).to_owned()).collect());
    }

    /// A block that rustdoc passes over would say what nobody has checked.
    #[test]
    fn every_block_says_what_it_is_and_no_rust_is_left_out() {
        let known = ["rust", "sh", "toml", "json", "text"];
        let mut rust = 0;
        for file in PAGES {
            let text = page(file);
            let fences = text.lines().enumerate().filter_map(|(at, line)| Some((at, line.trim().strip_prefix("```")?)));
            for (number, (at, language)) in fences.enumerate() {
                let expected = if number % 2 == 0 { known.contains(&language) } else { language.is_empty() };
                assert!(expected, "{file}:{}: a block of {language:?} is none of {known:?}", at + 1);
                rust += usize::from(language == "rust");
            }
        }
        assert!(rust >= 18, "{rust} blocks of Rust were found");
    }

    #[test]
    fn the_first_plugin_is_what_vespiary_new_writes() {
        let template = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../sdk/template-event/src/lib.rs.template");
        let written = fs::read_to_string(template).unwrap().replace("{{name}}", "night-watch");
        assert!(page("first-plugin.md").contains(&format!("```rust\n{written}```\n")), "it differs from:\n{written}");
    }

    #[test]
    fn links_between_pages_lead_to_pages_and_headings() {
        for file in PAGES {
            for (_, target) in page(file).match_indices("](").map(|(at, _)| (at, page(file)[at + 2..].to_owned())) {
                let target = target.split(')').next().unwrap_or_default();
                if target.starts_with("http") {
                    continue;
                }
                let (path, heading) = target.split_once('#').unwrap_or((target, ""));
                let page = guide().join(file);
                let path = if path.is_empty() { page } else { page.parent().unwrap().join(path) };
                assert!(path.exists(), "{file}: {target} is not there");
                if !heading.is_empty() {
                    let text = fs::read_to_string(&path).unwrap();
                    let headings: Vec<String> =
                        text.lines().filter_map(|line| Some(anchor(line.strip_prefix('#')?))).collect();
                    assert!(headings.iter().any(|other| other == heading), "{file}: {target} is none of {headings:?}");
                }
            }
        }
    }

    /// What a heading is linked by, as GitHub makes it.
    fn anchor(heading: &str) -> String {
        let text = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = text.chars().filter(|one| one.is_alphanumeric() || [' ', '-', '_'].contains(one));
        kept.map(|one| if one == ' ' { '-' } else { one }).collect()
    }
}
