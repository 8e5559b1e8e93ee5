//! A public key in a configuration file: `ed25519:` and 32 bytes in base64.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ed25519_dalek::VerifyingKey;
use serde::Deserialize;

/// What a key begins with in text.
const KIND: &str = "ed25519:";

/// A key that a component may be signed with. It is a point of the curve, and none of the few that sign everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublicKey(pub VerifyingKey);

impl PublicKey {
    /// The key of these bytes, if they are one.
    pub fn from_bytes(bytes: &[u8; 32]) -> Option<Self> {
        match VerifyingKey::from_bytes(bytes) {
            Ok(key) if !key.is_weak() => Some(Self(key)),
            Ok(_) | Err(_) => None,
        }
    }
}

impl FromStr for PublicKey {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bytes = text.strip_prefix(KIND).and_then(|key| BASE64.decode(key).ok());
        let key = bytes.and_then(|bytes| Self::from_bytes(bytes.as_slice().try_into().ok()?));
        key.ok_or_else(|| {
            format!(
                "\"{text}\" is not a public key: write \"{KIND}BASE64\" as `vespiary sign --new-key FILE` prints it"
            )
        })
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{KIND}{}", BASE64.encode(self.0.as_bytes()))
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_reads_as_it_is_written() {
        let key = PublicKey(ed25519_dalek::SigningKey::from_bytes(&[7; 32]).verifying_key());
        assert_eq!(key.to_string().parse(), Ok(key));
        for text in ["", "ed25519:", "rsa:AAAA", &key.to_string()[8..], &format!("{key}=")] {
            assert!(text.parse::<PublicKey>().unwrap_err().contains("is not a public key"), "{text}");
        }
        // The neutral point, which "signs" anything.
        assert!(
            PublicKey::from_bytes(&{
                let mut one = [0; 32];
                one[0] = 1;
                one
            })
            .is_none()
        );
    }
}
