//! The `redis` crate's clients: one for each address, all with the same credentials, database and certificates. Opens no
//! connection.

use std::time::Duration;

use redis::io::tcp::TcpSettings;
use redis::io::tcp::socket2::TcpKeepalive;
use redis::{
    Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _, ProtocolVersion, RedisConnectionInfo,
    RedisResult,
};

use crate::config::{Address, Config, Credentials};
use crate::error::Result;

pub(super) struct Clients {
    credentials: Credentials,
    database: i64,
    #[cfg(feature = "tls")]
    certificates: Option<redis::TlsCertificates>,
}

impl Clients {
    pub(super) fn new(
        credentials: Credentials,
        database: i64,
        uses_tls: bool,
        config: &Config,
    ) -> Result<Self> {
        #[cfg(not(feature = "tls"))]
        let _ = (uses_tls, config);
        Ok(Self {
            credentials,
            database,
            #[cfg(feature = "tls")]
            certificates: uses_tls.then(|| super::tls::certificates_of(&config.tls)).transpose()?,
        })
    }

    /// RESP3 is what tells of a connection that was closed while nobody was using it.
    pub(super) fn open(&self, address: &Address) -> RedisResult<Client> {
        self.speaking(ProtocolVersion::RESP3, address)
    }

    /// For one question: a Sentinel of any age speaks RESP2.
    pub(super) fn open_for_questions(&self, address: &Address) -> RedisResult<Client> {
        self.speaking(ProtocolVersion::RESP2, address)
    }

    fn speaking(&self, protocol: ProtocolVersion, address: &Address) -> RedisResult<Client> {
        let to = match address {
            Address::Tcp { host, port, tls: false } => ConnectionAddr::Tcp(host.clone(), *port),
            Address::Tcp { host, port, tls: true } => {
                ConnectionAddr::TcpTls { host: host.clone(), port: *port, insecure: false, tls_params: None }
            }
            Address::Unix(path) => ConnectionAddr::Unix(path.clone()),
        };
        let mut settings = RedisConnectionInfo::default().set_db(self.database).set_protocol(protocol);
        if let Some(username) = &self.credentials.username {
            settings = settings.set_username(username);
        }
        if let Some(password) = &self.credentials.password {
            settings = settings.set_password(&password.0);
        }
        let info: ConnectionInfo = to
            .into_connection_info()?
            .set_redis_settings(settings)
            .set_tcp_settings(TcpSettings::default().set_nodelay(true).set_keepalive(keepalive()));
        #[cfg(feature = "tls")]
        if let (Address::Tcp { tls: true, .. }, Some(certificates)) = (address, &self.certificates) {
            return Client::build_with_tls(info, certificates.clone());
        }
        Client::open(info)
    }
}

/// For both kinds of connection: what lies between does not forget one that is idle.
pub(super) fn keepalive() -> TcpKeepalive {
    TcpKeepalive::new().with_time(Duration::from_secs(60))
}
