-- Let a process that knows of a position find out whether this server still has everything up to it.
--
-- KEYS: meta
-- ARGV: an epoch to begin with, the server's run id, the position that is known: its epoch, its sequence
-- Returns the epoch.
--
-- Nobody publishes before fencing, so that `f` is exactly what the server had when it was first asked, and sequences
-- between `f` and `g` were given out by nobody but a server whose writes are lost. Whoever knows of one proves the
-- loss: the log then begins another life, and every reader is told. `o` is the life before; the sequence goes on.
local meta = KEYS[1]
local run, mine, known = ARGV[2], ARGV[3], tonumber(ARGV[4])
local function exact(number) return string.format('%.0f', number) end

local stored = redis.call('HMGET', meta, 'e', 's', 'r', 'f', 'g')
local epoch, last, f, g = stored[1], tonumber(stored[2] or 0), tonumber(stored[4] or 0), tonumber(stored[5] or 0)
local time = redis.call('TIME')
local clock = time[1] * 1000000 + time[2]

if not epoch then
    local first = exact(math.max(clock, known + 1))
    redis.call('HSET', meta, 'e', ARGV[1], 'o', mine, 's', first, 'r', run, 'f', 0, 'g', 0)
    return ARGV[1]
end
if stored[3] ~= run then
    f = last
    g = math.max(clock, last + 1, known + 1)
    last = g
    redis.call('HSET', meta, 's', exact(last), 'r', run, 'f', exact(f), 'g', exact(g))
end
if mine == epoch and known > f and (known < g or known > last) then
    redis.call('HSET', meta, 'o', epoch, 'e', ARGV[1], 's', exact(math.max(last, known + 1)), 'f', 0, 'g', 0)
    return ARGV[1]
end
return epoch
