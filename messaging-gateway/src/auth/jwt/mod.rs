//! JSON Web Tokens with the claims of Centrifugo's: who connects, and what may be subscribed to.
//!
//! `jsonwebtoken` reads the tokens; what they are signed with is checked with `ring` by the key itself. The provider of
//! `jsonwebtoken` is one for the whole process: with the features of two of them nothing can be signed or verified any more
//! (it panics), and a library that installs one takes it away from the program it is in.

mod key;
#[cfg(test)]
mod made;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use messaging_core::Result;
use serde_json::{Map, Value};

pub use self::key::Key;
use crate::identity::{AuthError, Identity};

/// Longer than any token that fits into a header.
const LONGEST: usize = 16 << 10;

/// How far in the future a token may have been issued, beyond the leeway.
const FUTURE: Duration = Duration::from_secs(60);

/// Verifies JSON Web Tokens: those of connections, and those of single subscriptions.
///
/// ```
/// use messaging_gateway::{Jwt, Key};
///
/// # fn main() -> messaging_core::Result<()> {
/// let jwt = Jwt::hs256("bbe7d157-a253-4094-9759-06a8236543f9")?
///     .with_key("2027", Key::hs256("d1ce7b35-64c1-4f3a-a6cd-0a3d1d3a7d0e")?)
///     .issuer("https://login.example")
///     .audience("gateway");
/// assert!(jwt.connection("not a token").is_err());
/// # Ok(())
/// # }
/// ```
///
/// A token whose `kid` is that of a key is verified with this key, any other with the key that has no `kid`. `exp` and
/// `nbf` count if they are there; `aud` has to fit if it is there, and `aud` and `iss` have to be there if they are asked
/// for. What a token allows ends with it, or where it has `expire_at` (0 for never) by that.
#[derive(Clone, Debug)]
pub struct Jwt {
    key: Option<Key>,
    keys: BTreeMap<String, Key>,
    issuers: Vec<String>,
    audiences: Vec<String>,
    leeway: Duration,
    tenant_claim: String,
    allow_anonymous: bool,
}

/// What a token for one subscription says.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct SubscriptionToken {
    /// The channel that may be subscribed to.
    pub channel: String,
    /// What others in the channel see of this one, in place of what the connection says.
    pub info: Option<Value>,
    /// When the subscription ends, unless it is refreshed.
    pub expires_at: Option<SystemTime>,
    /// What else it says.
    pub claims: Map<String, Value>,
}

impl Jwt {
    /// Verifies with this key.
    #[must_use]
    pub fn new(key: Key) -> Self {
        Self { key: Some(key), ..Self::by_kid() }
    }

    /// Verifies with the keys that are named by [`with_key`](Self::with_key) only.
    #[must_use]
    pub fn by_kid() -> Self {
        Self {
            key: None,
            keys: BTreeMap::new(),
            issuers: Vec::new(),
            audiences: Vec::new(),
            leeway: Duration::from_secs(5),
            tenant_claim: "tenant".to_owned(),
            allow_anonymous: false,
        }
    }

    /// Verifies with [`Key::hs256`].
    ///
    /// # Errors
    /// Those of the key.
    pub fn hs256(secret: impl AsRef<[u8]>) -> Result<Self> {
        Key::hs256(secret).map(Self::new)
    }

    /// Verifies with [`Key::rs256`].
    ///
    /// # Errors
    /// Those of the key.
    pub fn rs256(public_pem: impl AsRef<[u8]>) -> Result<Self> {
        Key::rs256(public_pem).map(Self::new)
    }

    /// Verifies with [`Key::es256`].
    ///
    /// # Errors
    /// Those of the key.
    pub fn es256(public_pem: impl AsRef<[u8]>) -> Result<Self> {
        Key::es256(public_pem).map(Self::new)
    }

    /// Verifies tokens with this `kid` with this key, in place of one that had the name.
    #[must_use]
    pub fn with_key(mut self, kid: impl Into<String>, key: Key) -> Self {
        self.keys.insert(kid.into(), key);
        self
    }

    /// Asks for this `iss`; if it is called several times, for one of them.
    #[must_use]
    pub fn issuer(mut self, issuer: impl Into<String>) -> Self {
        self.issuers.push(issuer.into());
        self
    }

    /// Asks for this in `aud`; if it is called several times, for one of them. Without it, a token that is meant for
    /// anybody in particular is refused.
    #[must_use]
    pub fn audience(mut self, audience: impl Into<String>) -> Self {
        self.audiences.push(audience.into());
        self
    }

