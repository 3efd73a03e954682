-- The holder gives its job back. ARGV: id, token, message, delay ms, 1 when it uses up a retry, then the steps
-- that were not told yet. The same again is accepted. A job that a person wanted cancelled is finished instead.
local id, token = ARGV[1], ARGV[2]
local job = get(id, 'state', 'token', 'returned', 'worker', 'class', 'attempt', 'cancel', 'need', 'score',
  'overdue', 'step')
if job[3] == token then return {'ok', job[1]} end
if not job[1] then return {'refused', 'unknown'} end
if job[1] ~= 'running' or job[2] ~= token then return {'refused', 'lost'} end
check_writable(id, job[5])
must_be('hash', key('leases:' .. job[4]))
tell_steps(id, job[6], job[11], 6)
redis.call('HSET', key('job:' .. id), 'returned', token, 'message', ARGV[3], 'step', '')
unlease(id, job[4])
local state, move = 'queued', 'requeue'
if job[7] == '1' then
  finish(id, 'cancelled', '', 'Cancelled while it ran.', '')
  state, move = 'finished', 'finish'
elseif job[10] == '1' then
  finish_overdue(id)
  state, move = 'finished', 'finish'
else
  if ARGV[5] == '1' then redis.call('HINCRBY', key('job:' .. id), 'retries_used', 1) end
  if tonumber(ARGV[4]) > 0 then
    into_held(id, 'time', string.format('%.0f', now_ms() + tonumber(ARGV[4])))
    state = 'held'
  else
    into_line(id, job[5], job[8], job[9])
  end
end
event(id, move, job[6], ARGV[3])
return {'ok', state}
