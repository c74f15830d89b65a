-- Renew the leases of runs, end those whose leases have run out, and forget those that were kept for long enough.
--
-- KEYS: meta, index, the schedule
-- ARGV: an epoch to begin with, the epoch that the caller knows, PUBLISH or SPUBLISH, seconds of a lease, the time up
--       to which to end runs whose lease has run out (later: ran out long ago), the payload of the last event of a lost
--       run, then for each run its key and its owner
-- Returns 1 if there may be more runs to end or forget, else 0; then the keys of those of the given runs that are not
-- running any more, or have another owner.
--
-- All names are of one slot.
local base, verb, lease, payload = string.sub(KEYS[1], 1, -2), ARGV[3], tonumber(ARGV[4]), ARGV[6]
local LONG, AT_ONCE = 60, 100
local gone = {}
for argument = 7, #ARGV, 2 do
    local run = run_of(base, ARGV[argument], verb, ARGV[1], ARGV[2])
    local found = record(run)
    if found and found.state == 'running' and found.owner == ARGV[argument + 1] then
        renew(run, lease, tonumber(redis.call('HGET', run.hash, 't')))
    else
        table.insert(gone, run.key)
    end
end

local horizon = string.format('%.3f', clock() <= tonumber(ARGV[5]) and clock() or clock() - LONG)
local due = redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', '(' .. horizon, 'LIMIT', 0, AT_ONCE)
for _, key in ipairs(due) do
    local run = run_of(base, key, verb, ARGV[1], ARGV[2])
    local found = record(run)
    if found and found.state == 'running' then finish(run, 'lost', 'lease', payload, '') else forget(run) end
end
return {#due == AT_ONCE and 1 or 0, gone}
