-- Shared by the scripts that publish: number an event, keep it in the history of a channel, and announce it.
--
-- The sequence is the server's clock in microseconds, so that a server that lost its last writes does not give out
-- their sequences again. Numbers of this size are exact only as strings: tostring() would round them.
--
-- Events have one index. Joins and leaves have another index, and streams of their own, so that neither kind pushes the
-- other out. Both kinds are numbered in one sequence.
local MAX_CHANNELS = 100000
-- The fields of meta for the last sequence that fell out of an index, and for the last one that was put there.
local EVENTS, JOINS = {forgotten = 'x', newest = 'n'}, {forgotten = 'y', newest = 'j'}
local CHUNK = 16
-- How many channels lose their streams for one event of one channel; the part (1/SLACK) of a full stream that may
-- change before its bytes are counted again.
local GIVE_WAY, SLACK = 16, 16

local function exact(number) return string.format('%.0f', number) end

local function tally(name) return 'b:' .. name end

-- A channel's share of `a`, the sum of all channels of the application, and how many events are added before its bytes
-- are counted again. A sorted set orders these channels by their last events. Processes of an earlier version change
-- neither: their events are counted at the channel's next event.
local function share(name) return 'c:' .. name end
local function counted(meta) return string.sub(meta, 1, -2) .. 'a' end

local function uncount(meta, name)
    local known = redis.pcall('HMGET', meta, 'a', share(name))
    redis.pcall('HDEL', meta, tally(name), share(name))
    local part = string.match(known[2] or '', '^%d+')
    local all = math.max(0, (tonumber(known[1] or '') or 0) - (part or 0))
    if part then redis.pcall('HSET', meta, 'a', exact(all)) end
    return all
end

-- Go on after an error once an event is stored. The publisher gets the first error at the end.
local function attempt(event, ...)
    local reply = redis.pcall(...)
    if type(reply) == 'table' and reply.err then event.problem = event.problem or reply.err end
    return reply
end

-- Put a channel's last sequence in the index, and bound the index. A channel that is not in it was last published to at
-- `forgotten` or before.
local function list(event, meta, index, name)
    if attempt(event, 'ZADD', index, event.sequence, name) ~= 1 then return end -- it was there, as nearly always
    for _ = 1, redis.call('ZCARD', index) - MAX_CHANNELS do
        local gone = attempt(event, 'ZPOPMIN', index)
        if gone.err then return end
        attempt(event, 'HSET', meta, event.kind.forgotten, gone[2])
        if event.kind == EVENTS then
            local all = uncount(meta, gone[1])
            event.all = event.all and all
            redis.pcall('ZREM', counted(meta), gone[1])
        end
    end
end

local function number(meta, index, kind, fresh, before)
    local known = redis.call('HMGET', meta, 'e', 's', kind.forgotten, kind.newest)
    local event = {epoch = known[1], kind = kind, forgotten = known[3], last = known[4] and known[2]}
    local time = redis.call('TIME')
    local clock = time[1] * 1000000 + time[2]
    if event.epoch then
        clock = math.max(clock, known[2] + 1)
    else
        event.epoch = fresh
        redis.call('HSET', meta, 'e', fresh, 'o', before)
    end
    event.sequence = exact(clock)
    redis.call('HSET', meta, 's', event.sequence, kind.newest, event.sequence)
    return event
end

-- Notice an index that was evicted: each of its channels was last published to at the last sequence or before.
local function notice(event, meta, index)
    if event.last and redis.call('EXISTS', index) == 0 then
        event.forgotten = event.last
        redis.call('HSET', meta, event.kind.forgotten, event.forgotten)
    end
    event.last = nil
end

local function newest(stream)
    local entries = redis.pcall('XREVRANGE', stream, '+', '-', 'COUNT', 1)
    return entries[1] and string.match(entries[1][1], '^%d+')
end

