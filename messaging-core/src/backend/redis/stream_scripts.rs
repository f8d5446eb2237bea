//! The Lua scripts of durable channels. Each touches the keys of one stream, which share a hash tag. Payloads are only
//! ever passed on; numbers that Lua calculates with are milliseconds and counts, far below 2^53.

use redis::Script;

pub(super) struct StreamScripts {
    pub(super) append: Script,
    pub(super) since: Script,
    pub(super) ensure_group: Script,
    pub(super) tend: Script,
    pub(super) read_exclusive: Script,
    pub(super) settle: Script,
    pub(super) seen: Script,
    pub(super) join: Script,
    pub(super) leave: Script,
    pub(super) groups: Script,
    pub(super) tail: Script,
    pub(super) end: Script,
    pub(super) replay: Script,
}

impl StreamScripts {
    pub(super) fn new() -> Self {
        Self {
            append: Script::new(APPEND),
            since: Script::new(SINCE),
            ensure_group: Script::new(ENSURE_GROUP),
            tend: Script::new(TEND),
            read_exclusive: Script::new(READ_EXCLUSIVE),
            settle: Script::new(SETTLE),
            seen: Script::new(SEEN),
            join: Script::new(JOIN),
            leave: Script::new(LEAVE),
            groups: Script::new(GROUPS),
            tail: Script::new(TAIL),
            end: Script::new(END),
            replay: Script::new(REPLAY),
        }
    }
}

