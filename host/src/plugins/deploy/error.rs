//! Why a deploy, a rollback or a removal came to nothing; one line each, which says what to do.

use super::super::grants::NotGranted;
use super::super::manifest::ManifestError;
use super::super::signature::SignatureError;
use crate::store::StoreError;
use crate::wasm::{CallError, ComponentError};

/// Why a deploy, a rollback or a removal was refused or given up. Unless it says otherwise, nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    /// The upload is over the limit.
    #[error("the component has {bytes} bytes, and plugins.component_bytes allows {limit}")]
    TooLarge {
        /// What came.
        bytes: usize,
        /// What is allowed.
        limit: usize,
    },
    /// It is not a component that this broker can run.
    #[error("{0}")]
    Component(#[from] ComponentError),
    /// Its manifest is missing or wrong.
    #[error("{0}")]
    Manifest(#[from] ManifestError),
    /// It lacks the signature that is asked for.
    #[error("{0}")]
    Signature(#[from] SignatureError),
    /// Its manifest asks for what its code does not have.
    #[error("the manifest of plugin {plugin} declares {field}, and the component does not export `{interface}`")]
    NotExported {
        /// The plugin.
        plugin: String,
        /// The manifest's field.
        field: &'static str,
        /// The interface.
        interface: &'static str,
    },
    /// It asks for more than it is granted.
    #[error("{0}")]
    NotGranted(#[from] NotGranted),
    /// `init` or `health` failed, or the instance could not be made.
    #[error("plugin {plugin} does not start: {source}; the revision that was active still is")]
    DoesNotStart {
        /// The plugin.
        plugin: String,
        /// Why.
        source: CallError,
    },
    /// The state is of another version, and the code does not bring it into its own.
    #[error(
        "plugin {plugin}: state of version {from} cannot be used by a revision of state version {to}: export \
         `vespiary:plugin/migration`, or keep the state version"
    )]
    NoMigration {
        /// The plugin.
        plugin: String,
        /// The version of the state.
        from: u32,
        /// The version of the revision.
        to: u32,
    },
    /// The migration of the state failed.
    #[error("plugin {plugin}: its state cannot be migrated: {reason}; the revision that was active still is")]
    Migration {
        /// The plugin.
        plugin: String,
        /// Why.
        reason: String,
    },
    /// Another deploy of the same plugin is under way.
    #[error("another deploy of plugin {0} is under way: wait for it")]
    Busy(String),
    /// It has a canary.
    #[error(
        "plugin {0} has a canary: promote it with `vespiary plugin promote {0}` or end it with `vespiary plugin abort {0}`"
    )]
    HasCanary(String),
    /// It has no canary.
    #[error("plugin {0} has no canary: begin one with `vespiary deploy --canary 10% FILE`")]
    NoCanary(String),
    /// A canary or a dry run is not possible now.
    #[error("plugin {plugin} cannot have a {what} now: {reason}")]
    NotNow {
        /// The plugin.
        plugin: String,
        /// `canary` or `dry run`.
        what: &'static str,
        /// Why.
        reason: String,
    },
    /// No plugin of this name is deployed.
    #[error("no plugin {0:?} is deployed: see `vespiary plugin list`")]
    Unknown(String),
    /// There is no such revision to go back to.
    #[error("plugin {plugin} has no {wanted} to go back to: see `vespiary plugin show {plugin}`")]
    NoRevision {
        /// The plugin.
        plugin: String,
        /// What was asked for.
        wanted: String,
    },
    /// The revision to go back to cannot use the state.
    #[error(
        "plugin {plugin} cannot go back to revision {revision}: it uses state of version {wants}, the state is of version \
         {has}, and the probation in which the older state was kept is over; deploy a revision that migrates it"
    )]
    OtherState {
        /// The plugin.
        plugin: String,
        /// The revision that was asked for.
        revision: u32,
        /// Its state version.
        wants: u32,
        /// The state's version.
        has: u32,
    },
    /// As many plugins as may be are deployed.
    #[error("{0} plugins are deployed, and limits.plugins allows no more: remove one first")]
    TooMany(usize),
    /// The call under way did not end.
    #[error("plugin {0} does not come to rest: its call did not end after it was interrupted; nothing was switched")]
    DoesNotRest(String),
    /// The store failed.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// The component of a revision is gone from the data directory.
    #[error(
        "the component of revision {revision} (sha256:{digest}) is missing from the data directory: deploy it again"
    )]
    MissingComponent {
        /// The revision.
        revision: u32,
        /// Its digest, in hex.
        digest: String,
    },
    /// The broker is at one of its bounds.
    #[error("the broker refused to activate plugin {0}: limits.sessions or limits.plugins is reached")]
    Refused(String),
    /// The switch is not known to be on disk.
    #[error("the switch of plugin {0} was not confirmed in time: see `vespiary plugin show {0}` for what is active")]
    Unconfirmed(String),
}
