-- Number one event, keep it in the history of each of its channels, and announce it.
--
-- KEYS: meta, index, each channel's stream, and the key to remember if there is one; where a cluster moves a slot, each
--       key that does not exist yet has to wait, so that none is named that is not needed
-- ARGV: an epoch to begin with, the epoch that the caller knows, PUBLISH or SPUBLISH, seconds to remember (0: not),
--       the payload, then for each channel: its name, its topic, how many events it keeps, for how many milliseconds
--       (0: for ever)
-- Returns the position, "<epoch>-<sequence>", and after a space what Redis refused when something was stored already.
local meta, index = KEYS[1], KEYS[2]
local verb, seconds, payload = ARGV[3], tonumber(ARGV[4]), ARGV[5]
local memory = seconds > 0 and KEYS[#KEYS]

if memory then
    local first = redis.call('GET', memory)
    if first then return first end
end

local event = number(meta, index, ARGV[1], ARGV[2])
for channel = 0, (#ARGV - 5) / 4 - 1 do
    local name, topic, size, ttl = unpack(ARGV, 6 + channel * 4, 9 + channel * 4)
    local message = keep(event, index, payload, name, KEYS[3 + channel], size, ttl)
    attempt(event, verb, topic, message)
end

local position = event.epoch .. '-' .. event.sequence
if memory then attempt(event, 'SET', memory, position, 'EX', seconds) end
return event.problem and position .. ' ' .. event.problem or position