    /// How far the clock of who issues tokens may be off, up to an hour; 5 seconds without it. They end by so much later.
    #[must_use]
    pub fn leeway(mut self, leeway: Duration) -> Self {
        self.leeway = leeway.min(Duration::from_secs(3_600));
        self
    }

    /// The claim that becomes [`Identity::tenant`]; `tenant` without it.
    #[must_use]
    pub fn tenant_claim(mut self, name: impl Into<String>) -> Self {
        self.tenant_claim = name.into();
        self
    }

    /// Takes tokens whose `sub` is empty or missing: their connections are anonymous.
    #[must_use]
    pub fn allow_anonymous(mut self) -> Self {
        self.allow_anonymous = true;
        self
    }

    /// Who a connection token speaks for.
    ///
    /// # Errors
    /// [`AuthError::Expired`] if nothing else is wrong with it, otherwise [`AuthError::Invalid`]; also for a subscription
    /// token.
    pub fn connection(&self, token: &str) -> Result<Identity, AuthError> {
        self.connection_at(token, SystemTime::now())
    }

    /// What a subscription token of this user, the one of the connection, says.
    ///
    /// # Errors
    /// [`AuthError::Expired`] if nothing else is wrong with it, otherwise [`AuthError::Invalid`]; also for a connection
    /// token, and for one of somebody else.
    pub fn subscription(&self, token: &str, user: &str) -> Result<SubscriptionToken, AuthError> {
        self.subscription_at(token, user, SystemTime::now())
    }

    fn connection_at(&self, token: &str, now: SystemTime) -> Result<Identity, AuthError> {
        let mut claims = self.claims(token, now)?;
        if claims.rest.contains_key("channel") {
            return Err(AuthError::invalid("it is the token of a subscription"));
        }
        let user = claims.text("sub")?.unwrap_or_default();
        if user.is_empty() && !self.allow_anonymous {
            return Err(AuthError::invalid("it has no `sub`, and `allow_anonymous` was not called"));
        }
        let tenant = claims.tenant(&self.tenant_claim)?;
        let info = claims.info();
        check_end(claims.ends, now)?;
        let expires_at = claims.expires_at(self.leeway)?;
        Ok(Identity { user, tenant, claims: claims.rest, info, expires_at })
    }

    fn subscription_at(
        &self,
        token: &str,
        user: &str,
        now: SystemTime,
    ) -> Result<SubscriptionToken, AuthError> {
        let genuine = self.genuine_subscription(token, now)?;
        if genuine.user != user {
            return Err(AuthError::invalid("its `sub` is not the user of the connection"));
        }
        check_end(genuine.ends, now)?;
        Ok(genuine.token)
    }

    /// What a subscription token says, and of whom. Whether it has ended is for the caller to say.
    pub(super) fn genuine_subscription(&self, token: &str, now: SystemTime) -> Result<Genuine, AuthError> {
        let mut claims = self.claims(token, now)?;
        let Some(channel) = claims.text("channel")?.filter(|channel| !channel.is_empty()) else {
            return Err(AuthError::invalid("it has no `channel`: it is not the token of a subscription"));
        };
        let user = claims.text("sub")?.unwrap_or_default();
        let info = claims.info();
        let expires_at = claims.expires_at(self.leeway)?;
        // They stay among the claims, as they always have.
        let mut copy = Claims { rest: claims.rest.clone(), ends: None };
        let (tenant, client) = (copy.tenant(&self.tenant_claim)?, copy.text("client")?);
        let (ends, claims) = (claims.ends, claims.rest);
        Ok(Genuine {
            user,
            tenant,
            client,
            ends,
            token: SubscriptionToken { channel, info, expires_at, claims },
        })
    }

