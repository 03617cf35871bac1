//! The server's certificate: TLS 1.2 and 1.3 by rustls with ring, HTTP/2 and HTTP/1.1 by ALPN.
//!
//! **Invariant:** a certificate is taken together with the key that fits it, or not at all; what is broken leaves the one in force.

use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use serde::Deserialize;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{Error as PemError, PemObject as _};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ServerConfig};

/// Protocols offered, the preferred one first.
const PROTOCOLS: [&[u8]; 2] = [HTTP_2, b"http/1.1"];
/// HTTP/2 as ALPN names it.
pub(super) const HTTP_2: &[u8] = b"h2";

/// Where certificate and key are; both PEM.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// The certificate, and behind it those that lead to its root.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is not there, or holds no PEM of the kind.
    #[error("{0}: {1}")]
    File(PathBuf, PemError),
    /// The certificate and the key do not fit, or are of a kind that is not known.
    #[error("the certificate or its key cannot be used: {0}")]
    Unusable(#[from] rustls::Error),
}

/// The certificate in force.
#[derive(Debug)]
pub struct Tls {
    files: TlsFiles,
    config: ArcSwap<ServerConfig>,
}

impl Tls {
    /// Reads certificate and key.
    pub fn load(files: TlsFiles) -> Result<Self, TlsError> {
        let config = read(&files)?;
        Ok(Self { files, config: ArcSwap::new(config) })
    }

    /// Reads them again, for connections from now on.
    pub fn reload(&self) -> Result<(), TlsError> {
        self.config.store(read(&self.files)?);
        Ok(())
    }

    pub(super) fn config(&self) -> Arc<ServerConfig> {
        self.config.load_full()
    }
}

fn read(files: &TlsFiles) -> Result<Arc<ServerConfig>, TlsError> {
    let fault = |error| TlsError::File(files.certificate.clone(), error);
    let chain = CertificateDer::pem_file_iter(&files.certificate).map_err(fault)?;
    let chain = chain.collect::<Result<Vec<_>, _>>().map_err(fault)?;
    let key =
        PrivateKeyDer::from_pem_file(&files.key).map_err(|error| TlsError::File(files.key.clone(), error))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_pair_is_refused_and_leaves_the_one_in_force() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let files = TlsFiles { certificate: path("cert.pem"), key: path("key.pem") };
        assert!(matches!(Tls::load(files.clone()), Err(TlsError::File(..))));
        let write = |certified: &rcgen::CertifiedKey<rcgen::KeyPair>, key: &rcgen::KeyPair| {
            std::fs::write(&files.certificate, certified.cert.pem()).unwrap();
            std::fs::write(&files.key, key.serialize_pem()).unwrap();
        };
        let [one, two] =
            [(); 2].map(|()| rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap());
        write(&one, &one.signing_key);
        let tls = Tls::load(files.clone()).unwrap();
        let before = tls.config();
        write(&two, &one.signing_key);
        assert!(matches!(tls.reload(), Err(TlsError::Unusable(_))));
        assert!(Arc::ptr_eq(&before, &tls.config()));
        write(&two, &two.signing_key);
        tls.reload().unwrap();
        assert!(!Arc::ptr_eq(&before, &tls.config()));
        assert_eq!(tls.config().alpn_protocols, [b"h2".to_vec(), b"http/1.1".to_vec()]);
    }
}
