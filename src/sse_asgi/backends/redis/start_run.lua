-- Begin a run, unless there is one with this key.
--
-- KEYS: meta, index, the run, its stream, the schedule
-- ARGV: an epoch to begin with, the epoch that the caller knows, the key, the owner, the fingerprint, seconds of the
--       lease, milliseconds that the run is kept after its end
-- Returns the epoch and the fields of the record.
local run = run_of(string.sub(KEYS[1], 1, -2), ARGV[3], '', ARGV[1], ARGV[2])
if not record(run) then begin(run, ARGV[4], ARGV[5], ARGV[6], ARGV[7]) end
return reply(run)
