//! The message that everything is measured with: an order of exactly 253 bytes of nested JSON, owned and borrowed.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// The number of the first order; all numbers have ten digits, so that every order has the same length.
pub(crate) const FIRST: u64 = 1_000_000_000;
/// The order that says that there are no more.
pub(crate) const LAST: u64 = 9_999_999_999;
/// How many orders are cached; a multiple of the numbers of tasks that read them.
pub(crate) const CACHED: u64 = 4_096;

/// The cached orders that one of so many tasks asks for, one after the other, without an end: each begins elsewhere, so
/// that no two ask for the same one at once.
pub(crate) fn cached(task: u64, tasks: u64) -> impl Iterator<Item = u64> {
    let begin = task * CACHED / tasks;
    (begin..).map(|number| FIRST + number % CACHED)
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) id: u64,
    pub(crate) customer: Customer,
    pub(crate) lines: Vec<Line>,
    pub(crate) to: Address,
    pub(crate) total: u64,
    pub(crate) paid: bool,
    pub(crate) note: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Customer {
    pub(crate) name: String,
    pub(crate) email: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Line {
    pub(crate) sku: String,
    pub(crate) count: u32,
    pub(crate) price: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Address {
    pub(crate) street: String,
    pub(crate) city: String,
}

impl Order {
    pub(crate) fn numbered(id: u64) -> Self {
        let line = |sku: &str, count, price| Line { sku: sku.to_owned(), count, price };
        Self {
            id,
            customer: Customer { name: "Ada Lovelace".into(), email: "ada@mail.org".into() },
            lines: vec![line("KB-104", 1, 89.9), line("MS-200", 2, 24.5)],
            to: Address { street: "12 Rose Lane".into(), city: "London".into() },
            total: 13_890,
            paid: true,
            note: "quick".into(),
        }
    }

    pub(crate) fn encoded(id: u64) -> Vec<u8> {
        serde_json::to_vec(&Self::numbered(id)).expect("an order is valid JSON")
    }
}

/// The same order, borrowing its texts from the bytes that it is read from.
#[derive(Debug, Deserialize)]
#[allow(dead_code, reason = "what is decoded is what is measured")]
pub(crate) struct OrderRef<'a> {
    pub(crate) id: u64,
    #[serde(borrow)]
    pub(crate) customer: CustomerRef<'a>,
    #[serde(borrow)]
    pub(crate) lines: Vec<LineRef<'a>>,
    #[serde(borrow)]
    pub(crate) to: AddressRef<'a>,
    pub(crate) total: u64,
    pub(crate) paid: bool,
    #[serde(borrow)]
    pub(crate) note: Cow<'a, str>,
}

#[derive(Debug, Deserialize)]
#[allow(dead_code, reason = "what is decoded is what is measured")]
pub(crate) struct CustomerRef<'a> {
    #[serde(borrow)]
    pub(crate) name: Cow<'a, str>,
    #[serde(borrow)]
    pub(crate) email: Cow<'a, str>,
}

#[derive(Debug, Deserialize)]
#[allow(dead_code, reason = "what is decoded is what is measured")]
pub(crate) struct LineRef<'a> {
    #[serde(borrow)]
    pub(crate) sku: Cow<'a, str>,
    pub(crate) count: u32,
    pub(crate) price: f64,
}

#[derive(Debug, Deserialize)]
#[allow(dead_code, reason = "what is decoded is what is measured")]
pub(crate) struct AddressRef<'a> {
    #[serde(borrow)]
    pub(crate) street: Cow<'a, str>,
    #[serde(borrow)]
    pub(crate) city: Cow<'a, str>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_order_has_the_same_length() {
        for id in [FIRST, FIRST + 999_999_999, LAST] {
            assert_eq!(Order::encoded(id).len(), 253, "{}", String::from_utf8_lossy(&Order::encoded(id)));
        }
    }

    #[test]
    fn tasks_share_the_cached_orders() {
        let mut asked: Vec<u64> = (0..64).flat_map(|task| cached(task, 64).take(64)).collect();
        asked.sort_unstable();
        assert!(asked.into_iter().eq(FIRST..FIRST + CACHED));
    }

    #[test]
    fn borrowed_is_the_same_order() {
        let bytes = Order::encoded(FIRST);
        let order: OrderRef<'_> = serde_json::from_slice(&bytes).unwrap();
        assert!(matches!(order.customer.name, Cow::Borrowed("Ada Lovelace")));
        assert_eq!(serde_json::from_slice::<Order>(&bytes).unwrap(), Order::numbered(FIRST));
    }
}
