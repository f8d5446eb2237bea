//! Where a page comes from, and the ways to prove who one is.

use messaging_tests::eventually;
use serde_json::json;
use tokio_tungstenite::tungstenite;

use super::client::{Client, Events, Served, http};
use super::on_memory_and_redis;
use crate::place::{Place, on_backend};

on_memory_and_redis! {
    origins_are_looked_at_before_the_upgrade
    each_way_to_prove_it_works
    a_ticket_is_good_once_and_elsewhere
    cookies_count_only_where_they_are_asked_for
}
on_backend! { cluster a_ticket_is_good_once_and_elsewhere }

/// The status that an upgrade is refused with; nothing if it is not.
async fn refused(served: &Served, path: &str, headers: &[(&'static str, &str)]) -> Option<u16> {
    match Client::try_connect_to(served.address, path, headers).await {
        Ok(_) => None,
        Err(tungstenite::Error::Http(answer)) => Some(answer.status().as_u16()),
        Err(other) => panic!("{other}"),
    }
}

async fn origins_are_looked_at_before_the_upgrade(place: Place) {
    let same = Served::at(&place).await;
    let own = format!("http://{}", same.address);
    let listed = Served::with(&place, |builder| {
        builder.allowed_origins(["https://app.example", "https://other.example:8443"])
    })
    .await;
    let any = Served::with(&place, |builder| builder.allowed_origins(["*"])).await;
    for (served, origin, expected) in [
        (&same, own.as_str(), None),
        (&same, "http://evil.example", Some(403)),
        (&same, "http://127.0.0.1:1", Some(403)),
        (&same, "null", Some(403)),
        (&same, "nonsense", Some(403)),
        (&listed, "https://app.example", None),
        (&listed, "HTTPS://APP.EXAMPLE:443", None),
        (&listed, "https://other.example:8443", None),
        (&listed, "https://other.example", Some(403)),
        (&listed, "http://app.example", Some(403)),
        (&listed, "https://app.example.evil", Some(403)),
        (&listed, own.as_str(), Some(403)),
        (&any, "https://evil.example", None),
        (&any, "null", None),
    ] {
        assert_eq!(refused(served, "/subscribe", &[("origin", origin)]).await, expected, "{origin}");
        let headers = [("Origin", origin), ("Authorization", "Bearer ada")];
        let ticket = http(served.address, "POST", "/ticket", &headers).await;
        assert_eq!(ticket.status, expected.unwrap_or(200), "{origin}");
        if expected.is_none() {
            let allowed = if std::ptr::eq(served, &any) { "*" } else { origin };
            assert_eq!(ticket.header("access-control-allow-origin"), Some(allowed));
            let mut events = Events::of(served, "channel=camera.events", &headers).await;
            assert_eq!(events.answer.header("access-control-allow-origin"), Some(allowed));
            events.next_of("subscribed").await;
        } else {
            assert_eq!(ticket.header("access-control-allow-origin"), None);
            assert_eq!(
                http(served.address, "GET", "/events?channel=camera.events", &headers).await.status,
                403
            );
        }
        let preflight = http(served.address, "OPTIONS", "/ticket", &headers).await;
        assert_eq!(
            (preflight.status, preflight.header("access-control-allow-methods").is_some()),
            (204, expected.is_none())
        );
    }
    // What is no browser has none.
    assert_eq!(refused(&listed, "/subscribe", &[]).await, None);
    let twice = [("origin", "https://app.example"), ("Origin", "https://evil.example")];
    assert_eq!(http(listed.address, "POST", "/ticket", &twice).await.status, 403);
    assert!(listed.metric("messaging_gateway_rejected_total{reason=\"origin\"}").await > 0);
    assert_eq!(http(same.address, "GET", "/subscribe", &[]).await.status, 426);
    for served in [same, listed, any] {
        served.until_nobody().await;
    }
}

async fn each_way_to_prove_it_works(place: Place) {
    let served = Served::at(&place).await;
    for headers in [
        &[("sec-websocket-protocol", "messaging, token.ada")][..],
        &[("authorization", "Bearer ada")],
        &[("authorization", "Bearer wrong"), ("sec-websocket-protocol", "messaging, token.ada")],
    ] {
        let mut ada = Client::try_connect(served.address, headers).await.unwrap();
        ada.say(json!({ "type": "hello" })).await;
        assert_eq!(ada.next().await["user"], "ada", "{headers:?}");
    }
    // What `hello` says counts more than what the request has shown.
    let headers = [("authorization", "Bearer ada")];
    let mut bob = Client::try_connect(served.address, &headers).await.unwrap();
    assert_eq!(bob.hello("bob").await["user"], "bob");
    let mut wrong = Client::try_connect(served.address, &[("authorization", "Bearer wrong")]).await.unwrap();
    wrong.say(json!({ "type": "hello" })).await;
    assert_eq!(wrong.closed().await, Some(3500));
    let mut nobody = Client::connect(served.address).await;
    nobody.say(json!({ "type": "hello" })).await;
    assert_eq!(nobody.closed().await, Some(3500));
}

async fn a_ticket_is_good_once_and_elsewhere(place: Place) {
    let (first, second) = (Served::at(&place).await, Served::at(&place).await);
    let ticket = async || {
        let answer = http(first.address, "POST", "/ticket", &[("Authorization", "Bearer ada@acme")]).await;
        let answer = answer.json();
        assert_eq!(answer["expires_in_ms"], 30_000);
        answer["ticket"].as_str().unwrap().to_owned()
    };
    for served in [&first, &second] {
        let path = format!("/subscribe?ticket={}", ticket().await);
        let mut ada = Client::try_connect_to(served.address, &path, &[]).await.unwrap();
        ada.say(json!({ "type": "hello" })).await;
        assert_eq!(ada.next().await["user"], "ada");
        // Its tenant came along.
        ada.subscribe(json!({ "channel": "tenants" })).await;
        for other in [&first, &second] {
            assert_eq!(refused(other, &path, &[]).await, Some(401));
        }
    }
    let query = format!("channel=tenants&ticket={}", ticket().await);
    let mut events = Events::of(&second, &query, &[]).await;
    assert_eq!(events.next().await.data["user"], "ada");
    assert_eq!(events.next().await.event, "subscribed");
    assert_eq!(http(first.address, "GET", &format!("/events?{query}"), &[]).await.status, 401);
    // Of many who show one at the same time, one gets in.
    let path = format!("/subscribe?ticket={}", ticket().await);
    let many = (0..8).map(|turn| refused(if turn % 2 == 0 { &first } else { &second }, &path, &[]));
    let many = futures_util::future::join_all(many).await;
    assert_eq!(many.iter().filter(|refused| refused.is_none()).count(), 1, "{many:?}");
    for wrong in ["x", &"0".repeat(64), "%00", "..%2f"] {
        assert_eq!(refused(&first, &format!("/subscribe?ticket={wrong}"), &[]).await, Some(401), "{wrong}");
    }
    for headers in [&[][..], &[("Authorization", "Bearer wrong")], &[("Authorization", "Bearer old")]] {
        assert_eq!(http(first.address, "POST", "/ticket", headers).await.status, 401);
    }
    // One of somebody whose identity ends is good for as long as that.
    let headers = [("Authorization", "Bearer ada~300")];
    let answer = http(first.address, "POST", "/ticket", &headers).await.json();
    let path = format!("/subscribe?ticket={}", answer["ticket"].as_str().unwrap());
    let soon = std::time::Instant::now() + std::time::Duration::from_millis(300);
    eventually("the identity has ended", async || std::time::Instant::now() > soon).await;
    assert_eq!(refused(&first, &path, &[]).await, Some(401));
}

async fn cookies_count_only_where_they_are_asked_for(place: Place) {
    async fn by_cookie(
        credentials: messaging_gateway::Credentials,
    ) -> Result<messaging_gateway::Identity, messaging_gateway::AuthError> {
        match credentials.headers.get("cookie").and_then(|cookie| cookie.to_str().ok()) {
            Some(user) => Ok(messaging_gateway::Identity::user(user)),
            None => Err(messaging_gateway::AuthError::invalid("there is no cookie")),
        }
    }
    let with = Served::with(&place, |builder| builder.authenticate_cookies(by_cookie)).await;
    let without = Served::with(&place, |builder| builder.authenticate(by_cookie)).await;
    let headers = [("cookie", "ada")];
    let mut ada = Client::try_connect(with.address, &headers).await.unwrap();
    ada.say(json!({ "type": "hello" })).await;
    assert_eq!(ada.next().await["user"], "ada");
    let mut nobody = Client::try_connect(without.address, &headers).await.unwrap();
    nobody.say(json!({ "type": "hello" })).await;
    assert_eq!(nobody.closed().await, Some(3500));
    assert_eq!(
        http(without.address, "GET", "/events?channel=camera.events", &[("Cookie", "ada")]).await.status,
        401
    );
    let messaging = place.messaging().await;
    let open = messaging_gateway::Gateway::builder(&messaging)
        .authenticate_cookies(by_cookie)
        .allowed_origins(["*"]);
    assert!(open.build().is_err());
}
