-- What the scripts that publish share: numbering an event, keeping it in the history of a channel, and announcing it.
--
-- The sequence is the server's clock in microseconds, so that a server that lost its last writes does not give them
-- out again. Numbers of this size are only exact as strings: tostring() would round them.
local MAX_CHANNELS = 100000

-- The index is bounded. Whoever is not in it was last published to at `x` or before.
local function bound(meta, index)
    for _ = 1, redis.call('ZCARD', index) - MAX_CHANNELS do
        redis.call('HSET', meta, 'x', redis.call('ZPOPMIN', index)[2])
    end
end

local function number(meta, index, fresh, before)
    bound(meta, index)
    local known = redis.call('HMGET', meta, 'e', 's', 'x', 'n')
    local event = {epoch = known[1], forgotten = known[3]}
    local time = redis.call('TIME')
    local clock = time[1] * 1000000 + time[2]
    if event.epoch then
        clock = math.max(clock, known[2] + 1)
        if known[4] and redis.call('EXISTS', index) == 0 then -- evicted
            event.forgotten = known[2]
            redis.call('HSET', meta, 'x', event.forgotten)
        end
    else
        event.epoch = fresh
        redis.call('HSET', meta, 'e', fresh, 'o', before)
    end
    event.sequence = string.format('%.0f', clock)
    redis.call('HSET', meta, 's', event.sequence, 'n', 1)
    return event
end

local function newest(stream)
    local entries = redis.pcall('XREVRANGE', stream, '+', '-', 'COUNT', 1)
    return entries[1] and string.match(entries[1][1], '^%d+')
end

-- Go on after an error, once something is stored: whoever publishes hears of the first one in the end.
local function attempt(event, ...)
    local reply = redis.pcall(...)
    if type(reply) == 'table' and reply.err then event.problem = event.problem or reply.err end
end

local function keep(event, index, payload, name, stream, size, ttl)
    local previous = string.match(redis.call('ZSCORE', index, name) or '', '^%d+$') -- "inf" is not ours
    if size ~= '0' then
        local before = previous or newest(stream) or event.forgotten or '0'
        local function add(call)
            return call('XADD', stream, 'MAXLEN', size, event.sequence .. '-0', 'p', before, 'd', payload)
        end
        local added = add(redis.pcall)
        if type(added) == 'table' then -- an error
            local function says(text) return string.find(added.err, text, 1, true) end
            if says('WRONGTYPE') or says('equal or smaller') or says('exhausted') then
                redis.call('DEL', stream) -- what is there is not ours, or from the future
            end
            add(redis.call)
        end
        if ttl ~= '0' then attempt(event, 'PEXPIRE', stream, ttl) end
    end
    attempt(event, 'ZADD', index, event.sequence, name)
    return event.epoch .. ' ' .. event.sequence .. ' ' .. (previous or '0') .. ' ' .. payload
end
