-- Update the members that a process has listed, and publish joins and leaves. Processes whose lease ran out are dead.
--
-- KEYS: meta, the index of joins and leaves, the leases of all processes, the members of this one
-- ARGV: an epoch to begin with, the epoch that the caller knows, PUBLISH or SPUBLISH, 1 if the hub keeps history,
--       the beginning of the hub's names, the process ("": none), seconds of its lease, 1 to remove processes whose
--       lease has run out (else: ran out long ago), how many members enter, those members, then those that leave
-- Returns how many members the process has now.
--
-- A member is "<events that its channel keeps> <for how many milliseconds>\n<identity as JSON>\n<channel>". The hash of
-- a channel counts, for each identity, the processes that have it. All names are of one slot.
local meta, index, leases, mine = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local verb, keeps, base, process, lease = ARGV[3], ARGV[4] == '1', ARGV[5], ARGV[6], ARGV[7]
local LONG = 60
local AT_ONCE = 500

local function announce(kind, identity, channel, size, ttl)
    local payload = '\nevent: sse.' .. kind .. '\ndata: {"identity":' .. identity .. '}\n\n'
    local message = '- 0 0 ' .. payload
    if keeps then
        local event = number(meta, index, JOINS, ARGV[1], ARGV[2])
        local at = place(event, meta, index, channel, base .. 'j:' .. channel)
        message = keep(event, meta, index, payload, at, size, ttl)
    end
    redis.call(verb, base .. 'c:' .. channel, message)
end

local function come(member)
    local size, ttl, identity, channel = string.match(member, '^(%d+) (%d+)\n(.-)\n(.*)$')
    local count = redis.call('HINCRBY', base .. 'p:' .. channel, identity, 1)
    if count == 1 then announce('join', identity, channel, size, ttl) end
end

local function go(member)
    local size, ttl, identity, channel = string.match(member, '^(%d+) (%d+)\n(.-)\n(.*)$')
    local here = base .. 'p:' .. channel
    if redis.call('HINCRBY', here, identity, -1) <= 0 then
        redis.call('HDEL', here, identity)
        announce('leave', identity, channel, size, ttl)
    end
end

local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
if process ~= '' then redis.call('ZADD', leases, string.format('%.3f', now + lease), process) end

local horizon = string.format('%.3f', ARGV[8] == '1' and now or now - LONG)
local left = AT_ONCE
for _, gone in ipairs(redis.call('ZRANGEBYSCORE', leases, '-inf', '(' .. horizon, 'LIMIT', 0, AT_ONCE)) do
    local theirs = base .. 'w:' .. gone
    local members = left > 0 and redis.call('SPOP', theirs, left) or {}
    for _, member in ipairs(members) do go(member) end
    left = left - #members
    if redis.call('EXISTS', theirs) == 0 then redis.call('ZREM', leases, gone) end
end

for argument = 10, #ARGV do
    if argument < 10 + ARGV[9] then
        if redis.call('SADD', mine, ARGV[argument]) == 1 then come(ARGV[argument]) end
    elseif redis.call('SREM', mine, ARGV[argument]) == 1 then
        go(ARGV[argument])
    end
end
return redis.call('SCARD', mine)
