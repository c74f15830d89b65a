-- Begin a run, unless there is one with this key.
--
-- KEYS: meta, index, the run, its stream, the schedule
-- ARGV: an epoch to begin with, the epoch that the caller knows, the key, the owner, the fingerprint, seconds of the
--       lease, milliseconds that the run is kept after its end, the time after which it is not begun any more: the
--       caller has given up, and nobody would produce it
-- Returns the epoch and the fields of the record, or nothing if it is too late.
local run = run_of(string.sub(KEYS[1], 1, -2), ARGV[3], '', ARGV[1], ARGV[2])
if not record(run) then
    if clock() > tonumber(ARGV[8]) then return false end
    begin(run, ARGV[4], ARGV[5], ARGV[6], ARGV[7])
end
return reply(run)
