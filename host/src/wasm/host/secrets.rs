//! `secrets`: values that nobody should see by accident.

use std::sync::Arc;

use wasmtime::component::Resource;

use super::HostState;
use crate::wasm::bindings::vespiary::plugin::secrets;
use crate::wasm::context::Secret;

/// What a guest's handle stands for.
#[expect(unreachable_pub, reason = "the generated bindings re-export it")]
pub struct GrantedSecret {
    /// The name under which it is blotted out.
    name: Arc<str>,
    /// The value.
    secret: Secret,
}

impl secrets::Host for HostState {
    fn get(&mut self, name: String) -> wasmtime::Result<Result<Resource<GrantedSecret>, secrets::Error>> {
        let Some(granted) = self.secrets.get(&name) else {
            let reason = format!("the plugin is not granted the secret {name:?}");
            return Ok(Err(secrets::Error::Denied(self.deny("secret", reason))));
        };
        let Some(secret) = granted.clone() else {
            let reason = format!("the secret {name:?} is granted and not configured");
            return Ok(Err(secrets::Error::Missing(reason)));
        };
        Ok(Ok(self.table.push(GrantedSecret { name: name.into(), secret })?))
    }
}

impl secrets::HostSecret for HostState {
    fn reveal(&mut self, secret: Resource<GrantedSecret>) -> wasmtime::Result<String> {
        let GrantedSecret { name, secret } = self.table.get(&secret)?;
        self.log.conceal(name, secret.reveal());
        Ok(secret.reveal().to_string())
    }

    fn drop(&mut self, secret: Resource<GrantedSecret>) -> wasmtime::Result<()> {
        self.table.delete(secret)?;
        Ok(())
    }
}
