//! Who signed a component: Ed25519 over what it is, in a custom section at its end.
//!
//! The section `vespiary:signature` is the last of the component and holds a form (1 byte), the public key that made it (32)
//! and the signature (64). Signed are a text that nothing else signs, the key, and the SHA-256 of all bytes before the
//! section. So nothing can be changed before it, nothing put behind it, and no signature of another purpose be used.
//! A signature that is there must be right, also where nobody asks for one.

use ed25519_dalek::{Signature, Signer as _, SigningKey};
use sha2::{Digest, Sha256};
use vespiary_core::event::Revision;

use super::Plugins;
use super::sections::{custom_sections, with_custom_section};
use crate::config::PublicKey;

/// Name of the custom section that holds the signature.
pub const SIGNATURE_SECTION: &str = "vespiary:signature";

/// What is signed begins with this, so that it can be nothing else.
const PURPOSE: &[u8] = b"vespiary component signature\0";
/// The form of the section that is read and written.
const FORM: u8 = 1;
/// Bytes of the section's data.
const DATA_BYTES: usize = 1 + 32 + 64;

/// The keys whose signatures are asked for.
#[derive(Debug, Clone, Default)]
pub struct Signers(Vec<PublicKey>);

/// Why a component was refused for its signature.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SignatureError {
    /// It has none, and one is asked for.
    #[error(
        "the component is not signed, and plugins.signed_by asks for a signature: sign it with `vespiary sign --key FILE \
         COMPONENT`"
    )]
    Missing,
    /// It is signed by somebody else.
    #[error(
        "the component is signed by {0}, which plugins.signed_by does not name: have it signed by one of those keys"
    )]
    Unknown(Box<PublicKey>),
    /// It was changed after it was signed, or never signed by the key that it names.
    #[error("the signature of {0} does not fit the component, which was changed since: sign it again")]
    Wrong(Box<PublicKey>),
    /// It is not of the form that signatures have.
    #[error("the component's signature is refused: {0}; sign it again with `vespiary sign --key FILE COMPONENT`")]
    Malformed(&'static str),
}

/// A signature, taken apart.
struct Signed<'a> {
    /// Everything before its section.
    component: &'a [u8],
    /// The key that is said to have made it.
    key: PublicKey,
    /// The signature.
    signature: Signature,
}

impl Signers {
    /// The keys whose signatures are asked for; none: no signature is.
    pub fn new(keys: &[PublicKey]) -> Self {
        Self(keys.to_vec())
    }

    /// Who signed a component; none if nobody did and nobody has to.
    pub fn check(&self, component: &[u8]) -> Result<Option<PublicKey>, SignatureError> {
        let Some(signed) = take_apart(component)? else {
            return if self.0.is_empty() { Ok(None) } else { Err(SignatureError::Missing) };
        };
        if !self.0.is_empty() && !self.0.contains(&signed.key) {
            return Err(SignatureError::Unknown(signed.key.into()));
        }
        let message = message(&signed.key, signed.component);
        match signed.key.0.verify_strict(&message, &signed.signature) {
            Ok(()) => Ok(Some(signed.key)),
            Err(_) => Err(SignatureError::Wrong(signed.key.into())),
        }
    }
}

impl Plugins {
    /// Who signed the code of a revision, if somebody did and it is still there.
    pub(super) fn signer_of(&self, revision: &Revision) -> Option<String> {
        let component = self.store.components().get(&revision.digest).ok()??;
        Signers::default().check(&component).ok()?.map(|key| key.to_string())
    }
}

/// The component with a signature at its end, in the place of one that it had.
pub fn sign(component: &[u8], key: &SigningKey) -> Result<Vec<u8>, SignatureError> {
    let sections = custom_sections(component).ok_or(SignatureError::Malformed("the file is not a component"))?;
    let earlier = sections.iter().find(|section| section.name == SIGNATURE_SECTION.as_bytes());
    let component = match earlier {
        Some(section) if section.place.end == component.len() => &component[..section.place.start],
        Some(_) => return Err(SignatureError::Malformed("something stands behind it")),
        None => component,
    };
    let public = PublicKey(key.verifying_key());
    let signature = key.sign(&message(&public, component));
    let data = [&[FORM][..], public.0.as_bytes(), &signature.to_bytes()].concat();
    Ok(with_custom_section(component, SIGNATURE_SECTION, &data))
}

fn take_apart(component: &[u8]) -> Result<Option<Signed<'_>>, SignatureError> {
    // What is no component has no signature, and is refused for what it is.
    let Some(sections) = custom_sections(component) else { return Ok(None) };
    let mut signatures = sections.iter().filter(|section| section.name == SIGNATURE_SECTION.as_bytes());
    let Some(section) = signatures.next() else { return Ok(None) };
    if signatures.next().is_some() {
        return Err(SignatureError::Malformed("there is more than one"));
    }
    if section.place.end != component.len() {
        return Err(SignatureError::Malformed("something stands behind it"));
    }
    let unsigned = &component[..section.place.start];
    if section.data.len() != DATA_BYTES || section.data[0] != FORM {
        return Err(SignatureError::Malformed("it is not of a form that this broker reads"));
    }
    // A length can be written in several ways; only one is ours.
    if with_custom_section(unsigned, SIGNATURE_SECTION, section.data) != component {
        return Err(SignatureError::Malformed("its section is not written as signatures are"));
    }
    let (key, signature) = section.data[1..].split_at(32);
    let key = key.try_into().ok().and_then(PublicKey::from_bytes);
    let (Some(key), Ok(signature)) = (key, signature.try_into()) else {
        return Err(SignatureError::Malformed("it names no key"));
    };
    Ok(Some(Signed { component: unsigned, key, signature: Signature::from_bytes(signature) }))
}

