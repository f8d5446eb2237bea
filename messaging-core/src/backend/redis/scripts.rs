//! The Lua scripts of the cache: the lease protocol, the registry, coverage. Sent by EVALSHA; the `redis` crate loads one that the server does not
//! know, so SCRIPT FLUSH and a restart are survived. Values never pass through Lua's numbers.

use bytes::Bytes;
use redis::Script;

pub(super) struct Scripts {
    pub(super) lease: Script,
    pub(super) store: Script,
    pub(super) renew: Script,
    pub(super) release: Script,
    pub(super) register: Script,
    pub(super) join: Script,
    pub(super) prove: Script,
    pub(super) proven: Script,
}

impl Scripts {
    pub(super) fn new() -> Self {
        Self {
            lease: Script::new(LEASE),
            store: Script::new(STORE),
            renew: Script::new(RENEW),
            release: Script::new(RELEASE),
            register: Script::new(REGISTER),
            join: Script::new(JOIN),
            prove: Script::new(PROVE),
            proven: Script::new(PROVEN),
        }
    }
}

/// What a stored value is compared by; empty for "no value".
pub(super) fn fingerprint(seen: Option<&Bytes>) -> String {
    seen.map(|value| sha1_smol::Sha1::from(&value[..]).digest().to_string()).unwrap_or_default()
}

/// KEYS: value, lease. ARGV: token, fingerprint of the value that was seen, milliseconds, the tokens of earlier attempts
/// whose fate is unknown, which this one may replace.
const LEASE: &str = "\
local value = redis.call('GET', KEYS[1])
if value and redis.sha1hex(value) ~= ARGV[2] then return {1, value} end
local holder = redis.call('GET', KEYS[2])
for i = 4, #ARGV do
  if holder == ARGV[i] then
    redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[3])
    return {0, false}
  end
end
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

/// KEYS: definitions, their expiries, generation. ARGV: for each definition its name, itself, and for how many milliseconds
/// it is kept. Returns the generation, which is at least the time of day, so that one that was lost does not come again.
const REGISTER: &str = "\
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local changed = false
for i = 1, #ARGV, 3 do
  if redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) == 1 then changed = true end
  redis.call('ZADD', KEYS[2], string.format('%.0f', now + ARGV[i + 2]), ARGV[i])
end
for _, name in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', string.format('(%.0f', now))) do
  redis.call('HDEL', KEYS[1], name)
  redis.call('ZREM', KEYS[2], name)
  changed = true
end
if changed then
  local generation = math.max((tonumber(redis.call('GET', KEYS[3])) or 0) + 1, now)
  redis.call('SET', KEYS[3], string.format('%.0f', generation))
  return generation
end
return tonumber(redis.call('GET', KEYS[3]) or '0')";

/// KEYS: counters. ARGV: the channel that every session hears, or nothing; the families. Returns the server, whether
/// nobody else can hear it, and for each family our mark, and whether we are the first on this server.
const JOIN: &str = "\
local server = ''
local info = redis.pcall('INFO', 'server')
if type(info) == 'string' then server = string.match(info, 'run_id:(%x+)') or '' end
local alone = 0
if ARGV[1] ~= '' then
  local heard = redis.pcall('PUBSUB', 'NUMSUB', ARGV[1])
  if not heard.err and tonumber(heard[2]) <= 1 then alone = 1 end
end
local marks = {}
for i = 2, #ARGV do
  local first = 0
  if redis.call('HGET', KEYS[1], ARGV[i] .. ':server') ~= server then
    redis.call('HSET', KEYS[1], ARGV[i] .. ':server', server, ARGV[i] .. ':n', 0, ARGV[i] .. ':proven', 0)
    first = 1
  end
  marks[#marks + 1] = {redis.call('HINCRBY', KEYS[1], ARGV[i] .. ':n', 1), first}
end
return {server, alone, marks}";

/// KEYS: counters. ARGV: the channel on which we hear ourselves, what to say there, the families. What the counters are is
/// read before it is said. Returns the server too.
const PROVE: &str = "\
local server = ''
local info = redis.pcall('INFO', 'server')
if type(info) == 'string' then server = string.match(info, 'run_id:(%x+)') or '' end
local covers = {}
for i = 3, #ARGV do
  covers[#covers + 1] = redis.call('HMGET', KEYS[1], ARGV[i] .. ':server', ARGV[i] .. ':n', ARGV[i] .. ':proven')
end
redis.call('PUBLISH', ARGV[1], ARGV[2])
return {server, covers}";

/// KEYS: counters. ARGV: for each family its name, the server, and up to which mark everything was heard.
const PROVEN: &str = "\
for i = 1, #ARGV, 3 do
  if redis.call('HGET', KEYS[1], ARGV[i] .. ':server') == ARGV[i + 1]
    and tonumber(redis.call('HGET', KEYS[1], ARGV[i] .. ':proven')) < tonumber(ARGV[i + 2]) then
    redis.call('HSET', KEYS[1], ARGV[i] .. ':proven', ARGV[i + 2])
  end
end
return true";
