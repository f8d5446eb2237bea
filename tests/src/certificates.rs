//! Certificates for one TLS server and its clients, made on the spot and trusted by nobody else.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use std::fs;
use std::path::{Path, PathBuf};

/// PEM files of a TLS server's own authority, which signed the server for `localhost` and `127.0.0.1`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TlsFiles {
    /// The authority that a client has to trust.
    pub ca_certs: PathBuf,
    /// A client's certificate, for servers started with `--tls-auth-clients yes`.
    pub certfile: PathBuf,
    /// The key of `certfile`.
    pub keyfile: PathBuf,
    pub(crate) server_certificate: PathBuf,
    pub(crate) server_key: PathBuf,
}

const WHY: &str = "certificates of constant parameters can be made";

impl TlsFiles {
    pub(crate) fn make(directory: &Path) -> Self {
        let write = |name: &str, text: String| {
            let path = directory.join(name);
            fs::write(&path, text).unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
            path
        };
        let mut authority = named("test authority", &[]);
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect(WHY);
        let ca_certs = write("ca.pem", authority.self_signed(&key).expect(WHY).pem());
        let issuer = Issuer::new(authority, key);

        let signed = |name: &str, hosts: &[&str], purpose| {
            let mut params = named(name, hosts);
            params.use_authority_key_identifier_extension = true;
            params.extended_key_usages = vec![purpose];
            let key = KeyPair::generate().expect(WHY);
            let certificate = params.signed_by(&key, &issuer).expect(WHY);
            (
                write(&format!("{name}.pem"), certificate.pem()),
                write(&format!("{name}.key"), key.serialize_pem()),
            )
        };
        let (server_certificate, server_key) =
            signed("server", &["localhost", "127.0.0.1"], ExtendedKeyUsagePurpose::ServerAuth);
        let (certfile, keyfile) = signed("client", &[], ExtendedKeyUsagePurpose::ClientAuth);
        Self { ca_certs, certfile, keyfile, server_certificate, server_key }
    }
}

fn named(name: &str, hosts: &[&str]) -> CertificateParams {
    let hosts: Vec<String> = hosts.iter().map(|&host| host.to_owned()).collect();
    let mut params = CertificateParams::new(hosts).expect(WHY);
    params.distinguished_name.push(DnType::CommonName, name);
    params
}
