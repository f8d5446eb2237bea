//! How a gateway finds out who a connection speaks for.

use std::fmt;
use std::future::Future;
use std::time::{Duration, SystemTime};

use axum::http::header::COOKIE;
use messaging_core::{ErrorKind, Result};
use serde_json::Value;

#[cfg(feature = "jwt")]
use super::Jwt;
use super::Origins;
use crate::descriptor::BoxFuture;
use crate::identity::{AuthError, Credentials, Identity};

/// How a gateway finds out who a connection speaks for.
pub(crate) struct Authenticator {
    scheme: Scheme,
    allows_anonymous: bool,
}

enum Scheme {
    /// Nobody proves anything.
    Anonymous,
    #[cfg(feature = "jwt")]
    Jwt(Box<Jwt>),
    Verify {
        verify: Verify,
        uses_cookies: bool,
    },
}

/// What the token of a subscription allows, to whom, and until when.
#[derive(Debug)]
pub(crate) struct Granted {
    pub(crate) user: String,
    pub(crate) tenant: Option<String>,
    /// To one connection of theirs.
    pub(crate) client: Option<String>,
    pub(crate) channel: String,
    /// What others see of them there.
    pub(crate) info: Option<Value>,
    /// When the subscription ends.
    pub(crate) expires_at: Option<SystemTime>,
    /// Until when the token can be shown.
    ends: Option<SystemTime>,
}

impl Granted {
    pub(crate) fn has_expired(&self) -> bool {
        [self.ends, self.expires_at].into_iter().flatten().any(|at| at <= SystemTime::now())
    }
}

type Verify = Box<dyn Fn(Credentials) -> BoxFuture<'static, Result<Identity, AuthError>> + Send + Sync>;

impl Authenticator {
    /// Every connection is nobody's in particular, whatever it shows.
    pub(crate) fn anonymous() -> Self {
        Self { scheme: Scheme::Anonymous, allows_anonymous: true }
    }

    /// The token has to be one that these keys verify.
    #[cfg(feature = "jwt")]
    pub(crate) fn jwt(jwt: Jwt) -> Self {
        Self { scheme: Scheme::Jwt(Box::new(jwt)), allows_anonymous: false }
    }

    /// This decides, without cookies: it does not see them, because a page of any origin could make a browser send them.
    pub(crate) fn verify<F, Fut>(verify: F) -> Self
    where
        F: Fn(Credentials) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Identity, AuthError>> + Send + 'static,
    {
        Self::by(verify, false)
    }

    /// This decides, also by cookies; origins have to be restricted then.
    pub(crate) fn verify_cookies<F, Fut>(verify: F) -> Self
    where
        F: Fn(Credentials) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Identity, AuthError>> + Send + 'static,
    {
        Self::by(verify, true)
    }

    fn by<F, Fut>(verify: F, uses_cookies: bool) -> Self
    where
        F: Fn(Credentials) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Identity, AuthError>> + Send + 'static,
    {
        let verify: Verify = Box::new(move |credentials| Box::pin(verify(credentials)));
        Self { scheme: Scheme::Verify { verify, uses_cookies }, allows_anonymous: false }
    }

    /// Who shows no token, and is not known by anything else to a closure, is nobody in particular. A token that is not
    /// valid is refused all the same.
    pub(crate) fn or_anonymous(mut self) -> Self {
        self.allows_anonymous = true;
        self
    }

    /// Whether this goes together with the origins.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] if cookies prove something and all origins may connect.
    pub(crate) fn check(&self, origins: &Origins) -> Result<()> {
        if self.uses_cookies() && origins.is_any() {
            let text = "authenticate by cookies: with the origin \"*\" any page could connect as whoever opens it; list the origins";
            return Err(messaging_core::__private::error(ErrorKind::Configuration, text.to_owned()));
        }
        Ok(())
    }

    pub(crate) fn uses_cookies(&self) -> bool {
        matches!(self.scheme, Scheme::Verify { uses_cookies: true, .. })
    }

    /// What the token of a subscription allows; `None` if nobody here can verify one.
    pub(crate) fn subscription(&self, token: &str) -> Option<Result<Granted, AuthError>> {
        match &self.scheme {
            #[cfg(feature = "jwt")]
            Scheme::Jwt(jwt) => {
                let granted = jwt.genuine_subscription(token, SystemTime::now());
                Some(granted.map(|genuine| Granted {
                    user: genuine.user,
                    tenant: genuine.tenant,
                    client: genuine.client,
                    ends: genuine.ends,
                    channel: genuine.token.channel,
                    info: genuine.token.info,
                    expires_at: genuine.token.expires_at,
                }))
            }
            Scheme::Anonymous | Scheme::Verify { .. } => {
                let _ = token;
                None
            }
        }
    }

