use messaging_tests::{eventually, shared_redis, unique};

use super::*;
use crate::config::Config;
use crate::presence::millis_now;

fn core_at(url: &str) -> Arc<Core> {
    let mut config = Config::new(url).unwrap();
    config.namespace = unique("ns");
    Core::new(config, Vec::new()).unwrap()
}

async fn joined(node: &Arc<Node>, channel: &Channel) -> (Arc<Join>, u64) {
    let record = Record::new("ada", &1, millis_now()).unwrap();
    let (join, owner) = node.enter(channel, "1", record).unwrap();
    node.alive().await.unwrap();
    node.settle(&join).await.unwrap();
    (join, owner)
}

fn version(join: &Join) -> u64 {
    join.wish().version
}

fn is_settled(join: &Join) -> bool {
    let wish = join.wish();
    wish.written == wish.version
}

fn dead((key, value): (JoinKey, Bytes)) -> Dead {
    Dead { notice: left_notice(&key), key, value }
}

/// Somebody sees the member of a node whose key has run out, and removes it when the node has come back.
#[tokio::test]
async fn who_is_back_is_not_removed_for_what_was_seen_before() {
    for url in ["memory://", &shared_redis().url()] {
        let (core, channel) = (core_at(url), Channel::new("chat:7").unwrap());
        let node = Node::new(&core);
        let (join, _) = joined(&node, &channel).await;
        let seen = core.backend.members(&channel).await.unwrap();
        assert_eq!(seen.len(), 1);
        core.backend.end_node(&node.id).await.unwrap();
        assert_eq!(core.backend.lives(std::slice::from_ref(&node.id)).await.unwrap(), [None]);

        node.beat(&mut *node.pulse.lock().await).await.unwrap();
        let written = async || is_settled(&join);
        eventually("it is written again", written).await;
        let seen: Vec<_> = seen.into_iter().map(dead).collect();
        core.backend.remove_dead(&channel, &seen).await.unwrap();
        let there = core.backend.members(&channel).await.unwrap();
        assert_eq!(there.len(), 1, "{url}");
        let there: Vec<_> = there.into_iter().map(dead).collect();
        core.backend.remove_dead(&channel, &there).await.unwrap();
        assert!(core.backend.members(&channel).await.unwrap().is_empty());
        core.stop.cancel();
    }
}

/// The answer to a sign of life is lost, which would have said that the key had run out.
#[tokio::test]
async fn a_beat_without_an_answer_may_have_found_nothing() {
    for url in ["memory://", &shared_redis().url()] {
        let (core, channel) = (core_at(url), Channel::new("chat:7").unwrap());
        let node = Node::new(&core);
        let (join, _) = joined(&node, &channel).await;
        let before = version(&join);
        let mut pulse = node.pulse.lock().await;
        node.beat(&mut pulse).await.unwrap();
        assert_eq!(version(&join), before, "all went on");
        core.backend.end_node(&node.id).await.unwrap();
        pulse.number += 1;
        core.backend.beat(&node.id, pulse.number, node.ttl(), node.ttl()).await.unwrap();
        node.beat(&mut pulse).await.unwrap();
        assert!(version(&join) > before, "{url}");
        core.stop.cancel();
    }
}

/// What a write of unknown fate leaves behind when it comes late.
#[tokio::test]
async fn what_comes_late_is_removed() {
    for url in ["memory://", &shared_redis().url()] {
        let (core, channel) = (core_at(url), Channel::new("chat:7").unwrap());
        let node = Node::new(&core);
        let (join, _) = joined(&node, &channel).await;
        let (_, value) = core.backend.members(&channel).await.unwrap().remove(0);
        let late = JoinKey { node: node.id.clone(), id: "late".into() };
        core.backend.put_member(&channel, &late, &value, &put_notice(&late, &value)).await.unwrap();
        node.audit(&channel, vec![Arc::clone(&join)], None).await.unwrap();
        assert_eq!(core.backend.members(&channel).await.unwrap().len(), 2, "nobody looks for it");
        node.state().doubts.insert(channel.clone(), 1);
        node.audit(&channel, vec![join], Some(&node.id)).await.unwrap();
        assert_eq!(core.backend.members(&channel).await.unwrap().len(), 1, "{url}");
        assert!(node.state().doubts.is_empty());
        core.stop.cancel();
    }
}
