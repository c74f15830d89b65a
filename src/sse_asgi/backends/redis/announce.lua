-- Announce one event without keeping it, once for each key to remember.
--
-- KEYS: the key to remember, then the topics
-- ARGV: PUBLISH or SPUBLISH, seconds to remember (0: not), the message
-- Returns what Redis refused, if it did.
local seconds = tonumber(ARGV[2])
if seconds > 0 and not redis.call('SET', KEYS[1], '', 'NX', 'EX', seconds) then return end
local problem
for topic = 2, #KEYS do
    local reply = redis.pcall(ARGV[1], KEYS[topic], ARGV[3])
    problem = problem or type(reply) == 'table' and reply.err
end
return problem
