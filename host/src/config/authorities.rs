//! The certificate authorities that plugins' requests trust beside the public ones: a file in PEM, read once at start.

use std::io::Read as _;
use std::path::Path;

use tokio_rustls::rustls::pki_types::pem::{Error as PemError, SliceIter};
use tokio_rustls::rustls::pki_types::{CertificateDer, TrustAnchor};
use tokio_rustls::rustls::{Error as TlsError, RootCertStore};

use super::{ConfigError, Plugins};

/// Bytes of a file of certificates, at most; a hundred and more fit.
const FILE_BYTES: u64 = 1 << 20;

/// What a certificate begins with in a file.
const BEGIN: &str = "-----BEGIN CERTIFICATE-----";

/// Certificate authorities, each usable.
#[derive(Debug, Clone, Default)]
pub struct Authorities(pub Vec<TrustAnchor<'static>>);

impl Plugins {
    /// Reads the certificate authorities that plugins' requests trust beside the public ones.
    pub fn http_authorities(&self) -> Result<Authorities, ConfigError> {
        self.http_ca_file.as_deref().map_or_else(|| Ok(Authorities::default()), Authorities::read)
    }
}

impl Authorities {
    /// Reads a file. Other things than certificates that stand in it are passed over.
    fn read(path: &Path) -> Result<Self, ConfigError> {
        let refuse = |message| ConfigError::Authorities { path: path.to_path_buf(), message };
        let mut text = Vec::new();
        let read = std::fs::File::open(path).and_then(|file| file.take(FILE_BYTES + 1).read_to_end(&mut text));
        read.map_err(|error| refuse(format!("it cannot be read: {error}")))?;
        if text.len() as u64 > FILE_BYTES {
            return Err(refuse(format!(
                "it has more than {FILE_BYTES} bytes: leave in it the authorities that plugins need"
            )));
        }
        Self::parse(&text).map_err(refuse)
    }

    fn parse(text: &[u8]) -> Result<Self, String> {
        let mut certificates = SliceIter::<CertificateDer<'static>>::new(text);
        let mut store = RootCertStore::empty();
        loop {
            let begun_at = text.len() - certificates.remainder().len();
            let Some(certificate) = certificates.next() else { break };
            let (number, line) = (store.len() + 1, line_of_next(text, begun_at));
            let wrong = |what: String| {
                format!(
                    "certificate {number}, at line {line}, {what}: take it out, or put it in again as the authority \
                     gives it out"
                )
            };
            let certificate = certificate.map_err(|error| wrong(damage(&error)))?;
            store.add(certificate).map_err(|error| wrong(format!("cannot be used ({})", reason(&error))))?;
        }
        if store.is_empty() {
            return Err(format!("it holds no certificate: it has to hold those of authorities in PEM, as in {BEGIN}"));
        }
        Ok(Self(store.roots))
    }
}

/// What is wrong with a certificate that cannot be read.
fn damage(error: &PemError) -> String {
    match error {
        PemError::MissingSectionEnd { .. } => "does not end".to_owned(),
        PemError::Base64Decode(_) => "is not in base64".to_owned(),
        error => format!("cannot be read ({error})"),
    }
}

/// Why a certificate cannot be that of an authority.
fn reason(error: &TlsError) -> String {
    match error {
        TlsError::InvalidCertificate(error) => format!("{error:?}"),
        error => error.to_string(),
    }
}

/// The line, from 1, at which the next certificate behind an offset begins.
fn line_of_next(text: &[u8], offset: usize) -> usize {
    let begin = text[offset..].windows(BEGIN.len()).position(|window| window == BEGIN.as_bytes());
    let before = &text[..offset + begin.unwrap_or_default()];
    before.iter().filter(|&&byte| byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A certificate that can be one of an authority.
    const AUTHORITY: &str = include_str!("../../../tests/e2e/platform/tls/authority.pem");

    #[test]
    fn authorities_are_read_whatever_stands_around_them() {
        for (text, expected) in [
            (AUTHORITY.to_owned(), 1),
            (format!("# of the plant\n{AUTHORITY}\n\nof the other plant\n{AUTHORITY}"), 2),
            (AUTHORITY.replace('\n', "\r\n"), 1),
            (format!("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n{AUTHORITY}"), 1),
        ] {
            assert_eq!(Authorities::parse(text.as_bytes()).unwrap().0.len(), expected, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let lines = AUTHORITY.lines().count();
        let second = lines + 2;
        let section = |body: &str| format!("{AUTHORITY}\n{BEGIN}\n{body}\n-----END CERTIFICATE-----\n");
        for (text, expected) in [
            (String::new(), "it holds no certificate".to_owned()),
            ("nonsense".to_owned(), "it holds no certificate".to_owned()),
            (section("!!!!"), format!("certificate 2, at line {second}, is not in base64")),
            (section("AAAA"), format!("certificate 2, at line {second}, cannot be used (")),
            (format!("{AUTHORITY}\n{BEGIN}\nAAAA\n"), format!("certificate 2, at line {second}, does not end")),
            (AUTHORITY.replace("-----END", "-END"), "certificate 1, at line 1, ".to_owned()),
        ] {
            let error = Authorities::parse(text.as_bytes()).unwrap_err();
            assert!(error.starts_with(&expected), "{error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }
}