-- Find the sequence of a channel's event before this one: from the index, or from the best other source.
local function place(event, meta, index, name, stream)
    local indexed = string.match(redis.call('ZSCORE', index, name) or '', '^%d+$') -- "inf" is not ours
    if not indexed then notice(event, meta, index) end
    local before = indexed or newest(stream) or event.forgotten or '0'
    return {name = name, stream = stream, indexed = indexed, before = before}
end

local function field(entry, name)
    local fields = entry[2] or {}
    for at = 1, #fields, 2 do
        if fields[at] == name then return fields[at + 1] end
    end
end

local function weight(entry) return #(field(entry, 'd') or '') end

-- Each entry has in `t` the bytes of all its channel's events up to it. meta has the bytes up to the newest event, and
-- those before the oldest event that was counted: the difference is the most that the stream can hold.

-- Count the entries of an earlier version, from the newest back, and drop those beyond the bound.
local function count(event, stream, bytes)
    local total, from = 0, '+'
    while true do
        local entries = redis.pcall('XREVRANGE', stream, from, '-', 'COUNT', CHUNK)
        for _, entry in ipairs(entries) do
            local counted = from == '+' and total == 0 and tonumber(field(entry, 't') or '')
            if counted then return counted end
            total = total + weight(entry)
            if total > bytes then
                attempt(event, 'XTRIM', stream, 'MINID', exact(tonumber(string.match(entry[1], '^%d+')) + 1))
                return total - weight(entry)
            end
            from = '(' .. entry[1]
        end
        if #entries < CHUNK then return total end
    end
end

-- Drop the oldest events until the others fit; return the bytes of all events before those.
local function fit(event, stream, total, before, bytes)
    local dropped, from = nil, '-'
    while total - before > bytes do
        local entry = redis.pcall('XRANGE', stream, from, '+', 'COUNT', 1)[1]
        if not entry then
            before = total
        else
            local upto, size = tonumber(field(entry, 't') or ''), weight(entry)
            if upto and upto <= total then before = upto - size end
            if total - before > bytes then
                before, dropped, from = before + size, entry[1], '(' .. entry[1]
            end
        end
    end
    if dropped then
        attempt(event, 'XTRIM', stream, 'MINID', exact(tonumber(string.match(dropped, '^%d+')) + 1))
    end
    return before
end

local function add(stream, size, ...)
    local added = redis.pcall('XADD', stream, 'MAXLEN', size, ...)
    if type(added) == 'table' then -- an error
        local function says(text) return string.find(added.err, text, 1, true) end
        if says('WRONGTYPE') or says('equal or smaller') or says('exhausted') then
            redis.call('DEL', stream) -- the key is not of this library, or its last entry is from the future
        end
        redis.call('XADD', stream, 'MAXLEN', size, ...)
    end
end

