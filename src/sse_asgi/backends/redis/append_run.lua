-- Append events to a run, if the caller is its owner and has appended all events before.
--
-- KEYS: meta, index, the run, its stream
-- ARGV: an epoch to begin with, the epoch that the caller knows, the key, PUBLISH or SPUBLISH, the owner, how many
--       events it has appended before, then the payloads
-- Returns the epoch and the fields of the record, or nothing if there is no such run; then the error of Redis, if the
-- events were stored before it.
local run = run_of(string.sub(KEYS[1], 1, -2), ARGV[3], ARGV[4], ARGV[1], ARGV[2])
local found = record(run)
if not found then return false end
local problem
if found.state == 'running' and found.owner == ARGV[5] and found.appended == tonumber(ARGV[6]) then
    local last
    for payload = 7, #ARGV do
        last = write(run, ARGV[payload], found.appended == 0 and payload == 7)
        problem = problem or last.problem
    end
    if found.appended == 0 then redis.call('PEXPIRE', run.stream, redis.call('PTTL', run.hash)) end
    redis.call('HSET', run.hash, 'l', last.sequence, 'n', found.appended + #ARGV - 6)
end
local replied = reply(run)
replied[9] = problem
return replied
