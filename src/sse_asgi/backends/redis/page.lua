-- Read on in several streams, as far as a merge in the order of the log needs it; or backward, for ids only.
--
-- KEYS: meta, index, the streams, in the order of the sequences from which they are to be read
-- ARGV: 1: the name of the index of joins and leaves
--       2: 1 to read forward, -1 to read backward
--       3: the sequence to read to; backward, 0
--       4, 5: stop reading after this many entries, or bytes
--       6: the most bytes to return of entries that are read before their turn
--       7: stop after this many bytes of work
--       8: how many entries of a stream to read first
--       9: the streams have all joins and leaves up to this sequence
--       10: how many channels may have later joins and leaves, then the names of these channels,
--       then for each stream a sequence: only entries after it are read; backward, only entries before it
-- Returns five things:
--       the fields of meta
--       the indexes of channels whose joins and leaves must be read as well; if there are any, no stream was read
--       the rows: the index of a stream, then its entries; backward, the ids of this library's entries
--       facts about streams: the index, the sequence from which to read on, the sequence of its channel before the
--       first entry, and the reason why that event is not there
--       the sequence up to which all entries of all streams were read; backward, from which on
--
-- The next stream is always the one that was read least far, so that its entries are needed soon. If too much would be
-- read before its turn, only the sequence of the stream's next entry is kept, and the stream rests until a later call
-- reaches it. The cost depends on the size of the reply, not on the number of streams.
local meta, index, joins = KEYS[1], KEYS[2], ARGV[1]
local direction, stop, limit, room = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local spare, work, few = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local checked, names = tonumber(ARGV[9]), tonumber(ARGV[10])
local MANY, LOOK, SLICE = 32, 256, 1000
local most = few == 1 and 1 or math.max(few, math.min(MANY, math.floor(2 * limit / #KEYS)))

local known = redis.call('HMGET', meta, 'e', 's', 'h', 'o', 'x', 'y', 'j')
local last = tonumber(known[2] or '') or 0
local problem

local function attended()
    local found, newest = {}, tonumber(known[7] or '') or 0
    if newest <= checked then return found end
    local count = redis.pcall('ZCARD', joins)
    if type(count) == 'table' then -- the cluster is moving the slot, and has moved this key
        problem = {err = 'TRYAGAIN ' .. count.err}
        return found
    end
    local forgotten = count == 0 and newest or tonumber(known[6] or '') or 0
    for first = 1, names, SLICE do
        local scores = redis.call('ZMSCORE', joins, unpack(ARGV, 10 + first, 10 + math.min(names, first + SLICE - 1)))
        for at, score in ipairs(scores) do
            if (tonumber(score or '') or forgotten) > checked then table.insert(found, first + at - 2) end
        end
    end
    return found
end

local found = attended()
if problem then return problem end
if #found > 0 then return {known, found, {}, {}, 0} end

-- Each stream's head: its index, and the place of its next entry, or a place before it. A stream that begins beyond the
-- end of the page, because older entries are expired, is read at the end: an event may be missing.
local heap, before, sorted = {}, -math.huge, true
for number = 1, #KEYS - 2 do
    local place = math.min(direction * tonumber(ARGV[10 + names + number]) + 1, stop)
    heap[number], sorted, before = {number = number, place = place}, sorted and before <= place, place
end
if not sorted then table.sort(heap, function(one, other) return one.place < other.place end) end

local command, finish = 'XRANGE', '+'
if direction < 0 then command, finish = 'XREVRANGE', '-' end
local base = string.len(meta) - 1
local count, size, spent, looked = 0, 0, 0, {}

local function open(head)
    local key = KEYS[head.number + 2]
    head.key, head.name, head.joins = key, string.sub(key, base + 3), string.sub(key, base + 1, base + 1) == 'j'
    head.start, head.count = ARGV[10 + names + head.number], few
    table.insert(looked, head)
end

local function look(head)
    if not head.key then open(head) end
    local entries = redis.pcall(command, head.key, '(' .. head.start, finish, 'COUNT', head.count)
    spent = spent + LOOK
    if not entries.err then return entries end
    if not string.find(entries.err, 'WRONGTYPE', 1, true) then problem = entries end
    head.foreign = true -- a key of another type is not of this library, and has no entries
    return {}
end

local function sequence(entry) return tonumber(string.match(entry[1], '^%d+')) end

-- Return the size of an entry, if it is of this library.
local function weigh(head, entry)
    local fields = entry[2] or {}
    if fields[1] ~= 'p' or fields[3] ~= 'd' then return nil end
    if not head.before and string.find(fields[2], '^%d+$') then head.before, head.reason = fields[2], 'trimmed' end
    return #fields[4]
end

-- Count how many of these entries to return.
local function choose(head, entries)
    local bytes = 0
    for at, entry in ipairs(entries) do
        local weight = weigh(head, entry) or 0
        spent, bytes = spent + weight, bytes + weight
        local due = at == 1 and direction * sequence(entry) == head.place
        if weight > spare and not due then return at - 1, bytes end
        spare, size = math.max(0, spare - weight), size + weight
    end
    return #entries, bytes
end

local read = {}
local function give(head, entries, chosen)
    if direction > 0 then
        for at = chosen + 1, #entries do entries[at] = nil end
        table.insert(read, {head.number - 1, entries})
    else
        local ids = {}
        for at = 1, chosen do
            if weigh(head, entries[at]) then table.insert(ids, {entries[at][1]}) end
        end
        table.insert(read, {head.number - 1, ids})
    end
end

while #heap > 0 and heap[1].place <= stop and count < limit and size < room and spent < work do
    local head = heap[1]
    local entries = look(head)
    if problem then return problem end
    local chosen, bytes = choose(head, entries)
    local following, full = entries[chosen + 1], #entries == head.count
    if following then
        head.place = direction * sequence(following)
    elseif full then
        head.place = direction * sequence(entries[chosen]) + 1
    else
        head.place, head.ended = direction > 0 and math.huge or 1, true
    end
    if chosen > 0 then
        head.start, count = entries[chosen][1], count + chosen
        give(head, entries, chosen)
    end
    head.count = math.max(1, math.min(head.count * 2, most, math.floor((room - size) * #entries / (bytes + 1))))
    sift(heap)
end

-- A stream without entries: the index has the last sequence of its channel.
local function miss(head)
    local score = string.match(redis.call('ZSCORE', head.joins and joins or index, head.name) or '', '^%d+$')
    local forgotten = known[head.joins and 6 or 5] or '0'
    local newest = not score and redis.pcall('XREVRANGE', head.key, '+', '-', 'COUNT', 1)
    head.before = score or newest[1] and string.match(newest[1][1], '^%d+') or forgotten
    head.reason = not head.foreign and redis.call('EXISTS', head.key) == 1 and 'trimmed' or 'evicted'
end

local learned, safe = {}, math.huge
for _, head in ipairs(looked) do
    if direction > 0 and not head.before and (head.ended or head.place > stop) then miss(head) end
    if direction < 0 or head.before then
        local since = string.format('%.0f', direction > 0 and math.min(head.place - 1, last) or 1 - head.place)
        table.insert(learned, {head.number - 1, since, head.before or false, head.reason or false})
    end
end
for _, head in ipairs(heap) do safe = math.min(safe, head.place - 1) end
if direction < 0 then return {known, found, read, learned, string.format('%.0f', math.max(0, -safe))} end
return {known, found, read, learned, string.format('%.0f', math.min(safe, stop))}
