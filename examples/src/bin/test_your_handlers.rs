//! How to test what the attributes made of your functions, without a server: read the tests at the end from top to
//! bottom and run them with `cargo test -p examples --bin test_your_handlers`. As a program it walks through the same.

#![allow(clippy::print_stdout, reason = "printing is what an example is for")]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use messaging_core::{
    Error, HandlerError, Repository, State, Storage, TestMessaging, Updated, event_config, redis_cache,
    subscribe,
};
use serde::{Deserialize, Serialize};

// --- The service under test: products with prices, and mail to those who wait for a better one.

#[event_config(publish = { update = "product.updated" }, payload_fields = [sku, price])]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Product {
    sku: String,
    price: u32,
    purchase_price: u32,
}

#[derive(Deserialize)]
struct PriceChange {
    sku: String,
    price: u32,
}

/// A handler: nothing in it shows that it will be tested.
#[subscribe("product.updated")]
async fn check_price(change: PriceChange) -> Result<(), HandlerError> {
    if change.price == 0 {
        // No second attempt will make it better.
        return Err(HandlerError::skip(format!("{} must not be free", change.sku)));
    }
    Ok(())
}

/// Another one, which needs something of the service and is tried again when it fails.
#[subscribe("product.updated", retry = { attempts = 3, initial = "1ms" })]
async fn tell_customers(change: PriceChange, mail: State<Mail>) -> Result<(), String> {
    mail.send(format!("{} is {} now", change.sku, change.price))
}

/// A cached function: `shop` is asked when the cache has no answer.
#[redis_cache(key = "price:{sku}", ttl = 60, invalidate_on = [Product(update)])]
async fn price(sku: &str, shop: &Repository<Shelf>) -> Result<Option<u32>, Error> {
    shop.storage().asked.fetch_add(1, Ordering::Relaxed);
    let found: Option<Product> = shop.get(&sku.to_owned()).await?;
    Ok(found.map(|product| product.price))
}

// --- What stands for the world outside: a mail server that can be out of order, and a database.

#[derive(Clone, Default)]
struct Mail {
    sent: Arc<Mutex<Vec<String>>>,
    failures_to_come: Arc<AtomicU32>,
}

impl Mail {
    fn send(&self, text: String) -> Result<(), String> {
        let fails = self
            .failures_to_come
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        if fails.is_ok() {
            return Err("the mail server is busy".to_owned());
        }
        self.sent.lock().unwrap_or_else(PoisonError::into_inner).push(text);
        Ok(())
    }

