-- Follow the events of a channel, from one that its own stream has lost, back through the streams of other channels.
--
-- KEYS: the streams
-- ARGV: the channel, the sequence of the event, the sequence to stop at, stop after this many bytes of work
-- Returns a sequence, and 1 if none of the streams has its event; else 0, and the sequence to go on from.
--
-- An event of several channels names the previous sequence of each of them.
local channel, sequence, stop, work = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local LOOK = 256
local likely, spent = 0, 0

local function before(key)
    local entry = redis.pcall('XRANGE', key, sequence, sequence, 'COUNT', 1)[1]
    spent = spent + LOOK
    local fields = entry and entry[2] or {}
    for at = 1, #fields, 2 do
        spent = spent + #fields[at + 1]
        if fields[at] == 'q' then
            local read, names = pcall(cjson.decode, fields[at + 1])
            for name = 1, read and type(names) == 'table' and #names or 0, 2 do
                if names[name] == channel then return string.match(tostring(names[name + 1]), '^%d+$') end
            end
        end
    end
end

while tonumber(sequence) > stop and spent < work do
    local found
    for tried = 0, #KEYS - 1 do
        local number = (likely + tried) % #KEYS
        found = before(KEYS[number + 1])
        if found and tonumber(found) < tonumber(sequence) then
            likely = number
            break
        end
    end
    if not found then return {sequence, 1} end
    sequence = found
end
return {sequence, 0}
