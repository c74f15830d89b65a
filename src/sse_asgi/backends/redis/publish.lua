-- Number one event, keep it in the history of each of its channels, and announce it.
--
-- KEYS: meta, index, each channel's stream, and the key that remembers the idempotency key, if there is one. While a
--       cluster moves the slot, a script waits for every key that does not exist yet, so that no key is named without
--       need
-- ARGV: an epoch to begin with, the epoch that the caller knows, PUBLISH or SPUBLISH, seconds to remember (0: not),
--       the payload, how many bytes all channels keep together (empty: they are not counted), then for each channel:
--       its name, its topic, how many events it keeps, for how many milliseconds (0: for ever), how many bytes of them
-- Returns the position, "<epoch>-<sequence>", and after a space the error of Redis, if the event was stored before it.
local meta, index = KEYS[1], KEYS[2]
local verb, seconds, payload = ARGV[3], tonumber(ARGV[4]), ARGV[5]
local memory = seconds > 0 and KEYS[#KEYS]

if memory then
    local first = redis.call('GET', memory)
    if first then return first end
end

local event = number(meta, index, EVENTS, ARGV[1], ARGV[2])
local places, previous = {}, {}
event.bound = tonumber(ARGV[6])
for channel = 1, (#ARGV - 6) / 5 do
    local at = place(event, meta, index, ARGV[2 + channel * 5], KEYS[2 + channel])
    places[channel], previous[channel * 2 - 1], previous[channel * 2] = at, at.name, at.before
end
previous = #places > 1 and cjson.encode(previous)
for channel, at in ipairs(places) do
    local topic, size, ttl, bytes = unpack(ARGV, 3 + channel * 5, 6 + channel * 5)
    local most = event.bound and #payload * #places > event.bound and 0 or tonumber(bytes)
    local message = keep(event, meta, index, payload, at, size, ttl, most, previous)
    attempt(event, verb, topic, message)
end
relieve(event, meta, payload, places)

local position = event.epoch .. '-' .. event.sequence
if memory then attempt(event, 'SET', memory, position, 'EX', seconds) end
return event.problem and position .. ' ' .. event.problem or position