fn message(key: &PublicKey, component: &[u8]) -> Vec<u8> {
    [PURPOSE, key.0.as_bytes(), &Sha256::digest(component)].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(seed: u8) -> (SigningKey, PublicKey) {
        let key = SigningKey::from_bytes(&[seed; 32]);
        let public = PublicKey(key.verifying_key());
        (key, public)
    }

    /// A component with a section in it.
    fn component() -> Vec<u8> {
        with_custom_section(b"\0asm\x0d\0\x01\0", "vespiary:manifest", b"{\"manifest\":1}")
    }

    #[test]
    fn a_signature_names_who_made_it() {
        let (ours, our_public) = key(1);
        let signed = sign(&component(), &ours).unwrap();
        assert_eq!(Signers::new(&[key(2).1, our_public]).check(&signed), Ok(Some(our_public)));
        assert_eq!(Signers::default().check(&signed), Ok(Some(our_public)));
        assert_eq!(Signers::default().check(&component()), Ok(None));
        assert_eq!(Signers::new(&[our_public]).check(&component()), Err(SignatureError::Missing));
        assert_eq!(Signers::new(&[key(2).1]).check(&signed), Err(SignatureError::Unknown(our_public.into())));
    }

    #[test]
    fn signing_again_replaces_the_signature() {
        let (ours, theirs) = (key(1), key(2));
        let once = sign(&component(), &ours.0).unwrap();
        let again = sign(&once, &theirs.0).unwrap();
        assert_eq!(again.len(), once.len());
        assert_eq!(Signers::new(&[theirs.1]).check(&again), Ok(Some(theirs.1)));
        assert_eq!(sign(&again, &ours.0).unwrap(), once);
    }

    #[test]
    fn every_bit_of_a_signed_component_counts() {
        let (ours, public) = key(1);
        let signed = sign(&component(), &ours).unwrap();
        for (signers, asked) in [(Signers::new(&[public]), true), (Signers::default(), false)] {
            for bit in 0..signed.len() * 8 {
                let mut changed = signed.clone();
                changed[bit / 8] ^= 1 << (bit % 8);
                let result = signers.check(&changed);
                // Where the section itself is no signature's any more, there is none, which counts only where it is asked for.
                let accepted = if asked { false } else { result == Ok(None) };
                assert!(result.is_err() || accepted, "byte {}, bit {}: {result:?}", bit / 8, bit % 8);
            }
        }
    }

    #[test]
    fn nothing_may_stand_behind_or_beside_a_signature() {
        let (ours, public) = key(1);
        let signers = Signers::new(&[public]);
        let signed = sign(&component(), &ours).unwrap();
        let section = &signed[component().len()..];
        let data = &section[section.len() - DATA_BYTES..];
        for (what, bytes) in [
            ("a second one", [&signed, section].concat()),
            ("another section", with_custom_section(&signed, "note", b"")),
            ("a byte", [&signed[..], b"\0"].concat()),
            ("a shorter signature", with_custom_section(&component(), SIGNATURE_SECTION, &data[..DATA_BYTES - 1])),
            ("a longer signature", with_custom_section(&component(), SIGNATURE_SECTION, &[data, b"\0"].concat())),
            ("another form", with_custom_section(&component(), SIGNATURE_SECTION, &[&[2][..], &data[1..]].concat())),
            ("a longer length", {
                // The length of the section as two bytes, where our own writing needs two already: three.
                let length = section.len() - 3;
                let mut bytes = component();
                bytes.extend([0, (length & 0x7f) as u8 | 0x80, (length >> 7) as u8 | 0x80, 0]);
                bytes.extend(&section[3..]);
                bytes
            }),
        ] {
            assert!(signers.check(&bytes).is_err(), "{what}: {:?}", signers.check(&bytes));
        }
        assert!(signers.check(b"\0asm").is_err());
    }

    #[test]
    fn a_signature_for_another_purpose_is_none() {
        let (ours, public) = key(1);
        let digest = Sha256::digest(component());
        for message in [digest.to_vec(), [PURPOSE, &digest[..]].concat(), component()] {
            let data = [&[FORM][..], public.0.as_bytes(), &ours.sign(&message).to_bytes()].concat();
            let signed = with_custom_section(&component(), SIGNATURE_SECTION, &data);
            assert_eq!(Signers::new(&[public]).check(&signed), Err(SignatureError::Wrong(public.into())));
        }
    }
}