-- Return the bytes of all events before the oldest entry of a full stream, if the entry has them.
local function older(stream, total, before)
    local entry = redis.pcall('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
    local upto = entry and tonumber(field(entry, 't') or '')
    return upto and upto <= total and math.max(before, upto - weight(entry)) or before
end

-- Add an event, with further fields, to a stream whose bytes are counted.
local function weigh(event, meta, payload, at, size, bytes, ...)
    local known = redis.call('HMGET', meta, tally(at.name), share(at.name), 'a')
    local told, from = string.match(known[1] or '', '^(%d+) (%d+)$')
    local had, wait = string.match(known[2] or '', '^(%d+) (%d+)$')
    had, wait = tonumber(had or 0), tonumber(wait or 0)
    local total, before = tonumber(told or count(event, at.stream, bytes)) + #payload, tonumber(from or 0)
    local text = exact(total)
    if #payload > bytes then size = 0 end
    add(at.stream, size, event.sequence .. '-0', 'p', at.before, 'd', payload, 't', text, ...)
    local length, part, looks = redis.pcall('XLEN', at.stream), nil, 0
    if length == 1 then before = total - #payload end -- expired events count no longer
    if total - before > bytes then
        before = #payload > bytes and total or fit(event, at.stream, total, before, bytes)
    elseif length == tonumber(size) and length > 1 then
        -- A full stream drops events whose bytes are not read: it counts for a bit more, and is counted now and then.
        if wait > 0 and total - before <= had then
            part, looks = had, wait - 1
        else
            before, looks = older(at.stream, total, before), math.floor(length / SLACK)
            part = total - before
            if looks > 0 then part = math.min(bytes, part + math.floor(part / SLACK)) end
        end
    end
    local sums = text .. ' ' .. exact(before)
    if not event.bound then
        attempt(event, 'HSET', meta, tally(at.name), sums)
        return
    end
    at.total, at.dropped, at.part = total, before, part or total - before
    event.all = math.max(0, (tonumber(known[3] or '') or 0) - had) + at.part
    local part_and_wait = exact(at.part) .. ' ' .. looks
    attempt(event, 'HSET', meta, tally(at.name), sums, share(at.name), part_and_wait, 'a', exact(event.all))
    redis.pcall('ZADD', counted(meta), event.sequence, at.name)
end

-- Bring the bytes of all channels down to the bound. The channels that were published to longest ago lose their
-- streams, and the index still has their last sequences. A stream that has expired counts until its turn comes. While a
-- cluster moves the slot, a stream that has moved cannot be deleted, and no channel loses its stream.
local function relieve(event, meta, payload, places)
    if not event.all or event.all <= event.bound then return end
    local own, stop = {}, GIVE_WAY * #places + #places
    for _, at in ipairs(places) do own[at.name] = at end
    local names = redis.pcall('ZRANGE', counted(meta), 0, stop - 1)
    if names.err then return end
    for _, name in ipairs(names) do
        if event.all <= event.bound then return end
        if not own[name] then
            if type(redis.pcall('DEL', string.sub(meta, 1, -2) .. 's:' .. name)) == 'table' then return end
            event.all = uncount(meta, name)
            attempt(event, 'ZREM', counted(meta), name)
        end
    end
    if #names == stop then return end -- the next event continues
    -- No other channels are left, so that the sum is known. The channels of this event drop their own oldest events.
    event.all = 0
    for _, at in ipairs(places) do event.all = event.all + (at.part or 0) end
    for _, at in ipairs(places) do
        local excess, part = event.all - event.bound, at.part or 0
        local bytes = math.max(#payload, part - excess)
        if excess > 0 and part > bytes then
            at.dropped = fit(event, at.stream, at.total, at.dropped, bytes)
            at.part = at.total - at.dropped
            event.all = event.all - part + at.part
            local sums = exact(at.total) .. ' ' .. exact(at.dropped)
            attempt(event, 'HSET', meta, tally(at.name), sums, share(at.name), exact(at.part) .. ' 0')
        end
    end
    attempt(event, 'HSET', meta, 'a', exact(event.all))
end

-- Keep an event at a place in its channel's history.
--
-- size, ttl: how many events the channel keeps, and for how many milliseconds
-- bytes: how many bytes of events it keeps; nil does not count them
-- previous: the previous sequence of each of the event's channels, if it has several
local function keep(event, meta, index, payload, at, size, ttl, bytes, previous)
    if size ~= '0' then
        if not bytes then
            add(at.stream, size, event.sequence .. '-0', 'p', at.before, 'd', payload)
        elseif previous then
            weigh(event, meta, payload, at, size, bytes, 'q', previous)
        else
            weigh(event, meta, payload, at, size, bytes)
        end
        if ttl ~= '0' then attempt(event, 'PEXPIRE', at.stream, ttl) end
    end
    list(event, meta, index, at.name)
    return event.epoch .. ' ' .. event.sequence .. ' ' .. (at.indexed or '0') .. ' ' .. payload
end
