//! Who is there: told to those who want to be seen themselves.

use std::collections::{BTreeMap, BTreeSet};

use messaging_tests::eventually;
use serde_json::{Value, json};

use super::client::{Client, Served};
use crate::place::{Place, on_each_backend};

on_each_backend! {
    who_comes_and_goes_is_told
    many_come_at_once
    who_comes_back_and_goes_at_once_has_gone
}

/// What one client believes of who is there.
#[derive(Default)]
struct Believed(BTreeMap<String, String>);

impl Believed {
    /// Takes up what is told, until these are there.
    async fn until(&mut self, client: &mut Client, expected: &[&String]) -> usize {
        let expected: BTreeSet<_> = expected.iter().map(|id| id.as_str()).collect();
        let mut frames = 0;
        while self.0.keys().map(String::as_str).collect::<BTreeSet<_>>() != expected {
            let told = client.next_of("join_leave").await;
            assert_eq!(told["channel"], "kept.room");
            frames += 1;
            for (id, who) in told["joins"].as_object().unwrap() {
                self.0.insert(id.clone(), who["user"].as_str().unwrap().to_owned());
            }
            for id in told["leaves"].as_object().unwrap().keys() {
                self.0.remove(id);
            }
        }
        frames
    }
}

async fn come(served: &Served, user: &str) -> (Client, String) {
    let mut client = Client::connect(served.address).await;
    let id = client.hello(user).await["client"].as_str().unwrap().to_owned();
    (client, id)
}

async fn enter(client: &mut Client) {
    client.subscribe(json!({ "channel": "kept.room", "presence": true })).await;
}

async fn members(client: &mut Client) -> Value {
    client.ask(json!({ "type": "presence", "channel": "kept.room" })).await["members"].take()
}

async fn who_comes_and_goes_is_told(place: Place) {
    // Of two gateways that know of each other only what Redis says.
    let (first, second) = (Served::at(&place).await, Served::at(&place).await);
    let (mut bob, b) = come(&first, "bob").await;
    enter(&mut bob).await;
    let mut believed = Believed::default();
    believed.until(&mut bob, &[&b]).await;
    // Two tabs of one user are two.
    let ((mut one, a1), (mut two, a2)) = (come(&first, "ada").await, come(&second, "ada").await);
    enter(&mut one).await;
    enter(&mut two).await;
    believed.until(&mut bob, &[&b, &a1, &a2]).await;
    assert_eq!(believed.0[&a1], "ada");
    let ada = json!({ "user": "ada", "info": { "name": "ada" } });
    let all = json!({ (a1.clone()): ada, (a2.clone()): ada, (b.clone()): { "user": "bob", "info": { "name": "bob" } } });
    for client in [&mut bob, &mut one, &mut two] {
        assert_eq!(members(client).await, all);
    }
    // Who only listens is not seen, and is not told.
    let (mut eve, _) = come(&second, "eve").await;
    eve.subscribe(json!({ "channel": "kept.room" })).await;
    assert_eq!(members(&mut eve).await, all);
    // One goes by leaving the channel, the other by leaving.
    assert_eq!(one.ask(json!({ "type": "unsubscribe", "channel": "kept.room" })).await["type"], "ok");
    believed.until(&mut bob, &[&b, &a2]).await;
    drop(two);
    believed.until(&mut bob, &[&b]).await;
    eventually("one is there", async || members(&mut bob).await.as_object().unwrap().len() == 1).await;
    assert!(
        eve.aside().is_empty()
            && eve.ask(json!({ "type": "presence", "channel": "kept.room" })).await["type"] == "ok"
    );
    // Where nobody can be seen, one cannot be.
    assert_eq!(
        bob.ask(json!({ "type": "subscribe", "channel": "camera.events", "presence": true })).await["code"],
        108
    );
}

async fn many_come_at_once(place: Place) {
    let served = Served::at(&place).await;
    let (mut bob, b) = come(&served, "bob").await;
    enter(&mut bob).await;
    let mut believed = Believed::default();
    believed.until(&mut bob, &[&b]).await;
    let mut all = futures_util::future::join_all((0..20).map(|_| come(&served, "ada"))).await;
    futures_util::future::join_all(all.iter_mut().map(|(client, _)| enter(client))).await;
    let ids: Vec<_> = all.iter().map(|(_, id)| id).chain([&b]).collect();
    let frames = believed.until(&mut bob, &ids).await;
    assert!(frames < 20, "they are told together: {frames}");
    drop(all);
    believed.until(&mut bob, &[&b]).await;
}

async fn who_comes_back_and_goes_at_once_has_gone(place: Place) {
    let served = Served::at(&place).await;
    let (mut bob, b) = come(&served, "bob").await;
    enter(&mut bob).await;
    let (mut ada, a) = come(&served, "ada").await;
    enter(&mut ada).await;
    let mut believed = Believed::default();
    believed.until(&mut bob, &[&a, &b]).await;
    let leave = json!({ "type": "unsubscribe", "channel": "kept.room" });
    ada.ask(leave.clone()).await;
    enter(&mut ada).await;
    ada.ask(leave).await;
    believed.until(&mut bob, &[&b]).await;
}
