-- A person's cancel. ARGV: id, nonce of the request. A waiting job is finished; a running one is marked, and its holder
-- learns with a beat.
local id = ARGV[1]
local job = get(id, 'state', 'class', 'attempt', 'asked')
if not job[1] then return {'refused', 'unknown'} end
if job[4] == ARGV[2] then return {'ok'} end
if job[1] == 'finished' then return {'refused', 'finished'} end
check_writable(id, job[2])
redis.call('HSET', key('job:' .. id), 'asked', ARGV[2])
if job[1] == 'running' then
  redis.call('HSET', key('job:' .. id), 'cancel', '1')
else
  out_of_waiting(id, job[2])
  finish(id, 'cancelled', '', 'Cancelled before it ran.', '')
end
event(id, 'cancel', job[3], '')
return {'ok'}
