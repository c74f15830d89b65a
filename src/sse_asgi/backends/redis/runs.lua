-- Shared by the scripts of runs, whose states and transitions are at the head of `_log/run.py`.
--
-- A run is a hash: `s` state, `o` owner, `f` fingerprint, `b` the sequence before its first event, `l` that of its last
-- event, `n` how many events the owner has appended, `r` why it ended, `t` milliseconds that it is kept after its end,
-- `z` who ended it. Its events are in the stream of its channel. The schedule, a sorted set, has for each run the time
-- when its lease ends, or when it is forgotten.
local PREFIX = 'sse.run:'
local MOST = '1000000000' -- events of one run, which its owner bounds

local function clock()
    local time = redis.call('TIME')
    return time[1] + time[2] / 1000000
end

-- All names of one run, and what its events need.
local function run_of(base, key, verb, fresh, before)
    local name = PREFIX .. key
    return {
        key = key, name = name, hash = base .. 'r:' .. key, stream = base .. 's:' .. name, topic = base .. 'c:' .. name,
        schedule = base .. 'q', meta = base .. 'm', index = base .. 'i', verb = verb, fresh = fresh, before = before,
    }
end

local function record(run)
    local fields = redis.call('HMGET', run.hash, 's', 'o', 'f', 'b', 'l', 'n', 'r')
    if not fields[1] then return nil end
    return {state = fields[1], owner = fields[2], appended = tonumber(fields[6]), fields = fields}
end

-- The reply for a record: the epoch, then its fields.
local function reply(run)
    local found = record(run)
    return found and {redis.call('HGET', run.meta, 'e') or '', unpack(found.fields)}
end

-- Store and announce one event. Before the first one, the index has the sequence where the run began, which is no event
-- that a reader could have missed.
local function write(run, payload, is_first)
    local event = number(run.meta, run.index, EVENTS, run.fresh, run.before)
    local at = place(event, run.meta, run.index, run.name, run.stream)
    if is_first then at.indexed = nil end
    local message = keep(event, run.meta, run.index, payload, at, MOST, '0')
    attempt(event, run.verb, run.topic, message)
    return event
end

-- Keep a run that is running for as long as somebody renews it; without that it is gone `ttl` after its lease.
local function renew(run, lease, ttl)
    redis.call('ZADD', run.schedule, string.format('%.3f', clock() + lease), run.key)
    local most = exact(ttl + 2000 * lease)
    redis.call('PEXPIRE', run.hash, most)
    redis.call('PEXPIRE', run.stream, most)
end

local function begin(run, owner, fingerprint, lease, ttl)
    local event = number(run.meta, run.index, EVENTS, run.fresh, run.before)
    place(event, run.meta, run.index, run.name, run.stream) -- fails, before the run is there, if the index is not ours
    redis.call('DEL', run.stream)
    list(event, run.meta, run.index, run.name)
    redis.call('HSET', run.hash, 's', 'running', 'o', owner, 'f', fingerprint, 'b', event.sequence, 'l', event.sequence,
        'n', 0, 'r', '', 't', ttl)
    renew(run, tonumber(lease), tonumber(ttl))
end

local function finish(run, state, reason, payload, who)
    local known = redis.call('HMGET', run.hash, 't', 'n')
    local event, ttl = write(run, payload, known[2] == '0'), known[1]
    redis.call('HSET', run.hash, 's', state, 'r', reason, 'l', event.sequence, 'z', who)
    redis.call('ZADD', run.schedule, string.format('%.3f', clock() + ttl / 1000), run.key)
    redis.call('PEXPIRE', run.hash, ttl)
    redis.call('PEXPIRE', run.stream, ttl)
    return event.problem
end

local function forget(run)
    redis.call('DEL', run.hash, run.stream)
    redis.call('ZREM', run.index, run.name)
    redis.call('ZREM', run.schedule, run.key)
end