    /// The claims of a token that is genuine and meant for us. Whether it has ended is for the caller to say, last.
    fn claims(&self, token: &str, now: SystemTime) -> Result<Claims, AuthError> {
        // What the token says of itself stays out of the reasons: they are logged, and anybody can write it.
        let invalid = |reason: &str| AuthError::invalid(reason);
        if token.len() > LONGEST {
            return Err(invalid("it is too long for a token"));
        }
        let header = jsonwebtoken::decode_header(token);
        let header = header.map_err(|_| invalid("its header is not one, or its algorithm is not known"))?;
        let by_kid = header.kid.as_ref().and_then(|kid| self.keys.get(kid));
        let key = by_kid.or(self.key.as_ref()).ok_or_else(|| invalid("there is no key of its `kid`"))?;
        if header.alg != key.algorithm() {
            return Err(invalid("its algorithm is not that of the key"));
        }
        // RFC 7515, 4.1.11: what has to be understood is not.
        if header.crit.is_some() {
            return Err(invalid("it has critical extensions"));
        }
        let signed = token.rsplit_once('.').and_then(|(message, signature)| {
            let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
            key.verifies(message.as_bytes(), &signature).then_some(())
        });
        signed.ok_or_else(|| invalid("its signature is not that of the key"))?;
        // By now there is nothing insecure about it.
        let rest = jsonwebtoken::dangerous::insecure_decode_claims::<Map<String, Value>>(token);
        let mut claims = Claims { rest: rest.map_err(|_| invalid("its claims are no object"))?, ends: None };

        let has_one_of = |claim: &Value, asked: &[String]| match claim {
            Value::String(text) => asked.contains(text),
            Value::Array(texts) => texts.iter().any(|text| asked.iter().any(|asked| text == asked)),
            _ => false,
        };
        match claims.rest.get("iss") {
            _ if self.issuers.is_empty() => {}
            Some(Value::String(issuer)) if self.issuers.contains(issuer) => {}
            _ => return Err(invalid("its `iss` is not one of those that are asked for")),
        }
        match claims.rest.get("aud") {
            None if self.audiences.is_empty() => {}
            Some(_) if self.audiences.is_empty() => {
                return Err(invalid("it has an `aud`; `Jwt::audience` says which is ours"));
            }
            Some(audience) if has_one_of(audience, &self.audiences) => {}
            _ => return Err(invalid("its `aud` is not one of those that are asked for")),
        }

        let soon = now + self.leeway;
        if claims.time("nbf")?.is_some_and(|begins| begins > soon) {
            return Err(invalid("its `nbf` is still to come"));
        }
        // Nothing depends on when it was issued, but from far in the future it cannot come.
        if claims.time("iat")?.is_some_and(|issued| issued > soon + FUTURE) {
            return Err(invalid("its `iat` is still to come; is a clock wrong?"));
        }
        if let Some(ends) = claims.time("exp")? {
            let ends = ends.checked_add(self.leeway);
            claims.ends = Some(ends.ok_or_else(|| invalid("its `exp` is not a time"))?);
        }
        Ok(claims)
    }
}

/// What the genuine token of a subscription says, to whom, and until when the token itself can be shown.
pub(super) struct Genuine {
    pub(super) user: String,
    pub(super) tenant: Option<String>,
    /// One connection of theirs.
    pub(super) client: Option<String>,
    pub(super) ends: Option<SystemTime>,
    pub(super) token: SubscriptionToken,
}

/// What a genuine token says, without what has been taken out of it.
struct Claims {
    rest: Map<String, Value>,
    ends: Option<SystemTime>,
}

impl Claims {
    /// Takes seconds since 1970; a fraction does not count.
    fn time(&mut self, name: &str) -> Result<Option<SystemTime>, AuthError> {
        let Some(value) = self.rest.remove(name) else { return Ok(None) };
        let whole = value.as_u64().or_else(|| {
            // The cast saturates, and what is not finite is no JSON.
            value.as_f64().filter(|seconds| *seconds >= 0.0).map(|seconds| seconds as u64)
        });
        let time = whole.and_then(|seconds| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)));
        time.map(Some).ok_or_else(|| AuthError::Invalid(format!("its `{name}` is not a time")))
    }

    /// When what the token allows ends: with itself, or as it says by `expire_at`, where 0 is never.
    fn expires_at(&mut self, leeway: Duration) -> Result<Option<SystemTime>, AuthError> {
        match self.time("expire_at")? {
            None => Ok(self.ends),
            Some(SystemTime::UNIX_EPOCH) => Ok(None),
            Some(at) => at
                .checked_add(leeway)
                .map(Some)
                .ok_or_else(|| AuthError::invalid("its `expire_at` is not a time")),
        }
    }

    fn text(&mut self, name: &str) -> Result<Option<String>, AuthError> {
        match self.rest.remove(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(AuthError::Invalid(format!("its `{name}` is not a text"))),
        }
    }

    /// Many number their tenants.
    fn tenant(&mut self, name: &str) -> Result<Option<String>, AuthError> {
        match self.rest.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) if !text.is_empty() => Ok(Some(text)),
            Some(Value::Number(number)) if !number.is_f64() => Ok(Some(number.to_string())),
            Some(_) => Err(AuthError::Invalid(format!("its `{name}` is neither a text nor a whole number"))),
        }
    }

    fn info(&mut self) -> Option<Value> {
        self.rest.remove("info").filter(|info| !info.is_null())
    }
}

fn check_end(ends: Option<SystemTime>, now: SystemTime) -> Result<(), AuthError> {
    if ends.is_some_and(|ends| ends <= now) { Err(AuthError::Expired) } else { Ok(()) }
}
