-- Read the next entries of several streams, merged in the order of the log, or only where the newest of them are.
--
-- KEYS: meta, index, the streams, in the order of the sequences from which they are to be read
-- ARGV: 1: the name of the index of joins and leaves
--       2: 1 to read forward, -1 to read backward, which returns no payloads, and counts only entries of this library
--       3: the sequence to read to; backward, 0
--       4, 5: the most entries and the most bytes to return
--       6: the bytes after which to look at no more
--       7: all joins and leaves up to this sequence are among the streams
--       8: how many channels may have later joins and leaves that are not, then the names of these channels,
--       then for each stream: the name of its channel, its index (i: events, j: joins and leaves), and a sequence: only
--       entries after it are read; backward, only entries before it
-- Returns five things:
--       what meta says
--       the numbers of the channels whose joins and leaves must be read as well; if there are any, nothing was read
--       the entries: the number of the stream, the id, the fields p, d and q
--       what was learned of streams: the number, the sequence from which to read on, what its channel had before the
--       first entry, and why that is not there
--       1 if there is nothing more to read
--
-- A stream is looked at only where the merge arrives at it, so that the cost depends on what is returned. A stream that
-- was looked at too early is known by the sequence of its next entry, and rests until a later page arrives there.
local meta, index, joins = KEYS[1], KEYS[2], ARGV[1]
local direction, stop, limit, room = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local work, checked, names = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local FEW, MANY, LOOK, SLICE = 8, 32, 256, 1000
local few = math.max(1, math.min(FEW, math.floor(limit / #KEYS)))

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
        local scores = redis.call('ZMSCORE', joins, unpack(ARGV, 8 + first, 8 + math.min(names, first + SLICE - 1)))
        for at, score in ipairs(scores) do
            if (tonumber(score or '') or forgotten) > checked then table.insert(found, first + at - 2) end
        end
    end
    return found
end

local found = attended()
if problem then return problem end
if #found > 0 then return {known, found, {}, {}, 0} end

local heap, streams = {}, {}
for number = 1, #KEYS - 2 do
    local name, its, start = unpack(ARGV, 6 + names + number * 3, 8 + names + number * 3)
    local head = {number = number - 1, key = KEYS[number + 2], name = name, joins = its == 'j', start = start}
    head.place, head.count, head.more = direction * tonumber(start) + 1, few, true
    heap[number], streams[number] = head, head
end

-- An entry that is not of this library may have any fields.
local function read(entry)
    local one = {id = entry[1], sequence = tonumber(string.match(entry[1], '^%d+'))}
    local fields = entry[2] or {}
    for at = 1, #fields, 2 do one[fields[at]] = fields[at + 1] end
    one.ours = one.d and string.find(one.p or '', '^%d+$')
    return one
end

local command, finish = 'XRANGE', '+'
if direction < 0 then command, finish = 'XREVRANGE', '-' end
local spent, size = 0, 0

local function look(head)
    local entries = redis.pcall(command, head.key, '(' .. head.start, finish, 'COUNT', head.count)
    if entries.err then
        if not string.find(entries.err, 'WRONGTYPE', 1, true) then problem = entries end
        entries, head.foreign = {}, true
    end
    local bytes = LOOK
    for at, entry in ipairs(entries) do
        entries[at] = read(entry)
        bytes = bytes + #(entries[at].d or '')
        if entries[at].ours and not head.before then head.before, head.reason = entries[at].p, 'trimmed' end
    end
    spent = spent + bytes
    head.entries, head.at, head.more = entries, 1, #entries == head.count
    head.count = math.max(1, math.min(head.count * 2, MANY, math.floor((room - size) * head.count / bytes)))
end

-- Find the place of a stream's next entry, or one before it.
local function settle(head)
    local entry = head.entries[head.at]
    if entry then
        head.place = direction * entry.sequence
    elseif head.more then
        head.place = direction * tonumber(string.match(head.start, '^%d+'))
    else
        head.place = direction > 0 and math.huge or 1
    end
    sift(heap)
end

local rows, place = {}, nil
while #heap > 0 and heap[1].place <= stop and not problem do
    local head = heap[1]
    local entry = head.entries and head.entries[head.at]
    if entry then
        -- An event of several channels is in several streams, and in one page once.
        if head.place ~= place then
            local bytes = #(entry.d or '')
            if #rows >= limit or (#rows > 0 and size + bytes > room) then break end
            if direction > 0 then
                table.insert(rows, {head.number, entry.id, entry.p or false, entry.d or false, entry.q})
                size = size + bytes
            elseif entry.ours then
                table.insert(rows, {head.number, entry.id})
            end
            place = head.place
        end
        head.start, head.at = entry.id, head.at + 1
    else
        if spent >= work then break end
        look(head)
    end
    settle(head)
end
if problem then return problem end
local done = #heap == 0 or heap[1].place > stop

-- Of a stream that has nothing, its channel's last sequence is what there was.
local function miss(head)
    local score = string.match(redis.call('ZSCORE', head.joins and joins or index, head.name) or '', '^%d+$')
    local forgotten = known[head.joins and 6 or 5] or '0'
    local newest = not score and redis.pcall('XREVRANGE', head.key, '+', '-', 'COUNT', 1)
    head.before = score or newest[1] and string.match(newest[1][1], '^%d+') or forgotten
    head.reason = not head.foreign and redis.call('EXISTS', head.key) == 1 and 'trimmed' or 'evicted'
end

local learned = {}
for _, head in ipairs(streams) do
    local entry = head.entries and head.entries[head.at]
    local ends = head.entries and not head.more and not entry
    if direction > 0 and not head.before and (ends or entry and done) then miss(head) end
    if head.entries and (direction < 0 or head.before) then
        local since = direction > 0 and math.min(head.place - 1, last) or 1 - head.place
        table.insert(learned, {head.number, string.format('%.0f', since), head.before or false, head.reason or false})
    end
end
return {known, found, rows, learned, done and 1 or 0}
