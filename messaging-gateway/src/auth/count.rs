//! How many connections there are: in all, from each address, and of each user.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::limits::Limits;

/// The connections that there are. A clone counts the same ones.
///
/// One lock for all: it is taken when a connection comes, says who it is, and goes, for as long as two look-ups take.
#[derive(Clone)]
pub(crate) struct Counted(Arc<Shared>);

struct Shared {
    connections: usize,
    per_address: usize,
    per_user: usize,
    counts: Mutex<Counts>,
}

/// Nobody is in it with a zero, so that it is as large as what is connected.
#[derive(Default)]
struct Counts {
    connections: usize,
    addresses: HashMap<IpAddr, usize>,
    users: HashMap<Arc<str>, usize>,
}

/// There is no place for another connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    /// The gateway has as many as it may have.
    Gateway,
    /// The address has.
    Address,
    /// The user has.
    User,
}

/// A connection's place among those that are counted; dropping it gives it back.
#[must_use = "a place that is dropped is given back"]
pub(crate) struct Place {
    shared: Arc<Shared>,
    address: Option<IpAddr>,
    user: Option<Arc<str>>,
}

impl Counted {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self(Arc::new(Shared {
            connections: limits.connections.get(),
            per_address: limits.connections_per_address.get(),
            per_user: limits.connections_per_user.get(),
            counts: Mutex::default(),
        }))
    }

    /// Takes a place for a connection from this address. One whose address is not known counts in all only.
    pub(crate) fn enter(&self, address: Option<IpAddr>) -> Result<Place, Full> {
        let address = address.map(counted_as);
        let mut counts = self.0.counts();
        if counts.connections >= self.0.connections {
            return Err(Full::Gateway);
        }
        if let Some(address) = address
            && !add(&mut counts.addresses, address, self.0.per_address)
        {
            return Err(Full::Address);
        }
        counts.connections += 1;
        Ok(Place { shared: Arc::clone(&self.0), address, user: None })
    }

    /// How many connections there are.
    pub(crate) fn total(&self) -> usize {
        self.0.counts().connections
    }
}

impl Shared {
    /// Each change is one addition or subtraction: a panic elsewhere leaves nothing half done.
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Counts the connection as this user's from now on. Anonymous ones count by address alone.
    ///
    /// # Errors
    /// [`Full::User`], and then it counts as before.
    pub(crate) fn belongs_to(&mut self, user: &str) -> Result<(), Full> {
        if self.user.as_deref().unwrap_or_default() == user {
            return Ok(());
        }
        let mut counts = self.shared.counts();
        let next = (!user.is_empty()).then(|| Arc::<str>::from(user));
        if let Some(next) = &next
            && !add(&mut counts.users, Arc::clone(next), self.shared.per_user)
        {
            return Err(Full::User);
        }
        if let Some(before) = std::mem::replace(&mut self.user, next) {
            subtract(&mut counts.users, before);
        }
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.shared.counts();
        counts.connections -= 1;
        if let Some(address) = self.address {
            subtract(&mut counts.addresses, address);
        }
        if let Some(user) = self.user.take() {
            subtract(&mut counts.users, user);
        }
    }
}

impl fmt::Debug for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Counted").field("total", &self.total()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place")
            .field("address", &self.address)
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// An IPv6 client has a whole /64 and may come from a new address of it each time, so that is what counts. An IPv4
/// address that is written as IPv6 is still the same.
fn counted_as(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        address @ IpAddr::V4(_) => address,
    }
}

/// Whether there was room for one more.
fn add<K: Eq + Hash>(counts: &mut HashMap<K, usize>, key: K, limit: usize) -> bool {
    match counts.entry(key) {
        Entry::Occupied(count) if *count.get() >= limit => false,
        Entry::Occupied(mut count) => {
            *count.get_mut() += 1;
            true
        }
        // Limits are not zero.
        Entry::Vacant(place) => {
            place.insert(1);
            true
        }
    }
}

