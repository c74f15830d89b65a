-- What the scripts that publish share: numbering an event, keeping it in the history of a channel, and announcing it.
--
-- The sequence is the server's clock in microseconds, so that a server that lost its last writes does not give them
-- out again. Numbers of this size are only exact as strings: tostring() would round them.
local MAX_CHANNELS = 100000

local function number(meta, index, fresh, before)
    local known = redis.call('HMGET', meta, 'e', 's', 'x')
    local event = {epoch = known[1], forgotten = known[3]}
    local time = redis.call('TIME')
    local clock = time[1] * 1000000 + time[2]
    if event.epoch then
        clock = math.max(clock, known[2] + 1)
        if redis.call('EXISTS', index) == 0 then -- evicted, or nothing was published yet
            event.forgotten = known[2]
            redis.call('HSET', meta, 'x', event.forgotten)
        end
    else
        event.epoch = fresh
        redis.call('HSET', meta, 'e', fresh, 'o', before)
    end
    event.sequence = string.format('%.0f', clock)
    redis.call('HSET', meta, 's', event.sequence)
    return event
end

local function newest(stream)
    local entries = redis.pcall('XREVRANGE', stream, '+', '-', 'COUNT', 1)
    return entries[1] and string.match(entries[1][1], '^%d+')
end

local function keep(event, index, payload, name, stream, size, ttl)
    local previous = redis.call('ZSCORE', index, name)
    redis.call('ZADD', index, event.sequence, name)
    if size > 0 then
        local before = previous or newest(stream) or event.forgotten or '0'
        local function add()
            return redis.pcall('XADD', stream, 'MAXLEN', size, event.sequence .. '-0', 'p', before, 'd', payload)
        end
        if type(add()) == 'table' then -- an error: what is there is not ours, or from the future
            redis.call('DEL', stream)
            add()
        end
        if ttl > 0 then redis.call('PEXPIRE', stream, ttl) end
    end
    return event.epoch .. ' ' .. event.sequence .. ' ' .. (previous or '0') .. ' ' .. payload
end

-- The index is bounded. Whoever is not in it was last published to at `x` or before.
local function bound(meta, index)
    for _ = 1, redis.call('ZCARD', index) - MAX_CHANNELS do
        redis.call('HSET', meta, 'x', redis.call('ZPOPMIN', index)[2])
    end
end

