-- Let a process that knows of a position find out whether this server still has everything up to it.
--
-- KEYS: meta
-- ARGV: an epoch to begin with, the server's run id, the position that is known: its epoch, its sequence
-- Returns the epoch.
--
-- Nobody publishes before fencing, so that `s` is exactly what the server had when it was first asked, and sequences
-- between it and the next one were given out by nobody but a server whose writes are lost. That is a hole, and `h` has
-- them all, for whoever comes back only after the server was lost again. Whoever is in one proves the loss: the log
-- then begins another life, and every reader is told. `o` is the life before; the sequence goes on.
local meta = KEYS[1]
local run, mine, known = ARGV[2], ARGV[3], tonumber(ARGV[4])
local MAX_HOLES = 32
local function exact(number) return string.format('%.0f', number) end

local stored = redis.call('HMGET', meta, 'e', 's', 'r', 'h')
local epoch, last, holes = stored[1], tonumber(stored[2] or 0), {}
for hole in string.gmatch(stored[4] or '', '%d+-%d+') do table.insert(holes, hole) end
local time = redis.call('TIME')
local clock = time[1] * 1000000 + time[2]

if not epoch then
    local first = exact(math.max(clock, known + 1))
    redis.call('HSET', meta, 'e', ARGV[1], 'o', mine, 's', first, 'r', run, 'h', '')
    return ARGV[1]
end
local lost = known > last
if stored[3] ~= run then
    local before = exact(last)
    last = math.max(clock, last + 1, known + 1)
    table.insert(holes, before .. '-' .. exact(last))
    if #holes > MAX_HOLES then -- the two oldest become one: better to tell too many than too few
        local oldest = table.remove(holes, 1)
        holes[1] = string.match(oldest, '%d+') .. string.match(holes[1], '-%d+')
    end
    redis.call('HSET', meta, 's', exact(last), 'r', run, 'h', table.concat(holes, ' '))
end
for _, hole in ipairs(holes) do
    local first, following = string.match(hole, '(%d+)-(%d+)')
    lost = lost or (tonumber(first) < known and known < tonumber(following))
end
if mine == epoch and lost then
    redis.call('HSET', meta, 'o', epoch, 'e', ARGV[1], 's', exact(math.max(last, known + 1)), 'h', '')
    return ARGV[1]
end
return epoch
