-- Announce one event without keeping it, once for each key to remember.
--
-- KEYS: the key to remember, then the topics
-- ARGV: PUBLISH or SPUBLISH, seconds to remember (0: not), the message
local seconds = tonumber(ARGV[2])
if seconds > 0 and not redis.call('SET', KEYS[1], '', 'NX', 'EX', seconds) then return end
for topic = 2, #KEYS do
    redis.call(ARGV[1], KEYS[topic], ARGV[3])
end
