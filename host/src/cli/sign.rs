//! `vespiary sign`: makes a key, and signs components with it.
//!
//! A private key is a file of one line that only its owner may read, as with ssh; its public half is printed, for
//! `plugins.signed_by` of the brokers that shall take what it signs.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ed25519_dalek::SigningKey;

use super::embed::{read_component, replace};
use crate::config::PublicKey;
use crate::plugins::signature;

/// What the one line of a private key begins with.
const PRIVATE: &str = "ed25519-private:";

/// Flags of `sign`.
#[derive(Debug, clap::Args)]
pub(super) struct SignArgs {
    /// Make a private key in this file, which must not exist yet, and print the public one
    #[arg(long, value_name = "FILE", exclusive = true)]
    new_key: Option<PathBuf>,
    /// The private key to sign with
    #[arg(long, value_name = "FILE", required_unless_present = "new_key")]
    key: Option<PathBuf>,
    /// The component
    #[arg(value_name = "COMPONENT", required_unless_present = "new_key")]
    component: Option<PathBuf>,
    /// Write the signed component here; without it, in the place of the other
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Makes a key or signs.
pub(super) fn run(args: &SignArgs) -> anyhow::Result<ExitCode> {
    if let Some(file) = &args.new_key {
        let public = new_key(file)?;
        eprintln!("the private key is in {}; this is the public one, for plugins.signed_by:", file.display());
        println!("{public}");
        return Ok(ExitCode::SUCCESS);
    }
    let (Some(key), Some(component)) = (&args.key, &args.component) else { bail!("name a key and a component") };
    let key = read_key(key)?;
    let signed = signature::sign(&read_component(component)?, &key)
        .map_err(|error| anyhow::anyhow!("cannot sign {}: {error}", component.display()))?;
    let output = args.output.as_ref().unwrap_or(component);
    replace(output, &signed)?;
    println!("{} is signed by {}", output.display(), PublicKey(key.verifying_key()));
    Ok(ExitCode::SUCCESS)
}

fn new_key(file: &Path) -> anyhow::Result<PublicKey> {
    let mut seed = [0; 32];
    File::open("/dev/urandom")
        .and_then(|mut random| random.read_exact(&mut seed))
        .context("cannot read /dev/urandom")?;
    let key = SigningKey::from_bytes(&seed);
    let write = || {
        let mut created = File::options().write(true).create_new(true).mode(0o600).open(file)?;
        writeln!(created, "{PRIVATE}{}", BASE64.encode(seed))?;
        created.sync_all()
    };
    write().with_context(|| format!("cannot make the key {}", file.display()))?;
    Ok(PublicKey(key.verifying_key()))
}

fn read_key(file: &Path) -> anyhow::Result<SigningKey> {
    let opened = File::open(file).with_context(|| format!("cannot read the key {}", file.display()))?;
    let mode = opened.metadata()?.permissions().mode() & 0o777;
    ensure!(
        mode & 0o077 == 0,
        "others may read the private key {0} (mode {mode:o}): run `chmod 600 {0}`, and make a new one if they did",
        file.display()
    );
    let mut text = String::new();
    opened.take(1_024).read_to_string(&mut text).with_context(|| format!("cannot read the key {}", file.display()))?;
    let seed = text.trim().strip_prefix(PRIVATE).and_then(|key| BASE64.decode(key).ok());
    let seed: Option<[u8; 32]> = seed.and_then(|seed| seed.try_into().ok());
    match seed {
        Some(seed) => Ok(SigningKey::from_bytes(&seed)),
        None => bail!("{} is not a private key: make one with `vespiary sign --new-key FILE`", file.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::signature::Signers;

    #[test]
    fn a_new_key_is_its_owners_alone_and_signs() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("key");
        let public = new_key(&file).unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert!(new_key(&file).unwrap_err().to_string().contains("cannot make the key"));
        let signed = signature::sign(b"\0asm\x0d\0\x01\0", &read_key(&file).unwrap()).unwrap();
        assert_eq!(Signers::new(&[public]).check(&signed), Ok(Some(public)));
    }

    #[test]
    fn a_key_that_others_may_read_is_not_used() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("key");
        new_key(&file).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(read_key(&file).unwrap_err().to_string().contains("chmod 600"));
        std::fs::write(directory.path().join("other"), "ed25519-private:AAAA").unwrap();
        std::fs::set_permissions(directory.path().join("other"), std::fs::Permissions::from_mode(0o600)).unwrap();
        assert!(read_key(&directory.path().join("other")).unwrap_err().to_string().contains("is not a private key"));
    }
}