    fn sent(&self) -> Vec<String> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[derive(Default)]
struct Shelf {
    products: Mutex<BTreeMap<String, Product>>,
    asked: AtomicU32,
}

impl Shelf {
    fn products(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Product>> {
        self.products.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Storage<Product> for Shelf {
    type Id = String;
    type Error = Infallible;

    async fn insert(&self, product: Product) -> Result<Product, Infallible> {
        self.products().insert(product.sku.clone(), product.clone());
        Ok(product)
    }

    async fn update(&self, product: Product) -> Result<Option<Updated<Product>>, Infallible> {
        let before =
            self.products().get_mut(&product.sku).map(|stored| std::mem::replace(stored, product.clone()));
        Ok(before.map(|before| Updated { before: Some(before), after: product }))
    }

    async fn delete(&self, sku: &String) -> Result<Option<Product>, Infallible> {
        Ok(self.products().remove(sku))
    }

    async fn get(&self, sku: &String) -> Result<Option<Product>, Infallible> {
        Ok(self.products().get(sku).cloned())
    }

    async fn list(&self) -> Result<Vec<Product>, Infallible> {
        Ok(self.products().values().cloned().collect())
    }
}

// --- What all tests begin with.

/// Messaging in memory, private to one test, with all handlers started and their state given.
async fn start(mail: &Mail) -> Result<TestMessaging, Error> {
    TestMessaging::with(|builder| builder.state(mail.clone())).await
}

fn tea(price: u32) -> Product {
    Product { sku: "tea".to_owned(), price, purchase_price: 2 }
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    println!("The tests of this file, in slow motion. They need no Redis and no sleeping.\n");
    let mail = Mail::default();
    let test = start(&mail).await?;
    println!("start        the handlers run in memory, with the state that they ask for");

    let shop = Repository::new(Shelf::default(), &test);
    shop.create(tea(5)).await?;
    shop.update(tea(4)).await?;
    test.settled().await;
    println!("settled()    an update was published and handled; mail: {:?}", mail.sent());
    for call in test.seen("tell_customers") {
        println!("seen(…)      {} with {}", call.channel, String::from_utf8_lossy(&call.payload));
    }

    mail.failures_to_come.store(1, Ordering::Relaxed);
    shop.update(tea(3)).await?;
    test.settled().await;
    for call in test.seen("tell_customers").into_iter().skip(1) {
        println!("retry        attempt {}: {}", call.attempt, call.error.as_deref().unwrap_or("done"));
    }

    test.scope(async {
        println!(
            "scope(…)     the price is {:?}, and {:?}",
            price("tea", &shop).await?,
            price("tea", &shop).await?
        );
        Ok::<_, Error>(())
    })
    .await?;
    println!("             the shelf was asked {} time", shop.storage().asked.load(Ordering::Relaxed));
    println!("\nNow read the tests: examples/src/bin/test_your_handlers.rs");
    Ok(())
}

#[cfg(test)]
mod tests {
    use messaging_core::Handlers;

    use super::*;

    /// The least that a test can do: a handler is a function, and its arguments are values.
    #[tokio::test]
    async fn a_handler_is_called_as_a_function() {
        let change = |price| PriceChange { sku: "tea".to_owned(), price };
        assert!(check_price(change(4)).await.is_ok());
        let error = check_price(change(0)).await.unwrap_err();
        assert_eq!(error.to_string(), "tea must not be free");
        // What it would be given by the service it is given by the test.
        let mail = Mail::default();
        tell_customers(change(4), State::new(mail.clone())).await.unwrap();
        assert_eq!(mail.sent(), ["tea is 4 now"]);
    }

    /// With messaging around it: is it subscribed, and does it understand what arrives? `settled` returns when everything
    /// that was published has been handled, and whatever handlers published in turn: nothing to wait for, nothing to poll.
    #[tokio::test]
    async fn a_handler_hears_what_is_published() {
        let mail = Mail::default();
        let test = start(&mail).await.unwrap();
        test.publish("product.updated", &tea(4)).await.unwrap();
        test.settled().await;
        assert_eq!(mail.sent(), ["tea is 4 now"]);
    }

    /// State that is not given is named when handlers start, not when the first message comes.
    #[tokio::test]
    async fn state_that_is_missing_is_named() {
        let error = TestMessaging::start().await.unwrap_err();
        assert!(error.to_string().contains("Mail"), "{error}");
        // A test of one handler starts only that one, and gives only what that one needs.
        let only = Handlers::matching("*::check_price");
        assert!(TestMessaging::with(|builder| builder.handlers(only)).await.is_ok());
    }

    /// `seen` lists the calls of a handler: what it was called with, which attempt it was, and what came of it.
    #[tokio::test]
    async fn a_failing_handler_is_called_again() {
        let mail = Mail::default();
        let test = start(&mail).await.unwrap();
        mail.failures_to_come.store(2, Ordering::Relaxed);
        test.publish("product.updated", &tea(4)).await.unwrap();
        test.settled().await;
        let calls: Vec<_> =
            test.seen("tell_customers").into_iter().map(|call| (call.attempt, call.error)).collect();
        let busy = || Some("the mail server is busy".to_owned());
        assert_eq!(calls, [(1, busy()), (2, busy()), (3, None)]);
        assert_eq!(mail.sent(), ["tea is 4 now"]);
    }

    /// After the last attempt the message is given up, and the handler goes on with the next one.
    #[tokio::test]
    async fn a_handler_that_keeps_failing_is_given_up() {
        let mail = Mail::default();
        let test = start(&mail).await.unwrap();
        mail.failures_to_come.store(3, Ordering::Relaxed);
        test.publish("product.updated", &tea(4)).await.unwrap();
        test.publish("product.updated", &tea(3)).await.unwrap();
        test.settled().await;
        assert_eq!(test.seen("tell_customers").len(), 4);
        assert_eq!(mail.sent(), ["tea is 3 now"]);
    }

    /// An error can say that it is final: then there is no second attempt.
    #[tokio::test]
    async fn what_cannot_get_better_is_not_tried_again() {
        let test = start(&Mail::default()).await.unwrap();
        test.publish("product.updated", &tea(0)).await.unwrap();
        test.settled().await;
        let calls = test.seen("check_price");
        assert_eq!((calls.len(), calls[0].error.as_deref()), (1, Some("tea must not be free")));
    }

    /// A repository publishes what it changed, and only the fields that may leave the process.
    #[tokio::test]
    async fn an_update_is_published() {
        let mail = Mail::default();
        let test = start(&mail).await.unwrap();
        let shop = Repository::new(Shelf::default(), &test);
        shop.create(tea(5)).await.unwrap();
        assert_eq!(shop.update(tea(4)).await.unwrap(), Some(tea(4)));
        test.settled().await;
        let calls = test.seen("tell_customers");
        assert_eq!(calls.len(), 1, "the creation is not published");
        assert_eq!(calls[0].channel, "product.updated");
        assert_eq!(&calls[0].payload[..], br#"{"sku":"tea","price":4}"#);
    }

    /// The short way to say it: what is not so panics, and lists what was seen instead.
    #[tokio::test]
    async fn what_has_happened_is_asserted() {
        let mail = Mail::default();
        let test = start(&mail).await.unwrap();
        mail.failures_to_come.store(1, Ordering::Relaxed);
        let shop = Repository::new(Shelf::default(), &test);
        shop.create(tea(5)).await.unwrap();
        shop.update(tea(4)).await.unwrap();
        test.settled().await;
        let published = serde_json::json!({ "sku": "tea", "price": 4 });
        test.published("product.updated").times(1).with(&published);
        test.handler("tell_customers").called(2).failed(1).called_with(&published);
    }

    /// A network that fails for a moment, and a Redis that is away: what is published then is refused, not lost.
    #[tokio::test]
    async fn a_redis_that_is_away_comes_back() {
        let test = start(&Mail::default()).await.unwrap();
        let down = test.redis_down().await;
        assert!(test.publish("product.updated", &tea(4)).await.unwrap_err().is_not_sent());
        assert!(!test.health().is_ready());
        drop(down);
        test.recovered().await;
        test.publish("product.updated", &tea(4)).await.unwrap();
        test.settled().await;
        test.handler("check_price").called(1);
    }

    /// Cached functions use the messaging that is current: inside `scope` it is that of the test.
    #[tokio::test]
    async fn a_price_is_remembered_until_it_changes() {
        let test = start(&Mail::default()).await.unwrap();
        let shop = Repository::new(Shelf::default(), &test);
        shop.create(tea(5)).await.unwrap();
        test.scope(async {
            assert_eq!(price("tea", &shop).await.unwrap(), Some(5));
            assert_eq!(price("tea", &shop).await.unwrap(), Some(5));
            assert_eq!(shop.storage().asked.load(Ordering::Relaxed), 1);
            assert_eq!((test.cached("price:tea"), test.cache_stats("price").hits), (Some(5), 1));
            shop.update(tea(4)).await.unwrap();
            assert_eq!(test.cached::<u32>("price:tea"), None);
            assert_eq!(price("tea", &shop).await.unwrap(), Some(4));
        })
        .await;
    }

    /// Outside of any scope there is no messaging and no cache: a cached function is the function that you wrote.
    #[tokio::test]
    async fn a_cached_function_is_a_function() {
        let test = start(&Mail::default()).await.unwrap();
        let shop = Repository::new(Shelf::default(), &test);
        shop.create(tea(5)).await.unwrap();
        assert_eq!(price("tea", &shop).await.unwrap(), Some(5));
        shop.storage().products().clear();
        assert_eq!(price("tea", &shop).await.unwrap(), None);
    }
}
