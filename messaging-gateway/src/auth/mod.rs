//! Who may connect, and how much: tokens, tickets, origins, rates, counts, and the nesting of what clients send. It
//! decides, and knows nothing of connections.

mod authenticator;
mod count;
mod depth;
#[cfg(feature = "jwt")]
mod jwt;
mod origin;
mod rate;
mod shown;
mod ticket;

pub(crate) use self::authenticator::{Authenticator, Granted};
pub(crate) use self::count::{Counted, Full, Place};
pub(crate) use self::depth::is_within_depth;
#[cfg(feature = "jwt")]
pub use self::jwt::{Jwt, Key, SubscriptionToken};
pub(crate) use self::origin::Origins;
pub(crate) use self::rate::TokenBucket;
pub(crate) use self::shown::Shown;
pub(crate) use self::ticket::{Shelf, Stored, Tickets};
