//! The component's side: the host behind the imports, and what the exports call.
//!
//! Only in WebAssembly. The bindings are generated from `wit/`: one world for the imports and one for each export, so that
//! a component exports what its plugin declares and nothing else. Their types do not leave this folder. A component has one
//! thread and one plugin.

pub mod handler;
pub mod hooks;
pub mod http;
mod imports;
pub mod lifecycle;
pub mod migration;

pub use wit_bindgen;

pub(crate) use self::imports::{Imports, SecretHandle, log};

/// What `wit-bindgen` makes of the imports.
#[expect(missing_docs, reason = "generated; the documentation is in wit/")]
pub mod bindings {
    wit_bindgen::generate!({
        path: "wit",
        world: "imports",
        generate_all,
        ownership: Borrowing { duplicate_if_necessary: true },
        default_bindings_module: "::vespiary_sdk::__private::guest::bindings",
        runtime_path: "::vespiary_sdk::__private::guest::wit_bindgen::rt",
    });
}

/// Makes the component's manifest section.
#[doc(hidden)]
#[macro_export]
macro_rules! __embed_manifest {
    ($manifest:expr) => {
        const _: () = {
            #[used]
            #[unsafe(link_section = "vespiary:manifest")]
            static MANIFEST: [u8; $manifest.len()] = match $manifest.first_chunk() {
                ::core::option::Option::Some(bytes) => *bytes,
                ::core::option::Option::None => ::core::unreachable!(),
            };
        };
    };
}
