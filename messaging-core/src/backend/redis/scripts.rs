//! The Lua scripts of the cache's lease protocol. Sent by EVALSHA; the `redis` crate loads one that the server does not
//! know, so SCRIPT FLUSH and a restart are survived. Values never pass through Lua's numbers.

use bytes::Bytes;
use redis::Script;

pub(super) struct Scripts {
    pub(super) lease: Script,
    pub(super) store: Script,
    pub(super) renew: Script,
    pub(super) release: Script,
}

impl Scripts {
    pub(super) fn new() -> Self {
        Self {
            lease: Script::new(LEASE),
            store: Script::new(STORE),
            renew: Script::new(RENEW),
            release: Script::new(RELEASE),
        }
    }
}

/// What a stored value is compared by; empty for "no value".
pub(super) fn fingerprint(seen: Option<&Bytes>) -> String {
    seen.map(|value| sha1_smol::Sha1::from(&value[..]).digest().to_string()).unwrap_or_default()
}

/// KEYS: value, lease. ARGV: token, fingerprint of the value that was seen, milliseconds.
const LEASE: &str = "\
local value = redis.call('GET', KEYS[1])
if value and redis.sha1hex(value) ~= ARGV[2] then return {1, value} end
if redis.call('SET', KEYS[2], ARGV[1], 'NX', 'PX', ARGV[3]) then return {0, false} end
return {2, redis.call('GET', KEYS[2])}";

/// KEYS: value, lease. ARGV: token, fingerprint, new value, milliseconds.
const STORE: &str = "\
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
local value = redis.call('GET', KEYS[1])
if (value and redis.sha1hex(value) or '') ~= ARGV[2] then return 0 end
redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[4])
redis.call('UNLINK', KEYS[2])
return 1";

/// KEYS: lease. ARGV: token, milliseconds.
const RENEW: &str = "\
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return true";

/// KEYS: lease. ARGV: token.
const RELEASE: &str = "\
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('UNLINK', KEYS[1]) end
return true";
