//! TLS by rustls, for both kinds of connection from the same files.

use std::path::Path;
use std::sync::Arc;

use redis::{ClientTlsConfig, TlsCertificates};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};

use crate::config::TlsFiles;
use crate::error::{BoxError, Error, ErrorKind, Result};

pub(super) struct Connector(TlsConnector);

impl Connector {
    pub(super) fn new(files: &TlsFiles) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        match &files.ca_certs {
            None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
            Some(path) => {
                for certificate in certificates("REDIS_SSL_CA_CERTS", path)? {
                    roots.add(certificate).map_err(|source| unusable("REDIS_SSL_CA_CERTS", path, source))?;
                }
            }
        }
        let provider = Arc::new(crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|source| {
                Error::new(ErrorKind::Configuration, format!("cannot set TLS up: {source}"))
                    .with_source(source)
            })?
            .with_root_certificates(roots);
        let config = match (&files.certfile, &files.keyfile) {
            (Some(certfile), Some(keyfile)) => {
                let key = PrivateKeyDer::from_pem_file(keyfile)
                    .map_err(|source| unusable("REDIS_SSL_KEYFILE", keyfile, source))?;
                builder
                    .with_client_auth_cert(certificates("REDIS_SSL_CERTFILE", certfile)?, key)
                    .map_err(|source| unusable("REDIS_SSL_CERTFILE", certfile, source))?
            }
            _ => builder.with_no_client_auth(),
        };
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }

    pub(super) async fn connect(
        &self,
        host: &str,
        stream: TcpStream,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let server = ServerName::try_from(host.to_owned())
            .map_err(|source| std::io::Error::new(std::io::ErrorKind::InvalidInput, source))?;
        self.0.connect(server, stream).await
    }
}

/// Refuses a host that no certificate can be for.
pub(super) fn check_name(host: &str) -> Result<()> {
    ServerName::try_from(host).map(drop).map_err(|source| {
        Error::new(ErrorKind::Configuration, format!("{host:?} is no name that a certificate can have"))
            .with_source(source)
    })
}

/// The same certificates for the `redis` crate's clients. They take the process's default provider; one that the program
/// has installed already stays.
pub(super) fn certificates_of(files: &TlsFiles) -> Result<TlsCertificates> {
    let _ = crypto::ring::default_provider().install_default();
    let read = |variable, path: &Path| std::fs::read(path).map_err(|error| unusable(variable, path, error));
    let root_cert = files.ca_certs.as_deref().map(|path| read("REDIS_SSL_CA_CERTS", path)).transpose()?;
    let client_tls = match (&files.certfile, &files.keyfile) {
        (Some(certfile), Some(keyfile)) => Some(ClientTlsConfig {
            client_cert: read("REDIS_SSL_CERTFILE", certfile)?,
            client_key: read("REDIS_SSL_KEYFILE", keyfile)?,
        }),
        _ => None,
    };
    Ok(TlsCertificates { client_tls, root_cert })
}

fn certificates(variable: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|source| unusable(variable, path, source));
    match certificates {
        Ok(certificates) if certificates.is_empty() => Err(Error::new(
            ErrorKind::Configuration,
            format!("{variable}: there is no certificate in {}", path.display()),
        )),
        other => other,
    }
}

fn unusable(variable: &str, path: &Path, source: impl Into<BoxError>) -> Error {
    let source = source.into();
    Error::new(ErrorKind::Configuration, format!("{variable}: cannot use {}: {source}", path.display()))
        .with_source(source)
}