fn subtract<K: Eq + Hash>(counts: &mut HashMap<K, usize>, key: K) {
    if let Entry::Occupied(mut count) = counts.entry(key) {
        *count.get_mut() -= 1;
        if *count.get() == 0 {
            count.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use proptest::prelude::*;

    use super::*;

    fn counted(connections: usize, per_address: usize, per_user: usize) -> Counted {
        let limit = |limit| NonZeroUsize::new(limit).unwrap();
        Counted::new(&Limits {
            connections: limit(connections),
            connections_per_address: limit(per_address),
            connections_per_user: limit(per_user),
            ..Limits::default()
        })
    }

    fn address(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    fn is_empty(counted: &Counted) -> bool {
        let counts = counted.0.counts();
        counts.connections == 0 && counts.addresses.is_empty() && counts.users.is_empty()
    }

    #[test]
    fn each_limit_holds_and_a_place_comes_back() {
        let counted = counted(3, 2, 1);
        let first = counted.enter(address("10.0.0.1")).unwrap();
        let mut second = counted.enter(address("::ffff:10.0.0.1")).unwrap();
        assert_eq!(counted.enter(address("10.0.0.1")).unwrap_err(), Full::Address);
        assert_eq!(counted.total(), 2, "what was refused is not counted");
        let mut third = counted.enter(None).unwrap();
        assert_eq!(counted.enter(address("10.0.0.2")).unwrap_err(), Full::Gateway);

        second.belongs_to("ada").unwrap();
        second.belongs_to("ada").unwrap();
        assert_eq!(third.belongs_to("ada").unwrap_err(), Full::User);
        third.belongs_to("").unwrap();
        second.belongs_to("bob").unwrap();
        third.belongs_to("ada").unwrap();
        assert_eq!(third.belongs_to("bob").unwrap_err(), Full::User);
        assert_eq!(second.belongs_to("ada").unwrap_err(), Full::User, "a refused change changes nothing");

        drop(first);
        let _fourth = counted.enter(address("10.0.0.1")).unwrap();
        drop((second, third, _fourth));
        assert!(is_empty(&counted));
    }

    #[test]
    fn the_addresses_of_one_network_count_together() {
        let counted = counted(9, 1, 9);
        let _first = counted.enter(address("2001:db8:0:1::1")).unwrap();
        assert_eq!(counted.enter(address("2001:db8:0:1:ffff::2")).unwrap_err(), Full::Address);
        let _other = counted.enter(address("2001:db8:0:2::1")).unwrap();
    }

    #[test]
    fn many_threads_leave_nothing_behind() {
        let counted = counted(100, 50, 3);
        std::thread::scope(|scope| {
            for thread in 0..4_u8 {
                let counted = &counted;
                scope.spawn(move || {
                    for turn in 0..500_u32 {
                        let place = counted.enter(Some(IpAddr::from([10, 0, thread, (turn % 7) as u8])));
                        let mut place = place.unwrap();
                        let _may_be_full = place.belongs_to(["ada", "bob", ""][turn as usize % 3]);
                        assert!(counted.total() >= 1);
                    }
                });
            }
        });
        assert!(is_empty(&counted));
    }

    proptest! {
        #[test]
        fn what_is_counted_is_what_is_there(steps in prop::collection::vec((0_u8..4, 0_u8..3, 0_usize..3, 0_usize..8), 0..80)) {
            let counted = counted(6, 3, 2);
            let mut places: Vec<Place> = Vec::new();
            for (step, from, user, which) in steps {
                match step {
                    0 | 1 => places.extend(counted.enter(Some(IpAddr::from([10, 0, 0, from])))),
                    2 if !places.is_empty() => {
                        let which = which % places.len();
                        let _may_be_full = places[which].belongs_to(["", "ada", "bob"][user]);
                    }
                    _ if !places.is_empty() => drop(places.swap_remove(which % places.len())),
                    _ => {}
                }
                let counts = counted.0.counts();
                prop_assert_eq!(counts.connections, places.len());
                prop_assert!(places.len() <= 6);
                prop_assert!(counts.addresses.values().all(|count| (1..=3).contains(count)));
                prop_assert!(counts.users.values().all(|count| (1..=2).contains(count)));
                prop_assert_eq!(counts.addresses.values().sum::<usize>(), places.len());
                let named = places.iter().filter(|place| place.user.is_some()).count();
                prop_assert_eq!(counts.users.values().sum::<usize>(), named);
            }
        }
    }
}
