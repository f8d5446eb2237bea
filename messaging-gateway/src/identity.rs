//! Who a connection speaks for, and what it showed to prove that.

use std::fmt;
use std::net::IpAddr;
use std::time::SystemTime;

use axum::http::HeaderMap;
use messaging_core::BoxError;
use serde_json::{Map, Value};

/// Who a connection speaks for, as whoever checked its credentials says.
///
/// ```
/// use messaging_gateway::Identity;
///
/// let identity = Identity::user("ada").with_tenant("acme").with_claim("roles", ["guard"]);
/// assert_eq!(identity.tenant.as_deref(), Some("acme"));
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Identity {
    /// The user; empty for an anonymous connection. It fills the placeholder `{user_id}` of channels.
    pub user: String,
    /// The tenant. It fills the placeholder `{tenant_id}` of channels, and is what `tenant = …` of a subscription compares with.
    pub tenant: Option<String>,
    /// What else is known and verified.
    pub claims: Map<String, Value>,
    /// What others in a channel see of this one, beside its user.
    pub info: Option<Value>,
    /// When it ends, unless it is refreshed.
    pub expires_at: Option<SystemTime>,
}

impl Identity {
    /// A user.
    #[must_use]
    pub fn user(user: impl Into<String>) -> Self {
        Self { user: user.into(), ..Self::default() }
    }

    /// Nobody in particular.
    #[must_use]
    pub fn anonymous() -> Self {
        Self::default()
    }

    /// Whether it is nobody in particular.
    #[must_use]
    pub fn is_anonymous(&self) -> bool {
        self.user.is_empty()
    }

    /// The same with a tenant.
    #[must_use]
    pub fn with_tenant(mut self, tenant: impl Into<String>) -> Self {
        self.tenant = Some(tenant.into());
        self
    }

    /// The same with a claim.
    #[must_use]
    pub fn with_claim(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.claims.insert(name.into(), value.into());
        self
    }

    /// The same with what others see of it.
    #[must_use]
    pub fn with_info(mut self, info: impl Into<Value>) -> Self {
        self.info = Some(info.into());
        self
    }

    /// The same with an end.
    #[must_use]
    pub fn expiring_at(mut self, at: SystemTime) -> Self {
        self.expires_at = Some(at);
        self
    }
}

/// What a connection shows to prove who it is. Tokens and headers are never printed.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct Credentials {
    /// The token of `hello`, of `Sec-WebSocket-Protocol`, or of `Authorization: Bearer …`.
    pub token: Option<String>,
    /// The headers of the request, with its cookies.
    pub headers: HeaderMap,
    /// What a client of Centrifugo's says beside its token: the `data` of its `connect`.
    pub data: Option<Value>,
    /// Where the request came from, if the server was told
    /// ([`into_make_service_with_connect_info`](axum::Router::into_make_service_with_connect_info)).
    pub address: Option<IpAddr>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("address", &self.address).finish_non_exhaustive()
    }
}

/// Why credentials do not make an [`Identity`].
#[derive(Debug)]
#[non_exhaustive]
pub enum AuthError {
    /// They are not valid; the reason is logged, and not told to the client.
    Invalid(String),
    /// They were valid once: the client gets a new token and comes again.
    Expired,
    /// Whether they are valid could not be found out; the client tries again.
    Unavailable(BoxError),
}

impl AuthError {
    /// Not valid, with the reason for the log.
    pub fn invalid(reason: impl Into<String>) -> Self {
        Self::Invalid(reason.into())
    }
}

impl fmt::Display for AuthError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(reason) => write!(f, "the credentials are not valid: {reason}"),
            Self::Expired => f.write_str("the token has expired"),
            Self::Unavailable(error) => write!(f, "the credentials could not be checked: {error}"),
        }
    }
}

impl std::error::Error for AuthError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unavailable(error) => Some(&**error),
            Self::Invalid(_) | Self::Expired => None,
        }
    }
}
