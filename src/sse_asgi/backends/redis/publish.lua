-- Number one event, keep it in the history of each of its channels, and announce it: all of it or nothing.
--
-- KEYS: meta, index, the key to remember, then for each channel: its stream, its topic
-- ARGV: an epoch to begin with, the epoch that the caller knows, PUBLISH or SPUBLISH, seconds to remember (0: not),
--       the payload, then for each channel: its name, how many events it keeps, for how many milliseconds (0: for ever)
-- Returns the position, "<epoch>-<sequence>".
--
-- The sequence is the server's clock in microseconds, so that a server that lost its last writes does not give them
-- out again. Numbers of this size are only exact as strings: tostring() would round them.
local meta, index, memory = KEYS[1], KEYS[2], KEYS[3]
local verb, seconds, payload = ARGV[3], tonumber(ARGV[4]), ARGV[5]
local MAX_CHANNELS = 100000

if seconds > 0 then
    local first = redis.call('GET', memory)
    if first then return first end
end

local known = redis.call('HMGET', meta, 'e', 's', 'x')
local epoch, forgotten = known[1], known[3]
local time = redis.call('TIME')
local clock = time[1] * 1000000 + time[2]
if epoch then
    clock = math.max(clock, known[2] + 1)
    if redis.call('EXISTS', index) == 0 then -- evicted, or nothing was published yet
        forgotten = known[2]
        redis.call('HSET', meta, 'x', forgotten)
    end
else
    epoch = ARGV[1]
    redis.call('HSET', meta, 'e', epoch, 'o', ARGV[2])
end
local sequence = string.format('%.0f', clock)
redis.call('HSET', meta, 's', sequence)

local function newest(stream)
    local entries = redis.pcall('XREVRANGE', stream, '+', '-', 'COUNT', 1)
    return entries[1] and string.match(entries[1][1], '^%d+')
end

for channel = 0, (#KEYS - 3) / 2 - 1 do
    local stream, topic = KEYS[4 + channel * 2], KEYS[5 + channel * 2]
    local name, size, ttl = ARGV[6 + channel * 3], tonumber(ARGV[7 + channel * 3]), tonumber(ARGV[8 + channel * 3])
    local previous = redis.call('ZSCORE', index, name)
    redis.call('ZADD', index, sequence, name)
    if size > 0 then
        local before = previous or newest(stream) or forgotten or '0'
        local function add()
            return redis.pcall('XADD', stream, 'MAXLEN', size, sequence .. '-0', 'p', before, 'd', payload)
        end
        if type(add()) == 'table' then -- an error: what is there is not ours, or from the future
            redis.call('DEL', stream)
            add()
        end
        if ttl > 0 then redis.call('PEXPIRE', stream, ttl) end
    end
    redis.call(verb, topic, epoch .. ' ' .. sequence .. ' ' .. (previous or '0') .. ' ' .. payload)
end

-- The index is bounded. Whoever is not in it was last published to at `x` or before.
for _ = 1, redis.call('ZCARD', index) - MAX_CHANNELS do
    redis.call('HSET', meta, 'x', redis.call('ZPOPMIN', index)[2])
end

local position = epoch .. '-' .. sequence
if seconds > 0 then redis.call('SET', memory, position, 'EX', seconds) end
return position
