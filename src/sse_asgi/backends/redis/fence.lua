-- Check that this server still has everything up to a position that a process knows.
--
-- KEYS: meta
-- ARGV: an epoch to begin with, the server's run id, the known position: its epoch, its sequence
-- Returns the epoch.
--
-- No process publishes before it has fenced, so that `s` is exactly the last sequence that the server had when the
-- first process came. A sequence between `s` and the next one was given out only by a server whose writes are lost.
-- Such a span is a hole, and `h` has all holes, for processes that come back after several losses. A position in a hole
-- proves the loss: the log then begins another life, and every reader gets a gap. `o` is the epoch before; the sequence
-- goes on.
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
    if #holes > MAX_HOLES then -- the two oldest become one: a gap too many is better than a silent loss
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
