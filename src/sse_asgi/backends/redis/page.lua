-- Read the next entries of several streams, merged in the order of the log, or only where the newest of them are.
--
-- KEYS: meta, index, the streams, in the order of the sequences from which they are to be read
-- ARGV: 1: the name of the index of joins and leaves
--       2: 1 to read forward, -1 to read backward, which returns no payloads, and counts only entries of this library
--       3: the sequence to read to; backward, 0
--       4, 5: the most entries and the most bytes to return
--       6: the most bytes to return of what was looked at too early
--       7: the bytes after which to look at no more
--       8: how many entries of a stream to look at first
--       9: all joins and leaves up to this sequence are among the streams
--       10: how many channels may have later joins and leaves that are not, then the names of these channels,
--       then for each stream a sequence: only entries after it are read; backward, only entries before it
-- Returns five things:
--       what meta says
--       the numbers of the channels whose joins and leaves must be read as well; if there are any, nothing was read
--       the entries: the number of the stream, the id, the fields p, d and q
--       what was learned of streams: the number, the sequence from which to read on, what its channel had before the
--       first entry, and why that is not there
--       the sequence up to which all entries of all streams were returned, or that to read to; backward, 1 at the end
--
-- A stream is looked at only where the merge arrives at it, so that the cost depends on what is returned. What was looked
-- at too early is returned as well as long as it is little. Else the stream is known by the sequence of its next entry, and rests
-- until a later page arrives there.
local meta, index, joins = KEYS[1], KEYS[2], ARGV[1]
local direction, stop, limit, room = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local spare, work, few = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local checked, names = tonumber(ARGV[9]), tonumber(ARGV[10])
local MANY, LOOK, SLICE = 32, 256, 1000
local most = math.max(few, math.min(MANY, math.floor(2 * limit / #KEYS)))

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

-- Each stream's head: its number, and the place of its next entry, or one before it. A stream that begins beyond what is
-- to be read, because older entries are expired, is looked at in the end: something may be missing.
local heap = {}
for number = 1, #KEYS - 2 do
    heap[number] = {number = number, place = math.min(direction * tonumber(ARGV[10 + names + number]) + 1, stop)}
end

local base = string.len(meta) - 1
local function open(head)
    local key = KEYS[head.number + 2]
    head.key, head.name, head.joins = key, string.sub(key, base + 3), string.sub(key, base + 1, base + 1) == 'j'
    head.start, head.count = ARGV[10 + names + head.number], few
end

-- Make a row of an entry; one that is not of this library may have any fields, and has no payload then.
local function read(head, entry)
    local id, fields = entry[1], entry[2] or {}
    local before, payload, several
    if fields[1] == 'p' and fields[3] == 'd' then
        before, payload = fields[2], fields[4]
        several = fields[5] == 'q' and fields[6] or fields[7] == 'q' and fields[8] or nil
    end
    if not (before and string.find(before, '^%d+$')) then return {head.number - 1, id, false, ''} end
    if not head.before then head.before, head.reason = before, 'trimmed' end
    return {head.number - 1, id, before, payload, several}
end

local command, finish = 'XRANGE', '+'
if direction < 0 then command, finish = 'XREVRANGE', '-' end
local spent, size = 0, 0

local looked = {}
local function look(head)
    if not head.rows then
        open(head)
        table.insert(looked, head)
    end
    local entries = redis.pcall(command, head.key, '(' .. head.start, finish, 'COUNT', head.count)
    if entries.err then
        if not string.find(entries.err, 'WRONGTYPE', 1, true) then problem = entries end
        entries, head.foreign = {}, true
    end
    local bytes = LOOK
    for at, entry in ipairs(entries) do
        local row = read(head, entry)
        entries[at], bytes = row, bytes + #row[4]
    end
    spent = spent + bytes
    head.rows, head.at, head.more = entries, 1, #entries == head.count
    head.count = math.max(1, math.min(head.count * 2, most, math.floor((room - size) * head.count / bytes)))
end

local function sequence(id) return tonumber(string.match(id, '^%d+')) end

-- Find the place of a stream's next entry, or one before it.
local function settle(head)
    local row = head.rows[head.at]
    if row then
        head.place = direction * sequence(row[2])
    elseif head.more then
        head.place = direction * sequence(head.start) + 1
    else
        head.place = direction > 0 and math.huge or 1
    end
end

local rows, place = {}, nil
while #heap > 0 and heap[1].place <= stop and not problem do
    local head = heap[1]
    local row = head.rows and head.rows[head.at]
    if row then
        -- An event of several channels is in several streams, and returned once.
        if head.place ~= place then
            local bytes = #row[4]
            if #rows >= limit or (#rows > 0 and size + bytes > room) then break end
            if direction > 0 then
                table.insert(rows, row)
                size = size + bytes
            elseif row[3] then
                table.insert(rows, {row[1], row[2]})
            end
            place = head.place
        end
        head.start, head.at = row[2], head.at + 1
    else
        if spent >= work then break end
        look(head)
    end
    settle(head)
    sift(heap)
end
if problem then return problem end

-- Of a stream that has nothing, its channel's last sequence is what there was.
local function miss(head)
    local score = string.match(redis.call('ZSCORE', head.joins and joins or index, head.name) or '', '^%d+$')
    local forgotten = known[head.joins and 6 or 5] or '0'
    local newest = not score and redis.pcall('XREVRANGE', head.key, '+', '-', 'COUNT', 1)
    head.before = score or newest[1] and string.match(newest[1][1], '^%d+') or forgotten
    head.reason = not head.foreign and redis.call('EXISTS', head.key) == 1 and 'trimmed' or 'evicted'
end

-- Return what was looked at too early, if it is little.
local function clear(head)
    local bytes = 0
    for at = head.at, #head.rows do bytes = bytes + #head.rows[at][4] end
    if bytes <= spare then
        for at = head.at, #head.rows do table.insert(rows, head.rows[at]) end
        spare, head.start, head.at = spare - bytes, head.rows[#head.rows][2], #head.rows + 1
        settle(head)
    end
end

local learned, safe = {}, math.huge
for _, head in ipairs(looked) do
    if direction > 0 then
        local row = head.rows[head.at]
        if not head.before and (not row and not head.more or row and head.place > stop) then miss(head) end
        if row and head.before then clear(head) end
    end
    if direction < 0 or head.before then
        local since = direction > 0 and math.min(head.place - 1, last) or 1 - head.place
        table.insert(learned, {head.number - 1, string.format('%.0f', since), head.before or false, head.reason or false})
    end
end
for _, head in ipairs(heap) do safe = math.min(safe, head.place - 1) end
if direction < 0 then return {known, found, rows, learned, safe >= stop and '1' or '0'} end
return {known, found, rows, learned, string.format('%.0f', math.min(safe, stop))}
