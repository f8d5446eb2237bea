//! Tickets: what somebody who has proven who they are can hand to a request that carries no header, once and soon.

use std::fmt;
use std::future::Future;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use messaging_core::{ErrorKind, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::identity::Identity;

/// How long a ticket is good for.
const LIFETIME: Duration = Duration::from_secs(30);

/// Tickets are good for all gateways on one Redis.
#[derive(Clone, Debug)]
pub(crate) struct Tickets<S> {
    shelf: S,
}

/// A ticket, for who asked for it. It is not printed: who has it is who it was issued to.
pub(crate) struct Ticket {
    text: String,
}

/// Where values wait to be taken, by one.
pub(crate) trait Shelf {
    fn put(&self, key: &str, value: &Stored, ttl: Duration) -> impl Future<Output = Result<()>> + Send;

    /// Reads and removes, in one step.
    fn take(&self, key: &str) -> impl Future<Output = Result<Option<Stored>>> + Send;
}

/// An [`Identity`] as it is stored: a form of its own, so that gateways of different versions can read each other's.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Stored {
    user: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tenant: Option<String>,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    claims: Map<String, Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    info: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_at_ms: Option<u64>,
}

impl<S: Shelf> Tickets<S> {
    pub(crate) fn new(shelf: S) -> Self {
        Self { shelf }
    }

    /// Makes a ticket for somebody who has proven who they are.
    ///
    /// # Errors
    /// What the cache says; then there is no ticket.
    pub(crate) async fn issue(&self, identity: &Identity) -> Result<Ticket> {
        let mut random = [0; 32];
        getrandom::fill(&mut random).map_err(|error| {
            let text = format!("issue a ticket: the system has no random numbers: {error}");
            messaging_core::__private::error(ErrorKind::Storage, text)
        })?;
        let text: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        self.shelf.put(&key(&text), &Stored::from(identity), LIFETIME).await?;
        Ok(Ticket { text })
    }

    /// Who a ticket was issued to, the first time it is asked; afterwards, and for anything else, nobody.
    ///
    /// # Errors
    /// What the cache says; the ticket may be used up then.
    ///
    /// # Cancellation
    /// The ticket may be used up.
    pub(crate) async fn redeem(&self, ticket: &str) -> Result<Option<Identity>> {
        let is_one =
            ticket.len() == 64 && ticket.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if !is_one {
            return Ok(None);
        }
        let identity = self.shelf.take(&key(ticket)).await?.map(Identity::from);
        Ok(identity.filter(|identity| identity.expires_at.is_none_or(|ends| ends > SystemTime::now())))
    }
}

impl Ticket {
    /// What is shown.
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// How long it is good for.
    pub(crate) fn lifetime(&self) -> Duration {
        LIFETIME
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket").finish_non_exhaustive()
    }
}

/// Who sees keys, in a log or by MONITOR, cannot use them. SHA-1 is enough here, and is there already: what it is weak
/// against is two texts of one digest; to find a text of a given digest would take 2¹⁶⁰ attempts, and the text is random.
fn key(ticket: &str) -> String {
    sha1_smol::Sha1::from(ticket).digest().to_string()
}

impl From<&Identity> for Stored {
    fn from(identity: &Identity) -> Self {
        let Identity { user, tenant, claims, info, expires_at } = identity.clone();
        // What ended before 1970 has ended.
        let millis = |at: SystemTime| {
            let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        };
        Self { user, tenant, claims, info, expires_at_ms: expires_at.map(millis) }
    }
}

