-- What the scripts that publish share: numbering an event, keeping it in the history of a channel, and announcing it.
--
-- The sequence is the server's clock in microseconds, so that a server that lost its last writes does not give them
-- out again. Numbers of this size are only exact as strings: tostring() would round them.
--
-- Events have one index; joins and leaves have another one, and streams of their own, so that neither pushes the other
-- out. Both are numbered in one sequence.
local MAX_CHANNELS = 100000
-- What meta calls the last sequence that fell out of an index, and what it calls the last one that was put there.
local EVENTS, JOINS = {forgotten = 'x', newest = 'n'}, {forgotten = 'y', newest = 'j'}
local CHUNK = 16
-- How many channels give way to one event of one channel, and the part of a full stream that changes between two looks.
local GIVE_WAY, SLACK = 16, 16

local function exact(number) return string.format('%.0f', number) end

local function tally(name) return 'b:' .. name end

-- What a channel counts for in the sum `a` of all channels of the application, and how many events are added before its
-- stream is looked at again; a sorted set orders these channels by their last events. Workers of an earlier version change
-- neither: what they keep is counted at the channel's next event.
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

-- The index is bounded. A channel that is not in it was last published to at `forgotten` or before.
local function bound(meta, index, kind)
    for _ = 1, redis.call('ZCARD', index) - MAX_CHANNELS do
        local gone = redis.call('ZPOPMIN', index)
        redis.call('HSET', meta, kind.forgotten, gone[2])
        if kind == EVENTS then
            uncount(meta, gone[1])
            redis.pcall('ZREM', counted(meta), gone[1])
        end
    end
end

local function number(meta, index, kind, fresh, before)
    bound(meta, index, kind)
    local known = redis.call('HMGET', meta, 'e', 's', kind.forgotten, kind.newest)
    local event = {epoch = known[1], forgotten = known[3]}
    local time = redis.call('TIME')
    local clock = time[1] * 1000000 + time[2]
    if event.epoch then
        clock = math.max(clock, known[2] + 1)
        if known[4] and redis.call('EXISTS', index) == 0 then -- evicted
            event.forgotten = known[2]
            redis.call('HSET', meta, kind.forgotten, event.forgotten)
        end
    else
        event.epoch = fresh
        redis.call('HSET', meta, 'e', fresh, 'o', before)
    end
    event.sequence = exact(clock)
    redis.call('HSET', meta, 's', event.sequence, kind.newest, event.sequence)
    return event
end

local function newest(stream)
    local entries = redis.pcall('XREVRANGE', stream, '+', '-', 'COUNT', 1)
    return entries[1] and string.match(entries[1][1], '^%d+')
end

-- Go on after an error, once something is stored: the publisher hears of the first one in the end.
local function attempt(event, ...)
    local reply = redis.pcall(...)
    if type(reply) == 'table' and reply.err then event.problem = event.problem or reply.err end
    return reply
end

-- Find a channel's sequence before this event: as the index has it, and as far as it can be known without.
local function place(event, index, name, stream)
    local indexed = string.match(redis.call('ZSCORE', index, name) or '', '^%d+$') -- "inf" is not ours
    return {name = name, stream = stream, indexed = indexed, before = indexed or newest(stream) or event.forgotten or '0'}
end

local function field(entry, name)
    local fields = entry[2] or {}
    for at = 1, #fields, 2 do
        if fields[at] == name then return fields[at + 1] end
    end
end

local function weight(entry) return #(field(entry, 'd') or '') end

-- Each entry has the bytes of all its channel's events up to it in `t`, and meta has those of the newest, and those
-- before the oldest as far as that was looked at: the difference is the most that the stream can hold.

-- Count what an earlier version has kept, from the newest back, and drop what is too much.
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

-- Drop the oldest events until what is left fits; return the bytes of all before it.
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
            redis.call('DEL', stream) -- what is there is not ours, or from the future
        end
        redis.call('XADD', stream, 'MAXLEN', size, ...)
    end
end

-- Return the bytes of all events before the oldest that a full stream has, as far as it says so.
local function older(stream, total, before)
    local entry = redis.pcall('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
    local upto = entry and tonumber(field(entry, 't') or '')
    return upto and upto <= total and math.max(before, upto - weight(entry)) or before
end

-- Add an event to a stream whose bytes are counted, with more fields if there are any.
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
    if length == 1 then before = total - #payload end -- what expired counts no longer
    if total - before > bytes then
        before = #payload > bytes and total or fit(event, at.stream, total, before, bytes)
    elseif length == tonumber(size) and length > 1 then
        -- A full stream drops events that are not looked at: it counts for a little more, and is looked at now and then.
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

-- Bring the bytes of all channels down to the bound. The channels that were published to longest ago give way: they lose
-- their streams, and the index still knows their last events. A stream that has expired counts until its turn comes.
-- While a cluster moves the slot, what has moved already cannot be deleted, and nothing gives way.
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
    if #names == stop then return end -- the next events go on
    -- There are no others left, so that the sum is known, and events of several channels make room for themselves.
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
-- bytes: how many bytes of them; nil does not count them
-- previous: what each of the event's channels had before, if it has several
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
    attempt(event, 'ZADD', index, event.sequence, at.name)
    return event.epoch .. ' ' .. event.sequence .. ' ' .. (at.indexed or '0') .. ' ' .. payload
end
