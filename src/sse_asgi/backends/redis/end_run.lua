-- End a run that is running.
--
-- KEYS: meta, index, the run, its stream, the schedule
-- ARGV: an epoch to begin with, the epoch that the caller knows, the key, PUBLISH or SPUBLISH, the state, the reason,
--       the payload of its last event, the owner (empty: any), milliseconds that a lost record is kept, a name for this
--       call, how many events the run must have (empty: any, and the record may be lost)
-- Returns 1 if this call has ended it, also if it is repeated; else 0.
local run = run_of(string.sub(KEYS[1], 1, -2), ARGV[3], ARGV[4], ARGV[1], ARGV[2])
local state, reason, payload, owner, ttl, who, appended = unpack(ARGV, 5)
local found = record(run)
if not found then
    if owner == '' or appended ~= '' then return 0 end
    begin(run, owner, '', 0, ttl)
elseif found.state ~= 'running' then
    return redis.call('HGET', run.hash, 'z') == who and 1 or 0
elseif owner ~= '' and owner ~= found.owner or appended ~= '' and tonumber(appended) ~= found.appended then
    return 0
end
finish(run, state, reason, payload, who)
return 1
