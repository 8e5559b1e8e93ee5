//! The export `migration`: entries of an earlier state version in, entries of this one out.

use self::bindings::exports::vespiary::plugin::migration::Entry as HostEntry;
use crate::migration::Entry;
use crate::plugin::Plugin;

/// What `wit-bindgen` makes of the export.
#[expect(missing_docs, reason = "generated; the documentation is in wit/")]
pub mod bindings {
    wit_bindgen::generate!({
        inline: "
            package vespiary:sdk-migration;
            world exporting-migration { export vespiary:plugin/migration@0.1.0; }
        ",
        path: "wit",
        world: "vespiary:sdk-migration/exporting-migration",
        with: { "vespiary:plugin/state@0.1.0": ::vespiary_sdk::__private::guest::bindings::vespiary::plugin::state },
        pub_export_macro: true,
        default_bindings_module: "::vespiary_sdk::__private::guest::migration::bindings",
        runtime_path: "::vespiary_sdk::__private::guest::wit_bindgen::rt",
    });
}

/// Exports `migration`.
#[doc(hidden)]
#[macro_export]
macro_rules! __export_migration {
    ($plugin:expr) => {
        const _: () = {
            use bindings::exports::vespiary::plugin::migration::{Entry, Guest};
            use $crate::__private::guest::migration::{self, bindings};

            struct Component;

            impl Guest for Component {
                fn migrate(
                    from: u32,
                    entries: ::std::vec::Vec<Entry>,
                ) -> ::core::result::Result<::std::vec::Vec<::std::vec::Vec<Entry>>, ::std::string::String> {
                    migration::migrate(&$plugin, from, entries)
                }
            }

    bindings::export!(Component with_types_in bindings);
        };
    };
}

/// `migration.migrate`.
pub fn migrate(plugin: &Plugin, from: u32, entries: Vec<HostEntry>) -> Result<Vec<Vec<HostEntry>>, String> {
    let entries = entries.into_iter().map(|HostEntry { key, value }| Entry { key, value }).collect();
    let migrated = plugin.migrate(from, entries)?;
    let back = |entries: Vec<Entry>| entries.into_iter().map(|Entry { key, value }| HostEntry { key, value }).collect();
    Ok(migrated.into_iter().map(back).collect())
}
