//! The host's side of `wit/`, generated.

wasmtime::component::bindgen!({
    path: "../wit",
    world: "plugin",
    ownership: Borrowing { duplicate_if_necessary: true },
    imports: { "vespiary:plugin/transaction": trappable },
});
