//! The first steps of a deploy, which change nothing: stage a component, compile it, warm it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use vespiary_core::event::Revision;

use super::super::Plugins;
use super::super::grants::Grants;
use super::super::manifest::{Manifest, ManifestError};
use super::super::metrics::Measured;
use super::super::plugin::{Code, Plugin};
use super::{DeployError, hex};
use crate::wasm::{CallError, Inspection, Instance, InstanceContext, LogSink, MeasuredValue, MetricSink, Runtime};

/// A component that passed staging.
pub(super) struct Staged<'a> {
    pub bytes: &'a [u8],
    pub digest: [u8; 32],
    pub manifest: Manifest,
    pub grants: Grants,
    /// Whether it can bring state of another version into its own.
    pub migrates: bool,
    /// Whether it has an HTTP service.
    pub serves: bool,
    /// Who signed it, if somebody did.
    pub signed_by: Option<String>,
}

/// Code that has run `init` and `health`.
pub(super) struct Warm {
    pub code: Arc<Code>,
    /// An instance for each lane that the code asks for, at most, and one at the least.
    pub instances: Vec<Instance>,
    pub compile: Duration,
    pub warm: Duration,
}

impl Plugins {
    /// Size, signature, manifest, exports, grants.
    pub(super) fn stage<'a>(&self, bytes: &'a [u8]) -> Result<Staged<'a>, DeployError> {
        let limit = self.options.component_bytes;
        if bytes.len() > limit {
            return Err(DeployError::TooLarge { bytes: bytes.len(), limit });
        }
        let signed_by = self.signers.check(bytes)?.map(|key| key.to_string());
        let inspection = Runtime::inspect(bytes)?;
        let section = inspection.manifest.as_deref().ok_or(ManifestError::Missing)?;
        let manifest = Manifest::parse(section)?;
        check_exports(&manifest, &inspection)?;
        let grants = self.policy.decide(&manifest)?;
        let (migrates, serves) = (inspection.has_migration(), inspection.has_http());
        Ok(Staged { bytes, digest: Sha256::digest(bytes).into(), manifest, grants, migrates, serves, signed_by })
    }

    /// Compiles a staged component and makes it ready, off every thread that others wait for.
    pub(super) fn warm(&self, plugin: &Plugin, staged: &Staged<'_>) -> Result<Warm, DeployError> {
        let started = Instant::now();
        let compiled = self.runtime.compile(&staged.digest, staged.bytes)?;
        let compile = started.elapsed();
        let does_not_start = |source| DeployError::DoesNotStart { plugin: plugin.name.0.to_string(), source };
        let (version, serves) = (staged.manifest.version.as_str().into(), staged.serves);
        let code = Code { compiled, digest: staged.digest, version, grants: staged.grants.clone(), serves };
        let code = Arc::new(code);
        let mut first = self.warm_instance(plugin, &code).map_err(does_not_start)?;
        first.health().map_err(does_not_start)?;
        let mut instances = vec![first];
        for _ in 1..staged.grants.lanes.count {
            // Where there is no room for all of them now, lanes make theirs when they need it.
            match self.warm_instance(plugin, &code) {
                Ok(instance) => instances.push(instance),
                Err(CallError::Exhausted { .. }) => break,
                Err(error) => return Err(does_not_start(error)),
            }
        }
        Ok(Warm { code, instances, compile, warm: started.elapsed() - compile })
    }

    /// A new instance that has run `init`.
    pub(in super::super) fn warm_instance(&self, plugin: &Plugin, code: &Code) -> Result<Instance, CallError> {
        self.started(code, self.instance_context(plugin, &code.grants))
    }

    /// A new instance that has run `init`, of which nobody hears.
    pub(super) fn shadow_instance(&self, plugin: &Plugin, code: &Code) -> Result<Instance, CallError> {
        let (log, measure): (LogSink, MetricSink) = (Arc::new(drop), Arc::new(drop));
        self.started(code, InstanceContext { log, measure, ..self.instance_context(plugin, &code.grants) })
    }

    fn started(&self, code: &Code, context: InstanceContext) -> Result<Instance, CallError> {
        let mut instance = self.runtime.instantiate(&code.compiled, context)?;
        instance.init()?;
        Ok(instance)
    }

    /// What a plugin's instances are made for.
    pub(in super::super) fn instance_context(&self, plugin: &Plugin, grants: &Grants) -> InstanceContext {
        let (log, metrics) = (Arc::clone(&plugin.log), self.metrics.of(&plugin.name));
        InstanceContext {
            plugin: plugin.name.clone(),
            publish_grants: Arc::clone(&grants.publishes),
            subscribe_grants: grants.subscribes.iter().map(|(filter, _)| filter.clone()).collect(),
            config: Arc::clone(&grants.config),
            secrets: Arc::clone(&grants.secrets),
            state_bytes: grants.state_bytes,
            http_hosts: Arc::clone(&grants.http_hosts),
            private_addresses: grants.private_addresses,
            disconnects: grants.disconnects,
            log: Arc::new(move |line| log.write(line)),
            measure: Arc::new(move |measurement| {
                let measured = match measurement.value {
                    MeasuredValue::Count(amount) => Measured::Count(amount),
                    MeasuredValue::Gauge(value) => Measured::Gauge(value),
                    MeasuredValue::Observe(value) => Measured::Observe(value),
                };
                metrics.measure(&measurement.name, &measurement.labels, measured);
            }),
            retained: self.retained(),
        }
    }

    /// The code of a revision that was deployed before, ready to run.
    pub(in super::super) fn load(
        &self,
        plugin: &Plugin,
        revision: &Revision,
    ) -> Result<(Arc<Code>, Vec<Instance>), DeployError> {
        let component = self.component_of(revision)?;
        let staged = self.stage(&component)?;
        let warm = self.warm(plugin, &staged)?;
        Ok((warm.code, warm.instances))
    }

    pub(super) fn component_of(&self, revision: &Revision) -> Result<Vec<u8>, DeployError> {
        let missing = || DeployError::MissingComponent { revision: revision.number, digest: hex(&revision.digest) };
        self.store.components().get(&revision.digest)?.ok_or_else(missing)
    }

    /// The manifest of a revision that was deployed before, from its component.
    pub(in super::super) fn manifest_of(&self, revision: &Revision) -> Result<Manifest, DeployError> {
        let component = self.component_of(revision)?;
        let section = Runtime::inspect(&component)?.manifest.ok_or(ManifestError::Missing)?;
        Ok(Manifest::parse(&section)?)
    }
}

/// What the manifest declares, the code must have.
fn check_exports(manifest: &Manifest, inspection: &Inspection) -> Result<(), DeployError> {
    let hears = !manifest.subscribes.is_empty() || !manifest.schedules.is_empty();
    let declared = if manifest.subscribes.is_empty() { "schedules" } else { "subscribes" };
    for (declares, exports, field, interface) in [
        (hears, inspection.has_handler(), declared, "vespiary:plugin/handler"),
        (!manifest.hooks.is_empty(), inspection.has_hooks(), "hooks", "vespiary:plugin/hooks"),
    ] {
        if declares && !exports {
            return Err(DeployError::NotExported { plugin: manifest.name.0.to_string(), field, interface });
        }
    }
    Ok(())
}
