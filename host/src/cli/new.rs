//! `vespiary new`: a plugin crate that builds and whose test passes, with a copy of the SDK inside it.
//!
//! The SDK travels in the binary, so that a plugin always fits the broker that made it, and no checkout is needed.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use include_dir::{Dir, include_dir};

use crate::plugins::manifest::parse_name;

/// What every crate gets, with placeholders filled in.
static TEMPLATE: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../sdk/template");
/// The source of a plugin that handles events.
static EVENT_TEMPLATE: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../sdk/template-event");
/// The source of a plugin that decides in the path of packets.
static HOOK_TEMPLATE: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../sdk/template-hook");
/// The source of a plugin that answers over HTTP.
static HTTP_TEMPLATE: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../sdk/template-http");
/// The SDK, as it is.
static SDK_SOURCES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../sdk/src");
/// Its macros, as they are.
static MACROS_SOURCES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../sdk/macros/src");
/// The contract, as it is.
static CONTRACT: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../wit");

/// Where the SDK's copy stands in the new crate.
const VENDORED_SDK: &str = "vendor/vespiary-sdk";

/// Flags of `new`.
#[derive(Debug, clap::Args)]
pub(super) struct NewArgs {
    /// Name of the plugin and of its directory: a-z, 0-9 and '-', beginning with a letter
    name: String,
    /// What the plugin does
    #[arg(long, value_enum, default_value_t)]
    template: Template,
}

/// What the new plugin does.
#[derive(Debug, Clone, Copy, Default, clap::ValueEnum)]
enum Template {
    /// Handles events: counts them and announces every tenth
    #[default]
    Event,
    /// Decides in the path of packets: who may publish what
    Hook,
    /// Answers over HTTP for what it counts
    Http,
}

impl Template {
    /// Its files.
    fn files(self) -> &'static Dir<'static> {
        match self {
            Self::Event => &EVENT_TEMPLATE,
            Self::Hook => &HOOK_TEMPLATE,
            Self::Http => &HTTP_TEMPLATE,
        }
    }

    /// The crate's description.
    fn description(self) -> &'static str {
        match self {
            Self::Event => "Counts what passes through each gate and announces every tenth.",
            Self::Hook => "Lets a machine publish below its own name only, and keeps implausible speeds out.",
            Self::Http => "Counts what passes through each gate, and answers for it over HTTP.",
        }
    }
}

/// Makes the crate in a directory of its name.
pub(super) fn run(args: &NewArgs) -> anyhow::Result<ExitCode> {
    let name = parse_name(&args.name).map_err(anyhow::Error::msg)?;
    let directory = PathBuf::from(&*name.0);
    if directory.exists() {
        bail!("{} exists already: choose another name or remove it", directory.display());
    }
    for files in [&TEMPLATE, args.template.files()] {
        write_template(files, &directory, &name.0, args.template.description())?;
    }
    let sdk = directory.join(VENDORED_SDK);
    for (sources, target) in
        [(&SDK_SOURCES, sdk.join("src")), (&MACROS_SOURCES, sdk.join("macros/src")), (&CONTRACT, sdk.join("wit"))]
    {
        std::fs::create_dir_all(&target)
            .and_then(|()| sources.extract(&target))
            .with_context(|| format!("cannot write {}", target.display()))?;
    }
    println!("made the plugin crate {0}: `cd {0}`, then `cargo test`, `vespiary build` and `vespiary deploy`", name.0);
    Ok(ExitCode::SUCCESS)
}

/// Writes the files of the template, `.template` taken off their names and placeholders filled in.
fn write_template(template: &Dir<'_>, directory: &Path, name: &str, description: &str) -> anyhow::Result<()> {
    for file in template.files() {
        let path = file.path().with_extension("");
        let text = file.contents_utf8().context("the template is not text; this is a defect of the command line")?;
        let text = text.replace("{{name}}", name).replace("{{crate_name}}", &name.replace('-', "_"));
        let text = text.replace("{{description}}", description);
        let path = directory.join(path);
        let write = || {
            std::fs::create_dir_all(path.parent().unwrap_or(directory))?;
            std::fs::write(&path, &text)
        };
        write().with_context(|| format!("cannot write {}", path.display()))?;
    }
    template.dirs().try_for_each(|inner| write_template(inner, directory, name, description))
}