    /// Who the credentials speak for.
    ///
    /// # Errors
    /// [`AuthError::Unavailable`] if a closure takes longer than this; otherwise what it says, or the token's verification.
    pub(crate) async fn authenticate(
        &self,
        mut credentials: Credentials,
        within: Duration,
    ) -> Result<Identity, AuthError> {
        let identity = match &self.scheme {
            Scheme::Anonymous => Identity::anonymous(),
            #[cfg(feature = "jwt")]
            Scheme::Jwt(jwt) => match &credentials.token {
                Some(token) => jwt.connection(token)?,
                None if self.allows_anonymous => Identity::anonymous(),
                None => return Err(AuthError::invalid("there is no token")),
            },
            Scheme::Verify { verify, uses_cookies } => {
                let (has_token, is_allowed) = (credentials.token.is_some(), self.allows_anonymous);
                if !uses_cookies {
                    credentials.headers.remove(COOKIE);
                }
                let late =
                    |_| AuthError::Unavailable(format!("`authenticate` took longer than {within:?}").into());
                match tokio::time::timeout(within, verify(credentials)).await.map_err(late)? {
                    Err(AuthError::Invalid(_)) if is_allowed && !has_token => Identity::anonymous(),
                    identity => identity?,
                }
            }
        };
        if identity.expires_at.is_some_and(|ends| ends <= SystemTime::now()) {
            return Err(AuthError::Expired);
        }
        Ok(identity)
    }
}

impl fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match &self.scheme {
            Scheme::Anonymous => "anonymous",
            #[cfg(feature = "jwt")]
            Scheme::Jwt(_) => "jwt",
            Scheme::Verify { uses_cookies: false, .. } => "verify",
            Scheme::Verify { uses_cookies: true, .. } => "verify_cookies",
        };
        f.debug_struct("Authenticator")
            .field("scheme", &scheme)
            .field("allows_anonymous", &self.allows_anonymous)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    fn shown(token: Option<&str>, cookie: Option<&'static str>) -> Credentials {
        let mut credentials = Credentials { token: token.map(str::to_owned), ..Credentials::default() };
        if let Some(cookie) = cookie {
            credentials.headers.insert(COOKIE, HeaderValue::from_static(cookie));
        }
        credentials
    }

    /// Says who the token, or else the cookie, names.
    async fn who(credentials: Credentials) -> Result<Identity, AuthError> {
        let cookie = credentials.headers.get(COOKIE).and_then(|cookie| cookie.to_str().ok());
        match credentials.token.as_deref().or(cookie) {
            Some("late") => std::future::pending().await,
            Some("old") => Ok(Identity::user("ada").expiring_at(SystemTime::UNIX_EPOCH)),
            Some("bad") => Err(AuthError::invalid("bad")),
            Some("down") => Err(AuthError::Unavailable("no answer".into())),
            Some(name) => Ok(Identity::user(name)),
            None => Err(AuthError::invalid("nobody")),
        }
    }

    #[tokio::test]
    async fn a_closure_sees_cookies_only_if_it_says_so() {
        let blind = Authenticator::verify(who);
        let with_cookies = Authenticator::verify_cookies(async |credentials| who(credentials).await);
        let eve = || shown(None, Some("eve"));
        assert_eq!(with_cookies.authenticate(eve(), LIMIT).await.unwrap(), Identity::user("eve"));
        assert!(matches!(blind.authenticate(eve(), LIMIT).await, Err(AuthError::Invalid(_))));

        let any = Origins::allow(["*"]).unwrap();
        let error = with_cookies.check(&any).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
        with_cookies.check(&Origins::same_host()).unwrap();
        blind.check(&any).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_closure_has_its_time_and_its_errors() {
        let by = Authenticator::verify(who).or_anonymous();
        let ask = async |token| by.authenticate(shown(token, None), LIMIT).await;
        assert_eq!(ask(Some("ada")).await.unwrap().user, "ada");
        assert!(ask(None).await.unwrap().is_anonymous());
        assert!(matches!(ask(Some("bad")).await, Err(AuthError::Invalid(_))));
        assert!(matches!(ask(Some("down")).await, Err(AuthError::Unavailable(_))));
        assert!(matches!(ask(Some("old")).await, Err(AuthError::Expired)));
        let late = ask(Some("late")).await.unwrap_err();
        assert!(matches!(&late, AuthError::Unavailable(_)) && late.to_string().contains("10s"), "{late}");
        assert!(
            Authenticator::anonymous()
                .authenticate(shown(Some("x"), None), LIMIT)
                .await
                .unwrap()
                .is_anonymous()
        );
    }

    #[cfg(feature = "jwt")]
    #[tokio::test]
    async fn without_a_token_one_is_anonymous_only_where_that_is_allowed() {
        let jwt = Jwt::hs256([7; 32]).unwrap();
        let strict = Authenticator::jwt(jwt.clone());
        let open = Authenticator::jwt(jwt).or_anonymous();
        assert!(matches!(strict.authenticate(shown(None, None), LIMIT).await, Err(AuthError::Invalid(_))));
        assert!(open.authenticate(shown(None, None), LIMIT).await.unwrap().is_anonymous());
        let bad = open.authenticate(shown(Some("x.y.z"), None), LIMIT).await;
        assert!(matches!(bad, Err(AuthError::Invalid(_))), "a bad token is not the same as none");
    }
}
