//! TLS for plugin calls: a certificate chain and its key from two PEM files. gost has no client certificate, so none is
//! requested; tokens authenticate callers.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::crypto::ring::sign::any_supported_type;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{Error, InconsistentKeys, ServerConfig};
use zeroize::Zeroizing;

use super::reload::{self, Files, Latest, Unusable};

/// The files of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The chain, the agent's own certificate first.
    pub certificate: PathBuf,
    /// The key of the first certificate.
    pub key: PathBuf,
}

impl TlsFiles {
    /// Reads the files; the first value reads them again later.
    pub fn open(self) -> Result<(Files<ServerConfig>, Latest<ServerConfig>), Unusable> {
        Files::open(vec![self.certificate, self.key], load)
    }
}

fn load(paths: &[PathBuf]) -> Result<ServerConfig, Unusable> {
    let [certificate, key] = paths else { unreachable!("a certificate and a key") };
    let chain = read_chain(certificate)?;
    let secret = read_key(key)?;
    let misfit = |error| {
        let certificate = certificate.display();
        Unusable::new(key, format!("does not go with the certificate in {certificate}: {error}"))
    };
    // rustls would take over the key's text and not wipe it.
    let pair = CertifiedKey::new(chain, any_supported_type(&secret).map_err(misfit)?);
    match pair.keys_match() {
        Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
        Err(error) => return Err(misfit(error)),
    }
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(misfit)?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(pair)));
    config.alpn_protocols = vec![b"h2".into(), b"http/1.1".into()];
    Ok(config)
}

fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, Unusable> {
    let text = reload::read(path)?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .map_err(|error| Unusable::new(path, format!("is no PEM certificate chain: {error}")))?;
    if chain.is_empty() {
        return Err(Unusable::new(
            path,
            "has no certificate: it should begin with -----BEGIN CERTIFICATE-----",
        ));
    }
    Ok(chain)
}

fn read_key(path: &Path) -> Result<Zeroizing<PrivateKeyDer<'static>>, Unusable> {
    let text = reload::read_secret(path)?;
    PrivateKeyDer::from_pem_slice(&text)
        .map(Zeroizing::new)
        .map_err(|error| Unusable::new(path, format!("has no usable private key in PEM: {error}")))
}
