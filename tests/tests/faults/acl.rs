//! What an ACL has to allow so that the cached functions of this program hear what they need.

use messaging_core::{Config, describe};

/// The channels, as Redis's ACL wants them: a glob has to be allowed as it is.
pub fn heard_by_the_cache(config: &Config) -> Vec<String> {
    let Config { channel_prefix: prefix, namespace, .. } = config;
    let events = describe().functions.into_iter().flat_map(|function| function.invalidate_on);
    let mut channels: Vec<_> = events.map(|channel| format!("&{prefix}{}", as_glob(channel))).collect();
    // What processes tell each other about the cache.
    channels.push(format!("&{prefix}{namespace}:cache:*"));
    channels
}

fn as_glob(channel: &str) -> String {
    let mut glob = String::new();
    let mut rest = channel;
    while let Some((before, after)) = rest.split_once('{') {
        glob.push_str(before);
        glob.push('*');
        rest = after.split_once('}').map_or("", |(_, after)| after);
    }
    glob + rest
}