/// Appends and publishes, so that both kinds of subscribers see one event.
///
/// KEYS: stream, counter. ARGV: channel, payload, most entries, oldest milliseconds, SPUBLISH or PUBLISH or nothing, id,
/// time, a channel on which the message is announced, what to say there, or nothing, how many keys must not be there for
/// that, and those; further fields and values.
/// Returns the receivers; in a stream that is new, minus one minus the receivers.
pub(super) const APPEND: &str = "\
local n = redis.call('INCR', KEYS[2])
local time = redis.call('TIME')
local oldest = math.max(time[1] * 1000 - ARGV[4], 0)
local entry = {'XADD', KEYS[1], 'MAXLEN', '~', ARGV[3], '*', 'id', ARGV[6], 'n', n, 'channel', ARGV[1], 'time', ARGV[7]}
for i = 11 + ARGV[10], #ARGV do entry[#entry + 1] = ARGV[i] end
entry[#entry + 1] = 'data'
entry[#entry + 1] = ARGV[2]
local added = redis.pcall(unpack(entry))
if added.err then
  redis.call('DECR', KEYS[2])
  return added
end
redis.call('XTRIM', KEYS[1], 'MINID', '~', string.format('%.0f', oldest))
redis.call('PEXPIRE', KEYS[1], ARGV[4])
-- The counter outlives the stream, so that a quiet channel does not look like one that was made anew.
redis.call('PEXPIRE', KEYS[2], string.format('%.0f', ARGV[4] + 2592000000))
local receivers = 0
if ARGV[9] ~= '' then
  local left = 0
  if ARGV[10] ~= '0' then left = redis.pcall('EXISTS', unpack(ARGV, 11, 10 + ARGV[10])) end
  if left == 0 then redis.pcall('PUBLISH', ARGV[8], ARGV[9]) end
end
if ARGV[5] ~= '' then receivers = redis.call(ARGV[5], ARGV[1], ARGV[2]) end
if n == 1 then return -1 - receivers end
return receivers";

/// KEYS: since. ARGV: milliseconds since 1970, for how many milliseconds that is kept. Returns the earliest that is known.
const SINCE: &str = "\
redis.call('SET', KEYS[1], ARGV[1], 'NX')
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return tonumber(redis.call('GET', KEYS[1]))";

/// KEYS: stream. ARGV: group, the id that it begins after, whether that is a place in a stream that may have been made
/// anew since.
const ENSURE_GROUP: &str = "\
local after = ARGV[2]
if ARGV[3] == '1' then
  local last = '0-0'
  local info = redis.pcall('XINFO', 'STREAM', KEYS[1])
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then last = info[i + 1] end
  end
  local function parts(id)
    local millis, sequence = string.match(id, '(%d+)-(%d+)')
    return tonumber(millis), tonumber(sequence)
  end
  local last_millis, last_sequence = parts(last)
  local millis, sequence = parts(after)
  if last_millis < millis or (last_millis == millis and last_sequence < sequence) then after = '0' end
end
local made = redis.pcall('XGROUP', 'CREATE', KEYS[1], ARGV[1], after, 'MKSTREAM')
if made.err and string.sub(made.err, 1, 9) ~= 'BUSYGROUP' then return made end
return true";

/// Shows that a consumer lives, removes dead ones, takes over what is due or abandoned.
///
/// KEYS: stream, alive, delay, attempts, owner. ARGV: group, consumer, milliseconds of the lease, how many entries at
/// most, whether the stream is exclusive, whether what is ours already is told again, with how many consumers an entry may be
/// lost.
/// What was lost with several consumers may have been their end: a consumer has one such entry at a time, so that no other
/// shares its fate. The number of those consumers is the delivery count that Redis keeps.
/// Returns: ours, lapsed, milliseconds until the next delay passes or -1, lost, more (2 if it has to wait for what is in hand), the last id that the group has read,
/// entries: id, fields, attempt, takeovers, milliseconds to wait.
const TEND: &str = "\
local stream, alive, delay, attempts, owner = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local group, me, lease, take, exclusive = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5] == '1'
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function text(number) return string.format('%.0f', number) end
local consumers = redis.call('XINFO', 'CONSUMERS', stream, group)
local read = '0-0'
for _, one in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
  local of = {}
  for i = 1, #one, 2 do of[one[i]] = one[i + 1] end
  if of['name'] == group then read = of['last-delivered-id'] end
end
local known = redis.call('ZSCORE', alive, me)
local lapsed = (known and tonumber(known) >= now) and 0 or 1
redis.call('ZREMRANGEBYSCORE', alive, '-inf', '(' .. text(now))
redis.call('ZADD', alive, text(now + lease), me)
redis.call('PEXPIRE', alive, 604800000)
if exclusive then
  local holder = redis.call('GET', owner)
  if holder and holder ~= me then return {0, lapsed, -1, 0, 0, read, {}} end
  redis.call('SET', owner, me, 'PX', lease)
end
local lost, more, entries = 0, 0, {}
local function claim(id, takeovers)
  local body = redis.call('XRANGE', stream, id, id)
  local note = redis.call('HGET', attempts, id)
  redis.call('ZREM', delay, id)
  if #body == 0 then
    redis.call('XACK', stream, group, id)
    redis.call('HDEL', attempts, id)
    lost = lost + 1
    return
  end
  redis.call('XCLAIM', stream, group, me, 0, id, 'FORCE', 'RETRYCOUNT', takeovers + 1, 'JUSTID')
  local attempt, due = 1, now
  if note then
    local noted, at = string.match(note, '(%d+):(%d+)')
    attempt, due = tonumber(noted), tonumber(at)
  end
  entries[#entries + 1] = {id, body[1][2], attempt, takeovers, math.max(due - now, 0)}
end
local suspects, most, suspect_in_hand = 4, tonumber(ARGV[7]), nil
-- Whether what was lost with so many consumers has to wait for another such.
local function waits(deaths)
  if deaths < suspects or deaths > most then return false end
  if suspect_in_hand == nil then
    suspect_in_hand = false
    for _, own in ipairs(redis.call('XPENDING', stream, group, '-', '+', 1000, me)) do
      if own[4] > suspects then suspect_in_hand = true end
    end
  end
  local before = suspect_in_hand
  suspect_in_hand = true
  return before
end
local due = redis.call('ZRANGEBYSCORE', delay, '-inf', text(now), 'LIMIT', 0, take + 1)
for i, id in ipairs(due) do
  if i > take then more = 1 else claim(id, 0) end
end
-- All in the order of the stream, whoever had them.
local after = exclusive and '-'
while after do
  local page = redis.call('XPENDING', stream, group, after, '+', 1000)
  after = #page == 1000 and '(' .. page[1000][1]
  for _, one in ipairs(page) do
    local is_mine = one[2] == me
    if is_mine and ARGV[6] == '0' then
      -- We have it.
    elseif #entries >= take then
      more, after = 1, false
      break
    elseif not is_mine and waits(one[4]) then
      more, after = 2, false
      break
    else
      claim(one[1], is_mine and one[4] - 1 or one[4])
    end
  end
end
for _, consumer in ipairs(consumers) do
  local name, pending
  for i = 1, #consumer, 2 do
    if consumer[i] == 'name' then name = consumer[i + 1] end
    if consumer[i] == 'pending' then pending = consumer[i + 1] end
  end
  if name == me then
    if ARGV[6] == '1' and pending > 0 and not exclusive then
      for _, own in ipairs(redis.call('XPENDING', stream, group, '-', '+', pending, name)) do
        claim(own[1], own[4] - 1)
      end
    end
  else
    local lives = redis.call('ZSCORE', alive, name)
    if pending > 0 and not exclusive and not lives then
      local room = take - #entries
      for i, abandoned in ipairs(redis.call('XPENDING', stream, group, '-', '+', room + 1, name)) do
        if i > room then
          more = 1
        elseif waits(abandoned[4]) then
          if more == 0 then more = 2 end
        else
          claim(abandoned[1], abandoned[4])
        end
      end
    elseif pending == 0 and not lives then
      redis.call('XGROUP', 'DELCONSUMER', stream, group, name)
    end
  end
end
local next_due = -1
local first = redis.call('ZRANGE', delay, 0, 0, 'WITHSCORES')
if first[2] then next_due = math.max(tonumber(first[2]) - now, 0) end
if more == 2 and (next_due < 0 or next_due > 500) then next_due = 500 end
return {1, lapsed, next_due, lost, more, read, entries}";

/// KEYS: stream, owner. ARGV: group, consumer, how many entries at most. Nothing if the stream is not the consumer's.
const READ_EXCLUSIVE: &str = "\
if redis.call('GET', KEYS[2]) ~= ARGV[2] then return {} end
local read = redis.call('XREADGROUP', 'GROUP', ARGV[1], ARGV[2], 'COUNT', ARGV[3], 'STREAMS', KEYS[1], '>')
if not read then return {} end
return read[1][2]";

/// KEYS: stream, delay, attempts, seen, dead. ARGV: group, consumer, then of each settlement its kind and what it needs.
const SETTLE: &str = "\
local stream, delay, attempts, seen, dead = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local group, me = ARGV[1], ARGV[2]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function text(number) return string.format('%.0f', number) end
-- A group that is gone is made anew first, and brings again what was not settled: until then nothing can be said.
local function ours(id) return #redis.call('XPENDING', stream, group, id, id, 1, me) > 0 end
-- What a group leaves behind that nobody tends any more goes after 30 days.
local function keep(key) redis.call('PEXPIRE', key, 2592000000) end
local function forget(id)
  redis.call('XACK', stream, group, id)
  redis.call('HDEL', attempts, id)
end
local at = 3
local function next_argument()
  at = at + 1
  return ARGV[at - 1]
end
while at <= #ARGV do
  local kind, id = next_argument(), next_argument()
  if kind == 'done' then
    local event, window = next_argument(), next_argument()
    forget(id)
    redis.call('ZREM', delay, id)
    if event ~= '' then
      redis.call('ZREMRANGEBYSCORE', seen, '-inf', text(now))
      redis.call('ZADD', seen, text(now + window), event)
      redis.call('PEXPIRE', seen, window)
    end
  elseif kind == 'retry' then
    local attempt, wait = next_argument(), next_argument()
    if ours(id) then
      redis.call('XACK', stream, group, id)
      redis.call('ZADD', delay, text(now + wait), id)
      keep(delay)
      redis.call('HSET', attempts, id, attempt .. ':' .. text(now + wait))
      keep(attempts)
    end
  elseif kind == 'note' then
    local attempt, wait = next_argument(), next_argument()
    if ours(id) then
      redis.call('HSET', attempts, id, attempt .. ':' .. text(now + wait))
      keep(attempts)
      -- An attempt at it has ended: its handler outlives it.
      redis.call('XCLAIM', stream, group, me, 0, id, 'RETRYCOUNT', 1, 'JUSTID')
    end
  elseif kind == 'back' then
    -- It belongs to nobody, who is not alive, and stays in its place among what is pending.
    if ours(id) then redis.call('XCLAIM', stream, group, '-', 0, id, 'RETRYCOUNT', 0, 'JUSTID') end
  else
    local most, age, channel, notice = next_argument(), next_argument(), next_argument(), next_argument()
    local handler, reason, count, failed = next_argument(), next_argument(), next_argument(), next_argument()
    if ours(id) then
      local body = redis.call('XRANGE', stream, id, id)
      if #body > 0 then
        local entry = {'XADD', dead, 'MAXLEN', '~', most, '*'}
        -- What nobody of ours made may have more parts than a call takes.
        for i, part in ipairs(body[1][2]) do
          if i <= 7000 then entry[#entry + 1] = part end
        end
        for _, part in ipairs({'dead.entry', id, 'dead.group', group, 'dead.handler', handler, 'dead.error', reason,
          'dead.attempts', count, 'dead.at', failed}) do entry[#entry + 1] = part end
        redis.call(unpack(entry))
        redis.call('XTRIM', dead, 'MINID', '~', text(math.max(now - age, 0)))
        redis.call('PEXPIRE', dead, age)
        -- An alias that an ACL forbids keeps nothing from being settled.
        if channel ~= '' then redis.pcall('PUBLISH', channel, notice) end
      end
      forget(id)
    end
  end
end
return true";

/// KEYS: seen. ARGV: event ids. Returns 1 for each that is remembered, else 0.
const SEEN: &str = "\
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local seen = {}
for i, event in ipairs(ARGV) do
  local expires = redis.call('ZSCORE', KEYS[1], event)
  seen[i] = (expires and tonumber(expires) > now) and 1 or 0
end
return seen";

/// KEYS: members. ARGV: consumer, milliseconds. Returns how many live.
const JOIN: &str = "\
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now))
redis.call('ZADD', KEYS[1], string.format('%.0f', now + ARGV[2]), ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return redis.call('ZCARD', KEYS[1])";

/// KEYS: stream, alive, owner. ARGV: group, consumer.
const LEAVE: &str = "\
if redis.call('GET', KEYS[3]) == ARGV[2] then redis.call('DEL', KEYS[3]) end
redis.call('ZREM', KEYS[2], ARGV[2])
local consumers = redis.pcall('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])
if consumers.err then return true end
for _, consumer in ipairs(consumers) do
  local name, pending
  for i = 1, #consumer, 2 do
    if consumer[i] == 'name' then name = consumer[i + 1] end
    if consumer[i] == 'pending' then pending = consumer[i + 1] end
  end
  if name == ARGV[2] and pending == 0 then redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], name) end
end
return true";

/// KEYS: stream. ARGV: the keys' common beginning, up to the group's name, of `delay` and `alive`.
/// Returns of each group: name, pending, delayed, unread, alive.
const GROUPS: &str = "\
local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
local groups = redis.pcall('XINFO', 'GROUPS', KEYS[1])
if groups.err then return {} end
local states = {}
for _, group in ipairs(groups) do
  local of = {}
  for i = 1, #group, 2 do of[group[i]] = group[i + 1] end
  local unread = of['lag']
  if not unread then
    unread = 0
    local rest = redis.call('XRANGE', KEYS[1], '(' .. of['last-delivered-id'], '+', 'COUNT', 1)
    if #rest > 0 then unread = 1 end
  end
  -- What was handed back is nobody's.
  local handed_back = 0
  for _, consumer in ipairs(redis.call('XPENDING', KEYS[1], of['name'])[4] or {}) do
    if consumer[1] == '-' then handed_back = tonumber(consumer[2]) end
  end
  local delayed = redis.call('ZCARD', ARGV[1] .. of['name']) + handed_back
  states[#states + 1] = {of['name'], of['pending'] - handed_back, delayed, unread,
    redis.call('ZCOUNT', ARGV[2] .. of['name'], now, '+inf')}
end
return states";

/// KEYS: stream, counter. Returns the last id and the last number.
const TAIL: &str = "\
local info = redis.pcall('XINFO', 'STREAM', KEYS[1])
local last = '0-0'
for i = 1, #info, 2 do
  if info[i] == 'last-generated-id' then last = info[i + 1] end
end
return {last, redis.call('GET', KEYS[2]) or '0'}";

/// As [`TAIL`], with the epoch: what stands for one counting of the stream's numbers.
///
/// KEYS: stream, counter, epoch. ARGV: random text for a new epoch, an epoch that is over or nothing. Returns the last id, the
/// last number, the epoch.
/// The epoch is kept with the greatest number that was seen under it. A counter that is smaller, or gone after it was
/// there, counts anew, so that the old epoch would mean two entries by one number: then it is replaced. A counter that is
/// not there yet is none that is gone. Script and keys are in one place, and what is returned is what was written: two
/// that ask are never told two epochs for one counting. What goes unnoticed is a counter that was removed by itself
/// and has counted beyond that number before anyone asked.
const END: &str = "\
local info = redis.pcall('XINFO', 'STREAM', KEYS[1])
local last = '0-0'
for i = 1, #info, 2 do
  if info[i] == 'last-generated-id' then last = info[i + 1] end
end
local number = redis.call('GET', KEYS[2]) or '0'
local epoch, seen = string.match(redis.call('GET', KEYS[3]) or '', '^(%w+):(%d+)$')
if not epoch or epoch == ARGV[2] or tonumber(number) < tonumber(seen) then epoch = ARGV[1] end
-- It outlives the counter, which lives for 30 days after the stream.
local left = math.max(redis.call('PTTL', KEYS[2]), 0)
redis.call('SET', KEYS[3], epoch .. ':' .. number, 'PX', string.format('%.0f', left + 5184000000))
return {last, number, epoch}";

/// KEYS: dead, stream, counter. ARGV: id, group, milliseconds that it is kept at least.
const REPLAY: &str = "\
local body = redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1])
if #body == 0 then return 0 end
local is_new = redis.call('EXISTS', KEYS[2]) == 0
local entry = {'XADD', KEYS[2], '*'}
local fields = body[1][2]
for i = 1, #fields, 2 do
  local name, value = fields[i], fields[i + 1]
  if name == 'n' then value = redis.call('INCR', KEYS[3]) end
  if name ~= 'only' and string.sub(name, 1, 5) ~= 'dead.' then
    entry[#entry + 1] = name
    entry[#entry + 1] = value
  end
end
entry[#entry + 1] = 'only'
entry[#entry + 1] = ARGV[2]
redis.call(unpack(entry))
-- A stream that somebody keeps for ever stays so.
for i = 2, 3 do
  local left = redis.call('PTTL', KEYS[i])
  if (left >= 0 or is_new) and left < tonumber(ARGV[3]) then redis.call('PEXPIRE', KEYS[i], ARGV[3]) end
end
redis.call('XDEL', KEYS[1], ARGV[1])
return 1";