impl From<Stored> for Identity {
    fn from(stored: Stored) -> Self {
        let Stored { user, tenant, claims, info, expires_at_ms } = stored;
        // An end that this clock cannot show is none that can be waited for: it has ended.
        let end = |millis| UNIX_EPOCH.checked_add(Duration::from_millis(millis)).unwrap_or(UNIX_EPOCH);
        let expires_at = expires_at_ms.map(end);
        Self { user, tenant, claims, info, expires_at }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Mutex;

    use futures_util::future::join_all;
    use messaging_core::{CacheManager, Messaging};
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// Keeps what it is given as text, as Redis would.
    #[derive(Default)]
    struct InMemory(Mutex<HashMap<String, (String, Duration)>>);

    impl Shelf for InMemory {
        async fn put(&self, key: &str, value: &Stored, ttl: Duration) -> Result<()> {
            let text = serde_json::to_string(value).unwrap();
            self.0.lock().unwrap().insert(key.to_owned(), (text, ttl));
            Ok(())
        }

        async fn take(&self, key: &str) -> Result<Option<Stored>> {
            let taken = self.0.lock().unwrap().remove(key);
            Ok(taken.map(|(text, _)| serde_json::from_str(&text).unwrap()))
        }
    }

    impl Shelf for CacheManager {
        async fn put(&self, key: &str, value: &Stored, ttl: Duration) -> Result<()> {
            self.set(key, value, ttl).await
        }

        async fn take(&self, key: &str) -> Result<Option<Stored>> {
            CacheManager::take(self, key).await
        }
    }

    fn tickets() -> Tickets<InMemory> {
        Tickets::new(InMemory::default())
    }

    #[tokio::test]
    async fn a_ticket_works_once() {
        let tickets = tickets();
        let ends = SystemTime::now() + Duration::from_secs(60);
        let ada = Identity::user("ada")
            .with_tenant("acme")
            .with_claim("roles", ["guard"])
            .with_info(json!({ "a": 1 }));
        let (first, second) =
            (tickets.issue(&ada).await.unwrap(), tickets.issue(&Identity::anonymous()).await.unwrap());
        let redeem = async |text: &str| tickets.redeem(text).await.unwrap();
        assert_eq!(redeem(first.as_str()).await, Some(ada.clone()));
        assert_eq!(redeem(first.as_str()).await, None);
        assert_eq!(redeem(second.as_str()).await, Some(Identity::anonymous()));
        let ending = tickets.issue(&ada.clone().expiring_at(ends)).await.unwrap();
        let found = redeem(ending.as_str()).await.unwrap().expires_at.unwrap();
        assert!(ends.duration_since(found).unwrap() < Duration::from_millis(1));
        let ended = tickets.issue(&ada.expiring_at(SystemTime::now())).await.unwrap();
        assert_eq!(redeem(ended.as_str()).await, None, "a ticket does not outlive who it was issued to");
    }

    #[tokio::test]
    async fn the_ticket_is_nowhere_but_with_its_owner() {
        let tickets = tickets();
        let ticket = tickets.issue(&Identity::user("ada")).await.unwrap();
        assert_eq!(ticket.as_str().len(), 64);
        assert_ne!(ticket.as_str(), tickets.issue(&Identity::user("ada")).await.unwrap().as_str());
        assert!(!format!("{ticket:?}").contains(ticket.as_str()));
        let stored = tickets.shelf.0.lock().unwrap().clone();
        assert_eq!(stored.len(), 2);
        for (key, (value, ttl)) in stored {
            assert!(!key.contains(&ticket.as_str()[..16]) && !value.contains(&ticket.as_str()[..16]));
            assert_eq!(ttl, Duration::from_secs(30));
            assert_eq!(tickets.redeem(&key).await.unwrap(), None, "the key is no ticket");
        }
        for text in ["", "ab", &ticket.as_str().to_uppercase(), &format!("{}0", ticket.as_str())] {
            assert_eq!(tickets.redeem(text).await.unwrap(), None);
        }
        assert!(tickets.redeem(ticket.as_str()).await.unwrap().is_some(), "asking for others takes nothing");
    }

    #[tokio::test]
    async fn of_many_who_show_a_ticket_at_once_one_is_let_in() {
        let messaging = Messaging::builder().url("memory://").build().await.unwrap();
        let tickets = Tickets::new(messaging.cache("gateway:ticket"));
        let ada = Identity::user("ada").with_info(json!({ "a": [1, null] })).with_claim("n", i64::MAX);
        for _turn in 0..50 {
            let ticket = tickets.issue(&ada).await.unwrap();
            let redeemed = join_all((0..8).map(|_| tickets.redeem(ticket.as_str()))).await;
            let redeemed: Vec<_> = redeemed.into_iter().filter_map(Result::unwrap).collect();
            assert_eq!(redeemed, std::slice::from_ref(&ada));
        }
    }

    proptest! {
        #[test]
        fn what_is_stored_comes_back(user: String, tenant: Option<String>, name: String, number: Option<i64>, millis in 0_u64..1 << 45, ends: bool) {
            let mut identity = Identity::user(user).with_claim(name, number);
            identity.tenant = tenant;
            identity.info = number.map(Value::from);
            identity.expires_at = ends.then(|| UNIX_EPOCH + Duration::from_millis(millis));
            let text = serde_json::to_string(&Stored::from(&identity)).unwrap();
            let stored: Stored = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(Identity::from(stored), identity);
        }
    }
}
