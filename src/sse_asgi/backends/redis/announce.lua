-- Announce one event without keeping it. An idempotency key announces it only once.
--
-- KEYS: the key that remembers the idempotency key, then the topics
-- ARGV: PUBLISH or SPUBLISH, seconds to remember (0: not), the message
-- Returns the error of Redis, if there was one.
local seconds = tonumber(ARGV[2])
if seconds > 0 and not redis.call('SET', KEYS[1], '', 'NX', 'EX', seconds) then return end
local problem
for topic = 2, #KEYS do
    local reply = redis.pcall(ARGV[1], KEYS[topic], ARGV[3])
    problem = problem or type(reply) == 'table' and reply.err
end
return problem
