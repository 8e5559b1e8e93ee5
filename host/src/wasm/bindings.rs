//! The host's side of `wit/`, generated: everything that a component may import, and everything that it may export.

wasmtime::component::bindgen!({
    path: "../wit",
    inline: "
        package vespiary:host@0.1.0;

        world everything {
            include vespiary:plugin/imports@0.1.0;
            export vespiary:plugin/lifecycle@0.1.0;
            export vespiary:plugin/handler@0.1.0;
            export vespiary:plugin/hooks@0.1.0;
            export vespiary:plugin/migration@0.1.0;
        }
    ",
    world: "vespiary:host/everything",
    ownership: Borrowing { duplicate_if_necessary: true },
    imports: {
        "vespiary:plugin/transaction": trappable,
        "vespiary:plugin/secrets": trappable,
    },
    with: { "vespiary:plugin/secrets.secret": crate::wasm::host::secrets::GrantedSecret },
});
