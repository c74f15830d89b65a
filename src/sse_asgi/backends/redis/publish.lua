-- Number one event, keep it in the history of each of its channels, and announce it.
--
-- KEYS: meta, index, the key to remember, then for each channel: its stream, its topic
-- ARGV: an epoch to begin with, the epoch that the caller knows, PUBLISH or SPUBLISH, seconds to remember (0: not),
--       the payload, then for each channel: its name, how many events it keeps, for how many milliseconds (0: for ever)
-- Returns the position, "<epoch>-<sequence>", and after a space what Redis refused when something was stored already.
local meta, index, memory = KEYS[1], KEYS[2], KEYS[3]
local verb, seconds, payload = ARGV[3], tonumber(ARGV[4]), ARGV[5]

if seconds > 0 then
    local first = redis.call('GET', memory)
    if first then return first end
end

local event = number(meta, index, ARGV[1], ARGV[2])
for channel = 0, (#KEYS - 3) / 2 - 1 do
    local name, size, ttl = ARGV[6 + channel * 3], ARGV[7 + channel * 3], ARGV[8 + channel * 3]
    local message = keep(event, index, payload, name, KEYS[4 + channel * 2], size, ttl)
    attempt(event, verb, KEYS[5 + channel * 2], message)
end

local position = event.epoch .. '-' .. event.sequence
if seconds > 0 then attempt(event, 'SET', memory, position, 'EX', seconds) end
return event.problem and position .. ' ' .. event.problem or position
